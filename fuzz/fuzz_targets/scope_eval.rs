//! See `policy::fuzzing::scope_eval`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzzing::scope_eval(data));
