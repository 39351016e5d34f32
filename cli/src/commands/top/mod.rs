//! `top`: everything that happens, on one screen, with keys to stop it.

mod draw;
mod feed;
mod rows;
#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::{emulate_default_handler, unregister};

use crate::app::App;
use crate::defect::panic_if_asked;
use crate::failure::{Exit, Failure};
use draw::{Looks, draw};
pub(super) use feed::ask;
use feed::{News, Order, feed};
use view::{Next, View};

/// How long keys are waited for before it is looked what else has come.
const TICK: Duration = Duration::from_millis(50);
/// How long the daemon may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows everything until it is left; with `--json` once.
pub(crate) fn top(app: &App) -> Result<ExitCode, Failure> {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !app.output.is_json && !is_terminal {
        let failure = Failure::new(Exit::Usage, "no_terminal", "this is not a terminal");
        return Err(failure.with_hint("tokfence top --json tells it once"));
    }
    let overview = ask(app, PATIENCE)?;
    if app.output.is_json {
        app.output.data(&serde_json::to_value(&overview).unwrap_or_default(), String::new);
        return Ok(ExitCode::SUCCESS);
    }
    let view = View::of(overview);
    let quiet = &app.quiet();
    let (orders, received) = channel();
    let (told, news) = channel();
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(quiet, &received, &told));
        let shown = show(view, Looks { has_color: app.output.has_color(&io::stdout()) }, orders, &news);
        // Where that thread has panicked this one goes on with it: it was told of already.
        feeder.join().unwrap_or_else(|panic| resume_unwind(panic));
        shown
    })
    .map_err(|error| Failure::failed("use the terminal", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// Uses the terminal until the view is left, and gives it back as it was: at a signal and at a panic, too.
fn show(view: View, looks: Looks, orders: Sender<Order>, news: &Receiver<News>) -> io::Result<()> {
    let caught = Caught::listen()?;
    let terminal = ratatui::try_init();
    let left = terminal.and_then(|terminal| run(terminal, view, looks, &orders, news, &caught));
    let restored = ratatui::try_restore();
    // Nobody waits for the thread that asks while it waits for orders.
    drop(orders);
    caught.obey()?;
    left.and(restored)
}

fn run(
    mut terminal: DefaultTerminal,
    mut view: View,
    looks: Looks,
    orders: &Sender<Order>,
    news: &Receiver<News>,
    caught: &Caught,
) -> io::Result<()> {
    let mut is_new = true;
    while caught.signal().is_none() {
        loop {
            match news.try_recv() {
                Ok(told) => take(&mut view, told),
                Err(TryRecvError::Empty) => break,
                // The thread has ended in a panic.
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            is_new = true;
        }
        if std::mem::take(&mut is_new) {
            terminal.draw(|frame| draw(frame, &view, looks))?;
        }
        if !event::poll(TICK)? {
            continue;
        }
        is_new = true;
        panic_if_asked("screen");
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match view.press(key) {
                Next::Quit => return Ok(()),
                Next::Show => {}
                // Where nobody takes orders any more, the next look for news tells.
                Next::Look => drop(orders.send(Order::Look)),
                Next::Do(action) => drop(orders.send(Order::Do(action))),
            },
            _ => {}
        }
    }
    Ok(())
}

fn take(view: &mut View, news: News) {
    match news {
        News::Overview(overview) => {
            view.overview = *overview;
            view.silence = None;
        }
        News::Silence(why) => view.silence = Some(why),
        News::Done(message) => view.message = Some(message),
    }
}

/// The signals that end a program, kept until the terminal is as it was.
struct Caught {
    signal: Arc<AtomicUsize>,
    ids: Vec<signal_hook::SigId>,
}

impl Caught {
    fn listen() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let mut ids = Vec::new();
        for number in [SIGTERM, SIGINT, SIGHUP] {
            let value = usize::try_from(number).unwrap_or(0);
            ids.push(flag::register_usize(number, signal.clone(), value)?);
        }
        Ok(Self { signal, ids })
    }

    fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|number| *number != 0)
    }

    /// Ends the program as the signal would have, if there was one.
    fn obey(self) -> io::Result<()> {
        let signal = self.signal();
        for id in self.ids {
            unregister(id);
        }
        signal.map_or(Ok(()), emulate_default_handler)
    }
}
