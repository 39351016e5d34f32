//! See `gateway::fuzzing::usage_parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::usage_parse(data));
