//! What a caller may take up: connections, memory, time, guesses, rows of the log. Whoever wants more is refused, others
//! are served meanwhile, and what was taken is given back however it ends.

use std::time::{Duration, Instant};

use policy::Transport;
use storage::Outcome;

use crate::support::{Client, Gateway, KEYS, Request, Setup, Then, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
const KIB: usize = 1024;

/// A gateway with these lines in `[limits]`.
fn limited(limits: &str) -> Gateway {
    let tables = format!("[limits]\n{limits}");
    Gateway::start_with(&Setup { tables, metrics: "127.0.0.1:0", ..Setup::default() })
}

/// Both ways in.
fn ways_in(gateway: &Gateway) -> [(Transport, Client); 2] {
    [(Transport::Tcp, gateway.tcp()), (Transport::Unix, gateway.unix())]
}

fn health(mut client: Client) -> (u16, Client) {
    let status = client.ask(&Request::get("/__tokfence/health")).status();
    (status, client)
}

/// A figure of the gateway's, as it is now.
fn figure(gateway: &Gateway, name: &str) -> usize {
    let status = gateway.run(["--json", "status"]).expect(0).json();
    let address = status["metrics"].as_str().unwrap().replace("http://", "").replace("/metrics", "");
    let figures = Client::tcp(address.parse().unwrap()).ask(&Request::get("/metrics")).expect(200).text();
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn a_peer_has_its_share_of_the_connections_and_the_owner_needs_none() {
    let gateway = limited("connections = 4\nconnections_per_peer = 3");
    let mut idle: Vec<Client> = (0..3).map(|_| health(gateway.tcp()).1).collect();
    let mut refused = gateway.tcp();
    let refusal = refused.ask(&Request::get("/__tokfence/health")).expect_refusal(503, "overloaded");
    assert_eq!(refusal.head.get("retry-after"), Some("1"));
    refused.expect_end();
    let row = gateway.row(&refusal.id()).request;
    assert_eq!((row.outcome, row.status), (Outcome::Refused, Some(503)));
    assert!(figure(&gateway, r#"tokfence_refusals_total{code="overloaded"}"#) >= 1);

    let (status, socket) = health(gateway.unix());
    assert_eq!(status, 200, "another peer has its place");
    health(gateway.unix()).1.expect_end();
    assert_eq!(health(gateway.unix()).0, 503, "all places are taken");
    gateway.run(["kill"]).expect(0);
    gateway.run(["unkill"]).expect(0);
    drop((idle.pop(), socket));
    eventually("a free place", || (health(gateway.tcp()).0 == 200).then_some(()));
    for client in &mut idle {
        let request = Request::post(CHAT, BODY).bearer(&gateway.token);
        client.ask(&request).expect(200);
    }
}

/// A chat of about this many bytes.
fn chat_of(bytes: usize) -> Vec<u8> {
    BODY.replace("hi", &"a".repeat(bytes)).into_bytes()
}

#[test]
fn the_memory_for_bodies_is_counted_while_they_arrive() {
    let gateway = limited("memory = \"1 MiB\"");
    let half = || Request::post(CHAT, chat_of(700 * KIB)).bearer(&gateway.token);
    let bytes = half().bytes();
    let (most, rest) = bytes.split_at(600 * KIB);
    let mut first = gateway.tcp();
    first.send(most);
    let taken = || figure(&gateway, "tokfence_buffered_bytes");
    eventually("the body to be counted", || (taken() >= 590 * KIB).then_some(()));
    // The room that is kept for what has been announced is never more than twice of what has come. With it counts what the
    // engine has of any body, twice 64 KiB.
    assert!((718 * KIB..=838 * KIB).contains(&taken()), "{}", taken());
    for (_, mut client) in ways_in(&gateway) {
        // The refusal may come before all of it is read.
        let _ = client.try_send(&half().bytes());
        let refusal = client.response().expect_refusal(503, "overloaded");
        assert_eq!(refusal.head.get("retry-after"), Some("1"));
        assert!(!refusal.head.has("x-should-retry"));
    }
    first.send(rest);
    first.response().expect(200);
    gateway.unix().ask(&half()).expect(200);
    eventually("all to be given back", || (taken() == 0).then_some(()));
}

#[test]
fn a_short_body_counts_with_the_buffers_that_it_goes_through() {
    let gateway = limited("memory = \"1 MiB\"");
    let request = Request::post(CHAT, chat_of(60 * KIB)).bearer(&gateway.token);
    let bytes = request.bytes();
    let mut held = gateway.unix();
    held.send(&bytes[..bytes.len() - 1]);
    let taken = || figure(&gateway, "tokfence_buffered_bytes");
    eventually("the body to be counted", || (taken() >= 180 * KIB).then_some(()));
    assert!(taken() <= 192 * KIB, "{}", taken());
    held.send(&bytes[bytes.len() - 1..]);
    held.response().expect(200);
    eventually("all to be given back", || (taken() == 0).then_some(()));
}

#[test]
fn the_memory_for_bodies_is_given_back_however_a_request_ends() {
    let gateway = limited("memory = \"1 MiB\"\nbody_timeout = \"1s\"");
    let body = chat_of(600 * KIB);
    let request = || Request::post(CHAT, body.clone()).bearer(&gateway.token);
    let breaks = gateway.mock.script(|_, _| Ok(Then::Reset));
    let mut not_json = body.clone();
    not_json[0] = b'[';
    for round in 0..4 {
        for (_, mut client) in ways_in(&gateway) {
            // It leaves within its body.
            client.send(&request().bytes()[..500 * KIB]);
        }
        eventually("all to be given back", || {
            (figure(&gateway, "tokfence_buffered_bytes") == 0).then_some(())
        });
        // It stops within its body, is refused, breaks off, is answered.
        let mut stops = gateway.tcp();
        stops.send(&request().bytes()[..500 * KIB]);
        stops.response().expect_refusal(408, "request_timeout");
        let bad = Request::post(CHAT, not_json.clone()).bearer(&gateway.token);
        gateway.tcp().ask(&bad).expect_refusal(400, "invalid_request");
        gateway.unix().ask(&request().script(&breaks)).expect_refusal(502, "upstream_reset");
        gateway.tcp().ask(&request()).expect(200);
        eventually(&format!("all to be given back in round {round}"), || {
            (figure(&gateway, "tokfence_buffered_bytes") == 0).then_some(())
        });
    }
}

#[test]
fn a_head_and_a_body_have_their_time() {
    let gateway = limited("head_timeout = \"300ms\"\nbody_timeout = \"600ms\"");
    let bytes = Request::post(CHAT, BODY).bearer(&gateway.token).bytes();
    let head = bytes.len() - BODY.len();
    for sent in [1, 10, head - 1, head, head + 1, bytes.len() - 1] {
        for (transport, mut client) in ways_in(&gateway) {
            let started = Instant::now();
            client.send(&bytes[..sent]);
            client.response().expect_refusal(408, "request_timeout");
            client.expect_end();
            let took = started.elapsed();
            let least = Duration::from_millis(if sent < head { 300 } else { 600 });
            assert!((least..Duration::from_secs(5)).contains(&took), "{sent} by {transport:?}: {took:?}");
        }
    }
    // Equal refusals share a row.
    gateway.rest();
    let rows = gateway.rows();
    let is_slow = |code: Option<&str>| code == Some("request_timeout");
    assert!(rows.iter().all(|row| is_slow(row.request.error_code.as_deref())), "{rows:?}");
    assert_eq!(rows.iter().map(|row| row.repeats).sum::<u64>(), 12);
    assert_eq!(gateway.mock.connections(), 0);
}

#[test]
fn a_body_that_trickles_has_no_more_time_than_one_that_stops() {
    let gateway = limited("body_timeout = \"1s\"");
    let bytes = Request::post(CHAT, BODY).bearer(&gateway.token).bytes();
    let (head, body) = bytes.split_at(bytes.len() - BODY.len());
    for (_, mut client) in ways_in(&gateway) {
        let started = Instant::now();
        client.send(head);
        for byte in body {
            if client.try_send(&[*byte]).is_err() || started.elapsed() > Duration::from_millis(1_200) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        client.response().expect_refusal(408, "request_timeout");
        client.expect_end();
    }
    assert_eq!(gateway.mock.connections(), 0);
}

/// How much the daemon has in memory, from the kernel.
#[cfg(target_os = "linux")]
fn resident_kib(gateway: &Gateway) -> usize {
    let pid = gateway.home.daemon_pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_caller_that_does_not_read_is_cut_off_and_holds_little_until_then() {
    const CALLERS: usize = 20;
    let gateway = limited("stall_timeout = \"2s\"");
    let endless = gateway.mock.script(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let event =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "a".repeat(8_000));
        let piece = crate::support::chunk(event);
        // Until the gateway ends the connection, as it must.
        for _ in 0..20_000 {
            conn.send(&piece)?;
        }
        Ok(Then::Close)
    });
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    let before = resident_kib(&gateway);
    let body = r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#;
    let ask = |mut client: Client| {
        client.send(&Request::post(CHAT, body).bearer(&gateway.token).script(&endless).bytes());
        client
    };
    let callers: Vec<Client> =
        (0..CALLERS).map(|n| ask(if n % 2 == 0 { gateway.tcp() } else { gateway.unix() })).collect();
    let gone = || gateway.rows().into_iter().filter(|row| row.request.outcome == Outcome::ClientGone).count();
    let mut most = before;
    eventually("every caller to be cut off", || {
        most = most.max(resident_kib(&gateway));
        (gone() == CALLERS).then_some(())
    });
    let growth = most - before;
    assert!(growth <= CALLERS * KIB, "{growth} KiB for {CALLERS} callers");
    assert_eq!(gateway.ask(Request::post(CHAT, BODY)).status(), 200);
    drop(callers);
}

#[test]
fn guesses_slow_down_their_connection_and_nobody_else() {
    let gateway = Gateway::start();
    for (transport, mut guesser) in ways_in(&gateway) {
        let mut honest = if transport == Transport::Tcp { gateway.tcp() } else { gateway.unix() };
        let started = Instant::now();
        for guess in 1..=8 {
            let token = format!("tfk_{guess:032}");
            let refusal = guesser
                .ask(&Request::post(CHAT, BODY).bearer(&token))
                .expect_refusal(401, "invalid_capability");
            let is_last = refusal.head.get("connection") == Some("close");
            assert_eq!(is_last, guess == 8, "{transport:?}: guess {guess}");
            if guess == 3 {
                assert!(started.elapsed() < Duration::from_millis(900), "the first ones are not slowed down");
            }
            honest.ask(&Request::post(CHAT, BODY).bearer(&gateway.token)).expect(200);
        }
        assert!(started.elapsed() >= Duration::from_millis(1_500), "{transport:?}: {:?}", started.elapsed());
        guesser.expect_end();
    }
}

#[test]
fn a_flood_of_refusals_fills_neither_the_log_nor_the_disk() {
    const REFUSALS: usize = 6_000;
    let gateway = Gateway::start();
    let size = || std::fs::metadata(gateway.home.file("tokfence.db")).unwrap().len();
    let before = size();
    let mut client = gateway.tcp();
    for number in 0..REFUSALS / 100 {
        let path = "x".repeat(400);
        let requests: Vec<Vec<u8>> =
            (0..100).map(|n| Request::get(&format!("/nobody/{path}/{number}/{n}")).bytes()).collect();
        client.send(&requests.concat());
        (0..100).for_each(|_| drop(client.response().expect_refusal(404, "unknown_provider")));
    }
    gateway.rest();
    let rows = gateway.rows();
    let repeats: u64 = rows.iter().map(|row| row.repeats).sum();
    assert_eq!(repeats, REFUSALS as u64, "every one is counted");
    assert!(rows.len() <= 256 + 20, "{} rows", rows.len());
    assert!(size() - before <= 1024 * 1024, "{} bytes more", size() - before);
}

#[test]
fn a_head_that_is_refused_is_counted_like_any_other() {
    let gateway = limited("");
    for (_, mut client) in ways_in(&gateway) {
        client.send(b"GET / HTTP/1.0\r\n\r\n");
        client.response().expect_refusal(400, "invalid_request");
    }
    assert_eq!(figure(&gateway, r#"tokfence_refusals_total{code="invalid_request"}"#), 2);
}

#[test]
fn a_key_in_a_head_that_is_refused_is_not_logged() {
    let gateway = Gateway::start();
    let key = KEYS[0].key;
    for head in [
        format!("GET /openai/{key} HTTP/1.0\r\n\r\n"),
        format!("{key} /openai/v1/models HTTP/1.0\r\n\r\n"),
        format!("{key} /openai/v1/models/x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        for (_, mut client) in ways_in(&gateway) {
            client.send(head.as_bytes());
            assert!(matches!(client.response().status(), 400 | 405));
        }
    }
    // A row may come after its answer.
    let is_all = |rows: &Vec<storage::LoggedRequest>| rows.iter().map(|row| row.repeats).sum::<u64>() == 6;
    let rows = eventually("six refusals", || Some(gateway.rows()).filter(is_all));
    assert!(rows.iter().all(|row| !format!("{row:?}").contains(&key[..16])), "{rows:?}");
}
