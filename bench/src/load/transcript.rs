//! What the mock provider sends as a stream, to hold what arrived against it: each event in its place, byte for byte.
//! Content events differ only in the clock that their sender wrote, which must not go back: so it tells their order.

use anyhow::{Result, ensure};

use crate::mock::answer;
use crate::plan::Wire;
use crate::sse::{Event, EventScanner, STAMP_DIGITS, stamp_start};

/// The events of a whole stream.
#[derive(Debug)]
pub(super) struct Transcript(Vec<Expected>);

#[derive(Debug)]
struct Expected {
    frame: Vec<u8>,
    stamp_at: Option<usize>,
}

impl Transcript {
    /// Of a stream with so many events of content.
    pub(super) fn of(wire: Wire, events: u32) -> Result<Self> {
        let mut expected = Vec::new();
        EventScanner::default().feed(&answer::stream(wire, events)?, &mut |event| {
            let frame = event.frame.to_vec();
            expected.push(Expected { stamp_at: stamp_start(&frame), frame });
        });
        Ok(Self(expected))
    }

    pub(super) fn events(&self) -> usize {
        self.0.len()
    }

    /// Begins to compare a stream.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { transcript: self, at: 0, last_sent_ns: 0, fault: None }
    }
}

impl Expected {
    fn is(&self, frame: &[u8]) -> bool {
        let Some(at) = self.stamp_at else { return self.frame == frame };
        let after = at + STAMP_DIGITS;
        frame.len() == self.frame.len()
            && frame[..at] == self.frame[..at]
            && frame[after..] == self.frame[after..]
    }
}

/// One stream as it arrives.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    transcript: &'a Transcript,
    at: usize,
    last_sent_ns: u64,
    fault: Option<String>,
}

impl Reader<'_> {
    /// Compares the next event.
    pub(super) fn take(&mut self, event: Event<'_>) {
        let is_expected = self.transcript.0.get(self.at).is_some_and(|expected| expected.is(event.frame));
        let is_in_order = event.sent_ns.is_none_or(|sent_ns| sent_ns >= self.last_sent_ns);
        if !(is_expected && is_in_order) {
            let (at, frame) = (self.at, String::from_utf8_lossy(event.frame));
            self.fault.get_or_insert_with(|| format!("event {at} is not what was sent: {frame}"));
        }
        self.last_sent_ns = event.sent_ns.unwrap_or(self.last_sent_ns);
        self.at += 1;
    }

    /// Whether the stream was what was sent, to its last event.
    pub(super) fn finish(self) -> Result<()> {
        ensure!(self.fault.is_none(), "{}", self.fault.unwrap_or_default());
        let (seen, sent) = (self.at, self.transcript.events());
        ensure!(seen == sent, "a stream of {seen} events instead of {sent}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::stamp_digits;

    /// A stream of three content events sent at `stamps`, as it is after `change`.
    #[track_caller]
    fn check(stamps: [u64; 3], change: impl Fn(String) -> String, want: Option<&str>) {
        for wire in [Wire::Openai, Wire::Anthropic] {
            let mut text = String::from_utf8(answer::stream(wire, 3).expect("made")).expect("text");
            for sent_ns in stamps {
                let digits = stamp_digits(sent_ns);
                text = text.replacen(
                    &"0".repeat(STAMP_DIGITS),
                    std::str::from_utf8(&digits).expect("digits"),
                    1,
                );
            }
            let transcript = Transcript::of(wire, 3).expect("made");
            let mut reader = transcript.reader();
            EventScanner::default().feed(change(text).as_bytes(), &mut |event| reader.take(event));
            let found = reader.finish().map_err(|error| error.to_string());
            match want {
                None => assert_eq!(found, Ok(())),
                Some(part) => {
                    let fault = found.expect_err("a fault");
                    assert!(fault.contains(part), "{fault}");
                }
            }
        }
    }

    #[test]
    fn what_arrives_as_it_was_sent_is_no_fault() {
        check([7, 8, 8], |text| text, None);
    }

    #[test]
    fn a_changed_byte_is_a_fault() {
        check([7, 8, 9], |text| text.replacen(" token", " taken", 1), Some("is not what was sent"));
        check([7, 8, 9], |text| text.replace("stop", "stoq"), Some("is not what was sent"));
    }

    #[test]
    fn another_order_is_a_fault() {
        check([7, 9, 8], |text| text, Some("is not what was sent"));
    }

    #[test]
    fn an_event_too_few_or_too_many_is_a_fault() {
        check([7, 8, 9], |text| text[..text.len() - 20].to_owned(), Some("events instead of"));
        check([7, 8, 9], |text| text + "data: more\n\n", Some("is not what was sent"));
    }
}
