//! A table of numbers, for a page of documentation and as JSON.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Row>,
}

/// What was measured of one size. `None` is what cannot be measured there.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, values: impl Into<Vec<Option<f64>>>) -> Self {
        Self { name: name.into(), values: values.into() }
    }
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("\n**{}**\n\n| | {} |\n", self.title, self.columns.join(" | "));
        text += &format!("|---|{}\n", "---:|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells: Vec<String> = row.values.iter().copied().map(number).collect();
            text += &format!("| {} | {} |\n", row.name, cells.join(" | "));
        }
        text
    }
}

/// About three significant digits.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".into() };
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let rows = vec![Row::new("10", [Some(1234.5), None]), Row::new("100", [Some(0.5), Some(45.67)])];
        let table = Table { title: "sizes".into(), columns: &["a", "b"], rows };
        let lines = [
            "",
            "**sizes**",
            "",
            "| | a | b |",
            "|---|---:|---:|",
            "| 10 | 1234 | – |",
            "| 100 | 0.50 | 45.7 |",
        ];
        assert_eq!(table.markdown().lines().collect::<Vec<_>>(), lines);
    }
}
