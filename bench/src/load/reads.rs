//! How events arrive: a proxy that gathers them, or cuts them, delivers a stream in other pieces than it was sent in.

/// Reads and the events in them, of the part of a stream that the provider writes event by event. The head comes with
/// the event before that part, and all events after it come in one piece.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    reads: u64,
    events: u64,
}

impl Reads {
    pub(super) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.events += other.events;
    }

    /// None of no reads.
    pub(super) fn events_per_read(&self) -> Option<f64> {
        (self.reads > 0).then(|| self.events as f64 / self.reads as f64)
    }
}

/// Counts the reads of one stream.
#[derive(Debug, Default)]
pub(super) struct ReadCounter {
    seen: Reads,
    /// One read may hand on its payload in several pieces, all with the read's time.
    counted_ns: Option<u64>,
}

impl ReadCounter {
    /// A piece of the counted part, from the read at `read_ns`, that completes so many events.
    pub(super) fn take(&mut self, read_ns: u64, events: u64) {
        if self.counted_ns.replace(read_ns) != Some(read_ns) {
            self.seen.reads += 1;
        }
        self.seen.events += events;
    }

    pub(super) fn events(&self) -> u64 {
        self.seen.events
    }

    pub(super) fn seen(&self) -> Reads {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[(u64, u64)], want: Option<f64>) {
        let mut counter = ReadCounter::default();
        for (read_ns, events) in pieces {
            counter.take(*read_ns, *events);
        }
        assert_eq!(counter.seen().events_per_read(), want);
    }

    #[test]
    fn events_that_come_one_by_one_are_one_a_read() {
        check(&[], None);
        check(&[(1, 1), (2, 1), (3, 1)], Some(1.0));
    }

    #[test]
    fn gathered_events_are_more_than_one_a_read_and_cut_ones_less() {
        check(&[(1, 1), (1, 1), (2, 2)], Some(2.0));
        check(&[(1, 0), (2, 1)], Some(0.5));
    }
}
