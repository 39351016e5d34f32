//! Hot: what is remembered of one request, and how it is settled exactly once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use pingora::http::ResponseHeader;
use policy::{Basis, Denial, DenialCode, NanoUsd, RequestId, RouteClass, TimestampUs, Usage};
use storage::{LogText, Outcome, RequestRow, Reservation, Used};

use crate::caller::connection::Connection;
use crate::fence::{Fence, Watch};
use crate::meter::{Ending, Meter, Metered};
use crate::provider::upstream::Upstream;
use crate::request::body::StoredBody;
use crate::request::cutting::Shown;
use crate::request::facts::Facts;
use crate::request::headers;
use crate::request::quote;
use crate::request::rates::Permit;
use crate::request::respond;
use crate::state::{Shared, Snapshot, now_us};
use crate::wire::{ARRAY_STREAM, Decoder, Framing, HideUsage, Seam};

/// What a provider reports beyond this nobody owes: a hundred thousand dollars for one request.
pub(crate) const COST_MAX: NanoUsd = NanoUsd::from_nanos(100_000_000_000_000);
/// Informational answers (1xx) of one request.
const INFORMATIONAL_MAX: u32 = 16;

/// Everything that is remembered of one request.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: RequestId,
    /// The origin of the listed web page that asks.
    pub(crate) page: Option<HeaderValue>,
    pub(crate) started_at: TimestampUs,
    started: Instant,
    /// How much of the time was spent waiting for the caller.
    pub(super) waited: Duration,
    pub(crate) facts: Facts,
    pub(crate) body: StoredBody,
    /// What it holds of the limits on rates.
    pub(super) permit: Option<Permit>,
    pub(super) request_bytes: u64,
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
    /// What the provider answered, whatever the caller got.
    provider_status: Option<u16>,
    pub(crate) meter: Option<Box<Meter>>,
    /// What the meter told at the end of the answer.
    pub(super) metered: Option<Metered>,
    /// What the request is charged, once that is settled with its budgets.
    pub(super) charged: Option<(Basis, Usage, Option<NanoUsd>)>,
    /// Since when a stream waits for its budgets.
    pub(crate) uncovered_since: Option<Instant>,
    pub(crate) hide_usage: Option<Hide>,
    /// Reads an answer that is compressed.
    pub(crate) decoder: Option<Decoder>,
    /// Searches the answer for secrets.
    pub(crate) fence: Option<Box<Fence>>,
    pub(crate) shown: Shown,
    first_byte_us: Option<u64>,
    response_bytes: u64,
    /// The limit on the answer's length that we set, in tokens.
    pub(super) output_limit: Option<u64>,
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
    /// We ended it.
    Cut(DenialCode),
}

/// Takes the usage event out of a stream whose caller did not ask for it.
pub(crate) struct Hide(Option<HideUsage>);

impl Hide {
    pub(super) fn new() -> Self {
        Self(Some(HideUsage::new()))
    }

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
            page: None,
            started: Instant::now(),
            waited: Duration::ZERO,
            facts: Facts::default(),
            body: StoredBody::default(),
            permit: None,
            request_bytes: 0,
            is_sent: false,
            stage: Stage::Received,
            answer: Answer::Pending,
            is_finished: false,
            informational: 0,
            failure: None,
            status: None,
            provider_status: None,
            meter: None,
            metered: None,
            charged: None,
            uncovered_since: None,
            hide_usage: None,
            decoder: None,
            fence: None,
            shown: Shown::default(),
            first_byte_us: None,
            response_bytes: 0,
            output_limit: None,
        }
    }

    /// The provider's answer begins: decides how it is read.
    pub(crate) fn begin_answer(&mut self, response: &ResponseHeader) {
        self.answer = Answer::Provider(response.status.as_u16());
        self.status = Some(response.status.as_u16());
        self.provider_status = self.status;
        let content_type = response.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let framing = content_type.and_then(Framing::from_content_type);
        let is_coded = response.headers.contains_key(header::CONTENT_ENCODING);
        if framing != Some(Framing::Sse) || !response.status.is_success() || is_coded {
            self.hide_usage = None;
        }
        if let (Some(framing), Some(provider), true) =
            (framing, &self.facts.provider, response.status.is_success())
        {
            let is_array = self.facts.path.ends_with(ARRAY_STREAM);
            self.shown.seam = Seam::new(framing, is_array).filter(|_| !is_coded);
            self.facts.is_streaming |= framing != Framing::Json;
            let meter =
                Meter::new(provider.wire, framing).served_in(headers::service_tier(&response.headers));
            self.meter = Some(Box::new(meter));
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
        self.connection.progress.advance(self.response_bytes, self.meter.as_mut());
    }

    /// All is done that is done before the provider is asked.
    pub(super) fn prepared(&self) {
        let took = self.started.elapsed().saturating_sub(self.waited);
        self.shared.metrics.prepared(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
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
                let is_charged = self.charged.is_some();
                let row = self.row(Some(&reserved.reservation));
                let used = used(&row.usage, row.cost);
                self.look_at_spending(row.cost);
                self.shared.metrics.settled(&row);
                if let Some(permit) = self.permit.take() {
                    permit.finish(row.usage.total());
                }
                if reserved.reservation.is_limited() && !is_charged {
                    self.remember_length(row.basis, &row.usage);
                }
                self.connection.lifeline.end();
                reserved.reservation.settle(row, used);
            }
            Stage::Received => {
                let row = self.row(None);
                self.release_rates();
                self.shared.metrics.settled(&row);
                self.shared.ledger.record_refusal(row);
            }
            Stage::Settled | Stage::Unlogged => {}
        }
    }

    fn row(&mut self, reservation: Option<&Reservation>) -> RequestRow {
        // A panic may have come from the meter itself, and a second one would end the process.
        if !std::thread::panicking() {
            self.finish_meter();
        }
        let metered = self.metered.take();
        let charged = self.charged.take();
        let (basis, usage, cost) = charged.unwrap_or_else(|| self.charge(metered.as_ref(), reservation));
        let (outcome, error_code) = self.outcome();
        let (facts, watch) = (&self.facts, self.shared.watch.load());
        let model = facts.model.as_deref().or(metered.as_ref().and_then(|metered| metered.model.as_deref()));
        RequestRow {
            id: self.id,
            started_at: self.started_at,
            provider: facts.provider.as_ref().map(|provider| provider.id.clone()),
            route_class: facts.class,
            method: LogText::method(&watch.clean(facts.method.as_ref().map_or("", http::Method::as_str))),
            path: LogText::path(&watch.clean(&facts.path)),
            model: model.map(|model| LogText::model(&watch.clean(model))),
            agent: facts.agent.clone(),
            capability: facts.capability.map(|presented| presented.id),
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
            output_limit: self.output_limit,
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
            Answer::Cut(denial) => (Outcome::Cut, code(denial)),
        }
    }

    /// What the request is charged: what the provider reported; an estimate, marked as one, when it reported
    /// nothing but may bill; nothing when it cannot have produced anything.
    ///
    /// In a strict budget the estimate is all that was reserved: whoever leaves before the end does not know what the
    /// provider went on to make, nor what it had thought before it began to speak.
    pub(super) fn charge(
        &self,
        metered: Option<&Metered>,
        reservation: Option<&Reservation>,
    ) -> (Basis, Usage, Option<NanoUsd>) {
        let is_reported = metered.is_some_and(|metered| metered.usage.is_some());
        // What other routes report was billed before: an answer that was stored is read again, not made again.
        if !self.costs_money() || !is_reported && !self.may_be_billed() {
            return (Basis::None, Usage::default(), Some(NanoUsd::ZERO));
        }
        let is_whole = is_reported && metered.is_some_and(|metered| metered.ending == Ending::Complete);
        if let Some((usage, reserved)) =
            reservation.filter(|_| self.is_strict() && !is_whole).and_then(Reservation::whole)
        {
            let cost = self.cost(&usage, metered).map(|cost| cost.max(reserved));
            return (Basis::Estimated, usage, cost);
        }
        let input = self.facts.estimate_input(self.request_bytes);
        let (usage, basis) = match metered {
            Some(metered) => metered.usage_or_estimate(input),
            None => (Usage { input, ..Usage::default() }, Basis::Estimated),
        };
        let reported_cost = metered.and_then(|metered| metered.reported_cost);
        let cost = reported_cost.or_else(|| self.cost(&usage, metered));
        (basis, usage, cost.map(|cost| cost.min(COST_MAX)))
    }

    pub(super) fn costs_money(&self) -> bool {
        matches!(self.facts.class, Some(RouteClass::Generate | RouteClass::Embed))
    }

    fn may_be_billed(&self) -> bool {
        match self.answer {
            Answer::Refused(_) => false,
            Answer::Provider(status) => status < 400,
            Answer::Cut(_) => self.is_sent && self.provider_status.is_none_or(|status| status < 400),
            Answer::Pending | Answer::Failed(_) | Answer::CallerGone => self.is_sent,
        }
    }

    fn cost(&self, usage: &Usage, metered: Option<&Metered>) -> Option<NanoUsd> {
        let provider = self.facts.provider.as_ref()?;
        // Where others may answer, the one that was asked for says nothing of the price.
        let asked = self.facts.model.as_deref().filter(|_| !self.facts.names_other_models);
        let answered = metered.and_then(|metered| metered.model.as_deref());
        let tier = metered.and_then(|metered| metered.service_tier.as_deref());
        quote::cost(&self.snapshot.prices, provider, &[asked, answered], usage, tier)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A request that could not be ended in order is dropped on purpose, and answered by its status.
        if let Some(code) = self.connection.lifeline.lost_code().filter(|_| !self.is_finished) {
            self.answer = Answer::Cut(code);
            self.status = self.status.or(Some(respond::status(code)));
            self.is_finished = true;
        }
        if std::thread::panicking() {
            self.connection.lifeline.set_panicked(self.id);
            self.status = self.status.or(Some(respond::status(DenialCode::InternalError)));
        }
        self.settle();
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a finished request is charged to its budgets.
pub(super) fn used(usage: &Usage, cost: Option<NanoUsd>) -> Used {
    let tokens = usage.total();
    cost.map_or(Used::Unpriced { tokens }, |cost| Used::Known { cost, tokens })
}

/// The row of a request that was refused by its head and never reached the engine.
pub(crate) fn refused_head(
    watch: &Watch,
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
        method: LogText::method(&watch.clean(words.next().unwrap_or_default())),
        path: LogText::path(&watch.clean(words.next().unwrap_or_default())),
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
