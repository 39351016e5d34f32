//! `[providers.NAME]`: what changes a built-in provider, or makes a new one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use policy::ProviderId;
use vault::Origin;

use super::expand;
use super::reader::{Reader, Section, boolean, duration, text, text_table, texts};
use crate::provider::catalogue::{AuthStyle, Catalogue, Provider};
use crate::request::headers::HeaderPattern;
use crate::wire::WireFormat;

/// Every provider by each of its names: the built-in ones, changed and joined by those of the file.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &mut Section<'_>,
    home: &Path,
) -> HashMap<ProviderId, Arc<Provider>> {
    let mut providers = Catalogue::embedded().providers();
    let mut tables = reader.section(root, "providers");
    for name in tables.keys() {
        let mut section = reader.section(&mut tables, name);
        match name.parse::<ProviderId>() {
            Ok(id) => {
                let base = providers.iter().find(|known| known.answers_to(&id)).cloned();
                if let Some(provider) = read_provider(reader, &mut section, base, id, home) {
                    providers.retain(|known| known.id != provider.id);
                    providers.push(provider);
                }
            }
            Err(error) => reader.fault(None, format!("providers.{name}"), error.to_string()),
        }
        reader.finish(section);
    }
    reader.finish(tables);
    by_every_name(providers)
}

fn by_every_name(providers: Vec<Provider>) -> HashMap<ProviderId, Arc<Provider>> {
    let mut by_name = HashMap::new();
    for provider in providers.into_iter().map(Arc::new) {
        for alias in &provider.aliases {
            by_name.insert(alias.clone(), provider.clone());
        }
        by_name.insert(provider.id.clone(), provider);
    }
    by_name
}

fn read_provider(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    base: Option<Provider>,
    id: ProviderId,
    home: &Path,
) -> Option<Provider> {
    let upstream =
        reader.value(section, "upstream", |value| crate::provider::catalogue::parse_upstream(&text(value)?));
    if base.is_none() && upstream.is_none() {
        reader.fault(None, section.full_key("upstream"), "a provider that is not built in needs an upstream");
    }
    let mut provider = match (base, &upstream) {
        (Some(base), _) => base,
        (None, Some((origin, path))) => Provider::custom(id, origin.clone(), path.clone()),
        (None, None) => Provider::custom(
            id,
            Origin::of_url("https://upstream.invalid").expect("a URL of the source"),
            String::new(),
        ),
    };
    if let Some((origin, base_path)) = upstream {
        (provider.origin, provider.base_path) = (origin, base_path);
    }
    read_manner(reader, section, &mut provider);
    read_limits(reader, section, &mut provider, home);
    check_origin(reader, section, &provider);
    Some(provider)
}

/// How the provider is spoken to, and what its answers cost.
fn read_manner(reader: &mut Reader<'_>, section: &mut Section<'_>, provider: &mut Provider) {
    if let Some(is_local) = reader.value(section, "local", boolean) {
        provider.is_local = is_local;
    }
    if let Some(wire) = reader
        .value(section, "wire", |value| text(value)?.parse::<WireFormat>().map_err(|error| error.to_string()))
    {
        provider.wire = wire;
    }
    if let Some(auth) = reader.value(section, "auth", |value| AuthStyle::parse(&text(value)?)) {
        provider.auth = auth;
    }
    if let Some(headers) = reader.value(section, "extra_headers", |value| headers(text_table(value)?)) {
        provider.extra_headers = headers;
    }
    let patterns = |value: &toml_edit::Value| {
        texts(value)?.iter().map(|name| HeaderPattern::parse(name)).collect::<Result<Vec<_>, _>>()
    };
    if let Some(headers) = reader.value(section, "pass_headers", patterns) {
        provider.further_headers = headers;
    }
    if let Some(prices) = reader.value(section, "prices", price_list) {
        provider.prices = prices;
    }
}

fn read_limits(reader: &mut Reader<'_>, section: &mut Section<'_>, provider: &mut Provider, home: &Path) {
    let timeouts = &mut provider.timeouts;
    timeouts.connect = reader.value(section, "connect_timeout", duration).unwrap_or(timeouts.connect);
    timeouts.first_byte =
        reader.value(section, "first_byte_timeout", duration).unwrap_or(timeouts.first_byte);
    timeouts.idle = reader.value(section, "idle_timeout", duration).unwrap_or(timeouts.idle);
    if let Some(file) = reader.value(section, "ca_file", text).filter(|file| !file.is_empty()) {
        provider.ca_file = Some(expand(&file, home));
    }
}

/// The name of a list in the price table. A slip in it would make every cost unknown.
fn price_list(value: &toml_edit::Value) -> Result<String, String> {
    let name = text(value)?;
    let is_known = crate::embedded_prices().iter().any(|(provider, ..)| provider == name);
    if is_known { Ok(name) } else { Err(format!("there are no prices of `{}`", name.escape_debug())) }
}

/// Plain HTTP carries the credential in the clear, so it is for this machine only.
fn check_origin(reader: &mut Reader<'_>, section: &Section<'_>, provider: &Provider) {
    if !crate::provider::catalogue::is_https(&provider.origin) && !provider.is_local {
        let message = "must be https://; plain http is for a server on this machine, with `local = true`";
        reader.fault(None, section.full_key("upstream"), message);
    }
}

fn headers(pairs: Vec<(String, String)>) -> Result<Vec<(http::HeaderName, http::HeaderValue)>, String> {
    let parse = |(name, value): (String, String)| {
        let name: http::HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
        if crate::request::headers::is_reserved(&name) {
            return Err(format!("`{name}` is set by the gateway"));
        }
        let value = value.parse().map_err(|_| format!("the value of `{name}` is not a header value"))?;
        Ok((name, value))
    };
    pairs.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn faults(lines: &str) -> Vec<String> {
        let text = format!("[providers.claude]\nupstream = \"https://a.example\"\n{lines}\n");
        let faults = Config::parse(&text, Path::new("/nowhere")).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_login_is_passed_through_with_the_headers_it_needs() {
        let text = "[providers.claude]\nupstream = \"https://api.anthropic.com\"\nauth = \"passthrough\"\n\
                    prices = \"anthropic\"\npass_headers = [\"anthropic-*\", \"X-App\"]\n\
                    [providers.anthropic]\nauth = \"passthrough\"\npass_headers = [\"x-app\"]\n";
        let config = Config::parse(text, Path::new("/nowhere")).unwrap();
        let claude = config.provider("claude").unwrap();
        assert_eq!((claude.auth, claude.prices.as_str()), (AuthStyle::Passthrough, "anthropic"));
        let further: Vec<String> = claude.further_headers.iter().map(ToString::to_string).collect();
        assert_eq!(further, ["anthropic-*", "x-app"]);
        // The headers that are built in stay.
        assert!(config.provider("anthropic").unwrap().passed_headers.len() >= 3);
        assert_eq!(config.passthrough_providers(), ["anthropic", "claude"]);
    }

    #[test]
    fn a_header_that_is_never_passed_on_is_a_fault_with_its_line() {
        assert_eq!(
            faults("pass_headers = [\"authorization\"]"),
            ["line 3: `providers.claude.pass_headers`: `authorization` is never passed on"]
        );
        assert_eq!(
            faults("pass_headers = [\"x-tok*\"]"),
            [
                "line 3: `providers.claude.pass_headers`: `x-tok*` covers `x-tokfence-capability`, which is never \
              passed on"
            ]
        );
    }

    #[test]
    fn prices_that_are_not_there_are_a_fault() {
        assert_eq!(
            faults("prices = \"antropic\""),
            ["line 3: `providers.claude.prices`: there are no prices of `antropic`"]
        );
    }
}
