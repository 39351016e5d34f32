//! What somebody writes into the configuration.

use std::path::Path;

use super::BYTES_MAX;
use crate::config::Config;

/// A text is read whole or not at all; each fault has its place in the text; and what is accepted says nothing that was
/// not understood: with one key more that nobody knows it is refused.
pub fn config_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(&data[..data.len().min(BYTES_MAX)]) else { return };
    match parse(text) {
        Ok(()) => {
            assert!(parse(&format!("{text}\n[nobody_knows_this]\nkey = 1\n")).is_err());
            assert!(parse(&format!("nobody_knows_this = 1\n{text}")).is_err());
        }
        Err(faults) => assert!(!faults.is_empty() && faults.iter().all(|line| *line <= lines(text))),
    }
}

/// The lines of the faults.
fn parse(text: &str) -> Result<(), Vec<usize>> {
    let parsed = Config::parse(text, Path::new("/nowhere"));
    parsed.map(|_| ()).map_err(|faults| faults.iter().map(|fault| fault.line).collect())
}

/// A text may end with a line that has nothing on it, where something is missing.
fn lines(text: &str) -> usize {
    text.split('\n').count()
}
