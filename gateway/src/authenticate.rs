//! Hot: from a request to the capability it presents.
//!
//! SDKs have one place for a key and nothing else to put a capability into, so it is taken from all of those
//! places. Two different ones in one request could mean either, so that is refused.

use std::borrow::Cow;

use http::header::{self, HeaderMap};
use policy::{Capability, Denial, DenialCode, TokenRef};

use crate::headers::{CAPABILITY, CREDENTIALS};
use crate::route::keys_in_query;
use crate::state::Snapshot;

/// Finds the capability that a request proves to hold. `None` means an anonymous caller, where those are served;
/// that is never done for another machine.
/// Whether it is still in force is for the caller to check, so that a refusal can name the agent.
///
/// # Errors
/// The [`Denial`] to answer with: missing, invalid or contradicting.
pub(crate) fn authenticate<'s>(
    snapshot: &'s Snapshot,
    headers: &HeaderMap,
    query: Option<&str>,
    is_local: bool,
) -> Result<Option<&'s Capability>, Denial> {
    let presented = presented(headers, query)?;
    let is_ours = presented.as_deref().is_some_and(TokenRef::looks_like);
    if !is_ours && is_local && !snapshot.config.security.require_capability {
        return Ok(None);
    }
    let Some(text) = presented else {
        let message = "the request carries no capability where its SDK puts the API key";
        return Err(Denial::new(DenialCode::MissingCapability, message).with_hint("tokfence agent mint NAME"));
    };
    let unknown = || {
        Denial::new(DenialCode::InvalidCapability, "the API key is not a capability of this gateway")
            .with_hint("tokfence agent mint NAME, or start the agent with `tokfence run`")
    };
    let token = TokenRef::parse(&text).map_err(|_| unknown())?;
    let capabilities = &snapshot.rules.capabilities;
    let capability = capabilities.get(&token.id()).filter(|capability| capability.is_proven_by(&token));
    capability.map(Some).ok_or_else(unknown)
}

/// The one text that a request presents where a capability is looked for.
fn presented<'h>(headers: &'h HeaderMap, query: Option<&'h str>) -> Result<Option<Cow<'h, str>>, Denial> {
    let invalid = |message| Denial::new(DenialCode::InvalidRequest, message);
    let mut found: Option<Cow<'h, str>> = None;
    let mut add = |value: Cow<'h, str>| {
        if value.is_empty() {
            return Ok(());
        }
        match &found {
            Some(first) if *first != value => {
                Err(invalid("the request carries two different capabilities or keys"))
            }
            Some(_) => Ok(()),
            None => {
                found = Some(value);
                Ok(())
            }
        }
    };
    let text = |value: &'h http::HeaderValue| {
        value.to_str().map(str::trim).map_err(|_| invalid("a capability has characters that are not allowed"))
    };
    for value in headers.get_all(header::AUTHORIZATION) {
        let value = text(value)?;
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        add(Cow::Borrowed(if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { value }))?;
    }
    for name in CREDENTIALS.iter().chain([&CAPABILITY]) {
        for value in headers.get_all(name) {
            add(Cow::Borrowed(text(value)?))?;
        }
    }
    for value in keys_in_query(query) {
        add(Cow::Borrowed(value))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_presented(
        pairs: &[(&'static str, &str)],
        query: Option<&str>,
        expected: Result<Option<&str>, DenialCode>,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let found = presented(&headers, query).map_err(|denial| denial.code());
        assert_eq!(found, expected.map(|text| text.map(Cow::Borrowed)), "{pairs:?} {query:?}");
    }

    #[test]
    fn a_capability_is_found_wherever_an_sdk_puts_it() {
        for name in ["x-api-key", "x-goog-api-key", "api-key", "x-tokfence-capability"] {
            check_presented(&[(name, "tfk_1")], None, Ok(Some("tfk_1")));
        }
        check_presented(&[("authorization", "Bearer tfk_1")], None, Ok(Some("tfk_1")));
        check_presented(&[("authorization", "bearer  tfk_1")], None, Ok(Some("tfk_1")));
        check_presented(&[], Some("alt=sse&key=tfk_1"), Ok(Some("tfk_1")));
        check_presented(&[], None, Ok(None));
        check_presented(&[("authorization", "Bearer ")], None, Ok(None));
    }

    #[test]
    fn the_same_one_twice_is_one_and_two_are_refused() {
        check_presented(&[("authorization", "Bearer a"), ("x-api-key", "a")], None, Ok(Some("a")));
        let two = Err(DenialCode::InvalidRequest);
        check_presented(&[("authorization", "Bearer a"), ("x-api-key", "b")], None, two);
        check_presented(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], None, two);
        check_presented(&[("authorization", "Basic a"), ("x-api-key", "b")], None, two);
        check_presented(&[("x-api-key", "a")], Some("key=b"), two);
    }
}
