//! Errors as a person meets them: what failed, what to do about it, and an exit code that scripts can use.

use std::error::Error;

use gateway::ServeError;
use gateway::config::{ConfigError, PricesError};
use gateway::control::{ControlError, Reply};
use gateway::home::HomeError;

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
    fn from_parts(code: &str, error: &dyn Error, hint: Option<String>) -> Self {
        Self { exit: exit_of(code), code: code.to_owned(), message: chain(error), hint }
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

/// The exit code that goes with the stable code of an error, whoever found it: this process, the daemon that it
/// asked, or the daemon that it started.
pub(crate) fn exit_of(code: &str) -> Exit {
    match code {
        "usage" | "no_passphrase" => Exit::Usage,
        "not_running" => Exit::NotRunning,
        "vault_locked" | "keyring_unavailable" => Exit::Locked,
        "unknown_provider" | "unknown_model" => Exit::NotFound,
        "unsafe_file" | "unsafe_home" | "unsafe_address" => Exit::Unsafe,
        code if code.starts_with("wrong_") => Exit::Locked,
        code if code.starts_with("no_such_") => Exit::NotFound,
        _ => Exit::Failed,
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        Self::from_parts(error.code(), &error, error.hint())
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        Self::from_parts(error.code(), &error, error.hint())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from_parts(error.code(), &error, Some("tokfence config check".to_owned()))
    }
}

impl From<PricesError> for Failure {
    fn from(error: PricesError) -> Self {
        Self::from_parts(error.code(), &error, None)
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        ServeError::Home(error).into()
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::from_parts(error.code(), &error, error.hint())
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let (code, hint) = match error {
            ControlError::NotRunning => ("not_running", "tokfence start -d"),
            ControlError::Io(_) | ControlError::NotUnderstood(_) => ("control", "tokfence restart"),
        };
        Self::from_parts(code, &error, Some(hint.to_owned()))
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
    Failure { exit: exit_of(&code), code, message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::Config;
    use std::path::Path;

    #[track_caller]
    fn check(failure: Failure, exit: Exit, code: &str) {
        assert_eq!((failure.exit, failure.code.as_str()), (exit, code), "{}", failure.message);
    }

    fn from_daemon(code: &str) -> Failure {
        from_reply(Reply::Failed { code: code.to_owned(), message: String::new(), hint: None })
    }

    #[test]
    fn an_error_has_the_same_exit_code_wherever_it_was_found() {
        for (code, exit) in [
            ("keyring_unavailable", Exit::Locked),
            ("wrong_passphrase", Exit::Locked),
            ("unsafe_file", Exit::Unsafe),
            ("no_such_agent", Exit::NotFound),
            ("io", Exit::Failed),
        ] {
            check(from_daemon(code), exit, code);
        }
        let refused = || vault::Error::KeyringUnavailable { reason: "it is not there".to_owned() };
        check(refused().into(), Exit::Locked, "keyring_unavailable");
        check(ServeError::Daemon(refused().into()).into(), Exit::Locked, "keyring_unavailable");
    }

    #[test]
    fn a_home_that_is_open_is_unsafe_and_one_that_cannot_be_made_is_not() {
        let path = Path::new("/x").to_owned();
        check(HomeError::Permissions { path: path.clone(), mode: 0o755 }.into(), Exit::Unsafe, "unsafe_home");
        let source = std::io::Error::other("no room");
        check(HomeError::Io { path, source }.into(), Exit::Failed, "io");
    }

    #[test]
    fn an_address_for_everybody_is_unsafe_and_a_slip_is_not() {
        let failure = |text: &str| {
            let faults = Config::parse(text, Path::new("/x")).unwrap_err();
            ConfigError::Faults { path: "/x/config.toml".into(), faults }
        };
        let exposed = || failure("[daemon]\nhost = \"0.0.0.0\"\n");
        check(exposed().into(), Exit::Unsafe, "unsafe_address");
        check(ServeError::from(exposed()).into(), Exit::Unsafe, "unsafe_address");
        check(failure("[daemon]\nhost = \"here\"\n").into(), Exit::Failed, "invalid_config");
    }
}
