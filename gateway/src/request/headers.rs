//! Hot: which headers cross the gateway. Towards a provider they are built from a list, so that a header
//! nobody thought of stays here; towards the caller those that act on a browser or a connection are removed.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName};

/// The name of a header, or a prefix of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern {
    text: String,
    is_prefix: bool,
}

/// The header in which a caller may send its capability beside the places where SDKs put an API key.
pub(crate) const CAPABILITY: HeaderName = HeaderName::from_static("x-tokfence-capability");
/// The header that names the request in every answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-tokfence-request-id");

/// Headers in which SDKs send their API key, and agents therefore their capability.
pub(crate) static CREDENTIALS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
];

/// Headers that the gateway sets towards a provider itself, or keeps for itself.
static RESERVED: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    CAPABILITY,
];

/// Further headers that are about the connection to us, or act on it, whatever a configuration says.
static OF_A_CONNECTION: [HeaderName; 9] = [
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::CONTENT_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    REQUEST_ID,
];

/// Headers of a caller that every provider gets to see.
static PASSED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-client-request-id"),
];
/// The same, all that begin so: what OpenAI's and Anthropic's SDKs tell of themselves.
const PASSED_PREFIX: &str = "x-stainless-";

/// Headers of an answer that act on the connection, on a browser, or on the caller's route to us.
static REMOVED: [HeaderName; 12] = [
    header::SET_COOKIE,
    header::ALT_SVC,
    header::PROXY_AUTHENTICATE,
    header::REFRESH,
    header::SERVER,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("x-tokfence-cost-usd"),
    REQUEST_ID,
];

impl HeaderPattern {
    /// A name, or a prefix of names when the text ends in `*`. What the gateway sets itself, and what is about a
    /// connection, can never be passed on.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        let is_name = name.parse::<HeaderName>().is_ok() && !name.contains('*');
        if !(is_name || is_prefix && name.is_empty()) {
            return Err(format!("`{}` is not a header name", text.escape_debug()));
        }
        let pattern = Self { text: name.to_ascii_lowercase(), is_prefix };
        let mut own = RESERVED.iter().chain(&CREDENTIALS).chain(&OF_A_CONNECTION);
        match own.find(|name| pattern.matches(name.as_str())) {
            Some(name) if is_prefix => Err(format!("`{text}` covers `{name}`, which is never passed on")),
            Some(name) => Err(format!("`{name}` is never passed on")),
            None => Ok(pattern),
        }
    }

    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

impl fmt::Display for HeaderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

/// Whether a caller's header is passed on to a provider that takes `extra` beside the common ones.
pub(crate) fn is_passed<'p>(name: &HeaderName, mut extra: impl Iterator<Item = &'p HeaderPattern>) -> bool {
    let is_common = PASSED.contains(name) || name.as_str().starts_with(PASSED_PREFIX);
    is_common || extra.any(|pattern| pattern.matches(name.as_str()))
}

/// All headers of a provider's answer together, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Whether a provider's answer has more headers than any provider needs.
pub(crate) fn is_too_large(answer: &HeaderMap) -> bool {
    let sizes = answer.iter().map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum::<usize>() > ANSWER_BYTES_MAX
}

/// Whether the gateway sets this header towards a provider itself.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(name) || CREDENTIALS.contains(name)
}

/// The headers that `Connection` names: they are meant for the next hop alone, in either direction. It may name thousands
/// that are not there.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| headers.contains_key(name))
}

/// The headers to remove from a provider's answer: those above, what `Connection` names, and all of CORS.
pub(crate) fn to_remove(answer: &HeaderMap) -> Vec<HeaderName> {
    let named_by_connection = named_by_connection(answer)
        .filter(|name| *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH);
    let is_removed =
        |name: &HeaderName| REMOVED.contains(name) || name.as_str().starts_with("access-control-");
    named_by_connection.chain(answer.keys().filter(|name| is_removed(name)).cloned()).collect()
}

/// The service tier of an answer, where its head names one and its body does not: Gemini's.
pub(crate) fn service_tier(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-gemini-service-tier")?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_passed(name: &'static str, passed: bool) {
        let extra = ["anthropic-version", "x-openai-*"].map(|text| HeaderPattern::parse(text).unwrap());
        assert_eq!(is_passed(&HeaderName::from_static(name), extra.iter()), passed, "{name}");
    }

    #[test]
    fn only_listed_headers_go_to_a_provider() {
        check_passed("content-type", true);
        check_passed("x-stainless-lang", true);
        check_passed("anthropic-version", true);
        check_passed("x-openai-client", true);
        for name in [
            "authorization",
            "x-api-key",
            "cookie",
            "x-forwarded-for",
            "x-tokfence-capability",
            "accept-encoding",
            "openai-organization",
            "x-auth-token",
            "traceparent",
            "forwarded",
            "via",
            "te",
            "anthropic-versions",
        ] {
            check_passed(name, false);
        }
    }

    #[track_caller]
    fn check_pattern(text: &str, expected: Result<&str, &str>) {
        let shown = HeaderPattern::parse(text).map(|pattern| pattern.to_string());
        assert_eq!(shown, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn no_pattern_lets_a_credential_or_a_capability_through() {
        check_pattern("ChatGPT-Account-ID", Ok("chatgpt-account-id"));
        check_pattern("openai-*", Ok("openai-*"));
        check_pattern("session_id", Ok("session_id"));
        check_pattern("x-app", Ok("x-app"));
        for name in ["authorization", "x-api-key", "x-tokfence-capability", "host", "cookie", "te", "expect"]
        {
            check_pattern(name, Err(&format!("`{name}` is never passed on")));
        }
        check_pattern("X-*", Err("`X-*` covers `x-tokfence-capability`, which is never passed on"));
        check_pattern("a*", Err("`a*` covers `accept-encoding`, which is never passed on"));
        check_pattern("*", Err("`*` covers `host`, which is never passed on"));
        for text in ["", "a b", "a:", "é", "a**", "a*b"] {
            check_pattern(text, Err(&format!("`{text}` is not a header name")));
        }
    }

    #[test]
    fn an_answer_loses_what_acts_on_the_caller() {
        let mut answer = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("set-cookie", "a=b"),
            ("connection", "close, X-Inner"),
            ("x-inner", "1"),
            ("access-control-allow-origin", "*"),
            ("alt-svc", "h3"),
            ("x-request-id", "r"),
        ] {
            answer.append(
                HeaderName::from_static(Box::leak(name.to_lowercase().into_boxed_str())),
                value.parse().unwrap(),
            );
        }
        for name in to_remove(&answer) {
            answer.remove(name);
        }
        let mut left: Vec<&str> = answer.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-type", "x-request-id"]);
    }
}
