//! Limits on rates: exact under any concurrency, in force when the command returns, and free for what is refused.

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::{Gateway, Home, Request, Response, Then, eventually, json};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

fn chat(token: &str) -> Request {
    Request::post(CHAT, BODY).bearer(token)
}

/// As many requests as are given, each on a connection of its own, all at the same moment.
fn at_once(gateway: &Gateway, requests: &[Request]) -> Vec<Response> {
    let barrier = Barrier::new(requests.len());
    std::thread::scope(|scope| {
        let asking: Vec<_> = requests
            .iter()
            .map(|request| {
                let (barrier, mut client) = (&barrier, gateway.tcp());
                scope.spawn(move || {
                    barrier.wait();
                    client.ask(request)
                })
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status() == status).count()
}

#[track_caller]
fn check_limited(response: Response, code: &str, limit: &str, retry_after: std::ops::RangeInclusive<u64>) {
    let refusal = response.expect_refusal(429, code);
    let error = refusal.json()["error"].clone();
    assert_eq!((&error["limit"], &error["hint"]), (&limit.into(), &"tokfence ratelimit status".into()));
    let seconds: u64 = refusal.head.get("retry-after").unwrap().parse().unwrap();
    assert!(retry_after.contains(&seconds), "{seconds}");
    assert!(!refusal.head.has("x-should-retry"));
}

#[test]
fn of_many_requests_at_once_exactly_the_limit_passes() {
    let gateway = Gateway::start();
    gateway.run(["ratelimit", "set", "agent:tester", "10"]).expect(0);
    let began = Instant::now();
    let responses = at_once(&gateway, &vec![chat(&gateway.token); 40]);
    let refilled = usize::try_from(began.elapsed().as_secs() / 6).unwrap();
    let passed = count(&responses, 200);
    assert!((10..=10 + refilled).contains(&passed), "{passed}");
    assert_eq!(count(&responses, 429), 40 - passed);
    for response in responses.into_iter().filter(|response| response.status() == 429) {
        check_limited(response, "rate_limited", "agent:tester/requests_per_minute", 1..=6);
    }
}

#[test]
fn after_exactly_retry_after_the_request_passes() {
    let gateway = Gateway::start();
    gateway.run(["ratelimit", "set", "openai", "30"]).expect(0);
    let mut client = gateway.tcp();
    let refusal = loop {
        let response = client.ask(&chat(&gateway.token));
        if response.status() != 200 {
            break response;
        }
    };
    let refused_at = Instant::now();
    let seconds: u64 = refusal.head.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(refused_at.elapsed()));
    client.ask(&chat(&gateway.token)).expect(200);
}

#[test]
fn a_limit_is_in_force_and_gone_when_the_command_returns() {
    let gateway = Gateway::start();
    let mut client = gateway.tcp();
    for _ in 0..3 {
        gateway.run(["ratelimit", "set", "global", "1"]).expect(0);
        let first = client.ask(&chat(&gateway.token)).status();
        assert!(first == 200 || first == 429, "{first}");
        client.ask(&chat(&gateway.token)).expect_refusal(429, "rate_limited");
        // Removing it and setting it again gives nothing away.
        gateway.run(["ratelimit", "clear", "global"]).expect(0);
        client.ask(&chat(&gateway.token)).expect(200);
    }
    gateway.run(["ratelimit", "set", "global", "1"]).expect(0);
    client.ask(&chat(&gateway.token)).expect_refusal(429, "rate_limited");
    let other = Gateway::shared();
    other.ask(Request::post(CHAT, BODY)).expect(200);
}

#[test]
fn a_limit_that_another_process_wrote_into_the_database_is_noticed() {
    let gateway = Gateway::start();
    let mut store = gateway.store();
    let limit = policy::RateLimit { requests_per_minute: Some(1), ..policy::RateLimit::default() };
    store.change_rate_limit(&"agent:tester".parse().unwrap(), 1, |_| limit).unwrap();
    eventually("the limit", || (gateway.ask(Request::post(CHAT, BODY)).status() == 429).then_some(()));
}

#[test]
fn what_is_refused_for_another_reason_takes_nothing() {
    let gateway = Gateway::start();
    let token = gateway.mint(&["free", "--model", "gpt-4o*", "--rpm", "3", "--concurrent", "2"]);
    for _ in 0..20 {
        let other = Request::post(CHAT, r#"{"model":"gpt-5.1","messages":[]}"#).bearer(&token);
        gateway.tcp().ask(&other).expect_refusal(403, "out_of_scope");
        let broken = Request::post(CHAT, "{").bearer(&token);
        gateway.tcp().ask(&broken).expect_refusal(400, "invalid_request");
        let admin = Request::get("/openai/v1/organization/costs").bearer(&token);
        gateway.tcp().ask(&admin).expect_refusal(403, "endpoint_denied");
    }
    for _ in 0..3 {
        gateway.tcp().ask(&chat(&token)).expect(200);
    }
    gateway.tcp().ask(&chat(&token)).expect_refusal(429, "rate_limited");
    // Refusals by the limit itself do not push it further away.
    for _ in 0..20 {
        gateway.tcp().ask(&chat(&token)).expect_refusal(429, "rate_limited");
    }
    let used = status(&gateway, &format!("capability:{}", &token[4..12]));
    assert_eq!((&used["requests_used"], &used["in_flight"]), (&3.into(), &0.into()));
    gateway.run(["agent", "revoke", &token[4..12]]).expect(0);
    let document = gateway.run(["--json", "ratelimit", "status"]).expect(0).json();
    assert_eq!(document["limits"], serde_json::json!([]), "a capability that has ended has no limit to show");
}

/// The line of a subject in `ratelimit status`.
#[track_caller]
fn status(gateway: &Gateway, subject: &str) -> serde_json::Value {
    let document = gateway.run(["--json", "ratelimit", "status"]).expect(0).json();
    let limits = document["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["subject"] == subject).unwrap_or_else(|| panic!("{document}")).clone()
}

#[test]
fn places_are_never_more_than_the_limit_and_are_all_given_back() {
    let gateway = Gateway::start();
    let token = gateway.mint(&["crowd"]);
    gateway.run(["ratelimit", "set", "agent:crowd", "-", "--concurrent", "3"]).expect(0);
    let (inside, release) = mpsc::channel();
    let (let_go, go) = mpsc::channel::<()>();
    let (inside, go) = (Mutex::new(inside), Arc::new(Mutex::new(go)));
    let script = gateway.mock.script(move |_, conn| {
        inside.lock().unwrap().send(()).unwrap();
        // Ends when the test lets go of its end.
        let _ = go.lock().unwrap().recv();
        conn.send(json("{}")).map(|()| Then::Keep)
    });
    let held = chat(&token).script(&script);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(|| gateway.tcp().ask(&held))).collect();
        (0..3).for_each(|_| release.recv().unwrap());
        assert_eq!(status(&gateway, "agent:crowd")["in_flight"], 3);
        let refused = at_once(&gateway, &vec![chat(&token); 10]);
        for response in refused {
            check_limited(response, "too_many_concurrent", "agent:crowd/concurrent", 1..=1);
        }
        drop(let_go);
        for thread in running {
            thread.join().unwrap().expect(200);
        }
    });
    // Whoever saw the end of an answer has the place already, also on another connection.
    for _ in 0..50 {
        gateway.tcp().ask(&chat(&token)).expect(200);
    }
    let responses = at_once(&gateway, &vec![chat(&token); 30]);
    assert_eq!(count(&responses, 200) + count(&responses, 429), 30);
    assert_eq!(status(&gateway, "agent:crowd")["in_flight"], 0);
}

#[test]
fn a_place_is_given_back_however_the_request_ends() {
    let gateway = Gateway::start();
    let token = gateway.mint(&["endings", "--concurrent", "1"]);
    let subject = format!("capability:{}", &token[4..12]);
    let is_idle = || (status(&gateway, &subject)["in_flight"] == 0).then_some(());
    let reset = gateway.mock.script(|_, _| Ok(Then::Reset));
    let hangs = gateway.mock.script(|_, conn| {
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    for round in 1..=3 {
        gateway.tcp().ask(&chat(&token).script(&reset)).expect_refusal(502, "upstream_reset");
        eventually("a place after a reset", is_idle);
        let mut client = gateway.tcp();
        client.send(&chat(&token).script(&hangs).bytes());
        eventually("the request", || (gateway.mock.received(&hangs).len() == round).then_some(()));
        gateway.tcp().ask(&chat(&token)).expect_refusal(429, "too_many_concurrent");
        drop(client);
        eventually("a place after a caller that left", is_idle);
        gateway.tcp().ask(&chat(&token)).expect(200);
        // A caller that never sends its body.
        let mut client = gateway.tcp();
        client.send(&chat(&token).head());
        eventually("the request without its body", || {
            (status(&gateway, &subject)["in_flight"] == 1).then_some(())
        });
        drop(client);
        eventually("a place after half a request", is_idle);
    }
    let upstream = format!("http://{}", gateway.mock.address);
    gateway.run(["provider", "set", "openai", "http://127.0.0.1:1"]).expect(0);
    gateway.tcp().ask(&chat(&token)).expect_refusal(503, "missing_key");
    gateway.run(["provider", "set", "openai", &upstream]).expect(0);
    gateway.tcp().ask(&chat(&token)).expect(200);
}

#[test]
fn tokens_are_counted_as_they_were_reported() {
    let gateway = Gateway::start();
    // The estimate of 10 input tokens and a slice of output is corrected to the 11 that were reported.
    let token = gateway.mint(&["reader", "--tpm", "2000"]);
    let subject = format!("capability:{}", &token[4..12]);
    for _ in 0..20 {
        gateway.tcp().ask(&chat(&token)).expect(200);
        eventually("the settlement", || (status(&gateway, &subject)["in_flight"] == 0).then_some(()));
    }
    let used = status(&gateway, &subject)["tokens_used"].as_u64().unwrap();
    assert!(used <= 220, "{used}");
    let large = r#"{"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":4000,"completion_tokens":1000,"total_tokens":5000}}"#;
    let script = gateway.mock.plays(json(large));
    let id = gateway.tcp().ask(&chat(&token).script(&script)).expect(200).id();
    gateway.row(&id);
    let debt = status(&gateway, &subject)["tokens_used"].as_u64().unwrap();
    assert!((4_000..=5_220).contains(&debt), "{debt}");
    let limit = format!("{subject}/tokens_per_minute");
    check_limited(gateway.tcp().ask(&chat(&token)), "rate_limited", &limit, 60..=130);
    // What is not billed by the token is not held up.
    gateway.tcp().ask(&Request::get("/openai/v1/models").bearer(&token)).expect(200);
}

#[test]
fn several_limits_hold_at_once_and_the_one_that_lasts_longest_is_named() {
    let gateway = Gateway::start();
    gateway.run(["ratelimit", "set", "openai", "4"]).expect(0);
    gateway.run(["ratelimit", "set", "agent:tester", "2"]).expect(0);
    for _ in 0..2 {
        gateway.ask(Request::post(CHAT, BODY)).expect(200);
    }
    let refusal = gateway.ask(Request::post(CHAT, BODY));
    check_limited(refusal, "rate_limited", "agent:tester/requests_per_minute", 20..=30);
    let other = gateway.mint(&["unlimited"]);
    gateway.tcp().ask(&chat(&other)).expect(200);
    let document = status(&gateway, "openai");
    let used = document["requests_used"].as_u64().unwrap();
    assert!(used == 3 || used == 2, "the refused one took nothing, and a slow machine refills: {document}");
}

#[test]
fn a_limit_is_edited_in_part_and_survives_the_daemon() {
    let gateway = Gateway::start();
    gateway.run(["ratelimit", "set", "agent:tester", "60", "--tpm", "1000000"]).expect(0);
    let set = gateway
        .run(["--json", "ratelimit", "set", "agent:tester", "2", "--concurrent", "4"])
        .expect(0)
        .json();
    assert_eq!(set["is"]["tokens_per_minute"], 1_000_000);
    assert_eq!((&set["is"]["requests_per_minute"], &set["is"]["concurrent"]), (&2.into(), &4.into()));
    gateway.run(["stop"]).expect(0);
    let down = gateway.run(["--json", "ratelimit", "status"]).expect(0).json();
    assert_eq!(
        (&down["running"], &down["limits"][0]["requests_used"]),
        (&false.into(), &serde_json::Value::Null)
    );
    gateway.run(["ratelimit", "set", "agent:tester", "1"]).expect(0);
    let started = gateway.run(["--json", "start", "-d"]).expect(0).json();
    let mut client = crate::support::Client::tcp(started["address"].as_str().unwrap().parse().unwrap());
    client.ask(&chat(&gateway.token)).expect(200);
    client.ask(&chat(&gateway.token)).expect_refusal(429, "rate_limited");
    let text = gateway.run(["ratelimit", "status"]).expect(0).stdout;
    assert!(text.contains("1 of 1") && text.contains("0 of 4"), "{text}");
    let shown = gateway
        .run(["--json", "ratelimit", "set", "agent:tester", "-", "--tpm", "-", "--concurrent", "-"])
        .expect(0)
        .json();
    assert_eq!(shown["status"], "cleared");
    client.ask(&chat(&gateway.token)).expect(200);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    home.run(["agent", "mint", "builder"]).expect(0);
    for (args, code, hint) in [
        (&["opneai", "5"][..], 5, Some("did you mean `openai`?")),
        (&["agent:bulider", "5"], 5, Some("did you mean `agent:builder`?")),
        (&["builder", "5"], 5, Some("did you mean `agent:builder`?")),
        (&["capability:zzzzzzzz", "5"], 5, Some("`tokfence agent list` shows what there is")),
        (&["user:x", "5"], 2, None),
        (&["openai", "0"], 2, None),
        (&["openai", "-1"], 2, None),
        (&["openai", "1000001"], 2, None),
        (&["openai", "5", "--tpm", "many"], 2, None),
        (&["openai", "5", "--concurrent", "0"], 2, None),
    ] {
        let args = [&["--json", "ratelimit", "set"][..], args].concat();
        let error = home.run(args.iter().copied()).expect(code).error();
        if let Some(hint) = hint {
            assert_eq!(error["hint"], hint, "{args:?}");
        }
    }
    home.run(["agent", "mint", "builder", "--rpm", "0"]).expect(2);
    assert_eq!(home.run(["--json", "ratelimit", "status"]).expect(0).json()["limits"], serde_json::json!([]));
    home.run(["ratelimit", "set", "agent:anonymous", "5"]).expect(0);
    let cleared = home.run(["--json", "ratelimit", "clear", "openai"]).expect(0).json();
    assert_eq!(cleared["status"], "unchanged");
}

#[test]
fn a_method_out_of_scope_is_refused() {
    let gateway = Gateway::shared();
    let token = gateway.mint(&["reads-only", "--method", "get"]);
    gateway.tcp().ask(&chat(&token)).expect_refusal(403, "out_of_scope");
    gateway.tcp().ask(&Request::get("/openai/v1/models").bearer(&token)).expect(200);
    gateway.run(["agent", "mint", "x", "--method", "TRACE"]).expect(2);
}
