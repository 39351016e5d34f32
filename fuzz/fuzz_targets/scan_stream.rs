//! See `gateway::fuzzing::scan_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::scan_stream(data));
