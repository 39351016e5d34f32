//! What OpenClaw is told of providers. `setup` tells it of providers with names of ours, and the models to list; `launch`
//! of those that it knows by name, with the models that it knows.

use std::path::PathBuf;

use gateway::catalogue::Provider;
use gateway::wire::WireFormat;
use serde_json::{Map, Value, json};

use super::Wiring;
use super::files::{FileEdit, Format, set};
use super::places::under_variable;

/// Providers that it knows by this name, and the model to begin with. The first that is served is used.
const BUILT_IN: [(&str, &str); 6] = [
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-5.1"),
    ("google", "gemini-2.5-flash"),
    ("openrouter", "auto"),
    ("groq", "llama-4-scout-17b-16e-instruct"),
    ("mistral", "mistral-large-latest"),
];

/// Providers of names that are not its own, so that what it keeps for its built-in ones has no say.
pub(super) fn files(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let named = std::env::var_os("OPENCLAW_CONFIG_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path =
        named.unwrap_or_else(|| under_variable("OPENCLAW_STATE_DIR", ".openclaw").join("openclaw.json"));
    let mut settings = Vec::new();
    for provider in &wiring.providers {
        let model = |id: String| json!({ "id": id, "name": id, "input": ["text"], "contextWindow": 128_000, "maxTokens": 8_192 });
        let models: Vec<Value> = wiring.models_of(provider).into_iter().map(model).collect();
        if models.is_empty() {
            continue;
        }
        let name = format!("tokfence-{}", provider.id);
        let is_first = settings.is_empty();
        if let Some(model) = models.first().and_then(|model| model["id"].as_str()).filter(|_| is_first) {
            settings.push(set(&["agents", "defaults", "model", "primary"], format!("{name}/{model}")));
        }
        let mut value = way_to(wiring, provider);
        value["models"] = json!(models);
        settings.push(set(&["models", "providers", &name], value));
    }
    vec![FileEdit { path, format: Format::Json, settings }]
}

/// The providers that it knows by name, each with the way to it, and the model to begin with where there is one.
pub(crate) fn built_in(wiring: &Wiring<'_>) -> (Map<String, Value>, Option<String>) {
    let of_name = |name: &str| wiring.providers.iter().find(|provider| provider.id.as_str() == name);
    let served = || BUILT_IN.iter().filter_map(|(name, model)| Some((*name, *model, of_name(name)?)));
    let ways = served().map(|(name, _, provider)| {
        let mut way = way_to(wiring, provider);
        if name == "openai" {
            // Its models of OpenAI's are such as are asked the newer way.
            way["api"] = json!("openai-responses");
        }
        (name.to_owned(), way)
    });
    (ways.collect(), served().next().map(|(name, model, _)| format!("{name}/{model}")))
}

/// Where its client of a provider's format begins, with what, and which API it speaks there.
fn way_to(wiring: &Wiring<'_>, provider: &Provider) -> Value {
    let (base, api) = match provider.wire {
        WireFormat::Anthropic => (wiring.url(provider), "anthropic-messages"),
        WireFormat::Google => (format!("{}/v1beta", wiring.url(provider)), "google-generative-ai"),
        WireFormat::OpenAi | WireFormat::Ollama | WireFormat::Cohere => {
            (wiring.openai_base(provider), "openai-completions")
        }
    };
    json!({ "baseUrl": base, "apiKey": wiring.token, "api": api })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::Config;

    #[test]
    fn what_it_knows_by_name_is_found_where_its_client_looks() {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        let wiring = Wiring {
            address: "127.0.0.1:9471",
            token: "tfk_x",
            providers: config.providers.values().map(AsRef::as_ref).collect(),
            models: Vec::new(),
        };
        let (ways, first) = built_in(&wiring);
        let expected = [
            ("anthropic", "anthropic", "anthropic-messages"),
            ("openai", "openai/v1", "openai-responses"),
            ("google", "google/v1beta", "google-generative-ai"),
            ("openrouter", "openrouter/api/v1", "openai-completions"),
            ("groq", "groq/openai/v1", "openai-completions"),
            ("mistral", "mistral/v1", "openai-completions"),
        ];
        let way = |path: &str, api: &str| json!({ "baseUrl": format!("http://127.0.0.1:9471/{path}"), "apiKey": "tfk_x", "api": api });
        let expected: Map<String, Value> =
            expected.iter().map(|(name, path, api)| ((*name).to_owned(), way(path, api))).collect();
        assert_eq!(ways, expected);
        assert_eq!(first.as_deref(), Some("anthropic/claude-sonnet-4-5"));
    }
}
