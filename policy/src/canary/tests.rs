use super::make::parts;
use super::*;
use proptest::prelude::*;
use regex::Regex;

/// The public rules of secret scanners: gitleaks' `config/gitleaks.toml`, each anchored at both ends. The secret half of
/// a pair of AWS has no rule of its own there; its length and alphabet are those of AWS's documentation.
fn rule(shape: DecoyShape) -> Regex {
    let rule = match shape {
        DecoyShape::OpenAi => {
            r"\bsk-(?:proj|svcacct|admin)-(?:[A-Za-z0-9_-]{74}|[A-Za-z0-9_-]{58})T3BlbkFJ(?:[A-Za-z0-9_-]{74}|[A-Za-z0-9_-]{58})\b"
        }
        DecoyShape::Anthropic => r"\bsk-ant-api03-[a-zA-Z0-9_\-]{93}AA",
        DecoyShape::Google => r"\bAIza[\w-]{35}",
        DecoyShape::Groq => r"\bgsk_[a-zA-Z0-9]{52}\b",
        DecoyShape::OpenRouter => r"\bsk-or-v1-[0-9a-f]{64}\b",
        DecoyShape::HuggingFace => r"\bhf_[a-zA-Z]{34}\b",
        DecoyShape::Aws => r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b:[A-Za-z0-9/+]{40}",
        DecoyShape::GitHub => r"\bghp_[0-9a-zA-Z]{36}\b",
    };
    Regex::new(&format!("^(?-u:{rule})$")).unwrap()
}

fn any_shape() -> impl Strategy<Value = DecoyShape> {
    prop::sample::select(DecoyShape::ALL.to_vec())
}

fn canary(kind: CanaryKind, value: CanaryValue) -> Canary {
    Canary { id: CanaryId(1), kind, name: "spare".parse().unwrap(), shape: None, value, holder: None }
}

fn text(value: &str) -> CanaryValue {
    CanaryValue::Text(value.into())
}

/// How many characters differ between two of a kind at least, so many are random.
fn differing(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).filter(|(a, b)| a != b && a.is_ascii_alphanumeric()).count()
}

proptest! {
    #[test]
    fn a_decoy_is_what_public_scanners_take_for_a_key(shape in any_shape(), random: [u8; 32]) {
        let value = decoy(shape, random);
        prop_assert!(rule(shape).is_match(&value), "{shape}: {value}");
        prop_assert!(value.starts_with(shape.prefix()));
        prop_assert_eq!(parts(&value).count(), shape.variables().len());
        prop_assert!(parts(&value).all(|part| part.len() >= 20));
    }

    #[test]
    fn no_two_canaries_are_alike(shape in any_shape(), random: [u8; 32], other: [u8; 32]) {
        prop_assume!(random != other);
        // Of 26 characters one is the same by chance now and then, ten never.
        prop_assert!(differing(&decoy(shape, random), &decoy(shape, other)) >= 16);
        prop_assert!(differing(&prompt_mark(random), &prompt_mark(other)) >= 16);
        prop_assert_eq!(decoy(shape, random), decoy(shape, random));
    }

    #[test]
    fn a_mark_of_a_prompt_looks_like_the_number_of_a_document(random: [u8; 32]) {
        let mark = prompt_mark(random);
        prop_assert!(Regex::new("^tkc-[a-z2-7]{26}$").unwrap().is_match(&mark), "{mark}");
    }

    #[test]
    fn a_decoy_is_known_by_each_of_its_halves_and_by_nothing_else(shape in any_shape(), random: [u8; 32]) {
        let value = decoy(shape, random);
        let planted = canary(CanaryKind::Decoy, text(&value));
        prop_assert!(planted.is_presented_by(&value));
        prop_assert!(planted.marks().all(|mark| planted.is_presented_by(mark)));
        for other in ["", &value[1..], &value[..value.len() - 1], &format!("{value}x"), &value.to_uppercase()] {
            prop_assert_eq!(planted.is_presented_by(other), other == value, "{}", other);
        }
    }
}

#[test]
fn characters_are_drawn_evenly() {
    let mut counts = std::collections::BTreeMap::new();
    for number in 0..2_000u16 {
        let mut random = [0; 32];
        random[..2].copy_from_slice(&number.to_be_bytes());
        decoy(DecoyShape::GitHub, random)[4..].chars().for_each(|c| *counts.entry(c).or_insert(0) += 1);
    }
    // 72,000 draws of 62: about 1,161 of each, give or take 34.
    assert_eq!(counts.len(), 62);
    assert!(counts.values().all(|count| (950..1_400).contains(count)), "{counts:?}");
}

#[test]
fn a_canary_of_the_vault_is_known_by_its_hash_alone() {
    let value = decoy(DecoyShape::OpenAi, [7; 32]);
    let planted = canary(CanaryKind::Vault, CanaryValue::hash_of(&value));
    assert_eq!(planted.marks().count(), 0);
    assert!(planted.is_presented_by(&value));
    assert!(!planted.is_presented_by(&value[1..]));
}

#[test]
fn a_mark_of_a_prompt_is_no_key() {
    let mark = prompt_mark([7; 32]);
    let planted = canary(CanaryKind::Prompt, text(&mark));
    assert!(!planted.is_presented_by(&mark));
    assert_eq!(planted.marks().collect::<Vec<_>>(), [mark.as_str()]);
}

#[test]
fn nothing_that_is_shown_holds_a_value() {
    for shape in DecoyShape::ALL {
        let value = decoy(shape, [7; 32]);
        let planted = Canary { shape: Some(shape), ..canary(CanaryKind::Decoy, text(&value)) };
        let shown = format!("{planted:?} {}", planted.masked());
        assert!(planted.marks().all(|mark| !shown.contains(&mark[..16])), "{shown}");
        assert_eq!(planted.masked(), format!("{}…", shape.prefix()));
    }
    assert_eq!(canary(CanaryKind::Prompt, text(&prompt_mark([7; 32]))).masked(), "tkc-…");
}

#[test]
fn names_stay_as_they_are() {
    for kind in CanaryKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    for shape in DecoyShape::ALL {
        assert_eq!(shape.as_str().parse(), Ok(shape));
    }
    assert_eq!(CanaryKind::ALL.map(CanaryKind::as_str), ["prompt", "decoy", "vault"]);
    assert!("Decoy".parse::<CanaryKind>().is_err() && "OpenAI".parse::<DecoyShape>().is_err());
}
