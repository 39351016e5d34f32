//! The report as tables, for a terminal and for a page of documentation.

use super::{Column, DECIDED, Metric, Run, Samples, Section};
use crate::subject::Name;

/// Text cells; the first row is the header.
struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

pub(crate) fn human(run: &Run, samples: &Samples) -> String {
    let mut text = format!("{}\n", run.summary());
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
    let mut text = format!("{}\n", run.summary());
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
        Table { title: run.title(section), rows }
    });
    sections.chain(decided(samples)).collect()
}

/// What the gateway's decisions cost, against the gateway that only logs; none where that was not measured.
fn decided(samples: &Samples) -> Option<Table> {
    let mut rows = vec![["", "rate", "p50 µs", "p99 µs", "CPU µs/request", "CPU"].map(String::from).to_vec()];
    for (section, text, p50, p99) in DECIDED {
        for name in samples.names(section).into_iter().filter(|name| *name > Name::LogOnly) {
            let added = |metric| {
                samples.added(section, name, Name::LogOnly, metric).map(|added| format!("{added:+.1}"))
            };
            let ratio = |metric| {
                samples.ratio(section, name, Name::LogOnly, metric).map(|ratio| format!("{ratio:.2}×"))
            };
            // The rate of the other loads is given, and says nothing of who answers it.
            let is_closed_loop = matches!(section, Section::Json | Section::Sse);
            let rate = ratio(Metric::RequestsPerS).filter(|_| is_closed_loop);
            let cpu = Metric::CpuUsPerRequest;
            let cells = [rate, added(p50), added(p99), added(cpu), ratio(cpu)];
            let cells = cells.map(|cell| cell.unwrap_or_else(|| "–".into()));
            rows.push(std::iter::once(format!("{text}: {}", name.text())).chain(cells).collect());
        }
    }
    let title =
        "decisions: what they cost against `log only`, median of the difference or ratio of each round";
    (rows.len() > 1).then(|| Table { title: title.into(), rows })
}

fn header(section: Section) -> Vec<String> {
    let names = section.columns().iter().map(|column| match column {
        Column::Value(_, name) | Column::Added(_, name) => (*name).to_owned(),
    });
    std::iter::once(String::new()).chain(names).collect()
}

fn row(samples: &Samples, section: Section, name: Name) -> Vec<String> {
    let cells = section.columns().iter().map(|column| {
        let text = match *column {
            Column::Value(metric, _) => {
                let ratio = samples.ratio(section, name, Name::Floor, metric);
                samples.median(section, name, metric).map(|value| with_ratio(name, value, ratio))
            }
            Column::Added(_, _) if name == Name::Direct => None,
            Column::Added(metric, _) => {
                samples.added(section, name, Name::Direct, metric).map(|added| format!("{added:+.0}"))
            }
        };
        text.unwrap_or_else(|| "–".into())
    });
    std::iter::once(name.text().to_owned()).chain(cells).collect()
}

/// The floor is what ratios are to, so it shows none.
fn with_ratio(name: Name, value: f64, ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) if name != Name::Floor => format!("{} ({ratio:.2}×)", number(value)),
        _ => number(value),
    }
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
        assert!(text.contains("|---|---:|---:|---:|---:|---:|\n"), "{text}");
        assert!(text.contains("| direct | 150 (0.50×) | – | – | – | – |"), "{text}");
        assert!(text.contains("| floor | 300 | +150 | – | – | 30.0 |"), "{text}");
    }

    #[test]
    fn what_decisions_cost_is_told_where_it_was_measured() {
        let mut samples = samples();
        let tells = |samples: &Samples| human(&run(), samples).contains("decisions:");
        assert!(!tells(&samples));
        for (name, us) in [(Name::LogOnly, 50.0), (Name::Control, 60.0)] {
            samples.push(Section::JsonRate, name, Metric::CpuUsPerRequest, Some(us));
        }
        assert!(tells(&samples));
        let text = markdown(&run(), &samples);
        assert!(text.contains("| json, open loop: control | – | – | – | +10.0 | 1.20× |"), "{text}");
        assert!(!text.contains("loop: log only"), "{text}");
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
