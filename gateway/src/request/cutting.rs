//! Hot: how a running request is cut, whoever wants it, and what its caller sees of that.
//!
//! [`Context::cut`] marks the request. What is seen follows from how far it is: an ordinary refusal as long as no
//! header was written; then the rest of the event that is under way and an event that tells the reason, in the
//! provider's own shape; and an answer that is not made of events just breaks off. All of it is written by [`end`],
//! after the engine has let go of the provider.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use policy::Denial;

use crate::caller::lifeline::{Asked, Running, end_of};
use crate::request::context::{Answer, Context};
use crate::request::respond;
use crate::state::now_us;
use crate::wire::{self, Cause, Seam};

/// What ends a cut answer is written within this time, or not at all.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// What a caller was shown of an answer.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Where the answer is a stream that can be ended.
    pub(crate) seam: Option<Seam>,
    /// Bytes that the engine was given to write.
    bytes: usize,
    /// What is left of the event that is under way, to be written before the end.
    last_words: Bytes,
}

impl Context {
    /// Cuts the request: its answer is ended as soon as that can be done in order, and its row says why. May be
    /// called at any time after its admission, several times over; the first reason stays.
    ///
    /// Called in `response_body_filter` before [`Context::show`], it holds from the present chunk on, of which the
    /// caller still gets what belongs to its first event.
    pub(crate) fn cut(&self, denial: Denial) {
        self.connection.lifeline.cut(denial);
    }

    /// The request was admitted: from here on it is cut when what it stands on is taken back or ends.
    pub(crate) fn enter_live(&self) {
        let (Some(agent), Some(provider)) = (&self.facts.agent, &self.facts.provider) else { return };
        let capability = self.facts.capability;
        let what = Asked {
            started_at: self.started_at,
            model: self.facts.model.clone(),
            is_streaming: self.facts.is_streaming,
            is_billed: self.costs_money(),
            names_other_models: self.facts.names_other_models,
            request_bytes: self.request_bytes,
            input_tokens: self.facts.estimate_input(self.request_bytes),
        };
        let (agent, provider) = (agent.clone(), provider.clone());
        self.connection.begin(Running { id: self.id, agent, capability, provider, what });
        // By the newest rules: those of before may have been left by the last look at all connections.
        if let Some(end) = end_of(&self.shared.snapshot.load().rules, capability) {
            self.shared.live.expect_end(end);
        }
    }

    /// Checks by the newest rules that the request may go on, and cuts it otherwise.
    ///
    /// # Errors
    /// What the engine is to be told when it was cut, now or before.
    pub(crate) fn check_live(&self) -> pingora::Result<()> {
        if let Err(denial) =
            self.facts.check_standing(&self.shared.snapshot.load().rules, self.shared.ledger.now())
        {
            self.cut(denial);
        }
        if self.connection.lifeline.is_cut() { Err(was_cut()) } else { Ok(()) }
    }

    /// A chunk is about to be shown to the caller. Once the request was cut, what belongs to the event that is
    /// under way is kept for [`end`], and the answer ends here.
    ///
    /// # Errors
    /// What the engine is to be told when the answer ends.
    pub(crate) fn show(
        &mut self,
        session: &Session,
        chunk: Option<&Bytes>,
        is_end: bool,
    ) -> pingora::Result<()> {
        // The engine filters several chunks before it writes them, and an error would lose those.
        if self.connection.lifeline.is_cut()
            && session.body_bytes_sent() == self.shown.bytes
            && !(is_end && respond::is_begun(session))
            && self.shown.take_last_words(chunk)
        {
            return Err(was_cut());
        }
        if let Some(chunk) = chunk {
            self.shown.bytes += chunk.len();
            if let Some(seam) = &mut self.shown.seam {
                seam.follow(chunk);
                self.connection.lifeline.set_between_events(seam.is_between_events());
            }
        }
        Ok(())
    }

    /// The bytes that end what was shown, if it can be ended.
    pub(crate) fn ending(&self, session: &Session, denial: &Denial) -> Option<Bytes> {
        let is_chunked = session.response_written()?.headers.contains_key(header::TRANSFER_ENCODING);
        let (seam, provider) = self.shown.seam.as_ref().zip(self.facts.provider.as_ref())?;
        if !is_chunked || self.connection.lifeline.is_torn() {
            return None;
        }
        let cause = Cause {
            code: denial.code().as_str(),
            message: denial.message(),
            request_id: &self.id.to_string(),
            model: self.facts.model.as_deref().unwrap_or_default(),
            now: now_us() / 1_000_000,
        };
        let ending = wire::ending(provider.wire, &self.facts.path, seam, &cause)?;
        Some([&self.shown.last_words[..], &ending].concat().into())
    }
}

impl Shown {
    /// Keeps of a chunk what belongs to its first event. Whether the answer can be ended then is answered; if not,
    /// the event goes on.
    fn take_last_words(&mut self, chunk: Option<&Bytes>) -> bool {
        let Some(seam) = &mut self.seam else { return true };
        match chunk.and_then(|chunk| Some(chunk.slice(..seam.first_end(chunk)?))) {
            Some(rest) => {
                seam.follow(&rest);
                self.last_words = rest;
                true
            }
            None => seam.is_between_events(),
        }
    }
}

/// Ends the answer of a request that was cut. The engine drops the connection afterwards.
pub(crate) async fn end(session: &mut Session, ctx: &mut Context, denial: &Denial) {
    ctx.answer = Answer::Cut(denial.code());
    // A caller that is gone, or does not read, cannot be told.
    let _ = tokio::time::timeout(LAST_WRITE_TIMEOUT, async {
        let _ = write_end(session, ctx, denial).await;
        session.as_downstream_mut().shutdown().await;
    })
    .await;
}

async fn write_end(session: &mut Session, ctx: &Context, denial: &Denial) -> pingora::Result<()> {
    if respond::is_begun(session) {
        return match ctx.ending(session, denial) {
            Some(ending) => session.write_response_body(Some(ending), true).await,
            None => Ok(()),
        };
    }
    if ctx.connection.lifeline.is_stuck() {
        return Ok(());
    }
    session.set_keepalive(None);
    respond::refuse(session, denial, ctx).await
}

fn was_cut() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the request was cut")
}
