//! tokfence
fn main() {}
