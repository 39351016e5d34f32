//! What is refused before a provider is asked: heads that could be read in two ways, callers that are web pages,
//! paths with more than one meaning. Each refusal is a typed answer and a row; nothing reaches the provider.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use policy::Transport;
use storage::Outcome;

use crate::support::{Client, Gateway, Request, eventually, json};

/// Requests that would be served but for one thing. `{path}` is a route, `{fields}` are a host and a capability.
struct Case {
    name: &'static str,
    head: &'static str,
    status: u16,
    code: &'static str,
}

const fn case(name: &'static str, head: &'static str, status: u16, code: &'static str) -> Case {
    Case { name, head, status, code }
}

const fn invalid(name: &'static str, head: &'static str) -> Case {
    case(name, head, 400, "invalid_request")
}

/// Heads whose end, or whose body's end, two parsers could see in different places. The connection ends with the
/// answer, whatever else was sent on it.
const AMBIGUOUS: &[Case] = &[
    invalid("bare line feed", "GET {path} HTTP/1.1\r\n{fields}X: 1\n\r\n"),
    invalid("bare line feed in the request line", "GET {path} HTTP/1.1\n{fields}\r\n"),
    invalid("line feeds alone", "GET {path} HTTP/1.1\nHost: localhost\n\n"),
    invalid("bare carriage return", "GET {path} HTTP/1.1\r\n{fields}X: a\rb\r\n\r\n"),
    invalid(
        "both lengths",
        "POST {path} HTTP/1.1\r\n{fields}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    invalid(
        "both lengths, other order",
        "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    ),
    invalid(
        "the length twice",
        "POST {path} HTTP/1.1\r\n{fields}Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    invalid("two lengths", "POST {path} HTTP/1.1\r\n{fields}Content-Length: 0\r\nContent-Length: 50\r\n\r\n"),
    invalid("a list of lengths", "POST {path} HTTP/1.1\r\n{fields}Content-Length: 0, 0\r\n\r\n"),
    invalid("a length with a sign", "POST {path} HTTP/1.1\r\n{fields}Content-Length: +0\r\n\r\n"),
    invalid("a negative length", "POST {path} HTTP/1.1\r\n{fields}Content-Length: -1\r\n\r\n"),
    invalid("a hexadecimal length", "POST {path} HTTP/1.1\r\n{fields}Content-Length: 0x10\r\n\r\n"),
    invalid("an empty length", "POST {path} HTTP/1.1\r\n{fields}Content-Length: \r\n\r\n"),
    invalid(
        "a length beyond 64 bits",
        "POST {path} HTTP/1.1\r\n{fields}Content-Length: 18446744073709551616\r\n\r\n",
    ),
    invalid("gzip, chunked", "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: gzip, chunked\r\n\r\n"),
    invalid("gzip", "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: gzip\r\n\r\n"),
    invalid("identity", "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: identity\r\n\r\n"),
    invalid(
        "chunked twice",
        "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    invalid(
        "chunked with a vertical tab",
        "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: \x0bchunked\r\n\r\n",
    ),
    invalid("chunked in quotes", "POST {path} HTTP/1.1\r\n{fields}Transfer-Encoding: \"chunked\"\r\n\r\n"),
    invalid("a space before the colon", "POST {path} HTTP/1.1\r\n{fields}Content-Length : 0\r\n\r\n"),
    invalid("a folded field", "GET {path} HTTP/1.1\r\n{fields}X: a\r\n b\r\n\r\n"),
    invalid("a folded first field", "GET {path} HTTP/1.1\r\n X: a\r\n{fields}\r\n"),
    invalid("a field without a colon", "GET {path} HTTP/1.1\r\n{fields}X\r\n\r\n"),
    invalid("a field without a name", "GET {path} HTTP/1.1\r\n{fields}: x\r\n\r\n"),
    invalid("a zero byte in a value", "GET {path} HTTP/1.1\r\n{fields}X: a\0b\r\n\r\n"),
    invalid("two hosts", "GET {path} HTTP/1.1\r\n{fields}Host: localhost\r\n\r\n"),
    invalid(
        "a user in the host",
        "GET {path} HTTP/1.1\r\nHost: u@localhost\r\nAuthorization: Bearer {token}\r\n\r\n",
    ),
    invalid("no host", "GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n"),
    invalid("the absolute form", "GET http://localhost{path} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a fragment", "GET /openai/v1/models/{n}#x HTTP/1.1\r\n{fields}\r\n"),
    invalid("a relative target", "GET openai/v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("HTTP/1.0", "GET {path} HTTP/1.0\r\n{fields}\r\n"),
    invalid("HTTP/2.0", "GET {path} HTTP/2.0\r\n{fields}\r\n"),
    invalid("HTTP/1.2", "GET {path} HTTP/1.2\r\n{fields}\r\n"),
    invalid("HTTP/0.9", "GET {path}\r\n\r\n"),
    invalid("two spaces in the request line", "GET  {path} HTTP/1.1\r\n{fields}\r\n"),
    invalid("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    invalid("a TLS hello", "\x16\x03\x01\x02\0\x01\0\r\n\r\n"),
    invalid("an asterisk", "OPTIONS * HTTP/1.1\r\n{fields}\r\n"),
    case("CONNECT", "CONNECT a{n}:1 HTTP/1.1\r\n{fields}\r\n", 405, "method_not_allowed"),
    case("TRACE", "TRACE {path} HTTP/1.1\r\n{fields}\r\n", 405, "method_not_allowed"),
];

/// Requests that are well-formed and still not served.
const FORBIDDEN: &[Case] = &[
    case("OPTIONS", "OPTIONS {path} HTTP/1.1\r\n{fields}\r\n", 405, "method_not_allowed"),
    case("an unknown method", "PROPFIND {path} HTTP/1.1\r\n{fields}\r\n", 405, "method_not_allowed"),
    case("a method in lower case", "get {path} HTTP/1.1\r\n{fields}\r\n", 405, "method_not_allowed"),
    case(
        "a foreign host",
        "GET {path} HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {token}\r\n\r\n",
        403,
        "host_not_allowed",
    ),
    case(
        "a foreign port",
        "GET {path} HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer {token}\r\n\r\n",
        403,
        "host_not_allowed",
    ),
    case(
        "an empty host",
        "GET {path} HTTP/1.1\r\nHost: \r\nAuthorization: Bearer {token}\r\n\r\n",
        403,
        "host_not_allowed",
    ),
    case(
        "a name that resolves here",
        "GET {path} HTTP/1.1\r\nHost: localhost.evil.example\r\nAuthorization: Bearer {token}\r\n\r\n",
        403,
        "host_not_allowed",
    ),
    case(
        "a page",
        "GET {path} HTTP/1.1\r\n{fields}Origin: https://evil.example\r\n\r\n",
        403,
        "origin_not_allowed",
    ),
    case(
        "a local page",
        "GET {path} HTTP/1.1\r\n{fields}Origin: http://localhost\r\n\r\n",
        403,
        "origin_not_allowed",
    ),
    case(
        "a page in a sandbox",
        "GET {path} HTTP/1.1\r\n{fields}Origin: null\r\n\r\n",
        403,
        "origin_not_allowed",
    ),
    case(
        "an image of another site",
        "GET {path} HTTP/1.1\r\n{fields}Sec-Fetch-Site: cross-site\r\n\r\n",
        403,
        "origin_not_allowed",
    ),
    case(
        "an image of the same site",
        "GET {path} HTTP/1.1\r\n{fields}Sec-Fetch-Site: same-site\r\n\r\n",
        403,
        "origin_not_allowed",
    ),
    case(
        "an upgrade",
        "GET {path} HTTP/1.1\r\n{fields}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        426,
        "upgrade_unsupported",
    ),
    case(
        "an upgrade to HTTP/2",
        "GET {path} HTTP/1.1\r\n{fields}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        426,
        "upgrade_unsupported",
    ),
    invalid("dots", "GET /openai/v1/../v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a dot", "GET /openai/./v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("dots into another provider", "GET /openai/../anthropic/v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("escaped dots", "GET /openai/%2e%2e/v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("half-escaped dots", "GET /openai/.%2E/v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("an escaped slash", "GET /openai%2fv1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("an escaped backslash", "GET /openai/v1%5Cmodels/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a backslash", "GET /openai/v1\\models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("two slashes", "GET /openai//v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("two slashes in front", "GET //openai/v1/models/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a path parameter", "GET /openai/v1/models;x=1/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("an escaped semicolon", "GET /openai/v1/models%3bx/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("an escaped zero byte", "GET /openai/v1/models%00/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("an escaped line break", "GET /openai/v1/models%0d%0aX:1/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a doubly escaped slash", "GET /openai/v1%252fmodels/{n} HTTP/1.1\r\n{fields}\r\n"),
    invalid("a broken escape", "GET /openai/v1/models/{n}%zz HTTP/1.1\r\n{fields}\r\n"),
    invalid("a cut escape", "GET /openai/v1/models/{n}% HTTP/1.1\r\n{fields}\r\n"),
    invalid("a pipe", "GET /openai/v1/models/{n}|x HTTP/1.1\r\n{fields}\r\n"),
    invalid("raw UTF-8", "GET /openai/v1/models/{n}é HTTP/1.1\r\n{fields}\r\n"),
    invalid("a control byte", "GET /openai/v1/models/{n}\x01 HTTP/1.1\r\n{fields}\r\n"),
    case(
        "an unknown provider",
        "GET /opneai/v1/models/{n} HTTP/1.1\r\n{fields}\r\n",
        404,
        "unknown_provider",
    ),
    case(
        "a provider in another case",
        "GET /OpenAI/v1/models/{n} HTTP/1.1\r\n{fields}\r\n",
        404,
        "unknown_provider",
    ),
    case("no provider", "GET / HTTP/1.1\r\n{fields}\r\n", 400, "invalid_route"),
    case(
        "an endpoint of ours that is none",
        "GET /__tokfence/{n} HTTP/1.1\r\n{fields}\r\n",
        400,
        "invalid_route",
    ),
    case("no capability", "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, "missing_capability"),
    case(
        "a capability that is none",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer tfk_no\r\n\r\n",
        401,
        "invalid_capability",
    ),
    case(
        "a real key",
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-real-openai-0SENTINEL0-AAAA\r\n\r\n",
        401,
        "invalid_capability",
    ),
];

/// A gateway whose provider is never to hear anything.
fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    &GATEWAY
}

fn bytes(case: &Case, number: usize) -> Vec<u8> {
    let token = &gateway().token;
    let fields = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
    let number = number.to_string();
    case.head
        .replace("{path}", "/openai/v1/models/{n}")
        .replace("{n}", &number)
        .replace("{fields}", &fields)
        .replace("{token}", token)
        .into_bytes()
}

/// Both ways in.
fn ways_in() -> [(Transport, fn() -> Client); 2] {
    [(Transport::Tcp, || gateway().tcp()), (Transport::Unix, || gateway().unix())]
}

/// How many refusals of requests for this path the log has.
fn repeats_of_path(path: &str) -> u64 {
    let rows = gateway().rows();
    rows.iter().filter(|row| row.request.path.as_str() == path).map(|row| row.repeats).sum()
}

/// Sends every case both ways, each with something behind it where `follow_up` is given, and checks answer, row
/// and that the provider heard nothing.
fn check_refusals(cases: &[Case], first: usize, follow_up: &[u8]) {
    let mut number = first;
    for case in cases {
        for (transport, connect) in ways_in() {
            number += 1;
            let mut client = connect();
            client.send(&[bytes(case, number), follow_up.to_vec()].concat());
            let refusal = client.try_response();
            let refusal = refusal.unwrap_or_else(|error| panic!("{} by {transport:?}: {error}", case.name));
            let shown = format!("{} by {transport:?}: {} {}", case.name, refusal.status(), refusal.text());
            assert_eq!(refusal.status(), case.status, "{shown} {:?}", refusal.head);
            let refusal = refusal.expect_refusal(case.status, case.code);
            assert_eq!(refusal.head.get("x-should-retry"), Some("false"), "{shown}");
            assert_eq!(refusal.head.has("upgrade"), case.status == 426, "{shown}");
            assert_eq!(refusal.head.has("allow"), case.status == 405, "{shown}");
            if !follow_up.is_empty() {
                assert_eq!(refusal.head.get("connection"), Some("close"), "{shown}");
                client.expect_end();
            }
            let path = case.head.split(' ').nth(1).unwrap_or_default();
            if !path.contains('{') {
                // Equal refusals share a row, so each of them cannot be found by its id.
                let path = path.split('\r').next().unwrap_or_default();
                eventually(&shown, || (repeats_of_path(path) >= 1).then_some(()));
                continue;
            }
            let row = gateway().row(&refusal.id()).request;
            assert_eq!(row.outcome, Outcome::Refused, "{shown}");
            assert_eq!(row.status, Some(case.status), "{shown}");
            assert_eq!(row.error_code.as_deref(), Some(case.code), "{shown}");
            assert_eq!(row.transport, transport, "{shown}");
            assert!(!row.path.as_str().contains(&gateway().token), "{shown}");
        }
    }
    assert_eq!((gateway().mock.connections(), gateway().mock.bytes()), (0, 0));
}

#[test]
fn an_ambiguous_head_is_refused_and_nothing_after_it_is_a_request() {
    let smuggled = Request::get("/openai/v1/models/smuggled").bearer(&gateway().token).bytes();
    check_refusals(AMBIGUOUS, 0, &smuggled);
    let rows = gateway().rows();
    assert!(!rows.iter().any(|row| row.request.path.as_str().contains("smuggled")));
}

#[test]
fn what_is_well_formed_and_not_allowed_is_refused_with_its_reason() {
    check_refusals(FORBIDDEN, 1000, b"");
}

#[test]
fn a_head_of_too_many_fields_or_bytes_is_refused() {
    let many: String = (0..99).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(64 * 1024));
    for (_, connect) in ways_in() {
        for extra in [&many, &long] {
            let mut client = connect();
            let head = Request::get("/openai/v1/models").bearer(&gateway().token).head();
            let head = [&head[..head.len() - 2], extra.as_bytes(), b"\r\n"].concat();
            // The refusal may come before all of it is read.
            let _ = client.try_send(&head);
            let refusal = client.response().expect_refusal(431, "header_too_large");
            assert_eq!(refusal.head.get("connection"), Some("close"));
            client.expect_end();
        }
    }
    assert_eq!(gateway().mock.connections(), 0);
}

#[test]
fn a_hundred_fields_and_nearly_64_kib_are_served() {
    let gateway = Gateway::shared();
    let many: String = (0..98).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(63 * 1024));
    for extra in [many, long] {
        let head = Request::get("/openai/v1/models").bearer(&gateway.token).head();
        let mut client = gateway.tcp();
        client.send(&[&head[..head.len() - 2], extra.as_bytes(), b"\r\n"].concat());
        client.response().expect(200);
    }
}

#[test]
fn the_port_that_is_served_is_a_host_and_so_are_all_loopback_names() {
    let gateway = Gateway::shared();
    let port = gateway.address.port();
    for host in ["localhost", "127.0.0.1", "[::1]", "LocalHost"] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let head = format!(
                "GET /openai/v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\r\n",
                gateway.token
            );
            let mut client = gateway.tcp();
            client.send(head.as_bytes());
            client.response().expect(200);
        }
    }
}

#[test]
fn what_sdks_of_browsers_platforms_send_is_served() {
    let gateway = Gateway::shared();
    let request =
        Request::get("/openai/v1/models").field("Sec-Fetch-Mode", "cors").field("Accept-Language", "*");
    gateway.ask(request).expect(200);
}

#[test]
fn requests_of_one_connection_are_answered_in_their_order() {
    let gateway = Gateway::shared();
    let scripts: Vec<String> = (0..5).map(|n| gateway.mock.plays(json(format!("{{\"n\":{n}}}")))).collect();
    for mut client in [gateway.tcp(), gateway.unix()] {
        let request = |script: &String| {
            let body = r#"{"model":"m","messages":[]}"#;
            Request::post("/openai/v1/chat/completions", body).bearer(&gateway.token).script(script).bytes()
        };
        client.send(&scripts.iter().map(request).collect::<Vec<_>>().concat());
        for n in 0..5 {
            assert_eq!(client.response().expect(200).json()["n"], n);
        }
    }
    assert!(scripts.iter().all(|script| gateway.mock.received(script).len() == 2));
}

#[test]
fn a_body_is_a_body_even_if_it_looks_like_a_request() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json("{}"));
    let inner = Request::get("/openai/v1/models/inner").bearer(&gateway.token).script(&script).bytes();
    let mut client = gateway.tcp();
    let refused = Request::new("POST", "/openai/v1/chat/completions")
        .bearer(&gateway.token)
        .field("Content-Type", "text/plain")
        .body(inner);
    client.ask(&refused).expect_refusal(415, "unsupported_media");
    let next = Request::get("/openai/v1/models/next").bearer(&gateway.token).script(&script);
    client.ask(&next).expect(200);
    assert_eq!(gateway.mock.the_request(&script).line(), "GET /v1/models/next HTTP/1.1");
}

#[test]
fn nothing_after_a_chunked_body_is_a_request() {
    let gateway = Gateway::shared();
    let (first, second) = (gateway.mock.plays(json("{}")), gateway.mock.plays(json("{}")));
    let body = r#"{"model":"m","messages":[]}"#;
    let head = Request::new("POST", "/openai/v1/chat/completions")
        .bearer(&gateway.token)
        .script(&first)
        .field("Content-Type", "application/json")
        .field("Transfer-Encoding", "chunked")
        .head();
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let next = Request::get("/openai/v1/models").bearer(&gateway.token).script(&second).bytes();
    let mut client = gateway.tcp();
    client.send(&[head, chunks.into_bytes(), next].concat());
    client.response().expect(200);
    client.expect_end();
    assert_eq!(gateway.mock.the_request(&first).text(), body);
    assert!(gateway.mock.received(&second).is_empty());
}

#[test]
fn a_caller_that_wants_to_close_gets_the_connection_closed() {
    let gateway = Gateway::shared();
    let mut client = gateway.tcp();
    let request = Request::get("/openai/v1/models").bearer(&gateway.token).field("Connection", "close");
    client.ask(&request).expect(200);
    client.expect_end();
}

#[test]
fn a_head_that_does_not_end_is_answered_after_ten_seconds() {
    let gateway = gateway();
    // Not before it is there: the first who asks for it waits for its start.
    let started = Instant::now();
    let trickle = || {
        let mut client = gateway.tcp();
        for byte in b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n".iter().cycle() {
            if client.try_send(&[*byte]).is_err() || started.elapsed() > Duration::from_millis(9_700) {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        client.response().expect_refusal(408, "request_timeout");
        client.expect_end();
    };
    trickle();
    assert!(started.elapsed() < Duration::from_secs(13), "{:?}", started.elapsed());
    assert_eq!(gateway.mock.connections(), 0);
}

#[test]
fn health_tells_that_we_are_here_and_nothing_else() {
    let gateway = Gateway::shared();
    for mut client in [gateway.tcp(), gateway.unix()] {
        let health = client.ask(&Request::get("/__tokfence/health")).expect(200);
        assert_eq!(health.json(), serde_json::json!({ "name": "tokfence", "status": "ok" }));
        let foreign = Request::get("/__tokfence/health").field("Origin", "http://evil.example");
        client.ask(&foreign).expect_refusal(403, "origin_not_allowed");
    }
}

#[test]
fn head_requests_have_no_body_either_way() {
    let gateway = Gateway::shared();
    let mut client = gateway.tcp();
    client.send(&Request::new("HEAD", "/openai/v1/models").bytes());
    assert_eq!(client.bodiless_response().status(), 401);
    client.ask(&Request::get("/__tokfence/health")).expect(200);
}
