//! See `vault::fuzzing::vault_slots`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault::fuzzing::vault_slots(data));
