//! How fast a request's body is validated and its facts are found: `cargo bench -p gateway --bench request`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::wire::{inject_include_usage, request_facts};

const SIZES: [usize; 3] = [500, 50_000, 1_000_000];
/// What a coding agent sends, with what JSON escapes in it: this file.
const CODE: &str = include_str!("request.rs");

/// A chat of about so many bytes: turns of at most a few thousand, as agents have them.
fn chat(bytes: usize) -> Vec<u8> {
    let head = r#"{"model":"gpt-4o-mini","max_tokens":512,"temperature":0.2,"stream":true,"messages":[{"role":"system","content":"You are a helpful assistant."}"#;
    let mut body = head.to_owned();
    let mut code = CODE.chars().cycle();
    while body.len() + 64 < bytes {
        let turn: String = code.by_ref().take((bytes - body.len() - 64).min(3_000)).collect();
        let turn = serde_json::to_string(&turn).expect("text is JSON");
        body += &format!(r#",{{"role":"user","content":{turn}}}"#);
    }
    (body + "]}").into_bytes()
}

fn request(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("request");
    for size in SIZES {
        let body = chat(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("facts of a chat, bytes", size), |bench| {
            bench.iter(|| request_facts(black_box(&body)).expect("it is valid"));
        });
        let facts = request_facts(&body).expect("it is valid");
        assert_eq!(facts.model.as_deref(), Some("gpt-4o-mini"));
        group.bench_function(BenchmarkId::new("usage is asked for, bytes", size), |bench| {
            bench.iter(|| inject_include_usage(black_box(&body), &facts));
        });
    }
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
