//! Where requests go: the providers, their routes, the credentials that are theirs, and the way to them.

pub mod catalogue;
pub(crate) mod pattern;
pub(crate) mod credentials;
pub(crate) mod upstream;
