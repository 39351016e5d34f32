//! Providers that fail, misbehave, or try to act on the caller.

use std::net::Shutdown;
use std::sync::LazyLock;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use policy::Basis;
use storage::Outcome;

use crate::support::{
    Authority, Conn, Gateway, Mock, PATIENCE, Request, Response, Setup, Then, answer, answer_with, json,
};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A gateway that does not wait for long.
fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        Gateway::start_with(&Setup {
            provider: "first_byte_timeout = \"1s\"\nidle_timeout = \"1s\"\nconnect_timeout = \"2s\""
                .to_owned(),
            // Nobody listens on the first port.
            tables: "[providers.dead]\nupstream = \"http://127.0.0.1:1\"\nlocal = true\nauth = \"none\""
                .to_owned(),
            ..Setup::default()
        })
    });
    &GATEWAY
}

/// Sends a chat request to a provider that plays `script`, and checks that it is sent once.
#[track_caller]
fn ask(script: impl Fn(&mut Conn) -> std::io::Result<Then> + Send + Sync + 'static) -> Response {
    let gateway = gateway();
    let script = gateway.mock.script(move |_, conn| script(conn));
    let response = gateway.ask(Request::post(CHAT, BODY).script(&script));
    let times = gateway.mock.received(&script).len();
    assert_eq!(times, 1, "a request is sent once: {:?} {}", response.head, response.text());
    response
}

#[track_caller]
fn check_failure(
    status: u16,
    code: &str,
    script: impl Fn(&mut Conn) -> std::io::Result<Then> + Send + Sync + 'static,
) {
    let failure = ask(script).expect_refusal(status, code);
    assert!(!failure.head.has("x-should-retry"), "a provider may recover");
    let row = gateway().row(&failure.id()).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::UpstreamError, Some(code)));
    assert_eq!(row.status, Some(status));
    // It had the whole request, so it may bill it.
    assert_eq!(row.basis, Basis::Estimated);
    assert!(row.usage.input > 0);
}

#[test]
fn a_provider_that_refuses_connections_is_unreachable() {
    let request = Request::post("/dead/v1/chat/completions", BODY);
    let failure = gateway().ask(request).expect_refusal(502, "upstream_unreachable");
    let row = gateway().row(&failure.id()).request;
    assert_eq!((row.outcome, row.basis), (Outcome::UpstreamError, Basis::None));
    assert_eq!(row.cost.map(policy::NanoUsd::nanos), Some(0));
}

#[test]
fn a_connection_reset_before_the_answer_is_told() {
    check_failure(502, "upstream_reset", |_| Ok(Then::Reset));
}

#[test]
fn a_connection_closed_before_the_answer_is_told() {
    check_failure(502, "upstream_reset", |_| Ok(Then::Close));
}

#[test]
fn half_a_head_is_no_answer() {
    check_failure(502, "upstream_reset", |conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: app")?;
        Ok(Then::Close)
    });
}

#[test]
fn what_is_not_http_is_no_answer() {
    check_failure(502, "upstream_reset", |conn| {
        conn.send("SSH-2.0-OpenSSH_9.2\r\n\r\n")?;
        Ok(Then::Close)
    });
}

#[test]
fn a_head_without_an_end_is_no_answer() {
    check_failure(502, "upstream_reset", |conn| {
        conn.send("HTTP/1.1 200 OK\r\n")?;
        for n in 0..40_000 {
            // When the gateway has had enough, this ends.
            if conn.send(format!("X-{n}: {}\r\n", "a".repeat(100))).is_err() {
                break;
            }
        }
        Ok(Then::Close)
    });
}

#[test]
fn a_provider_that_does_not_answer_is_given_up_in_time() {
    let started = Instant::now();
    check_failure(504, "upstream_timeout", |conn| {
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn the_first_byte_and_a_pause_have_limits_of_their_own() {
    let answer_late = Gateway::start_with(&Setup {
        provider: "first_byte_timeout = \"1s\"\nidle_timeout = \"5m\"".to_owned(),
        ..Setup::default()
    });
    let silent = answer_late.mock.script(|_, conn| {
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    answer_late.ask(Request::post(CHAT, BODY).script(&silent)).expect_refusal(504, "upstream_timeout");

    let pause = Gateway::start_with(&Setup {
        provider: "first_byte_timeout = \"5m\"\nidle_timeout = \"1s\"".to_owned(),
        ..Setup::default()
    });
    let stalled = pause.mock.script(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        conn.send("a\r\ndata: {}\n\n\r\n")?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let mut client = pause.tcp();
    client.send(&Request::post(CHAT, BODY).bearer(&pause.token).script(&stalled).bytes());
    let head = client.head();
    assert!(client.try_body().is_err(), "the caller must see that the answer is not whole");
    let row = pause.row(head.get("x-tokfence-request-id").unwrap()).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::UpstreamError, Some("upstream_timeout")));
}

/// An answer whose body breaks off must not look whole to the caller.
#[track_caller]
fn check_cut(head: &'static str, part: &'static str, then: Then) {
    let gateway = gateway();
    let script = gateway.mock.script(move |_, conn| {
        conn.send(head)?;
        conn.send(part)?;
        Ok(then)
    });
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).bytes());
    let head = client.try_head().unwrap_or_else(|error| panic!("{part:?} {then:?}: {error}"));
    assert_eq!(head.status, 200);
    assert!(client.try_body().is_err(), "the caller must see that the answer is not whole");
    assert_eq!(gateway.mock.received(&script).len(), 1, "a request is sent once");
    let row = gateway.row(head.get("x-tokfence-request-id").unwrap()).request;
    assert_eq!((row.outcome, row.basis), (Outcome::UpstreamError, Basis::Estimated));
    assert!(row.usage.input > 0);
}

#[test]
fn a_body_that_breaks_off_breaks_off_for_the_caller() {
    let sized = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_cut(sized, "{\"choices\":[", Then::Close);
    check_cut(sized, "{\"choices\":[", Then::Reset);
    check_cut(chunked, "10\r\ndata: {\"choices\"\r\n", Then::Close);
    check_cut(chunked, "a\r\ndata: {}\n\n\r\n", Then::Close);
    check_cut(chunked, "a\r\ndata: {}\n\n\r\n", Then::Reset);
    check_cut(chunked, "a\r\ndata: {}\n\n\r\nzz\r\n", Then::Close);
}

#[test]
fn a_request_is_not_sent_again_when_a_kept_connection_ends_under_it() {
    let gateway = Gateway::start();
    for then in [Then::Close, Then::Reset] {
        let first = gateway.mock.plays(json("{}"));
        let answered = gateway.ask(Request::post(CHAT, BODY).script(&first)).expect(200);
        // Its row comes when the engine is done with it; the caller has its answer a moment before.
        gateway.row(&answered.id());
        let kept = gateway.mock.the_request(&first).connection;
        let script = gateway.mock.script(move |_, _| Ok(then));
        let failure = gateway.ask(Request::post(CHAT, BODY).script(&script));
        failure.expect_refusal(502, "upstream_reset");
        let received = gateway.mock.the_request(&script);
        assert_eq!(received.connection, kept, "the connection was kept");
    }
}

#[test]
fn a_kept_connection_that_has_ended_is_not_used() {
    let gateway = Gateway::start();
    let (ended, is_ended) = channel();
    let first = gateway.mock.script(move |_, conn| {
        conn.send(json("{}"))?;
        conn.shut_down(Shutdown::Write);
        ended.send(conn.is_closed_by_peer()).unwrap();
        Ok(Then::Close)
    });
    gateway.ask(Request::post(CHAT, BODY).script(&first)).expect(200);
    assert!(is_ended.recv_timeout(PATIENCE).unwrap());
    let second = gateway.mock.plays(json("{}"));
    gateway.ask(Request::post(CHAT, BODY).script(&second)).expect(200);
}

#[test]
fn a_redirect_is_passed_on_and_not_followed() {
    let elsewhere = Mock::start();
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("Location: http://{}/v1/chat/completions\r\n", elsewhere.address);
        let bytes = answer_with(status, &location, "");
        let response = ask(move |conn| conn.send(&bytes).map(|()| Then::Keep));
        assert_eq!(response.status().to_string(), status[..3]);
        assert!(response.head.has("location"));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn what_acts_on_the_caller_is_left_out_of_an_answer() {
    let fields = "Content-Type: application/json\r\n\
        Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nAlt-Svc: h3=\":443\"\r\nAccess-Control-Allow-Origin: *\r\n\
        Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Private-Network: true\r\n\
        Proxy-Authenticate: Basic\r\nClear-Site-Data: \"*\"\r\nRefresh: 0;url=http://evil.example\r\n\
        Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nServer: secret/1\r\n\
        Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Tokfence-Request-Id: forged\r\n\
        X-Tokfence-Cost-Usd: 0\r\nX-Request-Id: req_1\r\nRetry-After: 3\r\n\
        X-Ratelimit-Remaining-Tokens: 10\r\nOpenai-Processing-Ms: 7\r\n";
    let bytes = answer_with("200 OK", fields, "{}");
    let response = ask(move |conn| conn.send(&bytes).map(|()| Then::Keep)).expect(200);
    let mut names: Vec<&str> = response.head.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "connection",
        "content-length",
        "content-type",
        "date",
        "openai-processing-ms",
        "retry-after",
        "x-ratelimit-remaining-tokens",
        "x-request-id",
        "x-tokfence-request-id",
    ];
    assert_eq!(names, expected);
    assert_ne!(response.id(), "forged");
    assert_eq!(response.head.get("connection"), Some("keep-alive"));
}

#[test]
fn interim_answers_bring_nothing_with_them() {
    let gateway = gateway();
    let script = gateway.mock.script(|_, conn| {
        conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        conn.send("HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nLink: </x>; rel=preload\r\n\r\n")?;
        conn.send(json("{}"))?;
        Ok(Then::Keep)
    });
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).bytes());
    loop {
        let head = client.head();
        assert!(!head.has("set-cookie"), "{head:?}");
        if head.status >= 200 {
            assert_eq!(head.status, 200);
            break;
        }
    }
    assert_eq!(client.try_body().unwrap(), b"{}");
}

#[test]
fn interim_answers_without_end_are_no_answer() {
    for line in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"] {
        check_failure(502, "upstream_reset", move |conn| {
            for _ in 0..1_000 {
                // When the gateway has had enough, this ends.
                if conn.send(line).is_err() {
                    return Ok(Then::Close);
                }
            }
            // Nothing that comes after them is an answer.
            conn.send(json("{}"))?;
            Ok(Then::Close)
        });
    }
}

#[test]
fn the_head_of_an_answer_has_64_kib() {
    let answer_of = |bytes: usize| {
        let fields: String =
            (0..bytes / 1_024).map(|n| format!("X-{n:04}: {}\r\n", "a".repeat(1_016))).collect();
        answer_with("200 OK", &format!("Content-Type: application/json\r\n{fields}"), "{}")
    };
    let small = answer_of(60 * 1_024);
    ask(move |conn| conn.send(&small).map(|()| Then::Keep)).expect(200);
    check_failure(502, "upstream_reset", move |conn| conn.send(answer_of(66 * 1_024)).map(|()| Then::Keep));
}

#[test]
fn a_caller_is_answered_in_its_own_version() {
    for head in ["HTTP/1.0 200 OK\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n"]
    {
        let gateway = gateway();
        let script = gateway.mock.script(move |_, conn| {
            conn.send(format!("{head}Content-Type: application/json\r\n\r\n{{}}"))?;
            Ok(Then::Close)
        });
        let mut client = gateway.tcp();
        client.send(&Request::post(CHAT, BODY).bearer(&gateway.token).script(&script).bytes());
        let head = client.head();
        assert_eq!((head.version.as_str(), head.status), ("HTTP/1.1", 200));
        assert_eq!(client.try_body().unwrap(), b"{}");
    }
}

#[test]
fn a_status_that_there_is_not_is_no_answer() {
    for status in [600, 999] {
        check_failure(502, "upstream_reset", move |conn| {
            conn.send(format!("HTTP/1.1 {status} OK\r\nContent-Length: 0\r\n\r\n"))?;
            Ok(Then::Keep)
        });
    }
}

#[test]
fn a_switch_of_protocols_is_no_answer() {
    check_failure(502, "upstream_reset", |conn| {
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        Ok(Then::Close)
    });
}

#[test]
fn a_providers_own_errors_are_the_callers() {
    for (status, fields) in [
        ("429 Too Many Requests", "Retry-After: 7\r\n"),
        ("500 Internal Server Error", ""),
        ("529 Overloaded", "X-Should-Retry: true\r\n"),
    ] {
        let bytes =
            answer_with(status, &format!("Content-Type: application/json\r\n{fields}"), "{\"error\":{}}");
        let response = ask(move |conn| conn.send(&bytes).map(|()| Then::Keep));
        assert_eq!(response.status().to_string(), status[..3]);
        assert_eq!(response.text(), "{\"error\":{}}");
        let row = gateway().row(&response.id()).request;
        assert_eq!((row.outcome, row.basis), (Outcome::Completed, Basis::None));
        assert_eq!(row.cost.map(policy::NanoUsd::nanos), Some(0));
    }
}

#[test]
fn an_answer_that_nobody_is_to_read_keeps_its_coding() {
    let tables = "[security]\nscan_responses = \"off\"\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    let squeezed: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let fields = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let bytes = answer_with("200 OK", fields, &squeezed);
    let script = gateway.mock.plays(bytes);
    let response = gateway.ask(Request::post(CHAT, BODY).script(&script)).expect(200);
    assert_eq!(response.head.get("content-encoding"), Some("gzip"));
    assert!(response.body == squeezed);
    assert_eq!(gateway.row(&response.id()).request.basis, Basis::Estimated);
}

#[test]
fn an_answer_without_a_body_has_none() {
    let response = ask(|conn| conn.send("HTTP/1.1 204 No Content\r\n\r\n").map(|()| Then::Keep));
    assert_eq!((response.status(), response.body.len()), (204, 0));
}

#[test]
fn bytes_after_an_answer_do_not_answer_the_next_request() {
    let gateway = Gateway::start();
    let poison = [json("{\"n\":1}"), json("{\"n\":\"poison\"}")].concat();
    let script = gateway.mock.plays(poison);
    let mut client = gateway.tcp();
    let request = |script: &str| Request::post(CHAT, BODY).bearer(&gateway.token).script(script);
    assert_eq!(client.ask(&request(&script)).expect(200).json()["n"], 1);
    for _ in 0..3 {
        let next = gateway.mock.plays(json("{\"n\":2}"));
        assert_eq!(gateway.tcp().ask(&request(&next)).expect(200).json()["n"], 2);
    }
}

#[test]
fn an_answer_with_both_lengths_reaches_the_caller_with_one() {
    let response = ask(|conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n")?;
        conn.send("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")?;
        Ok(Then::Close)
    });
    // The client of the tests refuses to read an answer with two lengths.
    assert!(matches!(response.status(), 200 | 502), "{}", response.status());
}

#[test]
fn a_certificate_is_trusted_only_from_the_authority_that_was_named() {
    let authority = Authority::for_server("localhost");
    let provider = Mock::start_tls(authority.server.clone());
    let port = provider.address.port();
    let home = tempfile::tempdir().unwrap();
    let ca_file = home.path().join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    let table = |name: &str, host: &str, ca: &str| {
        format!(
            "[providers.{name}]\nupstream = \"https://{host}:{port}\"\nlocal = true\nauth = \"none\"\n{ca}\n"
        )
    };
    let ca = format!("ca_file = {ca_file:?}");
    let tables = [
        table("unknown", "localhost", ""),
        table("known", "localhost", &ca),
        table("misnamed", "127.0.0.1", &ca),
    ];
    let gateway = Gateway::start_with(&Setup { tables: tables.concat(), ..Setup::default() });
    let script = provider.plays(json("{}"));
    let request = |name: &str| Request::post(&format!("/{name}/v1/chat/completions"), BODY).script(&script);
    for name in ["unknown", "misnamed"] {
        let failure = gateway.ask(request(name)).expect_refusal(502, "upstream_tls");
        assert_eq!(gateway.row(&failure.id()).request.basis, Basis::None);
    }
    assert!(provider.received(&script).is_empty());
    gateway.ask(request("known")).expect(200);
    assert_eq!(provider.the_request(&script).get("host"), Some(format!("localhost:{port}")));
}

#[test]
fn an_authority_in_the_environment_is_not_trusted() {
    let authority = Authority::for_server("localhost");
    let provider = Mock::start_tls(authority.server.clone());
    let gateway = Gateway::start_with(&Setup {
        tables: format!(
            "[providers.tls]\nupstream = \"https://localhost:{}\"\nlocal = true\nauth = \"none\"",
            provider.address.port()
        ),
        ..Setup::default()
    });
    let ca_file = gateway.home.file("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    gateway.run(["stop"]).expect(0);
    let start = gateway.home.command(["--json", "start", "-d"]);
    let proxy = format!("http://{}", provider.address);
    let start = start.env("SSL_CERT_FILE", &ca_file).env("HTTPS_PROXY", &proxy).env("ALL_PROXY", &proxy);
    let address = start.run().expect(0).json()["address"].as_str().unwrap().parse().unwrap();
    let request = Request::post("/tls/v1/chat/completions", BODY).bearer(&gateway.token);
    crate::support::Client::tcp(address).ask(&request).expect_refusal(502, "upstream_tls");
}

#[test]
fn an_answer_of_another_kind_than_json_is_passed_on() {
    let audio: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let bytes = answer_with("200 OK", "Content-Type: audio/mpeg\r\n", &audio);
    let response = ask(move |conn| conn.send(&bytes).map(|()| Then::Keep)).expect(200);
    assert!(response.body == audio);
    let bytes = answer("200 OK", "not JSON at all");
    let response = ask(move |conn| conn.send(&bytes).map(|()| Then::Keep)).expect(200);
    assert_eq!(response.text(), "not JSON at all");
}
