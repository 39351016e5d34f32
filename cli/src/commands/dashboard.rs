//! `dashboard`: a link to the owner's page of the running gateway.

use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use gateway::control::{Command, LoginLink, Reply};
use gateway::overview::form::timestamp;
use serde_json::json;

use crate::app::App;
use crate::failure::{Failure, from_reply};

/// What opens a link in the user's browser.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
/// An opener that fails does so at once; one that is the browser itself stays.
const OPENER_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct Dashboard {
    /// Open the link in your browser
    #[arg(long, conflicts_with = "logout")]
    open: bool,
    /// Let every browser out that was let in, and end every link
    #[arg(long)]
    logout: bool,
}

impl Dashboard {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        if self.logout {
            return log_out(app);
        }
        let link = match app.ask(&Command::DashboardLink)? {
            Reply::DashboardLink(link) => link,
            other => return Err(from_reply(other)),
        };
        let is_open = self.open && opens(app, &link);
        let document =
            json!({ "url": link.url, "expires_at": timestamp(link.expires_at_us), "opened": is_open });
        // Under `--json` the link is the document. A link that was opened is of no more use to anybody.
        match is_open {
            true => app.output.done(&document, || "the dashboard is open in your browser".to_owned()),
            false => app.output.data(&document, || link.url.clone()),
        }
        if !is_open {
            app.output.note("open it in a browser on this machine within a minute; it works once");
        }
        Ok(())
    }
}

fn log_out(app: &App) -> Result<(), Failure> {
    let count = match app.ask(&Command::DashboardLogOut)? {
        Reply::LoggedOut(count) => count,
        other => return Err(from_reply(other)),
    };
    app.output.done(&json!({ "logged_out": count }), || match count {
        0 => "no browser was logged in".to_owned(),
        1 => "one browser was logged out".to_owned(),
        count => format!("{count} browsers were logged out"),
    });
    Ok(())
}

/// Hands the link to the user's browser. For a moment it can be seen among the arguments of processes; whoever is faster
/// than the browser has used it up, which the page then says.
fn opens(app: &App, link: &LoginLink) -> bool {
    let mut program = Program::new(OPENER);
    program.arg(&link.url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let failed = |why: String| app.output.warn(&format!("the link could not be opened: {why}"));
    match program.spawn() {
        Ok(child) => match ended_badly(child) {
            Some(why) => failed(format!("`{OPENER}` failed ({why})")),
            None => return true,
        },
        Err(error) => failed(format!("`{OPENER}`: {error}")),
    }
    false
}

/// How an opener failed, if it did.
fn ended_badly(mut child: Child) -> Option<String> {
    let deadline = Instant::now() + OPENER_PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return (!status.success()).then(|| status.to_string()),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}
