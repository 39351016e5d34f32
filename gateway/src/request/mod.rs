//! A request's life: `proxy` is one phase after the other, `context` what is remembered of it, and the rest is what the
//! phases call, in their order.

pub(crate) mod proxy;
pub(crate) mod context;
pub(crate) mod facts;
pub(crate) mod boundary;
pub(crate) mod cors;
pub(crate) mod route;
pub(crate) mod authenticate;
pub(crate) mod rates;
pub(crate) mod attenuate;
pub(crate) mod passthrough;
pub(crate) mod body;
pub(crate) mod headers;
pub(crate) mod quote;
mod admission;
mod panics;
pub(crate) mod cover;
pub(crate) mod respond;
pub(crate) mod cutting;
pub(crate) mod fencing;
