//! A stolen key is found, and honest use is not.

mod account;
mod background;
mod errors;
mod thief;
mod week;
