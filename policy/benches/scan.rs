//! How many bytes a second the scanner looks at, with thirty-two secrets and for what looks like one: `cargo bench -p policy --bench scan`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use policy::scan::{Channel, Watchlist, shapes};

const SECRETS: usize = 32;
/// What a request of a coding agent looks like to the scanner: this file.
const TEXT: &str = include_str!("scan.rs");
const TEXT_BYTES: usize = 1 << 20;

/// Letters as keys have them, alike in every run.
fn secrets() -> Vec<String> {
    let mut seed = 1u64;
    let mut letter = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[(seed >> 33) as usize % 62],
        )
    };
    (0..SECRETS).map(|_| format!("sk-proj-{}", (0..48).map(&mut letter).collect::<String>())).collect()
}

fn scan(bench: &mut Criterion) {
    let list = Watchlist::new(&secrets()).expect("thirty-two secrets are few");
    let text: Vec<u8> = TEXT.bytes().cycle().take(TEXT_BYTES).collect();
    let mut group = bench.benchmark_group("scan");
    group.throughput(Throughput::Bytes(TEXT_BYTES as u64));
    group.bench_function("code, in one piece", |bench| {
        bench.iter(|| {
            let mut channel = Channel::default();
            channel.feed(&list, black_box(&text), |_| {});
            channel.tail(&list)
        });
    });
    let needs_care = |byte: &u8| matches!(byte, b'&' | b'%' | b'\\' | 0x80..);
    let words: Vec<u8> = TEXT.bytes().filter(|byte| !needs_care(byte)).cycle().take(TEXT_BYTES).collect();
    group.bench_function("words, in one piece", |bench| {
        bench.iter(|| {
            let mut channel = Channel::default();
            channel.feed(&list, black_box(&words), |_| {});
            channel.tail(&list)
        });
    });
    group.bench_function("code, four bytes at a time", |bench| {
        bench.iter(|| {
            let mut channel = Channel::default();
            text.chunks(4).for_each(|piece| channel.feed(&list, black_box(piece), |_| {}));
            channel.tail(&list)
        });
    });
    group.bench_function("code, for what looks like a secret", |bench| {
        bench.iter(|| shapes(black_box(&text), |shape, at| panic!("{} at {at}", shape.as_str())));
    });
    let key = format!("ghp_{}\n", "aB3cD5eF7gH9iJ1kL3mN5oP7qR9sT1uV3wX5");
    let keys: Vec<u8> = key.bytes().cycle().take(TEXT_BYTES).collect();
    group.bench_function("nothing but keys, for what looks like a secret", |bench| {
        bench.iter(|| shapes(black_box(&keys), |shape, at| _ = black_box((shape, at))));
    });
    group.finish();
    bench.bench_function("a list of thirty-two secrets is built", |bench| {
        let secrets = secrets();
        bench.iter(|| Watchlist::new(black_box(&secrets)).map(|_| ()));
    });
}

criterion_group!(benches, scan);
criterion_main!(benches);
