//! The table of endings: however a request ends, its budgets are charged what its row says, once, and hold nothing.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use policy::{Basis, NanoUsd};
use storage::{Outcome, RequestRow};

use super::{CHAT, Standing, answer, cost, set, standing};
use crate::support::{Conn, Gateway, PATIENCE, Request, Setup, Then, chunk, eventually, json};

const NAME: &str = "agent:tester/total";
const STREAM: &str =
    r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Say hello, please."}]}"#;
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const DELTA: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello there, this is text\"}}]}\n\n";

/// What an ending leaves.
struct Expected {
    outcome: Outcome,
    basis: Basis,
    charge: Charge,
}

enum Charge {
    Nothing,
    /// To the nano-dollar.
    Exactly(i64),
    /// An estimate of the input, and no output.
    Input,
    /// An estimate of the input and of what was streamed.
    InputAndOutput,
}

fn gateway() -> Gateway {
    let gateway = Gateway::start_with(&Setup {
        tables: "[providers.gone]\nupstream = \"http://127.0.0.1:1\"\nauth = \"none\"\nlocal = true\n"
            .to_owned(),
        provider: "first_byte_timeout = \"500ms\"\nidle_timeout = \"500ms\"".to_owned(),
        ..Setup::default()
    });
    set(&gateway, "agent:tester", "100", "total");
    gateway
}

/// Checks the row of the only request since the last one that was checked, and that the budget was charged just that.
#[track_caller]
fn check(gateway: &Gateway, last: &mut String, before: &Standing, what: &str, expected: &Expected) {
    let row = eventually(&format!("the row of: {what}"), || {
        gateway.rows().into_iter().map(|row| row.request).next_back().filter(|row| row.id.to_string() > *last)
    });
    *last = row.id.to_string();
    assert_eq!((row.outcome, row.basis), (expected.outcome, expected.basis), "{what}: {row:?}");
    let charged = row.cost.map_or(0, NanoUsd::nanos);
    check_charge(what, &row, charged, &expected.charge);
    let after = standing(gateway, NAME);
    assert_eq!(after.spent - before.spent, charged, "{what}: the budget is charged what the row says");
    assert_eq!((after.reserved, after.forfeited), (0, 0), "{what}: nothing stays held");
}

#[track_caller]
fn check_charge(what: &str, row: &RequestRow, charged: i64, expected: &Charge) {
    let (input, output) = (row.usage.input_total(), row.usage.output);
    match expected {
        Charge::Nothing => assert_eq!((charged, input, output), (0, 0, 0), "{what}"),
        Charge::Exactly(nanos) => assert_eq!(charged, *nanos, "{what}"),
        Charge::Input => assert!(charged > 0 && input > 0 && output == 0, "{what}: {row:?}"),
        Charge::InputAndOutput => assert!(charged > 0 && input > 0 && output > 0, "{what}: {row:?}"),
    }
}

fn ending(outcome: Outcome, basis: Basis, charge: Charge) -> Expected {
    Expected { outcome, basis, charge }
}

/// Endings that the provider brings about.
#[test]
fn each_end_that_a_provider_makes_is_charged_once() {
    let (gateway, mut last) = (gateway(), String::new());
    type Script = fn(&mut Conn) -> std::io::Result<Then>;
    let broken: Script = |conn| conn.send(HEAD).and_then(|()| conn.send(chunk(DELTA))).map(|()| Then::Reset);
    let failing: Script = |conn| conn.send(answer_of("500 Internal Server Error")).map(|()| Then::Keep);
    let error_event: Script = |conn| {
        conn.send(HEAD)?;
        conn.send(chunk(DELTA))?;
        conn.send(chunk("data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n"))?;
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    };
    let silent: Script = |conn| Ok(if conn.is_closed_by_peer() { Then::Close } else { Then::Keep });
    let stalling: Script = |conn| {
        conn.send(HEAD)?;
        conn.send(chunk(DELTA))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    };
    let reported: Script = |conn| conn.send(json(answer(10, 20))).map(|()| Then::Keep);
    let unreported: Script =
        |conn| conn.send(json(r#"{"choices":[{"message":{"content":"Hello there"}}]}"#)).map(|()| Then::Keep);
    let refused: Script = |conn| conn.send(answer_of("400 Bad Request")).map(|()| Then::Keep);
    let limited: Script = |conn| conn.send(answer_of("429 Too Many Requests")).map(|()| Then::Keep);
    let reset: Script = |_| Ok(Then::Reset);
    use {Basis as B, Charge as C, Outcome as O};
    let endings: [(&str, Script, Expected); 10] = [
        ("success", reported, ending(O::Completed, B::Reported, C::Exactly(cost(10, 20)))),
        ("success without usage", unreported, ending(O::Completed, B::Estimated, C::InputAndOutput)),
        ("400", refused, ending(O::Completed, B::None, C::Nothing)),
        ("429", limited, ending(O::Completed, B::None, C::Nothing)),
        ("500 before output", failing, ending(O::Completed, B::None, C::Nothing)),
        ("an error after output", error_event, ending(O::Completed, B::Estimated, C::InputAndOutput)),
        ("a reset before the answer", reset, ending(O::UpstreamError, B::Estimated, C::Input)),
        ("a reset in the answer", broken, ending(O::UpstreamError, B::Estimated, C::InputAndOutput)),
        ("a timeout before the answer", silent, ending(O::UpstreamError, B::Estimated, C::Input)),
        ("a timeout in the answer", stalling, ending(O::UpstreamError, B::Estimated, C::InputAndOutput)),
    ];
    for (what, script, expected) in endings {
        let before = standing(&gateway, NAME);
        let script = gateway.mock.script(move |_, conn| script(conn));
        let mut client = gateway.tcp();
        client.send(&Request::post(CHAT, STREAM).bearer(&gateway.token).script(&script).bytes());
        // Some of these answers break off.
        let _ = client.try_response();
        check(&gateway, &mut last, &before, what, &expected);
    }
}

fn answer_of(status: &str) -> Vec<u8> {
    crate::support::answer(status, r#"{"error":{"message":"no"}}"#)
}

#[test]
fn a_provider_that_cannot_be_reached_costs_nothing() {
    let gateway = gateway();
    set(&gateway, "gone", "1M tokens", "total");
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    let gone = gateway.ask(Request::post("/gone/v1/chat/completions", body)).expect(502);
    let before = standing(&gateway, NAME);
    let row = gateway.row(&gone.id()).request;
    assert_eq!(
        (row.outcome, row.basis, row.cost),
        (Outcome::UpstreamError, Basis::None, Some(NanoUsd::ZERO))
    );
    assert_eq!((before.spent, before.reserved), (0, 0));
    let tokens = standing(&gateway, "gone/total/tokens");
    assert_eq!((tokens.spent, tokens.reserved), (0, 0));
}

/// Endings that the caller brings about.
#[test]
fn each_end_that_a_caller_makes_is_charged_once() {
    let (gateway, mut last) = (gateway(), String::new());
    let quiet =
        gateway.mock.script(|_, conn| Ok(if conn.is_closed_by_peer() { Then::Close } else { Then::Keep }));
    let before = standing(&gateway, NAME);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, STREAM).bearer(&gateway.token).script(&quiet).bytes());
    gateway.mock.the_request(&quiet);
    drop(client);
    check(
        &gateway,
        &mut last,
        &before,
        "the caller left before the answer",
        &ending(Outcome::ClientGone, Basis::Estimated, Charge::Input),
    );

    let stream = gateway.mock.script(|_, conn| {
        conn.send(HEAD)?;
        conn.send(chunk(DELTA))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let before = standing(&gateway, NAME);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, STREAM).bearer(&gateway.token).script(&stream).bytes());
    client.head();
    client.read_until(&mut Vec::new(), "text");
    drop(client);
    check(
        &gateway,
        &mut last,
        &before,
        "the caller left in the answer",
        &ending(Outcome::ClientGone, Basis::Estimated, Charge::InputAndOutput),
    );
    let before = standing(&gateway, NAME);
    let mut client = gateway.tcp();
    let request = Request::post(CHAT, STREAM).bearer(&gateway.token).bytes();
    client.send(&request[..request.len() - 5]);
    drop(client);
    drop(gateway.store());
    assert_eq!(standing(&gateway, NAME), before, "a request that never arrived whole");
}

#[test]
fn a_stream_that_a_shutdown_cuts_is_charged() {
    let mut gateway =
        Gateway::start_with(&Setup { daemon: "shutdown_grace = \"200ms\"".to_owned(), ..Setup::default() });
    set(&gateway, "agent:tester", "100", "total");
    let (sent, has_sent) = channel();
    let sent = Mutex::new(sent);
    let stream = gateway.mock.script(move |_, conn| {
        conn.send(HEAD)?;
        conn.send(chunk(DELTA))?;
        sent.lock().unwrap().send(()).unwrap();
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, STREAM).bearer(&gateway.token).script(&stream).bytes());
    has_sent.recv_timeout(PATIENCE).unwrap();
    client.head();
    client.read_until(&mut Vec::new(), "text");
    gateway.run(["stop"]).expect(0);
    gateway.start_again();
    let row = gateway.rows().pop().unwrap().request;
    assert_eq!((row.outcome, row.basis), (Outcome::Unfinished, Basis::Estimated), "{row:?}");
    let now = standing(&gateway, NAME);
    assert_eq!(Some(now.spent), row.cost.map(NanoUsd::nanos));
    assert!(now.spent > 0 && now.reserved == 0 && now.forfeited == 0, "{now:?}");
}
