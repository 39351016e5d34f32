//! A request is cut wherever it is: connecting, waiting, silent, or with a caller that does not read.

use super::*;

#[test]
fn a_silent_stream_is_cut_and_its_provider_left() {
    let gateway = Gateway::shared();
    let (script, left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "\n\n");
    let revoked = stream.revoke();
    let (body, _) = stream.ends(revoked);
    assert_eq!(events(body.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 2);
    assert!(left.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked) < AT_ONCE);
}

#[test]
fn a_stream_that_has_only_begun_is_cut() {
    let gateway = Gateway::shared();
    let (script, _) = silent(&gateway.mock, "text/event-stream", &[]);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "");
    let revoked = stream.revoke();
    let (body, row) = stream.ends(revoked);
    assert_eq!(events(body.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 1);
    assert_eq!((row.basis, row.usage.output), (Basis::Estimated, 0));
}

#[test]
fn who_waits_for_the_first_byte_is_refused() {
    let gateway = Gateway::shared();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let script = gateway.mock.script(move |_, conn| {
        tell.lock().unwrap().send(Instant::now()).unwrap();
        tell_when_left(conn, &tell.lock().unwrap().clone().into());
        Ok(Then::Close)
    });
    let request = Request::post(CHAT, STREAM).script(&script);
    for (agent, request) in
        [("waits", request.clone()), ("waits-on", request.field("Expect", "100-continue"))]
    {
        let mut client = gateway.tcp();
        client.send(&request.bearer(&gateway.mint(&[agent])).bytes());
        told.recv_timeout(PATIENCE).unwrap();
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(refusal.head.get("x-should-retry"), Some("false"));
        client.expect_end();
        assert!(told.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked) < AT_ONCE);
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.status), (Outcome::Cut, Some(401)));
        // The provider had the whole request, so it may bill it.
        assert_eq!(row.basis, Basis::Estimated);
        assert!(row.usage.input > 0);
    }
}

/// Requests without a body may be sent again by the engine, and the guard sees no end of one that is sent in chunks.
#[test]
fn other_ways_to_ask_are_refused_as_well() {
    let gateway = Gateway::shared();
    for (agent, request, body) in [
        ("asks-only", Request::get("/openai/v1/models"), ""),
        (
            "asks-in-chunks",
            Request::new("POST", CHAT)
                .field("Content-Type", "application/json")
                .field("Transfer-Encoding", "chunked"),
            "2\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let script = gateway.mock.script(|_, conn| {
            conn.is_closed_by_peer();
            Ok(Then::Close)
        });
        let mut client = gateway.unix();
        client.send(&request.bearer(&gateway.mint(&[agent])).script(&script).bytes());
        client.send(body.as_bytes());
        gateway.mock.the_request(&script);
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(gateway.row(&refusal.id()).request.outcome, Outcome::Cut);
        assert_eq!(gateway.mock.received(&script).len(), 1, "it is sent once");
    }
}

/// A provider that sends as fast as it can. It counts what it sent, and tells when it was left.
fn flooding(mock: &Mock) -> (String, Arc<AtomicUsize>, Receiver<Instant>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let (left, is_left) = channel();
    let (left, count) = (Mutex::new(left), sent.clone());
    let large = chunk(HELLO.repeat(600));
    let script = mock.script(move |_, conn| {
        conn.send(head("text/event-stream"))?;
        while conn.send(&large).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
        // A test that does not ask has dropped its end.
        let _ = left.lock().unwrap().send(Instant::now());
        Ok(Then::Close)
    });
    (script, sent, is_left)
}

/// Waits until nobody takes any more of it.
fn wait_for_stall(sent: &AtomicUsize) {
    eventually("a provider that waits", || {
        let before = sent.load(Ordering::SeqCst);
        let stalls = || sent.load(Ordering::SeqCst) == before;
        (before > 0 && holds_for(Duration::from_millis(300), stalls)).then_some(())
    });
}

#[test]
fn a_caller_that_does_not_read_is_cut() {
    let gateway = Gateway::shared();
    let (script, sent, is_left) = flooding(&gateway.mock);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    wait_for_stall(&sent);
    let revoked = stream.revoke();
    let took = is_left.recv_timeout(PATIENCE).unwrap().saturating_duration_since(revoked);
    assert!(took < AT_ONCE, "{took:?}");
    let row = gateway.row(&stream.id).request;
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("revoked_capability")));
    assert!(row.usage.output > 0);
    assert!(revoked.elapsed() < AT_ONCE * 2, "{:?}", revoked.elapsed());
}

#[test]
fn a_caller_that_reads_in_time_gets_its_end() {
    let gateway = Gateway::shared();
    let (script, sent, _left) = flooding(&gateway.mock);
    let mut stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    wait_for_stall(&sent);
    let revoked = stream.revoke();
    assert!(stream.read_to_end(revoked) < AT_ONCE * 2);
    let body = String::from_utf8(stream.seen).unwrap();
    let events = events(body.strip_suffix("data: [DONE]\n\n").unwrap());
    assert_eq!(events.last().unwrap().1["choices"][0]["finish_reason"], "content_filter");
}

/// A provider that accepts and then says nothing, so that no secure connection to it ever comes about.
#[test]
fn who_waits_for_a_connection_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = format!(
        "[providers.mute]\nupstream = \"https://{}\"\nlocal = true\nauth = \"none\"",
        listener.local_addr().unwrap()
    );
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    for client in [gateway.tcp(), gateway.unix()] {
        let mut client = client;
        let agent = if gateway.rows().is_empty() { "connects" } else { "connects-too" };
        client.send(
            &Request::post("/mute/v1/chat/completions", STREAM).bearer(&gateway.mint(&[agent])).bytes(),
        );
        let (mut connection, _) = listener.accept().unwrap();
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        let refusal = client.response().expect_refusal(401, "revoked_capability");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        client.expect_end();
        connection.set_read_timeout(Some(AT_ONCE)).unwrap();
        std::io::copy(&mut connection, &mut std::io::sink()).expect("the provider is left at once");
        let row = gateway.row(&refusal.id()).request;
        assert_eq!((row.outcome, row.status), (Outcome::Cut, Some(401)));
        assert_eq!((row.basis, row.cost.map(policy::NanoUsd::nanos)), (Basis::None, Some(0)));
    }
    assert_eq!(in_flight(&gateway), 0);
}

#[test]
fn the_next_request_of_a_kept_connection_is_not_cut_for_the_one_before() {
    let gateway = Gateway::shared();
    let (first, second) = (gateway.mint(&["kept-1"]), gateway.mint(&["kept-2"]));
    let mut client = gateway.tcp();
    let script = gateway.mock.plays(json("{}"));
    client.ask(&Request::post(CHAT, STREAM).bearer(&first).script(&script)).expect(200);
    let (script, _left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    client.send(&Request::post(CHAT, STREAM).bearer(&second).script(&script).bytes());
    client.head();
    client.read_until(&mut Vec::new(), "hello");
    gateway.run(["agent", "revoke", "kept-1"]).expect(0);
    gateway.run(["agent", "revoke", "kept-2"]).expect(0);
    let body = String::from_utf8(client.try_body().unwrap()).unwrap();
    assert!(body.contains("[tokfence] stopped: the agent `"), "{body}");
    client.expect_end();
}
