//! A row as a person reads it. Whatever is in it, it is text and moves no cursor.

use serde_json::{Map, Value};
use storage::Actor;

/// A detail is shown in no less than this, however narrow the terminal.
const DETAIL_MIN: usize = 12;

/// Without characters that a terminal would act upon.
pub(super) fn plain(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

/// By which command; the user only where it is another than the one who looks.
pub(super) fn who(actor: &str) -> String {
    match Actor::parse(actor) {
        Some(actor) if actor.uid == rustix::process::getuid().as_raw() => plain(&actor.command),
        Some(actor) => format!("{} (user {})", plain(&actor.command), actor.uid),
        None => plain(actor),
    }
}

/// `before → after`, then what else is known.
pub(super) fn detail(value: &Value) -> String {
    value.as_object().map(|fields| parts(fields).join(", ")).unwrap_or_default()
}

fn parts(fields: &Map<String, Value>) -> Vec<String> {
    let or_none = |name| fields.get(name).filter(|value| !value.is_null()).map_or("none".to_owned(), shown);
    let change = match (fields.contains_key("before"), fields.contains_key("after")) {
        (true, _) => Some(format!("{} → {}", or_none("before"), or_none("after"))),
        (false, true) => Some(or_none("after")),
        (false, false) => None,
    };
    let others = fields.iter().filter(|(name, value)| {
        !matches!(name.as_str(), "before" | "after") && !value.is_null() && **value != Value::Bool(false)
    });
    let others = others.map(|(name, value)| match name.strip_suffix("_us") {
        Some(name) if value.is_i64() => format!("{}: {}", plain(name), instant(value)),
        _ => format!("{}: {}", plain(name), shown(value)),
    });
    change.into_iter().chain(others).collect()
}

fn instant(value: &Value) -> String {
    value.as_i64().map(crate::format::local_time).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => format!("({})", parts(fields).join(", ")),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Cuts the last column so that the lines fit, where they go to a terminal.
pub(super) fn fit(rows: &mut [Vec<String>], headers: &[&str], width: Option<usize>) {
    let Some(width) = width else { return };
    let others = headers.len().saturating_sub(1);
    let column = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        cells.chain([headers[index].len()]).max().unwrap_or(0) + 2
    };
    let room = width.saturating_sub((0..others).map(column).sum()).max(DETAIL_MIN);
    for cell in rows.iter_mut().filter_map(|row| row.last_mut()) {
        if cell.chars().count() > room {
            *cell = cell.chars().take(room - 1).chain(['…']).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(value: &Value, expected: &str) {
        assert_eq!(detail(value), expected);
    }

    #[test]
    fn a_change_is_told_from_what_it_was_to_what_it_is() {
        check(
            &json!({ "before": "served", "after": "killed", "reason": "a leak" }),
            "served → killed, reason: a leak",
        );
        check(&json!({ "period": "daily", "before": null, "after": "$5" }), "none → $5, period: daily");
        check(&json!({ "before": ["$1/daily", "$9/total"], "after": null }), "$1/daily $9/total → none");
        check(
            &json!({ "before": null, "after": { "concurrent": 4, "tpm": null } }),
            "none → (concurrent: 4)",
        );
        check(&json!({ "after": "locked", "let_finish": false }), "locked");
        check(&json!({}), "");
        check(&json!("edited"), "");
    }

    #[test]
    fn what_is_shown_moves_no_cursor() {
        let hostile = "\u{1b}[2J\u{202e}\r\n";
        for text in [detail(&json!({ hostile: hostile })), plain(hostile), who(hostile)] {
            assert!(!text.chars().any(char::is_control) && !text.contains('\u{202e}'), "{text:?}");
        }
    }

    #[test]
    fn a_line_fits_the_terminal() {
        let row = || vec!["1".to_owned(), "kill".to_owned(), "a long story".repeat(9)];
        let mut rows = vec![row()];
        fit(&mut rows, &["row", "action", "detail"], Some(40));
        // Columns of three and six characters, each with two spaces.
        assert_eq!(rows[0][2].chars().count(), 40 - 5 - 8);
        assert!(rows[0][2].ends_with('…'));
        let mut rows = vec![row()];
        fit(&mut rows, &["row", "action", "detail"], None);
        assert_eq!(rows, [row()]);
    }
}
