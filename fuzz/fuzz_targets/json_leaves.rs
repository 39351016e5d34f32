//! See `gateway::fuzzing::json_leaves`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::json_leaves(data));
