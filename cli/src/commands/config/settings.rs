//! The settings in force, each with its key in the file and where its value is from.

use std::path::Path;
use std::time::Duration;

use gateway::catalogue::Provider;
use gateway::config::{Config, OutboundUrl, Reserve, UnknownModel, WatchScope};
use policy::{ProviderId, Signal};
use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item};

use crate::commands::provider::{each_once, upstream};

/// One value that is in force.
#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    /// As it is written in the file, dotted.
    pub(super) key: String,
    pub(super) value: Value,
    is_in_file: bool,
}

impl Setting {
    pub(super) fn source(&self) -> &'static str {
        if self.is_in_file { "file" } else { "default" }
    }

    pub(super) fn document(&self) -> Value {
        json!({ "key": self.key, "value": self.value, "source": self.source() })
    }
}

/// Every setting, in the order of the example file. Of the providers only those that the file speaks of.
pub(super) fn settings(config: &Config, document: &DocumentMut) -> Vec<Setting> {
    let mut all: Vec<Setting> = general(config)
        .into_iter()
        .map(|(section, key, value)| Setting {
            key: format!("{section}.{key}"),
            value,
            is_in_file: document.get(section).and_then(|section| section.get(key)).is_some(),
        })
        .collect();
    let listen = config.metrics.listen.map_or_else(String::new, |address| address.to_string());
    let is_in_file = config.metrics.is_set;
    all.push(Setting { key: "metrics.listen".to_owned(), value: json!(listen), is_in_file });
    let is_in_file = document.get("metrics").and_then(|section| section.get("dashboard")).is_some();
    let shown = json!(config.metrics.dashboard);
    all.push(Setting { key: "metrics.dashboard".to_owned(), value: shown, is_in_file });
    all.extend(of_risk(config, document));
    all.extend(of_watch(config, document));
    for provider in each_once(config) {
        let names = std::iter::once(&provider.id).chain(&provider.aliases);
        let tables = names.filter_map(|name| document.get("providers")?.get(name.as_str()));
        let tables: Vec<&Item> = tables.collect();
        if !tables.is_empty() {
            all.extend(of_provider(&provider).into_iter().map(|(key, value)| Setting {
                key: format!("providers.{}.{key}", provider.id),
                value,
                is_in_file: tables.iter().any(|table| table.get(key).is_some()),
            }));
        }
    }
    all
}

fn general(config: &Config) -> [(&'static str, &'static str, Value); 30] {
    let Config { daemon, security, limits, logging, budget, notifications, .. } = config;
    let timezone = budget.timezone.iana_name().unwrap_or("UTC");
    [
        ("daemon", "host", json!(daemon.listen.ip().to_string())),
        ("daemon", "allow_remote", json!(!daemon.listen.ip().is_loopback())),
        ("daemon", "port", json!(daemon.listen.port())),
        ("daemon", "socket_path", path(&daemon.socket_path)),
        ("daemon", "allowed_hosts", json!(daemon.allowed_hosts)),
        ("daemon", "allowed_origins", json!(daemon.allowed_origins)),
        ("daemon", "shutdown_grace", time(daemon.shutdown_grace)),
        ("daemon", "upgrade_grace", time(daemon.upgrade_grace)),
        ("daemon", "threads", json!(daemon.threads)),
        ("security", "require_capability", json!(security.require_capability)),
        ("security", "scan_responses", json!(security.scan_responses.as_str())),
        ("security", "scan_requests", json!(security.scan_requests.as_str())),
        ("limits", "request_body", size(limits.request_body_bytes)),
        ("limits", "header", size(limits.header_bytes as u64)),
        ("limits", "connections", json!(limits.connections)),
        ("limits", "connections_per_peer", json!(limits.connections_per_peer)),
        ("limits", "memory", size(limits.memory_bytes)),
        ("limits", "head_timeout", time(limits.head_timeout)),
        ("limits", "body_timeout", time(limits.body_timeout)),
        ("limits", "stall_timeout", time(limits.stall_timeout)),
        ("logging", "db_path", path(&logging.db_path)),
        ("logging", "retention_days", json!(logging.retention_days.unwrap_or(0))),
        ("budget", "timezone", json!(timezone)),
        ("budget", "reserve", json!(reserve(budget.reserve))),
        ("budget", "slice_tokens", json!(budget.slice_tokens)),
        ("budget", "unknown_model", json!(unknown_model(budget.unknown_model))),
        ("notifications", "budget_warning_percent", json!(notifications.budget_warning_percent)),
        ("notifications", "command", json!(notifications.command)),
        // All but its origin may be a credential.
        ("notifications", "webhook", json!(shown_url(notifications.webhook.as_ref()))),
        ("notifications", "desktop", json!(notifications.desktop)),
    ]
}

/// What is done about each signal of risk.
fn of_risk(config: &Config, document: &DocumentMut) -> Vec<Setting> {
    let table = document.get("risk");
    let is_in_file = |table: Option<&Item>, key: &str| table.and_then(|table| table.get(key)).is_some();
    let signals = table.and_then(|table| table.get("signals"));
    let initial = Setting {
        key: "risk.initial_state".to_owned(),
        value: json!(config.risk.initial_state.as_str()),
        is_in_file: is_in_file(table, "initial_state"),
    };
    let signals = Signal::ALL.into_iter().map(|signal| Setting {
        key: format!("risk.signals.{signal}"),
        value: json!(config.risk.signals.action(signal).as_str()),
        is_in_file: is_in_file(signals, signal.as_str()),
    });
    std::iter::once(initial).chain(signals).collect()
}

/// How accounts are looked at, and which part of each is ours where the file says so.
fn of_watch(config: &Config, document: &DocumentMut) -> Vec<Setting> {
    let watch = &config.watch;
    let general = [
        ("enabled", json!(watch.enabled)),
        ("interval", time(watch.interval)),
        ("period", time(watch.period)),
        ("idle_window", time(watch.idle_window)),
        ("threshold_usd", json!(watch.threshold_usd.to_string())),
        ("threshold_tokens", json!(watch.threshold_tokens)),
        ("threshold_requests", json!(watch.threshold_requests)),
        ("auto_revoke", json!(watch.auto_revoke)),
    ];
    let general = general.map(|(key, value)| Setting {
        key: format!("watch.{key}"),
        value,
        is_in_file: document.get("watch").and_then(|table| table.get(key)).is_some(),
    });
    let mut scopes: Vec<_> = watch.scopes.iter().collect();
    scopes.sort_by_key(|(provider, _)| provider.as_str());
    let of_scope = |(provider, scope): (&ProviderId, &WatchScope)| {
        let table = document.get("watch").and_then(|table| table.get(provider.as_str()));
        let models: Vec<&str> = scope.models.iter().map(policy::ModelGlob::as_str).collect();
        let lists = [
            ("api_key_ids", json!(scope.api_key_ids)),
            ("project_ids", json!(scope.project_ids)),
            ("models", json!(models)),
            // It may hold a credential, as the webhook's may.
            ("usage_endpoint", json!(shown_url(scope.usage_endpoint.as_ref()))),
        ];
        lists.map(|(key, value)| Setting {
            key: format!("watch.{provider}.{key}"),
            value,
            is_in_file: table.is_some_and(|table| table.get(key).is_some()),
        })
    };
    general.into_iter().chain(scopes.into_iter().flat_map(of_scope)).collect()
}

fn of_provider(provider: &Provider) -> [(&'static str, Value); 11] {
    // The value of a header may be a credential; its name says enough.
    let headers: serde_json::Map<String, Value> =
        provider.extra_headers.iter().map(|(name, _)| (name.to_string(), json!("(hidden)"))).collect();
    [
        ("upstream", json!(upstream(provider))),
        ("wire", json!(provider.wire.as_str())),
        ("auth", json!(provider.auth.as_str())),
        ("local", json!(provider.is_local)),
        ("pass_headers", provider.further_headers.iter().map(ToString::to_string).collect()),
        ("extra_headers", Value::Object(headers)),
        ("prices", json!(provider.prices)),
        ("connect_timeout", time(provider.timeouts.connect)),
        ("first_byte_timeout", time(provider.timeouts.first_byte)),
        ("idle_timeout", time(provider.timeouts.idle)),
        ("ca_file", provider.ca_file.as_deref().map_or(json!(""), path)),
    ]
}

fn shown_url(url: Option<&OutboundUrl>) -> String {
    url.map_or_else(String::new, ToString::to_string)
}

fn reserve(reserve: Reserve) -> &'static str {
    match reserve {
        Reserve::Rolling => "rolling",
        Reserve::Strict => "strict",
    }
}

fn unknown_model(choice: UnknownModel) -> &'static str {
    match choice {
        UnknownModel::Deny => "deny",
        UnknownModel::ChargeMax => "charge_max",
        UnknownModel::Allow => "allow",
    }
}

fn path(path: &Path) -> Value {
    json!(path.display().to_string())
}

/// A time as it is written in the file, in the largest unit that needs no fraction.
fn time(span: Duration) -> Value {
    let millis = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ms"));
    json!(format!("{}{name}", millis / unit))
}

/// A size as it is written in the file, in the largest unit that needs no fraction.
fn size(bytes: u64) -> Value {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "B"));
    json!(format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../conf/config.example.toml");

    fn of(text: &str) -> Vec<Setting> {
        let config = Config::parse(text, Path::new("/nowhere/.tokfence")).unwrap();
        settings(&config, &text.parse().unwrap())
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        let example = of(EXAMPLE);
        let defaults = of("[watch.openai]\n[providers.openai]\n");
        assert_eq!(example.len(), defaults.len());
        for (stated, default) in example.iter().zip(&defaults) {
            assert_eq!((&stated.key, &stated.value), (&default.key, &default.value));
            assert_eq!((stated.source(), default.source()), ("file", "default"), "{}", stated.key);
        }
    }

    #[test]
    fn a_key_with_a_slip_is_a_fault_with_its_line() {
        let faults = Config::parse(&EXAMPLE.replace("\nport", "\nprot"), Path::new("/x")).unwrap_err();
        assert_eq!((faults.len(), faults[0].key.as_str()), (1, "daemon.prot"));
        assert!(faults[0].line > 1);
    }

    #[test]
    fn the_source_is_told_key_by_key() {
        let text = "[daemon]\nport = 9000\n[providers.gemini]\nextra_headers = { x-team = \"secret\" }\n";
        let in_file: Vec<Setting> = of(text).into_iter().filter(|setting| setting.is_in_file).collect();
        let shown: Vec<_> =
            in_file.iter().map(|setting| (setting.key.as_str(), setting.value.to_string())).collect();
        let headers = "{\"x-team\":\"(hidden)\"}".to_owned();
        assert_eq!(shown, [("daemon.port", "9000".to_owned()), ("providers.google.extra_headers", headers)]);
    }

    #[test]
    fn times_and_sizes_are_written_as_in_the_file() {
        let times = [0, 250, 1_500, 90_000, 600_000, 86_400_000].map(|ms| time(Duration::from_millis(ms)));
        assert_eq!(times, ["0ms", "250ms", "1500ms", "90s", "10m", "1d"]);
        assert_eq!([1, 1024, 1 << 25, 3 << 30].map(size), ["1 B", "1 KiB", "32 MiB", "3 GiB"]);
    }
}
