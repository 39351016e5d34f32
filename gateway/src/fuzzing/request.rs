//! What a caller sends: its head, its target and its body.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{BYTES_MAX, chunks, cuts};
use crate::caller::framing::{self, Arrived, BodyFraming};
use crate::config::Config;
use crate::request::route;
use crate::wire::{
    LimitField, RequestFacts, RequestFault, inject_include_usage, limit_output, request_facts,
};

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| Config::parse("", Path::new("/nowhere")).expect("nothing is no fault"));

/// Where a head ends, whether it is let through and how its body is delimited do not depend on how its bytes arrive; and
/// a head that is let through says so to a reader that knows lines and colons and nothing else. The first eight bytes say
/// where the rest is cut.
pub fn head(data: &[u8]) {
    let (cuts, bytes) = cuts(data);
    let whole = arrive([bytes].into_iter());
    assert_eq!(arrive(chunks(cuts, bytes)), whole);
    if let Some(Ok((end, body))) = whole {
        check_head(&bytes[..end], body);
    }
}

/// What the guard makes of bytes as they come: nothing yet, a refusal, or a head and what follows it.
fn arrive<'c>(chunks: impl Iterator<Item = &'c [u8]>) -> Option<Result<(usize, BodyFraming), ()>> {
    let (mut buffer, mut searched) = (Vec::new(), 0);
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        match framing::look(&buffer, searched) {
            Arrived::Head(end) => {
                let checked = framing::check(&buffer[..end]);
                return Some(checked.map(|body| (end, body)).map_err(|_| ()));
            }
            Arrived::BareLineFeed => return Some(Err(())),
            Arrived::Part => searched = buffer.len(),
        }
    }
    None
}

fn check_head(head: &[u8], body: BodyFraming) {
    let head = head.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).collect();
    assert!(head.iter().filter(|byte| **byte == b'\r').count() == lines.len() - 1);
    // Empty lines before a request are allowed to callers, and mean nothing.
    let start = lines.iter().position(|line| !line.is_empty()).expect("a request line");
    let words: Vec<&[u8]> = lines[start].split(|byte| *byte == b' ').collect();
    assert!(words.len() == 3 && words[1].starts_with(b"/") && words[2] == b"HTTP/1.1", "{words:?}");
    let values = |name: &str| -> Vec<&[u8]> {
        let value = |line: &&'_ [u8]| -> Option<usize> {
            let at = line.iter().position(|byte| *byte == b':')?;
            line[..at].eq_ignore_ascii_case(name.as_bytes()).then_some(at + 1)
        };
        lines[start + 1..].iter().filter_map(|line| Some(line[value(line)?..].trim_ascii())).collect()
    };
    assert_eq!(values("host").len(), 1);
    match (&values("content-length")[..], &values("transfer-encoding")[..], body) {
        ([], [], BodyFraming::Length(0)) => {}
        ([length], [], BodyFraming::Length(expected)) => {
            assert_eq!(*length, expected_digits(length, expected))
        }
        ([], [coding], BodyFraming::Chunked) => assert!(coding.eq_ignore_ascii_case(b"chunked")),
        other => panic!("{other:?}"),
    }
    let is_folded = |line: &&[u8]| line.starts_with(b" ") || line.starts_with(b"\t");
    assert!(!lines[start + 1..].iter().any(is_folded));
}

/// The length as digits, with the zeros that `written` has before them.
fn expected_digits(written: &[u8], length: u64) -> Vec<u8> {
    format!("{length:0>width$}", width = written.len()).into_bytes()
}

/// A path has one form, and whoever decodes it, in whatever order and however often, finds the same segments in what was
/// sent and in what is sent on. No credential is left in the query.
pub fn path_canon(data: &[u8]) {
    let data = &data[..data.len().min(BYTES_MAX)];
    let Ok(target) = route::canonical(data) else { return };
    let path = target.path.as_bytes();
    let again = route::canonical(path).expect("what was made canonical is accepted");
    assert_eq!((again.path.as_bytes(), again.query), (path, None));
    let raw = data.split(|byte| *byte == b'?').next().unwrap_or_default();
    let segments = DECODERS[0](path);
    for decoder in DECODERS {
        assert_eq!(decoder(raw), segments, "{}", String::from_utf8_lossy(data));
        assert_eq!(decoder(path), segments, "{}", String::from_utf8_lossy(data));
    }
    assert_eq!(route::keys_in_query(target.query).count(), keys(target.query.unwrap_or_default()));
    for method in [http::Method::GET, http::Method::POST] {
        let Ok(route) = route::resolve(&CONFIG, &method, &target) else { continue };
        let sent = route::canonical(route.upstream_target.as_bytes()).expect("what is sent on is canonical");
        assert_eq!(
            sent.path.as_bytes(),
            route.upstream_target.split('?').next().unwrap_or_default().as_bytes()
        );
        assert_eq!(keys(sent.query.unwrap_or_default()), 0, "{}", route.upstream_target);
        assert!(route.model.is_none_or(|model| sent.path.contains(&model)));
    }
}

type Decoder = fn(&[u8]) -> Vec<Vec<u8>>;
/// The ways in which servers are known to read a path.
const DECODERS: [Decoder; 4] = [
    // Each segment by itself.
    |path| path.split(|byte| *byte == b'/').map(decoded).collect(),
    // First decoded, then taken apart, with parameters left out and dots followed.
    |path| walked(&decoded(path)),
    // Decoded until nothing changes.
    |path| {
        let mut path = path.to_vec();
        while decoded(&path) != path {
            path = decoded(&path);
        }
        walked(&path)
    },
    // As browsers do: dots are followed in whatever spelling, and a backslash is a slash.
    |path| {
        let path = String::from_utf8_lossy(path).replace("%2e", ".").replace("%2E", ".");
        walked(path.as_bytes()).iter().map(|segment| decoded(segment)).collect()
    },
];

/// The segments that are left when dots are followed.
fn walked(path: &[u8]) -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let parts: Vec<&[u8]> = path.split(|byte| matches!(byte, b'/' | b'\\')).collect();
    for (index, part) in parts.iter().enumerate() {
        let part = part.split(|byte| *byte == b';' || *byte == 0).next().unwrap_or_default();
        let is_at_an_end = index == 0 || index + 1 == parts.len();
        match part {
            b".." => drop(segments.pop()),
            b"." => {}
            b"" if !is_at_an_end => {}
            part => segments.push(part.to_vec()),
        }
    }
    segments
}

/// Every escape decoded, once; what is none stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        let digit =
            |at: usize| char::from(*after.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// How many parameters a reader of forms finds under the name `key`.
fn keys(query: &str) -> usize {
    let name = |pair: &str| decoded(pair.split('=').next().unwrap_or_default().replace('+', " ").as_bytes());
    query.split('&').filter(|pair| name(pair) == b"key").count()
}

/// Of what is accepted as a body, another parser reads the same; no key comes twice where something is read from; and a
/// body that the gateway changes stays one that says the same but for that.
pub fn req_json(data: &[u8]) {
    let body = &data[..data.len().min(BYTES_MAX)];
    let Ok(facts) = request_facts(body) else { return };
    let members = members(std::str::from_utf8(body).expect("it was accepted"));
    check_facts(&facts, &members);
    for field in ["stream_options", "generationConfig", "generation_config", "options"] {
        if let Some(object) = member(&members, field).filter(|value| value.get().starts_with('{')) {
            self::members(object.get());
        }
    }
    if let Some(changed) = inject_include_usage(body, &facts).and_then(|body| reread(&body)) {
        assert!(changed.includes_usage());
        assert_eq!((changed.model, changed.stream), (facts.model.clone(), facts.stream));
    }
    for field in [LimitField::MaxTokens, LimitField::GenerationConfig, LimitField::NumPredict] {
        if let Some(changed) = limit_output(body, &facts, &[field], 7).and_then(|body| reread(&body)) {
            assert!(changed.longest_answer(&[field]).is_some_and(|tokens| tokens <= 7));
            assert!(changed.max_output_tokens().is_some_and(|tokens| tokens <= 7));
            assert_eq!((changed.model, changed.answers), (facts.model.clone(), facts.answers));
        }
    }
}

/// The facts of a body that the gateway has changed. One member more can be one too many to read, and that is all.
fn reread(body: &[u8]) -> Option<RequestFacts> {
    match request_facts(body) {
        Ok(facts) => Some(facts),
        Err(RequestFault::TooManyKeys(_)) => None,
        Err(fault) => panic!("{fault} in {}", String::from_utf8_lossy(body)),
    }
}

type Members<'j> = Vec<(String, &'j RawValue)>;

/// The members of an object as serde_json reads them, none of which comes twice.
fn members(json: &str) -> Members<'_> {
    struct All;
    impl<'de> serde::de::Visitor<'de> for All {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut object: A) -> Result<Members<'de>, A::Error> {
            std::iter::from_fn(|| object.next_entry().transpose()).collect()
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    let members = serde::Deserializer::deserialize_map(&mut parser, All).expect("what was accepted is JSON");
    parser.end().expect("nothing follows it");
    let mut seen = HashSet::new();
    assert!(members.iter().all(|(name, _)| seen.insert(name.clone())), "a key comes twice in {json}");
    members
}

fn member<'j>(members: &Members<'j>, name: &str) -> Option<&'j RawValue> {
    members.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
}

fn check_facts(facts: &RequestFacts, members: &Members<'_>) {
    let value = |name: &str| -> Value {
        member(members, name)
            .map_or(Value::Null, |value| serde_json::from_str(value.get()).expect("it is JSON"))
    };
    assert_eq!(facts.model.as_deref(), value("model").as_str());
    assert_eq!(facts.stream, value("stream").as_bool());
    assert_eq!(facts.names_other_models, !value("models").is_null());
    assert_eq!(facts.is_background, value("background").as_bool().unwrap_or(false));
    let plain = ["max_tokens", "max_completion_tokens", "max_output_tokens"].map(&value);
    let config = if value("generationConfig").is_null() {
        value("generation_config")
    } else {
        value("generationConfig")
    };
    let nested = [&config["maxOutputTokens"], &config["max_output_tokens"], &value("options")["num_predict"]];
    let positive = |value: &&Value| value.as_i64().is_some_and(|tokens| tokens > 0);
    let limits = plain.iter().chain(nested).filter(positive).filter_map(Value::as_u64);
    let most = limits.max().unwrap_or(0);
    assert_eq!(u64::from(facts.max_output_tokens().unwrap_or(0)), most);
    let counts = [&value("n"), &value("best_of"), &config["candidateCount"], &config["candidate_count"]];
    let answers = counts.into_iter().filter_map(Value::as_u64).max().unwrap_or(1).max(1);
    let prompts = match value("prompt") {
        Value::Array(list) => list.iter().filter(|prompt| !prompt.is_number()).count().max(1),
        _ => 1,
    };
    assert_eq!(u64::from(facts.answers), answers * prompts as u64);
}
