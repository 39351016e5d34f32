//! Ordinary work through the real program: nothing of it is taken for a secret, and nothing is changed.

use crate::support::{Gateway, Mock, Request, answer_with};

#[path = "../../../policy/tests/corpus/mod.rs"]
mod corpus;

use corpus::{Api, Case, case};

const CASES: u64 = 300;
const THREADS: u64 = 4;

/// Where such a request is sent, and whether it arrives as it was.
fn target(case: &Case) -> (&'static str, bool) {
    match (case.api, case.is_stream) {
        (Api::Chat, false) => ("/openai/v1/chat/completions", true),
        // How much was used is asked for in addition.
        (Api::Chat, true) => ("/openai/v1/chat/completions", false),
        (Api::Responses, _) => ("/openai/v1/responses", true),
        (Api::Anthropic, _) => ("/anthropic/v1/messages", true),
        (Api::Gemini, false) => ("/google/v1beta/models/gemini-2.5-flash:generateContent", true),
        (Api::Gemini, true) => ("/google/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", true),
        (Api::Ollama, _) => ("/ollama/api/chat", true),
    }
}

fn check(gateway: &Gateway, mock: &Mock, seed: u64) {
    let case = case(seed);
    let (target, is_kept) = target(&case);
    let content_type = format!("Content-Type: {}\r\n", case.api.content_type(case.is_stream));
    let script = mock.plays(answer_with("200 OK", &content_type, &case.answer));
    let response = gateway.ask(Request::post(target, case.request.as_str()).script(&script)).expect(200);
    assert!(
        response.text() == case.answer,
        "seed {seed}: {} came instead of {}",
        response.text(),
        case.answer
    );
    let sent = mock.the_request(&script).text();
    assert!(!is_kept || sent == case.request, "seed {seed}: {sent} was sent instead of {}", case.request);
}

#[test]
fn ordinary_work_passes_as_it_is_and_nothing_is_told_of_it() {
    let gateway = &Gateway::start();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                (0..CASES)
                    .filter(|seed| seed % THREADS == thread)
                    .for_each(|seed| check(gateway, &gateway.mock, seed));
            });
        }
    });
    // Not even what is only written down: everybody is GREEN, and nothing was seen.
    let risk = gateway.run(["--json", "risk"]).expect(0).json();
    assert_eq!((&risk["states"], &risk["events"]), (&serde_json::json!([]), &serde_json::json!([])));
    gateway.rest();
    assert_eq!(gateway.rows().len(), usize::try_from(CASES).unwrap());
}
