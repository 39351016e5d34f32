//! OpenClaw's configuration: what we have to say goes into what is there, and nothing else of that changes.

use std::path::Path;

use serde_json::{Value, json};

use crate::agents::Wiring;
use crate::agents::openclaw::built_in;
use crate::commands::agent::random_bytes;
use crate::failure::{Exit, Failure};
use crate::format::hex;

/// The port on which OpenClaw listens in its container.
pub(super) const PORT: u16 = 18_789;
/// Where the agent works, in its container.
pub(super) const WORKSPACE: &str = "/workspace";

/// The configuration that is there, or an empty one.
///
/// # Errors
/// Where it is not JSON: what cannot be read cannot be kept.
pub(super) fn read(path: &Path) -> Result<Value, Failure> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(json!({})),
        read => read.map_err(|error| Failure::failed(&format!("read {}", path.display()), &error))?,
    };
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{} is not plain JSON: {error}", path.display());
        Failure::new(Exit::Failed, "invalid_config", message).with_hint("mend it, or move it away")
    })
}

/// Puts our settings into the configuration.
pub(super) fn complete(mut config: Value, wiring: &Wiring<'_>) -> Result<Value, Failure> {
    let (mut models, first) = built_in(wiring);
    let mut defaults = json!({
        "gateway": { "auth": { "token": new_token()? } },
        "agents": { "defaults": { "workspace": WORKSPACE } },
    });
    if let Some(model) = first {
        defaults["agents"]["defaults"]["model"] = json!({ "primary": model });
    }
    for (id, provider) in &mut models {
        // A list must be there, and one that is there is the user's.
        let is_there = config["models"]["providers"][id]["models"].is_array();
        if !is_there {
            provider["models"] = json!([]);
        }
    }
    merge(&mut config, &defaults, false);
    let ours = json!({
        "gateway": { "port": PORT, "mode": "local", "bind": "loopback", "auth": { "mode": "token" } },
        // There is no network for any of these.
        "telemetry": { "enabled": false },
        "update": { "checkOnStart": false },
        "models": { "mode": "merge", "catalogRefresh": { "enabled": false }, "providers": models },
    });
    merge(&mut config, &ours, true);
    Ok(config)
}

fn new_token() -> Result<String, Failure> {
    Ok(hex(&random_bytes::<24>()?))
}

/// Puts one document into another: its values in the place of those that are there, or only where there is none.
fn merge(there: &mut Value, new: &Value, replaces: bool) {
    match (there, new) {
        (Value::Object(there), Value::Object(new)) => {
            for (key, value) in new {
                merge(there.entry(key).or_insert(Value::Null), value, replaces);
            }
        }
        (there, new) if replaces || there.is_null() => {
            // A table into which more is to go, where there was none.
            *there = new.clone();
        }
        _ => {}
    }
}

/// The configuration without what opens anything.
pub(super) fn masked(config: &Value) -> Value {
    const SECRET: [&str; 6] = ["token", "apiKey", "password", "secret", "botToken", "appToken"];
    match config {
        Value::Object(members) => {
            let mask = |(key, value): (&String, &Value)| {
                let is_secret = SECRET.contains(&key.as_str()) && value.is_string();
                (key.clone(), if is_secret { json!("(hidden)") } else { masked(value) })
            };
            Value::Object(members.iter().map(mask).collect())
        }
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(config: Value, names: &[&str]) -> Value {
        let all = gateway::config::Config::parse("", Path::new("/nowhere")).unwrap();
        let providers = names.iter().map(|name| all.provider(name).unwrap().as_ref()).collect();
        let wiring = Wiring { address: "127.0.0.1:9471", token: "tfk_x", providers, models: Vec::new() };
        complete(config, &wiring).unwrap()
    }

    #[test]
    fn every_provider_is_reached_through_the_gateway() {
        let config = completed(json!({}), &["xai", "openai", "anthropic", "google"]);
        let providers = &config["models"]["providers"];
        assert_eq!(providers["anthropic"]["baseUrl"], "http://127.0.0.1:9471/anthropic");
        assert_eq!(providers["openai"]["baseUrl"], "http://127.0.0.1:9471/openai/v1");
        assert_eq!(providers["google"]["apiKey"], "tfk_x");
        assert_eq!(providers["openai"]["models"], json!([]));
        assert!(providers["xai"].is_null() && providers["groq"].is_null());
        assert_eq!(config["agents"]["defaults"]["model"]["primary"], "anthropic/claude-sonnet-4-5");
        let gateway = &config["gateway"];
        assert_eq!((&gateway["bind"], &gateway["port"]), (&json!("loopback"), &json!(18_789)));
        assert_eq!(gateway["auth"]["token"].as_str().unwrap().len(), 48);
        assert!(gateway["controlUi"].is_null(), "nothing is made less strict");
    }

    #[test]
    fn what_the_user_set_stays_and_what_leads_elsewhere_does_not() {
        let before = json!({
            "gateway": { "bind": "lan", "auth": { "token": "mine" }, "controlUi": { "enabled": false } },
            "agents": { "defaults": { "model": { "primary": "openai/gpt-5.1", "fallbacks": ["x"] } } },
            "models": { "providers": { "openai": { "baseUrl": "https://api.openai.com", "apiKey": "sk-1", "models": [{ "id": "a" }] } } },
            "channels": { "telegram": { "botToken": "t" } },
        });
        let config = completed(before, &["openai"]);
        assert_eq!(config["gateway"]["auth"], json!({ "token": "mine", "mode": "token" }));
        assert_eq!(config["gateway"]["bind"], "loopback");
        assert_eq!(config["gateway"]["controlUi"]["enabled"], false);
        let model = &config["agents"]["defaults"]["model"];
        assert_eq!(model, &json!({ "primary": "openai/gpt-5.1", "fallbacks": ["x"] }));
        let openai = &config["models"]["providers"]["openai"];
        assert_eq!(openai["apiKey"], "tfk_x");
        assert_eq!(openai["models"], json!([{ "id": "a" }]));
        let shown = masked(&config).to_string();
        assert!(!shown.contains("mine") && !shown.contains("tfk_x") && !shown.contains("\"t\""), "{shown}");
        assert!(shown.contains("openai/gpt-5.1"));
    }
}
