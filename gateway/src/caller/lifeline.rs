//! Hot: what a running request hangs on, and how it is cut when that is taken back.
//!
//! Each connection has one lifeline, for the request that runs on it. Whoever takes something back marks the request
//! and wakes its task; the request then ends itself, in three ways, the first that it can:
//!
//! 1. The guard, which the engine polls whenever it waits for the caller, fails its reads, or writes that stay
//!    pending. It does so between two events, or after a moment. What ends the answer is written in `cutting`.
//! 2. While the provider is being connected to, the engine looks at nothing else, and nothing was sent yet: the
//!    whole request is dropped, and the caller answered over what is left of its connection.
//! 3. The same for a request that has not ended itself in time, and for one that panics.
//!
//! All of a connection's work is one task, so one waker, noted when a request begins, reaches all of it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use policy::{AgentName, Denial, DenialCode, ProviderId, RequestId, Rules, TimestampUs};
use tokio::time::Instant;

use crate::caller::socket::Socket;
use crate::provider::catalogue::Provider;
use crate::request::facts::Presented;

/// How long a stream that is cut may go on to the end of its event, and a caller may take to read what is on its
/// way.
const EVENT_PATIENCE: Duration = Duration::from_millis(300);
/// A request that has not ended itself by then is dropped.
const END_PATIENCE: Duration = Duration::from_millis(900);

/// A request that runs, and what it stands on.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: RequestId,
    pub(crate) agent: AgentName,
    pub(crate) capability: Option<Presented>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) what: Asked,
}

/// What a running request asked for, for whoever looks on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) started_at: TimestampUs,
    pub(crate) model: Option<String>,
    pub(crate) is_streaming: bool,
    /// Whether it costs money.
    pub(crate) is_billed: bool,
    /// Whether the model that answers may be another one.
    pub(crate) names_other_models: bool,
    pub(crate) request_bytes: u64,
    /// About how many input tokens that is.
    pub(crate) input_tokens: u64,
}

/// A request that was dropped because it could not be ended in order.
pub(crate) struct Lost {
    pub(crate) denial: Denial,
    pub(crate) id: RequestId,
    /// The caller's connection, if nothing of an answer was written to it.
    pub(crate) socket: Option<Socket>,
}

/// Of one connection, for the request that runs on it.
pub(crate) struct Lifeline {
    course: AtomicU8,
    /// Whether the caller has seen whole events only.
    is_between_events: AtomicBool,
    is_connecting: AtomicBool,
    /// Whether the caller did not read what was on its way when the request was cut; and whether only a part of a
    /// chunk got to it, so that nothing can follow.
    is_stuck: AtomicBool,
    is_torn: AtomicBool,
    held: Mutex<Held>,
}

/// What [`Lifeline::course`] says. It is changed under the lock and read without.
mod course {
    pub(super) const RUNS: u8 = 0;
    pub(super) const CUT: u8 = 1;
    /// The last of the answer is being written.
    pub(super) const ENDING: u8 = 2;
    pub(super) const LOST: u8 = 3;
}

#[derive(Default)]
struct Held {
    running: Option<Running>,
    cut: Option<(Denial, Instant)>,
    waker: Option<Waker>,
    socket: Option<Socket>,
    /// The request that ended in a panic.
    panicked: Option<RequestId>,
}

impl Lifeline {
    pub(crate) fn new() -> Self {
        Self {
            course: AtomicU8::new(course::RUNS),
            is_between_events: AtomicBool::new(true),
            is_connecting: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            is_torn: AtomicBool::new(false),
            held: Mutex::new(Held::default()),
        }
    }

    /// A request was admitted. From here on it is cut when it no longer stands.
    pub(crate) fn begin(&self, running: Running) {
        let mut held = self.held();
        held.running = Some(running);
        self.reset(&mut held);
    }

    /// The request is over. One that is being dropped stays lost: its connection serves no other.
    pub(crate) fn end(&self) {
        let mut held = self.held();
        held.running = None;
        if !self.is_lost() {
            self.reset(&mut held);
        }
    }

    fn reset(&self, held: &mut Held) {
        held.cut = None;
        self.course.store(course::RUNS, Ordering::Release);
        self.is_between_events.store(true, Ordering::Relaxed);
        self.is_connecting.store(false, Ordering::Relaxed);
        self.is_stuck.store(false, Ordering::Relaxed);
        self.is_torn.store(false, Ordering::Relaxed);
    }

    /// Cuts the running request, if there is one that was not cut before.
    pub(crate) fn cut(&self, denial: Denial) {
        let mut held = self.held();
        self.cut_held(&mut held, denial);
    }

    fn cut_held(&self, held: &mut Held, denial: Denial) {
        if held.running.is_none() || held.cut.is_some() {
            return;
        }
        held.cut = Some((denial, Instant::now()));
        self.course.store(course::CUT, Ordering::Release);
        if let Some(waker) = &held.waker {
            waker.wake_by_ref();
        }
    }

    /// Cuts the running request if it no longer stands by these rules. Answers when its capability ends, if it
    /// goes on and that is known.
    pub(crate) fn recheck(&self, rules: &Rules, now: TimestampUs) -> Option<TimestampUs> {
        let mut held = self.held();
        let running = held.running.as_ref()?;
        match check_standing(rules, running.capability, &running.agent, &running.provider.id, now) {
            Ok(()) => end_of(rules, running.capability),
            Err(denial) => {
                self.cut_held(&mut held, denial);
                None
            }
        }
    }

    /// The running request, if there is one.
    pub(crate) fn running(&self) -> Option<Running> {
        self.held().running.clone()
    }

    /// Whether the request was cut and has not begun to end.
    pub(crate) fn is_cut(&self) -> bool {
        self.course.load(Ordering::Acquire) == course::CUT
    }

    /// Whether the request was cut, however far it has come with its end.
    pub(crate) fn was_cut(&self) -> bool {
        self.course.load(Ordering::Acquire) != course::RUNS
    }

    /// When a request that was cut is to be ended: at once, unless the caller is in the middle of an event.
    pub(crate) fn due(&self) -> Option<Instant> {
        let at = self.cut_at()?;
        let is_between = self.is_between_events.load(Ordering::Relaxed);
        Some(if is_between { at } else { at + EVENT_PATIENCE })
    }

    /// When a write that stays pending is given up, once the request was cut.
    pub(crate) fn write_due(&self) -> Option<Instant> {
        self.cut_at().map(|at| at + EVENT_PATIENCE)
    }

    fn cut_at(&self) -> Option<Instant> {
        if !self.is_cut() {
            return None;
        }
        self.held().cut.as_ref().map(|(_, at)| *at)
    }

    /// Takes over the end of a request that was cut: from here on the guard lets everything through.
    pub(crate) fn take_cut(&self) -> Option<Denial> {
        if !self.is_cut() {
            return None;
        }
        let held = self.held();
        let (denial, _) = held.cut.as_ref()?;
        self.course.store(course::ENDING, Ordering::Release);
        Some(denial.clone())
    }

    /// Remembers whether the caller has seen whole events only.
    pub(crate) fn set_between_events(&self, is_between_events: bool) {
        self.is_between_events.store(is_between_events, Ordering::Relaxed);
    }

    /// Remembers whether the engine is busy with a connection to the provider, and sees nothing of the caller's.
    pub(crate) fn set_connecting(&self, is_connecting: bool) {
        self.is_connecting.store(is_connecting, Ordering::Release);
    }

    /// A write was given up; `is_torn` when a part of it went out.
    pub(crate) fn set_stuck(&self, is_torn: bool) {
        self.is_stuck.store(true, Ordering::Relaxed);
        self.is_torn.store(is_torn, Ordering::Relaxed);
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    pub(crate) fn is_torn(&self) -> bool {
        self.is_torn.load(Ordering::Relaxed)
    }

    /// Whether the request is being dropped for want of a better end.
    pub(crate) fn is_lost(&self) -> bool {
        self.course.load(Ordering::Acquire) == course::LOST
    }

    /// Why the request is being dropped.
    pub(crate) fn lost_code(&self) -> Option<DenialCode> {
        if !self.is_lost() {
            return None;
        }
        self.held().cut.as_ref().map(|(denial, _)| denial.code())
    }

    /// Keeps the caller's connection while the request on it is being dropped.
    pub(crate) fn keep_socket(&self, socket: Socket) {
        self.held().socket = Some(socket);
    }

    /// Remembers which request ends in a panic: it tells so while it is unwound.
    pub(crate) fn set_panicked(&self, id: RequestId) {
        self.held().panicked = Some(id);
    }

    /// Runs `request` to its end, or drops it when it was cut and cannot end itself.
    ///
    /// # Errors
    /// [`Lost`] when it was dropped, or ended in a panic.
    pub(crate) async fn hold<T>(
        &self,
        request: Pin<Box<dyn Future<Output = T> + Send + '_>>,
    ) -> Result<T, Lost> {
        let held = self.run(request).await;
        held.map_err(|(denial, id)| Lost { denial, id, socket: self.held().socket.take() })
    }

    async fn run<T>(
        &self,
        mut request: Pin<Box<dyn Future<Output = T> + Send + '_>>,
    ) -> Result<T, (Denial, RequestId)> {
        let (mut noted, mut backstop) = (None::<Waker>, None);
        std::future::poll_fn(|cx| {
            if !noted.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                self.held().waker = Some(cx.waker().clone());
                noted = Some(cx.waker().clone());
            }
            // All that a request changes outside itself is behind locks that a panic leaves in order.
            match catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(cx))) {
                Ok(Poll::Ready(done)) => return Poll::Ready(Ok(done)),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(Err(self.lose_to(panic))),
            }
            let Some(patience) = self.patience() else { return Poll::Pending };
            let sleep = backstop.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            if patience > Duration::ZERO && sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.lose().map_or(Poll::Pending, |lost| Poll::Ready(Err(lost)))
        })
        .await
    }

    /// How much longer the running request may take to end itself, if it was cut.
    fn patience(&self) -> Option<Duration> {
        if !self.was_cut() {
            return None;
        }
        if self.is_cut() && self.is_connecting.load(Ordering::Acquire) {
            return Some(Duration::ZERO);
        }
        let held = self.held();
        let (_, at) = held.cut.as_ref()?;
        Some((*at + END_PATIENCE).saturating_duration_since(Instant::now()))
    }

    fn lose(&self) -> Option<(Denial, RequestId)> {
        let held = self.held();
        let ((denial, _), running) = held.cut.as_ref().zip(held.running.as_ref())?;
        self.course.store(course::LOST, Ordering::Release);
        Some((denial.clone(), running.id))
    }

    /// A panic in which no request was on its way has nobody to be told to, and goes on.
    fn lose_to(&self, panic: Box<dyn Any + Send>) -> (Denial, RequestId) {
        let Some(id) = self.held().panicked.take() else { resume_unwind(panic) };
        self.course.store(course::LOST, Ordering::Release);
        (Denial::new(DenialCode::InternalError, "the gateway failed within this request"), id)
    }

    /// Nothing under the lock is left half-changed by a panic.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifeline").field("was_cut", &self.was_cut()).finish_non_exhaustive()
    }
}

/// Whether the rules let a request of this caller to this provider go on.
///
/// # Errors
/// The [`Denial`] to answer with, or to end the answer with.
pub(crate) fn check_standing(
    rules: &Rules,
    capability: Option<Presented>,
    agent: &AgentName,
    provider: &ProviderId,
    now: TimestampUs,
) -> Result<(), Denial> {
    let gone = || Denial::new(DenialCode::RevokedCapability, "the capability was revoked");
    let found = |presented: Presented| {
        let capability = rules.capabilities.get(&presented.id);
        capability.filter(|found| found.secret_hash == presented.secret_hash).ok_or_else(gone)
    };
    let capability = capability.map(found).transpose()?;
    rules.check_standing(capability, agent, provider, now)
}

/// When a capability ends by itself: with the first of its line.
pub(crate) fn end_of(rules: &Rules, capability: Option<Presented>) -> Option<TimestampUs> {
    let capability = rules.capabilities.get(&capability?.id)?;
    rules.lineage(Some(capability)).filter_map(|link| link.expires_at).min()
}

#[cfg(test)]
#[path = "lifeline_tests.rs"]
mod tests;
