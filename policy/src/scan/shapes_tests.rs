use super::*;
use crate::{DecoyShape, MintedToken, decoy};
use proptest::prelude::*;

/// A key of each shape as its owner would get it, whose random parts are drawn from `seed`. They are put together here,
/// so that no file of ours looks like it holds keys.
fn key(shape: Shape, seed: u64) -> String {
    const BASE62: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const FOR_URLS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = seed;
    let mut draw = |alphabet: &str, count: usize| -> String {
        let mut letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(alphabet.as_bytes()[usize::try_from(state >> 33).unwrap() % alphabet.len()])
        };
        (0..count).map(&mut letter).collect()
    };
    match shape {
        Shape::OpenAiProject => format!("sk-proj-{}{MARK}{}", draw(FOR_URLS, 74), draw(FOR_URLS, 74)),
        Shape::OpenAiServiceAccount => {
            format!("sk-svcacct-{}{MARK}{}", draw(FOR_URLS, 58), draw(FOR_URLS, 58))
        }
        Shape::OpenAiAdmin => format!("sk-admin-{}{MARK}{}", draw(FOR_URLS, 58), draw(FOR_URLS, 58)),
        Shape::OpenAiLegacy => format!("sk-{}{MARK}{}", draw(BASE62, 20), draw(BASE62, 20)),
        Shape::Anthropic => format!("sk-ant-api03-{}AA", draw(FOR_URLS, 93)),
        Shape::AnthropicAdmin => format!("sk-ant-admin01-{}AA", draw(FOR_URLS, 93)),
        Shape::Google => format!("AIzaSy{}", draw(FOR_URLS, 33)),
        Shape::Groq => format!("gsk_{}WGdyb3FY{}", draw(BASE62, 20), draw(BASE62, 24)),
        Shape::OpenRouter => format!("sk-or-v1-{}", draw("0123456789abcdef", 64)),
        Shape::HuggingFace => format!("hf_{}", draw(&BASE62[..52], 34)),
        Shape::GitHubPersonal => format!("ghp_{}", draw(BASE62, 36)),
        Shape::GitHubOAuth => format!("gho_{}", draw(BASE62, 36)),
        Shape::GitHubApp => format!("ghs_{}", draw(BASE62, 36)),
        Shape::GitHubFineGrained => format!("github_pat_{}_{}", draw(BASE62, 22), draw(BASE62, 59)),
        Shape::AwsKeyId => format!("AKIA{}", draw("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        Shape::Slack => {
            let number = |digits: String| format!("1{digits}");
            let (team, bot) = (number(draw("0123456789", 11)), number(draw("0123456789", 12)));
            format!("xoxb-{team}-{bot}-{}", draw(BASE62, 24))
        }
        Shape::StripeLive => format!("sk_live_{}", draw(BASE62, 24)),
        Shape::PrivateKey => {
            format!("-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA{}\n", "PRIVATE", draw(BASE62, 48))
        }
        Shape::Capability => {
            let secret = draw(BASE62, 32).into_bytes();
            MintedToken::from_random(seed.to_be_bytes(), secret.try_into().unwrap()).text
        }
    }
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
