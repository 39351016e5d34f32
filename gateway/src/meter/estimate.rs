//! Estimates from bytes, for when nothing better is known.

/// Bytes of a request body to a token. Agents' bodies have 4.4 to 4.5 (measured), so this errs on the dear side.
const INPUT_BYTES_PER_TOKEN: u64 = 4;

/// Bytes of generated text to a token. Prose has 4.2, code fewer.
const OUTPUT_BYTES_PER_TOKEN: u64 = 3;

/// Input tokens of a request body of so many bytes.
pub fn estimate_input(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(INPUT_BYTES_PER_TOKEN)
}

/// Output tokens of so many bytes of generated text.
pub fn estimate_output(text_bytes: u64) -> u64 {
    text_bytes.div_ceil(OUTPUT_BYTES_PER_TOKEN)
}
