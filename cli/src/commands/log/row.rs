//! One request of the log: as a document, as a line, and in full.

use gateway::overview::form::timestamp;
use policy::Basis;
use serde_json::{Value, json};
use storage::{LoggedRequest, Outcome, RequestRow};

use crate::columns::Column;
use crate::format::{fields, lines, local_time, millis, percent, span, span_or_dash, usd};

/// The columns of a line.
pub(super) const COLUMNS: [Column; 13] = [
    Column::Time("time"),
    Column::Left("id"),
    Column::Long("agent"),
    Column::SpareLeft("provider"),
    Column::Long("model"),
    Column::Right("status"),
    Column::LateRight("in"),
    Column::SpareRight("cached"),
    Column::LateRight("out"),
    Column::Right("cost"),
    Column::SpareRight("took"),
    Column::SpareRight("ttft"),
    Column::Long("remark"),
];

/// The characters of an id that are its time, in milliseconds.
const ID_TIME_CHARS: usize = 10;
/// The characters of an id that tell apart what one gateway got in the same millisecond.
const ID_UNIQUE_CHARS: usize = 17;

/// A request as programs read it. The names are a promise.
pub(super) fn document(logged: &LoggedRequest) -> Value {
    let LoggedRequest { seq, repeats, request } = logged;
    json!({
        "id": request.id.to_string(),
        "seq": seq,
        "repeats": repeats,
        "started_at": timestamp(request.started_at),
        "provider": request.provider.as_ref().map(policy::ProviderId::as_str),
        "route_class": request.route_class.map(policy::RouteClass::as_str),
        "method": request.method.as_str(),
        "path": request.path.as_str(),
        "model": request.model.as_ref().map(storage::LogText::as_str),
        "agent": request.agent.as_ref().map(policy::AgentName::as_str),
        "capability": request.capability.as_ref().map(policy::CapabilityId::as_str),
        "transport": request.transport.as_str(),
        "peer_pid": request.peer_pid,
        "peer_uid": request.peer_uid,
        "is_streaming": request.is_streaming,
        "status": request.status,
        "error_code": request.error_code,
        "outcome": request.outcome.as_str(),
        "usage_basis": request.basis.as_str(),
        "input_tokens": request.usage.input_total(),
        "cache_read_tokens": request.usage.cache_read,
        "cache_write_tokens": request.usage.cache_write(),
        "output_tokens": request.usage.output,
        "reasoning_tokens": request.usage.reasoning,
        "cost_usd": request.cost.map(|cost| cost.to_string()),
        "latency_ms": millis(request.latency_us),
        "first_byte_ms": request.first_byte_us.map(millis),
        "request_bytes": request.request_bytes,
        "response_bytes": request.response_bytes,
        "output_limit_tokens": request.output_limit,
    })
}

/// How much of each id to show, so that `log ID` finds these requests again: the time is nearly always enough.
pub(super) fn id_chars(requests: &[LoggedRequest]) -> usize {
    let mut times: Vec<String> =
        requests.iter().map(|logged| short_id(&logged.request, ID_TIME_CHARS)).collect();
    times.sort_unstable();
    let is_unique = times.windows(2).all(|pair| pair[0] != pair[1]);
    if is_unique { ID_TIME_CHARS } else { ID_UNIQUE_CHARS }
}

fn short_id(request: &RequestRow, chars: usize) -> String {
    request.id.to_string()[..chars].to_owned()
}

/// A request as a line, in the order of [`COLUMNS`].
pub(super) fn cells(logged: &LoggedRequest, id_chars: usize) -> Vec<String> {
    let request = &logged.request;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let usage = &request.usage;
    let tokens = |count: u64| if request.basis == Basis::None { "-".to_owned() } else { count.to_string() };
    vec![
        local_time(request.started_at),
        short_id(request, id_chars),
        or_dash(request.agent.as_ref().map(ToString::to_string)),
        or_dash(request.provider.as_ref().map(ToString::to_string)),
        or_dash(request.model.as_ref().map(ToString::to_string)),
        or_dash(request.status.map(|status| status.to_string())),
        tokens(usage.input_total()),
        percent(usage.cache_read, usage.input_total()),
        tokens(usage.output),
        cost(request),
        span(request.latency_us),
        span_or_dash(request.first_byte_us),
        remark(logged),
    ]
}

/// What it cost: `?` is a price that is not known, `~` an estimate.
fn cost(request: &RequestRow) -> String {
    match (request.outcome, request.basis, request.cost) {
        (Outcome::Refused, _, _) => "-".to_owned(),
        (_, _, None) => "?".to_owned(),
        (_, Basis::Estimated, Some(cost)) => format!("~{}", usd(cost)),
        (_, Basis::Reported | Basis::None, Some(cost)) => usd(cost),
    }
}

/// Why it did not go well, and how often.
fn remark(logged: &LoggedRequest) -> String {
    let request = &logged.request;
    let reason = match (&request.error_code, request.outcome) {
        (Some(code), _) => code.as_ref(),
        (None, Outcome::Completed) if request.output_limit.is_some() => "limited",
        (None, Outcome::Completed) => "",
        (None, outcome) => outcome.as_str(),
    };
    if logged.repeats > 1 { format!("{reason} ×{}", logged.repeats) } else { reason.to_owned() }
}

/// A request field by field.
pub(super) fn describe(document: &Value) -> String {
    let note = |name: &str| match name {
        "cost usd" if document["cost_usd"].is_null() => " (the price is not known)",
        "cost usd" if document["usage_basis"] == "estimated" => " (estimated)",
        "output limit tokens" if document["output_limit_tokens"].is_number() => " (set by a strict budget)",
        _ => "",
    };
    let mut fields = fields(document);
    fields.iter_mut().for_each(|(name, value)| value.push_str(note(name)));
    lines(&fields)
}

#[cfg(test)]
pub(in crate::commands) mod tests {
    use std::path::Path;

    use super::*;
    use policy::{Ask, Caller, NanoUsd, ProviderId, RequestId, RouteClass, Transport, Usage, admit};
    use storage::{LogText, Writer, WriterConfig};

    pub(in crate::commands::log) fn id(number: u64) -> RequestId {
        RequestId::from_parts(1_764_000_000_000 + number, u128::from(number))
    }

    /// A completed request.
    pub(in crate::commands) fn row(number: u64) -> RequestRow {
        RequestRow {
            id: id(number),
            started_at: 1_764_000_000_000_000,
            provider: Some("openai".parse().unwrap()),
            route_class: Some(RouteClass::Generate),
            method: LogText::method("POST"),
            path: LogText::path("/v1/chat/completions"),
            model: Some(LogText::model("gpt-4o-mini")),
            agent: Some("ci".parse().unwrap()),
            capability: Some("abcdefgh".parse().unwrap()),
            transport: Transport::Tcp,
            peer_pid: None,
            peer_uid: None,
            is_streaming: true,
            status: Some(200),
            error_code: None,
            outcome: Outcome::Completed,
            basis: Basis::Reported,
            usage: Usage { input: 200, cache_read: 800, output: 50, ..Usage::default() },
            cost: Some(NanoUsd::from_nanos(150_000)),
            latency_us: 1_240_500,
            first_byte_us: Some(310_000),
            request_bytes: 100,
            response_bytes: 2_000,
            output_limit: None,
        }
    }

    /// Writes the rows into the log, in this order.
    pub(in crate::commands) fn log(path: &Path, rows: impl IntoIterator<Item = RequestRow>) {
        let config = WriterConfig { retention: None, ..WriterConfig::default() };
        let (ledger, writer) = Writer::start(path, config).unwrap();
        let (agent, provider): (_, ProviderId) = ("ci".parse().unwrap(), "openai".parse().unwrap());
        for row in rows {
            let risk = policy::RiskVerdict::default();
            let caller = Caller { agent: &agent, capability: None, risk: &risk };
            let (class, transport) = (RouteClass::Generate, Transport::Tcp);
            let (method, quote) = (policy::Method::Post, policy::Quote::FREE);
            let ask = Ask {
                provider: &provider,
                class,
                method,
                model: None,
                names_other_models: false,
                transport,
                quote,
            };
            let plan = admit(&policy::Rules::default(), &caller, &ask).unwrap();
            let used = storage::Used::Known { cost: NanoUsd::ZERO, tokens: 0 };
            pollster::block_on(ledger.reserve(plan)).unwrap().settle(row, used);
        }
        writer.shutdown().unwrap();
    }

    fn logged(request: RequestRow) -> LoggedRequest {
        LoggedRequest { seq: 7, repeats: 1, request }
    }

    fn refusal() -> LoggedRequest {
        let request = RequestRow {
            provider: None,
            model: None,
            agent: None,
            status: Some(401),
            error_code: Some("missing_capability".into()),
            outcome: Outcome::Refused,
            basis: Basis::None,
            usage: Usage::default(),
            cost: Some(NanoUsd::ZERO),
            latency_us: 90,
            first_byte_us: None,
            ..row(1)
        };
        LoggedRequest { repeats: 3, ..logged(request) }
    }

    #[test]
    fn a_line_shows_what_matters() {
        let line = cells(&logged(row(0)), ID_TIME_CHARS);
        let expected =
            ["ci", "openai", "gpt-4o-mini", "200", "1000", "80%", "50", "$0.000150", "1.24s", "310ms", ""];
        assert_eq!(line[2..], expected);
        assert_eq!(line[1].len(), 10);
    }

    #[test]
    fn a_refusal_shows_its_code_and_how_often() {
        let line = cells(&refusal(), ID_TIME_CHARS);
        let expected = ["-", "-", "-", "401", "-", "", "-", "-", "90µs", "-", "missing_capability ×3"];
        assert_eq!(line[2..], expected);
    }

    #[test]
    fn an_estimate_and_an_unknown_price_are_marked() {
        let estimate = RequestRow { basis: Basis::Estimated, outcome: Outcome::ClientGone, ..row(0) };
        assert_eq!(cost(&estimate), "~$0.000150");
        assert_eq!(remark(&logged(estimate)), "client_gone");
        let unknown = RequestRow { cost: None, ..row(0) };
        assert_eq!(cost(&unknown), "?");
        assert_eq!(document(&logged(unknown))["cost_usd"], Value::Null);
    }

    #[test]
    fn ids_are_shown_as_long_as_they_must_be() {
        let at = |ms, random| logged(RequestRow { id: RequestId::from_parts(ms, random), ..row(0) });
        assert_eq!(id_chars(&[at(5, 0), at(6, 0)]), ID_TIME_CHARS);
        let same = [at(5, 1 << 48), at(6, 0), at(5, 2 << 48)];
        let chars = id_chars(&same);
        assert_ne!(short_id(&same[0].request, chars), short_id(&same[2].request, chars));
    }

    #[test]
    fn the_document_keeps_its_names() {
        let document = document(&logged(row(0)));
        let names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = "id seq repeats started_at provider route_class method path model agent capability transport \
            peer_pid peer_uid is_streaming status error_code outcome usage_basis input_tokens cache_read_tokens \
            cache_write_tokens output_tokens reasoning_tokens cost_usd latency_ms first_byte_ms request_bytes \
            response_bytes output_limit_tokens";
        assert_eq!(names, promised.split_whitespace().collect::<Vec<_>>());
        assert_eq!(document["input_tokens"], 1_000);
        assert_eq!(document["latency_ms"], 1_240.5);
        assert_eq!(document["started_at"], "2025-11-24T16:00:00.000Z");
    }

    #[test]
    fn in_full_each_field_has_a_line() {
        let text = describe(&document(&refusal()));
        assert!(text.contains("error code           missing_capability\n"), "{text}");
        assert!(text.contains("provider             -\n"), "{text}");
        let unknown = describe(&document(&logged(RequestRow { cost: None, ..row(0) })));
        assert!(unknown.contains("cost usd             - (the price is not known)\n"), "{unknown}");
    }
}
