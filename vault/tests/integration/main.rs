//! The vault through its public API, on real files.

mod lifecycle;
mod support;
