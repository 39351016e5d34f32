//! What each kind of account tells, as series that can be compared.

pub(super) mod anthropic;
pub(super) mod custom;
pub(super) mod openai;
pub(super) mod openrouter;

use std::collections::BTreeMap;
use std::fmt;

use gateway::config::WatchScope;
use policy::reconcile::{Amounts, Bucket, Series, SeriesKind, Span};
use policy::{NanoUsd, PriceTable, TimestampUs, Usage};
use serde::Deserialize;

use super::pages::Fault;

/// What an account told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) series: Vec<Series>,
    /// Counters of money, which say something once they were looked at twice.
    pub(super) counters: Vec<Counter>,
    /// What could not be looked at.
    pub(super) faults: Vec<Fault>,
    /// What is not compared, and why.
    pub(super) notes: Vec<String>,
    /// How many parts were looked at.
    pub(super) parts: usize,
}

/// All that was ever spent.
#[derive(Debug)]
pub(super) struct Counter {
    /// Of what.
    pub(super) name: &'static str,
    /// Since when the key is the one that it is; another has another counter.
    pub(super) since: TimestampUs,
    pub(super) total: NanoUsd,
}

/// An instant as text (RFC 3339), in microseconds since the epoch.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Instant(pub(super) TimestampUs);

impl TryFrom<String> for Instant {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_microsecond()))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => at.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

impl Told {
    /// Counts a part in that was asked for, whatever came of it.
    pub(super) fn take<T>(&mut self, what: &str, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => {
                self.parts += 1;
                Some(value)
            }
            Err(fault) => {
                self.faults.push(fault.of(what));
                None
            }
        }
    }
}

/// Buckets that are put together from lines in any order.
#[derive(Debug, Default)]
pub(super) struct Buckets(BTreeMap<Span, Bucket>);

impl Buckets {
    /// Makes sure that there is a bucket of this span.
    pub(super) fn open(&mut self, span: Span) -> &mut Bucket {
        let empty = || Bucket { span, used: Amounts::default(), models: BTreeMap::new() };
        self.0.entry(span).or_insert_with(empty)
    }

    /// Counts a line in.
    pub(super) fn add(&mut self, span: Span, model: Option<&str>, used: &Amounts) {
        let bucket = self.open(span);
        bucket.used.add(used);
        if let Some(model) = model.filter(|model| !model.is_empty()) {
            bucket.models.entry(model.to_owned()).or_default().add(used);
        }
    }

    /// In the order of time.
    ///
    /// # Errors
    /// Where two of them overlap: what is in both would be counted twice.
    pub(super) fn into_series(self, kind: SeriesKind, slack_us: i64) -> Result<Series, Fault> {
        let buckets: Vec<Bucket> = self.0.into_values().collect();
        if buckets.windows(2).any(|pair| pair[0].span.end > pair[1].span.begin) {
            return Err(Fault::not_understood("its buckets overlap"));
        }
        Ok(Series { kind, slack_us, buckets })
    }
}

/// A bucket's span, if it is one of those that were asked for; none where it lies outside.
///
/// # Errors
/// Where it is no bucket of that width.
pub(super) fn aligned(begin: i64, end: i64, width: i64, asked: Span) -> Result<Option<Span>, Fault> {
    if begin.checked_add(width) != Some(end) || begin.rem_euclid(width) != 0 {
        return Err(Fault::not_understood("a bucket is not as wide as was asked for"));
    }
    Ok((begin >= asked.begin && end <= asked.end).then_some(Span { begin, end }))
}

/// What tokens cost by the price list; none where the model has no price.
pub(super) fn worth(
    prices: &PriceTable,
    provider: &str,
    model: Option<&str>,
    usage: &Usage,
) -> Option<NanoUsd> {
    prices.resolve(provider, model?)?.price.cost(usage, None).ok()
}

/// Whether an id passes a list of them; an empty list lets everything pass.
pub(super) fn passes(list: &[String], id: Option<&String>) -> bool {
    list.is_empty() || id.is_some_and(|id| list.contains(id))
}

/// Whose use is compared, in one word.
pub(super) fn scope_name(scope: &WatchScope) -> &'static str {
    match (scope.api_key_ids.is_empty(), scope.project_ids.is_empty()) {
        (false, _) => "api_keys",
        (true, false) => "projects",
        (true, true) => "organisation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[track_caller]
    fn check_aligned(begin: i64, end: i64, expected: Result<bool, ()>) {
        let asked = Span { begin: 10 * HOUR, end: 20 * HOUR };
        let found = aligned(begin, end, HOUR, asked).map(|span| span.is_some()).map_err(|_| ());
        assert_eq!(found, expected, "{begin} to {end}");
    }

    #[test]
    fn a_bucket_is_as_wide_as_was_asked_for_or_not_understood() {
        check_aligned(10 * HOUR, 11 * HOUR, Ok(true));
        check_aligned(19 * HOUR, 20 * HOUR, Ok(true));
        // The hour that is not over yet, and one that nobody asked for.
        check_aligned(20 * HOUR, 21 * HOUR, Ok(false));
        check_aligned(9 * HOUR, 10 * HOUR, Ok(false));
        check_aligned(10 * HOUR, 12 * HOUR, Err(()));
        check_aligned(10 * HOUR + 1, 11 * HOUR + 1, Err(()));
        check_aligned(11 * HOUR, 10 * HOUR, Err(()));
        check_aligned(i64::MAX, i64::MIN, Err(()));
    }

    #[test]
    fn lines_of_one_time_are_added_up_and_others_must_not_overlap() {
        let tokens = |count| Amounts { tokens: Some(count), ..Amounts::default() };
        let span = |begin, end| Span { begin: begin * HOUR, end: end * HOUR };
        let mut buckets = Buckets::default();
        buckets.add(span(2, 3), Some("a"), &tokens(1));
        buckets.add(span(0, 1), None, &tokens(2));
        buckets.add(span(2, 3), Some(""), &tokens(4));
        let series = buckets.into_series(SeriesKind::Usage, HOUR).unwrap();
        let sums: Vec<_> =
            series.buckets.iter().map(|bucket| (bucket.span.begin / HOUR, bucket.used.tokens)).collect();
        assert_eq!(sums, [(0, Some(2)), (2, Some(5))]);
        assert_eq!(series.buckets[1].models.keys().collect::<Vec<_>>(), ["a"]);
        let mut buckets = Buckets::default();
        buckets.add(span(0, 2), None, &tokens(1));
        buckets.add(span(1, 3), None, &tokens(1));
        assert!(buckets.into_series(SeriesKind::Usage, HOUR).is_err());
    }

    #[test]
    fn an_id_passes_an_empty_list_or_one_that_has_it() {
        let (id, list) = ("key_1".to_owned(), ["key_1".to_owned()]);
        assert!(passes(&[], None) && passes(&[], Some(&id)) && passes(&list, Some(&id)));
        assert!(!passes(&list, None) && !passes(&list, Some(&"key_2".to_owned())));
    }
}
