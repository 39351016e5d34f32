use super::*;
use crate::{DecoyShape, decoy};
use proptest::prelude::*;

#[path = "../../tests/corpus/mod.rs"]
mod corpus;

fn key(shape: Shape, seed: u64) -> String {
    corpus::key(shape, &mut corpus::Draw::new(seed))
}

fn found(text: &str) -> Vec<(Shape, usize)> {
    let mut found = Vec::new();
    shapes(text.as_bytes(), |shape, at| found.push((shape, at)));
    found
}

#[track_caller]
fn check_nothing(text: &str) {
    assert_eq!(found(text), [], "{text}");
}

/// One shape as the decoys name it.
fn of_decoy(like: DecoyShape) -> Shape {
    match like {
        DecoyShape::OpenAi => Shape::OpenAiProject,
        DecoyShape::Anthropic => Shape::Anthropic,
        DecoyShape::Google => Shape::Google,
        DecoyShape::Groq => Shape::Groq,
        DecoyShape::OpenRouter => Shape::OpenRouter,
        DecoyShape::HuggingFace => Shape::HuggingFace,
        DecoyShape::Aws => Shape::AwsKeyId,
        DecoyShape::GitHub => Shape::GitHubPersonal,
    }
}

#[test]
fn a_key_is_found_where_it_stands() {
    for shape in Shape::ALL {
        let key = key(shape, 7);
        assert_eq!(found(&key), [(shape, 0)], "{key}");
        for before in
            ["key=", "\"", " ", "(", "\n", "\\n", "\\\\n", "\\u0027", "%3D", "Bearer ", "é", "\n-", "\\n-"]
        {
            for after in ["", "\"", " ", ",", "\\n", "\n", ".", "&x=1", "'"] {
                let text = format!("{before}{key}{after}");
                assert_eq!(found(&text), [(shape, before.len())], "{text}");
            }
        }
    }
}

#[test]
fn a_private_key_is_known_in_any_file() {
    let key = key(Shape::PrivateKey, 3);
    for text in [
        key.replace('\n', "\\n"),
        key.replace('\n', "\r\n"),
        key.replace('\n', "\\n\" +\n    \""),
        key.replace("RSA ", ""),
        key.replace("RSA ", "OPENSSH "),
        // So all keys of OpenSSH begin.
        format!(
            "-----BEGIN OPENSSH {} KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n",
            "PRIVATE"
        ),
    ] {
        assert_eq!(found(&text), [(Shape::PrivateKey, 0)], "{text}");
    }
    check_nothing("if text.contains(\"-----BEGIN RSA PRIVATE KEY-----\") { return Err(KeyInSource); }");
    check_nothing("-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----");
    check_nothing(&key.replace("PRIVATE KEY", "CERTIFICATE"));
    check_nothing(&key.replace("PRIVATE KEY", "PUBLIC KEY"));
}

#[test]
fn part_of_a_longer_word_is_no_key() {
    for shape in Shape::ALL.into_iter().filter(|shape| *shape != Shape::PrivateKey) {
        let key = key(shape, 11);
        check_nothing(&format!("x{key}"));
        check_nothing(&format!("_{key}"));
        check_nothing(&format!("x-{key}"));
        check_nothing(&key[..key.len() / 2]);
        // A capability ends where its checksum says.
        if shape != Shape::Capability {
            check_nothing(&format!("{key}{}", "aB3".repeat(90)));
        }
    }
}

#[test]
fn what_stands_for_a_key_is_none() {
    check_nothing(
        "sk-test-1234567890 sk-xxxxxxxx sk-... sk-your-key-here sk-1234567890abcdef sk-ant-api03-...",
    );
    check_nothing("AKIAIOSFODNN7EXAMPLE AKIAXXXXXXXXXXXXXXXX AKIATESTTESTTESTTEST AKIAABCDEFGHIJKLMNOP");
    check_nothing("OPENAI_API_KEY=tokfence-managed api_key=tokfence-managed tfk_example tfk_XXXXXXXX_");
    check_nothing(&format!("sk-proj-{x}T3BlbkFJ{x}", x = "x".repeat(58)));
    check_nothing(&format!("sk-{}T3BlbkFJ{}", "abcdefghijklmnopqrst", "ABCDEFGHIJKLMNOPQRST"));
    check_nothing(&format!("sk-ant-api03-{}AA", "your_api_key_here-".repeat(6).get(..93).unwrap()));
    check_nothing(&format!("AIza{}", "SyDUMMY".repeat(5)));
    check_nothing(&format!("gsk_{}", "aB3".repeat(18).get(..52).unwrap()));
    check_nothing(&format!("sk-or-v1-{}", "0123456789abcdef".repeat(4)));
    check_nothing(&format!("sk-or-v1-{}", "deadbeef".repeat(8)));
    check_nothing(&format!("ghp_{}", "abcdefghijklmnopqrstuvwxyz0123456789"));
    check_nothing(&format!("ghp_{}", "x".repeat(36)));
    check_nothing(&format!("github_pat_{}", "1".repeat(82)));
    check_nothing(&format!("hf_{}", "transformersmodelcardlistingentry"));
    check_nothing(&format!("xoxb-123456789012-1234567890123-{}", "abcdefghijklmnopqrstuvwx"));
    check_nothing(&format!("sk_live_{}", "4eC39H".repeat(4)));
    let capability = key(Shape::Capability, 5);
    let (body, checksum) = capability.split_at(capability.len() - 6);
    check_nothing(&format!("{body}{}", checksum.chars().rev().collect::<String>()));
}

#[test]
fn names_are_stable_and_differ() {
    let mut names = Shape::ALL.map(Shape::as_str).to_vec();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Shape::ALL.len());
    assert!(Shape::ALL.into_iter().all(|shape| RULES.iter().any(|rule| rule.shape == shape)));
}

#[test]
fn ordinary_texts_hold_nothing_that_looks_like_a_secret() {
    for seed in 0..2_000 {
        let text = corpus::text(&mut corpus::Draw::new(seed));
        assert_eq!(found(&text), [], "seed {seed}: {text}");
    }
}

proptest! {
    #[test]
    fn every_key_is_found_in_any_text(
        shape in prop::sample::select(Shape::ALL.to_vec()),
        seed: u64,
        before in "([ -~é\n]{0,40}[^a-zA-Z0-9_%\\\\-])?",
        after in "([^a-zA-Z0-9_-][ -~é\n]{0,40})?",
    ) {
        let text = format!("{before}{}{after}", key(shape, seed));
        prop_assert!(found(&text).contains(&(shape, before.len())), "{}", text);
    }

    #[test]
    fn every_decoy_is_found(like in prop::sample::select(DecoyShape::ALL.to_vec()), random: [u8; 32]) {
        let text = format!("KEY=\"{}\"", decoy(like, random));
        prop_assert_eq!(found(&text), [(of_decoy(like), 5)], "{}", text);
    }

    #[test]
    fn what_is_random_but_no_key_is_not_found(text in "[a-zA-Z0-9+/=._\\- \n\"]{0,400}") {
        prop_assert_eq!(found(&text), []);
    }

    #[test]
    fn no_bytes_can_panic(
        pieces in prop::collection::vec(
            (prop::sample::select(RULES.iter().map(|rule| rule.literal).collect::<Vec<_>>()),
             prop::collection::vec(any::<u8>(), 0..30)), 0..8),
    ) {
        let text: Vec<u8> = pieces.iter().flat_map(|(head, rest)| [head.as_bytes(), rest].concat()).collect();
        shapes(&text, |_, at| assert!(at < text.len()));
    }
}
