//! Figures for Prometheus: what happened is there, and nothing that is secret or that a caller can choose.

use std::net::SocketAddr;

use crate::support::{Client, Gateway, KEYS, Request, Setup, eventually, json, sse};

const CHAT: &str = "/openai/v1/chat/completions";
const ANSWER: &str = r#"{"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":1200,"completion_tokens":350,
    "prompt_tokens_details":{"cached_tokens":1000},"completion_tokens_details":{"reasoning_tokens":40}}}"#;

fn start(tables: &str) -> (Gateway, SocketAddr) {
    let setup = Setup { metrics: "127.0.0.1:0", tables: tables.to_owned(), ..Setup::default() };
    let gateway = Gateway::start_with(&setup);
    let status = gateway.run(["--json", "status"]).expect(0).json();
    let url = status["metrics"].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
    (gateway, address)
}

fn figures(address: SocketAddr) -> String {
    let response = Client::tcp(address).ask(&Request::get("/metrics")).expect(200);
    assert!(response.head.get("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    response.text()
}

#[track_caller]
fn check(figures: &str, line: &str) {
    assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
}

#[test]
fn what_happened_is_counted_where_it_belongs() {
    let (gateway, address) = start("");
    gateway.run(["budget", "set", "agent:tester", "1.5", "daily"]).expect(0);
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    let script = gateway.mock.plays(json(ANSWER));
    gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    gateway.ask(Request::post(CHAT, body).script(&script)).expect(200);
    let made_up = body.replace("gpt-4o-mini", "no-such-model-anywhere");
    gateway.ask(Request::post(CHAT, made_up)).expect_refusal(403, "model_price_unknown");
    gateway.run(["budget", "clear", "agent:tester"]).expect(0);
    let streamed = body.replacen('{', r#"{"stream":true,"#, 1);
    let cut_short =
        gateway.mock.plays(sse(&["data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n"]));
    gateway.ask(Request::post(CHAT, streamed).script(&cut_short)).expect(200);
    gateway
        .tcp()
        .ask(&Request::post(CHAT, body).bearer("sk-nobody"))
        .expect_refusal(401, "invalid_capability");
    gateway.rest();
    gateway.run(["budget", "set", "agent:tester", "1.5", "daily"]).expect(0);

    let labels =
        r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-4o-mini""#;
    let found = eventually("the third request", || {
        let found = figures(address);
        found.contains("outcome=\"completed\"} 3").then_some(found)
    });
    check(&found, r#"tokfence_requests_total{provider="openai",model="gpt-4o-mini",outcome="completed"} 3"#);
    check(&found, r#"tokfence_requests_total{provider="openai",model="",outcome="refused"} 2"#);
    check(&found, r#"tokfence_refusals_total{code="invalid_capability"} 1"#);
    check(&found, r#"tokfence_refusals_total{code="model_price_unknown"} 1"#);
    let tokens = |name: &str, tokens: u64| {
        format!(
            "gen_ai_client_inference_usage_{name}_total{{{labels},gen_ai_token_modality=\"unknown\"}} {tokens}"
        )
    };
    check(&found, &tokens("cache_read_input_tokens", 2_000));
    check(&found, &tokens("reasoning_output_tokens", 80));
    assert!(
        found.contains(&format!("gen_ai_client_operation_duration_seconds_count{{{labels}}} 3")),
        "{found}"
    );
    check(&found, r#"tokfence_estimated_requests_total{provider="openai",model="gpt-4o-mini"} 1"#);
    check(&found, r#"tokfence_budget_limit_usd{budget="agent:tester/daily"} 1.5"#);
    check(&found, "tokfence_overhead_seconds_count 3");
    check(&found, "tokfence_log_writing 1");
    check(&found, r#"tokfence_state{state="ok"} 1"#);
    let sent = ["false", "true"].map(|reused| {
        let start = format!("tokfence_upstream_requests_total{{reused=\"{reused}\"}} ");
        found.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse::<u32>().unwrap()
    });
    assert_eq!(sent.iter().sum::<u32>(), 3);
    assert!(!found.contains("no-such-model-anywhere") && !found.contains("tfk_"));
    assert!(KEYS.iter().all(|key| !found.contains(key.key)));
}

#[test]
fn risk_and_the_kill_switch_are_shown() {
    let (gateway, address) = start("");
    let mint = Request::post("/openai/v1/realtime/client_secrets", "{}");
    gateway.ask(mint).expect_refusal(403, "endpoint_denied");
    gateway.run(["kill"]).expect(0);
    let found = figures(address);
    check(&found, r#"tokfence_risk_subjects{state="ORANGE"} 1"#);
    check(&found, r#"tokfence_risk_signals_total{signal="minting_attempt"} 1"#);
    check(&found, r#"tokfence_state{state="killed"} 1"#);
}

#[test]
fn a_web_page_or_a_foreign_name_sees_no_figures() {
    let (_gateway, address) = start("");
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let mut page = Client::tcp(address);
        page.ask(&Request::get("/metrics").field(name, value)).expect(403);
        // It keeps no place from those who may look.
        page.expect_end();
    }
    Client::tcp(address).ask(&Request::get("/metrics").field("host", "localhost")).expect(400);
    for host in ["evil.example", "evil.example:9472", "127.0.0.1:1"] {
        let mut client = Client::tcp(address);
        client.send(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        client.response().expect(403);
    }
    Client::tcp(address).ask(&Request::get("/")).expect(404);
    Client::tcp(address).ask(&Request::post("/metrics", "")).expect(405);
}

#[test]
fn an_address_that_is_taken_stops_only_who_asked_for_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = crate::support::Home::new();
    home.write_config(&format!("[daemon]\nport = 0\n[metrics]\nlisten = \"{address}\"\n"));
    home.run(["init", "--non-interactive"]).expect(0);
    let failed = home.run(["start", "-d"]).expect(1);
    assert!(failed.stderr.contains(&address), "{}", failed.stderr);
    home.write_config("[daemon]\nport = 0\n[metrics]\nlisten = \"0.0.0.0:9472\"\n");
    let exposed = home.run(["config", "check"]);
    let told = [exposed.stdout, exposed.stderr].concat();
    assert!(told.contains("an address of this machine alone"), "{told}");
}
