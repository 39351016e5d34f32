//! How fast usage is read from an answer while it goes by: `cargo bench -p gateway --bench meter`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway::meter::Meter;
use gateway::wire::{Framing, WireFormat};

const EVENTS: usize = 200;
/// As a network cuts what nobody paces.
const PACKET_BYTES: usize = 1_448;

const USAGE: &str = r#""usage":{"prompt_tokens":120,"completion_tokens":240,"total_tokens":360,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}"#;

/// An answer of about 1.5 KB.
fn answer() -> String {
    let text = "The gateway reads each event as it passes and adds nothing to it. ".repeat(17);
    format!(
        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},"service_tier":"default","system_fingerprint":"fp_44709d6fcb"}}"#
    )
}

/// The events of a stream, each by itself, with the usage in the last but one.
fn events() -> Vec<String> {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\",{rest}}}\n\n"
        )
    };
    let content =
        r#""choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]"#;
    let mut events: Vec<String> = (0..EVENTS).map(|_| event(content)).collect();
    events.push(event(&format!(r#""choices":[],{USAGE}"#)));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn read<'c>(framing: Framing, chunks: impl Iterator<Item = &'c [u8]>) -> Option<u64> {
    let mut meter = Meter::new(WireFormat::OpenAi, framing);
    chunks.for_each(|chunk| meter.feed(black_box(chunk)));
    meter.finish().usage.map(|usage| usage.output)
}

fn meter(bench: &mut Criterion) {
    let (answer, events) = (answer(), events());
    let stream = events.concat();
    assert_eq!(read(Framing::Json, [answer.as_bytes()].into_iter()), Some(240));
    assert_eq!(read(Framing::Sse, [stream.as_bytes()].into_iter()), Some(240));
    let mut group = bench.benchmark_group("meter");
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("an answer in one piece", |bench| {
        bench.iter(|| read(Framing::Json, [answer.as_bytes()].into_iter()));
    });
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("a stream, event by event", |bench| {
        bench.iter(|| read(Framing::Sse, events.iter().map(String::as_bytes)));
    });
    group.bench_function("a stream, packet by packet", |bench| {
        bench.iter(|| read(Framing::Sse, stream.as_bytes().chunks(PACKET_BYTES)));
    });
    group.bench_function("a stream, seven bytes at a time", |bench| {
        bench.iter(|| read(Framing::Sse, stream.as_bytes().chunks(7)));
    });
    group.finish();
}

criterion_group!(benches, meter);
criterion_main!(benches);
