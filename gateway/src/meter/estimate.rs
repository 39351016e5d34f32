//! Estimates from bytes, for when nothing better is known, and a bound for when an estimate is not enough.

use crate::wire::Contents;
use crate::wire::contents::{IMAGE_TOKENS, base64_tokens};

/// Bytes of a request body to a token. Agents' bodies have 4.4 to 4.5 (measured), so this errs on the dear side.
const INPUT_BYTES_PER_TOKEN: u64 = 4;

/// Bytes of generated text to a token. Prose has 4.2, code fewer.
const OUTPUT_BYTES_PER_TOKEN: u64 = 3;

/// The most that an image is billed as, in tokens. The dearest known is OpenAI's gpt-4o-mini: 2833 and 5667 for each
/// of at most eight squares of 512 pixels, in an image that is scaled to 768 by 2048, which is 48,169
/// (platform.openai.com/docs/guides/images-vision, "Calculating costs"; bills of 2845 and 8512 for one square are in
/// community.openai.com/t/1262691). How many bytes an image has says nothing of its size in pixels.
const IMAGE_TOKENS_MAX: u64 = 50_000;

/// The same for a Claude model, whose images have a few thousand at most (docs.claude.com, "Vision").
const CLAUDE_IMAGE_TOKENS_MAX: u64 = 10_000;

/// Input tokens of a request body of so many bytes, of which nothing else is known.
pub fn estimate_input(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(INPUT_BYTES_PER_TOKEN)
}

/// Input tokens of a request body with these contents.
pub fn estimate_contents(contents: &Contents) -> u64 {
    let text = estimate_input(contents.text_bytes());
    let linked = u64::from(contents.linked_images) * IMAGE_TOKENS;
    text.saturating_add(base64_tokens(contents.base64_bytes)).saturating_add(contents.image_tokens + linked)
}

/// The most input tokens that a request body with these contents can be billed as by this model, tools that the
/// provider runs itself left aside; `None` where the body does not tell, because it names or holds a document or
/// something that the provider has. Then only the model's own limit bounds it.
///
/// No tokenizer makes more than one token of a byte, so what is no image counts its bytes.
pub fn input_upper_bound(contents: &Contents, model: Option<&str>) -> Option<u64> {
    if contents.is_unbounded {
        return None;
    }
    let is_claude = model.is_some_and(|model| model.contains("claude"));
    let each = if is_claude { CLAUDE_IMAGE_TOKENS_MAX } else { IMAGE_TOKENS_MAX };
    let counts = [contents.placed_images, contents.linked_images, contents.doubtful_images];
    let images = counts.into_iter().map(u64::from).sum::<u64>();
    Some(contents.bytes.saturating_sub(contents.placed_bytes).saturating_add(images * each))
}

/// Output tokens of so many bytes of generated text.
pub fn estimate_output(text_bytes: u64) -> u64 {
    text_bytes.div_ceil(OUTPUT_BYTES_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_input(contents: Contents, estimate: u64, bound: Option<u64>) {
        assert_eq!(estimate_contents(&contents), estimate);
        assert_eq!(input_upper_bound(&contents, None), bound);
    }

    #[test]
    fn text_and_base64_and_images_have_prices_of_their_own() {
        let text = Contents { bytes: 4001, ..Contents::default() };
        check_input(text, 1001, Some(4001));
        check_input(Contents { base64_bytes: 1401, ..text }, 650 + 1001, Some(4001));
        let image = Contents { images: 1, image_bytes: 2001, image_tokens: 1430, ..text };
        // Where nobody is known to take it for an image it counts as both.
        check_input(Contents { doubtful_images: 1, ..image }, 500 + 1430, Some(4001 + 50_000));
        let placed = Contents { placed_images: 1, placed_bytes: 2001, ..image };
        check_input(placed, 500 + 1430, Some(2000 + 50_000));
        assert_eq!(input_upper_bound(&placed, Some("anthropic/claude-opus-5")), Some(2000 + 10_000));
        check_input(Contents { linked_images: 2, ..text }, 1001 + 10_000, Some(4001 + 100_000));
        check_input(Contents { is_unbounded: true, ..text }, 1001, None);
        check_input(Contents::default(), 0, Some(0));
    }

    #[test]
    fn no_counts_can_overflow() {
        let (count, bytes) = (u32::MAX, u64::MAX);
        let contents = Contents { bytes, base64_bytes: bytes, linked_images: count, ..Contents::default() };
        assert!(estimate_contents(&contents) > u64::MAX / 8);
        let contents = Contents { bytes, placed_images: count, linked_images: count, ..Contents::default() };
        assert_eq!(input_upper_bound(&contents, None), Some(u64::MAX));
    }
}
