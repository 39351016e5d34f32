//! The report as one JSON document, with every round, for whoever wants to compare runs.

use serde_json::{Map, Value, json};

use super::targets::targets;
use super::{Run, Samples, Section};
use crate::subject::Name;

pub(crate) fn document(run: &Run, samples: &Samples) -> Value {
    let mut sections = Map::new();
    for section in Section::ALL {
        let mut subjects = Map::new();
        for name in samples.names(section) {
            let mut found = subject(samples, section, name);
            let curve = samples.curve_us(section, name);
            if !curve.is_empty() {
                found.insert("latency_curve_us".into(), json!(curve));
            }
            subjects.insert(key(name), found.into());
        }
        if !subjects.is_empty() {
            sections.insert(key(section), subjects.into());
        }
    }
    json!({ "run": run, "sections": sections, "targets": targets(samples) })
}

fn subject(samples: &Samples, section: Section, name: Name) -> Map<String, Value> {
    let metrics = samples.metrics(section, name).map(|metric| {
        let numbers = json!({
            "median": samples.median(section, name, metric),
            "ratio_to_floor": samples.ratio(section, name, Name::Floor, metric),
            "ratio_to_nginx": samples.ratio(section, name, Name::Nginx, metric),
            "added_to_direct": samples.added(section, name, Name::Direct, metric),
            "added_to_floor": samples.added(section, name, Name::Floor, metric),
            "added_to_nginx": samples.added(section, name, Name::Nginx, metric),
            "rounds": samples.rounds(section, name, metric),
        });
        (key(metric), numbers)
    });
    metrics.collect()
}

/// The name of a field that is made from an enum's variant.
fn key(variant: impl serde::Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run, samples};
    use super::*;

    #[test]
    fn the_document_has_medians_ratios_and_rounds() {
        let document = document(&run(), &samples());
        let at = |path: &str| document.pointer(path).cloned();
        assert_eq!(at("/run/threads"), Some(json!(1)));
        assert_eq!(at("/sections/json_rate/floor/latency_p50_us/rounds"), Some(json!([200.0, 400.0])));
        assert_eq!(at("/sections/json_rate/direct/latency_p50_us/ratio_to_floor"), Some(json!(0.5)));
        assert_eq!(at("/sections/sse"), None);
    }
}
