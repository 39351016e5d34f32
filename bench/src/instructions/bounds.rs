//! What was accepted: a file of ratios to the floor, and how a new count stands to it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::count::{Counted, typical};

/// Runs differ by a hundredth, and a change that costs less than this is not worth a failure.
const MARGIN: f64 = 0.05;
/// The floor moves with the compiler and the profile; further than this and the ratio is one to something else.
const FLOOR_MARGIN: f64 = 0.10;

const HEADER: &str = "\
# What the gateway may cost: instructions of the threads that serve requests, as a ratio to the bare proxy of the same run.
# Everything is on: a capability with a scope, three budgets, limits on rates, the scan, the metrics. `floor` is what the
# bare proxy took then; it tells whether both are built as they were. Both are release builds.
# Written by `bench instructions --bless`, read by `bench instructions --check` (docs/performance.md).
";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    json_request: Bound,
    sse_event: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    ratio: f64,
    /// Whole instructions.
    floor: f64,
}

/// How a count stands to what was accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) is_accepted: bool,
    pub(super) lines: Vec<String>,
}

impl Bounds {
    /// What was counted just now.
    pub(super) fn of(floor: &Counted, gateway: &Counted) -> Self {
        Self {
            json_request: Bound::of(typical(&floor.request).serving, typical(&gateway.request).serving),
            sse_event: Bound::of(typical(&floor.event).serving, typical(&gateway.event).serving),
        }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("unreadable bounds in {}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("cannot write the bounds")?;
        std::fs::write(path, format!("{HEADER}\n{text}"))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Holds what is counted `now` against these.
    pub(super) fn judge(&self, now: &Self) -> Verdict {
        let figures = [
            ("a JSON request", self.json_request, now.json_request),
            ("an event of a stream", self.sse_event, now.sse_event),
        ];
        let judged = figures.map(|(what, accepted, now)| accepted.judge(what, now));
        let is_accepted = judged.iter().all(|(is_accepted, _)| *is_accepted);
        Verdict { is_accepted, lines: judged.into_iter().flat_map(|(_, lines)| lines).collect() }
    }
}

impl Bound {
    /// Three places: more would differ from run to run.
    fn of(floor: f64, gateway: f64) -> Self {
        Self { ratio: (gateway / floor * 1e3).round() / 1e3, floor: floor.round() }
    }

    fn judge(self, what: &str, now: Self) -> (bool, Vec<String>) {
        let change = now.ratio / self.ratio - 1.0;
        let (is_accepted, advice) = if change > MARGIN {
            (false, "; find what made it dearer, or accept it with --bless and say why in the commit")
        } else if change < -MARGIN {
            (true, "; lower the bound with --bless, so that what was won is kept")
        } else {
            (true, "")
        };
        let verdict = if is_accepted { "ok" } else { "TOO DEAR" };
        let mut lines = vec![format!(
            "{verdict}: {what} takes {:.3} × the floor, accepted {:.3} ({:+.1} %){advice}",
            now.ratio,
            self.ratio,
            change * 100.0
        )];
        let floor_change = now.floor / self.floor - 1.0;
        if floor_change.abs() > FLOOR_MARGIN {
            lines.push(format!(
                "note: for {what} the floor itself takes {:.0} instructions and took {:.0}: another compiler or profile",
                now.floor, self.floor
            ));
        }
        (is_accepted, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(json: f64, sse: f64) -> Bounds {
        let bound = |ratio| Bound { ratio, floor: 100_000.0 };
        Bounds { json_request: bound(json), sse_event: bound(sse) }
    }

    #[track_caller]
    fn check_judged(now: &Bounds, is_accepted: bool, said: &str) {
        let verdict = bounds(2.0, 3.0).judge(now);
        assert_eq!(verdict.is_accepted, is_accepted, "{verdict:?}");
        assert!(verdict.lines.join("\n").contains(said), "{verdict:?}");
    }

    #[test]
    fn what_is_dearer_than_the_margin_is_refused() {
        check_judged(
            &bounds(2.11, 3.0),
            false,
            "TOO DEAR: a JSON request takes 2.110 × the floor, accepted 2.000 (+5.5 %)",
        );
        check_judged(&bounds(2.0, 3.2), false, "TOO DEAR: an event of a stream");
        check_judged(&bounds(2.09, 3.1), true, "ok: a JSON request");
    }

    #[test]
    fn what_is_cheaper_than_the_margin_asks_for_a_lower_bound() {
        check_judged(&bounds(1.5, 3.0), true, "lower the bound");
        assert!(!bounds(2.0, 3.0).judge(&bounds(1.95, 2.9)).lines.join("").contains("bless"));
    }

    #[test]
    fn a_floor_that_moved_is_told() {
        let mut now = bounds(2.0, 3.0);
        now.sse_event.floor = 120_000.0;
        check_judged(&now, true, "took 100000: another compiler or profile");
    }

    #[test]
    fn bounds_read_back_as_they_were_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = bounds(2.123, 3.0);
        written.write(file.path()).unwrap();
        assert_eq!(Bounds::read(file.path()).unwrap(), written);
    }
}
