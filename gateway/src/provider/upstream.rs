//! Where a provider's requests go: its addresses, its connection settings, and the header of each request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::protocols::tls::CaType;
use pingora::tls::RootCertStore;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{WrappedX509, parse_x509};
use policy::{Denial, DenialCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use storage::Reservation;

use crate::provider::catalogue::{AuthStyle, Provider, is_https};
use crate::provider::credentials::Credential;
use crate::request::headers::{is_passed, named_by_connection};
use crate::request::passthrough;

/// How long a looked-up address is used.
const ADDRESS_AGE_MAX: Duration = Duration::from_secs(60);
/// A pooled connection is dropped before providers drop it, about fifteen seconds for the quickest.
const POOL_IDLE: Duration = Duration::from_secs(12);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A provider, ready to be connected to.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) provider: Arc<Provider>,
    /// What goes into `Host`: the name, and the port where it is not the scheme's own.
    host: HeaderValue,
    ca: Option<Arc<CaType>>,
    addresses: ArcSwapOption<Addresses>,
    /// Which of the addresses is used: it moves on when one cannot be connected to.
    chosen: AtomicUsize,
}

#[derive(Debug)]
struct Addresses {
    addresses: Vec<SocketAddr>,
    looked_up: Instant,
}

/// A provider whose settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificates for `{provider}` cannot be used: {reason}")]
pub struct UpstreamError {
    provider: String,
    reason: String,
}

impl Upstream {
    pub(crate) fn new(provider: Arc<Provider>) -> Result<Self, UpstreamError> {
        let bad = |reason: String| UpstreamError { provider: provider.id.to_string(), reason };
        let origin = &provider.origin;
        let authority = if origin.port() == origin.scheme().usual_port() {
            origin.host().to_owned()
        } else {
            format!("{}:{}", origin.host(), origin.port())
        };
        let ca = match &provider.ca_file {
            None => None,
            Some(path) => Some(read_certificates(path).map_err(&bad)?),
        };
        let host = HeaderValue::try_from(authority).map_err(|error| bad(error.to_string()))?;
        Ok(Self { host, ca, addresses: ArcSwapOption::empty(), chosen: AtomicUsize::new(0), provider })
    }

    /// An address of the provider: the one it has, or one looked up in the last minute.
    pub(crate) async fn peer(&self, own_port: u16) -> Result<HttpPeer, Denial> {
        let address = self.address().await?;
        if address.ip().to_canonical().is_loopback() && address.port() == own_port {
            let message = "the provider's upstream is this gateway itself";
            return Err(Denial::new(DenialCode::UpstreamUnreachable, message));
        }
        let origin = &self.provider.origin;
        let is_tls = is_https(origin);
        // The name must never be empty: without one the certificate would not be checked.
        let server_name = origin.host().trim_matches(['[', ']']).to_owned();
        let mut peer = HttpPeer::new(address, is_tls, server_name);
        let (timeouts, options) = (self.provider.timeouts, &mut peer.options);
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        // The engine has one timer for all waits; the guard keeps the two apart, and this is for what it misses.
        options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
        options.write_timeout = Some(WRITE_TIMEOUT);
        options.idle_timeout = Some(POOL_IDLE);
        options.ca = self.ca.clone();
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        Ok(peer)
    }

    /// An address cannot be connected to. Whether there is another to try is answered. When several requests
    /// find that out at once, the choice moves on once.
    pub(crate) fn try_next_address(&self, failed: SocketAddr) -> bool {
        let known = self.addresses.load();
        let Some(known) = known.as_ref().filter(|known| known.addresses.len() > 1) else { return false };
        let chosen = self.chosen.load(Ordering::Relaxed);
        if known.addresses[chosen % known.addresses.len()] == failed {
            let _ = self.chosen.compare_exchange(
                chosen,
                chosen.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        true
    }

    async fn address(&self) -> Result<SocketAddr, Denial> {
        let known = self.addresses.load();
        if let Some(known) = known.as_ref().filter(|known| known.looked_up.elapsed() < ADDRESS_AGE_MAX) {
            return Ok(self.choose(&known.addresses));
        }
        match (self.look_up().await, known.as_ref()) {
            (Ok(addresses), _) => {
                let address = self.choose(&addresses);
                self.remember(addresses);
                Ok(address)
            }
            // A name server that fails is no reason to stop, or to make every request wait for it: the last
            // answer is good for another minute.
            (Err(_), Some(known)) => {
                let address = self.choose(&known.addresses);
                self.remember(known.addresses.clone());
                Ok(address)
            }
            (Err(denial), None) => Err(denial),
        }
    }

    fn remember(&self, addresses: Vec<SocketAddr>) {
        self.addresses.store(Some(Arc::new(Addresses { addresses, looked_up: Instant::now() })));
    }

    /// `look_up` never answers an empty list.
    fn choose(&self, addresses: &[SocketAddr]) -> SocketAddr {
        addresses[self.chosen.load(Ordering::Relaxed) % addresses.len()]
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, Denial> {
        let origin = &self.provider.origin;
        let unreachable = |what: String| Denial::new(DenialCode::UpstreamUnreachable, what);
        let host = origin.host().trim_matches(['[', ']']);
        let found = self.addresses_of(host).await.map_err(unreachable)?;
        let mut addresses: Vec<SocketAddr> =
            found.into_iter().filter(|address| is_allowed(address.ip(), self.provider.is_local)).collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        if addresses.is_empty() {
            let hint = "set `local = true` for a provider on this machine or in its network";
            let what = format!("the name {host} leads to no public address");
            return Err(unreachable(what).with_hint(hint));
        }
        Ok(addresses)
    }

    /// Every address of a name. `localhost` is this machine whatever a name server says (RFC 6761, section 6.3).
    async fn addresses_of(&self, host: &str) -> Result<Vec<SocketAddr>, String> {
        let port = self.provider.origin.port();
        if host == "localhost" {
            return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
        }
        let lookup = tokio::net::lookup_host((host, port));
        match tokio::time::timeout(self.provider.timeouts.connect, lookup).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(_)) => Err(format!("the name {host} cannot be looked up")),
            Err(_) => Err(format!("looking up the name {host} took too long")),
        }
    }

    /// The header of a request to this provider, built from nothing: the caller's headers that are on the list,
    /// then our own, then the credential: that of the vault, or the caller's own where the provider is set up to
    /// get it. The reservation is the proof that the request was admitted.
    pub(crate) fn build_request(
        &self,
        method: &http::Method,
        target: &str,
        caller: &HeaderMap,
        credential: Option<&Credential>,
        body_bytes: usize,
        _proof: &Reservation,
    ) -> pingora::Result<RequestHeader> {
        let mut request = RequestHeader::build_no_case(method.clone(), target.as_bytes(), Some(16))?;
        for (name, value) in self.passed_headers(caller) {
            request.append_header(name.clone(), value.clone())?;
        }
        request.insert_header(header::HOST, self.host.clone())?;
        // What we cannot read we cannot meter, so nothing compressed is asked for.
        request.insert_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))?;
        if body_bytes > 0 || method_has_body(method) {
            request.insert_header(header::CONTENT_LENGTH, body_bytes)?;
        }
        for (name, value) in &self.provider.extra_headers {
            request.insert_header(name.clone(), value.clone())?;
        }
        if let Some(credential) = credential {
            request.insert_header(credential.name.clone(), credential.value.clone())?;
        } else if self.provider.auth == AuthStyle::Passthrough {
            for (name, value) in passthrough::credentials(caller) {
                let mut value = value.clone();
                value.set_sensitive(true);
                request.append_header(name.clone(), value)?;
            }
        }
        Ok(request)
    }

    /// The headers of a caller's that are passed on.
    pub(crate) fn passed_headers<'h>(
        &'h self,
        caller: &'h HeaderMap,
    ) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
        let for_us_alone: Vec<HeaderName> = named_by_connection(caller).collect();
        caller.iter().filter(move |(name, _)| {
            let listed = self.provider.passed_headers.iter().chain(&self.provider.further_headers);
            is_passed(name, listed) && !for_us_alone.contains(name)
        })
    }
}

fn method_has_body(method: &http::Method) -> bool {
    matches!(*method, http::Method::POST | http::Method::PUT | http::Method::PATCH)
}

/// Where the clouds' metadata services answer, which give credentials to whoever asks from the machine.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Whether a provider may be at this address. Addresses of this machine and its network are for providers
/// marked `local`, so that a name cannot be pointed at them; a metadata service is for nobody.
fn is_allowed(address: IpAddr, is_local: bool) -> bool {
    let address = address.to_canonical();
    let is_metadata = match address {
        IpAddr::V4(v4) => METADATA.contains(&v4),
        IpAddr::V6(v6) => v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    };
    !is_metadata && (is_local || !is_private(address))
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_special = v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast();
            is_special || v4.is_private() || is_shared || a == 0
        }
        IpAddr::V6(v6) => {
            let is_special = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
            // An IPv4 address can hide in those of NAT64 and 6to4.
            let carries_v4 = matches!(v6.segments(), [0x64, 0xff9b, ..] | [0x2002, ..]);
            is_special || v6.is_unique_local() || v6.is_unicast_link_local() || carries_v4
        }
    }
}

fn read_certificates(path: &std::path::Path) -> Result<Arc<CaType>, String> {
    let because = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| because(&error))? {
        let certificate = certificate.map_err(|error| because(&error))?;
        // The engine panics on a certificate that is none, so it is tried here first.
        RootCertStore::empty().add(certificate.clone()).map_err(|error| because(&error))?;
        certificates.push(WrappedX509::new(certificate.to_vec(), parse_x509));
    }
    if certificates.is_empty() {
        return Err(because(&"it holds no certificate"));
    }
    Ok(certificates.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_address(address: &str, is_local: bool, allowed: bool) {
        assert_eq!(is_allowed(address.parse().unwrap(), is_local), allowed, "{address} local={is_local}");
    }

    #[test]
    fn a_name_cannot_lead_to_this_machine_or_its_network() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "224.0.0.1",
        ] {
            check_address(private, false, false);
            check_address(private, true, true);
        }
        check_address("1.1.1.1", false, true);
        check_address("2606:4700::1111", false, true);
    }

    #[test]
    fn nobody_asks_the_metadata_service() {
        check_address("169.254.169.254", true, false);
        check_address("::ffff:169.254.169.254", true, false);
    }
}
