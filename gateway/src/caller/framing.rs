//! Hot: the head of a request, checked as raw bytes before the proxy engine sees it.
//!
//! Two parsers that disagree about where a request ends are how requests are smuggled, so whatever could be
//! read in two ways is refused: bare line feeds, both length headers, repeated ones, absolute targets, old
//! versions. A gateway on one machine has no legacy clients to please. Pure, so that it can be fuzzed.

use policy::{Denial, DenialCode};

const FIELDS_MAX: usize = 100;

/// How the body that follows a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// This many bytes; 0 when no length was given.
    Length(u64),
    /// Chunks. Such a connection serves no further request, so their end need not be found here.
    Chunked,
}

/// What the bytes that have come so far hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// A whole head, up to here.
    Head(usize),
    /// A line that ends in a bare line feed: the end of such a head would be waited for in vain.
    BareLineFeed,
    /// The beginning of a head.
    Part,
}

/// Looks for a head in `bytes`. `from` is where the search may begin, because everything before it was searched already.
pub(crate) fn look(bytes: &[u8], from: usize) -> Arrived {
    match head_end(bytes, from) {
        Some(end) => Arrived::Head(end),
        None if has_bare_line_feed(bytes, from) => Arrived::BareLineFeed,
        None => Arrived::Part,
    }
}

/// The index after the empty line.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    memchr::memmem::find(&bytes[start..], b"\r\n\r\n").map(|at| start + at + 4)
}

/// Whether a line feed stands anywhere that has no carriage return before it.
fn has_bare_line_feed(bytes: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// Checks a complete head, its empty line included.
///
/// # Errors
/// The [`Denial`] to answer with.
pub(crate) fn check(head: &[u8]) -> Result<BodyFraming, Denial> {
    if !lines_end_in_crlf(head) {
        return Err(bare_line_ending());
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            let message = format!("the head has more than {FIELDS_MAX} fields");
            return Err(Denial::new(DenialCode::HeaderTooLarge, message));
        }
        Ok(_) | Err(_) => return Err(invalid("the head is not well-formed HTTP/1.1")),
    }
    check_request_line(&request)?;
    check_fields(request.headers)
}

fn check_request_line(request: &httparse::Request<'_, '_>) -> Result<(), Denial> {
    if request.version != Some(1) {
        return Err(invalid("only HTTP/1.1 is served"));
    }
    if matches!(request.method, Some("CONNECT" | "TRACE")) {
        return Err(Denial::new(DenialCode::MethodNotAllowed, "the method is not allowed"));
    }
    let target = request.path.unwrap_or_default();
    if !target.starts_with('/') {
        return Err(invalid("the request target must be a path"));
    }
    // The engine would refuse some of these as well, but with an answer of its own and without a row in the log.
    let must_be_escaped = |byte: u8| !byte.is_ascii_graphic() || b"\"#<>\\^`{|}".contains(&byte);
    if target.bytes().any(must_be_escaped) {
        return Err(invalid("the request target has characters that must be escaped"));
    }
    // The engine would leave a fragment out without a word, and nobody sends one for a good reason.
    if request.path.is_some_and(|target| target.contains('#')) {
        return Err(invalid("the request target has a fragment"));
    }
    Ok(())
}

fn check_fields(fields: &[httparse::Header<'_>]) -> Result<BodyFraming, Denial> {
    let (mut hosts, mut length, mut is_chunked) = (0, None, false);
    for field in fields {
        if field.name.eq_ignore_ascii_case("host") {
            hosts += 1;
            // The engine would refuse it as well, but with an answer of its own and without a row in the log.
            if field.value.contains(&b'@') {
                return Err(invalid("a Host names no user"));
            }
        } else if field.name.eq_ignore_ascii_case("content-length") {
            if length.replace(parse_length(field.value)?).is_some() {
                return Err(invalid("there is more than one Content-Length"));
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(invalid("the only Transfer-Encoding served is one `chunked`"));
            }
            is_chunked = true;
        }
    }
    if hosts != 1 {
        return Err(invalid("there must be exactly one Host"));
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(invalid("Content-Length and Transfer-Encoding exclude each other")),
        (None, true) => Ok(BodyFraming::Chunked),
        (length, false) => Ok(BodyFraming::Length(length.unwrap_or(0))),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Denial> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| invalid("Content-Length is not a number"))
}

fn lines_end_in_crlf(head: &[u8]) -> bool {
    let mut returns = memchr::memchr_iter(b'\r', head);
    !has_bare_line_feed(head, 0) && returns.all(|at| head.get(at + 1) == Some(&b'\n'))
}

/// The refusal of a line that ends in another way than CR LF.
pub(crate) fn bare_line_ending() -> Denial {
    invalid("a line of the head does not end in CR LF")
}

fn invalid(message: &'static str) -> Denial {
    Denial::new(DenialCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_head(head: &str, expected: Result<BodyFraming, DenialCode>) {
        assert_eq!(check(head.as_bytes()).map_err(|denial| denial.code()), expected, "{head:?}");
    }

    fn post(fields: &str) -> String {
        format!("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_request_is_accepted() {
        check_head(&post(""), Ok(BodyFraming::Length(0)));
        check_head(&post("Content-Length: 12\r\n"), Ok(BodyFraming::Length(12)));
        check_head(&post("Transfer-Encoding: Chunked\r\n"), Ok(BodyFraming::Chunked));
    }

    #[test]
    fn two_ways_to_find_the_end_of_a_body_are_refused() {
        let bad = Err(DenialCode::InvalidRequest);
        check_head(&post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), bad);
        check_head(&post("Content-Length: 1\r\nContent-Length: 1\r\n"), bad);
        check_head(&post("Content-Length: 1, 1\r\n"), bad);
        check_head(&post("Content-Length: +1\r\n"), bad);
        check_head(&post("Content-Length: \r\n"), bad);
        check_head(&post("Content-Length: 99999999999999999999\r\n"), bad);
        check_head(&post("Transfer-Encoding: gzip, chunked\r\n"), bad);
        check_head(&post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), bad);
        check_head(&post("Transfer-Encoding: identity\r\n"), bad);
        check_head(&post("Content-Length : 1\r\n"), bad);
        check_head(&post("X: a\r\n b\r\n"), bad);
    }

    #[test]
    fn line_endings_are_strict() {
        let bad = Err(DenialCode::InvalidRequest);
        check_head("GET / HTTP/1.1\nHost: x\n\n", bad);
        check_head(&post("X: a\n"), bad);
        check_head(&post("X: a\rb\r\n"), bad);
    }

    #[test]
    fn the_request_line_is_strict() {
        let bad = Err(DenialCode::InvalidRequest);
        check_head("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", bad);
        check_head("GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n", bad);
        check_head("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", bad);
        check_head("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", bad);
        check_head("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", Err(DenialCode::MethodNotAllowed));
        check_head("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Err(DenialCode::MethodNotAllowed));
    }

    #[test]
    fn a_host_is_needed_once() {
        let bad = Err(DenialCode::InvalidRequest);
        check_head("GET / HTTP/1.1\r\n\r\n", bad);
        check_head("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", bad);
        check_head("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", bad);
    }

    #[test]
    fn a_hundred_fields_are_enough() {
        let fields: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
        check_head(&post(&fields), Err(DenialCode::HeaderTooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_the_check(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes);
        }

        #[test]
        fn the_end_is_found_however_the_bytes_arrive(head in "[a-z\r\n]{0,60}", cut in 0usize..60) {
            let whole = format!("{head}\r\n\r\n");
            let cut = cut.min(whole.len());
            let first = head_end(&whole.as_bytes()[..cut], 0);
            let end = first.or_else(|| head_end(whole.as_bytes(), cut));
            prop_assert_eq!(end, head_end(whole.as_bytes(), 0));
        }
    }
}
