//! Hot: who may speak to us at all: which hosts, origins and methods. A web page in the user's browser can
//! reach a loopback port, so a browser is recognised by what it cannot leave out, and refused.

use std::net::IpAddr;

use http::header::{self, HeaderMap};
use http::{HeaderName, Method};
use policy::{Denial, DenialCode};

use crate::config::Daemon;
use crate::request::cors;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The methods that requests may have.
pub(crate) const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Checks host, origin and method, in the order of `DenialCode`'s precedence. What has an `Origin` and passes is from a
/// listed page.
///
/// # Errors
/// The [`Denial`] to answer with.
pub(crate) fn check(daemon: &Daemon, port: u16, method: &Method, headers: &HeaderMap) -> Result<(), Denial> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_own_host(host, daemon.listen.ip(), port)
        && !daemon.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    {
        return Err(Denial::new(DenialCode::HostNotAllowed, "the Host is not one of this gateway's")
            .with_hint("call 127.0.0.1 or localhost, or list the name in `daemon.allowed_hosts`"));
    }
    check_origin(daemon, headers)?;
    if !METHODS.contains(method) && !cors::is_preflight(method, headers) {
        return Err(Denial::new(DenialCode::MethodNotAllowed, "the method is not allowed"));
    }
    Ok(())
}

/// Refuses protocol upgrades: what goes through a tunnel can be neither metered nor scanned. Codex asks for a
/// WebSocket first and falls back to plain requests at once when it gets this answer.
///
/// # Errors
/// [`DenialCode::UpgradeUnsupported`].
pub(crate) fn check_upgrade(headers: &HeaderMap) -> Result<(), Denial> {
    if !headers.contains_key(header::UPGRADE) {
        return Ok(());
    }
    let message = "protocol upgrades are not served; use plain HTTP requests";
    Err(Denial::new(DenialCode::UpgradeUnsupported, message))
}

/// `Origin` and `Sec-Fetch-Site` are set by browsers, and a page cannot remove them. `Sec-Fetch-Mode` says
/// nothing: Node's `fetch` sends it too, and with it every JavaScript SDK.
fn check_origin(daemon: &Daemon, headers: &HeaderMap) -> Result<(), Denial> {
    let origin = headers.get(header::ORIGIN);
    let is_allowed = |origin: &http::HeaderValue| {
        daemon.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    let is_foreign_site = headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| matches!(site.as_bytes(), b"cross-site" | b"same-site"));
    match origin {
        Some(origin) if is_allowed(origin) => Ok(()),
        None if !is_foreign_site => Ok(()),
        Some(_) | None => {
            Err(Denial::new(DenialCode::OriginNotAllowed, "web pages may not use this gateway")
                .with_hint("list the page's origin in `daemon.allowed_origins` if that is meant"))
        }
    }
}

/// A loopback name or the address we listen on, with our port, or without one (the Unix socket, and port 80).
fn is_own_host(host: &str, own: IpAddr, port: u16) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, digits)) if !digits.ends_with(']') => {
            if digits.parse() != Ok(port) || digits.starts_with(['+', '0']) {
                return false;
            }
            name
        }
        _ => host,
    };
    let address = || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]");
    is_loopback || (!own.is_unspecified() && address() == Ok(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn check_headers(pairs: &[(&'static str, &str)], expected: Result<(), DenialCode>) {
        let text =
            "[daemon]\nallowed_hosts = [\"host.docker.internal:9471\"]\nallowed_origins = [\"http://ok:1\"]";
        let daemon = Config::parse(text, std::path::Path::new("/nowhere")).unwrap().daemon;
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1:9471".parse().unwrap());
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let verdict = super::check(&daemon, 9471, &Method::POST, &headers).map_err(|denial| denial.code());
        assert_eq!(verdict, expected, "{pairs:?}");
    }

    #[test]
    fn only_our_own_names_are_hosts() {
        for host in [
            "127.0.0.1:9471",
            "localhost:9471",
            "LOCALHOST:9471",
            "[::1]:9471",
            "[::1]",
            "localhost",
            "host.docker.internal:9471",
        ] {
            check_headers(&[("host", host)], Ok(()));
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9471",
            "127.0.0.1:80",
            "127.0.0.1:09471",
            "127.0.0.1:+9471",
            "127.0.0.1:9471:9471",
            "127.0.0.1.evil.example:9471",
            "user@127.0.0.1:9471",
            "127.0.0.2:9471",
            "host.docker.internal",
            "[::1]:1",
            "127.0.0.1:",
        ] {
            check_headers(&[("host", host)], Err(DenialCode::HostNotAllowed));
        }
    }

    #[test]
    fn pages_are_refused_and_sdks_are_not() {
        let page = Err(DenialCode::OriginNotAllowed);
        check_headers(&[("origin", "http://evil.example")], page);
        check_headers(&[("origin", "null")], page);
        check_headers(&[("origin", "http://127.0.0.1:9471")], page);
        check_headers(&[("sec-fetch-site", "cross-site")], page);
        check_headers(&[("sec-fetch-site", "same-site")], page);
        check_headers(&[("origin", "http://ok:1"), ("sec-fetch-site", "cross-site")], Ok(()));
        check_headers(&[("sec-fetch-mode", "cors"), ("accept-language", "*")], Ok(()));
    }

    #[test]
    fn upgrades_and_other_methods_are_refused() {
        let mut upgrade = HeaderMap::new();
        upgrade.insert(header::UPGRADE, "websocket".parse().unwrap());
        let code = check_upgrade(&upgrade).map_err(|denial| denial.code());
        assert_eq!(code, Err(DenialCode::UpgradeUnsupported));
        let daemon = Config::parse("", std::path::Path::new("/nowhere")).unwrap().daemon;
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        let verdict = super::check(&daemon, 9471, &Method::OPTIONS, &headers).map_err(|denial| denial.code());
        assert_eq!(verdict, Err(DenialCode::MethodNotAllowed));
    }
}
