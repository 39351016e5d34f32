//! Hot: how far the request on a connection is, for whoever looks on. Written by the request alone, a few stores with each
//! chunk, and read whenever somebody asks; what is read may be of two chunks, which a view can live with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use policy::Usage;

use crate::meter::{Ending, Meter, Metered};

/// How far the answer is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    response_bytes: AtomicU64,
    text_bytes: AtomicU64,
    /// What the provider has reported so far, if anything.
    is_reported: AtomicBool,
    usage: [AtomicU64; 5],
}

impl Progress {
    /// Another request begins.
    pub(super) fn reset(&self) {
        self.is_reported.store(false, Ordering::Relaxed);
        self.response_bytes.store(0, Ordering::Relaxed);
        self.text_bytes.store(0, Ordering::Relaxed);
    }

    /// So many bytes of the answer went by.
    pub(crate) fn advance(&self, response_bytes: u64, meter: Option<&mut Box<Meter>>) {
        self.response_bytes.store(response_bytes, Ordering::Relaxed);
        let Some(meter) = meter else { return };
        self.text_bytes.store(meter.output_text_bytes(), Ordering::Relaxed);
        if let Some(usage) = meter.take_news() {
            self.report(&usage);
        }
    }

    fn report(&self, usage: &Usage) {
        let Usage { input, cache_read, cache_write_5m, cache_write_1h, output, .. } = *usage;
        for (place, count) in
            self.usage.iter().zip([input, cache_read, cache_write_5m, cache_write_1h, output])
        {
            place.store(count, Ordering::Relaxed);
        }
        self.is_reported.store(true, Ordering::Relaxed);
    }

    /// Bytes of the answer's body so far.
    pub(crate) fn response_bytes(&self) -> u64 {
        self.response_bytes.load(Ordering::Relaxed)
    }

    /// What is known of the answer, as if it ended here.
    pub(crate) fn metered(&self) -> Metered {
        let [input, cache_read, cache_write_5m, cache_write_1h, output] =
            [0, 1, 2, 3, 4].map(|place: usize| self.usage[place].load(Ordering::Relaxed));
        let usage = Usage { input, cache_read, cache_write_5m, cache_write_1h, output, ..Usage::default() };
        Metered {
            usage: self.is_reported.load(Ordering::Relaxed).then_some(usage),
            model: None,
            service_tier: None,
            reported_cost: None,
            output_text_bytes: self.text_bytes.load(Ordering::Relaxed),
            ending: Ending::Open,
            has_bad_numbers: false,
        }
    }
}
