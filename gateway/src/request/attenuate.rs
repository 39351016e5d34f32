//! `POST /__tokfence/capabilities/attenuate`: whoever holds a capability makes a narrower one from it.
//!
//! The one endpoint on the data port that changes anything. It asks for nothing but the parent's token, and can give
//! nothing that the parent has not: what is narrower is decided by `policy`, and each request with the child is
//! judged by all of its line again. The new token is in the answer and nowhere else.

use pingora::proxy::Session;
use policy::{
    Allowance, Capability, Denial, DenialCode, MintedToken, Narrowed, Narrowing, RateLimit, Subject,
    Transport, attenuate,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use storage::NewCapability;

use crate::config::{Config, Limits, parse_duration};
use crate::request::authenticate::authenticate;
use crate::request::body;
use crate::request::context::{Context, Stage};
use crate::request::facts::is_json;
use crate::request::headers::CAPABILITY;
use crate::request::respond;
use crate::request::route;
use crate::state::Shared;

/// A body of lists and numbers.
const BODY_BYTES_MAX: u64 = 16 * 1024;
/// Capabilities a minute that are made from one that an owner minted, all its descendants together.
const PER_MINUTE: u32 = 60;
const NOTE_CHARS_MAX: usize = 200;

/// What is accepted, for whoever is told that his body is not.
const FORM: &str = "a JSON object with any of: providers, models, routes, methods (lists of names), ttl_seconds (a \
     number) or ttl (\"90m\", \"1h\"), rpm, tpm, concurrent (numbers from 1), budgets (list of amounts such as \"0.50\" \
     or \"2M tokens/5h\"), require_uds (true), note (text)";

/// The body as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    #[serde(deserialize_with = "present")]
    providers: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    models: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    routes: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    methods: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    ttl_seconds: Option<u64>,
    #[serde(deserialize_with = "present")]
    ttl: Option<String>,
    #[serde(deserialize_with = "present")]
    rpm: Option<u32>,
    #[serde(deserialize_with = "present")]
    tpm: Option<u64>,
    #[serde(deserialize_with = "present")]
    concurrent: Option<u32>,
    budgets: Vec<String>,
    #[serde(deserialize_with = "present")]
    require_uds: Option<bool>,
    #[serde(deserialize_with = "present")]
    note: Option<String>,
}

/// A member that is there has a value: `null` could mean "as the parent" or "no limit".
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What was asked for, every name in it known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Order {
    narrowing: Narrowing,
    note: Option<String>,
}

/// Answers the request with a new capability.
///
/// # Errors
/// The [`Denial`] to answer with instead.
pub(crate) async fn answer(session: &mut Session, ctx: &mut Context) -> Result<(), Denial> {
    let snapshot = ctx.snapshot.clone();
    let request = session.req_header();
    if request.method != http::Method::POST {
        return Err(Denial::new(DenialCode::MethodNotAllowed, "capabilities are made with POST"));
    }
    let query = route::canonical(request.raw_path())?.query;
    let is_apart = request.headers.contains_key(CAPABILITY);
    let parent = authenticate(&snapshot, is_apart, &request.headers, query, ctx.connection.is_local)
        .map_err(|unproven| unproven.reported(&ctx.shared, &snapshot.rules))?
        .ok_or_else(|| {
            Denial::new(DenialCode::MissingCapability, "the request carries no capability to be narrowed")
        })?;
    ctx.facts.called_by(Some(parent));
    check_standing(&ctx.shared, parent, ctx.connection.transport)?;
    throttle(&ctx.shared, parent)?;
    if !is_json(request, route::ATTENUATE)? {
        return Err(invalid("an upload"));
    }
    let limits = Limits { request_body_bytes: BODY_BYTES_MAX, ..snapshot.config.limits.clone() };
    let body = body::read(session, &ctx.shared, &limits).await?;
    let order = Order::parse(&snapshot.config, &body.bytes)?;
    let document = mint(ctx, parent.clone(), order).await?;
    ctx.stage = Stage::Unlogged;
    // A caller that is gone has lost the token, which its owner can revoke by its id.
    let _ = respond::created(session, &document, ctx).await;
    Ok(())
}

/// Whether the parent may be used at all, by the newest rules.
fn check_standing(shared: &Shared, parent: &Capability, transport: Transport) -> Result<(), Denial> {
    let rules = shared.snapshot.load().rules.clone();
    let current = rules.capabilities.get(&parent.id).filter(|now| now.secret_hash == parent.secret_hash);
    let current =
        current.ok_or_else(|| Denial::new(DenialCode::RevokedCapability, "the capability was revoked"))?;
    rules.check_caller(Some(current), &current.agent, shared.ledger.now())?;
    rules.check_killed()?;
    let needs_socket = rules.lineage(Some(current)).any(|link| link.scope.requires_unix_socket);
    if needs_socket && transport != Transport::Unix {
        let message = "this capability may be used over the Unix socket only";
        return Err(Denial::new(DenialCode::OutOfScope, message));
    }
    Ok(())
}

/// Limits how fast a family of capabilities grows, whoever of it asks.
fn throttle(shared: &Shared, parent: &Capability) -> Result<(), Denial> {
    let root = shared.snapshot.load().rules.root(parent).id;
    let limit = RateLimit { requests_per_minute: Some(PER_MINUTE), ..RateLimit::default() };
    shared.attenuations.pass(Subject::Capability(root), limit).map_err(|seconds| {
        let message =
            format!("at most {PER_MINUTE} capabilities a minute are made from one and its children");
        Denial::new(DenialCode::RateLimited, message).with_retry_after(seconds)
    })
}

/// Makes the capability, off the threads that serve requests. In force when this returns.
async fn mint(ctx: &Context, parent: Capability, order: Order) -> Result<Value, Denial> {
    let (shared, transport) = (ctx.shared.clone(), ctx.connection.transport);
    let minting = tokio::task::spawn_blocking(move || {
        let token = new_token()?;
        let now = shared.ledger.now();
        let minted = shared.change_rules(|store| {
            // Nobody else changes the rules now, so there cannot be a child too many.
            let rules = shared.snapshot.load().rules.clone();
            let narrowed = check_standing(&shared, &parent, transport)
                .and_then(|()| attenuate(&rules, &parent, &order.narrowing, now));
            let Ok(narrowed) = narrowed else { return Ok(narrowed) };
            store.mint(&new_capability(&token, &parent, &narrowed, &order), now)?;
            Ok(Ok(narrowed))
        });
        let narrowed = minted.map_err(|error| from_storage(&error))??;
        Ok(document(&token, &parent, &narrowed, &order))
    });
    minting.await.unwrap_or_else(|_| Err(unavailable()))
}

fn new_token() -> Result<MintedToken, Denial> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    let drawn = getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret));
    drawn.map_err(|_| unavailable())?;
    Ok(MintedToken::from_random(id, secret))
}

fn new_capability(
    token: &MintedToken,
    parent: &Capability,
    narrowed: &Narrowed,
    Order { narrowing: Narrowing { budgets, .. }, note }: &Order,
) -> NewCapability {
    NewCapability {
        id: token.id,
        secret_hash: token.secret_hash,
        agent: parent.agent.clone(),
        agent_note: None,
        parent: Some(parent.id),
        scope: narrowed.scope.clone(),
        expires_at: narrowed.expires_at,
        rate: narrowed.rate,
        budgets: budgets.clone(),
        note: note.clone(),
    }
}

fn unavailable() -> Denial {
    Denial::new(DenialCode::StateUnavailable, "the capability cannot be stored at the moment")
        .with_hint("tokfence status")
}

/// What the database refuses is told by its code: the parent may have ended a moment ago.
fn from_storage(error: &storage::Error) -> Denial {
    match error {
        storage::Error::CapabilityEnded { .. } | storage::Error::AgentRevoked { .. } => {
            Denial::new(DenialCode::RevokedCapability, "the capability was revoked")
        }
        storage::Error::ExpiresTooEarly { .. } => {
            Denial::new(DenialCode::ExpiredCapability, "the capability has expired")
        }
        error => {
            tracing::error!(%error, "a capability could not be stored");
            unavailable()
        }
    }
}

fn document(token: &MintedToken, parent: &Capability, narrowed: &Narrowed, order: &Order) -> Value {
    let Narrowed { scope, expires_at, rate } = narrowed;
    let end = expires_at.and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    json!({
        "token": token.text,
        "id": token.id.as_str(),
        "agent": parent.agent.as_str(),
        "parent": parent.id.as_str(),
        "expires_at": end.map(|at| format!("{at:.3}")),
        "providers": texts(&scope.providers),
        "models": texts(&scope.models),
        "routes": texts(&scope.routes),
        "methods": texts(&scope.methods),
        "require_uds": scope.requires_unix_socket,
        "rpm": rate.requests_per_minute,
        "tpm": rate.tokens_per_minute,
        "concurrent": rate.concurrent,
        "budgets": texts(&order.narrowing.budgets),
        "note": order.note,
    })
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

impl Order {
    /// Reads the body; every name in it must exist.
    fn parse(config: &Config, body: &[u8]) -> Result<Self, Denial> {
        // A list would be read as the members in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(invalid("it is not an object"));
        }
        let wanted: Wanted = serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        let provider = |name: &String| {
            let found = config.provider(&name.to_ascii_lowercase()).map(|provider| provider.id.clone());
            found.ok_or_else(|| invalid(&format!("there is no provider `{name}`")))
        };
        let requires_unix_socket = wanted.require_uds;
        let ttl_us = ttl_us(&wanted)?;
        let rate = RateLimit {
            requests_per_minute: wanted.rpm,
            tokens_per_minute: wanted.tpm,
            concurrent: wanted.concurrent,
        };
        check_rate(&rate)?;
        let narrowing = Narrowing {
            providers: wanted.providers.map(|names| names.iter().map(provider).collect()).transpose()?,
            models: parsed(wanted.models)?,
            routes: parsed(wanted.routes)?,
            methods: parsed(wanted.methods)?,
            ttl_us,
            rate,
            budgets: Allowance::parse_all(&wanted.budgets).map_err(|error| invalid(&error))?,
            requires_unix_socket,
        };
        let note = wanted.note;
        if note.as_ref().is_some_and(|note| note.chars().count() > NOTE_CHARS_MAX) {
            return Err(invalid(&format!("a note has at most {NOTE_CHARS_MAX} characters")));
        }
        Ok(Self { narrowing, note })
    }
}

fn parsed<T>(texts: Option<Vec<String>>) -> Result<Option<Vec<T>>, Denial>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parse = |text: String| text.parse().map_err(|error: T::Err| invalid(&format!("`{text}`: {error}")));
    texts.map(|texts| texts.into_iter().map(parse).collect()).transpose()
}

fn ttl_us(wanted: &Wanted) -> Result<Option<u64>, Denial> {
    let seconds = match (&wanted.ttl, wanted.ttl_seconds) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(invalid("ttl and ttl_seconds say the same; give one of them")),
        (Some(text), None) => parse_duration(text)
            .ok_or_else(|| invalid(&format!("`{text}` is not a time such as 90m or 1h")))?
            .as_secs(),
        (None, Some(seconds)) => seconds,
    };
    if seconds == 0 {
        return Err(invalid("a lifetime is at least a second"));
    }
    Ok(Some(seconds.saturating_mul(1_000_000)))
}

/// The numbers that a row can hold.
fn check_rate(rate: &RateLimit) -> Result<(), Denial> {
    let counts = [
        ("rpm", rate.requests_per_minute.map(u64::from), 1_000_000),
        ("tpm", rate.tokens_per_minute, 1_000_000_000_000),
        ("concurrent", rate.concurrent.map(u64::from), 1_000_000),
    ];
    let out_of_range =
        |(_, count, max): &&(&str, Option<u64>, u64)| count.is_some_and(|count| !(1..=*max).contains(&count));
    match counts.iter().find(out_of_range) {
        Some((name, _, max)) => Err(invalid(&format!("{name} must be a number from 1 to {max}"))),
        None => Ok(()),
    }
}

/// The refusal of a body, with what is accepted. The body's own words are shortened and shown escaped.
fn invalid(why: &str) -> Denial {
    let why: String = why.chars().take(200).flat_map(char::escape_debug).collect();
    Denial::new(DenialCode::InvalidRequest, format!("the body is not understood: {why}")).with_hint(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Order, Denial> {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        Order::parse(&config, body.as_bytes())
    }

    #[test]
    fn a_whole_body_is_understood() {
        let order = parse(
            r#"{"providers":["OpenAI","gemini"],"models":["gpt-4o*"],"routes":["generate"],"methods":["POST"],
                "ttl":"90m","rpm":5,"tpm":1000,"concurrent":2,"require_uds":true,"note":"a helper"}"#,
        )
        .unwrap();
        let narrowing = order.narrowing;
        assert_eq!(texts(&narrowing.providers.unwrap()), ["openai", "google"]);
        assert_eq!(texts(&narrowing.models.unwrap()), ["gpt-4o*"]);
        assert_eq!((narrowing.ttl_us, narrowing.requires_unix_socket), (Some(5_400_000_000), Some(true)));
        assert_eq!((narrowing.rate.requests_per_minute, narrowing.rate.concurrent), (Some(5), Some(2)));
        assert_eq!(order.note.as_deref(), Some("a helper"));
        assert_eq!(parse("{}"), Ok(Order::default()));
        assert_eq!(parse(r#"{"ttl_seconds":60}"#).unwrap().narrowing.ttl_us, Some(60_000_000));
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused_with_the_form() {
        for body in [
            "",
            "[]",
            r#"[["openai"]]"#,
            "null",
            "{",
            "{} {}",
            r#"{"provider":["openai"]}"#,
            r#"{"providers":"openai"}"#,
            r#"{"providers":null}"#,
            r#"{"providers":["openai",null]}"#,
            r#"{"providers":["opneai"]}"#,
            r#"{"rpm":1,"rpm":2}"#,
            r#"{"rpm":1,"\u0072pm":2}"#,
            r#"{"rpm":"1"}"#,
            r#"{"rpm":1.0}"#,
            r#"{"rpm":-1}"#,
            r#"{"rpm":0}"#,
            r#"{"rpm":1000001}"#,
            r#"{"tpm":1e3}"#,
            r#"{"concurrent":99999999999999999999}"#,
            r#"{"ttl":"1h","ttl_seconds":3600}"#,
            r#"{"ttl":"soon"}"#,
            r#"{"ttl":3600}"#,
            r#"{"ttl_seconds":0}"#,
            r#"{"require_uds":1}"#,
            r#"{"routes":["everything"]}"#,
            r#"{"methods":["TRACE"]}"#,
            r#"{"models":[""]}"#,
            &format!(r#"{{"note":"{}"}}"#, "x".repeat(201)),
        ] {
            let denial = parse(body).unwrap_err();
            assert_eq!((denial.code(), denial.hint()), (DenialCode::InvalidRequest, Some(FORM)), "{body}");
        }
        let loud = parse("{\"\\u001b[31m\":1}").unwrap_err();
        assert!(!loud.message().contains('\u{1b}'), "{}", loud.message());
    }
}
