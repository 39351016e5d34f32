//! Comma-separated values, as RFC 4180 has them.

use serde_json::Value;
use storage::StatsRow;

use super::document;

/// A header and a line for each group. The total is left out: whoever sums up the column would count it twice.
pub(super) fn table(by: String, rows: &[StatsRow]) -> String {
    let documents: Vec<Value> = rows.iter().map(document).collect();
    let Some(Value::Object(first)) = documents.first() else { return String::new() };
    let names = first.keys().map(|key| if key == "group" { by.clone() } else { key.clone() });
    let header = names.collect::<Vec<_>>().join(",");
    let lines = documents.iter().map(|row| {
        let cells = row.as_object().into_iter().flat_map(serde_json::Map::values).map(cell);
        cells.collect::<Vec<_>>().join(",")
    });
    std::iter::once(header).chain(lines).map(|line| line + "\r\n").collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// In quotes where a comma, a quote or a line's end would be misread. The name of a model is a caller's text: what
/// a spreadsheet would run as a formula gets an apostrophe in front, which makes it text again.
fn quoted(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    let needs_quotes = text.contains([',', '"', '\n', '\r']) || text.trim() != text;
    if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::stats::tests::row;
    use storage::StatsGroup;

    #[track_caller]
    fn check_quoted(text: &str, expected: &str) {
        assert_eq!(quoted(text), expected, "{text}");
    }

    #[test]
    fn what_would_be_misread_is_quoted() {
        check_quoted("gpt-4o", "gpt-4o");
        check_quoted("a,b", "\"a,b\"");
        check_quoted("a\"b", "\"a\"\"b\"");
        check_quoted("a\nb", "\"a\nb\"");
        check_quoted(" a", "\" a\"");
        check_quoted("", "");
    }

    #[test]
    fn a_model_is_no_formula() {
        check_quoted("=1+1", "'=1+1");
        check_quoted("@SUM(A1,A2)", "\"'@SUM(A1,A2)\"");
    }

    #[test]
    fn a_line_has_the_fields_of_the_header() {
        let text = table("model".to_owned(), &[row(StatsGroup::Name(Some("a,b".to_owned())))]);
        let expected = "model,requests,refused,errors,input_tokens,cache_read_tokens,cache_write_tokens,\
            cache_read_percent,output_tokens,cost_usd,cost_per_request_usd,unpriced,latency_p50_ms,latency_p95_ms,first_byte_p50_ms\r\n\
            \"a,b\",12,2,1,1000,800,50,80.0,70,1.250000,0.178571429,3,1240.0,3000.0,\r\n";
        assert_eq!(text, expected);
    }
}
