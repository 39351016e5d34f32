//! Bodies of requests: every byte arrives, whatever their size; what could be read in two ways does not.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use storage::Outcome;

use crate::support::{Client, Gateway, Request, Setup, json};

const CHAT: &str = "/openai/v1/chat/completions";
const MIB: usize = 1024 * 1024;

/// A gateway whose provider is never to hear anything, with little room.
fn small_gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        let tables = "[limits]\nrequest_body = \"4 MiB\"\nmemory = \"1 MiB\"".to_owned();
        Gateway::start_with(&Setup { tables, ..Setup::default() })
    });
    &GATEWAY
}

/// Bytes in which a lost, doubled or moved piece shows.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + u8::try_from((at * 7 + at / 251) % 26).unwrap()).collect()
}

/// A chat request of exactly this many bytes.
fn chat_of(size: usize) -> Vec<u8> {
    let (start, end) = (r#"{"messages":[{"role":"user","content":""#, r#""}],"model":"m"}"#);
    let filling = pattern(size - start.len() - end.len());
    [start.as_bytes(), &filling, end.as_bytes()].concat()
}

/// A capability for everything that these tests ask for.
fn token() -> &'static str {
    static TOKEN: LazyLock<String> =
        LazyLock::new(|| Gateway::shared().mint(&["bodies", "--route", "generate", "--route", "file"]));
    &TOKEN
}

#[track_caller]
fn check_arrives(mut client: Client, target: &str, content_type: &str, body: &[u8]) {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json("{}"));
    let request = Request::new("POST", target)
        .bearer(token())
        .script(&script)
        .field("Content-Type", content_type)
        .body(body);
    let id = client.ask(&request).expect(200).id();
    let received = gateway.mock.the_request(&script);
    assert_eq!(received.body.len(), body.len());
    assert!(received.body == body, "the {} bytes are not the ones that were sent", body.len());
    assert_eq!(received.get("content-length"), Some(body.len().to_string()));
    assert_eq!(received.get("content-type").as_deref(), Some(content_type));
    assert_eq!(gateway.row(&id).request.request_bytes, body.len() as u64);
}

#[test]
fn every_byte_of_a_json_body_arrives_around_the_engines_buffer() {
    let gateway = Gateway::shared();
    for size in [70, 65_535, 65_536, 65_537, 131_072, 131_073, 5 * MIB] {
        check_arrives(gateway.tcp(), CHAT, "application/json", &chat_of(size));
        check_arrives(gateway.unix(), CHAT, "application/json; charset=utf-8", &chat_of(size));
    }
}

#[test]
fn every_byte_of_a_file_arrives_even_none() {
    let gateway = Gateway::shared();
    for size in [0, 1, 65_536, 65_537, 131_072] {
        check_arrives(gateway.tcp(), "/openai/v1/files", "application/octet-stream", &pattern(size));
    }
}

#[test]
fn a_body_just_under_the_limit_arrives() {
    let gateway = Gateway::shared();
    check_arrives(gateway.tcp(), CHAT, "application/json", &chat_of(319 * MIB / 10));
}

#[test]
fn a_form_is_passed_on_as_it_is() {
    let gateway = Gateway::shared();
    let form = [
        b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n".to_vec(),
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n".to_vec(),
        (0..=255).cycle().take(200_000).collect(),
        b"\r\n--b--\r\n".to_vec(),
    ]
    .concat();
    check_arrives(gateway.tcp(), "/openai/v1/audio/transcriptions", "multipart/form-data; boundary=b", &form);
}

#[test]
fn a_body_in_pieces_arrives_whole() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json("{}"));
    let body = chat_of(100_000);
    let request = Request::post(CHAT, body.clone()).bearer(&gateway.token).script(&script);
    let mut client = gateway.tcp();
    client.send(&request.head());
    for piece in body.chunks(9_999) {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(2));
    }
    client.response().expect(200);
    assert!(gateway.mock.the_request(&script).body == body);
}

fn chunked(token: &str, script: &str, body: &[u8]) -> Vec<u8> {
    let head = Request::new("POST", CHAT)
        .bearer(token)
        .script(script)
        .field("Content-Type", "application/json")
        .field("Transfer-Encoding", "chunked")
        .head();
    let mut bytes = head;
    for piece in body.chunks(10_000) {
        bytes.extend_from_slice(&crate::support::chunk(piece));
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_chunked_body_arrives_with_its_length() {
    let gateway = Gateway::shared();
    for size in [70, 20_000, 65_536] {
        let script = gateway.mock.plays(json("{}"));
        let body = chat_of(size);
        let mut client = gateway.tcp();
        client.send(&chunked(&gateway.token, &script, &body));
        client.response().expect(200);
        let received = gateway.mock.the_request(&script);
        assert!(received.body == body, "{size}");
        assert_eq!(received.get("transfer-encoding"), None);
        assert_eq!(received.get("content-length"), Some(size.to_string()));
    }
}

#[test]
fn a_chunked_body_over_64_kib_is_refused() {
    let gateway = Gateway::shared();
    for size in [65_537, 300_000] {
        let script = gateway.mock.plays(json("{}"));
        let mut client = gateway.tcp();
        // The refusal may come before all of it is read.
        let _ = client.try_send(&chunked(&gateway.token, &script, &chat_of(size)));
        let refusal = client.response().expect_refusal(413, "request_too_large");
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
        assert!(gateway.mock.received(&script).is_empty());
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let gateway = small_gateway();
    let head = |length: usize| {
        let request = Request::new("POST", CHAT).bearer(&gateway.token);
        request.field("Content-Type", "application/json").field("Content-Length", &length.to_string()).head()
    };
    let mut client = gateway.tcp();
    client.send(&head(4 * MIB + 1));
    let refusal = client.response().expect_refusal(413, "request_too_large");
    assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
    client.expect_end();
    let mut client = gateway.tcp();
    client.send(&head(2 * MIB));
    // The refusal may come before all of it is read.
    let _ = client.try_send(&chat_of(2 * MIB));
    client.response().expect_refusal(503, "overloaded");
    assert_eq!(gateway.mock.connections(), 0);
}

#[test]
fn the_default_limit_is_32_mib() {
    let gateway = Gateway::shared();
    let mut client = gateway.tcp();
    let request = Request::new("POST", CHAT).bearer(&gateway.token);
    let length = (32 * MIB + 1).to_string();
    client.send(&request.field("Content-Type", "application/json").field("Content-Length", &length).head());
    client.response().expect_refusal(413, "request_too_large");
}

#[test]
fn a_caller_that_expects_to_be_told_is_told_to_go_on() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json("{}"));
    let body = chat_of(100_000);
    let request = Request::post(CHAT, body.clone())
        .bearer(&gateway.token)
        .script(&script)
        .field("Expect", "100-continue");
    for mut client in [gateway.tcp(), gateway.unix()] {
        client.send(&request.head());
        assert_eq!(client.head().status, 100);
        client.send(&body);
        client.response().expect(200);
    }
    let received = gateway.mock.received(&script);
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|received| received.body == body && received.get("expect").is_none()));
}

#[test]
fn a_refused_caller_that_expects_to_be_told_is_refused_at_once() {
    let gateway = Gateway::shared();
    let request = Request::post(CHAT, chat_of(1000)).bearer("tfk_unknown").field("Expect", "100-continue");
    for mut client in [gateway.tcp(), gateway.unix()] {
        client.send(&request.head());
        let started = Instant::now();
        client.response().expect_refusal(401, "invalid_capability");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

#[test]
fn compressed_bodies_and_other_types_are_refused() {
    let gateway = small_gateway();
    let json = r#"{"model":"m","messages":[]}"#;
    let request = || Request::new("POST", CHAT).bearer(&gateway.token).body(json);
    let typed = |content_type| request().field("Content-Type", content_type);
    for refused in [
        typed("application/json").field("Content-Encoding", "gzip"),
        typed("application/json").field("Content-Encoding", "identity"),
        typed("text/plain"),
        typed("text/plain; application/json"),
        typed("application/x-www-form-urlencoded"),
        typed("application/jsonx"),
        typed("application/octet-stream"),
        request(),
    ] {
        gateway.tcp().ask(&refused).expect_refusal(415, "unsupported_media");
    }
    assert_eq!(gateway.mock.connections(), 0);
}

/// JSON bodies that a provider could read differently from us, or not at all.
const BAD_JSON: &[(&str, &[u8])] = &[
    ("nothing", b""),
    ("one byte", b"{"),
    ("an array", br#"[{"model":"m"}]"#),
    ("a string", br#""model""#),
    ("a key twice", br#"{"model":"a","messages":[],"model":"b"}"#),
    ("a key twice, once escaped", br#"{"model":"a","messages":[],"mod\u0065l":"b"}"#),
    ("an unknown key twice", br#"{"model":"a","x":1,"x":2}"#),
    ("a key twice inside", br#"{"model":"a","stream_options":{"include_usage":true,"include_usage":false}}"#),
    ("a key in another case", br#"{"model":"a","Model":"b"}"#),
    ("a byte order mark", b"\xef\xbb\xbf{\"model\":\"a\"}"),
    ("UTF-16", b"{\0\"\0m\0\"\0:\0"),
    ("not UTF-8", b"{\"model\":\"a\xff\"}"),
    ("a surrogate in UTF-8", b"{\"model\":\"\xed\xa0\x80\"}"),
    ("two objects", br#"{"model":"a"}{"model":"b"}"#),
    ("a comment", br#"{"model":"a"/* b */}"#),
    ("a comma too many", br#"{"model":"a",}"#),
    ("single quotes", b"{'model':'a'}"),
    ("half a pair of surrogates", br#"{"model":"a","messages":[{"role":"user","content":"\ud83d"}]}"#),
    ("surrogates in the wrong order", br#"{"model":"a","user":"\ude00\ud83d"}"#),
    ("half a pair in a key", br#"{"model":"a","\ud800":1}"#),
    ("half a pair in the model", br#"{"model":"a\udc00"}"#),
    ("a number beyond a double", br#"{"model":"a","temperature":1e999}"#),
    ("Infinity", br#"{"model":"a","temperature":-Infinity}"#),
    ("a byte order mark after it", b"{\"model\":\"a\"}\xef\xbb\xbf"),
    ("a zero byte after it", b"{\"model\":\"a\"}\0"),
    ("a limit twice inside", br#"{"model":"a","options":{"num_predict":1,"num_predict":2}}"#),
    (
        "a limit twice inside, once escaped",
        br#"{"generationConfig":{"maxOutputTokens":1,"maxOutputToken\u0073":2}}"#,
    ),
    ("a limit in two spellings", br#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":2}}"#),
    ("NaN", br#"{"model":"a","temperature":NaN}"#),
    ("a leading zero", br#"{"model":"a","max_tokens":01}"#),
    ("a control byte in a string", b"{\"model\":\"a\nb\"}"),
    ("max_tokens below zero", br#"{"model":"a","max_tokens":-1}"#),
    ("max_tokens with a fraction", br#"{"model":"a","max_tokens":1.5}"#),
    ("max_tokens with an exponent", br#"{"model":"a","max_tokens":1e9}"#),
    ("max_tokens as a string", br#"{"model":"a","max_tokens":"5"}"#),
    ("max_tokens beyond 32 bits", br#"{"model":"a","max_tokens":99999999999}"#),
    ("max_output_tokens as an object", br#"{"model":"a","max_output_tokens":{}}"#),
    ("a model that is no string", br#"{"model":["a"]}"#),
    ("stream that is no boolean", br#"{"model":"a","stream":"yes"}"#),
    ("too many answers", br#"{"model":"a","n":100000}"#),
];

#[test]
fn json_that_could_be_read_in_two_ways_is_refused() {
    let gateway = small_gateway();
    let deep = [b"{\"model\":\"a\",\"x\":".to_vec(), vec![b'['; 70], vec![b']'; 70], b"}".to_vec()].concat();
    let cases = BAD_JSON.iter().map(|(name, body)| (*name, body.to_vec())).chain([("too deep", deep)]);
    let mut clients = [gateway.tcp(), gateway.unix()];
    for (name, body) in cases {
        for client in &mut clients {
            client.send(&Request::post(CHAT, body.clone()).bearer(&gateway.token).bytes());
            let refusal = client.try_response().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((refusal.status(), refusal.code().as_str()), (400, "invalid_request"), "{name}");
            assert_eq!(refusal.head.get("x-should-retry"), Some("false"), "{name}");
        }
    }
    assert_eq!(gateway.mock.connections(), 0);
}

#[test]
fn a_caller_that_leaves_within_its_body_reaches_no_provider() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json("{}"));
    let token = gateway.mint(&["leaver"]);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, chat_of(1000)).bearer(&token).script(&script).head());
    client.send(b"{\"model\":");
    drop(client);
    let row = crate::support::eventually("the row", || {
        let rows = gateway.rows();
        rows.into_iter()
            .find(|row| row.request.agent.as_ref().is_some_and(|agent| agent.as_str() == "leaver"))
    });
    assert_ne!(row.request.outcome, Outcome::Completed);
    assert_eq!(row.request.usage.total(), 0);
    assert!(gateway.mock.received(&script).is_empty());
}
