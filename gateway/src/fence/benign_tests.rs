//! What goes by on an ordinary day: nothing of it is taken for a secret, and nothing is changed or late.
//!
//! `TOKFENCE_TEST_CASES` sets how many requests and answers are tried, of which there are ten thousand otherwise.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use policy::scan::{Shape, shapes};
use policy::{CanaryKind, DecoyShape, decoy, prompt_mark};

use super::{Fence, Watch, Watched, leak};
use crate::wire::Framing;

#[path = "../../../policy/tests/corpus/mod.rs"]
mod corpus;

use corpus::{Case, Draw, case};

const KEYS: usize = 32;

/// What a gateway with many providers looks for: keys of every shape and canaries of every kind.
static WATCH: LazyLock<Arc<Watch>> = LazyLock::new(|| {
    let mut draw = Draw::new(0x5eed);
    let canary = |kind| Watched::Canary { kind, name: "planted".to_owned() };
    let shapes = Shape::ALL.into_iter().filter(|shape| *shape != Shape::PrivateKey).cycle().take(KEYS);
    let mut secrets: Vec<(Watched, String)> = shapes
        .map(|shape| (Watched::Key { provider: shape.as_str().to_owned() }, corpus::key(shape, &mut draw)))
        .collect();
    let mut random = || {
        let mut bytes = [0; 32];
        bytes.fill_with(|| draw.number().to_be_bytes()[0]);
        bytes
    };
    secrets.extend(DecoyShape::ALL.map(|shape| (canary(CanaryKind::Decoy), decoy(shape, random()))));
    secrets.push((canary(CanaryKind::Vault), decoy(DecoyShape::OpenAi, random())));
    secrets.push((canary(CanaryKind::Prompt), prompt_mark(random())));
    Arc::new(Watch::new(secrets))
});

fn cases() -> u64 {
    std::env::var("TOKFENCE_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

/// Passes the answer through in random chunks, and counts those of which something was kept for later.
fn check_answer(seed: u64, case: &Case, late: &mut usize) -> usize {
    let mut draw = Draw::new(seed ^ 0xc0ffee);
    let framing = Framing::from_content_type(case.api.content_type(case.is_stream));
    let mut fence = Fence::new(WATCH.clone(), framing, true, case.is_stream);
    let longest = *draw.pick(&[30, 300, 4_000]);
    let chunks = draw.chunks(case.answer.as_bytes(), longest);
    let (mut sent, mut got) = (0, Vec::with_capacity(case.answer.len()));
    for (at, chunk) in chunks.iter().enumerate() {
        let passed = fence.pass(Some(Bytes::copy_from_slice(chunk)), at + 1 == chunks.len());
        assert!(passed.findings.is_empty() && !passed.must_stop, "seed {seed}: {:?}", passed.findings);
        got.extend_from_slice(&passed.bytes.unwrap_or_default());
        sent += chunk.len();
        *late += usize::from(got.len() < sent);
    }
    assert!(got == case.answer.as_bytes(), "seed {seed}: other bytes came through");
    chunks.len()
}

#[test]
fn nothing_of_an_ordinary_day_is_taken_for_a_secret() {
    let (mut late, mut chunks) = (0, 0);
    for seed in 0..cases() {
        let case = case(seed);
        let found = leak(&WATCH, "/v1/chat/completions", [].into_iter(), case.request.as_bytes());
        assert!(found.is_none(), "seed {seed}: {found:?} in {}", case.request);
        for text in [&case.request, &case.answer] {
            shapes(text.as_bytes(), |shape, at| panic!("seed {seed}: {} at {at} of {text}", shape.as_str()));
        }
        chunks += check_answer(seed, &case, &mut late);
    }
    assert!(late * 100 < chunks, "{late} of {chunks} chunks were held back");
}

#[test]
fn the_list_of_this_test_finds_what_is_on_it() {
    let mut draw = Draw::new(0x5eed);
    let key = corpus::key(Shape::OpenAiProject, &mut draw);
    let mut case = case(7);
    case.request = case.request.replacen("\"model\"", &format!("\"user\":\"{key}\",\"model\""), 1);
    assert!(leak(&WATCH, "/", [].into_iter(), case.request.as_bytes()).is_some(), "{}", case.request);
}
