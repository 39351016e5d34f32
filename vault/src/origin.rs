//! [`Origin`], the address a credential may be sent to.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Error;

/// Scheme, host and port, parsed once and printed in one way: `https://api.openai.com`.
///
/// The scheme's usual port is left out of the text, host names are lower case, IPv6 addresses are bracketed and
/// compressed, so two origins are the same exactly when their texts are. Text that another parser might read
/// differently (user information, `0x7f.1`, a trailing dot, non-ASCII letters) is refused, because a credential
/// would follow the misreading.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// The protocol of an [`Origin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain text; only sensible on the machine itself.
    Http,
    /// TLS.
    Https,
}

impl Origin {
    /// The origin of a URL, whose path and query are ignored: `https://openrouter.ai/api/v1` has the origin
    /// `https://openrouter.ai`.
    ///
    /// # Errors
    /// [`Error::InvalidEntry`] when the URL is not `http` or `https`, or its authority is malformed or ambiguous.
    pub fn of_url(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = split_scheme(url)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        Self::from_parts(scheme, &rest[..end])
    }

    /// The protocol.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name or address; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or usual.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn from_parts(scheme: Scheme, authority: &str) -> Result<Self, Error> {
        if authority.contains('@') {
            return Err(invalid("user information is not allowed"));
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => scheme.usual_port(),
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { scheme, host: parse_host(host)?, port })
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// Parses an origin and nothing else; one final `/` is tolerated.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = split_scheme(text)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(invalid("an origin has no path, query or fragment"));
        }
        Self::from_parts(scheme, authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.usual_port() { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), Error> {
    let (scheme, rest) = text.split_once("://").ok_or(invalid("it must begin with http:// or https://"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok((Scheme::Http, rest)),
        "https" => Ok((Scheme::Https, rest)),
        _ => Err(invalid("the scheme must be http or https")),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Error> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(invalid("the IPv6 address is not closed"))? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid("only a port may follow the IPv6 address")),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// `u16::from_str` alone would accept `+80` and `0080`.
fn parse_port(digits: &str) -> Result<u16, Error> {
    let is_plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let port = digits.parse().ok().filter(|_| is_plain);
    port.ok_or(invalid("the port must be a number from 1 to 65535"))
}

fn parse_host(host: &str) -> Result<String, Error> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| invalid("the IPv6 address is malformed"))?;
        return Ok(format!("[{address}]"));
    }
    let host = host.to_ascii_lowercase();
    if host.is_empty() || host.len() > 253 {
        return Err(invalid("the host name must have 1 to 253 characters"));
    }
    if !host.split('.').all(is_label) {
        return Err(invalid("the host name may hold letters, digits, `-`, `_` and single dots only"));
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // A last label that is a number makes the whole host an IPv4 address for most parsers, in many notations.
    if last.starts_with(|c: char| c.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err(invalid("a host that ends in a number must be an IPv4 address like 127.0.0.1"));
    }
    Ok(host)
}

fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn invalid(reason: &'static str) -> Error {
    Error::InvalidEntry { field: "origin", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        let origin: Origin = text.parse().expect(text);
        assert_eq!(origin.to_string(), expected);
        assert_eq!(expected.parse::<Origin>().expect(expected), origin, "the canonical text reads back");
    }

    #[track_caller]
    fn check_refused(text: &str) {
        assert!(text.parse::<Origin>().is_err(), "{text} was accepted");
    }

    #[test]
    fn text_is_canonical() {
        check_text("https://api.openai.com", "https://api.openai.com");
        check_text("https://api.openai.com/", "https://api.openai.com");
        check_text("HTTPS://API.OpenAI.com:443", "https://api.openai.com");
        check_text("http://localhost:11434", "http://localhost:11434");
        check_text("http://127.0.0.1:80", "http://127.0.0.1");
        check_text("https://a.b:80", "https://a.b:80");
        check_text("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080");
        check_text("https://host_with.under-score.internal", "https://host_with.under-score.internal");
    }

    #[test]
    fn ambiguous_or_foreign_text_is_refused() {
        for text in [
            "",
            "api.openai.com",
            "ftp://a.b",
            "https://",
            "https:///x",
            "https://a.b/v1",
            "https://a.b?x",
            "https://a.b#x",
            "https://user@a.b",
            "https://a.b:0",
            "https://a.b:",
            "https://a.b:65536",
            "https://a.b:+80",
            "https://a.b:080",
            "https://a..b",
            "https://a.b.",
            "https://.a",
            "https://-a.b",
            "https://a-.b",
            "https://a b",
            "https://a%2eb",
            "https://127.1",
            "https://0x7f.1",
            "https://1.2.3.4.5",
            "https://127.0.0.01",
            "https://[::1",
            "https://[::1]x",
            "https://[fe80::1%25eth0]",
            "https://bücher.de",
            "https://a\\b",
            "https://a.b\n",
            " https://a.b",
        ] {
            check_refused(text);
        }
    }

    #[test]
    fn a_url_gives_its_origin() {
        let of = |url| Origin::of_url(url).map(|origin| origin.to_string());
        assert_eq!(of("https://openrouter.ai/api/v1").expect("url"), "https://openrouter.ai");
        assert_eq!(of("http://h:8/x?y@z").expect("url"), "http://h:8");
        assert!(of("https://good.com@evil.com/").is_err());
        assert!(of("https://good.com\\@evil.com/").is_err());
    }
}
