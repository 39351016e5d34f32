//! A stream in a rolling budget: covered slice by slice, and cut where there is no room for the next.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use policy::Basis;
use storage::Outcome;

use super::{CHAT, OUTPUT_NANOS, set, standing, usd};
use crate::support::{Gateway, PATIENCE, Request, Setup, Then, chunk, eventually};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const BODY: &str = r#"{"model":"gpt-4o","stream":true,"messages":[]}"#;
/// Tokens of a slice in these tests.
const SLICE: i64 = 1_000;

fn gateway() -> Gateway {
    let tables = format!("[budget]\nslice_tokens = {SLICE}\n");
    Gateway::start_with(&Setup { tables, ..Setup::default() })
}

/// An event of about a hundred tokens of text.
fn event(number: u64) -> String {
    let text = format!("{number:_<300}");
    format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

#[test]
fn a_stream_is_cut_where_the_next_slice_does_not_fit() {
    let gateway = gateway();
    // Three slices and a bit, so that the fourth does not fit.
    set(&gateway, "agent:tester", &usd((3 * SLICE + SLICE / 2) * OUTPUT_NANOS), "total");
    let (closed, is_closed) = channel();
    let closed = Mutex::new(closed);
    let script = gateway.mock.script(move |_, conn| {
        conn.send(HEAD)?;
        for number in 0.. {
            // It goes on until somebody stops it.
            if conn.send(chunk(event(number))).is_err() {
                closed.lock().unwrap().send(number).unwrap();
                break;
            }
            std::thread::yield_now();
        }
        Ok(Then::Close)
    });
    let request = Request::post(CHAT, BODY).bearer(&gateway.token).script(&script);
    let response = gateway.tcp().ask(&request).expect(200);
    let text = response.text();
    assert!(
        text.ends_with("data: [DONE]\n\n"),
        "the end is in the provider's shape: {}",
        &text[text.len() - 300..]
    );
    let last = text.rsplit("\n\n").find(|event| event.starts_with("data: {")).unwrap();
    let last: serde_json::Value = serde_json::from_str(&last["data: ".len()..]).unwrap();
    assert_eq!(last["tokfence"]["code"], "budget_exceeded", "{last:#}");
    is_closed.recv_timeout(PATIENCE).expect("the provider is stopped");
    let row = eventually("the row", || {
        gateway.rows().pop().map(|row| row.request).filter(|row| row.outcome == Outcome::Cut)
    });
    assert_eq!((row.basis, row.error_code.as_deref()), (Basis::Estimated, Some("budget_exceeded")));
    let output = i64::try_from(row.usage.output).unwrap();
    assert!(output >= 3 * SLICE, "what is covered is used: {output}");
    let now = standing(&gateway, "agent:tester/total");
    assert_eq!((now.reserved, Some(now.spent)), (0, row.cost.map(policy::NanoUsd::nanos)));
}

#[test]
fn a_stream_with_room_runs_to_its_end_over_many_slices() {
    let gateway = gateway();
    set(&gateway, "agent:tester", "10", "total");
    set(&gateway, "global", "1M tokens", "5h");
    let script = gateway.mock.script(|_, conn| {
        conn.send(HEAD)?;
        for number in 0..300 {
            conn.send(chunk(event(number)))?;
        }
        let usage = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":30000,"total_tokens":30010}}"#;
        conn.send(chunk(format!("data: {usage}\n\ndata: [DONE]\n\n")))?;
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    });
    let response = gateway.ask(Request::post(CHAT, BODY).script(&script)).expect(200);
    let text = response.text();
    assert_eq!(text.matches("delta").count(), 300, "every event arrives");
    let now = standing(&gateway, "agent:tester/total");
    assert_eq!((now.spent, now.reserved), (super::cost(10, 30_000), 0));
    assert_eq!(standing(&gateway, "global/5h/tokens").spent, 30_010);
}

#[test]
fn a_stream_whose_events_are_longer_than_a_slice_is_covered_as_it_comes() {
    let tables = "[budget]\nslice_tokens = 256\n".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..Setup::default() });
    set(&gateway, "agent:tester", "20k tokens", "total");
    let script = gateway.mock.script(|_, conn| {
        conn.send(HEAD)?;
        let text = "x".repeat(900);
        for _ in 0..25 {
            conn.send(chunk(format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
            )))?;
            // Longer in all than a stream may wait for its budgets.
            std::thread::sleep(Duration::from_millis(100));
        }
        conn.send(chunk("data: [DONE]\n\n"))?;
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    });
    let text = gateway.ask(Request::post(CHAT, BODY).script(&script)).expect(200).text();
    assert_eq!(text.matches("delta").count(), 25);
    assert!(!text.contains("tokfence"), "{}", &text[text.len() - 300..]);
}

#[test]
fn a_stream_that_ends_by_its_own_limit_is_not_cut_for_an_estimate() {
    let gateway = gateway();
    let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":300,"messages":[]}"#;
    set(&gateway, "agent:tester", &usd(320 * OUTPUT_NANOS), "total");
    let script = gateway.mock.script(|_, conn| {
        conn.send(HEAD)?;
        // Estimated at more tokens than the three hundred that it has.
        (0..5).try_for_each(|number| conn.send(chunk(event(number))))?;
        conn.send(chunk("data: [DONE]\n\n"))?;
        conn.send(b"0\r\n\r\n").map(|()| Then::Keep)
    });
    let response = gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    assert_eq!(response.text().matches("delta").count(), 5);
    assert!(!response.text().contains("tokfence"));
}
