//! See `gateway::fuzzing::mask`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::mask(data));
