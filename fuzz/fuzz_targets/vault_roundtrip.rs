//! See `vault::fuzzing::vault_roundtrip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault::fuzzing::vault_roundtrip(data));
