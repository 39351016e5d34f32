//! Server-sent events as the load generator sees them: how many, when each was written by the mock provider,
//! and whether the stream ended as a provider ends it.

use memchr::memmem;

/// The field in which the mock provider writes its clock into an event, and the width of the reading.
pub(crate) const STAMP_FIELD: &[u8] = b"\"sent_ns\":\"";
pub(crate) const STAMP_DIGITS: usize = 20;

/// One event, complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Its bytes, without the empty line that ends it.
    pub(crate) frame: &'a [u8],
    /// The clock of its sender, if it wrote one.
    pub(crate) sent_ns: Option<u64>,
}

/// Finds events in a stream cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct EventScanner {
    pending: Vec<u8>,
    events: u64,
    has_usage: bool,
    has_end: bool,
}

impl EventScanner {
    /// Takes the next payload and reports the events that it completes.
    pub(crate) fn feed(&mut self, payload: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        self.pending.extend_from_slice(payload);
        let mut start = 0;
        while let Some(length) = memmem::find(&self.pending[start..], b"\n\n") {
            let frame = &self.pending[start..start + length];
            start += length + 2;
            self.events += 1;
            self.has_usage |= memmem::find(frame, b"\"usage\"").is_some();
            self.has_end |= frame == b"data: [DONE]" || frame.starts_with(b"event: message_stop");
            on_event(Event { frame, sent_ns: stamp(frame) });
        }
        self.pending.drain(..start);
    }

    /// A whole stream: it told its usage, said that it ended, and stopped between events.
    pub(crate) fn is_complete(&self) -> bool {
        self.has_usage && self.has_end && self.pending.is_empty()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Ready for the next stream, keeping its buffer.
    pub(crate) fn reset(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.clear();
        *self = Self { pending, ..Self::default() };
    }
}

fn stamp(frame: &[u8]) -> Option<u64> {
    let start = stamp_start(frame)?;
    let digits = frame.get(start..start + STAMP_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Where in an event its stamp begins.
pub(crate) fn stamp_start(frame: &[u8]) -> Option<usize> {
    Some(memmem::find(frame, STAMP_FIELD)? + STAMP_FIELD.len())
}

/// `sent_ns` as a fixed number of digits, so that a stamp never changes an event's length.
pub(crate) fn stamp_digits(sent_ns: u64) -> [u8; STAMP_DIGITS] {
    let mut digits = [b'0'; STAMP_DIGITS];
    let mut left = sent_ns;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(left % 10).unwrap_or(0)];
        left /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"sent_ns\":\"00000000000000000042\",\"a\":1}\n\n",
        "data: {\"choices\":[],\"usage\":{}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        for piece in 1..=STREAM.len() {
            let mut scanner = EventScanner::default();
            let mut events = Vec::new();
            for part in STREAM.as_bytes().chunks(piece) {
                scanner.feed(part, &mut |event| events.push(event.sent_ns));
            }
            assert_eq!(events, [Some(42), None, None], "in pieces of {piece}");
            assert!(scanner.is_complete());
            assert_eq!(scanner.events(), 3);
        }
    }

    #[test]
    fn an_event_is_reported_with_the_read_that_completes_it() {
        let mut scanner = EventScanner::default();
        let mut seen = 0;
        scanner.feed(b"data: {\"sent_ns\":\"000000000000", &mut |_| seen += 1);
        assert_eq!(seen, 0);
        let mut sent_ns = None;
        scanner.feed(b"00000007\"}\n\ndata: ", &mut |event| sent_ns = event.sent_ns);
        assert_eq!(sent_ns, Some(7));
    }

    #[test]
    fn a_stream_without_usage_or_end_is_not_complete() {
        for wire in [
            "data: {}\n\ndata: [DONE]\n\n",
            "data: {\"usage\":{}}\n\n",
            "data: {\"usage\":{}}\n\ndata: [DONE]",
        ] {
            let mut scanner = EventScanner::default();
            scanner.feed(wire.as_bytes(), &mut |_| ());
            assert!(!scanner.is_complete(), "{wire:?}");
        }
    }

    #[test]
    fn a_reset_scanner_starts_over() {
        let mut scanner = EventScanner::default();
        scanner.feed(STREAM.as_bytes(), &mut |_| ());
        scanner.reset();
        assert_eq!(scanner.events(), 0);
        assert!(!scanner.is_complete());
    }

    #[test]
    fn a_stamp_reads_back_as_it_was_written() {
        for sent_ns in [0, 7, 1_700_000_000_123, u64::MAX] {
            let mut frame = b"data: {\"sent_ns\":\"".to_vec();
            frame.extend_from_slice(&stamp_digits(sent_ns));
            frame.extend_from_slice(b"\"}");
            assert_eq!(stamp(&frame), Some(sent_ns));
        }
    }
}
