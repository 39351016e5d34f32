//! See `gateway::fuzzing::sse_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzzing::sse_frame(data));
