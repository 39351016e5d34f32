//! The ways in which a request that was cut ends, or is dropped.

use super::*;
use crate::config::Config;

fn running() -> Running {
    let config = Config::parse("", std::path::Path::new("/nowhere")).unwrap();
    Running {
        id: RequestId::from_parts(1, 2),
        agent: "a".parse().unwrap(),
        capability: None,
        provider: config.provider("openai").unwrap().clone(),
        what: Asked::default(),
    }
}

fn denial() -> Denial {
    Denial::new(DenialCode::Killed, "killed")
}

/// Waits until the request is cut, as the guard does: by being polled when its task is woken.
async fn until_cut(lifeline: &Lifeline) {
    std::future::poll_fn(|_| if lifeline.is_cut() { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_woken() {
    let lifeline = Arc::new(Lifeline::new());
    lifeline.begin(running());
    let other = lifeline.clone();
    tokio::spawn(async move { other.cut(denial()) });
    let held = lifeline.hold(Box::pin(until_cut(&lifeline))).await;
    assert!(held.is_ok());
    assert_eq!(lifeline.take_cut(), Some(denial()));
    assert_eq!(lifeline.take_cut(), None);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_an_event_but_not_for_long() {
    let lifeline = Lifeline::new();
    lifeline.begin(running());
    assert_eq!(lifeline.due(), None);
    lifeline.set_between_events(false);
    lifeline.cut(denial());
    let now = Instant::now();
    assert_eq!(lifeline.due(), Some(now + EVENT_PATIENCE));
    lifeline.set_between_events(true);
    assert_eq!(lifeline.due(), Some(now));
    assert!(lifeline.take_cut().is_some());
    assert_eq!((lifeline.due(), lifeline.write_due()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_connects_is_dropped_at_once() {
    let lifeline = Lifeline::new();
    lifeline.begin(running());
    lifeline.set_connecting(true);
    lifeline.cut(denial());
    let started = Instant::now();
    let lost = lifeline.hold(Box::pin(std::future::pending::<()>())).await.unwrap_err();
    assert_eq!((lost.denial, lost.id, started.elapsed()), (denial(), running().id, Duration::ZERO));
    assert_eq!(lifeline.lost_code(), Some(DenialCode::Killed));
    lifeline.end();
    assert!(lifeline.is_lost(), "its connection is not used again");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_itself_is_dropped_in_time() {
    let lifeline = Lifeline::new();
    lifeline.begin(running());
    lifeline.cut(denial());
    let started = Instant::now();
    assert!(lifeline.take_cut().is_some());
    assert!(lifeline.hold(Box::pin(std::future::pending::<()>())).await.is_err());
    assert_eq!(started.elapsed().as_millis(), END_PATIENCE.as_millis());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_is_not_cut() {
    let lifeline = Lifeline::new();
    lifeline.cut(denial());
    assert!(!lifeline.was_cut());
    lifeline.begin(running());
    lifeline.cut(denial());
    lifeline.end();
    assert!(!lifeline.was_cut());
    lifeline.begin(running());
    let held = lifeline.hold(Box::pin(tokio::time::sleep(Duration::from_secs(60)))).await;
    assert!(held.is_ok(), "the next request is not cut for the one before");
}
