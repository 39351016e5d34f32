//! Hot: what is remembered of one request, and how it is settled exactly once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use policy::{Basis, Denial, DenialCode, NanoUsd, RequestId, RouteClass, TimestampUs, Usage};
use storage::{LogText, Outcome, RequestRow, Reservation};

use crate::body::StoredBody;
use crate::catalogue::Provider;
use crate::connection::Connection;
use crate::facts::Facts;
use crate::meter::{Meter, Metered};
use crate::state::{Shared, Snapshot, now_us};
use crate::upstream::Upstream;
use crate::wire::{Framing, HideUsage};

/// Informational answers (1xx) of one request.
const INFORMATIONAL_MAX: u32 = 16;

/// Everything that is remembered of one request.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: RequestId,
    pub(crate) started_at: TimestampUs,
    started: Instant,
    pub(crate) facts: Facts,
    pub(crate) body: StoredBody,
    request_bytes: u64,
    /// Whether the provider has been given the whole request, so that it may bill it.
    pub(crate) is_sent: bool,
    pub(crate) stage: Stage,
    pub(crate) answer: Answer,
    /// Whether the engine told the request's end; otherwise a panic or a shutdown cut it.
    is_finished: bool,
    informational: u32,
    /// Why the attempt to reach the provider failed, where we know it better than the engine.
    pub(crate) failure: Option<Denial>,
    status: Option<u16>,
    meter: Option<Box<Meter>>,
    pub(crate) hide_usage: Option<Hide>,
    first_byte_us: Option<u64>,
    response_bytes: u64,
}

/// Where a request stands. Each stage is entered once, in this order.
pub(crate) enum Stage {
    Received,
    Reserved(Box<Reserved>),
    Settled,
    /// Our own endpoint; such requests are not logged.
    Unlogged,
}

/// What an admitted request holds.
pub(crate) struct Reserved {
    pub(crate) reservation: Reservation,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) target: String,
}

/// How the request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing has been answered.
    Pending,
    /// We refused it.
    Refused(DenialCode),
    /// The provider answers with this status.
    Provider(u16),
    /// The provider could not be reached or broke off.
    Failed(DenialCode),
    /// The caller left.
    CallerGone,
}

/// Takes the usage event out of a stream whose caller did not ask for it.
pub(crate) struct Hide(Option<HideUsage>);

impl Hide {
    /// What the caller gets for this chunk; at the end also what was held back.
    pub(crate) fn pass(&mut self, chunk: Option<Bytes>, end: bool) -> Option<Bytes> {
        let Some(filter) = &mut self.0 else { return chunk };
        let shown = chunk.map(|chunk| filter.feed(chunk)).unwrap_or_default();
        let rest = if end { self.0.take().map(HideUsage::finish).unwrap_or_default() } else { Bytes::new() };
        match (shown.is_empty(), rest.is_empty()) {
            (true, true) => None,
            (false, true) => Some(shown),
            (true, false) => Some(rest),
            (false, false) => Some([shown, rest].concat().into()),
        }
    }
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let started_at = now_us();
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            snapshot: shared.snapshot.load_full(),
            id: shared.new_request_id(started_at),
            shared,
            connection: Arc::new(Connection::tcp(false)),
            started_at,
            started: Instant::now(),
            facts: Facts::default(),
            body: StoredBody::default(),
            request_bytes: 0,
            is_sent: false,
            stage: Stage::Received,
            answer: Answer::Pending,
            is_finished: false,
            informational: 0,
            failure: None,
            status: None,
            meter: None,
            hide_usage: None,
            first_byte_us: None,
            response_bytes: 0,
        }
    }

    /// Takes from the body what decisions need. Whether its usage is asked for on the caller's behalf is answered.
    pub(crate) fn read_body(&mut self, request: &RequestHeader) -> Result<bool, Denial> {
        self.request_bytes = self.body.bytes.len() as u64;
        let rewritten = self.facts.read_body(request, &self.body.bytes)?;
        let asks_for_usage = rewritten.is_some();
        if let Some(body) = rewritten {
            self.body.replace(body);
        }
        Ok(asks_for_usage)
    }

    pub(crate) fn reserved(
        &mut self,
        reservation: Reservation,
        upstream: Arc<Upstream>,
        target: String,
        hides_usage: bool,
    ) {
        self.stage = Stage::Reserved(Box::new(Reserved { reservation, upstream, target }));
        self.hide_usage = hides_usage.then(|| Hide(Some(HideUsage::new())));
    }

    /// The provider's answer begins: decides how it is read.
    pub(crate) fn begin_answer(&mut self, response: &ResponseHeader) {
        self.answer = Answer::Provider(response.status.as_u16());
        self.status = Some(response.status.as_u16());
        let content_type = response.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let framing = content_type.and_then(Framing::from_content_type);
        let is_coded = response.headers.contains_key(header::CONTENT_ENCODING);
        if framing != Some(Framing::Sse) || !response.status.is_success() || is_coded {
            self.hide_usage = None;
        }
        if let (Some(framing), Some(provider), true) =
            (framing, &self.facts.provider, response.status.is_success())
        {
            self.facts.is_streaming |= framing != Framing::Json;
            self.meter = Some(Box::new(Meter::new(provider.wire, framing)));
        }
    }

    /// A chunk of the answer goes by.
    pub(crate) fn pass(&mut self, chunk: &Bytes) {
        if self.first_byte_us.is_none() {
            self.first_byte_us = Some(self.elapsed_us());
        }
        self.response_bytes += chunk.len() as u64;
        if let Some(meter) = &mut self.meter {
            meter.feed(chunk);
        }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Counts an informational answer. Whether there may be another is told; a provider that goes on and on would
    /// hold a caller for ever.
    pub(crate) fn may_inform(&mut self) -> bool {
        self.informational += 1;
        self.informational <= INFORMATIONAL_MAX
    }

    /// The engine is done with the request; `status` is what the caller got.
    pub(crate) fn finish(&mut self, status: Option<u16>) {
        self.status = status;
        self.is_finished = true;
        self.settle();
    }

    /// Writes the request's row and gives back what it held. The second call does nothing.
    fn settle(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Settled) {
            Stage::Reserved(reserved) => {
                let row = self.row();
                reserved.reservation.settle(row);
            }
            Stage::Received => {
                let row = self.row();
                self.shared.ledger.record_refusal(row);
            }
            Stage::Settled | Stage::Unlogged => {}
        }
    }

    fn row(&mut self) -> RequestRow {
        // A panic may have come from the meter itself, and a second one would end the process.
        let metered = self.meter.take().filter(|_| !std::thread::panicking()).map(|meter| meter.finish());
        let (basis, usage, cost) = self.charge(metered.as_ref());
        let (outcome, error_code) = self.outcome();
        let facts = &self.facts;
        let model = facts.model.as_deref().or(metered.as_ref().and_then(|metered| metered.model.as_deref()));
        RequestRow {
            id: self.id,
            started_at: self.started_at,
            provider: facts.provider.as_ref().map(|provider| provider.id.clone()),
            route_class: facts.class,
            method: LogText::method(facts.method.as_ref().map_or("", http::Method::as_str)),
            path: LogText::path(&facts.path),
            model: model.map(LogText::model),
            agent: facts.agent.clone(),
            capability: facts.capability,
            transport: self.connection.transport,
            peer_pid: self.connection.peer_pid,
            peer_uid: self.connection.peer_uid,
            is_streaming: facts.is_streaming,
            status: self.status,
            error_code,
            outcome,
            basis,
            usage,
            cost,
            latency_us: self.elapsed_us(),
            first_byte_us: self.first_byte_us,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            output_limit: None,
        }
    }

    fn outcome(&self) -> (Outcome, Option<Cow<'static, str>>) {
        let code = |code: DenialCode| Some(Cow::Borrowed(code.as_str()));
        match self.answer {
            _ if !self.is_finished => (Outcome::Unfinished, Some(Cow::Borrowed("unfinished"))),
            Answer::Pending => (Outcome::Unfinished, None),
            Answer::Refused(denial) => (Outcome::Refused, code(denial)),
            Answer::Provider(status) if status >= 400 => {
                (Outcome::Completed, Some(Cow::Borrowed("upstream_error")))
            }
            Answer::Provider(_) => (Outcome::Completed, None),
            Answer::Failed(denial) => (Outcome::UpstreamError, code(denial)),
            Answer::CallerGone => (Outcome::ClientGone, Some(Cow::Borrowed("client_gone"))),
        }
    }

    /// What the request is charged: what the provider reported; an estimate, marked as one, when it reported
    /// nothing but may bill; nothing when it cannot have produced anything.
    fn charge(&self, metered: Option<&Metered>) -> (Basis, Usage, Option<NanoUsd>) {
        let is_reported = metered.is_some_and(|metered| metered.usage.is_some());
        if !is_reported && !self.may_be_billed() {
            return (Basis::None, Usage::default(), Some(NanoUsd::ZERO));
        }
        let input = self.facts.estimate_input(self.request_bytes);
        let (usage, basis) = match metered {
            Some(metered) => metered.usage_or_estimate(input),
            None => (Usage { input, ..Usage::default() }, Basis::Estimated),
        };
        let reported_cost = metered.and_then(|metered| metered.reported_cost);
        (basis, usage, reported_cost.or_else(|| self.cost(&usage, metered)))
    }

    fn may_be_billed(&self) -> bool {
        let costs_money = matches!(self.facts.class, Some(RouteClass::Generate | RouteClass::Embed));
        let is_answered = match self.answer {
            Answer::Refused(_) => false,
            Answer::Provider(status) => status < 400,
            Answer::Pending | Answer::Failed(_) | Answer::CallerGone => self.is_sent,
        };
        costs_money && is_answered
    }

    fn cost(&self, usage: &Usage, metered: Option<&Metered>) -> Option<NanoUsd> {
        let provider: &Provider = self.facts.provider.as_ref()?;
        if provider.is_local && provider.auth == crate::catalogue::AuthStyle::None {
            return Some(NanoUsd::ZERO);
        }
        let prices = &self.snapshot.prices;
        let asked = self.facts.model.as_deref();
        let answered = metered.and_then(|metered| metered.model.as_deref());
        let resolved = [asked, answered]
            .into_iter()
            .flatten()
            .find_map(|model| prices.resolve(&provider.prices, model))?;
        resolved.price.cost(usage).ok()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.settle();
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The row of a request that was refused by its head and never reached the engine.
pub(crate) fn refused_head(
    connection: &Connection,
    id: RequestId,
    now: TimestampUs,
    head: &[u8],
    denial: &Denial,
    status: u16,
) -> RequestRow {
    let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(1024)]);
    let mut words = line.split(' ');
    RequestRow {
        id,
        started_at: now,
        provider: None,
        route_class: None,
        method: LogText::method(words.next().unwrap_or_default()),
        path: LogText::path(words.next().unwrap_or_default()),
        model: None,
        agent: None,
        capability: None,
        transport: connection.transport,
        peer_pid: connection.peer_pid,
        peer_uid: connection.peer_uid,
        is_streaming: false,
        status: Some(status),
        error_code: Some(Cow::Borrowed(denial.code().as_str())),
        outcome: Outcome::Refused,
        basis: Basis::None,
        usage: Usage::default(),
        cost: Some(NanoUsd::ZERO),
        latency_us: 0,
        first_byte_us: None,
        request_bytes: 0,
        response_bytes: 0,
        output_limit: None,
    }
}
