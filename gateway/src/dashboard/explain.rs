//! One event of risk, explained as `risk explain` does.

use serde::Serialize;
use storage::Store;

use crate::overview::explain::Explanation;
use crate::state::Shared;

/// What the page shows of it.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    /// Names and what there is to say under them.
    facts: Vec<(&'static str, String)>,
    consequences: Vec<String>,
}

/// The explanation of an event, if there is one of this number.
pub(super) fn explain(shared: &Shared, event: i64) -> Result<Option<Explained>, storage::Error> {
    let store = Store::open_existing(&shared.database())?;
    let rules = shared.snapshot.load().rules.clone();
    let explained = store.risk_event(event)?.map(|event| {
        let Explanation { facts, consequences } = Explanation::of(&rules, &event, shared.ledger.now());
        Explained { facts, consequences }
    });
    Ok(explained)
}
