//! The embedded price list: it loads, says where it comes from, and costs what the providers' pages say.

use gateway::embedded_prices;
use policy::{NanoUsd, Part, Rates, Usage};

/// The cost of a usage in nano-dollars, under a price that must be in the list.
#[track_caller]
fn check_cost(provider: &str, model: &str, usage: Usage, nanos: i64) {
    let table = embedded_prices();
    let resolved = table.resolve(provider, model);
    let price = resolved.unwrap_or_else(|| panic!("no price for {provider}/{model}")).price;
    assert_eq!(price.cost(&usage, None), Ok(NanoUsd::from_nanos(nanos)), "{provider}/{model}");
}

#[test]
fn the_list_says_where_it_comes_from() {
    let table = embedded_prices();
    assert!(table.source.contains("litellm") && table.source.contains("genai-prices"), "{}", table.source);
    assert_eq!(table.licence, "MIT");
    assert!(table.version.contains('.'), "{}", table.version);
    let parts: Vec<_> =
        table.date.split('-').map(|part| part.parse::<u32>().map_or(0, |_| part.len())).collect();
    assert_eq!(parts, [4, 2, 2], "{}", table.date);
    let notice = include_str!("../../conf/prices/LICENSE-litellm");
    assert!(
        notice.contains("MIT License") && notice.contains("Copyright (c)"),
        "the licence asks for its text"
    );
}

/// Computed by hand from the providers' price pages.
#[test]
fn known_models_cost_what_their_providers_ask() {
    // 10 at $4, 100,000 read at $0.20, 2,000 written at $5, 789 out at $20 a million.
    check_cost(
        "anthropic",
        "claude-opus-5-5",
        Usage { input: 10, cache_read: 100_000, cache_write_5m: 2_000, output: 789, ..Usage::default() },
        40_000 + 20_000_000 + 10_000_000 + 15_780_000,
    );
    // An hour in the cache costs twice the input.
    check_cost(
        "anthropic",
        "claude-sonnet-4-5",
        Usage { cache_write_1h: 1_000_000, ..Usage::default() },
        6_000_000_000,
    );
    // 23,456 at $1.25, 100,000 cached at $0.125, 789 out at $10.
    check_cost(
        "openai",
        "gpt-5.1-2025-11-13",
        Usage { input: 23_456, cache_read: 100_000, output: 789, reasoning: 512, ..Usage::default() },
        29_320_000 + 12_500_000 + 7_890_000,
    );
    // Above 272,000 tokens all of it is dearer: $10 in, $45 out.
    check_cost(
        "openai",
        "gpt-5.5",
        Usage { input: 300_000, output: 1_000, ..Usage::default() },
        3_000_000_000 + 45_000_000,
    );
    check_cost(
        "google",
        "gemini-2.5-pro",
        Usage { input: 200_000, output: 1_200, ..Usage::default() },
        262_000_000,
    );
    check_cost(
        "google",
        "gemini-2.5-pro",
        Usage { input: 250_000, output: 1_200, ..Usage::default() },
        643_000_000,
    );
    check_cost("openai", "text-embedding-3-small", Usage { input: 1_000, ..Usage::default() }, 20_000);
    check_cost(
        "groq",
        "openai/gpt-oss-120b",
        Usage { input: 1_000, output: 1_000, ..Usage::default() },
        750_000,
    );
    // Above 200,000 tokens $6 in and $22.50 out.
    check_cost(
        "openrouter",
        "anthropic/claude-sonnet-4.5",
        Usage { input: 200_001, output: 1_000, ..Usage::default() },
        1_200_006_000 + 22_500_000,
    );
    check_cost("mistral", "mistral-large-latest", Usage { input: 1, output: 1, ..Usage::default() }, 2_000);
}

/// The same for what is no plain text, and for other service tiers.
#[test]
fn other_kinds_and_tiers_cost_what_their_providers_ask() {
    let table = embedded_prices();
    let check = |provider, model, usage: Usage, tier, nanos| {
        let price =
            table.resolve(provider, model).unwrap_or_else(|| panic!("no price for {provider}/{model}")).price;
        assert_eq!(price.cost(&usage, tier), Ok(NanoUsd::from_nanos(nanos)), "{provider}/{model} {tier:?}");
    };
    // Sound in at $1, out of the cache at $0.10; text at $0.30.
    let heard = Usage { input: 1_000, audio_input: 600, cache_read: 50, audio_cache_read: 50, ..Usage::NONE };
    check("google", "gemini-2.5-flash", heard, None, 120_000 + 600_000 + 5_000);
    // A picture of 1,290 tokens at $30, words at $2.50.
    let drawn = Usage { input: 100, output: 1_300, image_output: 1_290, ..Usage::NONE };
    check("google", "gemini-2.5-flash-image", drawn, None, 30_000 + 25_000 + 38_700_000);
    // Text in at $5, pictures in at $10 and out at $40.
    let edited = Usage { input: 300, image_input: 250, output: 1_056, ..Usage::NONE };
    check("openai", "gpt-image-1", edited, None, 250_000 + 2_500_000 + 42_240_000);
    // Sound in at $40 and out at $80, text at $2.50 and $10.
    let spoken = Usage { input: 30, audio_input: 20, output: 110, audio_output: 100, ..Usage::NONE };
    check("openai", "gpt-4o-audio-preview-2025-06-03", spoken, None, 25_000 + 800_000 + 100_000 + 8_000_000);
    // Flex is half the price, priority two and a half times.
    let asked = Usage { input: 1_000, output: 100, ..Usage::NONE };
    check("openai", "gpt-5.5", asked, Some("flex"), 2_500_000 + 1_500_000);
    check("openai", "gpt-5.5", asked, Some("priority"), 12_500_000 + 7_500_000);
    check("openai", "gpt-5.5", asked, Some("default"), 5_000_000 + 3_000_000);
    // A batch is half the price, the faster mode twice; a search is a cent.
    let searched = Usage { searches: 2, ..asked };
    check("anthropic", "claude-opus-5-5", searched, Some("batch"), 2_000_000 + 1_000_000 + 20_000_000);
    check("anthropic", "claude-opus-5-5", searched, Some("fast"), 8_000_000 + 4_000_000 + 20_000_000);
    check("anthropic", "claude-opus-5-5", searched, Some("standard"), 4_000_000 + 2_000_000 + 20_000_000);
}

#[test]
fn every_built_in_provider_with_a_price_list_has_models() {
    let table = embedded_prices();
    for provider in [
        "anthropic",
        "openai",
        "google",
        "mistral",
        "groq",
        "deepseek",
        "xai",
        "together",
        "fireworks",
        "cerebras",
        "cohere",
        "openrouter",
        "perplexity",
        "moonshot",
        "zai",
    ] {
        let models = table.iter().filter(|(of, _, _)| *of == provider).count();
        assert!(models >= 5, "{provider} has {models} models");
    }
}

#[test]
fn nothing_is_free_and_no_long_context_is_cheaper() {
    for (provider, model, price) in embedded_prices().iter() {
        let ordinary = &price.ordinary;
        for (name, ladder) in price.service_tiers.iter().map(|(name, ladder)| (name.as_str(), ladder)) {
            let cheaper = matches!(name, "batch" | "flex");
            let is_cheaper = |part| ladder.rates.get(part) <= ordinary.rates.get(part);
            assert!(
                !cheaper || is_cheaper(Part::Input) && is_cheaper(Part::Output),
                "{provider}/{model} {name}"
            );
        }
        for ladder in price.service_tiers.values().chain([ordinary]) {
            let steps = ladder.tiers.iter().map(|tier| &tier.rates);
            for rates in std::iter::once(&ladder.rates).chain(steps) {
                check_rates(provider, model, rates, &ladder.rates);
            }
            assert!(ladder.tiers.iter().all(|tier| tier.above_input_tokens >= 1_000), "{provider}/{model}");
        }
    }
}

#[track_caller]
fn check_rates(provider: &str, model: &str, rates: &Rates, base: &Rates) {
    let is_embedding = ["emb", "bge", "gte", "UAE"].iter().any(|part| model.contains(part));
    assert!(is_embedding || rates.output().nanos_per_mtok() > 0, "{provider}/{model} answers for nothing");
    let tokens = Part::ALL.into_iter().filter(|part| !part.is_by_the_piece() && !part.is_output());
    for rate in tokens.map(|part| rates.get(part)) {
        assert!(rate.nanos_per_mtok() > 0, "{provider}/{model}");
    }
    assert!(rates.input() >= base.input() && rates.output() >= base.output(), "{provider}/{model}");
    assert!(
        rates.get(Part::CacheRead) <= rates.input(),
        "{provider}/{model}: the cache costs more than no cache"
    );
    assert!(rates.get(Part::CacheWrite1h) >= rates.get(Part::CacheWrite5m), "{provider}/{model}");
    // A thousand dollars a million tokens: no model costs that; a wrong power of ten does.
    assert!(rates.output().nanos_per_mtok() < 1_000 * 1_000_000_000, "{provider}/{model}");
}
