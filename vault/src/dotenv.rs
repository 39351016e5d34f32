//! Reading `.env` text, strictly: a line that two tools would read differently is refused, not interpreted.

use crate::{Error, Secret};

/// The assignments of a `.env` text, in order: the variable's name and its value.
///
/// Understood are `NAME=value`, an `export ` before it, blank lines, `#` comments on a line of their own or after
/// whitespace, single quotes (all literal) and double quotes (`\n`, `\r`, `\t`, `\"`, `\\`, `\$` are escapes). Values end with their
/// line. Unquoted values are trimmed. A `$` that asks for substitution is refused, because the environment it would be
/// taken from is not the one that is meant.
///
/// # Errors
/// [`Error::Dotenv`] with the line's number; never with its text.
pub fn parse(text: &str) -> Result<Vec<(String, Secret<String>)>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut assignments = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let parsed = parse_line(line.trim()).map_err(|reason| Error::Dotenv { line: index + 1, reason })?;
        assignments.extend(parsed);
    }
    Ok(assignments)
}

fn parse_line(line: &str) -> Result<Option<(String, Secret<String>)>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let assignment = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let (name, value) =
        assignment.unwrap_or(line).split_once('=').ok_or("it is not of the form NAME=value")?;
    let name = name.trim();
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-');
    if !is_name || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("the name may hold letters, digits, `_`, `.` and `-` only, and not begin with a digit");
    }
    Ok(Some((name.to_owned(), Secret::new(parse_value(value.trim())?))))
}

fn parse_value(value: &str) -> Result<String, &'static str> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (quoted, after) = rest.split_once('\'').ok_or("the quote is not closed on this line")?;
        return check_after(after).map(|()| quoted.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        return parse_double_quoted(rest);
    }
    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
    let plain = if value.starts_with('#') { "" } else { value[..end].trim_end() };
    if plain.contains(['"', '\'', '`', '\\']) || plain.contains("${") || plain.contains("$(") {
        return Err(
            "an unquoted value holds a quote, a backslash or a substitution; put it in single quotes",
        );
    }
    Ok(plain.to_owned())
}

fn parse_double_quoted(rest: &str) -> Result<String, &'static str> {
    let mut value = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return check_after(chars.as_str()).map(|()| value),
            '$' if chars.as_str().starts_with(['{', '(']) => return Err("substitution is not supported"),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(escaped @ ('"' | '\\' | '$')) => escaped,
                Some(_) | None => return Err("the escape is unknown"),
            }),
            _ => value.push(c),
        }
    }
    Err("the quote is not closed on this line")
}

fn check_after(after: &str) -> Result<(), &'static str> {
    let is_comment = after.starts_with([' ', '\t']) && after.trim_start().starts_with('#');
    if after.trim().is_empty() || is_comment { Ok(()) } else { Err("there is text after the closing quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_value(line: &str, expected: &str) {
        let parsed = parse(line).expect(line);
        assert_eq!(parsed.len(), 1);
        assert_eq!((parsed[0].0.as_str(), parsed[0].1.expose().as_str()), ("KEY", expected));
    }

    #[track_caller]
    fn check_refused(line: &str) {
        let text = format!("A=1\n{line}\n");
        match parse(&text) {
            Err(Error::Dotenv { line: 2, .. }) => {}
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn usual_forms_are_read() {
        check_value("KEY=sk-1", "sk-1");
        check_value("  export KEY = sk-1  ", "sk-1");
        check_value("export\tKEY=sk-1", "sk-1");
        check_value("KEY=", "");
        check_value("KEY=a=b==", "a=b==");
        check_value("KEY=sk-1 # note", "sk-1");
        check_value("KEY=sk#1", "sk#1");
        check_value("KEY=# note", "");
        check_value("KEY='a \"b\" \\n $x'", "a \"b\" \\n $x");
        check_value("KEY='a' # note", "a");
        check_value("KEY=\"a \\\"b\\\" \\\\ \\n\"", "a \"b\" \\ \n");
        check_value("KEY=pa$$word", "pa$$word");
        check_value("\u{feff}KEY=a\r\n", "a");
        check_value("# comment\n\nKEY=a\n", "a");
    }

    #[test]
    fn order_and_repetition_are_kept() {
        let names: Vec<_> =
            parse("B=1\nA=2\nB=3").expect("reads").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["B", "A", "B"]);
    }

    #[test]
    fn ambiguous_lines_are_refused_by_number() {
        for line in [
            "KEY",
            "export KEY",
            "=a",
            "1KEY=a",
            "K Y=a",
            "KEY='a",
            "KEY=\"a",
            "KEY='a'b",
            "KEY=\"a\"b",
            "KEY=\"\\x\"",
            "KEY=\"a\\",
            "KEY=a\"b",
            "KEY=a'b'",
            "KEY=a\\b",
            "KEY=${HOME}",
            "KEY=$(id)",
            "KEY=`id`",
            "KEY=\"${HOME}\"",
        ] {
            check_refused(line);
        }
    }
}
