//! The vault through its public API, on real files.

mod concurrency;
mod files;
mod lifecycle;
mod support;
mod transfer;
mod vectors;
