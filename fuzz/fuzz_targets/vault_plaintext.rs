//! See `vault::fuzzing::vault_plaintext`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault::fuzzing::vault_plaintext(data));
