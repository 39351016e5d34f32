//! Hot: from a request's target to a provider's route. One rule, and what is decided on is what is forwarded.
//!
//! A path that two decoders could read differently is refused. The rest is decoded once, written back in one
//! form, matched, and sent upstream in that same form.

use std::borrow::Cow;
use std::sync::Arc;

use policy::{Denial, DenialCode, RouteClass};

use crate::config::Config;
use crate::provider::catalogue::Provider;

/// The path of our own endpoints; no provider can have this name.
const OWN_PREFIX: &str = "/__tokfence/";
/// Where one may ask whether we are here.
const HEALTH: &str = "/__tokfence/health";
/// Where a capability is made from another.
pub(crate) const ATTENUATE: &str = "/__tokfence/capabilities/attenuate";

/// Our own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Health,
    Attenuate,
    /// None that there is.
    Unknown,
}

/// Which of our own endpoints a canonical path names, if it is not a provider's.
pub(crate) fn own(path: &str) -> Option<Own> {
    path.starts_with(OWN_PREFIX).then_some(match path {
        HEALTH => Own::Health,
        ATTENUATE => Own::Attenuate,
        _ => Own::Unknown,
    })
}

/// A request's target, resolved.
#[derive(Debug)]
pub(crate) struct Route {
    /// The provider it names.
    pub(crate) provider: Arc<Provider>,
    /// Path and query to ask the provider for, its base path included, no credential in the query.
    pub(crate) upstream_target: String,
    /// The path without provider and query, for the log.
    pub(crate) path: String,
    /// What kind of thing the route does.
    pub(crate) class: RouteClass,
    /// The model, where the path names it.
    pub(crate) model: Option<String>,
}

/// Path and query of a target, checked and in canonical form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// The path: decoded once and written back in one form.
    pub(crate) path: Cow<'a, str>,
    /// The query without the question mark.
    pub(crate) query: Option<&'a str>,
}

/// Checks the raw bytes of a target and brings its path into canonical form.
///
/// # Errors
/// [`DenialCode::InvalidRequest`] when the target could be read in more than one way.
pub(crate) fn canonical(raw: &[u8]) -> Result<Target<'_>, Denial> {
    let invalid = |message| Err(Denial::new(DenialCode::InvalidRequest, message));
    let visible = raw.iter().all(|byte| (0x21..=0x7e).contains(byte));
    let Some(text) = std::str::from_utf8(raw).ok().filter(|_| visible) else {
        return invalid("the request target has characters that must be escaped");
    };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if text.contains('#') || path.contains(['\\', ';', '"', '<', '>', '[', ']', '^', '`', '{', '|', '}']) {
        return invalid("the request path has characters that are not allowed");
    }
    if path.contains("//") || path.split('/').any(|segment| segment == "." || segment == "..") {
        return invalid("the request path has empty, `.` or `..` segments");
    }
    match decode(path) {
        Some(path) => Ok(Target { path, query }),
        None => invalid("the request path has escapes that are not allowed"),
    }
}

/// Decodes escapes of harmless characters, keeps the others in upper case, refuses those that change what a
/// path means: a slash, backslash, dot, percent sign, semicolon or control character.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut parts = path.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        match byte {
            0..=0x1f | 0x7f | b'/' | b'\\' | b'.' | b'%' | b';' | b'#' | b'?' => return None,
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'~'
            | b':'
            | b'@'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b'=' => decoded.push(char::from(byte)),
            other => decoded.push_str(&format!("%{other:02X}")),
        }
        decoded.push_str(&part[2..]);
    }
    Some(Cow::Owned(decoded))
}

/// Resolves a canonical target to a provider's route.
///
/// # Errors
/// [`DenialCode::InvalidRoute`] or [`DenialCode::UnknownProvider`].
pub(crate) fn resolve(config: &Config, method: &http::Method, target: &Target<'_>) -> Result<Route, Denial> {
    let path = target.path.strip_prefix('/').unwrap_or(&target.path);
    let (name, rest) = path.split_once('/').map_or((path, ""), |(name, rest)| (name, rest));
    if name.is_empty() {
        let message = "the path must begin with a provider, as in /openai/v1/models";
        return Err(Denial::new(DenialCode::InvalidRoute, message));
    }
    let provider = config.provider(name).ok_or_else(|| {
        let message = format!("there is no provider `{}`", name.chars().take(64).collect::<String>());
        Denial::new(DenialCode::UnknownProvider, message).with_hint("tokfence provider list")
    })?;
    let rest = format!("/{rest}");
    let own_path = provider.base_path.as_str();
    let path = match rest.strip_prefix(own_path) {
        Some(inner) if inner.starts_with('/') && !own_path.is_empty() => inner.to_owned(),
        Some(_) | None => rest,
    };
    let (class, model) = classify(provider, method, &path);
    let mut upstream_target = format!("{own_path}{path}");
    if let Some(query) = target.query.and_then(without_key) {
        upstream_target.push('?');
        upstream_target.push_str(&query);
    }
    Ok(Route { provider: provider.clone(), upstream_target, path, class, model })
}

/// The class of a path and the model it names. What the catalogue does not list is `admin`.
fn classify(provider: &Provider, method: &http::Method, path: &str) -> (RouteClass, Option<String>) {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let found = provider.routes.iter().find_map(|(class, pattern)| {
        let matched = pattern.matches(method, &segments)?;
        Some((*class, matched.map(Cow::into_owned)))
    });
    found.unwrap_or((RouteClass::Admin, None))
}

/// The query without the parameter `key`, in which some SDKs put their credential.
fn without_key(query: &str) -> Option<Cow<'_, str>> {
    let is_key = |pair: &&str| key_value(pair).is_some();
    if !query.split('&').any(|pair| is_key(&pair)) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_key(pair)).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

/// The values of the parameter `key`.
pub(crate) fn keys_in_query(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.into_iter().flat_map(|query| query.split('&')).filter_map(key_value)
}

/// The value of a parameter that a provider would take for `key`, however its name is escaped.
fn key_value(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decoded = if name.contains('%') { unescape(name) } else { Some(name.to_owned()) };
    (decoded.as_deref() == Some("key")).then_some(value)
}

/// The text with every escape decoded; `None` when it is not ASCII then.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok().filter(u8::is_ascii)?;
        decoded.push(char::from(byte));
        decoded.push_str(&part[2..]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> Config {
        Config::parse("", std::path::Path::new("/nowhere")).unwrap()
    }

    #[track_caller]
    fn check_canonical(raw: &str, path: Option<&str>) {
        assert_eq!(
            canonical(raw.as_bytes()).ok().map(|target| target.path.into_owned()).as_deref(),
            path,
            "{raw}"
        );
    }

    #[test]
    fn a_path_has_one_form() {
        check_canonical("/openai/v1/models", Some("/openai/v1/models"));
        check_canonical(
            "/google/v1beta/models/a%3AgenerateContent",
            Some("/google/v1beta/models/a:generateContent"),
        );
        check_canonical("/a/x%20y%c3%a9", Some("/a/x%20y%C3%A9"));
    }

    #[test]
    fn a_path_that_could_be_read_twice_is_refused() {
        for raw in [
            "/openai/../anthropic",
            "/a/./b",
            "/a//b",
            "/a/%2e%2e/b",
            "/a/%2E/b",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%25",
            "/a;x=1",
            "/a%3bx",
            "/a#b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a|b",
            "/a%+1",
            "/a[b",
            "/a]b",
            "/é",
        ] {
            check_canonical(raw, None);
        }
    }

    #[track_caller]
    fn check_route(method: &str, raw: &str, expected: Result<(&str, RouteClass, Option<&str>), DenialCode>) {
        let target = canonical(raw.as_bytes()).unwrap();
        let route = resolve(&config(), &method.parse().unwrap(), &target);
        let shown = route.as_ref().map(|r| (r.upstream_target.as_str(), r.class, r.model.as_deref()));
        assert_eq!(shown.map_err(|denial| denial.code()), expected, "{method} {raw}");
    }

    #[test]
    fn the_base_path_is_not_doubled() {
        let generate = |target| Ok((target, RouteClass::Generate, None));
        check_route("POST", "/openai/v1/chat/completions", generate("/v1/chat/completions"));
        check_route("POST", "/groq/v1/chat/completions", generate("/openai/v1/chat/completions"));
        check_route("POST", "/groq/openai/v1/chat/completions", generate("/openai/v1/chat/completions"));
        check_route("POST", "/openrouter/v1/chat/completions", generate("/api/v1/chat/completions"));
        check_route("POST", "/openrouter/api/v1/chat/completions", generate("/api/v1/chat/completions"));
        check_route("POST", "/anthropic/v1/messages?beta=true", generate("/v1/messages?beta=true"));
    }

    #[test]
    fn the_model_is_read_from_the_path_where_it_is_there() {
        let expected = ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", RouteClass::Generate);
        let raw = "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=abc";
        check_route("POST", raw, Ok((expected.0, expected.1, Some("gemini-2.5-pro"))));
    }

    #[test]
    fn the_model_of_a_path_is_the_one_that_is_sent_on() {
        let config = "[providers.mine]\nupstream = \"https://a.example\"\n";
        let config = Config::parse(config, std::path::Path::new("/nowhere")).unwrap();
        for (raw, sent, model) in [
            (
                "/mine/model/anthropic.claude-3%3A0/invoke",
                "/model/anthropic.claude-3:0/invoke",
                "anthropic.claude-3:0",
            ),
            (
                "/mine/model/us.a.claude-4-v1%3a0/invoke-with-response-stream",
                "/model/us.a.claude-4-v1:0/invoke-with-response-stream",
                "us.a.claude-4-v1:0",
            ),
            ("/mine/model/a%20b%c3%a9/converse", "/model/a%20b%C3%A9/converse", "a%20b%C3%A9"),
            ("/mine/model/a/converse-stream", "/model/a/converse-stream", "a"),
            (
                "/mine/openai/deployments/my-gpt/chat/completions?api-version=1",
                "/openai/deployments/my-gpt/chat/completions?api-version=1",
                "my-gpt",
            ),
            ("/mine/v1beta/models/g%2d2:generateContent", "/v1beta/models/g-2:generateContent", "g-2"),
            (
                "/azure-openai/deployments/d/images/generations",
                "/openai/deployments/d/images/generations",
                "d",
            ),
            ("/huggingface/hf-inference/models/org/name", "/hf-inference/models/org/name", "org/name"),
            (
                "/huggingface/hf-inference/models/org/name/v1/chat/completions",
                "/hf-inference/models/org/name/v1/chat/completions",
                "org/name",
            ),
        ] {
            let target = canonical(raw.as_bytes()).unwrap();
            let route = resolve(&config, &http::Method::POST, &target).unwrap();
            let shown = (route.upstream_target.as_str(), route.class, route.model.as_deref());
            assert_eq!(shown, (sent, RouteClass::Generate, Some(model)), "{raw}");
        }
        // An escaped slash could be read as a path or as a name, so neither is.
        for raw in ["/mine/model/a%2Fb/invoke", "/mine/model/a%252Fb/invoke", "/mine/model/a%2eb/invoke"] {
            assert!(canonical(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn what_is_not_listed_is_administration() {
        check_route(
            "POST",
            "/openai/v1/organization/admin_api_keys",
            Ok(("/v1/organization/admin_api_keys", RouteClass::Admin, None)),
        );
        check_route(
            "GET",
            "/openai/v1/chat/completions",
            Ok(("/v1/chat/completions", RouteClass::Admin, None)),
        );
        check_route(
            "POST",
            "/openai/v1/realtime/client_secrets",
            Ok(("/v1/realtime/client_secrets", RouteClass::Mint, None)),
        );
        check_route("HEAD", "/openai/v1/models", Ok(("/v1/models", RouteClass::Metadata, None)));
    }

    #[test]
    fn unknown_names_are_told() {
        check_route("GET", "/", Err(DenialCode::InvalidRoute));
        check_route("GET", "/opneai/v1/models", Err(DenialCode::UnknownProvider));
        check_route("GET", "/OpenAI/v1/models", Err(DenialCode::UnknownProvider));
    }

    #[test]
    fn a_key_in_the_query_never_goes_on() {
        let target = canonical(b"/google/v1/models?key=tfk_x&pageSize=1&k%65y=b&a%5Bkey%5D=c").unwrap();
        let route = resolve(&config(), &http::Method::GET, &target).unwrap();
        assert_eq!(route.upstream_target, "/v1/models?pageSize=1&a%5Bkey%5D=c");
        assert_eq!(keys_in_query(target.query).collect::<Vec<_>>(), ["tfk_x", "b"]);
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_its_own_canonical_form(raw in "/[ -~]{0,40}") {
            if let Ok(target) = canonical(raw.as_bytes()) {
                let again = canonical(target.path.as_bytes());
                prop_assert!(target.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/%-._~:@!$&'()*+,=".contains(&byte)));
                prop_assert_eq!(again.map(|again| again.path.into_owned()), Ok(target.path.into_owned()));
            }
        }

        #[test]
        fn no_bytes_can_panic_the_path_rule(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = canonical(&raw);
        }
    }
}
