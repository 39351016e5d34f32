//! See `policy::fuzzing::token_parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzzing::token_parse(data));
