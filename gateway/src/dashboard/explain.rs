//! One event of risk, explained as `risk explain` does.

use storage::Store;

use crate::overview::explain::Explanation;
use crate::state::Shared;

/// The explanation of an event, if there is one of this number.
pub(super) fn explain(shared: &Shared, event: i64) -> Result<Option<Explanation>, storage::Error> {
    let store = Store::open_existing(&shared.database())?;
    let rules = shared.snapshot.load().rules.clone();
    Ok(store.risk_event(event)?.map(|event| Explanation::of(&rules, &event, shared.ledger.now())))
}
