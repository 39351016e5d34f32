//! `launch`: OpenClaw, or any other image, in a container that reaches the gateway and nothing else, with no key in it.
//!
//! `container` says what the engine is told, `folder` what is kept, `program` how this program gets into the container,
//! `bridge` how connections get in and out, `openclaw` what OpenClaw is told; `begin` puts them together.

mod begin;
mod bridge;
mod container;
mod folder;
mod openclaw;
mod program;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use crate::app::{App, now_us};
use crate::engine::{Engine, encode};
use crate::failure::{Exit, Failure};
use container::LABEL;
use folder::Folder;

#[derive(Debug, Args)]
pub(crate) struct Launch {
    #[command(subcommand)]
    action: Option<Action>,
    /// The name of the container, and of the agent to whom its requests are booked
    #[arg(long, global = true, default_value = "tokfence-openclaw", value_name = "NAME", value_parser = parse_name)]
    name: String,
    #[command(flatten)]
    options: Options,
}

/// What can be chosen about a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
struct Options {
    /// The image [default: ghcr.io/openclaw/openclaw:latest]
    #[arg(long, value_name = "IMAGE", value_parser = parse_image)]
    image: Option<String>,
    /// The port of this machine at which the agent's page is, for this machine alone [default: 18789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The folder in which the agent works, instead of one in the home
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Use the image that is there, and download none
    #[arg(long)]
    no_pull: bool,
    /// Do not open the agent's page in the browser
    #[arg(long)]
    no_open: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Tell whether it runs, and as what; exits 3 when it does not
    Status,
    /// Stop it, and revoke its capability; what it wrote stays
    Stop,
    /// Print what it printed
    Logs {
        /// Go on, until it ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Stop it and launch it again, as before unless told otherwise
    Restart(Options),
    /// Print its OpenClaw configuration, without what opens anything
    Config,
    /// Carry connections in and out
    #[command(hide = true)]
    Bridge,
}

impl Launch {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        let agent = Agent { app, folder: Folder::new(app, &self.name), name: self.name };
        let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
        if self.action.is_some() && self.options != Options::default() {
            let message = "these options are for a launch; `restart` takes them behind it";
            return Err(Failure::usage(message));
        }
        match self.action {
            None => done(begin::launch(&agent, &self.options)),
            Some(Action::Restart(options)) => done(begin::restart(&agent, &options)),
            Some(Action::Status) => show::status(&agent),
            Some(Action::Logs { follow }) => done(show::logs(&agent, follow)),
            Some(Action::Config) => done(show::config(&agent)),
            Some(Action::Stop) => done(stop(&agent)),
            Some(Action::Bridge) => done(bridge::run(app, &agent.folder)),
        }
    }
}

/// One agent that is or was launched, or is to be.
struct Agent<'a> {
    app: &'a App,
    name: String,
    folder: Folder,
}

/// A container of this name, as the engine sees it.
struct Found(Value);

impl Agent<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/containers/{}{rest}", encode(&self.name))
    }

    /// The container of this name, if there is one.
    ///
    /// # Errors
    /// Where it is not ours: nobody's container is touched because of its name.
    fn find(&self, engine: &Engine) -> Result<Option<Found>, Failure> {
        let answer = engine.call(Method::GET, &self.path("/json"), None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let found = answer.expect("look at the container", &[200])?;
        if found["Config"]["Labels"][LABEL].as_str() == Some(&self.label()) {
            return Ok(Some(Found(found)));
        }
        let message = format!("there is a container `{}` that was not launched from this home", self.name);
        Err(Failure::new(Exit::Unsafe, "foreign_container", message).with_hint("--name NAME"))
    }

    fn require(&self, engine: &Engine) -> Result<Found, Failure> {
        self.find(engine)?.ok_or_else(|| {
            let message = format!("there is no container `{}`", self.name);
            Failure::new(Exit::NotFound, "no_such_launch", message).with_hint("tokfence launch")
        })
    }

    fn label(&self) -> String {
        self.app.home.dir().display().to_string()
    }

    /// Ends the container, what carries its connections, and its capability. Answers whether there was anything.
    fn end(&self, engine: &Engine) -> Result<bool, Failure> {
        let found = self.find(engine)?;
        if found.is_some() {
            // It may have ended by itself, or be gone meanwhile.
            engine.call(Method::POST, &self.path("/stop?t=10"), None)?.expect("stop it", &[204, 304, 404])?;
            let removed = engine.call(Method::DELETE, &self.path("?force=true&v=true"), None)?;
            removed.expect("remove it", &[200, 204, 404])?;
        }
        bridge::stop(&self.folder)?;
        self.revoke("its agent was stopped")?;
        Ok(found.is_some())
    }

    fn revoke(&self, reason: &str) -> Result<(), Failure> {
        let Ok(launched) = self.folder.load() else { return Ok(()) };
        let Ok(capability) = launched.capability.parse() else { return Ok(()) };
        match self.app.store()?.revoke_capability(capability, reason, now_us()) {
            Ok(_) | Err(storage::Error::NoSuchCapability { .. }) => self.app.tell_daemon(),
            Err(error) => Err(error.into()),
        }
    }
}

impl Found {
    fn is_running(&self) -> bool {
        self.0["State"]["Running"] == true
    }
}

fn stop(agent: &Agent<'_>) -> Result<(), Failure> {
    agent.folder.load()?;
    let was_there = agent.end(&Engine::find()?)?;
    let document = json!({ "name": agent.name, "running": false, "status": if was_there { "stopped" } else { "unchanged" } });
    agent.app.output.done(&document, || {
        if was_there { format!("stopped `{}`", agent.name) } else { format!("`{}` does not run", agent.name) }
    });
    Ok(())
}

/// A name that is one for the engine, a folder and an agent.
fn parse_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-`, `_` and `.`, at most 63".to_owned())
    }
}

fn parse_image(text: &str) -> Result<String, String> {
    let is_image = (1..=500).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte));
    if is_image {
        Ok(text.to_owned())
    } else {
        Err("a name such as ghcr.io/openclaw/openclaw:latest".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["a", "tokfence-openclaw", "A.b_c-1"] {
            assert!(parse_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "-rm", "a b", "a\n", "ü", &"a".repeat(64)] {
            assert!(parse_name(name).is_err(), "{name:?}");
        }
        for image in ["", "-x", "a b", "a?b", "a&tag=b", "a\nb", "../x"] {
            assert!(parse_image(image).is_err(), "{image:?}");
        }
        assert!(parse_image("localhost:5000/a/b:1@sha256:00").is_ok());
    }
}
