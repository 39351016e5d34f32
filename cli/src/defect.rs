//! What is said where the program itself fails: at which place of it, and nothing of what it worked on. The message of a
//! panic may hold a key, or what a caller sent.

use std::panic::PanicHookInfo;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// From now on a panic is told like any other error.
pub(crate) fn tell_by(output: Output) {
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!("the program itself failed at {}", place(panic));
        let failure = Failure::new(Exit::Failed, "internal_error", message);
        output.failure(&failure.with_hint("this is a defect of tokfence; what it was doing is not finished"));
    }));
}

/// Where in the program it was.
pub(crate) fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// Fails on purpose, for the tests of what is left then. Only a debug build whose owner asks for it has it.
#[track_caller]
pub(crate) fn panic_if_asked(stage: &str) {
    if cfg!(debug_assertions) {
        let asked = std::env::var("TOKFENCE_TEST_PANIC").unwrap_or_default();
        assert_ne!(asked, stage, "as it was asked");
    }
}
