//! Hot: the caller's own credential, for the providers that are set up to get it.
//!
//! A login to a subscription belongs to its agent and changes by the hour, so it is not in the vault: it arrives
//! where its client puts it and goes on byte for byte. The capability then has one place of its own,
//! `X-Tokfence-Capability`, and must stand nowhere else. What is checked here and what is sent is one function.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use policy::{Denial, DenialCode, TokenRef};

use crate::provider::catalogue::{AuthStyle, Provider};
use crate::request::headers::{CAPABILITY, CREDENTIALS, named_by_connection};
use crate::request::route::keys_in_query;

/// Checks that a request brings the one credential that its provider is to get. For all other providers there is
/// nothing to check, because nothing of the kind goes on.
///
/// # Errors
/// [`DenialCode::InvalidRequest`]: none, more than one, one in the query, or a capability in its place.
pub(crate) fn check(provider: &Provider, headers: &HeaderMap, query: Option<&str>) -> Result<(), Denial> {
    if provider.auth != AuthStyle::Passthrough {
        return Ok(());
    }
    let invalid = |message| Err(Denial::new(DenialCode::InvalidRequest, message));
    if keys_in_query(query).any(|key| !key.is_empty()) {
        return invalid("a credential in the query is not passed on; it belongs in a header");
    }
    let mut found = credentials(headers);
    let Some((_, credential)) = found.next() else {
        let message = "the provider takes the caller's own login, and the request brings none";
        return Err(
            Denial::new(DenialCode::InvalidRequest, message).with_hint("log in with the agent itself")
        );
    };
    if found.next().is_some() {
        return invalid("the request carries two credentials, and either could be meant");
    }
    if holds_capability(credential) {
        return invalid("a capability stands in the place of the caller's own login");
    }
    Ok(())
}

/// The headers of a request that carry a credential of its caller, in the order they came.
pub(crate) fn credentials(headers: &HeaderMap) -> impl Iterator<Item = (&'static HeaderName, &HeaderValue)> {
    let names = std::iter::once(&header::AUTHORIZATION).chain(&CREDENTIALS);
    let for_us_alone: Vec<HeaderName> = named_by_connection(headers).collect();
    let names = names.filter(move |name| !for_us_alone.contains(*name));
    let found = names.flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    // SDKs that were given no key send an empty one.
    let is_empty = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"bearer");
    found.filter(move |(_, value)| !is_empty(value.as_bytes().trim_ascii()))
}

/// Whether there is a capability in the value: something like one as a word of its own, or a whole one anywhere.
fn holds_capability(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut words = text.split([' ', '\t', ',', ';', ':', '=', '"']);
    words.any(TokenRef::looks_like) || TokenRef::is_within(&text)
}

/// What to say where a capability is missing: its place is not the usual one.
pub(crate) fn missing_capability() -> Denial {
    let message =
        format!("the provider takes the caller's own login, so the capability belongs in {CAPABILITY}");
    Denial::new(DenialCode::MissingCapability, message).with_hint("tokfence env, or tokfence agent mint NAME")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const TOKEN: &str = "tfk_not-even-a-whole-one";

    #[track_caller]
    fn check_login(pairs: &[(&'static str, &str)], query: Option<&str>, expected: Result<&str, &str>) {
        let text = "[providers.claude]\nupstream = \"https://a.example\"\nauth = \"passthrough\"\n";
        let config = Config::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let verdict = check(config.provider("claude").unwrap(), &headers, query);
        let sent = verdict.map(|()| {
            let sent: Vec<_> = credentials(&headers).collect();
            assert_eq!(sent.len(), 1, "{pairs:?}");
            format!("{}: {}", sent[0].0, sent[0].1.to_str().unwrap())
        });
        let shown = sent.as_deref().map_err(|denial| {
            assert_eq!(denial.code(), DenialCode::InvalidRequest);
            denial.message()
        });
        match (shown, expected) {
            (Err(message), Err(part)) => assert!(message.contains(part), "{pairs:?}: {message}"),
            (shown, expected) => assert_eq!(shown, expected, "{pairs:?}"),
        }
        // Nothing of it concerns a provider whose key is in the vault.
        assert_eq!(check(config.provider("openai").unwrap(), &headers, query), Ok(()));
    }

    #[test]
    fn one_login_goes_on_as_it_is() {
        check_login(
            &[("authorization", "Bearer sk-ant-oat01-x")],
            None,
            Ok("authorization: Bearer sk-ant-oat01-x"),
        );
        check_login(
            &[("authorization", "bearer  eyJ.x.y")],
            Some("beta=true"),
            Ok("authorization: bearer  eyJ.x.y"),
        );
        check_login(&[("x-api-key", "k")], Some("key="), Ok("x-api-key: k"));
        check_login(&[("x-goog-api-key", "k")], None, Ok("x-goog-api-key: k"));
        check_login(
            &[("api-key", "k"), ("x-api-key", ""), ("authorization", "Bearer ")],
            None,
            Ok("api-key: k"),
        );
        check_login(&[("authorization", "Bearer a-tfk_b")], None, Ok("authorization: Bearer a-tfk_b"));
    }

    #[test]
    fn no_login_or_two_are_refused() {
        check_login(&[], None, Err("brings none"));
        check_login(&[("x-tokfence-capability", "tfk_1"), ("x-api-key", " ")], None, Err("brings none"));
        check_login(
            &[("authorization", "Bearer a"), ("connection", "Authorization")],
            None,
            Err("brings none"),
        );
        check_login(&[("authorization", "Bearer a"), ("x-api-key", "b")], None, Err("two credentials"));
        check_login(
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")],
            None,
            Err("two credentials"),
        );
        check_login(&[("authorization", "Bearer a")], Some("alt=sse&k%65y=b"), Err("in the query"));
    }

    #[test]
    fn a_capability_in_the_place_of_a_login_is_refused() {
        for scheme in ["Bearer ", "bearer  ", "Token token=", "", "Basic user:", "Digest a=\""] {
            let value = format!("{scheme}{TOKEN}");
            check_login(&[("authorization", &value)], None, Err("a capability stands"));
        }
        check_login(&[("x-api-key", TOKEN)], None, Err("a capability stands"));
        check_login(&[("x-goog-api-key", TOKEN)], None, Err("a capability stands"));
        let whole = policy::MintedToken::from_random([1; 8], [2; 32]).text;
        check_login(&[("api-key", &format!("x.{whole}.y"))], None, Err("a capability stands"));
    }
}
