//! `env`: the variables that point an agent's SDKs at the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use gateway::catalogue::Provider;
use policy::Scope;
use serde_json::json;

use crate::app::App;
use crate::commands::agent::{Grant, mint, parse_agent};
use crate::failure::{Exit, Failure};
use crate::unlock;

/// A shell's capability lasts a working day and a bit.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Env {
    /// How the variables are written; guessed from SHELL
    #[arg(long, value_enum)]
    shell: Option<Shell>,
    /// Only this provider
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// The agent to whom the requests are booked
    #[arg(long, default_value = "shell", value_name = "NAME")]
    agent: String,
    /// Print what takes the variables away again
    #[arg(long)]
    unset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// The variables of a capability: what to set, and what to remove because a real key may sit in it.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) unset: Vec<String>,
    /// Providers whose SDKs read no variable that we know of, each with its base URL.
    rest: Vec<(String, String)>,
}

impl Env {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        let shell = self.shell.unwrap_or_else(Shell::of_environment);
        let config = app.config()?;
        let wanted = self.provider.as_deref().map(|name| app.provider(&config, name)).transpose()?;
        if self.unset {
            let names: Vec<String> = Variables::new(config.providers.values().map(AsRef::as_ref), "", "")
                .set
                .into_keys()
                .collect();
            let text = names.iter().map(|name| shell.unset(name)).collect::<Vec<_>>().join("\n");
            app.output.data(&json!({ "unset": names }), || text);
            return Ok(());
        }
        let (address, providers) = served(app, wanted.as_ref().map(policy::ProviderId::as_str))?;
        let scope = Scope { providers: wanted.into_iter().collect(), ..Scope::default() };
        let grant = Grant { scope, ttl: Some(TTL), ..Grant::default() };
        let (token, _) = mint(app, &parse_agent(&self.agent)?, grant)?;
        let providers = providers.iter().filter_map(|name| config.provider(name)).map(AsRef::as_ref);
        let variables = Variables::new(providers, &address, &token.text);
        variables.note_rest(app);
        app.output.data(&json!({ "env": variables.set, "unset": variables.unset }), || {
            let unset = variables.unset.iter().map(|name| shell.unset(name));
            let set = variables.set.iter().map(|(name, value)| shell.set(name, value));
            unset.chain(set).collect::<Vec<_>>().join("\n")
        });
        Ok(())
    }
}

/// The address of the running gateway, and the providers it serves: those with a key, or the one asked for.
pub(crate) fn served(app: &App, wanted: Option<&str>) -> Result<(String, Vec<String>), Failure> {
    let status = app.daemon_status()?;
    if status.state == "killed" {
        let message = "the kill switch is on; nothing is served";
        return Err(Failure::new(Exit::Failed, "killed", message).with_hint("tokfence unkill"));
    }
    if let Some(name) = wanted {
        return Ok((status.address, vec![name.to_owned()]));
    }
    if status.is_locked {
        return Err(Failure::new(Exit::Locked, "vault_locked", "the gateway has no keys")
            .with_hint(unlock::way_to_keys(app)));
    }
    if status.providers.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no_such_entry", "the vault holds no keys")
            .with_hint("tokfence vault add PROVIDER"));
    }
    Ok((status.address, status.providers))
}

impl Variables {
    pub(crate) fn new<'a>(providers: impl Iterator<Item = &'a Provider>, address: &str, token: &str) -> Self {
        let mut variables = Self::default();
        let mut providers: Vec<&Provider> = providers.collect();
        providers.sort_by_key(|provider| &provider.id);
        for provider in providers {
            let url = format!("http://{address}/{}", provider.id);
            for (name, template) in &provider.env {
                let value = template.replace("{url}", &url).replace("{token}", token);
                variables.set.entry(name.clone()).or_insert(value);
            }
            variables.unset.extend(provider.unset.iter().cloned());
            if provider.env.is_empty() {
                variables.rest.push((provider.id.to_string(), url));
            }
        }
        variables.unset.sort();
        variables.unset.dedup();
        variables
    }

    /// Says of which providers there was nothing to set.
    pub(crate) fn note_rest(&self, app: &App) {
        for (provider, url) in &self.rest {
            app.output.note(&format!(
                "no variables are known for `{provider}`; its base URL is {url}, and its key is a capability of \
                 `tokfence agent mint`"
            ));
        }
    }
}

impl Shell {
    fn of_environment() -> Self {
        let shell = std::env::var("SHELL").unwrap_or_default();
        match shell.rsplit('/').next() {
            Some("fish") => Self::Fish,
            Some("zsh") => Self::Zsh,
            Some("pwsh") => Self::Powershell,
            _ => Self::Bash,
        }
    }

    fn set(self, name: &str, value: &str) -> String {
        match self {
            Self::Bash | Self::Zsh => format!("export {name}={}", single_quoted(value, r"'\''")),
            Self::Fish => format!("set -gx {name} {}", single_quoted(&value.replace('\\', r"\\"), r"\'")),
            Self::Powershell => format!("$env:{name} = {}", single_quoted(value, "''")),
        }
    }

    fn unset(self, name: &str) -> String {
        match self {
            Self::Bash | Self::Zsh => format!("unset {name}"),
            Self::Fish => format!("set -e {name}"),
            Self::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue"),
        }
    }
}

/// The value in single quotes, in which no shell expands anything, with inner quotes written as `quote`.
fn single_quoted(value: &str, quote: &str) -> String {
    format!("'{}'", value.replace('\'', quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_each_shell() {
        let value = r"a'b$c\d";
        assert_eq!(Shell::Bash.set("X", value), r"export X='a'\''b$c\d'");
        assert_eq!(Shell::Fish.set("X", value), r"set -gx X 'a\'b$c\\d'");
        assert_eq!(Shell::Powershell.set("X", value), r"$env:X = 'a''b$c\d'");
    }

    #[test]
    fn each_sdk_gets_the_base_url_it_wants() {
        let config = gateway::config::Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        let providers = ["openai", "anthropic", "groq"].map(|name| config.provider(name).unwrap().as_ref());
        let variables = Variables::new(providers.into_iter(), "127.0.0.1:9471", "tfk_x");
        assert_eq!(variables.set["OPENAI_BASE_URL"], "http://127.0.0.1:9471/openai/v1");
        assert_eq!(variables.set["ANTHROPIC_BASE_URL"], "http://127.0.0.1:9471/anthropic");
        assert_eq!(variables.set["GROQ_BASE_URL"], "http://127.0.0.1:9471/groq");
        assert_eq!(variables.set["OPENAI_API_KEY"], "tfk_x");
        assert!(variables.unset.contains(&"ANTHROPIC_AUTH_TOKEN".to_owned()));
        assert!(variables.rest.is_empty());
    }

    #[test]
    fn a_provider_without_variables_is_left_over_with_its_base_url() {
        let text = "[providers.mine]\nupstream = \"https://a.example/v1\"\n";
        let config = gateway::config::Config::parse(text, std::path::Path::new("/nowhere")).unwrap();
        let providers = ["mine", "openai"].map(|name| config.provider(name).unwrap().as_ref());
        let variables = Variables::new(providers.into_iter(), "127.0.0.1:9471", "tfk_x");
        let rest = [("mine".to_owned(), "http://127.0.0.1:9471/mine".to_owned())];
        assert_eq!(variables.rest, rest);
    }
}
