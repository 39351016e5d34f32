//! The providers: where they are, how they take their credential, which routes they have.
//!
//! The built-in ones are data (`conf/providers.toml`); the configuration overrides them or adds others.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use policy::{ProviderId, RouteClass};
use serde::Deserialize;
use vault::{Origin, Scheme};

use crate::provider::pattern::RoutePattern;
use crate::request::headers::HeaderPattern;
use crate::wire::WireFormat;

/// One provider, with everything a request to it needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its name in routes, configuration and vault.
    pub id: ProviderId,
    /// Other names of it in routes.
    pub aliases: Vec<ProviderId>,
    /// Scheme, host and port of its API. A credential is bound to one origin and goes nowhere else.
    pub origin: Origin,
    /// The path in front of every route, without a slash at its end; often empty.
    pub base_path: String,
    /// Whether it runs on this machine: plain http is allowed, and a credential is not needed.
    pub is_local: bool,
    /// How it takes its credential.
    pub auth: AuthStyle,
    /// The format of its answers.
    pub wire: WireFormat,
    /// The provider's name in the price table.
    pub prices: String,
    /// Whether a chat stream may be asked for its usage.
    pub takes_include_usage: bool,
    /// Whether it is known to ignore the model of a body where the path names one, so that the two may differ.
    pub ignores_body_model: bool,
    /// Headers of the caller that are passed on beside the common ones.
    pub passed_headers: Vec<HeaderPattern>,
    /// Further ones, of the configuration.
    pub further_headers: Vec<HeaderPattern>,
    /// Headers that are added to each request.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// The variables that its SDKs read, with `{url}` and `{token}` in their values.
    pub env: BTreeMap<String, String>,
    /// Further variables in which a real key may sit.
    pub unset: Vec<String>,
    /// Its routes; where two match, the first counts, and the strictest class stands first.
    pub routes: Vec<(RouteClass, RoutePattern)>,
    /// How long its parts may take.
    pub timeouts: Timeouts,
    /// The only certificates that are trusted for it, as PEM, instead of the machine's.
    pub ca_file: Option<PathBuf>,
}

/// How a provider takes its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthStyle {
    /// `Authorization: Bearer …`
    Bearer,
    /// `x-api-key: …`
    XApiKey,
    /// `x-goog-api-key: …`
    XGoogApiKey,
    /// `api-key: …`
    ApiKey,
    /// No credential.
    None,
    /// The caller's own credential goes on as it is; the vault holds none. For logins to a subscription.
    Passthrough,
}

/// How long a provider may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two parts of the answer.
    pub idle: Duration,
}

/// The built-in providers.
#[derive(Clone, Debug)]
pub struct Catalogue(Vec<Provider>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    upstream: String,
    #[serde(default)]
    aliases: Vec<String>,
    auth: AuthStyle,
    wire: String,
    prices: Option<String>,
    #[serde(default)]
    usage: bool,
    #[serde(default)]
    path_model: bool,
    #[serde(default)]
    headers: Vec<String>,
    env: BTreeMap<String, String>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    local: bool,
    routes: HashMap<String, Vec<String>>,
}

/// The routes of a provider that is not built in. Those that name a model in the path stand first: a server that
/// takes the model from there must not be asked with another one in the body.
const CUSTOM_ROUTES: &[(RouteClass, &str)] = &[
    // Azure's, which other gateways offer as well.
    (RouteClass::Generate, "POST /**/deployments/{model}/chat/completions"),
    (RouteClass::Generate, "POST /**/deployments/{model}/completions"),
    (RouteClass::Embed, "POST /**/deployments/{model}/embeddings"),
    // Bedrock's.
    (RouteClass::Generate, "POST /**/model/{model}/invoke"),
    (RouteClass::Generate, "POST /**/model/{model}/invoke-with-response-stream"),
    (RouteClass::Generate, "POST /**/model/{model}/converse"),
    (RouteClass::Generate, "POST /**/model/{model}/converse-stream"),
    (RouteClass::Count, "POST /**/model/{model}/count-tokens"),
    // Gemini's.
    (RouteClass::Generate, "POST /**/models/{model}:generateContent"),
    (RouteClass::Generate, "POST /**/models/{model}:streamGenerateContent"),
    (RouteClass::Embed, "POST /**/models/{model}:embedContent"),
    (RouteClass::Embed, "POST /**/models/{model}:batchEmbedContents"),
    (RouteClass::Count, "POST /**/models/{model}:countTokens"),
    // OpenAI's and Anthropic's, with the model in the body.
    (RouteClass::Generate, "POST /**/chat/completions"),
    (RouteClass::Generate, "POST /**/completions"),
    (RouteClass::Generate, "POST /**/responses"),
    (RouteClass::Generate, "POST /**/responses/compact"),
    (RouteClass::Generate, "POST /**/messages"),
    (RouteClass::Embed, "POST /**/embeddings"),
    (RouteClass::Embed, "POST /**/rerank"),
    (RouteClass::Count, "POST /**/messages/count_tokens"),
    (RouteClass::Metadata, "GET /**/models"),
    (RouteClass::Metadata, "GET /**/models/*"),
];

impl Catalogue {
    /// The catalogue that is part of the binary.
    pub fn embedded() -> Self {
        static EMBEDDED: LazyLock<Catalogue> = LazyLock::new(|| {
            Catalogue::parse(include_str!("../../../conf/providers.toml"))
                .expect("a test parses the embedded file")
        });
        EMBEDDED.clone()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let entries: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| error.to_string())?;
        let provider = |(name, entry): (String, Entry)| {
            provider(&name, entry).map_err(|error| format!("{name}: {error}"))
        };
        entries.into_iter().map(provider).collect::<Result<_, _>>().map(Self)
    }

    /// Its providers, by name.
    pub fn providers(self) -> Vec<Provider> {
        self.0
    }
}

fn provider(name: &str, entry: Entry) -> Result<Provider, String> {
    let id: ProviderId = name.parse().map_err(|error| format!("{error}"))?;
    let (origin, base_path) = parse_upstream(&entry.upstream)?;
    let mut routes = Vec::new();
    for (class, patterns) in entry.routes {
        let class: RouteClass = class.parse().map_err(|error| format!("{error}"))?;
        for pattern in patterns {
            routes.push((class, pattern.parse()?));
        }
    }
    routes.sort_by_key(|(class, _)| std::cmp::Reverse(*class));
    let alias = |name: String| name.parse().map_err(|error| format!("{error}"));
    Ok(Provider {
        aliases: entry.aliases.into_iter().map(alias).collect::<Result<_, _>>()?,
        is_local: entry.local,
        auth: entry.auth,
        wire: entry.wire.parse().map_err(|error: crate::wire::UnknownWireFormat| error.to_string())?,
        prices: entry.prices.unwrap_or_else(|| name.to_owned()),
        takes_include_usage: entry.usage,
        ignores_body_model: entry.path_model,
        passed_headers: entry
            .headers
            .iter()
            .map(|name| HeaderPattern::parse(name))
            .collect::<Result<_, _>>()?,
        env: entry.env,
        unset: entry.unset,
        routes,
        ..Provider::custom(id, origin, base_path)
    })
}

impl Provider {
    /// A provider about which nothing is known but its address: OpenAI's format, a bearer credential, and the
    /// routes by which models are usually asked.
    pub fn custom(id: ProviderId, origin: Origin, base_path: String) -> Self {
        let route = |(class, text): &(_, &str)| (*class, text.parse().expect("a pattern of the source"));
        Self {
            prices: id.as_str().to_owned(),
            id,
            aliases: Vec::new(),
            origin,
            base_path,
            is_local: false,
            auth: AuthStyle::Bearer,
            wire: WireFormat::OpenAi,
            takes_include_usage: false,
            ignores_body_model: false,
            passed_headers: Vec::new(),
            further_headers: Vec::new(),
            extra_headers: Vec::new(),
            env: BTreeMap::new(),
            unset: Vec::new(),
            routes: CUSTOM_ROUTES.iter().map(route).collect(),
            timeouts: Timeouts {
                connect: Duration::from_secs(10),
                first_byte: Duration::from_secs(600),
                idle: Duration::from_secs(300),
            },
            ca_file: None,
        }
    }

    /// Whether `name` is its name or an alias.
    pub fn answers_to(&self, name: &ProviderId) -> bool {
        self.id == *name || self.aliases.contains(name)
    }
}

impl AuthStyle {
    /// Parses the name used in the configuration.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text)).map_err(
            |_| "must be one of bearer, x-api-key, x-goog-api-key, api-key, none, passthrough".to_owned(),
        )
    }

    /// The name used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
            Self::ApiKey => "api-key",
            Self::None => "none",
            Self::Passthrough => "passthrough",
        }
    }

    /// The header that carries a credential of the vault, and what stands before it in the value.
    pub fn header(self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::Bearer => Some((http::header::AUTHORIZATION, "Bearer ")),
            Self::XApiKey => Some((HeaderName::from_static("x-api-key"), "")),
            Self::XGoogApiKey => Some((HeaderName::from_static("x-goog-api-key"), "")),
            Self::ApiKey => Some((HeaderName::from_static("api-key"), "")),
            Self::None | Self::Passthrough => None,
        }
    }
}

/// Splits an upstream's URL into its origin and base path.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_upstream(url: &str) -> Result<(Origin, String), String> {
    let origin = Origin::of_url(url).map_err(|error| error.to_string())?;
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]).trim_end_matches('/');
    let is_plain =
        path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~'));
    if !is_plain || path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        return Err("the path of an upstream has plain segments only, no query".to_owned());
    }
    Ok((origin, path.to_owned()))
}

/// Whether the origin is reached by TLS.
pub(crate) fn is_https(origin: &Origin) -> bool {
    origin.scheme() == Scheme::Https
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalogue_is_whole() {
        let providers = Catalogue::parse(include_str!("../../../conf/providers.toml")).unwrap().providers();
        assert!(providers.len() >= 22);
        for provider in &providers {
            assert!(is_https(&provider.origin) || provider.is_local, "{}", provider.id);
            assert_eq!(provider.auth == AuthStyle::None, provider.is_local, "{}", provider.id);
            assert!(
                provider.routes.iter().any(|(class, _)| *class == RouteClass::Generate),
                "{}",
                provider.id
            );
            assert!(!provider.env.is_empty(), "{}", provider.id);
        }
    }

    #[track_caller]
    fn check_upstream(url: &str, expected: Option<(&str, &str)>) {
        let parsed = parse_upstream(url).ok();
        let shown = parsed.as_ref().map(|(origin, path)| (origin.to_string(), path.as_str()));
        assert_eq!(shown, expected.map(|(origin, path)| (origin.to_owned(), path)), "{url}");
    }

    #[test]
    fn an_upstream_is_an_origin_and_a_base_path() {
        check_upstream("https://api.openai.com", Some(("https://api.openai.com", "")));
        check_upstream("https://api.groq.com/openai/", Some(("https://api.groq.com", "/openai")));
        check_upstream("http://127.0.0.1:4010/v1", Some(("http://127.0.0.1:4010", "/v1")));
        check_upstream("https://a.example/x?key=1", None);
        check_upstream("https://a.example/a/../b", None);
        check_upstream("https://user@a.example", None);
        check_upstream("ftp://a.example", None);
    }
}
