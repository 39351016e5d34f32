//! Hot: what is known of a request, for decisions and for its row: first from its head, then from its body.

use std::sync::{Arc, LazyLock};

use http::header;
use pingora::http::RequestHeader;
use policy::{
    AgentName, Capability, CapabilityId, Denial, DenialCode, RiskVerdict, RouteClass, Rules, TimestampUs,
};

use crate::caller::lifeline::check_standing;
use crate::meter;
use crate::provider::catalogue::Provider;
use crate::request::route::Route;
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
    pub(crate) capability: Option<Presented>,
    pub(crate) is_streaming: bool,
    /// What its body says, if it is one that decisions are taken from.
    pub(crate) body: Option<RequestFacts>,
}

/// A capability that a caller proved to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    pub(crate) id: CapabilityId,
    /// Of its secret; when that is replaced, what was begun with the old one has no standing.
    pub(crate) secret_hash: [u8; 32],
}

/// Ends of paths whose answer is a stream whatever the body says: Gemini's and Bedrock's.
const STREAMING_PATHS: [&str; 3] = [wire::ARRAY_STREAM, "/invoke-with-response-stream", "/converse-stream"];

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
        self.is_streaming = STREAMING_PATHS.iter().any(|end| route.path.ends_with(end));
    }

    /// The caller proved who it is.
    pub(crate) fn called_by(&mut self, capability: Option<&Capability>) {
        let agent = capability.map_or(anonymous(), |capability| &capability.agent);
        self.agent = Some(agent.clone());
        self.capability =
            capability.map(|capability| Presented { id: capability.id, secret_hash: capability.secret_hash });
    }

    /// Whether the rules let the request go on: nothing that it stands on was taken back or has ended. The caller and
    /// the provider must be known.
    ///
    /// # Errors
    /// The [`Denial`] to answer with, or to end the answer with.
    pub(crate) fn check_standing(&self, rules: &Rules, now: TimestampUs) -> Result<(), Denial> {
        let (Some(agent), Some(provider)) = (&self.agent, &self.provider) else { return Ok(()) };
        check_standing(rules, self.capability, agent, &provider.id, now)
    }

    /// How far the caller is restricted at `now`.
    pub(crate) fn risk(&self, rules: &Rules, now: TimestampUs) -> RiskVerdict {
        let capability = self.capability.and_then(|presented| rules.capabilities.get(&presented.id));
        rules.risk(capability, self.agent.as_ref().unwrap_or_else(|| anonymous()), now)
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
        self.take_model(found.model.clone())?;
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
        let wire = self.provider.as_ref()?.wire;
        let speaks_openai = wire == WireFormat::Google && self.path.contains("/openai/");
        Some(if speaks_openai { WireFormat::OpenAi } else { wire })
    }

    /// About how many input tokens the request has, whose body has so many bytes.
    pub(crate) fn estimate_input(&self, body_bytes: u64) -> u64 {
        let body = self.body.as_ref();
        body.map_or_else(
            || meter::estimate_input(body_bytes),
            |body| meter::estimate_contents(&body.contents),
        )
    }

    /// The model that the body names. Where the path names one as well, that one counts, and the two must be the
    /// same: otherwise it would be the provider's choice which of them answers, and ours which of them is allowed.
    fn take_model(&mut self, in_body: Option<String>) -> Result<(), Denial> {
        let (Some(in_path), Some(body)) = (&self.model, &in_body) else {
            self.model = self.model.take().or(in_body);
            return Ok(());
        };
        let is_google = |provider: &Arc<Provider>| provider.wire == WireFormat::Google;
        let name = match body.strip_prefix("models/") {
            Some(name) if self.provider.as_ref().is_some_and(is_google) => name,
            _ => body,
        };
        if in_path == name || self.provider.as_ref().is_some_and(|provider| provider.ignores_body_model) {
            return Ok(());
        }
        let message = "the path and the body of the request name different models";
        Err(Denial::new(DenialCode::InvalidRequest, message))
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
    match media_type {
        Some(json) if json.eq_ignore_ascii_case("application/json") => Ok(true),
        Some(upload) if takes_uploads && upload.eq_ignore_ascii_case("multipart/form-data") => Ok(false),
        _ => Err(Denial::new(DenialCode::UnsupportedMedia, "the Content-Type must be application/json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::request::route::{canonical, resolve};

    /// What comes of a request's model: its name for decisions, or the code of the refusal.
    #[track_caller]
    fn check_model(target: &str, body: &str, expected: Result<Option<&str>, DenialCode>) {
        let text = "[providers.mine]\nupstream = \"https://a.example\"\n";
        let config = Config::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let mut request = RequestHeader::build("POST", target.as_bytes(), None).unwrap();
        request.insert_header(header::CONTENT_TYPE, "application/json").unwrap();
        let route = resolve(&config, &request.method, &canonical(target.as_bytes()).unwrap()).unwrap();
        let mut facts = Facts::default();
        facts.routed(&route);
        let read = facts.read_body(&request, body.as_bytes()).map_err(|denial| denial.code());
        assert_eq!(read.map(|_| facts.model.as_deref()), expected, "{target} {body}");
    }

    const TWO: Result<Option<&str>, DenialCode> = Err(DenialCode::InvalidRequest);

    #[test]
    fn a_model_in_path_and_body_must_be_the_same() {
        let gemini = "/google/v1beta/models/gemini-2.5-pro:generateContent";
        check_model(gemini, "{}", Ok(Some("gemini-2.5-pro")));
        check_model(gemini, r#"{"model":null}"#, Ok(Some("gemini-2.5-pro")));
        check_model(gemini, r#"{"model":"models/gemini-2.5-pro"}"#, Ok(Some("gemini-2.5-pro")));
        check_model(gemini, r#"{"model":"gemini-2.5-pro"}"#, Ok(Some("gemini-2.5-pro")));
        check_model(gemini, r#"{"model":"models/models/gemini-2.5-pro"}"#, TWO);
        check_model(gemini, r#"{"model":"gemini-2.5-flash"}"#, TWO);
        check_model(gemini, r#"{"model":""}"#, TWO);
        let bedrock = "/mine/model/a.b-v1%3A0/invoke";
        check_model(bedrock, r#"{"anthropic_version":"x"}"#, Ok(Some("a.b-v1:0")));
        check_model(bedrock, r#"{"model":"a.b-v1:0"}"#, Ok(Some("a.b-v1:0")));
        check_model(bedrock, r#"{"model":"models/a.b-v1:0"}"#, TWO);
        check_model(bedrock, r#"{"model":"a.b-v1%3A0"}"#, TWO);
        check_model("/mine/deployments/d/chat/completions", r#"{"model":"gpt-4o"}"#, TWO);
        check_model("/mine/v1/chat/completions", r#"{"model":"gpt-4o"}"#, Ok(Some("gpt-4o")));
    }

    #[test]
    fn where_the_path_is_known_to_decide_the_body_may_say_what_it_likes() {
        let azure = "/azure-openai/openai/deployments/my-gpt/chat/completions?api-version=1";
        check_model(azure, r#"{"model":"gpt-4o"}"#, Ok(Some("my-gpt")));
        check_model("/azure-openai/v1/chat/completions", r#"{"model":"gpt-4o"}"#, Ok(Some("gpt-4o")));
    }
}
