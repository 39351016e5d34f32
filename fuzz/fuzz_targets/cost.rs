//! See `policy::fuzzing::cost`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzzing::cost(data));
