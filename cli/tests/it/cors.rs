//! Web pages that the owner lists: a browser lets them ask and read, by the CORS protocol. `boundary` and
//! `tests/browser` have what all others meet.

use crate::support::{Gateway, Request, Response, Setup};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
const PAGE: &str = "http://page.example";
/// What a browser sends ahead of a request with a capability.
const ASKS: &[(&str, &str)] =
    &[("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization,x-a")];

fn gateway() -> Gateway {
    let daemon = format!("allowed_origins = [\"{PAGE}\"]");
    Gateway::start_with(&Setup { daemon, ..Setup::default() })
}

fn preflight(gateway: &Gateway, origin: &str) -> Response {
    let request = Request::new("OPTIONS", CHAT).field("Origin", origin);
    let request = ASKS.iter().fold(request, |request, (name, value)| request.field(name, value));
    let mut client = gateway.tcp();
    client.send(&request.bytes());
    client.response()
}

fn may_read(response: &Response) -> Option<&str> {
    response.head.get("access-control-allow-origin")
}

#[test]
fn a_browser_is_told_that_a_listed_page_may_ask() {
    let gateway = gateway();
    let told = preflight(&gateway, PAGE).expect(204);
    assert_eq!(may_read(&told), Some(PAGE));
    assert_eq!(told.head.get("access-control-allow-headers"), Some("authorization,x-a"));
    assert_eq!(told.head.get("access-control-allow-methods"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert_eq!(told.head.get("vary"), Some("Origin"));
    // The browser's own credentials are no business of ours.
    assert!(!told.head.has("access-control-allow-credentials"));
    assert_eq!(gateway.mock.connections(), 0);
}

#[test]
fn a_listed_page_reads_answers_and_refusals_and_needs_a_capability() {
    let gateway = gateway();
    let ask = || Request::post(CHAT, BODY).field("Origin", PAGE);
    assert_eq!(may_read(&gateway.ask(ask()).expect(200)), Some(PAGE));
    let refused = gateway.tcp().ask(&ask());
    assert_eq!(may_read(&refused), Some(PAGE));
    assert_eq!((refused.status(), refused.code().as_str()), (401, "missing_capability"));
    // Who is no page is told nothing of pages.
    assert_eq!(may_read(&gateway.ask(Request::post(CHAT, BODY)).expect(200)), None);
}

#[test]
fn a_page_that_is_not_listed_may_neither_ask_nor_read() {
    let gateway = gateway();
    let refused = preflight(&gateway, "http://other.example");
    assert_eq!(may_read(&refused), None);
    refused.expect_refusal(403, "origin_not_allowed");
    // Without the question it is a method that nobody may have, for a listed page as well.
    let mut client = gateway.tcp();
    client
        .ask(&Request::new("OPTIONS", CHAT).field("Origin", PAGE))
        .expect_refusal(405, "method_not_allowed");
}
