//! `canary list`: what is planted, for whom and where; never the values.

use gateway::overview::form::timestamp;
use policy::{DecoyShape, Holder, TimestampUs};
use serde_json::{Value, json};
use storage::CanarySummary;

use crate::app::App;
use crate::columns::{Column, Columns};
use crate::commands::agent::end_dead_runs;
use crate::failure::Failure;
use crate::format::{local_time, plain};

const COLUMNS: [Column; 7] = [
    Column::Left("canary"),
    Column::Left("kind"),
    Column::SpareLeft("looks like"),
    Column::SpareLeft("holder"),
    Column::SpareLeft("created"),
    Column::Left("last seen"),
    Column::Left("planted in"),
];

pub(super) fn list(app: &App) -> Result<(), Failure> {
    let mut store = app.store()?;
    end_dead_runs(app, &mut store);
    let (canaries, found) = (store.canaries()?, store.last_found()?);
    let seen = |known: &CanarySummary| {
        // One of the same name may have been removed before.
        let found = found.get(&format!("canary:{}", known.canary.name)).copied();
        found.filter(|at| *at >= known.created_at)
    };
    let documents = canaries.iter().map(|known| document(known, seen(known)));
    let document = json!({ "canaries": documents.collect::<Vec<_>>() });
    app.output.data(&document, || {
        let rows: Vec<Vec<String>> = canaries.iter().map(|known| cells(known, seen(known))).collect();
        Columns::table(&COLUMNS, &rows, "no canaries; make one with `tokfence canary add NAME --kind KIND`")
    });
    Ok(())
}

fn document(known: &CanarySummary, seen: Option<TimestampUs>) -> Value {
    let canary = &known.canary;
    let holder = canary.holder.as_ref();
    let capability = holder.and_then(|holder| holder.capability);
    json!({
        "name": canary.name.as_str(),
        "kind": canary.kind.as_str(),
        "like": canary.shape.map(DecoyShape::as_str),
        "value": canary.masked(),
        "agent": holder.map(|holder| holder.agent.as_str()),
        "capability": capability.as_ref().map(|id| id.as_str()),
        "created_at": timestamp(known.created_at),
        "last_seen_at": seen.map(timestamp),
        "plants": known.plants.iter().map(|plant| json!({
            "path": plant.path, "planted_at": timestamp(plant.planted_at),
        })).collect::<Vec<_>>(),
    })
}

fn cells(known: &CanarySummary, seen: Option<TimestampUs>) -> Vec<String> {
    let canary = &known.canary;
    // A path is whatever its maker called it.
    let paths = known.plants.iter().map(|plant| plain(&plant.path));
    vec![
        canary.name.to_string(),
        canary.kind.to_string(),
        canary.masked(),
        canary.holder.as_ref().map_or_else(|| "-".to_owned(), holder),
        local_time(known.created_at),
        seen.map_or_else(|| "-".to_owned(), local_time),
        paths.collect::<Vec<_>>().join(", "),
    ]
}

fn holder(holder: &Holder) -> String {
    match holder.capability {
        Some(id) => format!("{}, run {id}", holder.agent),
        None => holder.agent.to_string(),
    }
}
