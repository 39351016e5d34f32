//! `env`: the variables that point an agent's SDKs at the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, ValueEnum};
use gateway::catalogue::{AuthStyle, Provider};
use gateway::config::Config;
use gateway::wire::WireFormat;
use policy::Scope;
use serde_json::json;

use crate::agents::{CLAUDE_HEADERS, HEADER, with_others};
use crate::app::App;
use crate::commands::agent::{Grant, mint, parse_agent};
use crate::failure::{Exit, Failure};
use crate::unlock;

/// Where a capability stands for those who are told its header by a variable of their own choice, such as Codex.
const CAPABILITY: &str = "TOKFENCE_CAPABILITY";

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
    /// Providers that get the caller's own login and whose clients must be told of the capability by hand.
    by_hand: Vec<(String, String)>,
    /// The variables that lead to a provider which gets the caller's own login.
    to_logins: BTreeSet<String>,
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
        let mut variables = Variables::new(providers, &address, &token.text);
        variables.keep_headers(std::env::var(CLAUDE_HEADERS).ok().as_deref());
        variables.unset.extend(variables.old_capabilities(&config));
        variables.note_rest(app);
        app.output.data(&json!({ "env": variables.set, "unset": variables.unset }), || {
            let unset = variables.unset.iter().map(|name| shell.unset(name));
            let set = variables.set.iter().map(|(name, value)| shell.set(name, value));
            unset.chain(set).collect::<Vec<_>>().join("\n")
        });
        Ok(())
    }
}

/// The address of the running gateway, and the providers it serves: those with a key or with the caller's own login,
/// or the one asked for.
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
    let providers = [status.providers, status.passthrough].concat();
    if providers.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no_such_entry", "the vault holds no keys")
            .with_hint("tokfence vault add PROVIDER"));
    }
    Ok((status.address, providers))
}

impl Variables {
    pub(crate) fn new<'a>(providers: impl Iterator<Item = &'a Provider>, address: &str, token: &str) -> Self {
        let mut variables = Self::default();
        let mut providers: Vec<&Provider> = providers.collect();
        // A key of the vault comes first: where one variable could lead to either, it leads to that.
        providers.sort_by_key(|provider| (provider.auth == AuthStyle::Passthrough, &provider.id));
        for provider in providers {
            let url = format!("http://{address}/{}", provider.id);
            if provider.auth == AuthStyle::Passthrough {
                variables.add_login(provider, url, token);
            } else {
                variables.add(provider, url, token);
            }
        }
        variables.unset.sort();
        variables.unset.dedup();
        variables
    }

    fn add(&mut self, provider: &Provider, url: String, token: &str) {
        for (name, template) in &provider.env {
            let value = template.replace("{url}", &url).replace("{token}", token);
            self.set.entry(name.clone()).or_insert(value);
        }
        self.unset.extend(provider.unset.iter().cloned());
        if provider.env.is_empty() {
            self.rest.push((provider.id.to_string(), url));
        }
    }

    /// The variables of a provider that gets the caller's own login: addresses, and the capability in a header.
    fn add_login(&mut self, provider: &Provider, url: String, token: &str) {
        let is_claude = provider.wire == WireFormat::Anthropic;
        let templates = provider.env.iter().filter(|(_, template)| !template.contains("{token}"));
        let mut addresses: BTreeMap<String, String> =
            templates.map(|(name, template)| (name.clone(), template.replace("{url}", &url))).collect();
        if is_claude && addresses.is_empty() {
            addresses.insert("ANTHROPIC_BASE_URL".to_owned(), url.clone());
        }
        let is_free = !addresses.is_empty() && addresses.keys().all(|name| !self.set.contains_key(name));
        if is_free {
            self.to_logins.extend(addresses.keys().cloned());
            self.set.extend(addresses);
        }
        if is_free && is_claude {
            self.set.insert(CLAUDE_HEADERS.to_owned(), format!("{HEADER}: {token}"));
        } else {
            self.by_hand.push((provider.id.to_string(), url));
        }
        self.set.insert(CAPABILITY.to_owned(), token.to_owned());
    }

    /// Keeps the headers that Claude Code was to send anyway, but no capability of before.
    pub(crate) fn keep_headers(&mut self, old: Option<&str>) {
        if let Some(headers) = self.set.get_mut(CLAUDE_HEADERS) {
            *headers = with_others(headers, old);
        }
    }

    /// The variables of a provider in which its SDKs look for a key.
    fn keys(provider: &Provider) -> impl Iterator<Item = &String> {
        let keys = provider.env.iter().filter(|(_, template)| *template == "{token}").map(|(name, _)| name);
        keys.chain(&provider.unset)
    }

    /// Whether the provider's clients are led to where their own login is wanted.
    fn wants_login(&self, provider: &Provider) -> bool {
        provider.env.keys().any(|name| self.to_logins.contains(name))
    }

    /// The variables of this process from which a child would take a real key of any provider. The caller's own
    /// login stays where it is wanted.
    pub(crate) fn real_keys(&self, config: &Config) -> Vec<String> {
        let others = config.providers.values().filter(|provider| !self.wants_login(provider));
        others
            .flat_map(|provider| Self::keys(provider))
            .cloned()
            .chain(self.old_capabilities(config))
            .collect()
    }

    /// The variables of this process in which a capability stands where the caller's own login is wanted.
    fn old_capabilities(&self, config: &Config) -> Vec<String> {
        let is_capability =
            |name: &&String| std::env::var(name).is_ok_and(|value| policy::TokenRef::looks_like(&value));
        let logins = config.providers.values().filter(|provider| self.wants_login(provider));
        let mut names: Vec<String> =
            logins.flat_map(|provider| Self::keys(provider)).filter(is_capability).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Says of which providers there was nothing to set.
    pub(crate) fn note_rest(&self, app: &App) {
        for (provider, url) in &self.rest {
            app.output.note(&format!(
                "no variables are known for `{provider}`; its base URL is {url}, and its key is a capability of \
                 `tokfence agent mint`"
            ));
        }
        for (provider, url) in &self.by_hand {
            app.output.note(&format!(
                "`{provider}` takes the caller's own login; its base URL is {url}, and the capability, which is in \
                 {CAPABILITY}, must be sent in the header {HEADER}"
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

    const LOGINS: &str = "[providers.anthropic]\nauth = \"passthrough\"\n\
        [providers.claude]\nupstream = \"https://a.example\"\nwire = \"anthropic\"\nauth = \"passthrough\"\n\
        [providers.chatgpt]\nupstream = \"https://b.example\"\nauth = \"passthrough\"\n";

    fn logins(names: &[&str]) -> (Config, Variables) {
        let config = Config::parse(LOGINS, std::path::Path::new("/nowhere")).unwrap();
        let providers = names.iter().map(|name| config.provider(name).unwrap().as_ref());
        let variables = Variables::new(providers, "127.0.0.1:9471", "tfk_x");
        (config, variables)
    }

    #[test]
    fn beside_a_login_a_capability_is_in_a_header_and_never_in_the_place_of_the_key() {
        for name in ["anthropic", "claude"] {
            let (config, variables) = logins(&[name, "openai"]);
            assert_eq!(variables.set["ANTHROPIC_BASE_URL"], format!("http://127.0.0.1:9471/{name}"));
            assert_eq!(variables.set[CLAUDE_HEADERS], "X-Tokfence-Capability: tfk_x");
            assert_eq!(variables.set["OPENAI_API_KEY"], "tfk_x");
            assert!(!variables.set.contains_key("ANTHROPIC_API_KEY"));
            assert!(variables.unset.is_empty() && variables.by_hand.is_empty());
            let removed = variables.real_keys(&config);
            assert!(removed.contains(&"OPENAI_API_KEY".to_owned()));
            assert!(!removed.contains(&"CLAUDE_CODE_OAUTH_TOKEN".to_owned()), "the login of {name}");
        }
        let (config, variables) = logins(&["chatgpt"]);
        assert_eq!(
            variables.set.into_iter().collect::<Vec<_>>(),
            [(CAPABILITY.to_owned(), "tfk_x".to_owned())]
        );
        assert_eq!(variables.by_hand, [("chatgpt".to_owned(), "http://127.0.0.1:9471/chatgpt".to_owned())]);
        let (_, variables) = logins(&["openai"]);
        assert!(variables.real_keys(&config).contains(&"CLAUDE_CODE_OAUTH_TOKEN".to_owned()));
        assert!(!variables.set.contains_key(CAPABILITY));
    }

    #[test]
    fn one_variable_leads_to_one_provider() {
        let (_, variables) = logins(&["claude", "anthropic"]);
        assert_eq!(variables.set["ANTHROPIC_BASE_URL"], "http://127.0.0.1:9471/anthropic");
        assert_eq!(variables.by_hand.len(), 1);
        let text = LOGINS.replace("[providers.anthropic]\nauth = \"passthrough\"\n", "");
        let config = Config::parse(&text, std::path::Path::new("/nowhere")).unwrap();
        let both = ["claude", "anthropic"].map(|name| config.provider(name).unwrap().as_ref());
        let variables = Variables::new(both.into_iter(), "127.0.0.1:9471", "tfk_x");
        assert_eq!(variables.set["ANTHROPIC_API_KEY"], "tfk_x");
        assert!(!variables.set.contains_key(CLAUDE_HEADERS));
        assert_eq!(variables.by_hand.len(), 1);
    }

    #[test]
    fn headers_of_the_users_own_are_kept_and_an_old_capability_is_not() {
        let (_, mut variables) = logins(&["claude"]);
        variables.keep_headers(Some("X-Team: a\nx-tokfence-capability: tfk_old\n\n"));
        assert_eq!(variables.set[CLAUDE_HEADERS], "X-Team: a\nX-Tokfence-Capability: tfk_x");
        let (_, mut variables) = logins(&["openai"]);
        variables.keep_headers(Some("X-Team: a"));
        assert!(!variables.set.contains_key(CLAUDE_HEADERS));
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
