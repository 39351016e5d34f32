//! A row as a person reads it. Whatever is in it, it is text and moves no cursor.

use serde_json::{Map, Value};
use storage::Actor;

use crate::format::plain;

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
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => format!("({})", parts(fields).join(", ")),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
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
}
