//! Who may speak to the page: a browser that shows it, under its one address, and nobody else's page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::failure::Failure;
use super::{Page, ROOT, Shown};

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
    let passed = match check(&page, &request) {
        Ok(()) => whole(request).await,
        Err(refused) => Err(refused),
    };
    let mut response = match passed {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check(page: &Arc<Page>, request: &Request) -> Result<(), Failure> {
    let (headers, is_post) = (request.headers(), request.method() == Method::POST);
    if !page.daemon.shared().snapshot.load().config.metrics.dashboard {
        return Err(Failure::not_found("no_dashboard", "the dashboard is switched off"));
    }
    let refused = |status, code, message: &str| Err(Failure::new(status, code, message));
    // A page whose name was made to lead here is of this origin to its browser.
    let own = host(page.address);
    if only(headers, &header::HOST) != Some(own.as_bytes()) {
        let message = "the dashboard is only at the address of its link";
        return refused(StatusCode::FORBIDDEN, "host_not_allowed", message);
    }
    let origin = format!("http://{own}");
    let is_own_origin = match only(headers, &header::ORIGIN) {
        Some(sent) => sent == origin.as_bytes(),
        // Browsers leave it out where a page only reads of its own origin.
        None => !headers.contains_key(header::ORIGIN) && !is_post,
    };
    if !is_own_origin || !(is_of_own_page(headers) || opens_page(request)) {
        let message = "only the dashboard's own page may do that";
        return refused(StatusCode::FORBIDDEN, "origin_not_allowed", message);
    }
    if is_post && only(headers, &header::CONTENT_TYPE) != Some(b"application/json") {
        let message = "the body must be application/json";
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media", message);
    }
    Ok(())
}

/// How browsers name the address; they leave the port of HTTP out.
fn host(address: SocketAddr) -> String {
    let text = address.to_string();
    text.strip_suffix(":80").map_or(text.clone(), ToOwned::to_owned)
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
async fn whole(request: Request) -> Result<Request, Failure> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_PATIENCE, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Ok(Err(_)) => {
            let message = "the body is too large, or did not come whole";
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message))
        }
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come")),
    }
}
