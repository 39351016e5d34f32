//! `[notifications]`: who hears of what, and how.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use vault::Origin;

use crate::provider::catalogue::is_https;

use super::reader::{Reader, Section, boolean, integer, text, texts};

/// `[notifications]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// A budget of which this part is spent is told of, in percent; 0 is never.
    pub budget_warning_percent: u64,
    /// A command that is run with the message as its last argument; empty is none.
    pub command: Vec<String>,
    /// Where each notice is posted to.
    pub webhook: Option<OutboundUrl>,
    /// Whether notices are shown on the desktop.
    pub desktop: bool,
}

/// An address of the owner's that is called: notices are posted to it, or usage is read from it. Its path and query are
/// often a credential, so neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundUrl {
    url: Uri,
    origin: Origin,
}

impl OutboundUrl {
    /// Reads an address: `https`, or `http` where nobody but this machine listens.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, without the address.
    pub fn parse(url: &str) -> Result<Self, String> {
        let origin = Origin::of_url(url).map_err(|error| error.to_string())?;
        if url.contains('#') {
            return Err("a fragment is not sent, and has no place here".to_owned());
        }
        if !is_https(&origin) && !is_loopback(&origin) {
            return Err("must begin with https://; http is for this machine only".to_owned());
        }
        let url = url.parse().map_err(|_| "is not a URL".to_owned())?;
        Ok(Self { url, origin })
    }

    /// Reads an address of the configuration; an empty one is none.
    pub(super) fn read(value: &toml_edit::Value) -> Result<Option<Self>, String> {
        match text(value)?.as_str() {
            "" => Ok(None),
            url => Self::parse(url).map(Some),
        }
    }

    /// The whole address.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The part of it that can be shown.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// What can be shown of it.
impl fmt::Display for OutboundUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if self.url.path_and_query().is_none_or(|path| path == "/") {
            Ok(())
        } else {
            f.write_str("/(hidden)")
        }
    }
}

impl fmt::Debug for OutboundUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboundUrl({self})")
    }
}

fn is_loopback(origin: &Origin) -> bool {
    let host = origin.host().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

pub(super) fn read(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Notifications {
    let mut section = reader.section(root, "notifications");
    let percent = reader.value(&mut section, "budget_warning_percent", |value| integer(value, 0, 100));
    let command = reader.value(&mut section, "command", texts);
    let webhook = reader.value(&mut section, "webhook", OutboundUrl::read);
    let desktop = reader.value(&mut section, "desktop", boolean);
    reader.finish(section);
    Notifications {
        budget_warning_percent: u64::try_from(percent.unwrap_or(80)).expect("checked to be positive above"),
        command: command.unwrap_or_default(),
        webhook: webhook.flatten(),
        desktop: desktop.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_over_a_network_is_encrypted() {
        for url in [
            "https://hooks.example.com/T0/B0/x?key=1",
            "https://10.0.0.1:8443/x",
            "http://127.0.0.1:9000/x",
            "http://[::1]:9000/",
            "http://localhost/x",
        ] {
            assert!(OutboundUrl::parse(url).is_ok(), "{url}");
        }
        for url in [
            "http://hooks.example.com/x",
            "http://192.168.1.2/x",
            "http://localhost.example.com/x",
            "http://127.0.0.1.example.com/x",
            "http://[::ffff:192.168.1.2]/",
            "https://user:word@hooks.example.com/x",
            "https://hooks.example.com/x#part",
            "https://hooks.example.com/a b",
            "ftp://hooks.example.com/x",
            "hooks.example.com/x",
        ] {
            assert!(OutboundUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn of_an_address_only_the_origin_is_printed() {
        let webhook = OutboundUrl::parse("https://hooks.example.com/services/T0KEN?key=s3cret").unwrap();
        assert_eq!(
            format!("{webhook} {webhook:?}"),
            "https://hooks.example.com/(hidden) OutboundUrl(https://hooks.example.com/(hidden))"
        );
        let error = OutboundUrl::parse("http://hooks.example.com/T0KEN").unwrap_err();
        assert!(!error.contains("T0KEN"), "{error}");
        assert_eq!(
            OutboundUrl::parse("https://hooks.example.com").unwrap().to_string(),
            "https://hooks.example.com"
        );
    }
}
