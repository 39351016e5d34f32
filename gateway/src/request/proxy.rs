//! Hot: a request's life, one phase of the engine each. Every phase is a short script over plain functions.
//!
//! `request_filter` decides and reserves; `upstream_request_filter` puts in the credential; `response_*` strips,
//! meters and passes on; `logging` settles. Where the engine skips `logging` (a panic, a cut at shutdown), the
//! context's `Drop` settles instead, so every request that was reserved has its row.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType};
use policy::{Ask, Caller, Capability, Denial, DenialCode, Plan};
use storage::Reservation;

use crate::caller::guard::Guard;
use crate::provider::catalogue::AuthStyle;
use crate::request::attenuate;
use crate::request::authenticate::authenticate;
use crate::request::body;
use crate::request::boundary;
use crate::request::context::{Answer, Context, Stage};
use crate::request::cors;
use crate::request::cutting;
use crate::request::facts::anonymous;
use crate::request::fencing;
use crate::request::headers::{self, REQUEST_ID};
use crate::request::panics::panic_if_asked;
use crate::request::passthrough;
use crate::request::respond;
use crate::request::route::{self, Own};
use crate::state::Shared;

/// An idle connection of a caller is closed after this many seconds.
const KEEP_ALIVE_SECONDS: u64 = 60;
/// What is left of an answer that broke off is written within this time, or not at all.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Budgets are borrowed from within milliseconds, or the database is in trouble.
const RESERVE_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

/// What became of a request in `request_filter`.
enum Decision {
    Proxy,
    Answered,
}

impl Gateway {
    /// The decisions before a provider is asked, cheapest first. Their order is a promise (see ARCHITECTURE).
    async fn decide(&self, session: &mut Session, ctx: &mut Context) -> Result<Decision, Denial> {
        self.shared.follow_rules()?;
        ctx.snapshot = self.shared.snapshot.load_full();
        let snapshot = ctx.snapshot.clone();
        if self.shared.is_draining.load(Ordering::Relaxed) {
            session.set_keepalive(None);
            return Err(Denial::new(DenialCode::Overloaded, "the gateway is about to stop"));
        }
        let request = session.req_header();
        boundary::check(&snapshot.config.daemon, self.shared.port, &request.method, &request.headers)?;
        ctx.page = request.headers.get(header::ORIGIN).cloned();
        let target = route::canonical(request.raw_path())?;
        if cors::is_preflight(&request.method, &request.headers) {
            ctx.stage = Stage::Unlogged;
            body::drain(session).await;
            // When the browser is gone there is nobody left to tell.
            let _ = respond::preflight(session, ctx).await;
            return Ok(Decision::Answered);
        }
        if let Some(own) = route::own(&target.path) {
            return self.answer_own(session, ctx, own).await;
        }
        let route = route::resolve(&snapshot.config, &request.method, &target)?;
        ctx.facts.routed(&route);
        let (headers, is_local) = (&request.headers, ctx.connection.is_local);
        let is_passthrough = route.provider.auth == AuthStyle::Passthrough;
        let capability = authenticate(&snapshot, is_passthrough, headers, target.query, is_local)
            .map_err(|unproven| unproven.reported(&self.shared, &snapshot.rules))?;
        ctx.facts.called_by(capability);
        ctx.facts.check_standing(&snapshot.rules, self.shared.ledger.now())?;
        ctx.check_risk()?;
        ctx.enter_rates(capability)?;
        passthrough::check(&route.provider, headers, target.query)?;
        boundary::check_upgrade(headers)?;
        let upstream = snapshot.upstreams.get(&route.provider.id).cloned().ok_or_else(|| {
            Denial::new(DenialCode::StateUnavailable, "the provider's settings are not loaded")
        })?;
        self.shared.keys.load().credential_for(&upstream.provider)?;

        let limits = &snapshot.config.limits;
        let asked_at = Instant::now();
        ctx.body = body::read(session, &self.shared, limits).await?;
        ctx.waited += asked_at.elapsed();
        ctx.read_body(session.req_header())?;
        // A body can take long to arrive; what was taken back in the meantime does not go on, and budgets that were
        // set in the meantime hold.
        self.shared.follow_rules()?;
        ctx.take_newest_rules();
        ctx.facts.check_standing(&ctx.snapshot.rules, self.shared.ledger.now())?;
        ctx.check_risk()?;
        ctx.search_request(session.req_header(), &upstream, &route.upstream_target)?;
        let plan = admit(ctx, capability)?;
        ctx.take_tokens()?;
        let reservation = self.reserve(plan, ctx.snapshot.config.logging.required).await?;
        ctx.prepared();
        ctx.reserved(reservation, upstream, route.upstream_target)?;
        Ok(Decision::Proxy)
    }

    /// Takes a place in the log and what the request may cost from its budgets. Waits only while budgets are being
    /// borrowed from, or until it `must_be_logged` for certain, and not for ever.
    async fn reserve(&self, plan: Plan, must_be_logged: bool) -> Result<Reservation, Denial> {
        let ledger = &self.shared.ledger;
        let reserve = async {
            if must_be_logged {
                ledger.prove_writing().await?;
            }
            ledger.reserve(plan).await
        };
        tokio::time::timeout(RESERVE_PATIENCE, reserve).await.unwrap_or_else(|_| {
            let message = "the budgets or the log cannot be read or written at the moment";
            Err(Denial::new(DenialCode::StateUnavailable, message).with_hint("tokfence status"))
        })
    }

    /// The gateway's own endpoints. Nothing administrative is among them: see `control`.
    async fn answer_own(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        own: Own,
    ) -> Result<Decision, Denial> {
        match own {
            Own::Health => {
                ctx.stage = Stage::Unlogged;
                body::drain(session).await;
                // When the caller is gone there is nobody left to tell.
                let _ = respond::health(session, ctx).await;
            }
            Own::Attenuate => attenuate::answer(session, ctx).await?,
            Own::Unknown => return Err(Denial::new(DenialCode::InvalidRoute, "there is no such endpoint")),
        }
        Ok(Decision::Answered)
    }

    /// Answers a refused request, after reading what the caller still sends.
    async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        denial: &Denial,
    ) -> pingora::Result<bool> {
        ctx.answer = Answer::Refused(denial.code());
        ctx.shared.metrics.refused(denial.code());
        ctx.look_at_denial(&session.req_header().headers, denial);
        ctx.release_rates();
        ctx.body.release();
        if denial.code() == DenialCode::RequestTimeout {
            // Its time is over; nothing more of it is waited for.
            session.set_keepalive(None);
        } else {
            body::drain(session).await;
        }
        if denial.code() == DenialCode::InvalidCapability {
            let wrong = ctx.connection.presented_wrong();
            tokio::time::sleep(wrong.delay).await;
            if wrong.is_last {
                session.set_keepalive(None);
            }
        }
        respond::refuse(session, denial, ctx).await?;
        Ok(true)
    }
}

/// Asks `policy` whether the request that `ctx` knows may go on.
fn admit(ctx: &Context, capability: Option<&Capability>) -> Result<Plan, Denial> {
    let unrouted = || Denial::new(DenialCode::InvalidRoute, "the request has no route");
    let (provider, class) = ctx.facts.provider.as_ref().zip(ctx.facts.class).ok_or_else(unrouted)?;
    let method = ctx.facts.method.as_ref().and_then(|method| method.as_str().parse().ok());
    let agent = ctx.facts.agent.as_ref().unwrap_or_else(|| anonymous());
    let risk = ctx.risk();
    let caller = Caller { agent, capability, risk: &risk };
    let ask = Ask {
        provider: &provider.id,
        class,
        method: method.ok_or_else(unrouted)?,
        model: ctx.facts.model.as_deref(),
        names_other_models: ctx.facts.names_other_models,
        transport: ctx.connection.transport,
        quote: ctx.quote(&caller)?,
    };
    policy::admit(&ctx.snapshot.rules, &caller, &ask)
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// In a box, because the engine moves it about with its futures.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.shared.clone()))
    }

    /// No modules: the default one compresses answers, which is not our business.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        // What follows a chunked body belongs to it as far as the guard knows, so nothing may follow.
        let is_chunked = session.req_header().headers.contains_key(header::TRANSFER_ENCODING);
        session.set_keepalive((!is_chunked).then_some(KEEP_ALIVE_SECONDS));
        // A caller that does not read is cut off, so that it cannot hold a provider's connection.
        session.set_write_timeout(Some(ctx.snapshot.config.limits.stall_timeout));
        if let Some(guard) = session.stream().and_then(|stream| stream.as_any().downcast_ref::<Guard>()) {
            ctx.connection = guard.connection().clone();
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> pingora::Result<bool> {
        ctx.facts.requested(session.req_header());
        panic_if_asked(session.req_header(), "request");
        match self.decide(session, ctx).await {
            Ok(Decision::Proxy) => Ok(false),
            Ok(Decision::Answered) => Ok(true),
            Err(denial) => self.refuse(session, ctx, &denial).await,
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<Box<HttpPeer>> {
        let Stage::Reserved(reserved) = &ctx.stage else { return Err(out_of_order()) };
        ctx.connection.lifeline.set_connecting(true);
        match reserved.upstream.peer(self.shared.port).await {
            Ok(peer) => Ok(Box::new(peer)),
            Err(denial) => {
                ctx.failure = Some(denial);
                Err(Error::explain(ErrorType::ConnectError, "no address").into_up())
            }
        }
    }

    /// Nothing was sent yet, so another address of the same provider may be tried, once.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Where somebody answers, but not as the provider must, another address would not mend it.
        let is_unreached = failure(&error).code() == DenialCode::UpstreamUnreachable
            || matches!(error.etype(), ErrorType::ConnectTimedout);
        if let (Stage::Reserved(reserved), Some(failed)) = (&ctx.stage, peer.address().as_inet())
            && is_unreached
            && reserved.upstream.try_next_address(*failed)
        {
            error.set_retry(true);
        }
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        ctx.shared.metrics.connected(reused);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let Stage::Reserved(reserved) = &ctx.stage else { return Err(out_of_order()) };
        ctx.connection.lifeline.set_connecting(false);
        ctx.check_live()?;
        // The vault may have changed since the decision: what is sent is checked where it is sent.
        let keys = self.shared.keys.load();
        let credential = match keys.credential_for(&reserved.upstream.provider) {
            Ok(credential) => credential,
            Err(denial) => {
                ctx.failure = Some(denial);
                return Error::e_explain(ErrorType::InternalError, "the credential is gone");
            }
        };
        let caller = session.req_header();
        *request = reserved.upstream.build_request(
            &caller.method,
            &reserved.target,
            &caller.headers,
            credential,
            ctx.body.bytes.len(),
            &reserved.reservation,
        )?;
        let timeouts = reserved.upstream.provider.timeouts;
        ctx.connection.limit_answer(timeouts.first_byte, timeouts.idle);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        // The engine replays the tail of the body; the whole of it stands in for that (see `body`).
        if end && !ctx.body.bytes.is_empty() {
            *chunk = Some(ctx.body.bytes.clone());
            ctx.is_sent = true;
        } else if chunk.is_some() {
            *chunk = Some(Bytes::new());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        panic_if_asked(session.req_header(), "answer");
        let is_switch = response.status == http::StatusCode::SWITCHING_PROTOCOLS;
        let is_a_status = response.status.as_u16() < 600;
        if is_switch || !is_a_status || headers::is_too_large(&response.headers) {
            return Err(
                Error::explain(ErrorType::InvalidHTTPHeader, "an answer that nobody asked for").into_up()
            );
        }
        // The version is that of a hop: the caller speaks ours, whatever the provider speaks.
        response.set_version(http::Version::HTTP_11);
        for name in headers::to_remove(&response.headers) {
            response.remove_header(&name);
        }
        ctx.mask_head(response)?;
        if response.status.is_informational() {
            let too_many = || Error::explain(ErrorType::InvalidHTTPHeader, "endless 1xx").into_up();
            return if ctx.may_inform() { Ok(()) } else { Err(too_many()) };
        }
        ctx.decode_answer(session, response)?;
        ctx.begin_answer(response);
        ctx.body.release();
        if ctx.hide_usage.is_some() {
            fencing::make_chunked(response)?;
        }
        ctx.begin_fence(session, response)?;
        if let Some(page) = &ctx.page {
            cors::let_read(response, page)?;
        }
        response.insert_header(REQUEST_ID, ctx.id.to_string())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<Option<Duration>> {
        if end {
            panic_if_asked(session.req_header(), "end");
        }
        *chunk = ctx.decode(chunk.take())?;
        if let Some(bytes) = chunk.as_ref().filter(|bytes| !bytes.is_empty()) {
            ctx.pass(bytes);
        }
        let hold = ctx.cover();
        if let Some(hide) = &mut ctx.hide_usage {
            *chunk = hide.pass(chunk.take(), end);
        }
        *chunk = ctx.fence(session, chunk.take(), end);
        ctx.show(session, chunk.as_ref(), end)?;
        if end {
            ctx.leave_rates();
            ctx.leave_budgets();
        }
        Ok(hold)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut header::HeaderMap,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        ctx.mask_trailers(trailers)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        ctx.leave_rates();
        ctx.body.release();
        if let Some(denial) = ctx.connection.lifeline.take_cut() {
            cutting::end(session, ctx, &denial).await;
            return FailToProxy { error_code: respond::status(denial.code()), can_reuse_downstream: false };
        }
        let overdue = || Denial::new(DenialCode::UpstreamTimeout, "the provider took too long");
        let denial = match ctx.failure.take() {
            Some(denial) => denial,
            None if ctx.connection.is_overdue() => overdue(),
            None => failure(error),
        };
        ctx.answer =
            if is_caller_gone(error, ctx) { Answer::CallerGone } else { Answer::Failed(denial.code()) };
        let status = respond::status(denial.code());
        if !respond::is_begun(session) {
            session.set_keepalive(None);
            // A caller that is gone cannot be answered, and the answer has no other reader.
            let _ = respond::refuse(session, &denial, ctx).await;
        } else if ctx.answer != Answer::CallerGone {
            // What was passed on so far may still be buffered, and the engine drops the connection as it is.
            let _ = tokio::time::timeout(LAST_WRITE_TIMEOUT, session.as_downstream_mut().shutdown()).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Context>) {
        if error.is_some_and(|error| is_caller_gone(error, ctx)) {
            ctx.answer = Answer::CallerGone;
        }
        ctx.finish(session.response_written().map(|response| response.status.as_u16()));
    }

    /// What the engine's own log lines say of a request: never the query, in which a key may stand.
    fn request_summary(&self, session: &Session, ctx: &Box<Context>) -> String {
        format!("{} {}", ctx.id, session.req_header().method)
    }

    /// Every failure is a row in the log; a line as well would say the same with less care.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Context>, _error: &Error) -> bool {
        true
    }
}

/// Whether the request ended because the caller left. The guard ends it on the caller's side as well, when the
/// provider takes too long or the request was cut.
fn is_caller_gone(error: &Error, ctx: &Context) -> bool {
    let is_ours = ctx.connection.is_overdue() || ctx.connection.lifeline.was_cut();
    matches!(error.esource(), ErrorSource::Downstream) && !is_ours
}

fn out_of_order() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a request reached the provider's phases without a reservation")
}

/// What a failed attempt to reach a provider is called.
fn failure(error: &Error) -> Denial {
    use ErrorType as E;
    let (code, message) = match error.etype() {
        E::ConnectTimedout | E::ReadTimedout | E::WriteTimedout | E::TLSHandshakeTimedout => {
            (DenialCode::UpstreamTimeout, "the provider took too long")
        }
        E::TLSHandshakeFailure | E::InvalidCert | E::TLSWantX509Lookup | E::HandshakeError => {
            (DenialCode::UpstreamTls, "a secure connection to the provider could not be made")
        }
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError | E::BindError => {
            (DenialCode::UpstreamUnreachable, "the provider cannot be reached")
        }
        _ => (DenialCode::UpstreamReset, "the connection to the provider broke"),
    };
    Denial::new(code, message)
}
