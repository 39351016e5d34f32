//! The fence: what looks for secrets in what goes by, on its way to the caller and to the provider.
//!
//! An answer is read into its texts (`reader`, `texts`, `place`), each of which is scanned by itself, since its pieces
//! come apart, a few letters an event. Bytes are held back only while some text ends with what may be the beginning of
//! a secret; so ordinary text is never late, and a secret is known before its caller has it. A key is masked in place;
//! a canary ends the answer. A request is there as a whole before anything is sent, and is scanned whole (`request`).

mod place;
mod escapes;
mod texts;
mod spelled;
mod reader;
mod watch;
mod answer;
mod request;

pub(crate) use answer::{Fence, Passed};
pub(crate) use request::{Part, leak};
pub(crate) use watch::{Finding, Watch, Watched};

#[cfg(test)]
mod benign_tests;
