//! The report as tables, for a terminal and for a page of documentation.

use super::features::features;
use super::section::Column;
use super::targets::{Bound, Target, targets};
use super::{Metric, Run, Samples, Section};
use crate::subject::Name;

/// Text cells; the first row is the header.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) rows: Vec<Vec<String>>,
}

pub(crate) fn human(run: &Run, samples: &Samples) -> String {
    let mut text = format!("{}\n", run.summary(samples.has(Name::Nginx)));
    for table in tables(run, samples) {
        let widths = widths(&table.rows);
        text += &format!("\n{}\n", table.title);
        for row in &table.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
            text += &format!("  {}\n", cells.join("   ").trim_end());
        }
    }
    text
}

pub(crate) fn markdown(run: &Run, samples: &Samples) -> String {
    let mut text = format!("{}\n", run.summary(samples.has(Name::Nginx)));
    for table in tables(run, samples) {
        text += &format!("\n**{}**\n\n", table.title);
        for (at, row) in table.rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if at == 0 {
                text += &format!("|---|{}\n", "---:|".repeat(row.len() - 1));
            }
        }
    }
    text
}

fn tables(run: &Run, samples: &Samples) -> Vec<Table> {
    let measured = Section::ALL.into_iter().filter(|section| !samples.names(*section).is_empty());
    let sections = measured.map(|section| {
        let mut rows = vec![header(section)];
        rows.extend(samples.names(section).into_iter().map(|name| row(samples, section, name)));
        Table { title: section.title(run), rows }
    });
    sections.chain(features(samples)).chain(verdicts(samples)).collect()
}

/// The targets and whether they were met; none without the gateway that they are about.
fn verdicts(samples: &Samples) -> Option<Table> {
    let mut rows = vec![["", "target", "measured", ""].map(String::from).to_vec()];
    for Target { text, bound, measured, is_met, unit } in targets(samples) {
        let bound = match bound {
            Bound::Most(most) => format!("≤ {most}{unit}"),
            Bound::Least(least) => format!("≥ {least}{unit}"),
            Bound::Exactly(wanted) => format!("{wanted}{unit}"),
        };
        let measured = match measured {
            None => "–".into(),
            Some(value) if unit.is_empty() => format!("{value:.3}"),
            Some(value) => format!("{}{unit}", number(value)),
        };
        let verdict = match is_met {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "missed",
        };
        rows.push(vec![text.into(), bound, measured, verdict.into()]);
    }
    samples.has(Name::Everything).then(|| Table { title: "targets, with everything on".into(), rows })
}

fn header(section: Section) -> Vec<String> {
    let titles = section.columns().iter().map(|column| column.title().to_owned());
    std::iter::once(String::new()).chain(titles).collect()
}

fn row(samples: &Samples, section: Section, name: Name) -> Vec<String> {
    let cells = section.columns().iter().map(|column| {
        let text = match *column {
            Column::Value(metric, _) => {
                let ratios = ratios(samples, section, name, metric);
                samples.median(section, name, metric).map(|value| number(value) + &ratios)
            }
            Column::Plain(metric, _) => samples.median(section, name, metric).map(plain),
            // What stands before the base of a difference is no more than it.
            Column::Added(_, base, _) if name <= base => None,
            Column::Added(metric, base, _) => {
                samples.added(section, name, base, metric).map(|added| format!("{added:+.0}"))
            }
        };
        text.unwrap_or_else(|| "–".into())
    });
    std::iter::once(name.text().to_owned()).chain(cells).collect()
}

/// The ratio to the floor and, where nginx was measured, the one to nginx; neither has one to itself.
fn ratios(samples: &Samples, section: Section, name: Name, metric: Metric) -> String {
    let to = |base: Name| match samples.ratio(section, name, base, metric) {
        Some(ratio) if name != base => format!("{ratio:.2}×"),
        _ => "–".into(),
    };
    match (to(Name::Floor), to(Name::Nginx)) {
        (floor, nginx) if floor == "–" && nginx == "–" => String::new(),
        (floor, nginx) if samples.has(Name::Nginx) => format!(" ({floor} / {nginx})"),
        (floor, _) => format!(" ({floor})"),
    }
}

/// A number that is near a whole one, and whose distance from it matters.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.4}") }
}

/// About three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    (0..columns).map(|at| width(at).unwrap_or(0)).collect()
}

fn pad(cell: &str, width: usize) -> String {
    format!("{cell:<width$}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run, samples};
    use super::*;

    #[test]
    fn markdown_has_a_table_for_each_measured_section() {
        let text = markdown(&run(), &samples());
        assert_eq!(text.matches("**").count(), 2);
        assert!(text.contains("|---|---:|---:|---:|---:|---:|---:|\n"), "{text}");
        assert!(text.contains("| direct | 150 (0.50×) | – | – | – | – | – |"), "{text}");
        assert!(text.contains("| floor | 300 | +150 | – | – | – | 30.0 |"), "{text}");
    }

    #[test]
    fn ratios_to_nginx_stand_beside_those_to_the_floor() {
        let mut samples = samples();
        for us in [50.0, 100.0] {
            samples.push(Section::JsonRate, Name::Nginx, Metric::LatencyP50Us, Some(us));
        }
        let text = markdown(&run(), &samples);
        assert!(text.contains("to the floor, and after the stroke to nginx, of the same round"), "{text}");
        assert!(text.contains("| floor | 300 (– / 4.00×) |"), "{text}");
        assert!(text.contains("| nginx | 75.0 (0.25× / –) |"), "{text}");
    }

    #[test]
    fn targets_are_told_when_the_gateway_was_measured() {
        let mut samples = samples();
        assert!(!human(&run(), &samples).contains("targets"));
        samples.push(Section::Memory, Name::Everything, Metric::IdleMib, Some(16.0));
        let text = markdown(&run(), &samples);
        assert!(text.contains("| resident idle | ≤ 15 MiB | 16.0 MiB | missed |"), "{text}");
        assert!(text.contains("| events per read | 1 | – | not measured |"), "{text}");
    }

    #[test]
    fn columns_of_the_terminal_table_line_up() {
        let text = human(&run(), &samples());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
        let column = |line: &str, cell: &str| line.split(cell).next().map(|before| before.chars().count());
        assert_eq!(column(lines[0], "p50"), column(lines[1], "150"));
        assert_eq!(column(lines[0], "p50"), column(lines[2], "300"));
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([1234.5, 45.67, 1.234].map(number), ["1234", "45.7", "1.23"]);
    }
}
