//! Hot: from a request to the capability it presents.
//!
//! SDKs have one place for a key and nothing else to put a capability into, so it is taken from all of those
//! places. Two different ones in one request could mean either, so that is refused. Only where those places hold
//! the caller's own login (see `passthrough`), the capability has one place of its own.

use http::header::{self, HeaderMap, HeaderValue};
use policy::{Canary, CanaryId, Capability, Denial, DenialCode, Rules, TokenRef};

use crate::request::headers::{CAPABILITY, CREDENTIALS};
use crate::request::passthrough;
use crate::request::route::keys_in_query;
use crate::state::{Shared, Snapshot};

/// A request that proves to hold no capability, and how that is answered.
#[derive(Debug)]
pub(crate) struct Unproven {
    denial: Denial,
    /// What it presents instead and can only have stolen.
    canary: Option<CanaryId>,
}

impl Unproven {
    /// The answer, once the theft is reported if there was one. It is the answer to any wrong key: a thief learns nothing.
    pub(crate) fn reported(self, shared: &Shared, rules: &Rules) -> Denial {
        if let Some(canary) = self.canary {
            shared.decoy_presented(rules, canary);
        }
        self.denial
    }
}

/// Finds the capability that a request proves to hold; with `is_passthrough` in its own header alone, because the
/// places of API keys hold the caller's own credential then. `None` means an anonymous caller, where those are served;
/// that is never done for another machine.
/// Whether it is still in force is for the caller to check, so that a refusal can name the agent.
///
/// # Errors
/// How to answer: missing, invalid or contradicting, or a canary wherever a key could be.
pub(crate) fn authenticate<'s>(
    snapshot: &'s Snapshot,
    is_passthrough: bool,
    headers: &HeaderMap,
    query: Option<&str>,
    is_local: bool,
) -> Result<Option<&'s Capability>, Unproven> {
    let found = proven(snapshot, is_passthrough, headers, query, is_local);
    // Where a capability is proven, it is all that was presented; but beside a login there may be more.
    let is_all = matches!(found, Ok(Some(_))) && !is_passthrough;
    let looked_for = if is_all { None } else { canary_among(&snapshot.rules, headers, query) };
    let canary = looked_for.map(|canary| canary.id);
    match found {
        Ok(found) if canary.is_none() => Ok(found),
        Ok(_) => Err(Unproven { denial: unknown(), canary }),
        Err(denial) => Err(Unproven { denial, canary }),
    }
}

fn proven<'s>(
    snapshot: &'s Snapshot,
    is_passthrough: bool,
    headers: &HeaderMap,
    query: Option<&str>,
    is_local: bool,
) -> Result<Option<&'s Capability>, Denial> {
    let presented = if is_passthrough { in_its_own_place(headers)? } else { presented(headers, query)? };
    let is_ours = presented.is_some_and(TokenRef::looks_like);
    if !is_ours && is_local && !snapshot.config.security.require_capability {
        return Ok(None);
    }
    let Some(text) = presented else {
        if is_passthrough {
            return Err(passthrough::missing_capability());
        }
        let message = "the request carries no capability where its SDK puts the API key";
        return Err(Denial::new(DenialCode::MissingCapability, message).with_hint("tokfence agent mint NAME"));
    };
    let token = TokenRef::parse(text).map_err(|_| unknown())?;
    let capabilities = &snapshot.rules.capabilities;
    let capability = capabilities.get(&token.id()).filter(|capability| capability.is_proven_by(&token));
    capability.map(Some).ok_or_else(unknown)
}

fn unknown() -> Denial {
    Denial::new(DenialCode::InvalidCapability, "the API key is not a capability of this gateway")
        .with_hint("tokfence agent mint NAME, or start the agent with `tokfence run`")
}

/// A canary in any place where a key is looked for, by us or by a provider.
fn canary_among<'s>(rules: &'s Rules, headers: &HeaderMap, query: Option<&str>) -> Option<&'s Canary> {
    if rules.canaries.is_empty() {
        return None;
    }
    let authorization = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorization.filter_map(|value| text(value).ok().map(credential));
    let keys = CREDENTIALS.iter().flat_map(|name| headers.get_all(name));
    let others = keys.chain(headers.get_all(CAPABILITY)).filter_map(|value| text(value).ok());
    let mut texts = authorization.chain(others).chain(keys_in_query(query));
    texts.find_map(|text| rules.presented_canary(text))
}

/// The one text that a request presents where a capability is looked for.
fn presented<'h>(headers: &'h HeaderMap, query: Option<&'h str>) -> Result<Option<&'h str>, Denial> {
    let mut found = Presented::default();
    for value in headers.get_all(header::AUTHORIZATION) {
        found.add(credential(text(value)?))?;
    }
    for name in CREDENTIALS.iter().chain([&CAPABILITY]) {
        for value in headers.get_all(name) {
            found.add(text(value)?)?;
        }
    }
    for value in keys_in_query(query) {
        found.add(value)?;
    }
    Ok(found.0)
}

/// The one text that a request presents in the header that is for capabilities alone.
fn in_its_own_place(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    let mut found = Presented::default();
    for value in headers.get_all(CAPABILITY) {
        found.add(text(value)?)?;
    }
    Ok(found.0)
}

/// What was presented so far. The same text twice is one.
#[derive(Default)]
struct Presented<'h>(Option<&'h str>);

impl<'h> Presented<'h> {
    fn add(&mut self, value: &'h str) -> Result<(), Denial> {
        match self.0 {
            _ if value.is_empty() => {}
            None => self.0 = Some(value),
            Some(first) if first == value => {}
            Some(_) => return Err(invalid("the request carries two different capabilities or keys")),
        }
        Ok(())
    }
}

/// What `Authorization` carries, without the word before a token.
fn credential(value: &str) -> &str {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { value }
}

fn text(value: &HeaderValue) -> Result<&str, Denial> {
    value.to_str().map(str::trim).map_err(|_| invalid("a capability has characters that are not allowed"))
}

fn invalid(message: &'static str) -> Denial {
    Denial::new(DenialCode::InvalidRequest, message)
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
        assert_eq!(found, expected, "{pairs:?} {query:?}");
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
    fn beside_a_login_a_capability_has_one_place() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer tfk_1".parse().unwrap());
        headers.insert("x-api-key", "tfk_1".parse().unwrap());
        assert_eq!(in_its_own_place(&headers), Ok(None));
        headers.insert("x-tokfence-capability", "tfk_2".parse().unwrap());
        assert_eq!(in_its_own_place(&headers), Ok(Some("tfk_2")));
        headers.append("x-tokfence-capability", "tfk_3".parse().unwrap());
        assert_eq!(in_its_own_place(&headers).map_err(|it| it.code()), Err(DenialCode::InvalidRequest));
    }

    #[track_caller]
    fn check_canary(name: &'static str, value: &str, query: Option<&str>, is_found: bool) {
        let value_of = |text: &str| policy::CanaryValue::Text(text.into());
        let planted = |number, kind, text| Canary {
            id: CanaryId(number),
            kind,
            name: "spare".parse().unwrap(),
            shape: None,
            value: value_of(text),
            holder: None,
        };
        let canaries = vec![
            planted(1, policy::CanaryKind::Prompt, "tkc-1"),
            planted(2, policy::CanaryKind::Decoy, "AKIA1:aws2"),
        ];
        let rules = Rules { canaries, ..Rules::default() };
        let mut headers = HeaderMap::new();
        headers.append("x-api-key", "another".parse().unwrap());
        headers.append(name, value.parse().unwrap());
        let found = canary_among(&rules, &headers, query).map(|canary| canary.id);
        assert_eq!(found, is_found.then_some(CanaryId(2)), "{name}: {value} {query:?}");
    }

    #[test]
    fn a_canary_is_found_wherever_a_key_could_be() {
        for name in ["authorization", "x-api-key", "x-goog-api-key", "api-key", "x-tokfence-capability"] {
            for value in ["AKIA1:aws2", "AKIA1", "aws2"] {
                check_canary(name, value, None, true);
            }
            for value in ["", "aws", "aws22", "tkc-1", ":"] {
                check_canary(name, value, None, false);
            }
        }
        check_canary("authorization", "bearer  aws2 ", None, true);
        check_canary("x-other", "aws2", Some("alt=sse&key=aws2"), true);
        check_canary("x-other", "aws2", Some("alt=aws2"), false);
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
