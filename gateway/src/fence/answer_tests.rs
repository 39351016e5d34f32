use super::*;
use crate::fence::Watched;
use policy::CanaryKind;

const KEY: &str = "sk-proj-T3BlbkFJ0123456789abcdefghijKLMNOPQRSTUV";
const MARK: &str = "tkc-9f8e7d6c5b4a39281706abcd";

fn watch() -> Arc<Watch> {
    let key = Watched::Key { provider: "openai".to_owned() };
    let mark = Watched::Canary { kind: CanaryKind::Prompt, name: "ops".to_owned() };
    Arc::new(Watch::new([(key, KEY), (mark, MARK)]))
}

/// What a caller gets of an answer in these chunks, what was found, and whether it was ended.
fn pass(framing: Option<Framing>, can_stop: bool, chunks: &[&[u8]]) -> (String, Vec<Finding>, bool) {
    let mut fence = Fence::new(watch(), framing, true, can_stop);
    let (mut got, mut findings, mut is_stopped) = (Vec::new(), Vec::new(), false);
    let mut take = |passed: Passed| {
        got.extend_from_slice(&passed.bytes.unwrap_or_default());
        findings.extend(passed.findings);
        is_stopped |= passed.must_stop;
    };
    for chunk in chunks {
        take(fence.pass(Some(Bytes::copy_from_slice(chunk)), false));
    }
    take(fence.pass(None, true));
    (String::from_utf8(got).unwrap(), findings, is_stopped)
}

fn chat(delta: &str) -> String {
    let delta = serde_json::to_string(delta).unwrap();
    format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{delta}}}}}]}}\n\n")
}

/// The words of a chat that was streamed.
fn words(stream: &str) -> String {
    let events = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let value = |event: &str| serde_json::from_str::<serde_json::Value>(event).unwrap();
    events.map(|event| value(event)["choices"][0]["delta"]["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn ordinary_words_pass_at_once_and_as_they_are() {
    let mut fence = Fence::new(watch(), Some(Framing::Sse), true, true);
    for word in ["Hello", ", a sk", "-task is", " \u{e9}\n", "done"] {
        let chunk = Bytes::from(chat(word));
        let passed = fence.pass(Some(chunk.clone()), false);
        assert_eq!(passed.bytes.unwrap().as_ptr(), chunk.as_ptr(), "it is not even copied");
        assert!(passed.findings.is_empty() && !passed.must_stop);
    }
}

#[test]
fn a_key_in_pieces_is_masked_before_anybody_has_it() {
    for size in 1..20 {
        let text = format!("the key is {KEY}, you see");
        let letters: Vec<char> = text.chars().collect();
        let events: Vec<String> =
            letters.chunks(size).map(|piece| chat(&piece.iter().collect::<String>())).collect();
        let chunks: Vec<&[u8]> = events.iter().map(|event| event.as_bytes()).collect();
        let (got, findings, is_stopped) = pass(Some(Framing::Sse), true, &chunks);
        let words = words(&got);
        assert_eq!(words.len(), text.len());
        assert!(words.starts_with("the key is ") && words.ends_with(", you see"), "{words}");
        let shown = KEY.char_indices().find(|(at, _)| !words.contains(&KEY[..*at])).unwrap().0;
        assert!(shown < 16, "{size}: {words}");
        assert_eq!((findings.len(), is_stopped), (1, false));
        assert_eq!(got.len(), events.concat().len());
    }
}

#[test]
fn a_canary_ends_the_stream_before_its_event() {
    let events = [chat("so: "), chat("tkc-9f8e7d"), chat("6c5b4a392817"), chat("06abcd and more")];
    let chunks: Vec<&[u8]> = events.iter().map(|event| event.as_bytes()).collect();
    let (got, findings, is_stopped) = pass(Some(Framing::Sse), true, &chunks);
    assert_eq!((got, is_stopped), (events[0].clone(), true));
    assert_eq!(findings[0].watched.to_string(), "the prompt canary `ops`");
}

#[test]
fn what_the_provider_repeats_of_the_prompt_is_no_finding() {
    let event =
        format!("data: {{\"type\":\"response.created\",\"response\":{{\"instructions\":\"{MARK}\"}}}}\n\n");
    let (got, findings, is_stopped) = pass(Some(Framing::Sse), true, &[event.as_bytes()]);
    assert_eq!((got, findings, is_stopped), (event, vec![], false));
}

#[test]
fn an_answer_that_cannot_be_ended_is_masked_and_stays_json() {
    let document =
        serde_json::json!({ "choices": [{ "message": { "content": format!("é \"{KEY}\" {MARK}\n") } }] });
    let text = document.to_string().replace("T3Bl", "\\u00543\\u0042l");
    for size in [1, 7, 64, 10_000] {
        // A few letters are let go before they look like anything.
        let few = if size < 64 { 14 } else { 0 };
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let (got, findings, is_stopped) = pass(Some(Framing::Json), false, &chunks);
        assert_eq!((got.len(), findings.len(), is_stopped), (text.len(), 2, false));
        let got: serde_json::Value = serde_json::from_str(&got).unwrap();
        let content = got["choices"][0]["message"]["content"].as_str().unwrap();
        let stars = |length| "*".repeat(length);
        assert!(content.contains(&format!("{}\" ", stars(KEY.len() + 10 - few))), "{size}: {content}");
        assert!(content.ends_with(&format!("{}\n", stars(MARK.len() - few))), "{size}: {content}");
    }
}

#[test]
fn a_stream_that_ends_within_a_key_does_not_tell_it() {
    let events = [chat("see "), chat(&KEY[..20])];
    let chunks: Vec<&[u8]> = events.iter().map(|event| event.as_bytes()).collect();
    let (got, _, _) = pass(Some(Framing::Sse), true, &chunks);
    assert_eq!(words(&got), format!("see {}", "*".repeat(20)));
    let (got, _, _) = pass(Some(Framing::Sse), true, &[chat(&KEY[..10]).as_bytes()]);
    assert_eq!(words(&got), &KEY[..10]);
}

#[test]
fn texts_that_come_by_turns_are_told_apart() {
    let choice = |index: u32, delta: &str| {
        format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{delta}\"}}}}]}}\n\n")
    };
    let events =
        [choice(0, &KEY[..20]), choice(1, "other words"), choice(0, &KEY[20..]), choice(1, " go on")];
    let chunks: Vec<&[u8]> = events.iter().map(|event| event.as_bytes()).collect();
    let (got, findings, _) = pass(Some(Framing::Sse), true, &chunks);
    assert_eq!(findings.len(), 1);
    let expected =
        [choice(0, &"*".repeat(20)), events[1].clone(), choice(0, &"*".repeat(28)), events[3].clone()];
    assert_eq!(got, expected.concat());
}

#[test]
fn only_what_is_looked_for_is_held_back_and_not_for_ever() {
    let mut fence = Fence::new(watch(), Some(Framing::Sse), true, true);
    assert!(fence.pass(Some(chat("sk-proj-T3Bl").into()), false).bytes.is_none());
    let passed = fence.pass(Some(chat("oom").into()), false);
    assert_eq!(words(std::str::from_utf8(&passed.bytes.unwrap()).unwrap()), "sk-proj-T3Bloom");
}

#[test]
fn letters_with_endless_noise_between_them_end_the_answer() {
    let noise = format!("data: {{\"content\":\"{}\"}}\n\n", "\u{200b}".repeat(30_000));
    let key = format!("data: {{\"content\":\"{}\"}}\n\n", &KEY[..30]);
    let (got, _, is_stopped) = pass(Some(Framing::Sse), true, &[key.as_bytes(), noise.as_bytes()]);
    assert_eq!((got.as_str(), is_stopped), ("data: ", true));
}

#[test]
fn in_what_is_only_watched_nothing_changes() {
    let mut fence = Fence::new(watch(), Some(Framing::Sse), false, true);
    let passed = fence.pass(Some(chat(KEY).into()), false);
    assert_eq!(
        (words(std::str::from_utf8(&passed.bytes.unwrap()).unwrap()), passed.findings.len()),
        (KEY.to_owned(), 1)
    );
}

#[test]
fn a_key_in_escapes_is_masked_whole_wherever_its_text_stands() {
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for (open, close) in
        [("\"", "\""), ("[\"", "\"]"), ("[1,\"", ""), ("[[\"", "\"]]"), ("{\"a\":[\"", "\"]}")]
    {
        let (got, findings, _) =
            pass(Some(Framing::Json), false, &[format!("{open}{escaped}{close}").as_bytes()]);
        assert_eq!((got, findings.len()), (format!("{open}{}{close}", "*".repeat(escaped.len())), 1));
    }
}

#[test]
fn stars_leave_the_structure_of_json_as_it_is() {
    let (left, right) = KEY.split_at(30);
    let stars = |text: &str| "*".repeat(text.len());
    for (framing, text) in [
        (Framing::Json, format!("{{\"{left}\":\"x\",\n\"{right}\":[[],{{}}]}}")),
        (Framing::Json, format!("{{\"\\\"{left}\":[[],{{}}]}} \r\n")),
        (Framing::Ndjson, format!("{{\"{left}\":\"\"}}\n{{\"{right}\":\"\"}}\n")),
        (Framing::Sse, format!("data: {{\"{left}\":\"\"}}\n\n")),
    ] {
        let (got, _, _) = pass(Some(framing), false, &[text.as_bytes()]);
        assert_eq!(got, text.replace(left, &stars(left)).replace(right, &stars(right)));
    }
}

/// What is too scattered to be masked ends the answer instead.
#[test]
fn a_key_that_is_scattered_over_many_strings_is_not_told() {
    let letters = |between: usize| -> String {
        KEY.chars().map(|letter| format!("\"{letter}\",{}", "\"\",".repeat(between))).collect()
    };
    let whole = format!("\"{KEY}\",");
    for text in
        [letters(0), letters(1), letters(40), letters(1000), whole.repeat(1000), letters(2).repeat(50)]
    {
        for size in [100, 5_000, 64 * 1024] {
            let text = format!("[{text}\"\"]");
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (got, _, is_stopped) = pass(Some(Framing::Json), false, &chunks);
            let said: String =
                got.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').collect();
            assert!(is_stopped || got.len() == text.len());
            assert!((16..KEY.len()).all(|end| !said.contains(&KEY[end - 16..end])), "{size}: {got}");
        }
    }
}

#[test]
fn a_beginning_that_tells_nothing_does_not_end_an_answer_however_much_follows() {
    let beginning = &KEY[..11];
    let rest = "\u{4e2d}\u{6587}".repeat(20_000);
    for text in
        [format!("{{\"a\":\"{beginning}\",\"b\":\"{rest}\"}}"), format!("{{\"a\":\"{beginning}{rest}\"}}")]
    {
        for size in [100, 5_000, 64 * 1024] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (got, findings, is_stopped) = pass(Some(Framing::Json), false, &chunks);
            assert!(got == text && findings.is_empty() && !is_stopped, "{size}");
        }
    }
}

#[test]
fn a_text_that_ends_with_a_beginning_delays_the_others_once() {
    let event = |index: usize, delta: &str| -> Bytes {
        let choice = serde_json::json!({ "index": index, "delta": { "content": delta } });
        format!("data: {{\"choices\":[{choice}]}}\n\n").into()
    };
    let mut fence = Fence::new(watch(), Some(Framing::Sse), true, true);
    fence.pass(Some(event(1, &KEY[..11])), false);
    let late = (0..200).filter(|_| fence.pass(Some(event(0, &"word ".repeat(200))), false).bytes.is_none());
    assert!(late.count() < 30);
}

/// Found by the fuzzer: the first half of an escape had gone out when the other half was masked.
#[test]
fn a_name_in_escapes_stays_json_wherever_it_is_cut() {
    let spelled: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let answer = format!("{{\"a\\\\{spelled}:\":1}}");
    for size in 1..40 {
        let chunks: Vec<&[u8]> = answer.as_bytes().chunks(size).collect();
        let (got, findings, is_stopped) = pass(Some(Framing::Json), false, &chunks);
        assert!(serde_json::from_str::<serde_json::Value>(&got).is_ok(), "{size}: {got}");
        assert_eq!((findings.len(), is_stopped, got.len()), (1, false, answer.len()), "{size}");
    }
}

#[test]
fn a_broken_escape_takes_nothing_of_what_follows() {
    for broken in ["\\u", "\\u00b", "\\ud83d\\u"] {
        let text = format!("{{\"a\":\"{broken}{MARK}\"}}");
        let (got, findings, _) = pass(Some(Framing::Json), false, &[text.as_bytes()]);
        assert!(!got.contains(&MARK[1..]) && findings.len() == 1, "{got}");
    }
}

#[test]
fn a_line_that_lacks_its_quote_costs_the_next_line_nothing() {
    let (left, right) = KEY.split_at(20);
    let line = |rest: &str| format!("{{\"message\":{{\"content\":\"{rest}}}}}\n");
    let answer = [line(left), line(&format!("{right}\""))].concat();
    for chunks in [answer.as_bytes().chunks(answer.len()), answer.as_bytes().chunks(1)] {
        let (got, findings, _) = pass(Some(Framing::Ndjson), false, &chunks.collect::<Vec<_>>());
        assert_eq!(findings.len(), 1);
        let lines: Vec<&str> = got.lines().collect();
        assert_eq!(lines.len(), 2, "{got}");
        assert!(serde_json::from_str::<serde_json::Value>(lines[1]).is_ok() && !got.contains(right), "{got}");
    }
}
