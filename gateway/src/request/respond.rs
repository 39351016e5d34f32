//! What a refusal looks like from outside: status, headers and JSON. The one place that decides it.

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use policy::{Denial, DenialCode, NanoUsd, RequestId, Shortage, Unit};
use serde_json::{Value, json};

use crate::request::context::Context;
use crate::request::cors;
use crate::wire::WireFormat;

/// The HTTP status of a code.
pub(crate) fn status(code: DenialCode) -> u16 {
    use DenialCode as Code;
    match code {
        Code::InvalidRequest | Code::InvalidRoute => 400,
        Code::MissingCapability
        | Code::InvalidCapability
        | Code::ExpiredCapability
        | Code::RevokedCapability => 401,
        Code::HostNotAllowed
        | Code::OriginNotAllowed
        | Code::OutOfScope
        | Code::ProviderRevoked
        | Code::Killed
        | Code::RiskRestricted
        | Code::SecretInRequest
        | Code::EndpointDenied
        | Code::ModelPriceUnknown => 403,
        Code::UnknownProvider => 404,
        Code::MethodNotAllowed => 405,
        Code::RequestTimeout => 408,
        Code::RequestTooLarge => 413,
        Code::UnsupportedMedia => 415,
        Code::UpgradeUnsupported => 426,
        Code::HeaderTooLarge => 431,
        Code::BudgetExceeded | Code::RateLimited | Code::TooManyConcurrent => 429,
        Code::InternalError => 500,
        Code::UpstreamUnreachable | Code::UpstreamTls | Code::UpstreamReset => 502,
        Code::UpstreamTimeout => 504,
        Code::VaultLocked | Code::MissingKey | Code::StateUnavailable | Code::Overloaded => 503,
    }
}

/// Whether an SDK is told not to try again. A short limit or a failing provider may be tried again; everything
/// else would only be refused once more.
fn forbids_retry(code: DenialCode) -> bool {
    use DenialCode as Code;
    !matches!(
        code,
        Code::RateLimited
            | Code::TooManyConcurrent
            | Code::Overloaded
            | Code::UpstreamUnreachable
            | Code::UpstreamTls
            | Code::UpstreamReset
            | Code::UpstreamTimeout
    )
}

/// The body of a refusal, in the shape that the SDKs of all providers raise as their own typed error.
pub(crate) fn body(denial: &Denial, id: RequestId, wire: Option<WireFormat>) -> String {
    let code = denial.code().as_str();
    let mut error = json!({
        "type": format!("tokfence_{code}"),
        "code": code,
        "message": denial.message(),
        "param": null,
    });
    if let Some(shortage) = denial.shortage() {
        describe(shortage, &mut error);
        if wire == Some(WireFormat::Google) {
            put_as_google_does(denial, &mut error);
        }
    }
    for (name, value) in denial.details() {
        error[name] = value.as_str().into();
    }
    if let Some(hint) = denial.hint() {
        error["hint"] = hint.into();
    }
    json!({ "type": "error", "error": error, "request_id": id.to_string() }).to_string()
}

/// Puts a budget's numbers into an error, as the names say in dollars or tokens.
fn describe(shortage: &Shortage, error: &mut Value) {
    error["budget"] = shortage.budget.as_str().into();
    let amounts = [
        ("limit", shortage.limit.number),
        ("spent", shortage.spent),
        ("reserved", shortage.reserved),
        ("left", shortage.left()),
        ("needed", shortage.needed),
    ];
    for (name, number) in amounts {
        match shortage.limit.unit {
            Unit::NanoUsd => error[format!("{name}_usd")] = NanoUsd::from_nanos(number).to_string().into(),
            Unit::Tokens => error[format!("{name}_tokens")] = number.into(),
        }
    }
    let resets_at = shortage.resets_at.and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    error["resets_at"] = resets_at.map(|at| format!("{at:.0}")).into();
}

/// Makes it what Google's own client takes for the end of a day's quota, after which it stops. After a 429 without
/// such a detail, or whose `code` is not the number, it goes on asking.
fn put_as_google_does(denial: &Denial, error: &mut Value) {
    error["code"] = status(denial.code()).into();
    error["status"] = "RESOURCE_EXHAUSTED".into();
    error["details"] = json!([
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{ "quotaId": "TokfenceBudgetPerDay", "description": denial.message() }],
        },
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": denial.code().as_str(),
            "domain": "tokfence",
        },
    ]);
}

/// Headers of every answer that we make ourselves, beside length and connection.
fn common_fields(id: RequestId) -> Vec<(&'static str, String)> {
    vec![
        ("content-type", "application/json".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("cross-origin-resource-policy", "same-origin".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-tokfence-request-id", id.to_string()),
    ]
}

/// Headers of a refusal.
fn fields(denial: &Denial, id: RequestId) -> Vec<(&'static str, String)> {
    let mut fields = common_fields(id);
    if forbids_retry(denial.code()) {
        fields.push(("x-should-retry", "false".to_owned()));
    }
    match denial.code() {
        DenialCode::UpgradeUnsupported => fields.push(("upgrade", "HTTP/1.1".to_owned())),
        DenialCode::MethodNotAllowed => {
            fields.push(("allow", "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned()))
        }
        _ => {}
    }
    let when_overloaded = (denial.code() == DenialCode::Overloaded).then_some(1);
    if let Some(seconds) = denial.retry_after().or(when_overloaded) {
        fields.push(("retry-after", seconds.to_string()));
    }
    fields
}

/// A refusal as the bytes of a whole response, for a caller whose request never reached the proxy engine.
pub(crate) fn raw(denial: &Denial, id: RequestId) -> Vec<u8> {
    let (status, body) = (status(denial.code()), body(denial, id, None));
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Refused"));
    for (name, value) in fields(denial, id) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Whether the caller has got the header of its answer. Interim ones (1xx) are none: the answer may follow them.
pub(crate) fn is_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|header| !header.status.is_informational())
}

/// Sends a refusal through the proxy engine, in the format that the caller expects, if it is known. What it repeats of
/// the request may hold a secret, and is shown without.
pub(crate) async fn refuse(session: &mut Session, denial: &Denial, ctx: &Context) -> pingora::Result<()> {
    let body = body(denial, ctx.id, ctx.facts.wire());
    let body = ctx.shared.watch.load().clean(&body).into_owned();
    send(session, status(denial.code()), fields(denial, ctx.id), body, ctx).await
}

/// The answer to a health check: that we are here and whether we serve. It needs no capability.
pub(crate) async fn health(session: &mut Session, ctx: &Context) -> pingora::Result<()> {
    let body = json!({ "name": "tokfence", "status": ctx.shared.health() }).to_string();
    send(session, 200, common_fields(ctx.id), body, ctx).await
}

/// The answer to a request that made something. Nobody may keep it: a token is in it.
pub(crate) async fn created(session: &mut Session, document: &Value, ctx: &Context) -> pingora::Result<()> {
    send(session, 201, common_fields(ctx.id), document.to_string(), ctx).await
}

/// The answer to a browser that asks whether a listed page may send a request.
pub(crate) async fn preflight(session: &mut Session, ctx: &Context) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(204, None)?;
    for (name, value) in cors::preflight_fields(&session.req_header().headers) {
        header.insert_header(name, value)?;
    }
    header.insert_header("x-tokfence-request-id", ctx.id.to_string())?;
    if let Some(page) = &ctx.page {
        cors::let_read(&mut header, page)?;
    }
    session.write_response_header(Box::new(header), true).await
}

async fn send(
    session: &mut Session,
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: String,
    ctx: &Context,
) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(status, Some(fields.len() + 1))?;
    for (name, value) in fields {
        header.insert_header(name, value)?;
    }
    header.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    if let Some(page) = &ctx.page {
        cors::let_read(&mut header, page)?;
    }
    session.write_response_header(Box::new(header), false).await?;
    let is_head = session.req_header().method == http::Method::HEAD;
    let body = if is_head { None } else { Some(Bytes::from(body)) };
    session.write_response_body(body, true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_refusal_is_a_whole_response() {
        let denial = Denial::new(DenialCode::HeaderTooLarge, "too \"large\"").with_hint("send less");
        let response = String::from_utf8(raw(&denial, RequestId::from_parts(1, 2))).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["error"]["code"], "header_too_large");
        assert_eq!(json["error"]["type"], "tokfence_header_too_large");
        assert_eq!(json["error"]["hint"], "send less");
    }

    #[test]
    fn every_code_has_a_status_of_its_class() {
        for code in DenialCode::ALL {
            assert!((400..=599).contains(&status(code)), "{code}");
        }
    }

    /// The page on what goes wrong has a row for each code, with its status.
    #[test]
    fn the_page_on_refusals_tells_of_each_with_its_status() {
        let page = include_str!("../../../docs/troubleshooting.md");
        let row = |line: &str| {
            let (code, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((code.to_owned(), rest.split_once(' ')?.0.parse::<u16>().ok()?))
        };
        let mut told: Vec<_> = page.lines().filter_map(row).collect();
        let mut codes: Vec<_> =
            DenialCode::ALL.iter().map(|code| (code.as_str().to_owned(), status(*code))).collect();
        told.sort();
        codes.sort();
        assert_eq!(told, codes);
    }
}
