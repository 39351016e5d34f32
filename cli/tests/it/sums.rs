//! Ten thousand requests of all kinds, some of which fail: what the log, the budget and `stats` say in the end is what
//! the provider counted itself, token by token and to the nano-dollar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Conn, Gateway, Received, Request, Setup, Then, answer, sse};

const THREADS: u64 = 8;
const REQUESTS: u64 = 10_000;

/// What the provider has counted: input, cached, written to a cache, output, and nano-dollars at its published rates.
type Bill = [u64; 5];

/// One way to ask, with the rates that its provider publishes, in nano-dollars a token: input, cache read, cache write
/// (five minutes, an hour), output.
struct Kind {
    target: &'static str,
    body: &'static str,
    rates: [u64; 5],
    answer: fn(&Usage) -> Vec<u8>,
}

/// What one answer used. The parts of the input add up.
struct Usage {
    input: u64,
    cached: u64,
    written: [u64; 2],
    output: u64,
    reasoning: u64,
}

const GPT: [u64; 5] = [150, 75, 150, 150, 600];
const CLAUDE: [u64; 5] = [3_000, 300, 3_750, 6_000, 15_000];
const GEMINI: [u64; 5] = [300, 30, 300, 300, 2_500];

const KINDS: [Kind; 8] = [
    Kind {
        target: "/openai/v1/chat/completions",
        body: r#"{"model":"gpt-4o-mini","messages":[]}"#,
        rates: GPT,
        answer: |usage| answer("200 OK", chat(usage).to_string()),
    },
    Kind {
        target: "/openai/v1/chat/completions",
        body: r#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#,
        rates: GPT,
        answer: |usage| events(&[json!({ "choices": [{ "delta": { "content": "a" } }] }), chat(usage)]),
    },
    Kind {
        target: "/openai/v1/responses",
        body: r#"{"model":"gpt-4o-mini","input":"x"}"#,
        rates: GPT,
        answer: |usage| answer("200 OK", responses(usage).to_string()),
    },
    Kind {
        target: "/openai/v1/responses",
        body: r#"{"model":"gpt-4o-mini","stream":true,"input":"x"}"#,
        rates: GPT,
        answer: |usage| events(&[json!({ "type": "response.completed", "response": responses(usage) })]),
    },
    Kind {
        target: "/anthropic/v1/messages",
        body: r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}"#,
        rates: CLAUDE,
        answer: |usage| answer("200 OK", message(usage).to_string()),
    },
    Kind {
        target: "/anthropic/v1/messages",
        body: r#"{"model":"claude-sonnet-4-5","max_tokens":9,"stream":true,"messages":[]}"#,
        rates: CLAUDE,
        answer: |usage| {
            let mut begin = message(usage);
            begin["usage"]["output_tokens"] = json!(1);
            let delta =
                json!({ "type": "message_delta", "delta": {}, "usage": { "output_tokens": usage.output } });
            events(&[
                json!({ "type": "message_start", "message": begin }),
                delta,
                json!({ "type": "message_stop" }),
            ])
        },
    },
    Kind {
        target: "/google/v1beta/models/gemini-2.5-flash:generateContent",
        body: r#"{"contents":[]}"#,
        rates: GEMINI,
        answer: |usage| answer("200 OK", gemini(usage).to_string()),
    },
    Kind {
        target: "/google/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        body: r#"{"contents":[]}"#,
        rates: GEMINI,
        answer: |usage| events(&[json!({ "candidates": [{ "content": {} }] }), gemini(usage)]),
    },
];

fn chat(usage: &Usage) -> Value {
    let Usage { input, cached, output, reasoning, .. } = usage;
    json!({ "model": "gpt-4o-mini", "choices": [], "usage": {
        "prompt_tokens": input + cached, "completion_tokens": output,
        "prompt_tokens_details": { "cached_tokens": cached },
        "completion_tokens_details": { "reasoning_tokens": reasoning },
    } })
}

fn responses(usage: &Usage) -> Value {
    let Usage { input, cached, output, reasoning, .. } = usage;
    json!({ "model": "gpt-4o-mini", "status": "completed", "output": [], "usage": {
        "input_tokens": input + cached, "output_tokens": output,
        "input_tokens_details": { "cached_tokens": cached },
        "output_tokens_details": { "reasoning_tokens": reasoning },
    } })
}

fn message(usage: &Usage) -> Value {
    let Usage { input, cached, written: [minutes, hour], output, .. } = usage;
    json!({ "type": "message", "model": "claude-sonnet-4-5", "content": [], "usage": {
        "input_tokens": input, "cache_read_input_tokens": cached, "cache_creation_input_tokens": minutes + hour,
        "cache_creation": { "ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour },
        "output_tokens": output,
    } })
}

fn gemini(usage: &Usage) -> Value {
    let Usage { input, cached, output, reasoning, .. } = usage;
    json!({ "candidates": [{ "content": {}, "finishReason": "STOP" }], "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {
            "promptTokenCount": input + cached, "cachedContentTokenCount": cached,
            "candidatesTokenCount": output - reasoning, "thoughtsTokenCount": reasoning,
        } })
}

fn events(events: &[Value]) -> Vec<u8> {
    let texts: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    sse(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A usage that is different for each request, and the same whenever this runs.
fn usage(number: u64, has_writes: bool) -> Usage {
    let draw =
        |salt: u64, below: u64| (number ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) % below;
    let output = 1 + draw(1, 3_000);
    let written = if has_writes { [draw(4, 900), draw(5, 90)] } else { [0, 0] };
    Usage { input: draw(2, 20_000), cached: draw(3, 9_000), written, output, reasoning: draw(6, output) }
}

/// The provider: answers, and writes its own bill. One in twenty requests fails and costs nothing.
fn provider(kind: usize, count: &AtomicU64, bill: &Mutex<Bill>, conn: &mut Conn) -> std::io::Result<Then> {
    let number = count.fetch_add(1, Ordering::SeqCst);
    if number % 20 == 19 {
        let status =
            if number.is_multiple_of(3) { "429 Too Many Requests" } else { "500 Internal Server Error" };
        return conn.send(answer(status, r#"{"error":{"message":"no"}}"#)).map(|()| Then::Keep);
    }
    let Kind { rates, answer, .. } = &KINDS[kind];
    let used = usage(number, *rates == CLAUDE);
    let Usage { input, cached, written: [minutes, hour], output, .. } = used;
    let parts = [input, cached, minutes, hour, output];
    let nanos = parts.iter().zip(rates).map(|(tokens, rate)| tokens * rate).sum();
    let mut bill = bill.lock().unwrap();
    for (sum, part) in bill.iter_mut().zip([input, cached, minutes + hour, output, nanos]) {
        *sum += part;
    }
    drop(bill);
    conn.send(answer(&used)).map(|()| Then::Keep)
}

#[test]
fn all_sums_are_the_providers_own() {
    let gateway = Gateway::start_with(&Setup::default());
    gateway.run(["budget", "set", "global", "1000000", "total"]).expect(0);
    gateway.run(["budget", "set", "agent:tester", "900000M tokens", "total"]).expect(0);
    let (count, bill) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Bill::default())));
    let scripts: Vec<String> = (0..KINDS.len())
        .map(|kind| {
            let (count, bill) = (count.clone(), bill.clone());
            gateway.mock.script(move |_: &Received, conn| provider(kind, &count, &bill, conn))
        })
        .collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (gateway, scripts) = (&gateway, &scripts);
            scope.spawn(move || ask_all(gateway, scripts, thread));
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), REQUESTS, "each request is sent once");
    check(&gateway, *bill.lock().unwrap());
}

/// Asks for a part of all, kind by kind, over one connection.
fn ask_all(gateway: &Gateway, scripts: &[String], thread: u64) {
    let mut client = gateway.tcp();
    for number in (thread..REQUESTS).step_by(usize::try_from(THREADS).unwrap()) {
        let kind = usize::try_from(number / THREADS).unwrap() % KINDS.len();
        let Kind { target, body, .. } = &KINDS[kind];
        let request = Request::post(target, *body).bearer(&gateway.token).script(&scripts[kind]);
        let response = client.ask(&request);
        assert!(matches!(response.status(), 200 | 429 | 500), "{}", response.text());
    }
}

#[track_caller]
fn check(gateway: &Gateway, [input, cached, written, output, nanos]: Bill) {
    gateway.rest();
    let usd = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let usd = usd.trim_end_matches('0');
    let amount = |value: &Value| value.as_str().unwrap().trim_end_matches('0').to_owned();
    let stats = gateway.run(["--json", "stats"]).expect(0).json();
    let total = &stats["total"];
    let tokens = |name: &str| total[name].as_u64().unwrap();
    assert_eq!(tokens("requests"), REQUESTS);
    assert_eq!(tokens("input_tokens"), input + cached + written);
    assert_eq!((tokens("cache_read_tokens"), tokens("cache_write_tokens")), (cached, written));
    assert_eq!((tokens("output_tokens"), tokens("unpriced")), (output, 0));
    assert_eq!(amount(&total["cost_usd"]), usd);

    let mut of_rows = [0; 2];
    for row in gateway.rows() {
        of_rows[0] += row.request.usage.total();
        of_rows[1] += row.request.cost.unwrap().nanos().cast_unsigned();
    }
    assert_eq!(of_rows, [input + cached + written + output, nanos]);

    let budgets = gateway.run(["--json", "budget", "status"]).expect(0).json();
    let spent = |name: &str| {
        let found = budgets["budgets"].as_array().unwrap().iter().find(|budget| budget["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {budgets}"))["spent"].clone()
    };
    assert_eq!(amount(&spent("global/total")["usd"]), usd);
    assert_eq!(spent("agent:tester/total/tokens")["tokens"], input + cached + written + output);
}
