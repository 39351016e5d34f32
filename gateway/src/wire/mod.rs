//! What providers' bytes mean: formats, the facts of a request, and the frames and tokens of an answer.
//!
//! Nothing here knows HTTP or Pingora. A request body is read once by a strict scanner that takes the few fields
//! a decision needs; an answer is read piece by piece as it goes by, with memory that does not grow with it.
//! The meter is built on the second half.

mod format;
mod request;
pub(crate) mod contents;
mod rewrite;
mod hide_usage;
mod seam;
mod ending;
pub(crate) mod sse;
pub(crate) mod tokens;
mod scan;
mod coding;

pub use coding::Decoder;
pub use contents::Contents;
pub use ending::{Cause, ending};
pub use format::{Framing, UnknownWireFormat, WireFormat};
pub use hide_usage::HideUsage;
pub use request::{LimitField, OutputLimit, RequestFacts, RequestFault, request_facts};
pub use rewrite::{inject_include_usage, limit_output};
pub(crate) use scan::unescaped;
pub use seam::Seam;

/// The end of the paths that stream a JSON array, unless events are asked for.
pub(crate) const ARRAY_STREAM: &str = ":streamGenerateContent";
