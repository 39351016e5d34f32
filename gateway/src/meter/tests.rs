use proptest::prelude::*;

use super::*;

fn metered(wire: WireFormat, framing: Framing, body: &str) -> Metered {
    let mut meter = Meter::new(wire, framing);
    meter.feed(body.as_bytes());
    meter.finish()
}

fn openai(usage: &str) -> Metered {
    metered(WireFormat::OpenAi, Framing::Json, &format!(r#"{{"usage":{usage}}}"#))
}

#[track_caller]
fn check_openai(usage: &str, expected: Usage) {
    assert_eq!(openai(usage).usage, Some(expected), "{usage}");
}

#[track_caller]
fn check_bad(usage: &str, expected: Option<Usage>) {
    let metered = openai(usage);
    assert_eq!(metered.usage, expected, "{usage}");
    assert!(metered.has_bad_numbers, "{usage}");
}

#[test]
fn an_explicit_zero_is_a_report() {
    check_openai(r#"{"prompt_tokens":0,"completion_tokens":0}"#, Usage::default());
    assert_eq!(openai("{}").usage, None);
    assert_eq!(openai("null").usage, None);
    assert_eq!(openai(r#"{"prompt_tokens":null}"#).usage, None);
}

#[test]
fn cached_tokens_are_counted_once() {
    check_openai(
        r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60}}"#,
        Usage { input: 40, cache_read: 60, output: 5, ..Usage::default() },
    );
    // More cached than there were: hostile, but never negative.
    check_openai(
        r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":60}}"#,
        Usage { cache_read: 60, ..Usage::default() },
    );
}

#[test]
fn reasoning_left_out_of_the_output_is_found_in_the_total() {
    check_openai(
        r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#,
        Usage { input: 10, output: 105, reasoning: 100, ..Usage::default() },
    );
    check_openai(
        r#"{"prompt_tokens":10,"completion_tokens":105,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#,
        Usage { input: 10, output: 105, reasoning: 100, ..Usage::default() },
    );
    check_openai(r#"{"total_tokens":9}"#, Usage { input: 9, ..Usage::default() });
}

#[test]
fn hostile_numbers_are_flagged_and_never_lower_the_bill() {
    check_bad(r#"{"prompt_tokens":-5,"completion_tokens":1}"#, Some(Usage { output: 1, ..Usage::default() }));
    check_bad(r#"{"prompt_tokens":"5"}"#, None);
    check_bad(r#"{"prompt_tokens":[5]}"#, Some(Usage { input: 5, ..Usage::default() }));
    check_bad(r#"{"prompt_tokens":true}"#, None);
    check_bad(r#"{"prompt_tokens":1.5}"#, Some(Usage { input: 2, ..Usage::default() }));
    let huge = Some(Usage { input: 1 << 53, ..Usage::default() });
    check_bad(r#"{"prompt_tokens":18446744073709551616}"#, huge);
    check_bad(r#"{"prompt_tokens":1e999}"#, huge);
    check_bad(r#"{"prompt_tokens":1,"cost":-1}"#, Some(Usage { input: 1, ..Usage::default() }));
}

#[test]
fn a_number_that_was_cut_is_no_number() {
    assert_eq!(metered(WireFormat::OpenAi, Framing::Json, r#"{"usage":{"prompt_tokens":12"#).usage, None);
    let cut = "data: {\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":12";
    let usage = Usage { output: 5, ..Usage::default() };
    assert_eq!(metered(WireFormat::OpenAi, Framing::Sse, cut).usage, Some(usage));
}

#[test]
fn a_broken_event_does_not_hide_the_next() {
    let stream = "data: {\"a\":[[\"\n\ndata: }}}]\n\ndata: {\"usage\":{\"prompt_tokens\":7}}\n\n";
    let usage = Some(Usage { input: 7, ..Usage::default() });
    assert_eq!(metered(WireFormat::OpenAi, Framing::Sse, stream).usage, usage);
    let lines = "{\"a\":[[\"\n}}}]\n{\"prompt_eval_count\":7}\n";
    assert_eq!(metered(WireFormat::Ollama, Framing::Ndjson, lines).usage, usage);
}

#[test]
fn usage_elsewhere_is_not_usage() {
    let body = r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}","usage":{"prompt_tokens":9}}}]}"#;
    assert_eq!(metered(WireFormat::OpenAi, Framing::Json, body).usage, None);
    let deep = format!("{}{}{}", r#"{"a":"#.repeat(100), r#"{"usage":{"prompt_tokens":9}}"#, "}".repeat(100));
    assert_eq!(metered(WireFormat::OpenAi, Framing::Json, &deep).usage, None);
}

#[test]
fn keys_may_be_escaped_and_values_may_follow_deep_nesting() {
    let body = format!(
        r#"{{"a":{}1{},"us\u0061ge":{{"prompt_tokens":9}}}}"#,
        "[{\"b\":".repeat(200),
        "}]".repeat(200)
    );
    assert_eq!(
        metered(WireFormat::OpenAi, Framing::Json, &body).usage,
        Some(Usage { input: 9, ..Usage::default() })
    );
}

#[test]
fn a_key_of_the_callers_own_at_the_upstream_adds_the_upstreams_cost() {
    let cost = |usage: &str| openai(usage).reported_cost.map(NanoUsd::nanos);
    let details = r#""cost_details":{"upstream_inference_cost":0.02}"#;
    assert_eq!(cost(&format!(r#"{{"cost":0.001,"is_byok":true,{details}}}"#)), Some(21_000_000));
    assert_eq!(cost(&format!(r#"{{"cost":0.02,"is_byok":false,{details}}}"#)), Some(20_000_000));
    assert_eq!(cost(r#"{"cost":{"input_tokens_cost":0.1,"total_cost":0.3}}"#), Some(300_000_000));
    assert_eq!(cost(r#"{"cost":null}"#), None);
}

#[test]
fn an_answer_that_breaks_off_is_never_free() {
    let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":50,\"output_tokens\":1}}}\n\n";
    let delta = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"thirty bytes of generated text\"}}\n\n";
    let cut = metered(WireFormat::Anthropic, Framing::Sse, &format!("{start}{delta}"));
    let usage = Usage { input: 50, output: 10, ..Usage::default() };
    assert_eq!((cut.ending, cut.usage_or_estimate(1000)), (Ending::Open, (usage, Basis::Estimated)));

    let end = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    let whole = metered(WireFormat::Anthropic, Framing::Sse, &format!("{start}{delta}{end}"));
    let usage = Usage { input: 50, output: 7, ..Usage::default() };
    assert_eq!((whole.ending, whole.usage_or_estimate(1000)), (Ending::Complete, (usage, Basis::Reported)));

    let silent = metered(WireFormat::OpenAi, Framing::Json, "");
    let usage = Usage { input: 1001, ..Usage::default() };
    assert_eq!(silent.usage_or_estimate(1001), (usage, Basis::Estimated));
}

#[test]
fn an_event_of_any_size_is_read_in_constant_memory() {
    // Beyond 16 MiB.
    let answer = "a\\n\\\"é".repeat(5 << 19);
    let usage = r#""usage":{"input_tokens":3,"output_tokens":4}"#;
    for size in [1 << 20, answer.len()] {
        let text = &answer[..answer.floor_char_boundary(size)];
        let text = text.trim_end_matches('\\');
        let event = format!(
            "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],{usage}}}}}\n\n"
        );
        let mut meter = Meter::new(WireFormat::OpenAi, Framing::Sse);
        event.as_bytes().chunks(16 * 1024).for_each(|chunk| meter.feed(chunk));
        let metered = meter.finish();
        assert_eq!(metered.usage, Some(Usage { input: 3, output: 4, ..Usage::default() }), "{size}");
        assert_eq!(metered.ending, Ending::Complete);
    }
}

#[test]
fn text_is_counted_as_it_was_generated() {
    let stream =
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a\n\u00e9\ud83d\ude00ü"}}]}"#;
    assert_eq!(metered(WireFormat::OpenAi, Framing::Sse, stream).output_text_bytes, 1 + 1 + 2 + 4 + 2);
    let tool = r#"data: {"choices":[{"delta":{"tool_calls":[{"id":"call_1","type":"function","function":{"name":"ls","arguments":"{}"}}]}}]}"#;
    assert_eq!(metered(WireFormat::OpenAi, Framing::Sse, tool).output_text_bytes, 4);
}

fn any_wire() -> impl Strategy<Value = WireFormat> {
    prop::sample::select(WireFormat::ALL.to_vec())
}

fn any_framing() -> impl Strategy<Value = Framing> {
    prop::sample::select(vec![Framing::Sse, Framing::Ndjson, Framing::Json])
}

const FRAGMENT: &str = r#"(data: |\n|\r|\{|\}|\[|\]|,|:|"|\\u00|\\|usage|"usage":|"message":|"prompt_tokens":|"input_tokens":|"delta":|"choices":|"text"|"cost":|-|[0-9]{1,20}|\.|e|null|é){0,40}"#;

proptest! {
    #[test]
    fn cuts_change_nothing(wire in any_wire(), framing in any_framing(), body in FRAGMENT, size in 1usize..20) {
        let whole = metered(wire, framing, &body);
        let mut meter = Meter::new(wire, framing);
        body.as_bytes().chunks(size).for_each(|chunk| meter.feed(chunk));
        prop_assert_eq!(meter.finish(), whole);
    }

    #[test]
    fn no_bytes_can_panic(wire in any_wire(), framing in any_framing(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut meter = Meter::new(wire, framing);
        meter.feed(&body);
        let metered = meter.finish();
        let _ = metered.usage_or_estimate(u64::MAX);
    }

    #[test]
    fn the_kinds_of_input_are_disjoint(input in 0u64..1 << 40, cached in 0u64..1 << 40, output in 0u64..1 << 40) {
        let body = format!(
            r#"{{"prompt_tokens":{input},"completion_tokens":{output},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
        );
        let usage = openai(&body).usage.unwrap();
        prop_assert_eq!(usage.input_total(), input.max(cached));
        prop_assert_eq!(usage.output, output);
    }
}
