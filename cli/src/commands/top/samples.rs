//! An overview with some of everything, for tests.

use gateway::overview::{
    AgentToday, BudgetStanding, Overview, Refusal, RevokedProvider, RiskSighting, RiskStanding,
    RunningRequest, TakenBack, Today,
};
use policy::{NanoUsd, TimestampUs, Unit};

const SECOND: TimestampUs = 1_000_000;
/// 2025-11-24T16:00:00Z
pub(crate) const NOW: TimestampUs = 1_764_000_000 * SECOND;

fn agent(name: &str, risk: &str) -> AgentToday {
    AgentToday {
        name: name.to_owned(),
        last_used_at: Some(NOW - 90 * SECOND),
        requests: 12,
        refused: 1,
        cost_usd: NanoUsd::from_nanos(1_250_000_000),
        unpriced: 0,
        in_flight: 1,
        risk: risk.to_owned(),
        is_revoked: false,
    }
}

fn budget(name: &str, spent: i64, reserved: i64) -> BudgetStanding {
    let (subject, period) = name.split_once('/').unwrap();
    let usd = |nanos| Unit::NanoUsd.of(nanos);
    BudgetStanding {
        name: name.to_owned(),
        subject: subject.to_owned(),
        period: period.to_owned(),
        limit: usd(10_000_000_000),
        spent: usd(spent),
        forfeited: usd(0),
        reserved: usd(reserved),
        left: usd(10_000_000_000 - spent - reserved),
        since: NOW - 16 * 3_600 * SECOND,
        renews_at: Some(NOW + 8 * 3_600 * SECOND),
    }
}

/// The parts of an overview that lists are made of.
pub(crate) fn overview() -> Overview {
    Overview {
        at: NOW,
        state: "ok".to_owned(),
        killed: None,
        pid: 4242,
        version: "0.2.0".to_owned(),
        address: "127.0.0.1:9471".to_owned(),
        started_at: NOW - 7_500 * SECOND,
        log: "ok".to_owned(),
        log_read_at: Some(NOW),
        today: Today {
            since: NOW - 16 * 3_600 * SECOND,
            timezone: "UTC".to_owned(),
            requests: 24,
            refused: 2,
            errors: 1,
            input_tokens: 45_000,
            output_tokens: 12_345,
            cost_usd: NanoUsd::from_nanos(2_500_000_000),
            unpriced: 0,
        },
        budgets: vec![
            budget("global/daily", 5_000_000_000, 2_000_000_000),
            budget("openai/monthly", 10_000_000_000, 0),
        ],
        agents: vec![agent("ci", "GREEN"), agent("dev", "RED")],
        agents_total: 2,
        requests: vec![RunningRequest {
            id: "01KAV0000000000000000000AA".to_owned(),
            agent: "ci".to_owned(),
            capability: Some("abcdefgh".to_owned()),
            provider: "openai".to_owned(),
            model: Some("gpt-4o-mini".to_owned()),
            started_at: NOW - 42 * SECOND,
            is_streaming: true,
            input_tokens: 1_500,
            output_tokens: 320,
            is_estimated: true,
            cost_usd: Some(NanoUsd::from_nanos(417_000)),
            request_bytes: 6_000,
            response_bytes: 4_096,
            is_cut: false,
        }],
        in_flight: 1,
        refusals: vec![Refusal {
            id: "01KAV0000000000000000000BB".to_owned(),
            at: NOW - 60 * SECOND,
            agent: Some("dev".to_owned()),
            provider: Some("anthropic".to_owned()),
            model: None,
            status: Some(429),
            is_cut: false,
            code: "budget_exceeded".to_owned(),
            reason: "a budget had no room".to_owned(),
            repeats: 3,
        }],
        risks: vec![RiskStanding {
            subject: "agent:dev".to_owned(),
            agent: Some("dev".to_owned()),
            state: "RED".to_owned(),
            since: NOW - 120 * SECOND,
            signal: "secret_in_request".to_owned(),
            event: 7,
        }],
        risk_events: vec![RiskSighting {
            event: 7,
            at: NOW - 120 * SECOND,
            signal: "secret_in_request".to_owned(),
            subject: "agent:dev".to_owned(),
            agent: Some("dev".to_owned()),
            request: None,
            pattern: "key:openai".to_owned(),
            action: "refused".to_owned(),
            state_before: "GREEN".to_owned(),
            state_after: "RED".to_owned(),
            repeats: 1,
        }],
        revoked_providers: vec![RevokedProvider {
            provider: "groq".to_owned(),
            taken_back: TakenBack { at: NOW, reason: "prices".to_owned() },
        }],
        rates: Vec::new(),
    }
}
