//! `[watch]`: how `tokfence watch` looks at accounts, and whether the daemon lets it. `[watch.NAME]`: which part of a
//! provider's account is ours.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use policy::{ModelGlob, NanoUsd, ProviderId};

use super::notifications::OutboundUrl;
use super::reader::{Reader, Section, boolean, duration, integer, text, texts};

/// `[watch]`
#[derive(Clone, Debug)]
pub struct Watch {
    /// Whether the daemon looks at accounts by itself.
    pub enabled: bool,
    /// How long it waits between two looks.
    pub interval: Duration,
    /// How far back is compared.
    pub period: Duration,
    /// Use is found that has nothing in the log for so long before and after it.
    pub idle_window: Duration,
    /// So much more money than in the log is no finding.
    pub threshold_usd: NanoUsd,
    /// So many more tokens.
    pub threshold_tokens: u64,
    /// So many more requests.
    pub threshold_requests: u64,
    /// Whether a provider is revoked when something new is found.
    pub auto_revoke: bool,
    /// Which part of an account is ours, by provider.
    pub scopes: HashMap<ProviderId, WatchScope>,
}

/// `[watch.NAME]`. Where both lists of ids are empty, the whole account is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    /// Keys whose use is compared, by the ids that the provider has for them. They are no secrets.
    pub api_key_ids: Vec<String>,
    /// Projects, or workspaces, whose use is compared.
    pub project_ids: Vec<String>,
    /// Models that may be reported though nobody asked for them under that name.
    pub models: Vec<ModelGlob>,
    /// Where the provider's use is told, instead of at the provider.
    pub usage_endpoint: Option<OutboundUrl>,
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Watch {
    /// How far back may be compared.
    pub const PERIODS: RangeInclusive<Duration> = HOUR..=Duration::from_secs(31 * 24 * 60 * 60);
    /// How long may be waited between two looks.
    pub const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(10)..=WEEK;
    /// How wide the time around idle use may be.
    pub const IDLE_WINDOWS: RangeInclusive<Duration> = Duration::from_secs(60)..=WEEK;
}

const ID_BYTES_MAX: usize = 200;

pub(super) fn read(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Watch {
    let mut section = reader.section(root, "watch");
    let within = |spans: RangeInclusive<Duration>| {
        move |value: &toml_edit::Value| {
            let span = duration(value)?;
            let fault = || format!("must be from {}s to {}s", spans.start().as_secs(), spans.end().as_secs());
            if spans.contains(&span) { Ok(span) } else { Err(fault()) }
        }
    };
    let amount =
        |value: &toml_edit::Value| text(value)?.parse::<NanoUsd>().map_err(|error| error.to_string());
    let count = |value: &toml_edit::Value| integer(value, 0, i64::MAX).map(i64::unsigned_abs);
    let dollar = NanoUsd::from_nanos(1_000_000_000);
    let watch = Watch {
        enabled: reader.value(&mut section, "enabled", boolean).unwrap_or(false),
        interval: reader
            .value(&mut section, "interval", within(Watch::INTERVALS))
            .unwrap_or(Duration::from_secs(15 * 60)),
        period: reader.value(&mut section, "period", within(Watch::PERIODS)).unwrap_or(24 * HOUR),
        idle_window: reader
            .value(&mut section, "idle_window", within(Watch::IDLE_WINDOWS))
            .unwrap_or(Duration::from_secs(30 * 60)),
        threshold_usd: reader.value(&mut section, "threshold_usd", amount).unwrap_or(dollar),
        threshold_tokens: reader.value(&mut section, "threshold_tokens", count).unwrap_or(1_000),
        threshold_requests: reader.value(&mut section, "threshold_requests", count).unwrap_or(1),
        auto_revoke: reader.value(&mut section, "auto_revoke", boolean).unwrap_or(false),
        scopes: HashMap::new(),
    };
    let scopes = read_scopes(reader, &mut section);
    reader.finish(section);
    Watch { scopes, ..watch }
}

/// Every key that is left is the name of a provider.
fn read_scopes(reader: &mut Reader<'_>, section: &mut Section<'_>) -> HashMap<ProviderId, WatchScope> {
    let mut scopes = HashMap::new();
    for name in section.untaken() {
        let Ok(id) = name.parse::<ProviderId>() else { continue };
        let mut table = reader.section(section, name);
        let ids = |value: &toml_edit::Value| {
            let ids = texts(value)?;
            let is_id = |id: &String| {
                (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
            };
            if ids.iter().all(is_id) { Ok(ids) } else { Err("must be a list of ids".to_owned()) }
        };
        let globs = |value: &toml_edit::Value| {
            let globs = texts(value)?.into_iter().map(|glob| glob.parse::<ModelGlob>());
            globs.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        };
        let scope = WatchScope {
            api_key_ids: reader.value(&mut table, "api_key_ids", ids).unwrap_or_default(),
            project_ids: reader.value(&mut table, "project_ids", ids).unwrap_or_default(),
            models: reader.value(&mut table, "models", globs).unwrap_or_default(),
            usage_endpoint: reader.value(&mut table, "usage_endpoint", OutboundUrl::read).flatten(),
        };
        reader.finish(table);
        scopes.insert(id, scope);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::config::Config;

    #[test]
    fn a_scope_is_read_for_each_provider() {
        let text = "[watch.openai]\napi_key_ids = [\"key_1\"]\nmodels = [\"gpt-4-*\"]\n";
        let config = Config::parse(text, Path::new("/nowhere")).unwrap();
        let scope = &config.watch.scopes[&"openai".parse().unwrap()];
        assert_eq!(
            (scope.api_key_ids.as_slice(), scope.project_ids.len()),
            (["key_1".to_owned()].as_slice(), 0)
        );
        assert!(scope.models[0].matches("gpt-4-turbo"));
        assert!(Config::parse("", Path::new("/nowhere")).unwrap().watch.scopes.is_empty());
    }

    #[test]
    fn nobody_looks_by_himself_unless_that_is_asked_for() {
        let watch = |text: &str| Config::parse(text, Path::new("/nowhere")).unwrap().watch;
        let default = watch("[watch.openai]\n");
        assert!(!default.enabled && !default.auto_revoke);
        assert_eq!(default.interval, Duration::from_secs(900));
        let set = watch(
            "[watch]\nenabled = true\ninterval = \"1h\"\nthreshold_usd = \"2.50\"\n\
             [watch.mine]\nusage_endpoint = \"https://usage.example.com/x\"\n",
        );
        assert!(set.enabled && set.scopes.len() == 1);
        assert_eq!(
            (set.interval, set.threshold_usd.to_string().as_str()),
            (Duration::from_secs(3600), "2.500000")
        );
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        for text in [
            "[watch]\ninterval = \"1s\"\n",
            "[watch]\nperiod = \"1m\"\n",
            "[watch]\nidle_window = \"1s\"\n",
            "[watch]\nthreshold_usd = 1.0\n",
            "[watch]\nthreshold_tokens = -1\n",
            "[watch]\nauto-revoke = true\n",
            "[watch.openai]\napi_keys = [\"key_1\"]\n",
            "[watch.openai]\napi_key_ids = [\"\"]\n",
            "[watch.openai]\napi_key_ids = [\"a b\"]\n",
            "[watch.openai]\nmodels = \"gpt-4o\"\n",
            "[watch.openai]\nusage_endpoint = \"http://usage.example.com/x\"\n",
            "[watch.OpenAI]\nmodels = []\n",
        ] {
            assert!(Config::parse(text, Path::new("/nowhere")).is_err(), "{text}");
        }
    }
}
