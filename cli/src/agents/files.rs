//! What has to be in each agent's files so that it asks the gateway, with a capability in the place of its key.

use std::path::PathBuf;

use gateway::catalogue::{AuthStyle, Provider};
use gateway::wire::WireFormat;
use serde_json::{Value, json};

use super::places::{self, in_home, under_variable};
use super::{CLAUDE_HEADERS, HEADER, Wiring};

/// Settings that belong into one file.
#[derive(Debug, PartialEq)]
pub(crate) struct FileEdit {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) settings: Vec<Setting>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON, in which comments, trailing commas and the like may stand.
    Json,
    Toml,
    /// `NAME=value`.
    DotEnv,
    /// A mapping in YAML.
    Yaml,
    /// A list in YAML; each setting is an item of it.
    YamlItems,
}

/// One value and where it belongs.
#[derive(Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) at: Vec<String>,
    pub(crate) value: Value,
}

pub(super) fn set(at: &[&str], value: impl Into<Value>) -> Setting {
    Setting { at: at.iter().map(|part| (*part).to_owned()).collect(), value: value.into() }
}

/// Its settings may set variables, which come before those of the shell. The one for a key that it would send in another
/// header is emptied: two credentials in one request are refused.
pub(super) fn claude_code(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let settings = wiring.providers.first().map_or_else(Vec::new, |provider| {
        let base = set(&["env", "ANTHROPIC_BASE_URL"], wiring.url(provider));
        if provider.auth == AuthStyle::Passthrough {
            let header = format!("{HEADER}: {}", wiring.token);
            return vec![base, set(&["env", CLAUDE_HEADERS], header)];
        }
        vec![
            base,
            set(&["env", "ANTHROPIC_AUTH_TOKEN"], wiring.token),
            set(&["env", "ANTHROPIC_API_KEY"], ""),
        ]
    });
    let path = under_variable("CLAUDE_CONFIG_DIR", ".claude").join("settings.json");
    vec![FileEdit { path, format: Format::Json, settings }]
}

/// A provider of its own: one that is built in asks for a WebSocket first, and takes its key from a login.
pub(super) fn codex(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    const OURS: [&str; 2] = ["model_providers", "tokfence"];
    let ours = |key: &str, value: Value| set(&[OURS[0], OURS[1], key], value);
    let settings = wiring.providers.first().map_or_else(Vec::new, |provider| {
        let is_login = provider.auth == AuthStyle::Passthrough;
        // What takes the login of ChatGPT is no API with a version in its path.
        let is_bare = is_login && provider.env.is_empty();
        let base = if is_bare { wiring.url(provider) } else { wiring.openai_base(provider) };
        let mut settings = vec![
            set(&["model_provider"], "tokfence"),
            ours("name", json!("tokfence")),
            ours("base_url", json!(base)),
            ours("wire_api", json!("responses")),
        ];
        if is_login {
            settings.push(ours("requires_openai_auth", json!(true)));
            settings.push(ours("http_headers", json!({ HEADER: wiring.token })));
        } else {
            settings.push(ours("experimental_bearer_token", json!(wiring.token)));
        }
        settings
    });
    let path = under_variable("CODEX_HOME", ".codex").join("config.toml");
    vec![FileEdit { path, format: Format::Toml, settings }]
}

pub(super) fn gemini(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let folder = in_home(".gemini");
    let variables = wiring.providers.first().map_or_else(Vec::new, |provider| {
        vec![set(&["GOOGLE_GEMINI_BASE_URL"], wiring.url(provider)), set(&["GEMINI_API_KEY"], wiring.token)]
    });
    vec![
        FileEdit { path: folder.join(".env"), format: Format::DotEnv, settings: variables },
        FileEdit {
            path: folder.join("settings.json"),
            format: Format::Json,
            settings: vec![set(&["security", "auth", "selectedType"], "gemini-api-key")],
        },
    ]
}

pub(super) fn opencode(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let folder = places::config_home().join("opencode");
    // Of the names that it reads, the one that is there.
    let jsonc = folder.join("opencode.jsonc");
    let path = if jsonc.exists() { jsonc } else { folder.join("opencode.json") };
    // It adds this itself where it is missing, and the file would then be another than what was written.
    let mut settings = vec![set(&["$schema"], "https://opencode.ai/config.json")];
    settings.extend(opencode_settings(wiring));
    vec![FileEdit { path, format: Format::Json, settings }]
}

/// What opencode has to be told; `run` tells it the same in a variable.
pub(super) fn opencode_settings(wiring: &Wiring<'_>) -> Vec<Setting> {
    wiring.providers.iter().flat_map(|provider| opencode_provider(wiring, provider)).collect()
}

fn opencode_provider(wiring: &Wiring<'_>, provider: &Provider) -> Vec<Setting> {
    let base = match provider.wire {
        WireFormat::Anthropic => format!("{}/v1", wiring.url(provider)),
        WireFormat::Google => format!("{}/v1beta", wiring.url(provider)),
        WireFormat::OpenAi | WireFormat::Ollama | WireFormat::Cohere => wiring.openai_base(provider),
    };
    let known = opencode_name(provider.id.as_str());
    let name = known.map_or_else(|| format!("tokfence-{}", provider.id), str::to_owned);
    let at = |rest: &[&str], value: Value| set(&[&["provider", name.as_str()], rest].concat(), value);
    let mut settings =
        vec![at(&["options", "baseURL"], json!(base)), at(&["options", "apiKey"], json!(wiring.token))];
    if known.is_none() {
        let models = wiring.models_of(provider);
        if models.is_empty() {
            return Vec::new();
        }
        settings.push(at(&["npm"], json!("@ai-sdk/openai-compatible")));
        settings.push(at(&["name"], json!(name)));
        let models = models.into_iter().map(|model| (model, json!({})));
        settings.push(at(&["models"], Value::Object(models.collect())));
    }
    settings
}

/// What opencode calls a provider that it knows by itself.
fn opencode_name(id: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 14] = [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("google", "google"),
        ("openrouter", "openrouter"),
        ("groq", "groq"),
        ("mistral", "mistral"),
        ("deepseek", "deepseek"),
        ("xai", "xai"),
        ("cerebras", "cerebras"),
        ("perplexity", "perplexity"),
        ("together", "togetherai"),
        ("fireworks", "fireworks-ai"),
        ("moonshot", "moonshotai"),
        ("nvidia", "nvidia"),
    ];
    NAMES.iter().find(|(ours, _)| *ours == id).map(|(_, theirs)| *theirs)
}

/// It sets variables before it asks, so it is given those that the SDK below it reads.
pub(super) fn aider(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let mut lines: Vec<String> = Vec::new();
    for provider in &wiring.providers {
        let url = wiring.url(provider);
        let fill = |template: &str| template.replace("{url}", &url).replace("{token}", wiring.token);
        lines.extend(provider.env.iter().map(|(name, template)| format!("{name}={}", fill(template))));
    }
    let settings = vec![set(&["set-env"], lines)];
    vec![FileEdit { path: in_home(".aider.conf.yml"), format: Format::Yaml, settings }]
}

/// Models of its own, each under `tokfence/`: no file tells it another address for those it knows.
pub(super) fn llm(wiring: &Wiring<'_>) -> Vec<FileEdit> {
    let folder = places::llm_folder();
    let mut items = Vec::new();
    for provider in &wiring.providers {
        for model in wiring.models_of(provider) {
            let value = json!({
                "model_id": format!("tokfence/{model}"), "model_name": model,
                "api_base": wiring.openai_base(provider), "api_key_name": "tokfence",
            });
            items.push(set(&[], value));
        }
    }
    vec![
        FileEdit {
            path: folder.join("extra-openai-models.yaml"),
            format: Format::YamlItems,
            settings: items,
        },
        FileEdit {
            path: folder.join("keys.json"),
            format: Format::Json,
            settings: vec![set(&["tokfence"], wiring.token)],
        },
    ]
}
