use super::*;
use proptest::prelude::*;

const KEY: &str = "sk-proj-T3BlbkFJ0123456789abcdefghijKLMNOPQRSTUV";

fn hits(list: &Watchlist, pieces: &[&[u8]]) -> Vec<Hit> {
    let (mut channel, mut hits) = (Channel::new(list), Vec::new());
    pieces.iter().for_each(|piece| channel.feed(list, piece, |hit| hits.push(hit)));
    hits.sort_by_key(|hit| (hit.end, hit.view, hit.form, hit.secret));
    hits
}

#[track_caller]
fn check_found(text: &str, view: View, form: Form) {
    let list = Watchlist::new(&["another-secret-of-some-length", KEY]).unwrap();
    let found = hits(&list, &[text.as_bytes()]);
    let is_wanted = |hit: &Hit| (hit.secret, hit.view, hit.form) == (1, view, form);
    assert!(found.iter().any(is_wanted), "{text}: {found:?}");
    assert!(found.iter().all(|hit| hit.secret == 1), "{found:?}");
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    check_found(&format!("the key is {KEY}, you see"), View::Plain, Form::Plain);
    check_found(&KEY[..40], View::Plain, Form::Part);
    check_found(&KEY.chars().rev().collect::<String>(), View::Plain, Form::Reversed);
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    check_found(&hex, View::Plain, Form::Hex);
    check_found(&hex.to_uppercase(), View::Plain, Form::Hex);
    let spaced: String = KEY.bytes().map(|byte| format!("\\x{byte:02x} ")).collect();
    assert!(hits(&Watchlist::new(&[KEY]).unwrap(), &[spaced.as_bytes()]).is_empty(), "an `x` is a letter");
    let spaced: String = KEY.bytes().map(|byte| format!("{byte:02X}:")).collect();
    check_found(&spaced, View::Squashed, Form::Hex);
    let escaped: String = KEY.chars().map(|char| format!("\\u{:04x}", char as u32)).collect();
    check_found(&escaped, View::Json, Form::Plain);
    let percent: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    check_found(&percent, View::Percent, Form::Plain);
    let html: String = KEY.bytes().map(|byte| format!("&#{byte};")).collect();
    check_found(&html, View::Html, Form::Plain);
    let apart: String = KEY.chars().map(|char| format!("{char}\u{200b} ")).collect();
    check_found(&apart, View::Squashed, Form::Plain);
}

#[test]
fn the_depth_tells_whether_a_secret_may_be_coming() {
    let list = Watchlist::new(&[KEY]).unwrap();
    let mut channel = Channel::new(&list);
    let mut depth = |text: &str| {
        channel.feed(&list, text.as_bytes(), |_| {});
        channel.live_prefix(&list)
    };
    assert_eq!(depth("ordinary words, and nothing "), 0);
    assert_eq!(depth("sk-p"), 4);
    assert_eq!(depth("roj-T3Bl"), 12);
    assert_eq!(depth(" no, it was none"), 0);
}

#[test]
fn an_empty_list_finds_nothing() {
    let list = Watchlist::new::<&str>(&[]).unwrap();
    assert!(hits(&list, &[b"anything at all"]).is_empty());
    assert!(Watchlist::new(&["short"]).is_ok_and(|list| hits(&list, &[b"short"]).is_empty()));
}

proptest! {
    /// The secret in any place of any text, in any form, the text in any pieces: it is found, and where the pieces are
    /// cut changes nothing.
    #[test]
    fn where_the_text_is_cut_changes_nothing(
        secret in "[a-zA-Z0-9_-]{16,64}",
        before in ".{0,40}",
        after in ".{0,40}",
        form in 0usize..5,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let written = match form {
            0 => secret.clone(),
            1 => secret.chars().rev().collect(),
            2 => secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
            3 => secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            _ => secret.chars().map(|char| format!("\\u{:04x}", char as u32)).collect(),
        };
        let text = format!("{before} {written} {after}").into_bytes();
        let list = Watchlist::new(&[&secret]).unwrap();
        let whole = hits(&list, &[&text]);
        prop_assert!(!whole.is_empty(), "{}", String::from_utf8_lossy(&text));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        prop_assert_eq!(hits(&list, &pieces), whole);
    }

    #[test]
    fn other_text_is_not_taken_for_a_secret(secret in "[a-zA-Z0-9]{20,48}", text in "[a-zA-Z0-9 .\\\\%&;-]{0,400}") {
        prop_assume!(!text.contains(&secret));
        let list = Watchlist::new(&[&secret]).unwrap();
        prop_assert_eq!(hits(&list, &[text.as_bytes()]), vec![]);
    }
}
