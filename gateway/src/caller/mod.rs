//! Between a caller's socket and the engine: what is let through, for how long, and how it is cut.

pub(crate) mod framing;
pub(crate) mod connection;
pub(crate) mod lifeline;
pub(crate) mod progress;
pub(crate) mod live;
pub(crate) mod places;
pub(crate) mod guard;
pub(crate) mod socket;
pub(crate) mod listen;
