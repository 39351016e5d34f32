//! See `vault::fuzzing::vault_mutate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault::fuzzing::vault_mutate(data));
