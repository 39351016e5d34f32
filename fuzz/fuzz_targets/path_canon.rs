//! See `gateway::fuzzing::path_canon`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::path_canon(data));
