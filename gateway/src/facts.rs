//! Hot: what is known of a request, for decisions and for its row: first from its head, then from its body.

use std::sync::{Arc, LazyLock};

use http::header;
use pingora::http::RequestHeader;
use policy::{AgentName, Capability, CapabilityId, Denial, DenialCode, RouteClass, Rules, TimestampUs};

use crate::catalogue::Provider;
use crate::lifeline::check_standing;
use crate::route::Route;
use crate::wire::{self, RequestFacts, WireFormat};

/// What is known of a request so far.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) method: Option<http::Method>,
    pub(crate) path: String,
    pub(crate) provider: Option<Arc<Provider>>,
    pub(crate) class: Option<RouteClass>,
    pub(crate) model: Option<String>,
    /// Whether the body names further models that may answer instead.
    pub(crate) names_other_models: bool,
    pub(crate) agent: Option<AgentName>,
    pub(crate) capability: Option<CapabilityId>,
    /// What its secret was; when that is replaced, what was begun with the old one has no standing.
    pub(crate) secret_hash: Option<[u8; 32]>,
    pub(crate) is_streaming: bool,
    /// What its body says, if it is one that decisions are taken from.
    pub(crate) body: Option<RequestFacts>,
}

/// The agent to whom requests without a capability are booked, where those are served.
pub(crate) fn anonymous() -> &'static AgentName {
    static NAME: LazyLock<AgentName> =
        LazyLock::new(|| "anonymous".parse().expect("the name follows the rule for names"));
    &NAME
}

impl Facts {
    /// The head arrived.
    pub(crate) fn requested(&mut self, request: &RequestHeader) {
        self.method = Some(request.method.clone());
        self.path = String::from_utf8_lossy(request.raw_path()).into_owned();
    }

    /// The path was resolved.
    pub(crate) fn routed(&mut self, route: &Route) {
        self.provider = Some(route.provider.clone());
        self.class = Some(route.class);
        self.path.clone_from(&route.path);
        self.model.clone_from(&route.model);
        self.is_streaming = route.path.ends_with(wire::ARRAY_STREAM);
    }

    /// The caller proved who it is.
    pub(crate) fn called_by(&mut self, capability: Option<&Capability>) {
        let agent = capability.map_or(anonymous(), |capability| &capability.agent);
        self.agent = Some(agent.clone());
        self.capability = capability.map(|capability| capability.id);
        self.secret_hash = capability.map(|capability| capability.secret_hash);
    }

    /// Whether the rules let the request go on: nothing that it stands on was taken back or has ended. The caller and
    /// the provider must be known.
    ///
    /// # Errors
    /// The [`Denial`] to answer with, or to end the answer with.
    pub(crate) fn check_standing(&self, rules: &Rules, now: TimestampUs) -> Result<(), Denial> {
        let (Some(agent), Some(provider)) = (&self.agent, &self.provider) else { return Ok(()) };
        let (id, secret_hash) = (self.capability, self.secret_hash.as_ref());
        check_standing(rules, id, secret_hash, agent, &provider.id, now)
    }

    /// Takes from the body what decisions need.
    pub(crate) fn read_body(&mut self, request: &RequestHeader, body: &[u8]) -> Result<(), Denial> {
        let is_post = request.method == http::Method::POST;
        let Some(provider) = self.provider.as_ref().filter(|_| is_post && self.is_decided_by_body()) else {
            return Ok(());
        };
        if !is_json(request, &self.path)? {
            return Ok(());
        }
        let found = read_facts(body)?;
        let streams_by_default = provider.wire == WireFormat::Ollama && self.path.starts_with("/api/");
        self.is_streaming |= found.stream.unwrap_or(streams_by_default);
        self.names_other_models = found.names_other_models;
        if self.model.is_none() {
            self.model.clone_from(&found.model);
        }
        self.body = Some(found);
        Ok(())
    }

    /// Another body to be sent instead, which asks for the usage of a stream whose caller did not ask. It must be the
    /// body that the facts were taken from.
    pub(crate) fn ask_for_usage(&self, body: &[u8]) -> Option<Vec<u8>> {
        let found = self.body.as_ref()?;
        let provider = self.provider.as_ref()?;
        let may_ask = provider.takes_include_usage && self.path.ends_with("/completions");
        may_ask.then(|| wire::inject_include_usage(body, found)).flatten()
    }

    /// The body was replaced by another one of ours: what is known of it is read again.
    pub(crate) fn body_replaced(&mut self, body: &[u8]) -> Result<(), Denial> {
        self.body = Some(read_facts(body)?);
        Ok(())
    }

    /// The format that the caller speaks, once the provider is known.
    pub(crate) fn wire(&self) -> Option<WireFormat> {
        self.provider.as_ref().map(|provider| provider.wire)
    }

    /// Whether the route's body is one that decisions are taken from.
    fn is_decided_by_body(&self) -> bool {
        match self.class {
            Some(RouteClass::Generate | RouteClass::Embed | RouteClass::Count) => true,
            Some(RouteClass::Metadata | RouteClass::File | RouteClass::Admin | RouteClass::Mint) | None => {
                false
            }
        }
    }
}

fn read_facts(body: &[u8]) -> Result<RequestFacts, Denial> {
    wire::request_facts(body).map_err(|fault| Denial::new(DenialCode::InvalidRequest, fault.to_string()))
}

/// Whether the body is JSON; routes for sound and images take uploads as well. A type that a web page could send
/// without asking first is refused, and so are two of them.
pub(crate) fn is_json(request: &RequestHeader, path: &str) -> Result<bool, Denial> {
    let mut types = request.headers.get_all(header::CONTENT_TYPE).iter();
    let content_type = types.next().and_then(|value| value.to_str().ok());
    if types.next().is_some() {
        return Err(Denial::new(DenialCode::InvalidRequest, "there is more than one Content-Type"));
    }
    let media_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let takes_uploads = path.contains("/audio/") || path.contains("/images/");
    match media_type.map(str::to_ascii_lowercase).as_deref() {
        Some("application/json") => Ok(true),
        Some("multipart/form-data") if takes_uploads => Ok(false),
        _ => Err(Denial::new(DenialCode::UnsupportedMedia, "the Content-Type must be application/json")),
    }
}
