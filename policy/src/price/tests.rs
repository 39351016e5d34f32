use super::*;
use proptest::prelude::*;

const TABLE: &str = r#"{
    "source": "test", "licence": "MIT", "version": "1", "date": "2026-11-25",
    "aliases": {"openai": {"gpt-4o-latest": "gpt-4o"}},
    "providers": {"openai": {
        "gpt-4o": {"input": 2500000000, "output": 10000000000, "cache_read": 1250000000},
        "gpt-4o-mini": {"input": 150000000, "output": 600000000},
        "long": {"input": 1000000000, "output": 2000000000,
                 "tiers": [{"above_input_tokens": 200000, "input": 2000000000, "output": 3000000000}],
                 "service_tiers": {"flex": {"input": 500000000, "output": 1000000000,
                     "tiers": [{"above_input_tokens": 200000, "input": 1000000000, "output": 1500000000}]}}},
        "ears": {"input": 1000, "output": 10000, "cache_read": 100, "reasoning": 20000, "audio_input": 8000,
                 "audio_output": 90000, "image_input": 3000, "image_output": 40000, "request": 5000000,
                 "search": 7000000}
    }}
}"#;

fn input_price(nanos: u64) -> Price {
    Price::flat(Rates::new(TokenPrice::from_nanos_per_mtok(nanos), TokenPrice::default()))
}

#[track_caller]
fn check_resolve(model: &str, found: Option<&str>) {
    let table = PriceTable::parse(TABLE).unwrap();
    assert_eq!(table.resolve("openai", model).map(|resolved| resolved.model), found, "{model}");
}

#[track_caller]
fn check_cost(model: &str, usage: Usage, nanos: i64) {
    let table = PriceTable::parse(TABLE).unwrap();
    assert_eq!(
        table.resolve("openai", model).unwrap().price.cost(&usage, None),
        Ok(NanoUsd::from_nanos(nanos))
    );
}

#[test]
fn a_model_is_found_by_name_alias_or_without_its_date() {
    check_resolve("gpt-4o", Some("gpt-4o"));
    check_resolve("gpt-4o-latest", Some("gpt-4o"));
    check_resolve("gpt-4o-2024-08-06", Some("gpt-4o"));
    check_resolve("gpt-4o-20240806", Some("gpt-4o"));
}

#[test]
fn a_model_is_never_found_by_a_prefix() {
    check_resolve("gpt-4o-nano", None);
    check_resolve("gpt-4", None);
    check_resolve("gpt-4o-2024-8-6", None);
    check_resolve("-20240806", None);
    check_resolve("é-20240806", None);
    check_resolve("gpt-4o-2024é06", None);
}

#[test]
fn a_single_token_is_never_free() {
    check_cost("gpt-4o-mini", Usage { input: 1, ..Usage::default() }, 150);
    check_cost("gpt-4o", Usage { cache_read: 1, ..Usage::default() }, 1_250);
}

#[test]
fn an_unlisted_cache_price_is_the_input_price() {
    check_cost("gpt-4o-mini", Usage { cache_read: 1_000_000, ..Usage::default() }, 150_000_000);
    check_cost("gpt-4o-mini", Usage { cache_write_1h: 1_000_000, ..Usage::default() }, 150_000_000);
}

#[test]
fn a_long_context_is_priced_anew_as_a_whole() {
    check_cost("long", Usage { input: 200_000, output: 10, ..Usage::default() }, 200_020_000);
    check_cost("long", Usage { input: 200_001, output: 10, ..Usage::default() }, 400_032_000);
    check_cost("long", Usage { input: 1, cache_read: 200_000, ..Usage::default() }, 400_002_000);
}

#[test]
fn the_dearest_rates_are_those_of_any_model_and_tier() {
    let dearest = PriceTable::parse(TABLE).unwrap().dearest("openai").unwrap();
    assert_eq!(
        (dearest.input().nanos_per_mtok(), dearest.output().nanos_per_mtok()),
        (2_500_000_000, 10_000_000_000)
    );
    assert!(PriceTable::parse(TABLE).unwrap().dearest("nobody").is_none());
}

#[test]
fn a_cost_that_does_not_fit_is_an_error() {
    let price = input_price(u64::MAX);
    assert_eq!(price.cost(&Usage { input: u64::MAX, ..Usage::default() }, None), Err(Overflow));
}

#[track_caller]
fn check_served(tier: Option<&str>, input: u64, nanos: i64) {
    let table = PriceTable::parse(TABLE).unwrap();
    let price = table.resolve("openai", "long").unwrap().price;
    let usage = Usage { input, output: 10, ..Usage::default() };
    assert_eq!(price.cost(&usage, tier), Ok(NanoUsd::from_nanos(nanos)), "{tier:?}");
}

#[test]
fn the_service_tier_that_answered_decides() {
    check_served(Some("flex"), 200_000, 100_010_000);
    check_served(Some("Flex"), 200_001, 200_016_000);
    for ordinary in [None, Some("default"), Some("standard"), Some("priority"), Some("fle"), Some("flex2")] {
        check_served(ordinary, 200_000, 200_020_000);
    }
}

#[test]
fn what_can_be_charged_is_the_dearer_of_what_was_asked_for_and_the_ordinary() {
    let table = PriceTable::parse(TABLE).unwrap();
    let price = table.resolve("openai", "long").unwrap().price;
    let input = |tokens, tiers: &[&str]| price.rates_for(tokens, tiers).input().nanos_per_mtok();
    assert_eq!(input(1, &["flex"]), 1_000_000_000);
    assert_eq!(input(200_001, &[]), 2_000_000_000);
}

#[test]
fn each_part_has_a_line_and_the_sum_of_the_lines_is_the_cost() {
    let table = PriceTable::parse(TABLE).unwrap();
    let price = table.resolve("openai", "ears").unwrap().price;
    let usage = Usage {
        input: 10,
        audio_input: 4,
        image_input: 1,
        cache_read: 6,
        audio_cache_read: 2,
        output: 20,
        reasoning: 5,
        audio_output: 3,
        image_output: 2,
        searches: 2,
        ..Usage::default()
    };
    let bill = price.bill(&usage, None);
    let lines: Vec<_> =
        bill.lines().map(|line| (line.part.as_str(), line.count, line.price.nanos_per_mtok())).collect();
    let expected = [
        ("input", 5, 1_000),
        ("output", 10, 10_000),
        ("cache_read", 4, 100),
        ("reasoning", 5, 20_000),
        ("audio_input", 4, 8_000),
        // No discount is listed for sound.
        ("audio_cache_read", 2, 8_000),
        ("audio_output", 3, 90_000),
        ("image_input", 1, 3_000),
        ("image_output", 2, 40_000),
        ("request", 1, 5_000_000),
        ("search", 2, 7_000_000),
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        bill.scaled(),
        Ok(5_000 + 100_000 + 400 + 100_000 + 32_000 + 16_000 + 270_000 + 3_000 + 80_000 + 19_000_000)
    );
    assert_eq!(bill.total(), Ok(NanoUsd::from_nanos(20)));
}

#[test]
fn parts_that_say_more_than_their_whole_are_cut_to_it() {
    let table = PriceTable::parse(TABLE).unwrap();
    let price = table.resolve("openai", "ears").unwrap().price;
    let usage = Usage { output: 10, audio_output: 7, image_output: 7, reasoning: 7, ..Usage::default() };
    let lines =
        |usage| price.bill(&usage, None).lines().map(|line| (line.part, line.count)).collect::<Vec<_>>();
    assert_eq!(lines(usage), [(Part::AudioOutput, 7), (Part::ImageOutput, 3), (Part::Request, 1)]);
    let usage = Usage { output: 10, audio_output: 4, reasoning: 7, ..Usage::default() };
    assert_eq!(lines(usage), [(Part::Reasoning, 6), (Part::AudioOutput, 4), (Part::Request, 1)]);
}

#[test]
fn another_table_is_laid_over_the_first() {
    let mut table = PriceTable::parse(TABLE).unwrap();
    let over = r#"{"date": "2026-12-01", "aliases": {"openai": {"mini": "gpt-4o-mini"}},
        "providers": {"openai": {"gpt-4o-mini": {"input": 1, "output": 2}, "gpt-4o-latest": {"input": 3, "output": 4}},
                      "new": {"m": {"input": 5, "output": 6}}}}"#;
    table.overlay(PriceTable::parse(over).unwrap());
    let input =
        |provider, model| table.resolve(provider, model).map(|found| found.price.ordinary.rates.input());
    let price = |nanos| Some(TokenPrice::from_nanos_per_mtok(nanos));
    assert_eq!(input("openai", "gpt-4o"), price(2_500_000_000));
    assert_eq!([input("openai", "gpt-4o-mini"), input("openai", "mini")], [price(1), price(1)]);
    // It was another name of `gpt-4o`, and is a model of its own now.
    assert_eq!(input("openai", "gpt-4o-latest"), price(3));
    assert_eq!(input("new", "m"), price(5));
}

#[track_caller]
fn check_fault(text: &str, fault: &str) {
    let error = PriceTable::parse(text).unwrap_err().to_string();
    assert!(error.contains(fault), "{error}");
}

#[test]
fn a_fault_is_told_with_its_key_and_its_line() {
    let model = |price: &str| {
        format!("{{\"date\": \"2026-11-25\",\n\"providers\": {{\"p\": {{\n\"m\": {{{price}}}}}}}}}")
    };
    let io = r#""input": 1, "output": 2"#;
    check_fault(
        &model(r#""input": 1.5, "output": 2"#),
        "`providers.p.m.input`: invalid type: floating point `1.5`",
    );
    check_fault(&model(r#""input": 1.5, "output": 2"#), "at line 3 column");
    check_fault(&model(r#""input": "1", "output": 2"#), "`providers.p.m.input`: invalid type: string");
    check_fault(&model(r#""input": -1, "output": 2"#), "`providers.p.m.input`: invalid value: integer `-1`");
    check_fault(&model(r#""input": 99999999999999999999, "output": 2"#), "`providers.p.m.input`: ");
    check_fault(&model(r#""input": null, "output": 2"#), "`providers.p.m.input`: invalid type: null");
    check_fault(&model(r#""input": 1"#), "`providers.p.m.output` is missing");
    check_fault(&model(&format!("{io}, \"ouput\": 3")), "`providers.p.m.ouput`: unknown key at line 3");
    check_fault(&model(&format!("{io}, \"input\": 3")), "`providers.p.m.input`: comes twice");
    check_fault(
        &model(&format!("{io}, \"tiers\": [{{{io}}}]")),
        "`providers.p.m.tiers.above_input_tokens` is missing",
    );
    let tier = |above| format!("{{\"above_input_tokens\": {above}, {io}}}");
    let tiers = format!("{io}, \"tiers\": [{}, {}]", tier(2), tier(1));
    check_fault(&model(&tiers), "`providers.p.m.tiers` are not in ascending order");
    check_fault(
        &model(&format!("{io}, \"service_tiers\": {{\"flex\": {{}}}}")),
        "`providers.p.m.service_tiers.flex.input` is",
    );
    check_fault("{}", "`date` is missing");
    check_fault(r#"{"date": "2026-02-30"}"#, "`date` is missing, or is no day");
    check_fault(
        r#"{"date": "2026-11-25", "aliases": {"p": {"a": "b"}}}"#,
        "`aliases.p.a`: there is no such model",
    );
    check_fault(
        &model(io).replacen("\"m\"", "\"m\": {\"input\": 1, \"output\": 1}, \"m\"", 1),
        "`providers.p.m`: comes twice",
    );
    check_fault(&format!("{} x", model(io)), "trailing characters");
    check_fault("[", "expected an object");
}

fn any_usage() -> impl Strategy<Value = Usage> {
    prop::array::uniform13(0u64..1 << 40).prop_map(|counts| {
        let [input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, rest @ ..] = counts;
        let [
            audio_input,
            audio_cache_read,
            audio_output,
            image_input,
            image_cache_read,
            image_output,
            searches,
        ] = rest;
        Usage {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
            reasoning,
            audio_input,
            audio_cache_read,
            audio_output,
            image_input,
            image_cache_read,
            image_output,
            searches: searches % 1_000,
        }
    })
}

/// Rates, not all of them listed, of at most ten thousand dollars.
fn any_rates() -> impl Strategy<Value = Rates> {
    let rate = prop::option::of(0u64..10_000_000_000_000);
    (0u64..1 << 40, 0u64..1 << 40, prop::collection::vec(rate, Part::ALL.len())).prop_map(
        |(input, output, others)| {
            let price = TokenPrice::from_nanos_per_mtok;
            let known = Rates::new(price(input), price(output));
            let others = Part::ALL.into_iter().zip(others).skip(2);
            others.fold(known, |rates, (part, nanos)| match nanos {
                Some(nanos) => rates.with(part, price(nanos)),
                None => rates,
            })
        },
    )
}

proptest! {
    #[test]
    fn splitting_a_usage_never_lowers_its_cost(input in 0u64..1 << 40, part in 0u64..1 << 40, price in 0u64..1 << 40) {
        let price = input_price(price);
        let cost = |input| price.cost(&Usage { input, ..Usage::default() }, None).map(NanoUsd::nanos);
        if let (Ok(whole), Ok(one), Ok(other)) = (cost(input + part), cost(input), cost(part)) {
            prop_assert!(whole <= one + other);
            prop_assert!(whole >= one.max(other));
        }
    }

    #[test]
    fn every_token_is_in_one_line(usage in any_usage(), rates in any_rates()) {
        let price = Price::flat(rates);
        let bill = price.bill(&usage, None);
        let lines = bill.lines().filter(|line| !line.part.is_by_the_piece());
        prop_assert_eq!(lines.map(|line| line.count).sum::<u64>(), usage.total());
    }

    #[test]
    fn more_of_a_token_never_costs_less(usage in any_usage(), rates in any_rates(), more in 0u64..1 << 40) {
        let price = Price::flat(rates);
        let scaled = |usage: Usage| price.bill(&usage, None).scaled().unwrap();
        let before = scaled(usage);
        for more in [
            Usage { input: usage.input + more, ..usage },
            Usage { cache_read: usage.cache_read + more, ..usage },
            Usage { cache_write_5m: usage.cache_write_5m + more, ..usage },
            Usage { cache_write_1h: usage.cache_write_1h + more, ..usage },
            Usage { output: usage.output + more, ..usage },
            Usage { searches: usage.searches + more % 1_000, ..usage },
        ] {
            prop_assert!(scaled(more) >= before, "{more:?}");
        }
    }

    #[test]
    fn each_class_of_token_adds_its_own_rate(usage in any_usage(), rates in any_rates(), more in 0u64..1 << 40) {
        let price = Price::flat(rates);
        let scaled = |usage: Usage| price.bill(&usage, None).scaled().unwrap();
        // The parts stay within their wholes, so that what is added is text and nothing else.
        let usage = Usage { audio_input: 0, image_input: 0, audio_cache_read: 0, image_cache_read: 0, ..usage };
        let usage = Usage { reasoning: 0, audio_output: 0, image_output: 0, ..usage };
        for (part, with_more) in [
            (Part::Input, Usage { input: usage.input + more, ..usage }),
            (Part::CacheRead, Usage { cache_read: usage.cache_read + more, ..usage }),
            (Part::CacheWrite5m, Usage { cache_write_5m: usage.cache_write_5m + more, ..usage }),
            (Part::CacheWrite1h, Usage { cache_write_1h: usage.cache_write_1h + more, ..usage }),
            (Part::Output, Usage { output: usage.output + more, ..usage }),
            (Part::Reasoning, Usage { output: usage.output + more, reasoning: more, ..usage }),
            (Part::AudioInput, Usage { input: usage.input + more, audio_input: more, ..usage }),
            (Part::AudioOutput, Usage { output: usage.output + more, audio_output: more, ..usage }),
            (Part::ImageInput, Usage { input: usage.input + more, image_input: more, ..usage }),
            (Part::ImageOutput, Usage { output: usage.output + more, image_output: more, ..usage }),
        ] {
            let added = u128::from(more) * u128::from(rates.get(part).nanos_per_mtok());
            prop_assert_eq!(scaled(with_more), scaled(usage) + added, "{}", part);
        }
    }

    #[test]
    fn no_usage_and_no_price_can_overflow_unseen(counts in prop::array::uniform4(any::<u64>()), rate in any::<u64>()) {
        let [input, cache_read, output, searches] = counts;
        let nanos = TokenPrice::from_nanos_per_mtok(rate);
        let price = Price::flat(Rates::new(nanos, nanos).with(Part::Search, nanos));
        let usage = Usage { input, cache_read, output, searches, ..Usage::default() };
        let exact = [input, cache_read, output, searches].map(|count| u128::from(count).checked_mul(u128::from(rate)));
        let exact = exact.into_iter().try_fold(0u128, |sum, part| sum.checked_add(part?));
        let expected = exact.and_then(|exact| i64::try_from(exact.div_ceil(1_000_000)).ok());
        prop_assert_eq!(price.cost(&usage, None).ok().map(NanoUsd::nanos), expected);
    }
}
