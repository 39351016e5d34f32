//! What may be taken back, by whom, and what goes on all the same.

use super::*;

#[test]
fn other_agents_go_on() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let request = Request::post(CHAT, STREAM).script(&script);
    let mut other = Stream::start(gateway, request.clone(), "hello");
    for _ in 0..3 {
        let stream = Stream::start(gateway, request.clone(), "hello");
        let revoked = stream.revoke();
        stream.ends(revoked);
        let mut seen = Vec::new();
        while seen.len() < HELLO.len() * 20 {
            seen.extend_from_slice(&other.client.part().expect("the other stream goes on"));
        }
        assert!(!String::from_utf8(seen).unwrap().contains("tokfence"));
    }
}

#[test]
fn an_edit_of_the_database_is_noticed() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let sql = "UPDATE capabilities SET revoked_at_us = 1, revoke_reason = 'x' WHERE agent = ?1";
    assert_eq!(database(gateway).execute(sql, [&stream.agent]).unwrap(), 1);
    let (body, row) = stream.ends(Instant::now());
    assert_eq!(row.error_code.as_deref(), Some("revoked_capability"));
    assert!(body.contains("[tokfence] stopped: the capability was revoked"), "{body}");
}

#[test]
fn a_capability_that_ends_ends_its_streams() {
    let gateway = Gateway::shared();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let minted = Instant::now();
    let token = gateway.mint(&["ends", "--ttl", "2s"]);
    let request = Request::post(CHAT, STREAM).script(&script);
    let stream = Stream::start_with(gateway, "ends".to_owned(), &token, request, "hello");
    let (body, row) = stream.ends(minted + Duration::from_secs(2));
    assert!(minted.elapsed() > Duration::from_millis(1900), "{:?}", minted.elapsed());
    assert_eq!(row.error_code.as_deref(), Some("expired_capability"));
    assert!(body.contains("[tokfence] stopped: the capability has expired"), "{body}");
}

#[test]
fn a_provider_that_is_revoked_is_left_and_others_are_not() {
    let gateway = Gateway::start();
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let cut = Stream::start(&gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let other = Request::post("/mistral/v1/chat/completions", STREAM).script(&script);
    let mut kept = Stream::start(&gateway, other, "hello");
    database(&gateway).execute("INSERT INTO revoked_providers VALUES ('openai', 1, 'x')", []).unwrap();
    let (body, row) = cut.ends(Instant::now());
    assert_eq!(row.error_code.as_deref(), Some("provider_revoked"));
    assert!(body.contains("the provider `openai` was revoked"), "{body}");
    let mut seen = Vec::new();
    while seen.len() < HELLO.len() * 20 {
        seen.extend_from_slice(&kept.client.part().expect("the other stream goes on"));
    }
}

/// Everything at once: streams, a caller that waits, and one whose provider does not answer its hello.
#[test]
fn the_kill_switch_ends_everything_and_leaves_nothing() {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    let gateway = &*GATEWAY;
    let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
    let (mute, left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let ask = |script: &str| {
        let request = Request::post(CHAT, STREAM).script(script);
        Stream::start_with(gateway, String::new(), &gateway.token, request, "hello")
    };
    let streams: Vec<Stream<'_>> = (0..30).map(|n| ask(if n % 2 == 0 { &script } else { &mute })).collect();
    database(gateway).execute("INSERT INTO kill_switch VALUES (1, 1, 'x')", []).unwrap();
    let killed = Instant::now();
    let (slowest, rows) = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                scope.spawn(move || {
                    let row = stream.ends(killed).1;
                    (killed.elapsed(), row)
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        (ended.iter().map(|(took, _)| *took).max(), ended.into_iter().map(|(_, row)| row).collect::<Vec<_>>())
    });
    assert!(slowest < Some(AT_ONCE * 3), "{slowest:?}");
    assert!(rows.iter().all(|row| row.error_code.as_deref() == Some("killed") && row.usage.output > 0));
    assert!(left.recv_timeout(PATIENCE).is_ok());
    gateway.ask(Request::post(CHAT, STREAM)).expect_refusal(403, "killed");
    eventually("the end of all requests", || (in_flight(gateway) == 0).then_some(()));
    database(gateway).execute("DELETE FROM kill_switch", []).unwrap();
    reload(gateway);
    gateway.ask(Request::post(CHAT, STREAM)).expect(200);
}
#[test]
fn locking_cuts_what_runs_unless_it_may_finish() {
    let gateway = Gateway::start();
    let (script, _left) = silent(&gateway.mock, "text/event-stream", &[HELLO]);
    let start = || Stream::start(&gateway, Request::post(CHAT, STREAM).script(&script), "hello");
    let stream = start();
    gateway.run(["lock"]).expect(0);
    let (_, row) = stream.ends(Instant::now());
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::Cut, Some("vault_locked")));
    gateway.ask(Request::post(CHAT, STREAM)).expect_refusal(503, "vault_locked");
    gateway.run(["unlock"]).expect(0);
    let gated = gateway.mock.plays(crate::support::sse(&[HELLO, "data: [DONE]\n\n"]));
    gateway.ask(Request::post(CHAT, STREAM).script(&gated)).expect(200);
    let stream = start();
    gateway.run(["lock", "--let-finish"]).expect(0);
    assert!(holds_for(Duration::from_millis(400), || in_flight(&gateway) == 1), "it goes on");
    drop(stream);
}
