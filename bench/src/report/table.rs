//! The report as tables, for a terminal and for a page of documentation.

use super::{Column, Run, Samples, Section};
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
    measured
        .map(|section| {
            let mut rows = vec![header(section)];
            rows.extend(samples.names(section).into_iter().map(|name| row(samples, section, name)));
            Table { title: run.title(section), rows }
        })
        .collect()
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
                let ratio = samples.ratio_to_floor(section, name, metric);
                samples.median(section, name, metric).map(|value| with_ratio(name, value, ratio))
            }
            Column::Added(_, _) if name == Name::Direct => None,
            Column::Added(metric, _) => {
                samples.added(section, name, metric).map(|added| format!("{added:+.0}"))
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
