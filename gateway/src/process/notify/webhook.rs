//! Notices by HTTP: one POST of one JSON document, to the address in the configuration and nowhere else.
//!
//! Nothing of the environment has a say in it, no redirect is followed, and of an answer only the status is read. The
//! address may be a credential, so what fails is logged with its origin.

use std::time::Duration;

use pingora::tls::{install_default_crypto_provider, load_native_certs};
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error};

use crate::config::Webhook;

/// How long an attempt may take, name and connection and answer together.
const PATIENCE: Duration = Duration::from_secs(10);
/// A second attempt comes so much later, and is the last.
const PAUSE: Duration = Duration::from_secs(1);

/// Posts a document.
pub(super) fn post(webhook: &Webhook, document: &Value) {
    let sent = machine_certificates().and_then(|roots| deliver(webhook, document, &roots, PATIENCE));
    if let Err(reason) = sent {
        tracing::error!(webhook = %webhook.origin(), reason, "a notification could not be posted");
    }
}

/// The same authorities that providers are verified with.
fn machine_certificates() -> Result<Vec<Certificate<'static>>, String> {
    let found = load_native_certs().map_err(|error| format!("the machine's certificates: {error}"))?;
    Ok(found.iter().map(|found| Certificate::from_der(found).to_owned()).collect::<Vec<_>>())
}

fn deliver(
    webhook: &Webhook,
    document: &Value,
    roots: &[Certificate<'static>],
    patience: Duration,
) -> Result<(), String> {
    let agent = agent(roots, patience);
    match attempt(&agent, webhook, document) {
        Err(Failed { is_passing: true, .. }) => std::thread::sleep(PAUSE),
        Err(failed) => return Err(failed.reason),
        Ok(()) => return Ok(()),
    }
    attempt(&agent, webhook, document).map_err(|failed| failed.reason)
}

fn agent(roots: &[Certificate<'static>], patience: Duration) -> Agent {
    install_default_crypto_provider();
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .user_agent(concat!("tokfence/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(roots)).build());
    config.build().new_agent()
}

/// Why an attempt failed, and whether another may do better.
struct Failed {
    reason: String,
    is_passing: bool,
}

fn attempt(agent: &Agent, webhook: &Webhook, document: &Value) -> Result<(), Failed> {
    let request = agent.post(webhook.url()).content_type("application/json");
    let answer = request.send(document.to_string()).map_err(|error| failed(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let is_passing = status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS;
    Err(Failed { reason: format!("it was answered with {}", status.as_u16()), is_passing })
}

/// The reason in words that cannot hold the address.
fn failed(error: &Error) -> Failed {
    let (reason, is_passing) = match error {
        // What is invalid is a certificate, which will be no better in a moment.
        Error::Io(error) => (error.to_string(), error.kind() != std::io::ErrorKind::InvalidData),
        Error::Timeout(_) => ("it took too long".to_owned(), true),
        Error::HostNotFound => ("the name cannot be looked up".to_owned(), true),
        Error::ConnectionFailed => ("it cannot be connected to".to_owned(), true),
        Error::Rustls(error) => (error.to_string(), false),
        _ => ("what answered does not speak HTTP".to_owned(), false),
    };
    Failed { reason, is_passing }
}

#[cfg(test)]
mod tests;
