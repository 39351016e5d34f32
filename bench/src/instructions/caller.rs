//! Who asks while instructions are counted: one connection that sends its next request when the last is answered, so
//! that a subject meets the same work in each run however slow it is under valgrind.

use std::time::Duration;

use anyhow::{Result, ensure};
use memchr::memmem;

use crate::client::Connection;
use crate::load::request_bytes;
use crate::plan::{StreamPlan, Wire};
use crate::sse::EventScanner;
use crate::subject::Subject;

const WIRE: Wire = Wire::Openai;
/// Longer than a proxy needs for an event under valgrind, so that each event is read and written by itself.
const EVENT_GAP: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Caller<'a> {
    subject: &'a mut Subject,
    connection: Connection,
}

impl<'a> Caller<'a> {
    pub(super) fn new(subject: &'a mut Subject) -> Self {
        let connection = Connection::new(subject.address);
        Self { subject, connection }
    }

    /// Asks for whole answers, one after the other.
    pub(super) async fn ask(&mut self, requests: u32) -> Result<()> {
        let request = self.request(None);
        for _ in 0..requests {
            let mut body = Vec::new();
            self.connection.exchange(&request, &mut |payload, _| body.extend_from_slice(payload)).await?;
            ensure!(memmem::find(&body, b"\"usage\"").is_some(), "an answer without usage");
            self.subject.answered += 1;
        }
        Ok(())
    }

    /// Asks for streams with so many events of content, one after the other.
    pub(super) async fn stream(&mut self, streams: u32, events: u32) -> Result<()> {
        let request = self.request(Some(StreamPlan { events, gap: EVENT_GAP, is_whole: false }));
        let expected = u64::from(events) + WIRE.framing_events();
        for _ in 0..streams {
            let mut scanner = EventScanner::default();
            self.connection.exchange(&request, &mut |payload, _| scanner.feed(payload, &mut |_| ())).await?;
            let seen = scanner.events();
            ensure!(
                seen == expected && scanner.is_complete(),
                "a stream of {seen} events instead of {expected}"
            );
            self.subject.answered += 1;
        }
        Ok(())
    }

    fn request(&self, plan: Option<StreamPlan>) -> Vec<u8> {
        let Subject { address, prefix, credential, .. } = &*self.subject;
        request_bytes(WIRE, *address, prefix, credential, plan)
    }
}
