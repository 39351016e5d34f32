//! What takes long at a terminal shows that it works. It is a person's alone: only a terminal sees it, only after a
//! moment, and nothing of it is left when the work is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over by then was waited for by nobody.
const APPEARS_AFTER: Duration = Duration::from_millis(300);
const TURNS_EVERY: Duration = Duration::from_millis(100);

/// A terminal has room for one; work within work is told of by the outer.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Does the work, and says at the terminal what it is while that takes. Where standard error is no terminal, or one
/// that cannot erase a line, nothing is said.
pub(crate) fn during<T>(doing: &'static str, work: impl FnOnce() -> T) -> T {
    let Some(_place) = Place::take() else { return work() };
    std::thread::scope(|scope| {
        // Its end is the end of the work, in a panic as well. The scope ends after the line is erased.
        let (_at_work, end) = sync_channel::<()>(0);
        scope.spawn(move || show(doing, &end));
        work()
    })
}

/// Shows it from when it is waited for until the other end of the channel is gone.
fn show(doing: &'static str, end: &Receiver<()>) {
    if end.recv_timeout(APPEARS_AFTER) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is known");
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    spinner.set_style(style.tick_strings(&["|", "/", "-", "\\", " "]));
    spinner.set_message(format!("{doing} …"));
    spinner.enable_steady_tick(TURNS_EVERY);
    // Nothing is ever sent.
    let _ = end.recv();
    spinner.finish_and_clear();
}

struct Place;

impl Place {
    fn take() -> Option<Self> {
        (!IS_TAKEN.swap(true, Ordering::Relaxed)).then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        IS_TAKEN.store(false, Ordering::Relaxed);
    }
}
