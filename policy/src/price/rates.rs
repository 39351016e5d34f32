//! Rates: what one unit of each part of a usage costs.

use std::fmt;

/// Nano-dollars per million: of tokens, or of what is counted by the piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenPrice(u64);

/// The parts of a usage that can have a rate of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Input tokens of text, or of a kind that has no rate of its own.
    Input,
    /// Output tokens of text.
    Output,
    /// Input tokens that came from a cache.
    CacheRead,
    /// Input tokens written to a cache for five minutes, or for the provider's only lifetime.
    CacheWrite5m,
    /// Input tokens written to a cache for an hour, or for the longer of two lifetimes.
    CacheWrite1h,
    /// Output tokens that were reasoning.
    Reasoning,
    /// Input tokens of sound.
    AudioInput,
    /// Input tokens of sound that came from a cache.
    AudioCacheRead,
    /// Output tokens of sound.
    AudioOutput,
    /// Input tokens of images.
    ImageInput,
    /// Input tokens of images that came from a cache.
    ImageCacheRead,
    /// Output tokens of images.
    ImageOutput,
    /// The request itself.
    Request,
    /// A search of the web that the provider made for the answer.
    Search,
}

/// The rates of a model. Input and output are always known; the methods say what stands in for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    listed: [Option<TokenPrice>; Part::ALL.len()],
}

impl TokenPrice {
    /// A price given in nano-dollars per million tokens.
    pub const fn from_nanos_per_mtok(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The price in nano-dollars per million tokens.
    pub const fn nanos_per_mtok(self) -> u64 {
        self.0
    }

    /// The exact product, in millionths of a nano-dollar.
    pub(super) fn scaled(self, count: u64) -> u128 {
        u128::from(self.0) * u128::from(count)
    }
}

impl Part {
    /// Every part, in the order in which a bill lists them.
    pub const ALL: [Self; 14] = [
        Self::Input,
        Self::Output,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::Reasoning,
        Self::AudioInput,
        Self::AudioCacheRead,
        Self::AudioOutput,
        Self::ImageInput,
        Self::ImageCacheRead,
        Self::ImageOutput,
        Self::Request,
        Self::Search,
    ];

    /// The stable name: `input`, `cache_write_1h`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::Reasoning => "reasoning",
            Self::AudioInput => "audio_input",
            Self::AudioCacheRead => "audio_cache_read",
            Self::AudioOutput => "audio_output",
            Self::ImageInput => "image_input",
            Self::ImageCacheRead => "image_cache_read",
            Self::ImageOutput => "image_output",
            Self::Request => "request",
            Self::Search => "search",
        }
    }

    /// The part of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == name)
    }

    /// Whether it is counted by the piece and not in tokens.
    pub fn is_by_the_piece(self) -> bool {
        matches!(self, Self::Request | Self::Search)
    }

    /// Whether it is among the output.
    pub fn is_output(self) -> bool {
        matches!(self, Self::Output | Self::Reasoning | Self::AudioOutput | Self::ImageOutput)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rates {
    /// The rates of a model of which only these two are known.
    pub fn new(input: TokenPrice, output: TokenPrice) -> Self {
        Self::default().with(Part::Input, input).with(Part::Output, output)
    }

    /// The same with a rate for one more part.
    #[must_use]
    pub fn with(mut self, part: Part, price: TokenPrice) -> Self {
        self.listed[part as usize] = Some(price);
        self
    }

    /// The rate as it is listed, if it is.
    pub fn listed(&self, part: Part) -> Option<TokenPrice> {
        self.listed[part as usize]
    }

    /// What one unit costs: the rate that is listed, or the one that stands in for it. No token is free because its
    /// rate is not listed: one from a cache costs what plain input does, and reasoning what other output does. A fee
    /// by the piece that is not listed is none.
    pub fn get(&self, part: Part) -> TokenPrice {
        let stands_in = || match part {
            Part::Input | Part::Output | Part::Request | Part::Search => TokenPrice::default(),
            Part::CacheRead | Part::CacheWrite5m | Part::AudioInput | Part::ImageInput => self.input(),
            Part::CacheWrite1h => self.get(Part::CacheWrite5m),
            Part::Reasoning | Part::AudioOutput | Part::ImageOutput => self.output(),
            // A discount that is only known for text is none for what is dearer than text.
            Part::AudioCacheRead => {
                self.listed(Part::AudioInput).unwrap_or_else(|| self.get(Part::CacheRead))
            }
            Part::ImageCacheRead => {
                self.listed(Part::ImageInput).unwrap_or_else(|| self.get(Part::CacheRead))
            }
        };
        self.listed(part).unwrap_or_else(stands_in)
    }

    /// Input tokens that no cache was involved in.
    pub fn input(&self) -> TokenPrice {
        self.get(Part::Input)
    }

    /// Output tokens of text.
    pub fn output(&self) -> TokenPrice {
        self.get(Part::Output)
    }

    /// The dearest that a token of the answer can be.
    pub fn dearest_output(&self) -> TokenPrice {
        let prices = Part::ALL.into_iter().filter(|part| part.is_output()).map(|part| self.get(part));
        prices.max().unwrap_or_default()
    }

    /// Of each part the dearer of two rates.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self { listed: Part::ALL.map(|part| Some(self.get(part).max(other.get(part)))) }
    }
}
