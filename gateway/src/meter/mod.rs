//! Hot: reads what an answer consumed while its bytes go by.
//!
//! The meter sees every chunk of a response body and never keeps one. From the provider's own report it takes the
//! token counts (the last value of each wins, so cumulative reports are never added up), the model, the service tier
//! and a cost if there is one; and it counts the text that came, for the answer that ends without a report. Where the
//! chunks are cut changes nothing, and no event is too large.

mod estimate;
mod number;
mod places;
mod report;

use policy::{Basis, NanoUsd, Usage};

use crate::wire::sse::{Frames, Piece};
use crate::wire::tokens::Tokens;
use crate::wire::{Framing, WireFormat};

pub use estimate::{estimate_contents, estimate_input, estimate_output, input_upper_bound};
use places::Place;
use report::Report;

/// The meter of one answer.
#[derive(Debug)]
pub struct Meter {
    framing: Framing,
    frames: Frames,
    tokens: Tokens<Place>,
    report: Report,
}

/// What an answer consumed, as far as its bytes told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    /// The provider's report. None is not zero: nothing was reported.
    pub usage: Option<Usage>,
    /// The model that answered, in the provider's words.
    pub model: Option<String>,
    /// The service tier that answered, in the provider's words; it decides the price, not the tier asked for.
    pub service_tier: Option<String>,
    /// The cost in the provider's own report, rounded up to a whole nano-dollar.
    pub reported_cost: Option<NanoUsd>,
    /// The generated text that went by, in bytes, without JSON's escapes.
    pub output_text_bytes: u64,
    /// How the answer ended.
    pub ending: Ending,
    /// Whether the report held numbers that cannot be counts or amounts; they were ignored, or clamped if huge.
    pub has_bad_numbers: bool,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In the middle, as far as one can tell.
    Open,
    /// With what the format puts at its end.
    Complete,
    /// With the provider's error.
    Error,
}

impl Meter {
    /// A meter for an answer that begins.
    pub fn new(wire: WireFormat, framing: Framing) -> Self {
        Self {
            framing,
            frames: Frames::default(),
            tokens: Tokens::new::<Report>(),
            report: Report::new(wire, framing),
        }
    }

    /// The same, in the service tier that the head of the answer names.
    #[must_use]
    pub fn served_in(self, service_tier: Option<&str>) -> Self {
        Self { report: self.report.served_in(service_tier), ..self }
    }

    /// Reads the next chunk of the decoded body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match self.framing {
            Framing::Sse => self.feed_events(chunk),
            Framing::Ndjson => self.feed_lines(chunk),
            Framing::Json => self.tokens.feed(chunk, &mut self.report),
        }
    }

    /// An estimate of the output tokens so far, from the text that came; for budgets that grow with a stream.
    pub fn output_tokens_so_far(&self) -> u64 {
        estimate_output(self.report.output_text_bytes())
    }

    /// The generated text that went by, in bytes.
    pub(crate) fn output_text_bytes(&self) -> u64 {
        self.report.output_text_bytes()
    }

    /// What the provider has reported so far, if that is more than at the last call.
    pub(crate) fn take_news(&mut self) -> Option<Usage> {
        self.report.take_news()
    }

    /// What is known so far; after the last chunk, the result.
    pub fn metered(&self) -> Metered {
        self.report.metered()
    }

    /// The result, after the last chunk.
    pub fn finish(self) -> Metered {
        self.metered()
    }

    fn feed_events(&mut self, mut chunk: &[u8]) {
        while let Some((piece, rest)) = self.frames.next(chunk) {
            chunk = rest;
            match piece {
                Piece::Data(data) => self.tokens.feed(data, &mut self.report),
                Piece::DataEnd => self.tokens.feed(b"\n", &mut self.report),
                // Whatever the event left open must not reach into the next.
                Piece::EventEnd => self.tokens.restart::<Report>(),
                Piece::Other | Piece::LineFeed => {}
            }
        }
    }

    fn feed_lines(&mut self, mut chunk: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(end + 1);
            self.tokens.feed(line, &mut self.report);
            self.tokens.restart::<Report>();
            chunk = rest;
        }
        self.tokens.feed(chunk, &mut self.report);
    }
}

impl Metered {
    /// The usage to charge, for a request of about so many input tokens: the report, completed or replaced by an
    /// estimate where the answer broke off before its report, so that what was streamed is never free.
    pub fn usage_or_estimate(&self, estimated_input: u64) -> (Usage, Basis) {
        let streamed = estimate_output(self.output_text_bytes);
        match self.usage {
            // Early reports (Anthropic's first event, Gemini's early ones) know the input, but not yet the output.
            Some(usage) if self.ending != Ending::Complete && streamed > usage.output => {
                (Usage { output: streamed, ..usage }, Basis::Estimated)
            }
            Some(usage) => (usage, Basis::Reported),
            None => {
                let input = estimated_input;
                (Usage { input, output: streamed, ..Usage::default() }, Basis::Estimated)
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
