//! What a web page needs that the owner lists in `daemon.allowed_origins`: leave of its browser to ask, and to read the
//! answer (the CORS protocol of the Fetch standard, <https://fetch.spec.whatwg.org/#http-cors-protocol>). A page that is
//! not listed is refused before (`boundary`), and a listed one needs a capability like anybody.

use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Method};
use pingora::http::ResponseHeader;

use crate::request::boundary::METHODS;

/// For how long a browser may remember that it may ask, in seconds. Short, as the owner may take a page off the list.
const MAX_AGE: &str = "60";

/// Whether a browser asks in advance if a page may send a request. It sends no capability with that.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a preflight is answered with, beside what [`let_read`] adds. Any header may be sent: which of them go on to a
/// provider is decided elsewhere, as for everybody.
pub(crate) fn preflight_fields(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let methods = METHODS.each_ref().map(Method::as_str).join(", ");
    let methods = HeaderValue::from_str(&methods).expect("methods are letters");
    let mut fields = vec![
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE)),
    ];
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        fields.push((header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone()));
    }
    fields
}

/// Lets the page at `origin`, which is a listed one, read this answer with all its headers. Without credentials of the
/// browser: there are none of ours.
///
/// # Errors
/// Those of the engine, when a header has no room.
pub(crate) fn let_read(response: &mut ResponseHeader, origin: &HeaderValue) -> pingora::Result<()> {
    response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
    response.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, "*")?;
    response.append_header(header::VARY, "Origin").map(|_| ())
}
