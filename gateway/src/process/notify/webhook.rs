//! Notices by HTTP: one POST of one JSON document, to the address in the configuration and nowhere else.
//!
//! Nothing of the environment has a say in it, no redirect is followed, and of an answer only the status is read. The
//! address may be a credential, so what fails is logged with its origin.

use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::tls::Certificate;

use crate::config::OutboundUrl;
use crate::process::outbound::{Failed, agent, failed, machine_certificates};

/// How long an attempt may take, name and connection and answer together.
const PATIENCE: Duration = Duration::from_secs(10);
/// A second attempt comes so much later, and is the last.
const PAUSE: Duration = Duration::from_secs(1);

/// Posts a document.
pub(super) fn post(webhook: &OutboundUrl, document: &Value) {
    let sent = machine_certificates().and_then(|roots| deliver(webhook, document, &roots, PATIENCE));
    if let Err(reason) = sent {
        tracing::error!(webhook = %webhook.origin(), reason, "a notification could not be posted");
    }
}

fn deliver(
    webhook: &OutboundUrl,
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

fn attempt(agent: &Agent, webhook: &OutboundUrl, document: &Value) -> Result<(), Failed> {
    let request = agent.post(webhook.url()).content_type("application/json");
    let answer = request.send(document.to_string()).map_err(|error| failed(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let is_passing = status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS;
    Err(Failed { reason: format!("it was answered with {}", status.as_u16()), is_passing })
}

#[cfg(test)]
mod tests;
