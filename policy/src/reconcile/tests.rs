//! Honest use is silent however a provider books it, and use that is not in the log is found.

use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

const LIMITS: Limits =
    Limits { requests: 1, tokens: 1_000, cost: NanoUsd::from_nanos(1_000_000_000), idle_us: 30 * MINUTE };

/// A request that went through the gateway.
#[derive(Clone, Copy, Debug)]
struct Asked {
    begin: i64,
    end: i64,
    tokens: u64,
}

fn totals(asked: &Asked) -> Totals {
    Totals {
        requests: 1,
        tokens: asked.tokens,
        cost_nanos: u128::from(asked.tokens) * 1_000,
        ..Totals::default()
    }
}

fn log(all: &[Asked]) -> Log {
    let minute = |at: i64| at.div_euclid(MINUTE) * MINUTE;
    let begun = all.iter().map(|asked| LoggedMinute {
        at: minute(asked.begin),
        begun: totals(asked),
        ..LoggedMinute::default()
    });
    let ended = all.iter().map(|asked| LoggedMinute {
        at: minute(asked.end),
        ended: totals(asked),
        ..LoggedMinute::default()
    });
    Log::new(begun.chain(ended).collect())
}

/// Hours of use: when, how many requests, how many tokens.
fn hours(count: i64, uses: &[(i64, u64, u64)]) -> Series {
    let buckets = (0..count).map(|hour| {
        let span = Span { begin: hour * HOUR, end: (hour + 1) * HOUR };
        let mut used = Amounts { requests: Some(0), tokens: Some(0), cost: Some(NanoUsd::ZERO) };
        for (_, requests, tokens) in uses.iter().filter(|(at, ..)| at.div_euclid(HOUR) == hour) {
            let cost = NanoUsd::from_nanos(i64::try_from(tokens * 1_000).unwrap());
            used.add(&Amounts { requests: Some(*requests), tokens: Some(*tokens), cost: Some(cost) });
        }
        Bucket { span, used, models: BTreeMap::from([("gpt-4o-2024-08-06".to_owned(), used)]) }
    });
    Series { kind: SeriesKind::Usage, slack_us: HOUR, buckets: buckets.collect() }
}

fn known() -> KnownModels {
    KnownModels::new(["gpt-4o"], Vec::new())
}

/// The kinds that are found, each with the hours it is of.
fn found(series: &Series, log: &Log) -> Vec<(FindingKind, i64, i64)> {
    let findings = reconcile(series, log, &known(), &LIMITS);
    findings.iter().map(|found| (found.kind, found.span.begin / HOUR, found.span.end / HOUR)).collect()
}

/// A request of a thousand tokens in each of these hours, at half past.
fn steady(hours: impl Iterator<Item = i64>) -> Vec<Asked> {
    hours
        .map(|hour| hour * HOUR + 30 * MINUTE)
        .map(|at| Asked { begin: at, end: at + MINUTE, tokens: 1_000 })
        .collect()
}

fn booked(asked: &[Asked]) -> Vec<(i64, u64, u64)> {
    asked.iter().map(|asked| (asked.begin, 1, asked.tokens)).collect()
}

#[test]
fn a_request_over_a_boundary_is_explained_on_either_side() {
    let asked = [Asked { begin: 2 * HOUR - MINUTE, end: 2 * HOUR + MINUTE, tokens: 50_000 }];
    for hour in 0..4 {
        assert_eq!(found(&hours(6, &[(hour * HOUR, 1, 50_000)]), &log(&asked)), [], "booked to hour {hour}");
    }
    assert!(!found(&hours(6, &[(4 * HOUR, 1, 50_000)]), &log(&asked)).is_empty());
}

#[test]
fn a_request_that_runs_for_hours_explains_all_of_them() {
    let asked = [Asked { begin: HOUR + MINUTE, end: 5 * HOUR, tokens: 900_000 }];
    for hour in 0..=5 {
        assert_eq!(found(&hours(8, &[(hour * HOUR, 1, 900_000)]), &log(&asked)), [], "booked to hour {hour}");
    }
}

#[test]
fn a_burst_is_found_in_the_midst_of_honest_use() {
    let asked = steady(0..24);
    let mut uses = booked(&asked);
    uses.push((10 * HOUR, 40, 80_000));
    assert_eq!(found(&hours(24, &uses), &log(&asked)), [(FindingKind::MoreUse, 10, 11)]);
}

#[test]
fn what_is_too_little_in_each_hour_is_found_in_a_row_of_them() {
    let asked = steady(0..24);
    let mut uses = booked(&asked);
    // Less than the slack lets through in any one hour.
    uses.extend((0..24).map(|hour| (hour * HOUR, 0, 900)));
    let kinds = found(&hours(24, &uses), &log(&asked));
    assert_eq!(kinds.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [FindingKind::MoreUse]);
}

#[test]
fn two_bursts_are_two_findings_and_a_long_one_is_one() {
    let asked = steady(0..24);
    let mut uses = booked(&asked);
    uses.extend([3, 4, 5, 15].map(|hour| (hour * HOUR, 40, 80_000)));
    let expected = [(FindingKind::MoreUse, 3, 6), (FindingKind::MoreUse, 15, 16)];
    assert_eq!(found(&hours(24, &uses), &log(&asked)), expected);
}

#[test]
fn a_single_request_at_night_is_found() {
    let asked = steady(9..18);
    let mut uses = booked(&asked);
    uses.push((3 * HOUR + 10 * MINUTE, 1, 20));
    assert_eq!(found(&hours(24, &uses), &log(&asked)), [(FindingKind::IdleUse, 3, 4)]);
}

#[test]
fn a_key_that_was_never_used_here_is_idle_too() {
    assert_eq!(found(&hours(24, &[(3 * HOUR, 1, 20)]), &Log::default()), [(FindingKind::IdleUse, 3, 4)]);
}

#[test]
fn a_model_that_nobody_asked_for_is_found_once() {
    let asked = steady(0..24);
    let mut series = hours(24, &booked(&asked));
    for hour in [5, 9] {
        let used = Amounts { requests: Some(1), tokens: Some(12), cost: None };
        series.buckets[hour].models.insert("gpt-5-pro".to_owned(), used);
    }
    let findings = reconcile(&series, &log(&asked), &known(), &LIMITS);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(
        (findings[0].kind, findings[0].model.as_deref()),
        (FindingKind::UnknownModel, Some("gpt-5-pro"))
    );
    assert_eq!(findings[0].reported, Amounts { requests: Some(2), tokens: Some(24), cost: None });
    let nameless = LoggedMinute {
        at: 5 * HOUR,
        begun: Totals { nameless: 1, ..Totals::default() },
        ended: Totals { nameless: 1, ..Totals::default() },
    };
    series.buckets[9].models.remove("gpt-5-pro");
    let findings = reconcile(&series, &Log::new(vec![nameless]), &known(), &LIMITS);
    assert!(
        findings.iter().all(|found| found.kind != FindingKind::UnknownModel),
        "it may have been that one"
    );
}

#[test]
fn a_rise_of_what_others_use_is_found() {
    // A shared account: others use a little of it all the time, and the owner has raised the limits for that.
    let limits = Limits { requests: 1_000_000, tokens: 1_000_000_000, ..LIMITS };
    let asked = steady(0..24);
    let others = |hour: i64| (hour * HOUR, 5, if hour == 20 { 3_000_000 } else { 300_000 });
    let mut uses = booked(&asked);
    uses.extend((0..24).map(others));
    let findings = reconcile(&hours(24, &uses), &log(&asked), &known(), &limits);
    let kinds: Vec<_> = findings.iter().map(|found| (found.kind, found.span.begin / HOUR)).collect();
    assert_eq!(kinds, [(FindingKind::SpendSlope, 20)]);
}

#[test]
fn a_rise_that_the_log_has_too_is_none() {
    let mut asked = steady(0..24);
    asked[20].tokens = 90_000_000;
    assert_eq!(found(&hours(24, &booked(&asked)), &log(&asked)), []);
}

#[test]
fn what_was_estimated_or_has_no_price_explains_more() {
    let unmeasured =
        Totals { requests: 1, tokens: 10, unmeasured: 1, unmeasured_tokens: 10, ..Totals::default() };
    let minute = |totals| Log::new(vec![LoggedMinute { at: HOUR, begun: totals, ended: totals }]);
    assert_eq!(found(&hours(3, &[(HOUR, 1, 16_000)]), &minute(unmeasured)), []);
    assert!(!found(&hours(3, &[(HOUR, 1, 18_000)]), &minute(unmeasured)).is_empty());
    let unpriced = Totals { requests: 1, unpriced: 1, ..Totals::default() };
    let mut bill = hours(3, &[(HOUR, 1, 4_000_000_000)]);
    bill.kind = SeriesKind::Billed;
    assert_eq!(found(&bill, &minute(unpriced)), []);
    assert_eq!(found(&bill, &minute(Totals { unpriced: 0, ..unpriced })), [(FindingKind::MoreUse, 1, 2)]);
}

#[test]
fn a_bill_has_what_no_request_is_the_reason_for() {
    let mut bill = hours(3, &[(HOUR, 0, 900_000)]);
    bill.kind = SeriesKind::Billed;
    assert_eq!(found(&bill, &Log::default()), [], "less than a dollar of it");
}

#[test]
fn a_counter_that_moves_while_nothing_runs_is_found() {
    let mut counter = hours(24, &[(3 * HOUR, 0, 1)]);
    counter.kind = SeriesKind::Counter;
    assert_eq!(found(&counter, &log(&steady(9..18))), [(FindingKind::IdleUse, 3, 4)]);
    assert_eq!(found(&counter, &log(&steady(3..4))), []);
}

#[test]
fn kinds_are_found_by_their_names() {
    for kind in FindingKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    assert!("leak".parse::<FindingKind>().is_err());
}

prop_compose! {
    fn any_request()(begin in 0..48 * HOUR, length in 0..3 * HOUR, tokens in 0u64..200_000) -> Asked {
        Asked { begin, end: begin + length, tokens }
    }
}

proptest! {
    /// Wherever between its start and its end a provider books a request, and up to an hour beside that.
    #[test]
    fn honest_use_is_silent(
        all in prop::collection::vec((any_request(), 0..=100i64, -HOUR..HOUR), 0..60),
    ) {
        let asked: Vec<Asked> = all.iter().map(|(asked, ..)| *asked).collect();
        let uses: Vec<_> = all.iter().map(|(asked, part, beside)| {
            let at = asked.begin + (asked.end - asked.begin) / 100 * part;
            ((at + beside).clamp(0, 60 * HOUR), 1, asked.tokens)
        }).collect();
        prop_assert_eq!(found(&hours(61, &uses), &log(&asked)), []);
    }

    /// Whatever else goes on, a burst of more than everything that ran in the three hours around it is found.
    #[test]
    fn a_burst_is_found(asked in prop::collection::vec(any_request(), 0..60), hour in 0..50i64) {
        let log = log(&asked);
        let around = log.within(Span { begin: hour * HOUR, end: (hour + 1) * HOUR }.widened(HOUR));
        let mut uses: Vec<_> = asked.iter().map(|asked| (asked.begin, 1, asked.tokens)).collect();
        uses.push((hour * HOUR, 1, around.tokens + around.tokens / 100 + 1_002));
        let found = found(&hours(61, &uses), &log);
        let is_it = |(_, begin, end): &(FindingKind, i64, i64)| (*begin..*end).contains(&hour);
        prop_assert!(found.iter().any(is_it), "{found:?}");
    }

    /// Numbers of a hostile or broken provider make no panic.
    #[test]
    fn any_numbers_will_do(
        requests in any::<u64>(), tokens in any::<u64>(), nanos in any::<i64>(), begin in any::<i64>(), width in any::<u32>(),
    ) {
        let used = Amounts { requests: Some(requests), tokens: Some(tokens), cost: Some(NanoUsd::from_nanos(nanos)) };
        let span = Span { begin, end: begin.saturating_add(i64::from(width)) };
        let bucket = Bucket { span, used, models: BTreeMap::from([("m".to_owned(), used)]) };
        for kind in [SeriesKind::Usage, SeriesKind::Billed, SeriesKind::Counter] {
            let buckets = vec![bucket.clone(); 20];
            let series = Series { kind, slack_us: i64::MAX, buckets };
            let all = Totals { requests, tokens, cost_nanos: u128::MAX, unpriced: u64::MAX, ..Totals::default() };
            let log = Log::new(vec![LoggedMinute { at: begin, begun: all, ended: all }; 3]);
            reconcile(&series, &log, &known(), &LIMITS);
        }
    }
}
