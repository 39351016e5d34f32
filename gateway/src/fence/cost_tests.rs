//! What the fence costs: the memory of one answer, whatever a provider sends, and the time that an event takes.

use allocation_counter::measure;
use policy::CanaryKind;

use super::*;
use crate::fence::Watched;

/// What is kept for one answer between two chunks of it.
const KEPT_MAX: i64 = 64 * 1024;
/// What is taken at most while a chunk is read, and given back then: the stars of a large one need most.
const PEAK_MAX: i64 = 3 * 1024 * 1024;
/// A chunk as large as the engine's largest.
const CHUNK: usize = 64 * 1024;

/// Keys as providers make them, alike in every run.
fn keys() -> Vec<String> {
    let mut seed = 3u64;
    let mut letter = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        char::from(letters[usize::try_from(seed >> 33).unwrap() % letters.len()])
    };
    (0..32).map(|_| format!("sk-proj-{}", (0..156).map(&mut letter).collect::<String>())).collect()
}

fn watch() -> Arc<Watch> {
    let keys = keys();
    let key = |(number, key): (usize, &String)| {
        let watched = match number {
            0 => Watched::Canary { kind: CanaryKind::Prompt, name: "ops".to_owned() },
            _ => Watched::Key { provider: "openai".to_owned() },
        };
        (watched, key.clone())
    };
    Arc::new(Watch::new(keys.iter().enumerate().map(key)))
}

/// What an answer took: at most between two chunks, and at most within one.
#[derive(Debug, Default)]
struct Cost {
    kept: i64,
    peak: i64,
    time: Duration,
}

fn cost(framing: Option<Framing>, can_stop: bool, chunk: usize, answer: impl Into<Bytes>) -> Cost {
    let answer: Bytes = answer.into();
    let watch = watch();
    let mut cost = Cost::default();
    let mut fence = Fence::new(watch.clone(), framing, true, can_stop);
    let mut kept = 0;
    kept += measure(|| drop(Fence::new(watch.clone(), framing, true, can_stop))).bytes_max as i64;
    let since = Instant::now();
    for at in (0..answer.len()).step_by(chunk) {
        let part = answer.slice(at..answer.len().min(at + chunk));
        let mut stop = false;
        let info = measure(|| stop = fence.pass(Some(part), false).must_stop);
        cost.peak = cost.peak.max(kept + info.bytes_max as i64);
        kept += info.bytes_current;
        cost.kept = cost.kept.max(kept);
        if stop {
            break;
        }
    }
    cost.time = since.elapsed();
    cost.kept += size_of::<Fence>() as i64;
    cost
}

fn event(index: usize, delta: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{delta}\"}}}}]}}\n\n"
    )
}

/// An event as OpenAI sends it.
fn chat(index: usize, delta: &str) -> Bytes {
    format!(
        "data: {{\"id\":\"chatcmpl-CgK1nB7Yw0b1mGq2hXoTz8rPq4sLd\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\
         \"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0392822090\",\
         \"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{delta}\"}},\"logprobs\":null,\"finish_reason\":null}}],\
         \"usage\":null,\"obfuscation\":\"j4K9sQ\"}}\n\n"
    )
    .into()
}

fn answers() -> Vec<(&'static str, Option<Framing>, bool, String)> {
    let keys = keys();
    let (mark, key) = (&keys[0], &keys[1]);
    let sse = Some(Framing::Sse);
    let start = &key[..key.len() - 1];
    let letter_by_letter: String = start.chars().map(|letter| event(0, &letter.to_string())).collect();
    let padded: String = start
        .chars()
        .map(|letter| format!(": {}\n{}", "p".repeat(2000), event(0, &letter.to_string())))
        .collect();
    let many = |delta: &str| (0..10_000).map(|index| event(index, delta)).collect::<String>();
    let turns: String = start.chars().flat_map(|c| (0..250).map(move |i| event(i, &c.to_string()))).collect();
    let spaces = " ".repeat(1 << 20);
    let dense = format!("[{}1]", "{\"a\":\"b\",\"c\":\"d\"},".repeat(1 << 20));
    let dense_live =
        format!("{{\"k\":\"{start}\",\"l\":[{}1]}}", "{\"a\":\"b\",\"c\":\"d\"},".repeat(1 << 16));
    let strings = format!("[{}1]", format!("\"{key}\",").repeat(2 << 10));
    let spread: String = key.chars().map(|letter| format!("\"{letter}\",{}", "\"\",".repeat(600))).collect();
    let keys_of =
        format!("{{{}\"\":1}}", key.chars().map(|l| format!("\"{l}\":[[],{{}}],")).collect::<String>());
    let long_event = event(0, &"word ".repeat(16 << 18));
    let found = format!("{{\"content\":\"{}\"}}", format!("{mark} ").repeat(2 << 10));
    let found_keys = event(0, &format!("{key} ").repeat(2 << 10));
    let escaped: String = start.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    vec![
        ("letter by letter", sse, true, letter_by_letter.repeat(8)),
        ("letter by letter in large events", sse, true, padded.repeat(8)),
        ("ten thousand texts", sse, true, many("word ")),
        ("ten thousand texts that begin like a key", sse, true, many(&key[..20])),
        ("texts by turns", sse, true, turns),
        ("a beginning and spaces", sse, true, event(0, &format!("{start}{spaces}"))),
        (
            "a beginning and spaces, in a document",
            Some(Framing::Json),
            false,
            format!("{{\"c\":\"{start}{spaces}\"}}"),
        ),
        ("a beginning and spaces, in a text", None, false, format!("{start}{spaces}")),
        ("many small strings", Some(Framing::Json), false, dense),
        ("many small strings after a beginning", Some(Framing::Json), false, dense_live),
        ("an event of sixteen mebibytes", sse, true, long_event),
        ("a mark again and again", Some(Framing::Json), false, found),
        ("a key again and again", sse, true, found_keys),
        ("a key again and again, in strings of its own", Some(Framing::Json), false, strings),
        ("a key with much between its letters", Some(Framing::Json), false, format!("[{spread}1]")),
        ("a key in keys", Some(Framing::Json), false, keys_of.repeat(20)),
        ("escapes", sse, true, event(0, &escaped).repeat(100)),
        ("deep", Some(Framing::Json), false, "{\"a\":[".repeat(1 << 20)),
    ]
}

#[test]
fn an_answer_of_any_kind_takes_little_memory_and_no_more_time_than_it_is_long() {
    for (name, framing, can_stop, answer) in answers() {
        for chunk in [300, 1460, CHUNK] {
            let cost = cost(framing, can_stop, chunk, answer.clone());
            assert!(cost.kept <= KEPT_MAX, "{name}, {chunk} bytes at once: {cost:?}");
            assert!(cost.peak <= PEAK_MAX, "{name}, {chunk} bytes at once: {cost:?}");
            // A thousand times what it takes; what looks at all again for each finding takes longer.
            assert!(cost.time < Duration::from_secs(30), "{name}, {chunk} bytes at once: {cost:?}");
        }
    }
}

/// How long an event of a stream takes with thirty-two secrets, at the median and at the 99th of a hundred.
///
///     cargo test --release -p gateway --lib fence::answer::cost_tests -- --ignored --nocapture
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
#[expect(clippy::print_stdout, reason = "it is run to be read")]
fn the_time_of_an_event() {
    let words = "so the scanner looks at every letter of it, (and of `this`) once; ";
    let begins = format!("the key begins with {}", &keys()[1][..11]);
    for (name, texts, delta) in [
        ("a word", 1, " word"),
        ("a word, in one of 200 texts", 200, " word"),
        ("1 KiB", 1, &words.repeat(11)),
        ("1 KiB of escapes", 1, &"line\\n\\tof \\\"code\\\" \\u00e9 ".repeat(23)),
        ("the beginning of a key", 1, &begins),
    ] {
        let events: Vec<Bytes> = (0..texts).map(|index| chat(index, delta)).collect();
        let mut fence = Fence::new(watch(), Some(Framing::Sse), true, true);
        let mut times: Vec<Duration> = (0..200_000)
            .map(|number| {
                let event = events[number % events.len()].clone();
                let since = Instant::now();
                drop(std::hint::black_box(fence.pass(Some(event), false)));
                since.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100];
        println!("{name:45} {:4} bytes: p50 {:?}, p99 {:?}", events[0].len(), at(50), at(99));
        assert!(at(99) <= Duration::from_micros(50), "{name}: {:?}", at(99));
    }
}
