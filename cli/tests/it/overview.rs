//! What the daemon tells views: what runs with how far it is, what was spent, who is refused and why.

use gateway::overview::{Overview, RunningRequest};
use policy::{Amount, NanoUsd, Unit};
use rusqlite::Connection;

use crate::support::{Gateway, Request, Setup, Then, chunk, eventually, sse};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

/// The one request in flight, once `holds` holds for it.
#[track_caller]
fn running(gateway: &Gateway, holds: impl Fn(&RunningRequest) -> bool) -> RunningRequest {
    eventually("the request in flight", || match gateway.overview().requests.as_slice() {
        [request] if holds(request) => Some(request.clone()),
        _ => None,
    })
}

/// The overview, once what the log tells in it is new enough.
#[track_caller]
fn overview(gateway: &Gateway, holds: impl Fn(&Overview) -> bool) -> Overview {
    eventually("the overview", || Some(gateway.overview()).filter(|overview| holds(overview)))
}

#[test]
fn a_stream_is_seen_with_its_tokens_and_goes_away() {
    let gateway = Gateway::start();
    let before = gateway.overview();
    assert_eq!((before.state.as_str(), before.log.as_str()), ("ok", "ok"));
    assert!(before.requests.is_empty() && before.in_flight == 0, "{before:?}");
    assert_eq!((before.address.parse(), before.killed), (Ok(gateway.address), None));

    let (script, go) = gateway.mock.held_stream();
    let mut client = gateway.hold(&gateway.token, &script);
    let seen = running(&gateway, |request| request.output_tokens > 0);
    assert_eq!((seen.agent.as_str(), seen.provider.as_str()), ("tester", "openai"));
    assert_eq!(seen.model.as_deref(), Some("gpt-4o-mini"));
    // Five letters, at three to a token.
    assert_eq!((seen.output_tokens, seen.is_estimated, seen.is_streaming), (2, true, true));
    assert!(seen.input_tokens > 0 && seen.request_bytes > 40 && seen.response_bytes > 40, "{seen:?}");
    assert!(seen.cost_usd > Some(NanoUsd::ZERO) && !seen.is_cut, "{seen:?}");
    let during = gateway.overview();
    assert_eq!(during.in_flight, 1);
    let agent = during.agents.iter().find(|agent| agent.name == "tester").unwrap();
    assert_eq!((agent.in_flight, agent.last_used_at, agent.requests), (1, Some(seen.started_at), 0));

    go.send(()).unwrap();
    client.try_body().unwrap();
    let after = overview(&gateway, |overview| overview.today.requests == 1);
    assert!(after.requests.is_empty() && after.in_flight == 0, "{after:?}");
    let row = gateway.row(&seen.id).request;
    assert_eq!(Some(after.today.cost_usd), row.cost);
    assert_eq!((after.today.input_tokens, after.today.output_tokens), (row.usage.input, row.usage.output));
    let agent = after.agents.iter().find(|agent| agent.name == "tester").unwrap();
    assert_eq!((agent.in_flight, agent.requests, agent.risk.as_str()), (0, 1, "GREEN"));
    assert_eq!(Some(agent.cost_usd), row.cost);
}

#[test]
fn what_the_provider_reports_on_the_way_replaces_the_estimate() {
    let gateway = Gateway::start();
    let script = gateway.mock.script(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        conn.send(chunk(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-4-5\",\
             \"usage\":{\"input_tokens\":1000,\"cache_read_input_tokens\":500,\"output_tokens\":900}}}\n\n",
        ))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":2000,"messages":[],"stream":true}"#;
    let mut client = gateway.tcp();
    client
        .send(&Request::post("/anthropic/v1/messages", body).bearer(&gateway.token).script(&script).bytes());
    client.head();
    let seen = running(&gateway, |request| !request.is_estimated);
    assert_eq!((seen.input_tokens, seen.output_tokens), (1_500, 900));
    // 1000 at $3, 500 at $0.30 and 900 at $15 a million.
    assert_eq!(seen.cost_usd, Some(NanoUsd::from_nanos(3_000_000 + 150_000 + 13_500_000)));
    gateway.run(["kill"]).expect(0);
    overview(&gateway, |overview| overview.requests.is_empty());
}

#[test]
fn the_next_request_on_a_connection_begins_at_nothing() {
    let gateway = Gateway::start();
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":7000,"completion_tokens":7000}}"#;
    let script = gateway.mock.plays(sse(&[&format!("{usage}\n\n"), "data: [DONE]\n\n"]));
    let stream =
        r#"{"model":"gpt-4o-mini","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
    let mut client = gateway.tcp();
    client.ask(&Request::post(CHAT, stream).bearer(&gateway.token).script(&script)).expect(200);
    let (script, _go) = gateway.mock.held_stream();
    client.send(&Request::post(CHAT, stream).bearer(&gateway.token).script(&script).bytes());
    client.head();
    client.read_until(&mut Vec::new(), "first");
    let seen = running(&gateway, |request| request.output_tokens > 0);
    assert!(seen.output_tokens == 2 && seen.input_tokens < 1_000 && seen.is_estimated, "{seen:?}");
}

#[test]
fn what_a_request_holds_of_a_budget_is_told_apart_from_what_is_left() {
    let gateway = Gateway::start();
    gateway.run(["budget", "set", "agent:tester", "10", "daily"]).expect(0);
    let (script, go) = gateway.mock.held_stream();
    let mut client = gateway.hold(&gateway.token, &script);
    let usd = |amount: Amount| (amount.unit == Unit::NanoUsd).then_some(amount.number).unwrap();
    let held = overview(&gateway, |overview| usd(overview.budgets[0].reserved) > 0).budgets.remove(0);
    assert_eq!((held.name.as_str(), usd(held.limit)), ("agent:tester/daily", 10_000_000_000));
    assert_eq!(usd(held.spent) + usd(held.reserved) + usd(held.left), usd(held.limit));
    go.send(()).unwrap();
    client.try_body().unwrap();
    let spent = overview(&gateway, |overview| usd(overview.budgets[0].spent) > 0).budgets.remove(0);
    let spent =
        overview(&gateway, |overview| usd(overview.budgets[0].reserved) == 0).budgets.pop().unwrap_or(spent);
    assert_eq!(usd(spent.reserved), 0, "nothing is in flight");
    assert!(spent.renews_at.is_some() && usd(spent.left) < 10_000_000_000);
    // The same as the command tells, by the same names.
    let told = gateway.run(["--json", "budget", "status"]).expect(0).json();
    assert_eq!(told["budgets"][0], serde_json::to_value(&spent).unwrap());
}

#[test]
fn a_refusal_and_a_cut_are_told_with_their_reasons() {
    let gateway = Gateway::start();
    let narrow = gateway.mint(&["narrow", "--model", "gpt-5*", "--rpm", "60"]);
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&narrow)).expect_refusal(403, "out_of_scope");
    let (script, _go) = gateway.mock.held_stream();
    let mut client = gateway.hold(&gateway.token, &script);
    gateway.run(["revoke", "openai", "--reason", "prices"]).expect(0);
    client.try_body().unwrap();
    let seen = overview(&gateway, |overview| overview.refusals.len() == 2);
    let told: Vec<_> = seen
        .refusals
        .iter()
        .map(|refusal| (refusal.agent.as_deref().unwrap(), refusal.is_cut, refusal.code.as_str()))
        .collect();
    assert_eq!(told, [("tester", true, "provider_revoked"), ("narrow", false, "out_of_scope")]);
    assert_eq!(seen.refusals[1].reason, "the capability does not allow it");
    assert_eq!(seen.today.refused, 1);
    let revoked = &seen.revoked_providers[..];
    assert_eq!((revoked.len(), revoked[0].provider.as_str()), (1, "openai"));
    assert_eq!(revoked[0].taken_back.reason, "prices");
    let rate = &seen.rates[0];
    assert!(rate.subject.starts_with("capability:") && rate.requests_per_minute == Some(60), "{rate:?}");
    assert_eq!((rate.requests_used, rate.in_flight), (0, 0), "refusals are free");

    gateway.run(["kill", "--reason", "a leak"]).expect(0);
    gateway.run(["agent", "revoke", "narrow"]).expect(0);
    // What is in memory is told as it is when the command returns.
    let killed = gateway.overview();
    assert_eq!((killed.state.as_str(), killed.killed.unwrap().reason.as_str()), ("killed", "a leak"));
    assert!(killed.agents.iter().any(|agent| agent.name == "narrow" && agent.is_revoked));
}

#[test]
fn who_is_restricted_is_told_with_what_was_seen() {
    let gateway = Gateway::start();
    let secret = crate::support::KEYS[0].key;
    let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{secret}"}}]}}"#);
    gateway.ask(Request::post(CHAT, body)).expect_refusal(403, "secret_in_request");
    let seen = overview(&gateway, |overview| !overview.risk_events.is_empty());
    let (standing, event) = (&seen.risks[0], &seen.risk_events[0]);
    assert_eq!(standing.agent.as_deref(), Some("tester"));
    assert_eq!((standing.event, standing.state.as_str()), (event.event, event.state_after.as_str()));
    assert_eq!(event.action, "refused");
    let agent = seen.agents.iter().find(|agent| agent.name == "tester").unwrap();
    assert_eq!(agent.risk, standing.state);
    assert!(!serde_json::to_string(&seen).unwrap().contains(secret));
}

#[test]
fn a_secret_in_the_name_of_a_model_is_not_shown() {
    let gateway = Gateway::start_with(&Setup {
        tables: format!("[security]\nscan_requests = \"detect\"\n{}", Setup::unrestricted().tables),
        ..Setup::unrestricted()
    });
    let secret = crate::support::KEYS[0].key;
    let (script, _go) = gateway.mock.held_stream();
    let body = format!(r#"{{"model":"{secret}\u001b[2J","messages":[],"stream":true}}"#);
    let mut client = gateway.tcp();
    client.send(&Request::post(CHAT, body).bearer(&gateway.token).script(&script).bytes());
    client.head();
    let seen = running(&gateway, |_| true);
    let model = seen.model.unwrap();
    assert!(model.contains("***") && !model.contains(secret) && !model.contains('\u{1b}'), "{model}");
}

#[test]
fn what_the_process_before_an_upgrade_answers_is_told_as_well() {
    let gateway = Gateway::start();
    let (script, go) = gateway.mock.held_stream();
    let mut client = gateway.hold(&gateway.token, &script);
    let before = running(&gateway, |request| request.output_tokens > 0);
    gateway.run(["upgrade"]).expect(0);
    assert_eq!(running(&gateway, |_| true), before);
    assert_eq!(gateway.overview().in_flight, 1);
    go.send(()).unwrap();
    client.try_body().unwrap();
    overview(&gateway, |overview| overview.requests.is_empty() && overview.in_flight == 0);
}

#[test]
fn a_database_that_cannot_be_read_is_told_and_what_is_in_memory_all_the_same() {
    let gateway = Gateway::start();
    let (script, _go) = gateway.mock.held_stream();
    let _client = gateway.hold(&gateway.token, &script);
    let database = gateway.home.file("tokfence.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("ALTER TABLE risk_events RENAME TO elsewhere")
        .unwrap();
    let broken = overview(&gateway, |overview| overview.log_read_at.is_none());
    assert!(broken.log != "ok" && broken.requests.len() == 1, "{broken:?}");
    Connection::open(&database)
        .unwrap()
        .execute_batch("ALTER TABLE elsewhere RENAME TO risk_events")
        .unwrap();
    let mended = overview(&gateway, |overview| overview.log_read_at.is_some());
    assert_eq!(mended.log, "ok");
}
