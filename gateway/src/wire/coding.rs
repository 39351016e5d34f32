//! Answers that come compressed although none was asked for, as plain bytes again.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// More than this no answer has.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// From this many bytes on an answer may not have been compressed beyond [`RATIO_MAX`]. No text is.
const RATIO_FREE_BYTES: u64 = 1024 * 1024;
const RATIO_MAX: u64 = 100;
/// The same of what is read at once, 64 KiB at most, since all that it means is in memory at once. Events of a stream, of which
/// each repeats the last but for a word, mean some thirty times their size.
const PIECE_RATIO_MAX: usize = 40;
/// What an encoder for HTTP may look back at most (RFC 9659), as a power of two. It is memory that a provider chooses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const BROTLI_BUFFER_BYTES: usize = 4096;

/// Turns a compressed body into what it was, chunk by chunk.
pub struct Decoder(Kind);

enum Kind {
    Gzip(Box<MultiGzDecoder<Plain>>),
    /// Not begun: two formats have this name.
    Deflate(Plain),
    Zlib(Box<ZlibDecoder<Plain>>),
    RawDeflate(Box<DeflateDecoder<Plain>>),
    Brotli(Box<brotli::DecompressorWriter<Plain>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Plain>>),
}

/// What was decoded, up to a bound.
#[derive(Debug, Default)]
struct Plain {
    bytes: Vec<u8>,
    decoded: u64,
    coded: u64,
    /// How many more the present piece may mean.
    piece: u64,
}

impl Decoder {
    /// For a body of this `Content-Encoding`; `None` for one that is not understood.
    pub fn new(coding: &str) -> Option<Self> {
        let plain = Plain::default();
        Some(Self(match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Kind::Gzip(Box::new(MultiGzDecoder::new(plain))),
            "deflate" => Kind::Deflate(plain),
            "br" => Kind::Brotli(Box::new(brotli::DecompressorWriter::new(plain, BROTLI_BUFFER_BYTES))),
            "zstd" => {
                let mut decoder = zstd::stream::write::Decoder::new(plain).ok()?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
                Kind::Zstd(Box::new(decoder))
            }
            _ => return None,
        }))
    }

    /// What the next bytes of the body mean, which may be nothing yet.
    ///
    /// # Errors
    /// When they are not what the coding says, or mean more than any answer has.
    pub fn decode(&mut self, coded: &[u8]) -> io::Result<Bytes> {
        if coded.is_empty() {
            return Ok(Bytes::new());
        }
        self.tell_deflates_apart(coded);
        self.plain().coded += coded.len() as u64;
        // A bomb must not wait until the whole has room for it.
        let piece = coded.len().saturating_mul(PIECE_RATIO_MAX);
        self.plain().piece = RATIO_FREE_BYTES.max(piece as u64);
        // Grown by and by, it would take up twice of what it comes to: pages that are not written to are not there.
        self.plain().bytes.reserve_exact(piece);
        match &mut self.0 {
            Kind::Gzip(decoder) => write(decoder.as_mut(), coded)?,
            Kind::Deflate(plain) => plain.write_all(coded)?,
            Kind::Zlib(decoder) => write(decoder.as_mut(), coded)?,
            Kind::RawDeflate(decoder) => write(decoder.as_mut(), coded)?,
            Kind::Brotli(decoder) => write(decoder.as_mut(), coded)?,
            Kind::Zstd(decoder) => write(decoder.as_mut(), coded)?,
        }
        let mut bytes = std::mem::take(&mut self.plain().bytes);
        bytes.shrink_to_fit();
        Ok(bytes.into())
    }

    /// What is called `deflate` should have zlib's head, and often has none.
    fn tell_deflates_apart(&mut self, coded: &[u8]) {
        if let Kind::Deflate(plain) = &mut self.0 {
            let plain = std::mem::take(plain);
            let is_zlib = coded[0] & 0x0f == 8 && coded[0] >> 4 <= 7;
            self.0 = if is_zlib {
                Kind::Zlib(Box::new(ZlibDecoder::new(plain)))
            } else {
                Kind::RawDeflate(Box::new(DeflateDecoder::new(plain)))
            };
        }
    }

    fn plain(&mut self) -> &mut Plain {
        match &mut self.0 {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Deflate(plain) => plain,
            Kind::Zlib(decoder) => decoder.get_mut(),
            Kind::RawDeflate(decoder) => decoder.get_mut(),
            Kind::Brotli(decoder) => decoder.get_mut(),
            Kind::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

/// Writes and flushes, so that nothing waits in the decoder for more.
fn write(decoder: &mut impl Write, coded: &[u8]) -> io::Result<()> {
    decoder.write_all(coded)?;
    decoder.flush()
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len() as u64;
        self.decoded += count;
        let bound = RATIO_FREE_BYTES.max(self.coded.saturating_mul(RATIO_MAX)).min(BYTES_MAX);
        let left = self.piece.checked_sub(count).filter(|_| self.decoded <= bound);
        self.piece = left.ok_or_else(|| io::Error::other("the body means more than any answer has"))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    const CODINGS: [&str; 5] = ["gzip", "deflate", "raw", "br", "zstd"];

    fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
        fn written<W: Write>(mut encoder: W, text: &[u8]) -> W {
            encoder.write_all(text).unwrap();
            encoder
        }
        let level = Compression::default();
        match coding {
            "gzip" => written(GzEncoder::new(Vec::new(), level), text).finish().unwrap(),
            "deflate" => written(ZlibEncoder::new(Vec::new(), level), text).finish().unwrap(),
            "raw" => written(DeflateEncoder::new(Vec::new(), level), text).finish().unwrap(),
            "br" => written(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20), text).into_inner(),
            _ => zstd::encode_all(text, 3).unwrap(),
        }
    }

    fn decoder(coding: &str) -> Decoder {
        Decoder::new(if coding == "raw" { "deflate" } else { coding }).unwrap()
    }

    #[test]
    fn what_was_coded_is_decoded_however_it_arrives() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for coding in CODINGS {
            let coded = coded(coding, &text);
            for size in [1, 100, coded.len()] {
                let mut decoder = decoder(coding);
                let parts = coded.chunks(size).map(|part| decoder.decode(part).unwrap());
                assert_eq!(parts.collect::<Vec<_>>().concat(), text, "{coding} {size}");
            }
        }
    }

    #[test]
    fn a_bomb_and_what_is_not_coded_at_all_are_errors() {
        let bomb = vec![0; 8 * 1024 * 1024];
        for coding in CODINGS {
            assert!(decoder(coding).decode(&coded(coding, &bomb)).is_err(), "{coding}");
        }
        for coding in ["gzip", "br", "zstd"] {
            assert!(decoder(coding).decode(&[0xff; 64]).is_err(), "{coding}");
        }
        assert!(Decoder::new("compress").is_none());
    }

    #[test]
    fn a_bomb_behind_much_that_is_none_is_one_as_well() {
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let text: Vec<u8> = noise.take(1024 * 1024).chain(std::iter::repeat_n(0, 20 * 1024 * 1024)).collect();
        for coding in CODINGS {
            let coded = coded(coding, &text);
            assert!(coded.len() as u64 * RATIO_MAX > text.len() as u64, "the whole is within the bounds");
            let mut decoder = decoder(coding);
            assert!(coded.chunks(64 * 1024).any(|piece| decoder.decode(piece).is_err()), "{coding}");
        }
    }

    #[test]
    fn what_is_read_at_once_means_little_enough_to_be_in_memory_at_once() {
        // As much as a page repeats of the one before it decides how far it is compressed.
        let text = |repeats: usize| -> Vec<u8> {
            let pages = (0..40u32).flat_map(|page| {
                let numbers =
                    (0..250u32).flat_map(move |n| (page * 977 + n * n * 31).to_string().into_bytes());
                std::iter::repeat_n(numbers, repeats).flatten()
            });
            pages.collect()
        };
        for coding in ["gzip", "deflate", "raw"] {
            for (repeats, is_read) in [(20, true), (50, false)] {
                let text = text(repeats);
                let coded = coded(coding, &text);
                let (size, ratio) = (coded.len(), text.len() / coded.len());
                assert!(
                    size <= 64 * 1024 && (ratio < PIECE_RATIO_MAX) == is_read,
                    "{coding}: {size} {ratio}"
                );
                assert!((ratio as u64) < RATIO_MAX, "{coding}: {ratio} is too much for the whole");
                assert_eq!(decoder(coding).decode(&coded).is_ok(), is_read, "{coding}");
            }
        }
    }

    #[test]
    fn a_provider_does_not_choose_how_far_zstd_looks_back() {
        for (window_log, is_read) in [(23, true), (24, false), (27, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            encoder.write_all(b"short").unwrap();
            let coded = encoder.finish().unwrap();
            assert_eq!(decoder("zstd").decode(&coded).is_ok(), is_read, "{window_log}");
        }
    }
}
