//! The log: a row for each request, with the tokens the provider reported and the money they cost, to the
//! nano-dollar. The amounts are worked out by hand from the prices in each comment.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use policy::{Basis, NanoUsd, Transport, Usage};
use rusqlite::{Connection, TransactionBehavior};
use rustix::process::Signal;
use storage::{Outcome, RequestRow, Store};

use crate::support::{Client, Gateway, PATIENCE, Request, Setup, Then, chunk, eventually, json, rows, sse};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
const NO_USAGE: Usage = Usage::NONE;

/// What a provider answers, plain and as a stream, and what the row must say of it.
struct Priced {
    route: &'static str,
    stream_route: &'static str,
    model: &'static str,
    plain: &'static str,
    events: &'static [&'static str],
    usage: Usage,
    nanos: Option<i64>,
}

const PRICED: &[Priced] = &[
    // $0.15 in, $0.075 cached, $0.60 out a million: 600 × 150 + 400 × 75 + 200 × 600.
    Priced {
        route: CHAT,
        stream_route: CHAT,
        model: "gpt-4o-mini",
        plain: r#"{"id":"c","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":50}}}"#,
        events: &[
            "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
            "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":200,\"total_tokens\":1200,\"prompt_tokens_details\":{\"cached_tokens\":400},\"completion_tokens_details\":{\"reasoning_tokens\":50}}}\n\n",
            "data: [DONE]\n\n",
        ],
        usage: Usage { input: 600, cache_read: 400, output: 200, reasoning: 50, ..NO_USAGE },
        nanos: Some(90_000 + 30_000 + 120_000),
    },
    // $1.25 in, $0.125 cached, $10 out: 700 × 1,250 + 300 × 125 + 150 × 10,000.
    Priced {
        route: "/openai/v1/responses",
        stream_route: "/openai/v1/responses",
        model: "gpt-5.1",
        plain: r#"{"id":"r","object":"response","status":"completed","model":"gpt-5.1-2025-11-13","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":1000,"input_tokens_details":{"cached_tokens":300},"output_tokens":150,"output_tokens_details":{"reasoning_tokens":100},"total_tokens":1150}}"#,
        events: &[
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"model\":\"gpt-5.1-2025-11-13\",\"usage\":{\"input_tokens\":1000,\"input_tokens_details\":{\"cached_tokens\":300},\"output_tokens\":150,\"output_tokens_details\":{\"reasoning_tokens\":100},\"total_tokens\":1150}}}\n\n",
        ],
        usage: Usage { input: 700, cache_read: 300, output: 150, reasoning: 100, ..NO_USAGE },
        nanos: Some(875_000 + 37_500 + 1_500_000),
    },
    // $3 in, $0.30 read, $3.75 and $6 written for five minutes and an hour, $15 out:
    // 100 × 3,000 + 2,000 × 300 + 300 × 3,750 + 200 × 6,000 + 50 × 15,000.
    Priced {
        route: "/anthropic/v1/messages",
        stream_route: "/anthropic/v1/messages",
        model: "claude-sonnet-4-5",
        plain: r#"{"id":"m","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":100,"cache_creation_input_tokens":500,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":300,"ephemeral_1h_input_tokens":200},"output_tokens":50}}"#,
        events: &[
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-sonnet-4-5-20250929\",\"content\":[],\"usage\":{\"input_tokens\":100,\"cache_creation_input_tokens\":500,\"cache_read_input_tokens\":2000,\"cache_creation\":{\"ephemeral_5m_input_tokens\":300,\"ephemeral_1h_input_tokens\":200},\"output_tokens\":1}}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":50}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ],
        usage: Usage {
            input: 100,
            cache_read: 2000,
            cache_write_5m: 300,
            cache_write_1h: 200,
            output: 50,
            ..NO_USAGE
        },
        nanos: Some(300_000 + 600_000 + 1_125_000 + 1_200_000 + 750_000),
    },
    // $0.30 in, $0.03 cached, $2.50 out, thoughts included: 400 × 300 + 600 × 30 + 100 × 2,500.
    Priced {
        route: "/google/v1beta/models/gemini-2.5-flash:generateContent",
        stream_route: "/google/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        model: "gemini-2.5-flash",
        plain: r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":600,"candidatesTokenCount":80,"thoughtsTokenCount":20,"totalTokenCount":1100},"modelVersion":"gemini-2.5-flash"}"#,
        events: &[
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"H\"}]}}],\"usageMetadata\":{\"promptTokenCount\":1000,\"cachedContentTokenCount\":600,\"candidatesTokenCount\":1,\"totalTokenCount\":1001}}\r\n\r\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"i\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":1000,\"cachedContentTokenCount\":600,\"candidatesTokenCount\":80,\"thoughtsTokenCount\":20,\"totalTokenCount\":1100},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n",
        ],
        usage: Usage { input: 400, cache_read: 600, output: 100, reasoning: 20, ..NO_USAGE },
        nanos: Some(120_000 + 18_000 + 250_000),
    },
    // $0.15 in, $0.60 out: 100 × 150 + 10 × 600.
    Priced {
        route: "/mistral/v1/chat/completions",
        stream_route: "/mistral/v1/chat/completions",
        model: "mistral-small-latest",
        plain: r#"{"id":"c","model":"mistral-small-latest","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}"#,
        events: &[
            "data: {\"id\":\"c\",\"model\":\"mistral-small-latest\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":10,\"total_tokens\":110}}\n\n",
            "data: [DONE]\n\n",
        ],
        usage: Usage { input: 100, output: 10, ..NO_USAGE },
        nanos: Some(15_000 + 6_000),
    },
    // $0.15 in, $0.075 cached, $0.60 out: 60 × 150 + 40 × 75 + 20 × 600.
    Priced {
        route: "/groq/openai/v1/chat/completions",
        stream_route: "/groq/openai/v1/chat/completions",
        model: "openai/gpt-oss-120b",
        plain: r#"{"id":"c","model":"openai/gpt-oss-120b","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"queue_time":0.01,"prompt_tokens":100,"prompt_time":0.001,"completion_tokens":20,"completion_time":0.02,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":40}},"x_groq":{"id":"req_1"}}"#,
        events: &[
            "data: {\"id\":\"c\",\"model\":\"openai/gpt-oss-120b\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"x_groq\":{\"id\":\"req_1\"}}\n\n",
            "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"total_tokens\":120,\"prompt_tokens_details\":{\"cached_tokens\":40}}}}\n\n",
            "data: [DONE]\n\n",
        ],
        usage: Usage { input: 60, cache_read: 40, output: 20, ..NO_USAGE },
        nanos: Some(9_000 + 3_000 + 12_000),
    },
    // Its own cost decides: $0.00012345.
    Priced {
        route: "/openrouter/api/v1/chat/completions",
        stream_route: "/openrouter/v1/chat/completions",
        model: "openai/gpt-4o-mini",
        plain: r#"{"id":"c","model":"openai/gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"cost":0.00012345}}"#,
        events: &[
            "data: {\"id\":\"c\",\"model\":\"openai/gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
            "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"cost\":0.00012345}}\n\n",
            "data: [DONE]\n\n",
        ],
        usage: Usage { input: 10, output: 5, ..NO_USAGE },
        nanos: Some(123_450),
    },
    // Nobody knows what this model costs, which is not the same as nothing.
    Priced {
        route: CHAT,
        stream_route: CHAT,
        model: "gpt-unheard-of",
        plain: r#"{"id":"c","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#,
        events: &[
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\n",
            "data: [DONE]\n\n",
        ],
        usage: Usage { input: 10, output: 5, ..NO_USAGE },
        nanos: None,
    },
];

#[track_caller]
fn check_priced(case: &Priced, row: &RequestRow, is_streaming: bool) {
    let shown = format!("{} streaming={is_streaming} {row:?}", case.route);
    assert_eq!((row.basis, row.usage), (Basis::Reported, case.usage), "{shown}");
    assert_eq!(row.cost.map(NanoUsd::nanos), case.nanos, "{shown}");
    assert_eq!(row.model.as_ref().map(storage::LogText::as_str), Some(case.model), "{shown}");
    assert_eq!((row.outcome, row.status), (Outcome::Completed, Some(200)), "{shown}");
    assert_eq!(row.error_code, None, "{shown}");
    assert_eq!(row.is_streaming, is_streaming, "{shown}");
    assert_eq!(row.agent.as_ref().map(policy::AgentName::as_str), Some("tester"), "{shown}");
    assert!(!row.path.as_str().contains('?'), "{shown}");
}

#[test]
fn each_provider_costs_what_it_reports_plain_and_streamed() {
    let gateway = Gateway::shared();
    for case in PRICED {
        let script = gateway.mock.plays(json(case.plain));
        let body = format!("{{\"model\":\"{}\",\"messages\":[]}}", case.model);
        let answer = gateway.ask(Request::post(case.route, body).script(&script)).expect(200);
        assert_eq!(answer.text(), case.plain);
        check_priced(case, &gateway.row(&answer.id()).request, false);

        let script = gateway.mock.plays(sse(case.events));
        let body = format!("{{\"model\":\"{}\",\"stream\":true,\"messages\":[]}}", case.model);
        let answer = gateway.ask(Request::post(case.stream_route, body).script(&script)).expect(200);
        check_priced(case, &gateway.row(&answer.id()).request, true);
    }
}

#[test]
fn the_log_command_shows_what_the_row_says() {
    let gateway = Gateway::shared();
    let case = &PRICED[2];
    let script = gateway.mock.plays(json(case.plain));
    let id = gateway.ask(Request::post(case.route, r#"{"model":"claude-sonnet-4-5"}"#).script(&script)).id();
    gateway.row(&id);
    let shown = gateway.run(["--json", "log", &id]).expect(0).stdout;
    for part in [id.as_str(), "claude-sonnet-4-5", "0.003975", "tester", "2000"] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
}

#[test]
fn a_request_that_costs_nothing_is_free_and_not_unknown() {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json(r#"{"data":[]}"#));
    let id = gateway.ask(Request::get("/openai/v1/models").script(&script)).expect(200).id();
    let row = gateway.row(&id).request;
    assert_eq!((row.basis, row.cost.map(NanoUsd::nanos)), (Basis::None, Some(0)));
}

#[test]
fn a_caller_that_leaves_before_the_answer_is_charged_an_estimate_and_the_provider_is_left() {
    let gateway = Gateway::shared();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let script = gateway.mock.script(move |_, conn| {
        tell.lock().unwrap().send("received").unwrap();
        let is_closed = conn.is_closed_by_peer();
        tell.lock().unwrap().send(if is_closed { "closed" } else { "kept" }).unwrap();
        Ok(Then::Close)
    });
    let token = gateway.mint(&["leaves-early"]);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, BODY).bearer(&token).script(&script).bytes());
    assert_eq!(told.recv_timeout(PATIENCE), Ok("received"));
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("closed"));
    let row = row_of(gateway, "leaves-early");
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::ClientGone, Some("client_gone")));
    let input = (BODY.len() as u64).div_ceil(4);
    assert_eq!((row.basis, row.usage), (Basis::Estimated, Usage { input, ..Usage::default() }));
    assert_eq!(row.cost.map(NanoUsd::nanos), Some(i64::try_from(input).unwrap() * 150));
}

#[test]
fn a_caller_that_leaves_a_stream_is_charged_what_was_streamed_and_the_provider_is_left() {
    let gateway = Gateway::shared();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let text = "abcdefghij";
    let script = gateway.mock.script(move |_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        conn.send(chunk(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")))?;
        tell.lock().unwrap().send(conn.is_closed_by_peer()).unwrap();
        Ok(Then::Close)
    });
    let token = gateway.mint(&["leaves-late"]);
    let body = r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true}}"#;
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, body).bearer(&token).script(&script).bytes());
    client.head();
    client.read_until(&mut Vec::new(), text);
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
    let row = row_of(gateway, "leaves-late");
    assert_eq!((row.outcome, row.error_code.as_deref()), (Outcome::ClientGone, Some("client_gone")));
    let usage = Usage { input: (body.len() as u64).div_ceil(4), output: 4, ..Usage::default() };
    assert_eq!((row.basis, row.usage, row.status), (Basis::Estimated, usage, Some(200)));
    let nanos = i64::try_from(usage.input * 150 + usage.output * 600).unwrap();
    assert_eq!(row.cost.map(NanoUsd::nanos), Some(nanos));
}

/// Anthropic's first event has a usage already: with the whole input, and next to no output.
#[test]
fn an_early_report_is_not_the_whole_charge_of_a_stream_that_was_left() {
    let gateway = Gateway::shared();
    let script = gateway.mock.script(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        conn.send(chunk("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n"))?;
        let text = "x".repeat(300);
        conn.send(chunk(format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n")))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let token = gateway.mint(&["leaves-anthropic"]);
    let body = r#"{"model":"claude-sonnet-4-5","stream":true,"messages":[]}"#;
    let mut client = gateway.tcp();
    client.send(&Request::post("/anthropic/v1/messages", body).bearer(&token).script(&script).bytes());
    client.head();
    client.read_until(&mut Vec::new(), "xxx\"}}");
    drop(client);
    let row = row_of(gateway, "leaves-anthropic");
    let usage = Usage { input: 100, output: 100, ..NO_USAGE };
    assert_eq!((row.outcome, row.basis, row.usage), (Outcome::ClientGone, Basis::Estimated, usage));
    // $3 in, $15 out: 100 × 3,000 + 100 × 15,000.
    assert_eq!(row.cost.map(NanoUsd::nanos), Some(300_000 + 1_500_000));
}

#[track_caller]
fn row_of(gateway: &Gateway, agent: &str) -> RequestRow {
    let is_its = |row: &RequestRow| row.agent.as_ref().is_some_and(|name| name.as_str() == agent);
    eventually("the row", || gateway.rows().into_iter().map(|row| row.request).find(is_its))
}

#[test]
fn the_socket_tells_who_called() {
    let gateway = Gateway::shared();
    let request = Request::post(CHAT, BODY).bearer(&gateway.token);
    let row = gateway.row(&gateway.unix().ask(&request).id()).request;
    assert_eq!(row.transport, Transport::Unix);
    assert_eq!(row.peer_uid, Some(rustix::process::geteuid().as_raw()));
    if cfg!(target_os = "linux") {
        assert_eq!(row.peer_pid, Some(std::process::id()));
    }
    let row = gateway.row(&gateway.tcp().ask(&request).id()).request;
    assert_eq!((row.transport, row.peer_pid, row.peer_uid), (Transport::Tcp, None, None));
}

#[test]
fn equal_refusals_share_a_row_that_counts_them() {
    let gateway = Gateway::start();
    for _ in 0..50 {
        let request = Request::get("/openai/v1/models/knock").bearer("tfk_no");
        gateway.tcp().ask(&request).expect_refusal(401, "invalid_capability");
    }
    let rows = eventually("fifty refusals", || {
        Some(gateway.rows()).filter(|rows| rows.iter().map(|row| row.repeats).sum::<u64>() >= 50)
    });
    assert_eq!(rows.iter().map(|row| row.repeats).sum::<u64>(), 50);
    // A new row begins every ten seconds.
    assert!(rows.len() <= 3, "{} rows", rows.len());
}

#[test]
fn two_hundred_requests_at_once_have_two_hundred_rows() {
    let gateway = Gateway::start();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let ask = || gateway.ask(Request::post(CHAT, BODY)).expect(200).id();
        let asking: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let rows = eventually("two hundred rows", || Some(gateway.rows()).filter(|rows| rows.len() >= 200));
    let mut logged: Vec<String> = rows.iter().map(|row| row.request.id.to_string()).collect();
    let mut ids = ids;
    ids.sort();
    logged.sort();
    assert_eq!(logged, ids);
}

#[test]
fn no_row_is_lost_when_the_daemon_is_told_to_end_at_once() {
    let gateway = Gateway::start();
    let mut client = gateway.tcp();
    for _ in 0..100 {
        client.ask(&Request::post(CHAT, BODY).bearer(&gateway.token)).expect(200);
    }
    gateway.home.signal(Signal::TERM);
    gateway.home.wait_for_end();
    let store = Store::open_existing(&gateway.home.file("tokfence.db")).unwrap();
    assert_eq!(rows(&store).len(), 100);
    store.verify().unwrap();
}

#[test]
fn every_answered_request_is_in_the_log_after_a_crash_once_it_was_flushed() {
    let gateway = Gateway::start();
    for _ in 0..20 {
        gateway.ask(Request::post(CHAT, BODY)).expect(200);
    }
    eventually("twenty rows", || (gateway.rows().len() == 20).then_some(()));
    gateway.home.signal(Signal::KILL);
    gateway.home.wait_for_end();
    let serving = gateway.run(["--json", "start", "-d"]).expect(0).json();
    let mut client = Client::tcp(serving["address"].as_str().unwrap().parse().unwrap());
    client.ask(&Request::post(CHAT, BODY).bearer(&gateway.token)).expect(200);
    eventually("the row of the second life", || (gateway.rows().len() == 21).then_some(()));
}

#[test]
fn where_the_log_is_required_nothing_is_let_through_while_it_cannot_be_written() {
    let required = Setup { tables: "[logging]\nrequired = true\n".to_owned(), ..Setup::default() };
    for (setup, while_locked) in [(required, 503), (Setup::default(), 200)] {
        let gateway = Gateway::start_with(&setup);
        let ask = || gateway.ask(Request::post(CHAT, BODY));
        ask().expect(200);
        let mut database = Connection::open(gateway.home.file("tokfence.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        let lock = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        // What was committed a moment ago proves for a second that the next row can be written as well.
        let locked =
            eventually("the answer", || Some(ask()).filter(|answer| answer.status() == while_locked));
        if while_locked == 503 {
            locked.expect_refusal(503, "state_unavailable");
            let asked = gateway.mock.bytes();
            ask().expect_refusal(503, "state_unavailable");
            assert_eq!(gateway.mock.bytes(), asked);
        }
        drop(lock);
        eventually("the next to be served", || Some(ask()).filter(|answer| answer.status() == 200));
    }
}
