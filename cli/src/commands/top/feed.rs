//! What the view is fed with: a thread that asks the daemon once a second and at once when it is told to, and does what the
//! keys ask for. The screen never waits for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use gateway::control::{Command, Reply};
use gateway::overview::Overview;
use policy::AgentName;

use super::view::Action;
use crate::app::{App, now_us};
use crate::commands::kill::{Killed, kill, lift_kill};
use crate::defect::panic_if_asked;
use crate::failure::{Failure, from_reply};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    Look,
    Do(Action),
}

/// What it tells.
#[derive(Debug)]
pub(super) enum News {
    Overview(Box<Overview>),
    /// The daemon does not answer, and why.
    Silence(String),
    /// What came of something that was asked for.
    Done(String),
}

/// How everything stands.
pub(in crate::commands) fn ask(app: &App, patience: Duration) -> Result<Overview, Failure> {
    match app.ask_within(patience, &Command::Overview)? {
        Reply::Overview(overview) => Ok(*overview),
        other => Err(from_reply(other)),
    }
}

/// Feeds the view until nobody gives orders any more.
pub(super) fn feed(app: &App, orders: &Receiver<Order>, news: &Sender<News>) {
    loop {
        let told = match ask(app, PATIENCE) {
            Ok(overview) => News::Overview(Box::new(overview)),
            Err(failure) => News::Silence(failure.message),
        };
        // Who does not listen any more is about to end.
        let _ = news.send(told);
        let action = match orders.recv_timeout(EVERY) {
            Ok(Order::Do(action)) => action,
            Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        panic_if_asked("feed");
        let done = act(app, &action).unwrap_or_else(|failure| match failure.hint {
            Some(hint) => format!("{} ({hint})", failure.message),
            None => failure.message,
        });
        let _ = news.send(News::Done(done));
    }
}

/// Does it, and answers what came of it.
fn act(app: &App, action: &Action) -> Result<String, Failure> {
    let told = |was_changed: bool, done: &str, not: &str| if was_changed { done } else { not }.to_owned();
    match action {
        Action::Kill => {
            let Killed { is_new, .. } = kill(app, "killed by its owner")?;
            Ok(told(is_new, "killed: nothing is served", "it was killed already"))
        }
        Action::Unkill => Ok(told(lift_kill(app)?, "served again", "it was not killed")),
        Action::RevokeAgent(name) => {
            let agent: AgentName = crate::commands::agent::parse_agent(name)?;
            let is_new = app.store()?.revoke_agent(&agent, "revoked by its owner", now_us())?;
            app.tell_daemon()?;
            Ok(match is_new {
                true => format!("revoked {agent}; tokfence agent restore {agent}"),
                false => format!("{agent} was revoked already"),
            })
        }
    }
}
