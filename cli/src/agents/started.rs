//! What an agent that `run` starts is told beside the variables of its SDKs, for this run alone: nothing of it is written
//! into the user's files, and no capability stands in an argument, which others could see.

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::{Value, json};

use super::files::opencode_settings;
use super::places::in_home;
use super::{KNOWN, KnownAgent, Wiring};

/// What goes along with a start.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Started {
    /// Arguments, before those that were typed.
    pub(crate) arguments: Vec<String>,
    /// Variables.
    pub(crate) variables: Vec<(String, String)>,
    /// What its user should know.
    pub(crate) notes: Vec<String>,
}

/// The agent that a program of this name is.
pub(crate) fn by_program(program: &str) -> Option<&'static KnownAgent> {
    KNOWN.iter().find(|known| known.program == Some(program))
}

impl KnownAgent {
    /// What it has to be told when it is started.
    pub(crate) fn started(&self, wiring: &Wiring<'_>) -> Started {
        match self.name {
            "codex" => codex(wiring),
            "gemini" => gemini(),
            "opencode" => opencode(wiring),
            _ => Started::default(),
        }
    }
}

/// Its address is no variable, so it is given a provider of its own, whose key is in the variable that is set anyway.
fn codex(wiring: &Wiring<'_>) -> Started {
    let Some(provider) = wiring.providers.first() else { return Started::default() };
    let key = provider.env.iter().find(|(_, template)| *template == "{token}").map(|(name, _)| name);
    let Some(key) = key else { return Started::default() };
    let ours = |name: &str, value: &str| format!("model_providers.tokfence.{name}={}", Value::from(value));
    let settings = [
        format!("model_provider={}", Value::from("tokfence")),
        ours("name", "tokfence"),
        ours("base_url", &wiring.openai_base(provider)),
        ours("env_key", key),
        ours("wire_api", "responses"),
    ];
    let arguments = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
    Started { arguments, ..Started::default() }
}

/// A variable of its holds settings that come before those of its files.
fn opencode(wiring: &Wiring<'_>) -> Started {
    let mut document = json!({});
    for setting in opencode_settings(wiring) {
        let mut place = &mut document;
        for part in &setting.at {
            place = &mut place[part.as_str()];
        }
        *place = setting.value;
    }
    let variables = vec![("OPENCODE_CONFIG_CONTENT".to_owned(), document.to_string())];
    Started { variables, ..Started::default() }
}

/// Whether it asks with a key or with a login is in its settings alone, which nothing else of a user's may overrule.
fn gemini() -> Started {
    let text = std::fs::read_to_string(in_home(".gemini/settings.json")).unwrap_or_default();
    let settings: Value = parse_to_serde_value(&text, &ParseOptions::default()).unwrap_or_default();
    let chosen = settings["security"]["auth"]["selectedType"].as_str();
    let note = "Gemini CLI asks with a key only where its settings say so: tokfence setup gemini";
    let notes = if chosen == Some("gemini-api-key") { Vec::new() } else { vec![note.to_owned()] };
    Started { notes, ..Started::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::Config;

    fn started(program: &str, providers: &[&str]) -> Started {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        let providers = providers.iter().map(|id| config.provider(id).unwrap().as_ref()).collect();
        let wiring = Wiring { address: "a:1", token: "tfk_x", providers, models: Vec::new() };
        by_program(program).unwrap().started(&wiring)
    }

    #[test]
    fn codex_is_given_a_provider_and_no_capability_in_its_arguments() {
        let started = started("codex", &["openai"]);
        let text = started.arguments.join(" ");
        assert!(text.starts_with("-c model_provider=\"tokfence\" -c "), "{text}");
        assert!(text.contains("base_url=\"http://a:1/openai/v1\""), "{text}");
        assert!(!text.contains("tfk_"), "{text}");
    }

    #[test]
    fn opencode_is_told_in_a_variable() {
        let started = started("opencode", &["anthropic", "openai"]);
        let document: Value = serde_json::from_str(&started.variables[0].1).unwrap();
        let anthropic = json!({ "baseURL": "http://a:1/anthropic/v1", "apiKey": "tfk_x" });
        assert_eq!(document["provider"]["anthropic"]["options"], anthropic);
        assert!(started.arguments.is_empty());
    }

    #[test]
    fn others_need_the_variables_of_their_sdk_only() {
        assert_eq!(started("claude", &["anthropic"]), Started::default());
        assert!(by_program("vim").is_none());
    }
}
