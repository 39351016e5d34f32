//! Who may speak to the page: a browser that shows it, under its one address, and nobody else's page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Page, ROOT, Shown, failed};

/// A change is a few words.
const BODY_BYTES_MAX: usize = 16 * 1024;
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Everything is of this origin, and nothing is written into the page: no script, no style and no markup but what it was
/// served with.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 10] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    (HeaderName::from_static("x-dns-prefetch-control"), "off"),
    // Places on this listener are few, and a browser would keep what it got.
    (header::CONNECTION, "close"),
];

/// Lets through what comes from the page itself, and puts the headers on every answer.
pub(super) async fn guard(State(page): Shown, request: Request, next: Next) -> Response {
    let mut response = match check(&page, &request) {
        Ok(()) => match whole(request).await {
            Ok(request) => next.run(request).await,
            Err(refused) => refused,
        },
        Err((status, code, message)) => failed(status, code, message),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

type Refusal = (StatusCode, &'static str, &'static str);

fn check(page: &Arc<Page>, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    if !page.daemon.shared().snapshot.load().config.metrics.dashboard {
        return Err((StatusCode::NOT_FOUND, "no_dashboard", "the dashboard is switched off"));
    }
    // A page whose name was made to lead here is of this origin to its browser.
    let own = page.address.to_string();
    if only(headers, &header::HOST) != Some(own.as_bytes()) {
        return Err((
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "the dashboard is only at the address of its link",
        ));
    }
    let foreign = (StatusCode::FORBIDDEN, "origin_not_allowed", "only the dashboard's own page may do that");
    if !is_of_own_page(headers) && !opens_page(request) {
        return Err(foreign);
    }
    let origin = format!("http://{own}");
    let is_own_origin = match only(headers, &header::ORIGIN) {
        Some(sent) => sent == origin.as_bytes(),
        // Browsers leave it out where a page only reads of its own origin.
        None => !headers.contains_key(header::ORIGIN) && request.method() != Method::POST,
    };
    if !is_own_origin {
        return Err(foreign);
    }
    if request.method() == Method::POST && only(headers, &header::CONTENT_TYPE) != Some(b"application/json") {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media",
            "the body must be application/json",
        ));
    }
    Ok(())
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
}

/// Pages of other origins cannot leave this out, nor change it; pages of another port of this host are `same-site`.
fn is_of_own_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether a window goes to the page, from wherever: it is the same for everybody, and tells nothing.
fn opens_page(request: &Request) -> bool {
    request.method() == Method::GET
        && request.uri().path() == ROOT
        && only(request.headers(), &HeaderName::from_static("sec-fetch-dest")) == Some(b"document")
}

/// A request whose body has come whole, in its time and of its size.
async fn whole(request: Request) -> Result<Request, Response> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_PATIENCE, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Ok(Err(_)) => {
            Err(failed(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "the body is too large"))
        }
        Err(_) => Err(failed(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come")),
    }
}
