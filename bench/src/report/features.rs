//! The price of each feature: what a gateway costs more than the one before it, which has all but that feature.

use super::table::Table;
use super::{Metric, Samples, Section};
use crate::subject::Name;

/// One row a gateway; none where fewer than two were measured, so that there is nothing to tell apart.
pub(super) fn features(samples: &Samples) -> Option<Table> {
    let sections = [(Section::Json, "json"), (Section::Sse, "sse")];
    let sections: Vec<_> =
        sections.into_iter().filter(|(section, _)| gateways(samples, *section).len() > 1).collect();
    let names = gateways(samples, sections.first()?.0);
    let mut header = vec![String::new()];
    for (_, text) in &sections {
        header.extend(
            ["CPU µs", "added µs", "CPU × floor", "p50 added µs", "rate × floor"]
                .map(|title| format!("{text}: {title}")),
        );
    }
    let mut rows = vec![header];
    for (at, name) in names.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| names.get(before)).copied();
        let cells = sections.iter().flat_map(|(section, _)| cells(samples, *section, *name, before));
        rows.push(std::iter::once(name.text().to_owned()).chain(cells).collect());
    }
    let title = "features: each row has all that the one above has and one thing more; added is the median of the \
                 difference of each round to that row";
    Some(Table { title: title.into(), rows })
}

fn gateways(samples: &Samples, section: Section) -> Vec<Name> {
    samples.names(section).into_iter().filter(|name| *name >= Name::LogOnly).collect()
}

fn cells(samples: &Samples, section: Section, name: Name, before: Option<Name>) -> [String; 5] {
    let added = |metric| {
        let added = before.and_then(|before| samples.added(section, name, before, metric));
        added.map(|added| format!("{added:+.1}"))
    };
    let to_floor =
        |metric| samples.ratio(section, name, Name::Floor, metric).map(|ratio| format!("{ratio:.2}×"));
    let cpu = Metric::CpuUsPerRequest;
    let cells = [
        samples.median(section, name, cpu).map(|us| format!("{us:.1}")),
        added(cpu),
        to_floor(cpu),
        added(Metric::LatencyP50Us),
        to_floor(Metric::RequestsPerS),
    ];
    cells.map(|cell| cell.unwrap_or_else(|| "–".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_costs_what_its_row_has_more_than_the_one_above() {
        let mut samples = Samples::default();
        let costs =
            [(Name::Floor, 40.0), (Name::LogOnly, 50.0), (Name::Capability, 54.0), (Name::Everything, 60.0)];
        for (name, us) in costs {
            samples.push(Section::Json, name, Metric::CpuUsPerRequest, Some(us));
        }
        let rows = features(&samples).expect("a table").rows;
        assert_eq!(rows[1][..4], ["vault and log only", "50.0", "–", "1.25×"]);
        assert_eq!(rows[2][..4], ["+ capability", "54.0", "+4.0", "1.35×"]);
        assert_eq!(rows[3][..4], ["everything on", "60.0", "+6.0", "1.50×"]);
    }

    #[test]
    fn one_gateway_alone_has_no_price_of_a_feature() {
        let mut samples = Samples::default();
        samples.push(Section::Json, Name::Everything, Metric::CpuUsPerRequest, Some(1.0));
        assert!(features(&samples).is_none());
    }
}
