//! Requests of our own that are no caller's: each to one address, with nothing of the environment having a say in it.
//!
//! No redirect is followed, because it would take what is sent along to another address; no proxy is used; the same
//! authorities are trusted that providers are verified with; what is read has a limit.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use pingora::tls::{install_default_crypto_provider, load_native_certs};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error};

/// Asks addresses, one at a time.
pub struct Outbound {
    agent: Agent,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; empty where the status says that it is not what was asked for.
    pub body: Vec<u8>,
}

impl Outbound {
    /// Trusts the machine's authorities, or only those of a PEM file. A request may take `patience`, with all of its
    /// answer.
    ///
    /// # Errors
    /// A sentence that says why the certificates cannot be read.
    pub fn new(ca_file: Option<&Path>, patience: Duration) -> Result<Self, String> {
        let roots = match ca_file {
            Some(path) => certificates_of(path)?,
            None => machine_certificates()?,
        };
        Ok(Self { agent: agent(&roots, patience) })
    }

    /// Asks for an address with these fields, which are sent nowhere else. No more than `bytes_max` are read.
    ///
    /// # Errors
    /// A sentence that says why there was no answer, without the address and the fields.
    pub fn get(&self, url: &str, fields: &[(&str, &str)], bytes_max: u64) -> Result<Answer, String> {
        let request = fields.iter().fold(self.agent.get(url), |request, (name, value)| {
            // It is not printed, wherever the request is.
            match ureq::http::HeaderValue::try_from(*value) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.header(*name, value)
                }
                Err(_) => request.header(*name, *value),
            }
        });
        let mut answer = request.call().map_err(|error| failed(&error).reason)?;
        let status = answer.status().as_u16();
        let is_good = answer.status().is_success();
        let mut read = |limit| answer.body_mut().with_config().limit(limit).read_to_vec();
        let body = if is_good { read(bytes_max).map_err(|error| failed(&error).reason)? } else { Vec::new() };
        Ok(Answer { status, body })
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// The same authorities that providers are verified with.
pub(super) fn machine_certificates() -> Result<Vec<Certificate<'static>>, String> {
    let found = load_native_certs().map_err(|error| format!("the machine's certificates: {error}"))?;
    Ok(found.iter().map(|found| Certificate::from_der(found).to_owned()).collect::<Vec<_>>())
}

fn certificates_of(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let because = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| because(&error))?;
    let found: Vec<_> = found
        .map(|found| found.map(|found| Certificate::from_der(&found).to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| because(&error))?;
    if found.is_empty() { Err(because(&"it holds no certificate")) } else { Ok(found) }
}

pub(super) fn agent(roots: &[Certificate<'static>], patience: Duration) -> Agent {
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
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) is_passing: bool,
}

/// The reason in words that cannot hold the address.
pub(super) fn failed(error: &Error) -> Failed {
    let (reason, is_passing) = match error {
        // What is invalid is a certificate, which will be no better in a moment.
        Error::Io(error) => (error.to_string(), error.kind() != std::io::ErrorKind::InvalidData),
        Error::Timeout(_) => ("it took too long".to_owned(), true),
        Error::HostNotFound => ("the name cannot be looked up".to_owned(), true),
        Error::ConnectionFailed => ("it cannot be connected to".to_owned(), true),
        Error::BodyExceedsLimit(_) => ("the answer is too long".to_owned(), false),
        Error::Rustls(error) => (error.to_string(), false),
        _ => ("what answered does not speak HTTP".to_owned(), false),
    };
    Failed { reason, is_passing }
}
