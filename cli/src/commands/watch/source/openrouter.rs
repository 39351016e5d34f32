//! OpenRouter: what was ever spent, with the key of the vault (`GET /v1/key`) and, where there is a management key, in the
//! whole account (`GET /v1/credits`). Its credits are dollars. Fields as in its reference, read in November 2026.

use policy::TimestampUs;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Counter, Told};
use crate::commands::watch::pages::{Client, Fault, Query, amount};

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Key {
    usage: Box<RawValue>,
}

#[derive(Deserialize)]
struct Credits {
    total_usage: Box<RawValue>,
}

/// A client with a key, and since when the vault holds that key.
pub(in crate::commands::watch) type Keyed<'a> = (Client<'a>, TimestampUs);

/// Asks with the keys that there are.
pub(in crate::commands::watch) fn ask(
    own: Option<Keyed<'_>>,
    management: Option<Keyed<'_>>,
    base_path: &str,
) -> Told {
    let mut told = Told::default();
    if let Some((client, since)) = own {
        let answer = client.ask::<Answer<Key>>(&format!("{base_path}/v1/key"), &Query::default());
        let counter = answer.and_then(|answer| counter("key", since, &answer.data.usage));
        let counter = told.take("key", counter);
        told.counters.extend(counter);
    }
    if let Some((client, since)) = management {
        let answer = client.ask::<Answer<Credits>>(&format!("{base_path}/v1/credits"), &Query::default());
        let counter = answer.and_then(|answer| counter("credits", since, &answer.data.total_usage));
        let counter = told.take("credits", counter);
        told.counters.extend(counter);
    }
    told
}

fn counter(name: &'static str, since: TimestampUs, total: &RawValue) -> Result<Counter, Fault> {
    Ok(Counter { name, since, total: amount(total, 0)? })
}
