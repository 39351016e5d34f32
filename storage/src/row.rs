//! One row of the request log, and how it is written and read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use policy::{
    AgentName, Basis, CapabilityId, NanoUsd, ProviderId, RequestId, RouteClass, TimestampUs, Transport, Usage,
};
use rusqlite::{Connection, Row, RowIndex, params};

/// Beyond this a number of tokens is stored as this: no request has a trillion, and a hostile number must not
/// make every later sum overflow.
const TOKENS_MAX: u64 = 1_000_000_000_000;
const ERROR_CODE_BYTES_MAX: usize = 64;

/// A request that ended, however it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Its id, unique in the log.
    pub id: RequestId,
    /// When its header had arrived.
    pub started_at: TimestampUs,
    /// The provider it was for; `None` when it named none that exists.
    pub provider: Option<ProviderId>,
    /// What kind of route it asked for, if the route is known.
    pub route_class: Option<RouteClass>,
    /// The HTTP method.
    pub method: LogText,
    /// The path, without the query.
    pub path: LogText,
    /// The model it asked for.
    pub model: Option<LogText>,
    /// The agent it is booked to.
    pub agent: Option<AgentName>,
    /// The capability it presented.
    pub capability: Option<CapabilityId>,
    /// How the caller reached us.
    pub transport: Transport,
    /// The caller's process, where the socket tells.
    pub peer_pid: Option<u32>,
    /// The caller's user, where the socket tells.
    pub peer_uid: Option<u32>,
    /// Whether the answer was asked for as a stream.
    pub is_streaming: bool,
    /// The status the caller got; `None` when it got none.
    pub status: Option<u16>,
    /// Why it was refused, failed or cut: a stable `snake_case` code, at most 64 bytes.
    pub error_code: Option<Cow<'static, str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the numbers of `usage` come from.
    pub basis: Basis,
    /// The tokens it consumed.
    pub usage: Usage,
    /// What it cost; `None` when the price is unknown, zero when it was free.
    pub cost: Option<NanoUsd>,
    /// From the request's header to the end of the answer, in microseconds.
    pub latency_us: u64,
    /// From the request's header to the first byte of the answer's body, in microseconds.
    pub first_byte_us: Option<u64>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// The limit on the answer's length that we set, in tokens, where a budget did not afford what was asked for.
    pub output_limit: Option<u64>,
}

/// A row as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// Its place in the log. Rows get ascending numbers in the order in which they become visible.
    pub seq: i64,
    /// How many equal refusals this row stands for; 1 for anything else.
    pub repeats: u64,
    /// The request.
    pub request: RequestRow,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The caller got the provider's whole answer, whatever its status.
    Completed,
    /// We answered it ourselves; the provider never saw it.
    Refused,
    /// The provider could not be reached, or its answer broke off.
    UpstreamError,
    /// The caller left before the end.
    ClientGone,
    /// We ended the answer early: kill, revocation, risk, a canary or a budget.
    Cut,
    /// The request's end was not seen: a panic, or a shutdown.
    Unfinished,
}

/// A caller's text, fit for a log: short, and without anything that a terminal would obey. Everything but
/// letters and digits of any script, visible ASCII and the space is shown escaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogText(Box<str>);

/// Text that names no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an outcome is one of completed, refused, upstream_error, client_gone, cut, unfinished")]
pub struct UnknownOutcome;

impl LogText {
    /// A request's path: the query, which may hold a credential, is left out; at most 512 bytes.
    pub fn path(raw: &str) -> Self {
        let path = raw.split_once(['?', '#']).map_or(raw, |(path, _)| path);
        Self::capped(path, 512)
    }

    /// An HTTP method, at most 32 bytes.
    pub fn method(raw: &str) -> Self {
        Self::capped(raw, 32)
    }

    /// The name of a model, at most 200 bytes.
    pub fn model(raw: &str) -> Self {
        Self::capped(raw, 200)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn capped(raw: &str, bytes_max: usize) -> Self {
        let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric());
        if raw.len() <= bytes_max && raw.chars().all(is_plain) {
            return Self(raw.into());
        }
        let mut text = String::new();
        for c in raw.chars() {
            let before = text.len();
            if is_plain(c) {
                text.push(c)
            } else {
                text.extend(c.escape_default())
            }
            if text.len() > bytes_max {
                text.truncate(before); // an escape is kept whole or not at all
                break;
            }
        }
        Self(text.into())
    }
}

impl fmt::Debug for LogText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for LogText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Outcome {
    /// Every outcome, in the order they are shown.
    pub const ALL: [Self; 6] =
        [Self::Completed, Self::Refused, Self::UpstreamError, Self::ClientGone, Self::Cut, Self::Unfinished];

    /// The stable `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::UpstreamError => "upstream_error",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::Unfinished => "unfinished",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(UnknownOutcome)
    }
}

/// Appends one row and answers its `seq`.
pub(crate) fn insert(conn: &Connection, row: &RequestRow, repeats: u64) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO requests (id, started_at_us, provider, route_class, method, path, model, agent,
            capability_id, transport, peer_pid, peer_uid, is_streaming, status, error_code, outcome, usage_basis,
            input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
            reasoning_tokens, cost_nano_usd, latency_us, first_byte_us, request_bytes, response_bytes, repeats,
            output_limit_tokens)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
            ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
    )?;
    statement.insert(params![
        row.id.to_string(),
        row.started_at,
        row.provider.as_ref().map(ProviderId::as_str),
        row.route_class.map(RouteClass::as_str),
        row.method.as_str(),
        row.path.as_str(),
        row.model.as_ref().map(LogText::as_str),
        row.agent.as_ref().map(AgentName::as_str),
        row.capability.as_ref().map(CapabilityId::as_str),
        row.transport.as_str(),
        row.peer_pid,
        row.peer_uid,
        row.is_streaming,
        row.status,
        row.error_code.as_deref().map(|code| &code[..code.floor_char_boundary(ERROR_CODE_BYTES_MAX)]),
        row.outcome.as_str(),
        row.basis.as_str(),
        stored(row.usage.input.min(TOKENS_MAX)),
        stored(row.usage.cache_read.min(TOKENS_MAX)),
        stored(row.usage.cache_write_5m.min(TOKENS_MAX)),
        stored(row.usage.cache_write_1h.min(TOKENS_MAX)),
        stored(row.usage.output.min(TOKENS_MAX)),
        stored(row.usage.reasoning.min(TOKENS_MAX)),
        row.cost.map(NanoUsd::nanos),
        stored(row.latency_us),
        row.first_byte_us.map(stored),
        stored(row.request_bytes),
        stored(row.response_bytes),
        stored(repeats),
        row.output_limit.map(|tokens| stored(tokens.min(TOKENS_MAX))),
    ])
}

/// Reads a row that was selected with all columns.
pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<LoggedRequest> {
    let request = RequestRow {
        id: parsed(row, "id")?,
        started_at: row.get("started_at_us")?,
        provider: parsed_opt(row, "provider")?,
        route_class: parsed_opt(row, "route_class")?,
        method: LogText(row.get("method")?),
        path: LogText(row.get("path")?),
        model: row.get::<_, Option<Box<str>>>("model")?.map(LogText),
        agent: parsed_opt(row, "agent")?,
        capability: parsed_opt(row, "capability_id")?,
        transport: named(row, "transport", [Transport::Tcp, Transport::Unix], Transport::as_str)?,
        peer_pid: row.get("peer_pid")?,
        peer_uid: row.get("peer_uid")?,
        is_streaming: row.get("is_streaming")?,
        status: row.get("status")?,
        error_code: row.get::<_, Option<String>>("error_code")?.map(Cow::Owned),
        outcome: parsed(row, "outcome")?,
        basis: named(row, "usage_basis", [Basis::Reported, Basis::Estimated, Basis::None], Basis::as_str)?,
        usage: Usage {
            input: unsigned(row, "input_tokens")?,
            cache_read: unsigned(row, "cache_read_tokens")?,
            cache_write_5m: unsigned(row, "cache_write_5m_tokens")?,
            cache_write_1h: unsigned(row, "cache_write_1h_tokens")?,
            output: unsigned(row, "output_tokens")?,
            reasoning: unsigned(row, "reasoning_tokens")?,
            // What else tokens were decides their price, which is in the row.
            ..Usage::default()
        },
        cost: row.get::<_, Option<i64>>("cost_nano_usd")?.map(NanoUsd::from_nanos),
        latency_us: unsigned(row, "latency_us")?,
        first_byte_us: unsigned_opt(row, "first_byte_us")?,
        request_bytes: unsigned(row, "request_bytes")?,
        response_bytes: unsigned(row, "response_bytes")?,
        output_limit: unsigned_opt(row, "output_limit_tokens")?,
    };
    Ok(LoggedRequest { seq: row.get("seq")?, repeats: unsigned(row, "repeats")?, request })
}

/// Reads text that stands for a checked type. A row that breaks its rules fails the read: somebody edited it.
pub(crate) fn parsed<T>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(row, column, error))?;
    text.parse().map_err(|error| unreadable(row, column, error))
}

/// As [`parsed`], for a column that may be NULL.
pub(crate) fn parsed_opt<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(row, column, error))).transpose()
}

/// Reads a count.
pub(crate) fn unsigned(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|error| unreadable(row, column, error))
}

/// As [`unsigned`], for a column that may be NULL.
pub(crate) fn unsigned_opt(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    number.map(|number| u64::try_from(number).map_err(|error| unreadable(row, column, error))).transpose()
}

/// The error of a value that is in the database but cannot be one we wrote.
pub(crate) fn unreadable(
    row: &Row<'_>,
    column: impl RowIndex,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let index = column.idx(row.as_ref()).unwrap_or(usize::MAX);
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}

fn named<T: Copy, const N: usize>(
    row: &Row<'_>,
    column: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    let found = all.into_iter().find(|one| name(*one) == text);
    found.ok_or_else(|| unreadable(row, column, std::fmt::Error))
}

/// SQLite's integers are signed; what does not fit is as good as endless.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
