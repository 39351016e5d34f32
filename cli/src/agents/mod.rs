//! What each agent reads: which program it is, which providers it can speak to, which files and variables tell it where
//! they are, and where it keeps keys. One table, which `setup`, `run` and `scan` go by; what SDKs read is in the
//! catalogue of providers. Each line was tried with the agent itself (tests/clients).

mod files;
mod merge;
pub(crate) mod openclaw;
mod places;
mod started;

use gateway::catalogue::{AuthStyle, Provider};
use gateway::wire::WireFormat;
use serde_json::{Value, json};

use crate::app::closest;
use crate::failure::{Exit, Failure};

pub(crate) use files::{FileEdit, Format};
pub(crate) use merge::merged;
pub(crate) use places::key_files;
pub(crate) use started::by_program;

/// The header of a capability beside the caller's own login.
pub(crate) const HEADER: &str = "X-Tokfence-Capability";

/// Headers that Claude Code adds to each request, one a line.
pub(crate) const CLAUDE_HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";

/// Those headers with ours, after the ones that were to be sent anyway, but for a capability of before.
pub(crate) fn with_others(ours: &str, old: Option<&str>) -> String {
    let is_ours =
        |line: &&str| line.split(':').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(HEADER));
    let kept = old.into_iter().flat_map(str::lines).filter(|line| !line.trim().is_empty() && !is_ours(line));
    kept.chain([ours]).collect::<Vec<_>>().join("\n")
}

/// An agent that can be set up.
#[derive(Debug)]
pub(crate) struct KnownAgent {
    /// As it is typed.
    pub(crate) name: &'static str,
    /// As its makers write it.
    pub(crate) title: &'static str,
    /// The program that is started; none where any may be meant.
    pub(crate) program: Option<&'static str>,
    /// The formats that it speaks.
    wires: &'static [WireFormat],
    /// Whether it speaks to one provider at a time.
    is_single: bool,
    /// Whether it can go on with the caller's own login.
    takes_login: bool,
    /// How it asks the provider, which `setup --test` does likewise.
    pub(crate) manner: Manner,
    /// The words behind the program's name that make it ask something once.
    pub(crate) ask: &'static [&'static str],
    /// What has to be in its files.
    pub(crate) files: fn(&Wiring<'_>) -> Vec<FileEdit>,
}

/// How an agent that speaks OpenAI's format asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Chat,
    Responses,
}

/// What an agent is to be told.
#[derive(Debug)]
pub(crate) struct Wiring<'a> {
    /// Of the gateway.
    pub(crate) address: &'a str,
    /// The capability.
    pub(crate) token: &'a str,
    pub(crate) providers: Vec<&'a Provider>,
    /// The models to list, for an agent that knows none by itself; those that are usual where this is empty.
    pub(crate) models: Vec<String>,
}

use WireFormat::{Anthropic, Google, OpenAi};

/// Every agent, in the order in which they are shown.
pub(crate) const KNOWN: [KnownAgent; 8] = [
    KnownAgent {
        name: "claude-code",
        title: "Claude Code",
        program: Some("claude"),
        wires: &[Anthropic],
        is_single: true,
        takes_login: true,
        manner: Manner::Chat,
        ask: &["-p"],
        files: files::claude_code,
    },
    KnownAgent {
        name: "codex",
        title: "Codex",
        program: Some("codex"),
        wires: &[OpenAi],
        is_single: true,
        takes_login: true,
        manner: Manner::Responses,
        ask: &["exec", "--skip-git-repo-check"],
        files: files::codex,
    },
    KnownAgent {
        name: "gemini",
        title: "Gemini CLI",
        program: Some("gemini"),
        wires: &[Google],
        is_single: true,
        takes_login: false,
        manner: Manner::Chat,
        ask: &["--skip-trust", "-m", "gemini-2.5-flash", "-p"],
        files: files::gemini,
    },
    KnownAgent {
        name: "opencode",
        title: "opencode",
        program: Some("opencode"),
        wires: &[OpenAi, Anthropic, Google],
        is_single: false,
        takes_login: false,
        manner: Manner::Responses,
        ask: &["run"],
        files: files::opencode,
    },
    KnownAgent {
        name: "openclaw",
        title: "OpenClaw",
        program: Some("openclaw"),
        wires: &[OpenAi, Anthropic, Google],
        is_single: false,
        takes_login: false,
        manner: Manner::Chat,
        ask: &["agent", "exec"],
        files: openclaw::files,
    },
    KnownAgent {
        name: "aider",
        title: "aider",
        program: Some("aider"),
        wires: &[OpenAi, Anthropic, Google],
        is_single: false,
        takes_login: false,
        manner: Manner::Chat,
        ask: &["--no-git", "--yes-always", "--model", "openai/gpt-5.1", "--message"],
        files: files::aider,
    },
    KnownAgent {
        name: "llm",
        title: "llm",
        program: Some("llm"),
        wires: &[OpenAi],
        is_single: false,
        takes_login: false,
        manner: Manner::Chat,
        ask: &[],
        files: files::llm,
    },
    KnownAgent {
        name: "openai-compatible",
        title: "anything that speaks OpenAI's format",
        program: None,
        wires: &[OpenAi],
        is_single: true,
        takes_login: false,
        manner: Manner::Chat,
        ask: &[],
        files: |_| Vec::new(),
    },
];

/// The agent of a name that somebody typed.
pub(crate) fn find(name: &str) -> Result<&'static KnownAgent, Failure> {
    let by_name = |known: &&KnownAgent| known.name == name || known.program == Some(name);
    if let Some(known) = KNOWN.iter().find(by_name) {
        return Ok(known);
    }
    let failure = Failure::new(Exit::NotFound, "no_such_agent_kind", format!("`{name}` cannot be set up"));
    let names = || KNOWN.iter().map(|known| known.name);
    Err(match closest(name, names()) {
        Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
        None => failure.with_hint(format!(
            "one of {}; whatever else speaks OpenAI's format is `openai-compatible`",
            names().collect::<Vec<_>>().join(", ")
        )),
    })
}

impl KnownAgent {
    /// Which of these providers it can speak to.
    pub(crate) fn choose<'a>(&self, providers: impl Iterator<Item = &'a Provider>) -> Vec<&'a Provider> {
        let mut chosen: Vec<&Provider> = providers.filter(|provider| self.speaks_to(provider)).collect();
        // The one that has the format's own name comes first: an agent of one provider is most often made for it.
        chosen.sort_by_key(|provider| (!is_namesake(provider), provider.id.clone()));
        if self.is_single {
            chosen.truncate(1);
        }
        chosen
    }

    /// Whether this provider is one for it.
    pub(crate) fn speaks_to(&self, provider: &Provider) -> bool {
        let is_login = provider.auth == AuthStyle::Passthrough;
        self.wires.contains(&provider.wire) && (!is_login || self.takes_login)
    }
}

/// Whether a provider is the one that its format is named after.
pub(crate) fn is_namesake(provider: &Provider) -> bool {
    matches!(
        (provider.wire, provider.id.as_str()),
        (OpenAi, "openai") | (Anthropic, "anthropic") | (Google, "google")
    )
}

impl Wiring<'_> {
    /// Where a provider is behind the gateway.
    pub(crate) fn url(&self, provider: &Provider) -> String {
        format!("http://{}/{}", self.address, provider.id)
    }

    /// Where a client of OpenAI's format finds a provider that speaks it.
    pub(crate) fn openai_base(&self, provider: &Provider) -> String {
        let of = |ending: &str| {
            let templates = provider.env.iter().filter(|(name, _)| name.ends_with(ending));
            templates.map(|(_, template)| template.as_str()).find(|template| *template != "{url}")
        };
        let template = of("_API_BASE").or_else(|| of("_BASE_URL")).unwrap_or("{url}/v1");
        template.replace("{url}", &self.url(provider))
    }

    /// The models to list for a provider.
    fn models_of(&self, provider: &Provider) -> Vec<String> {
        if !self.models.is_empty() {
            return self.models.clone();
        }
        usual_model(provider).map(str::to_owned).into_iter().collect()
    }
}

/// A model that is asked where nobody said which.
pub(crate) fn usual_model(provider: &Provider) -> Option<&'static str> {
    match provider.id.as_str() {
        "openai" => Some("gpt-5.1"),
        "anthropic" => Some("claude-sonnet-4-5"),
        "google" => Some("gemini-2.5-flash"),
        "mistral" => Some("mistral-small-latest"),
        "groq" => Some("openai/gpt-oss-20b"),
        "deepseek" => Some("deepseek-chat"),
        "openrouter" => Some("meta-llama/llama-3.3-70b-instruct"),
        _ => None,
    }
}

/// How a client of this agent's kind asks a provider for a word: the URL and the body.
pub(crate) fn question(
    manner: Manner,
    wiring: &Wiring<'_>,
    provider: &Provider,
    model: &str,
) -> (String, Value) {
    const TEXT: &str = "Say pong.";
    let message = json!([{ "role": "user", "content": TEXT }]);
    let base = wiring.url(provider);
    match (provider.wire, manner) {
        (Anthropic, _) => {
            (format!("{base}/v1/messages"), json!({ "model": model, "max_tokens": 64, "messages": message }))
        }
        (Google, _) => (
            format!("{base}/v1beta/models/{model}:generateContent"),
            json!({ "contents": [{ "role": "user", "parts": [{ "text": TEXT }] }] }),
        ),
        (_, Manner::Responses) => (
            format!("{}/responses", wiring.openai_base(provider)),
            json!({ "model": model, "input": TEXT, "store": false }),
        ),
        (_, Manner::Chat) => (
            format!("{}/chat/completions", wiring.openai_base(provider)),
            json!({ "model": model, "messages": message }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::Config;

    fn config() -> Config {
        Config::parse("", std::path::Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn an_agent_is_found_by_its_name_or_its_program() {
        assert_eq!(find("claude-code").unwrap().name, "claude-code");
        assert_eq!(find("claude").unwrap().name, "claude-code");
        assert_eq!(find("codx").unwrap_err().hint.as_deref(), Some("did you mean `codex`?"));
        assert!(find("emacs").unwrap_err().hint.unwrap().contains("openai-compatible"));
    }

    #[test]
    fn an_agent_gets_the_providers_that_it_can_speak_to_and_its_own_one_first() {
        let config = config();
        let ids = |name: &str| -> Vec<String> {
            let providers = ["anthropic", "google", "groq", "openai"].map(|id| config.provider(id).unwrap());
            let chosen = find(name).unwrap().choose(providers.iter().map(AsRef::as_ref));
            chosen.iter().map(|provider| provider.id.to_string()).collect()
        };
        assert_eq!(ids("claude-code"), ["anthropic"]);
        assert_eq!(ids("codex"), ["openai"]);
        assert_eq!(ids("gemini"), ["google"]);
        assert_eq!(ids("opencode"), ["anthropic", "google", "openai", "groq"]);
        assert_eq!(ids("llm"), ["openai", "groq"]);
    }

    #[test]
    fn each_provider_is_found_where_a_client_of_openais_format_looks_for_it() {
        let config = config();
        let wiring = Wiring { address: "a:1", token: "t", providers: Vec::new(), models: Vec::new() };
        for (id, expected) in [
            ("openai", "http://a:1/openai/v1"),
            ("groq", "http://a:1/groq/openai/v1"),
            ("openrouter", "http://a:1/openrouter/api/v1"),
            ("mistral", "http://a:1/mistral/v1"),
            ("zai", "http://a:1/zai/paas/v4"),
            ("github-models", "http://a:1/github-models/inference"),
            ("huggingface", "http://a:1/huggingface/v1"),
            ("vllm", "http://a:1/vllm/v1"),
        ] {
            assert_eq!(wiring.openai_base(config.provider(id).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_asked_where_nobody_said_what_has_a_price() {
        let prices = gateway::embedded_prices();
        let config = config();
        let asked = config.providers.values().filter_map(|provider| Some((provider, usual_model(provider)?)));
        for (provider, model) in asked {
            assert!(prices.resolve(&provider.prices, model).is_some(), "{} {model}", provider.id);
        }
    }
}
