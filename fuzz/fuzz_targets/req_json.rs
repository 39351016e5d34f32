//! See `gateway::fuzzing::req_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::req_json(data));
