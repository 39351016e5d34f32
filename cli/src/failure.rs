//! Errors as a person meets them: what failed, what to do about it, and an exit code that scripts can use.

use std::error::Error;

use gateway::control::{ControlError, Reply};

/// The exit codes, as documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotRunning = 3,
    Locked = 4,
    NotFound = 5,
    Found = 6,
    Unsafe = 7,
}

/// A command that could not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(crate) fn failed(doing: &str, error: &dyn Error) -> Self {
        Self::new(Exit::Failed, "failed", format!("{doing}: {}", chain(error)))
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// An error of one of our crates, which has a code and perhaps a hint of its own.
    fn from_parts(exit: Exit, code: &str, error: &dyn Error, hint: Option<String>) -> Self {
        Self { exit, code: code.to_owned(), message: chain(error), hint }
    }
}

/// The message of an error and of everything that caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        let exit = match error.code() {
            "keyring_unavailable" => Exit::Locked,
            "no_such_entry" | "no_such_slot" => Exit::NotFound,
            "unsafe_file" => Exit::Unsafe,
            code if code.starts_with("wrong_") => Exit::Locked,
            _ => Exit::Failed,
        };
        Self::from_parts(exit, error.code(), &error, error.hint())
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        let exit = match error.code() {
            "no_such_agent" | "no_such_capability" | "no_such_request" => Exit::NotFound,
            "unsafe_file" => Exit::Unsafe,
            _ => Exit::Failed,
        };
        Self::from_parts(exit, error.code(), &error, error.hint())
    }
}

impl From<gateway::config::ConfigError> for Failure {
    fn from(error: gateway::config::ConfigError) -> Self {
        Self::from_parts(Exit::Failed, "invalid_config", &error, Some("tokfence config check".to_owned()))
    }
}

impl From<gateway::home::HomeError> for Failure {
    fn from(error: gateway::home::HomeError) -> Self {
        let exit = match error {
            gateway::home::HomeError::Io { .. } => Exit::Failed,
            _ => Exit::Unsafe,
        };
        Self::from_parts(exit, "unsafe_home", &error, error.hint())
    }
}

impl From<gateway::ServeError> for Failure {
    fn from(error: gateway::ServeError) -> Self {
        let hint = error.hint();
        match error {
            gateway::ServeError::Home(error) => error.into(),
            other => Self::from_parts(Exit::Failed, "cannot_serve", &other, hint),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotRunning => {
                Self::new(Exit::NotRunning, "not_running", error.to_string()).with_hint("tokfence start -d")
            }
            ControlError::Io(_) | ControlError::NotUnderstood(_) => {
                Self::from_parts(Exit::Failed, "control", &error, Some("tokfence restart".to_owned()))
            }
        }
    }
}

/// The daemon's refusal of a command, as the failure of that command.
pub(crate) fn from_reply(reply: Reply) -> Failure {
    let Reply::Failed { code, message, hint } = reply else {
        return Failure::new(
            Exit::Failed,
            "control",
            "the daemon gave an answer that does not fit the question",
        );
    };
    let exit = if code.starts_with("wrong_") { Exit::Locked } else { Exit::Failed };
    Failure { exit, code, message, hint }
}
