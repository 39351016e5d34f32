//! What was counted, for a person and for a program.

use serde_json::{Value, json};

use super::count::{Counted, Instructions, spread, typical};

const HEADER: [&str; 8] =
    ["", "serving", "log writer", "other", "all", "serving × floor", "all × floor", "rounds apart"];

/// A table of the medians of what a request and an event cost; the first that was counted is the floor.
pub(super) fn human(counted: &[Counted]) -> String {
    let mut text = String::new();
    for (title, rounds) in MEASURES {
        text += &format!("{title}, in user space\n");
        let floor = counted.first().map(|floor| typical(rounds(floor))).unwrap_or_default();
        let rows = counted.iter().map(|subject| row(subject.name.text(), rounds(subject), floor));
        for cells in std::iter::once(HEADER.map(String::from)).chain(rows) {
            text += &line(&cells);
        }
        text += "\n";
    }
    text
}

type Rounds = fn(&Counted) -> &[Instructions];
const MEASURES: [(&str, Rounds); 2] = [
    ("instructions for a JSON request", |counted| &counted.request),
    ("instructions for an event of a stream", |counted| &counted.event),
];

fn row(name: &str, rounds: &[Instructions], floor: Instructions) -> [String; 8] {
    let found = typical(rounds);
    let count = |count: f64| format!("{count:.0}");
    let ratio = |ratio: f64| format!("{ratio:.3}");
    [
        name.to_owned(),
        count(found.serving),
        count(found.writing),
        count(found.other),
        count(found.all()),
        ratio(found.serving / floor.serving),
        ratio(found.all() / floor.all()),
        format!("{:.1} %", spread(rounds) * 100.0),
    ]
}

fn line(cells: &[String; 8]) -> String {
    let [name, numbers @ ..] = cells;
    let numbers: String = numbers.iter().map(|cell| format!("{cell:>17}")).collect();
    format!("  {name:<10}{numbers}\n")
}

/// Every round of every subject, with the medians.
pub(super) fn document(counted: &[Counted]) -> Value {
    let subjects = counted.iter().map(|subject| {
        json!({
            "subject": subject.name,
            "request": typical(&subject.request),
            "event": typical(&subject.event),
            "rounds": { "request": subject.request, "event": subject.event },
            "idle_s": subject.idle_s,
        })
    });
    json!({ "instructions": subjects.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Name;

    fn counted(name: Name, serving: f64, writing: f64) -> Counted {
        let round = Instructions { serving, writing, other: 0.0 };
        Counted { name, idle_s: Instructions::default(), request: vec![round; 3], event: vec![round] }
    }

    #[test]
    fn the_table_shows_ratios_to_the_floor() {
        let text = human(&[counted(Name::Floor, 100.0, 0.0), counted(Name::Everything, 130.0, 20.0)]);
        let row: Vec<&str> =
            text.lines().find(|line| line.contains("everything on")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["everything", "on", "130", "20", "0", "150", "1.300", "1.500", "0.0", "%"]);
    }

    #[test]
    fn the_document_has_each_round() {
        let document = document(&[counted(Name::Floor, 100.0, 0.0)]);
        assert_eq!(document.pointer("/instructions/0/rounds/request/2/serving"), Some(&json!(100.0)));
        assert_eq!(document.pointer("/instructions/0/subject"), Some(&json!("floor")));
    }
}
