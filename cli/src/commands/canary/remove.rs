//! `canary remove`: nobody looks for it any more, and what was planted of it is taken out.

use std::path::Path;

use policy::{Canary, CanaryKind};
use serde_json::{Value, json};
use storage::{Plant, Store};
use vault::EntryKind;

use super::{file, find};
use crate::app::{App, now_us};
use crate::failure::Failure;
use crate::format::plain;
use crate::unlock;

/// What became of one file.
struct Undone {
    path: String,
    status: &'static str,
    reason: Option<String>,
}

pub(super) fn remove(app: &App, name: &str) -> Result<(), Failure> {
    let mut store = app.store()?;
    let known = find(&store, name)?;
    let canary = &known.canary;
    if canary.kind == CanaryKind::Vault {
        // Before anything else: a vault that stays locked leaves everything as it is.
        match unlock::open(app)?.remove(canary.name.as_str(), EntryKind::Canary) {
            Err(vault::Error::NoSuchEntry { .. }) => app.output.note("the vault did not hold it any more"),
            removed => removed?,
        }
    }
    let files: Vec<Undone> =
        known.plants.iter().map(|plant| take_out(&mut store, canary, plant)).collect::<Result<_, _>>()?;
    store.remove_canary(canary.id, now_us())?;
    app.tell_daemon()?;
    let document = json!({
        "name": canary.name.as_str(),
        "status": "removed",
        "files": files.iter().map(Undone::document).collect::<Vec<_>>(),
    });
    app.output.done(&document, || format!("removed `{}`{}", canary.name, list(&files)));
    for left in files.iter().filter(|file| file.status == "left") {
        let reason = left.reason.as_deref().unwrap_or_default();
        app.output.warn(&format!("{} may still hold it: {reason}", plain(&left.path)));
    }
    Ok(())
}

/// Takes lines out of their file. What cannot be taken out is told, and stops nothing.
fn take_out(store: &mut Store, canary: &Canary, plant: &Plant) -> Result<Undone, Failure> {
    let path = Path::new(&plant.path);
    let (status, reason) = match file::take_out(path, &plant.lines, plant.manner) {
        Ok(true) => ("undone", None),
        Ok(false) if !file::may_hold(path, canary.marks()) => ("gone", None),
        Ok(false) => ("left", Some("its lines were changed".to_owned())),
        Err(failure) => ("left", Some(failure.message)),
    };
    if status != "left" {
        store.forget_plant(plant.id, now_us())?;
    }
    Ok(Undone { path: plant.path.clone(), status, reason })
}

fn list(files: &[Undone]) -> String {
    let undone = files.iter().filter(|file| file.status == "undone");
    let paths: Vec<String> = undone.map(|file| plain(&file.path)).collect();
    if paths.is_empty() { String::new() } else { format!(", also from {}", paths.join(", ")) }
}

impl Undone {
    fn document(&self) -> Value {
        json!({ "path": self.path, "status": self.status, "reason": self.reason })
    }
}
