//! Keys of providers in a text. A key is known by its looks, as the gateway knows it in requests, or by the name that
//! stands before it: a variable that an SDK reads as its key, or in JSON the name of a provider.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use gateway::catalogue::AuthStyle;
use gateway::config::Config;
use policy::scan::{Shape, Watchlist, is_dummy, shapes};
use policy::{ProviderId, TokenRef};

use crate::commands::provider::each_once;
use crate::commands::vault::is_key_variable;

/// No name of a model has as many letters and digits without a dash or a dot.
const WORD_MIN: usize = 20;

/// A key that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which bytes of the text.
    pub(super) range: Range<usize>,
    pub(super) provider: ProviderId,
    /// The name that stands before it.
    pub(super) name: Option<String>,
    /// Whether the name is one by which an SDK of this provider, or an agent, reads its key.
    pub(super) is_key_name: bool,
}

/// What keys are known by.
pub(super) struct Finder {
    /// Variables in which keys stand.
    variables: HashMap<String, Name>,
    /// Names of providers.
    providers: HashMap<String, ProviderId>,
    /// Canaries: they look like keys and are meant to lie around.
    decoys: HashSet<String>,
}

struct Name {
    provider: ProviderId,
    /// Otherwise it may as well be a login, which is nothing for the vault.
    is_key: bool,
}

impl Finder {
    pub(super) fn new(config: &Config, decoys: HashSet<String>) -> Self {
        let (mut variables, mut providers) = (HashMap::new(), HashMap::new());
        for provider in each_once(config).iter().filter(|known| known.auth != AuthStyle::Passthrough) {
            let keys = provider.env.keys().filter(|name| is_key_variable(provider, name));
            for (name, is_key) in
                keys.map(|name| (name, true)).chain(provider.unset.iter().map(|name| (name, false)))
            {
                let name_of = Name { provider: provider.id.clone(), is_key };
                variables.entry(name.clone()).or_insert(name_of);
            }
            for name in std::iter::once(&provider.id).chain(&provider.aliases) {
                providers.insert(name.to_string(), provider.id.clone());
            }
        }
        Self { variables, providers, decoys }
    }

    /// The keys in a text, in the order in which they stand there.
    pub(super) fn find(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        shapes(text, |shape, at| {
            if let Some((provider, is_admin)) = provider_of(shape) {
                let key = self.by_looks(text, at, provider);
                found.push(Found { is_key_name: key.is_key_name && !is_admin, ..key });
            }
        });
        found.extend(self.by_names(text));
        // One that is known in both ways stands there once; what it looks like says more than what it is called.
        found.sort_by_key(|found| found.range.start);
        found.dedup_by(|later, first| later.range.start < first.range.end);
        found.retain(|found| !self.is_decoy(&text[found.range.clone()]));
        found
    }

    /// The key in the value of a variable.
    pub(super) fn find_in_variable(&self, name: &str, value: &str) -> Option<Found> {
        if let Some(found) = self.find(value.as_bytes()).into_iter().next() {
            let is_key_name = self.variables.get(name).is_some_and(|known| known.is_key);
            return Some(Found { name: Some(name.to_owned()), is_key_name, ..found });
        }
        let known = self.variables.get(name).filter(|_| could_be_key(value.as_bytes()))?;
        Some(Found {
            range: 0..value.len(),
            provider: known.provider.clone(),
            name: Some(name.to_owned()),
            is_key_name: known.is_key,
        })
    }

    fn by_looks(&self, text: &[u8], at: usize, provider: &str) -> Found {
        let end = at + text[at..].iter().take_while(|byte| is_word(**byte) || **byte == b'-').count();
        let name = name_before(text, at);
        let known = name.as_deref().and_then(|name| self.variables.get(name));
        let provider: ProviderId = provider.parse().expect("the shapes name providers that are built in");
        Found {
            range: at..end,
            is_key_name: match known {
                Some(known) => known.is_key && known.provider == provider,
                // Members of agents' files: their makers call them what they like.
                None => name.as_deref().is_some_and(|name| self.is_member(name)),
            },
            provider,
            name,
        }
    }

    fn is_member(&self, name: &str) -> bool {
        const MEMBERS: [&str; 5] = ["key", "apiKey", "api_key", "openai-api-key", "anthropic-api-key"];
        MEMBERS.contains(&name) || self.providers.contains_key(name)
    }

    /// Whatever stands behind a name by which keys go.
    fn by_names(&self, text: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let word =
                at..at + text[at..].iter().take_while(|byte| is_word(**byte) || **byte == b'-').count();
            if word.is_empty() {
                at += 1;
                continue;
            }
            at = word.end;
            let Ok(name) = std::str::from_utf8(&text[word.clone()]) else { continue };
            let is_quoted =
                word.start > 0 && text[word.start - 1] == b'"' && text.get(word.end) == Some(&b'"');
            let (provider, is_key) = match (self.variables.get(name), self.providers.get(name)) {
                (Some(known), _) => (&known.provider, known.is_key),
                (None, Some(provider)) if is_quoted => (provider, true),
                _ => continue,
            };
            let Some(value) = value_after(text, word.end) else { continue };
            let is_name_of_provider = !self.variables.contains_key(name);
            if could_be_key(&text[value.clone()])
                && (!is_name_of_provider || has_long_word(&text[value.clone()]))
            {
                let name = Some(name.to_owned());
                found.push(Found { range: value, provider: provider.clone(), name, is_key_name: is_key });
            }
        }
        found
    }

    fn is_decoy(&self, key: &[u8]) -> bool {
        std::str::from_utf8(key).is_ok_and(|key| self.decoys.contains(key))
    }
}

/// The provider whose key this is, and whether it is one with which an organization is run: only its owner can say
/// where in the vault it belongs.
fn provider_of(shape: Shape) -> Option<(&'static str, bool)> {
    match shape {
        Shape::OpenAiProject | Shape::OpenAiServiceAccount | Shape::OpenAiLegacy => Some(("openai", false)),
        Shape::OpenAiAdmin => Some(("openai", true)),
        Shape::Anthropic => Some(("anthropic", false)),
        Shape::AnthropicAdmin => Some(("anthropic", true)),
        Shape::Google => Some(("google", false)),
        Shape::Groq => Some(("groq", false)),
        Shape::OpenRouter => Some(("openrouter", false)),
        Shape::HuggingFace => Some(("huggingface", false)),
        Shape::GitHubPersonal
        | Shape::GitHubOAuth
        | Shape::GitHubApp
        | Shape::GitHubFineGrained
        | Shape::AwsKeyId
        | Shape::Slack
        | Shape::StripeLive
        | Shape::PrivateKey
        | Shape::Capability => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// The name to which what begins at `at` is given.
fn name_before(text: &[u8], at: usize) -> Option<String> {
    let trim = |end: usize, skips: fn(u8) -> bool| {
        end - text[..end].iter().rev().take_while(|byte| skips(**byte)).count()
    };
    let end = trim(trim(at, is_quote), is_blank);
    let before = if matches!(text[..end].last(), Some(b'=' | b':')) { end - 1 } else { end };
    // fish sets variables without a sign.
    if before == end && end == at {
        return None;
    }
    let end = trim(trim(before, is_blank), is_quote);
    let start = trim(end, |byte| is_word(byte) || byte == b'-');
    let name = std::str::from_utf8(&text[start..end]).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The value that is given to the name which ends at `at`.
fn value_after(text: &[u8], at: usize) -> Option<Range<usize>> {
    let skip = |from: usize, skips: fn(u8) -> bool| {
        from + text[from..].iter().take_while(|byte| skips(**byte)).count()
    };
    let mut from = skip(skip(at, is_quote), is_blank);
    if matches!(text.get(from), Some(b'=' | b':')) {
        from = skip(from + 1, is_blank);
    } else if from == at {
        return None;
    }
    let start = if text.get(from).is_some_and(|byte| is_quote(*byte)) { from + 1 } else { from };
    let end = skip(start, |byte| is_word(byte) || matches!(byte, b'-' | b'.' | b'+' | b'/' | b'='));
    (end > start).then_some(start..end)
}

/// Whether a value is more than a placeholder or a path. What is a key has digits, and cannot be spelled.
fn could_be_key(value: &[u8]) -> bool {
    let is_token = std::str::from_utf8(value).is_ok_and(TokenRef::looks_like);
    Watchlist::can_watch(value)
        && value.iter().any(u8::is_ascii_digit)
        && !value.starts_with(b"/")
        && !value.contains(&b':')
        && !is_dummy(value)
        && !is_token
}

/// Whether so much of it stands together that it is no model, no version and no address.
fn has_long_word(value: &[u8]) -> bool {
    value.split(|byte| !is_word(*byte)).any(|word| word.len() >= WORD_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{DecoyShape, decoy};

    fn finder(decoys: &[&str]) -> Finder {
        let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
        Finder::new(&config, decoys.iter().map(|text| (*text).to_owned()).collect())
    }

    fn key(shape: DecoyShape) -> String {
        decoy(shape, [7; 32])
    }

    const PLAIN: &str = "Zk4mQ8vT2xLp9WrB6nYc3HdS";

    #[track_caller]
    fn check(text: &str, key: &str, provider: &str, name: Option<&str>, is_key_name: bool) {
        let found = finder(&[]).find(text.as_bytes());
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let found = &found[0];
        assert_eq!(&text[found.range.clone()], key, "{text}");
        let told = (found.provider.as_str(), found.name.as_deref(), found.is_key_name);
        assert_eq!(told, (provider, name, is_key_name), "{text}");
    }

    #[test]
    fn a_key_is_found_by_its_looks_with_the_name_before_it() {
        let key = key(DecoyShape::Anthropic);
        for text in
            ["NAME={}", "export NAME=\"{}\"\n", "NAME = '{}' # mine", "{\"NAME\": \"{}\"}", "set -gx NAME {}"]
        {
            check(&text.replacen("{}", &key, 1), &key, "anthropic", Some("NAME"), false);
            let text = text.replace("NAME", "ANTHROPIC_API_KEY").replacen("{}", &key, 1);
            check(&text, &key, "anthropic", Some("ANTHROPIC_API_KEY"), true);
        }
        check(&format!("see:\n{key}\n"), &key, "anthropic", None, false);
        check(&format!("{{\"anthropic\":{{\"key\":\"{key}\"}}}}"), &key, "anthropic", Some("key"), true);
        check(&format!("OPENAI_API_KEY={key}"), &key, "anthropic", Some("OPENAI_API_KEY"), false);
    }

    #[test]
    fn a_key_without_a_shape_is_found_by_its_name() {
        for text in
            ["MISTRAL_API_KEY={}\n", "export MISTRAL_API_KEY='{}'", "{ \"MISTRAL_API_KEY\" : \"{}\" }"]
        {
            let text = text.replacen("{}", PLAIN, 1);
            check(&text, PLAIN, "mistral", Some("MISTRAL_API_KEY"), true);
        }
        check(&format!("{{\"mistral\": \"{PLAIN}\"}}"), PLAIN, "mistral", Some("mistral"), true);
        check(
            &format!("ANTHROPIC_AUTH_TOKEN={PLAIN}"),
            PLAIN,
            "anthropic",
            Some("ANTHROPIC_AUTH_TOKEN"),
            false,
        );
    }

    #[test]
    fn what_only_stands_for_a_key_is_none() {
        let token = policy::MintedToken::from_random([1; 8], [2; 32]).text;
        for value in [
            "",
            "your-api-key-here",
            "sk-xxxxxxxxxxxxxxxxxxxxxxxx1",
            "$OTHER",
            "${OTHER_KEY_1234567}",
            "$(pass show mistral)",
            "/run/secrets/mistral-key-1",
            "http://127.0.0.1:9471/mistral",
            token.as_str(),
        ] {
            let text = format!("MISTRAL_API_KEY={value}\nOPENAI_API_KEY: \"{value}\"\n");
            assert_eq!(finder(&[]).find(text.as_bytes()), [], "{value}");
        }
        assert_eq!(finder(&[]).find(format!("UNKNOWN_KEY={PLAIN}").as_bytes()), []);
        assert_eq!(finder(&[]).find(format!("mistral={PLAIN}").as_bytes()), [], "no JSON");
        let models =
            br#"{"anthropic": "claude-sonnet-4-5-20250929", "mistral": "mistral-large-instruct-2411"}"#;
        assert_eq!(finder(&[]).find(models), []);
    }

    #[test]
    fn a_canary_may_lie_around() {
        let key = key(DecoyShape::OpenAi);
        assert_eq!(finder(&[&key]).find(format!("OPENAI_API_KEY_BACKUP={key}").as_bytes()), []);
    }

    #[test]
    fn a_variable_is_looked_at_by_its_name_and_by_what_it_holds() {
        let finder = finder(&[]);
        assert!(finder.find_in_variable("MISTRAL_API_KEY", PLAIN).is_some());
        assert!(finder.find_in_variable("SOMETHING", PLAIN).is_none());
        let found = finder.find_in_variable("SOMETHING", &key(DecoyShape::Groq)).unwrap();
        assert_eq!((found.provider.as_str(), found.is_key_name), ("groq", false));
    }
}
