use super::*;
use proptest::prelude::*;

const KEY: &str = "sk-proj-T3BlbkFJ0123456789abcdefghijKLMNOPQRSTUV";

fn hits(list: &Watchlist, pieces: &[&[u8]]) -> Vec<Hit> {
    let (mut channel, mut hits) = (Channel::default(), Vec::new());
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
    check_found(&KEY.to_uppercase(), View::Plain, Form::Plain);
    check_found(&KEY[..40], View::Plain, Form::Part);
    check_found(&KEY.chars().rev().collect::<String>(), View::Plain, Form::Reversed);
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    check_found(&hex, View::Plain, Form::Hex);
    check_found(&hex.to_uppercase(), View::Plain, Form::Hex);
    let spaced: String = KEY.bytes().map(|byte| format!("{byte:02X}:")).collect();
    check_found(&spaced, View::Plain, Form::Hex);
    let escaped: String = KEY.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    check_found(&escaped, View::Escaped, Form::Plain);
    let escaped: String = KEY.chars().map(|char| format!("\\u{:04x}", char as u32)).collect();
    check_found(&escaped, View::Escaped, Form::Plain);
    let percent: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    check_found(&percent, View::Percent, Form::Plain);
    let html: String = KEY.bytes().map(|byte| format!("&#{byte};")).collect();
    check_found(&html, View::Html, Form::Plain);
    let apart: String = KEY.chars().map(|char| format!("{char}\u{200b} ")).collect();
    check_found(&apart, View::Plain, Form::Plain);
    let wide: String = KEY.chars().filter_map(|char| char::from_u32(char as u32 + 0xfee0)).collect();
    check_found(&wide, View::Plain, Form::Plain);
}

#[test]
fn a_long_secret_is_found_by_its_parts_and_its_end() {
    let long: String = (0..2_000u32).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
    let list = Watchlist::new(&[&long]).unwrap();
    for text in [&long[..], &long[..300], &long[1_800..]] {
        assert!(!hits(&list, &[text.as_bytes()]).is_empty());
    }
}

/// Whatever its length: by its beginning, its middle or its end.
#[test]
fn a_secret_is_found_by_twenty_four_of_its_characters() {
    for length in [25, 26, 32, 38, 40, 48] {
        let key = &KEY[..length];
        let list = Watchlist::new(&[key]).unwrap();
        let middle = (length - 24) / 2;
        for start in [0, middle, length - 24] {
            let text = format!("it is .{}. and no more", &key[start..start + 24]);
            assert!(!hits(&list, &[text.as_bytes()]).is_empty(), "{text}");
        }
    }
}

#[test]
fn the_tail_tells_whether_a_secret_may_be_coming() {
    let list = Watchlist::new(&[KEY]).unwrap();
    let mut channel = Channel::default();
    let mut tail = |text: &str| {
        channel.feed(&list, text.as_bytes(), |_| {});
        channel.tail(&list)
    };
    assert_eq!(tail("ordinary words, and nothing "), Tail::default());
    assert_eq!(tail("sk-p"), Tail { letters: 3, bytes: 4 });
    let live = tail("roj-T3Bl");
    assert!(live == Tail { letters: 10, bytes: 12 } && live.is_live() && !live.is_telling());
    assert!(tail("bkFJ").is_telling());
    assert!(!tail(" no, it was none").is_live());
}

#[test]
fn what_is_masked_is_what_was_found_and_no_more() {
    let list = Watchlist::new(&[KEY]).unwrap();
    let mask = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        let hits = list.mask(&mut bytes);
        (String::from_utf8(bytes).unwrap(), hits.is_empty())
    };
    assert_eq!(mask("nothing here"), ("nothing here".to_owned(), true));
    let stars = "*".repeat(KEY.len());
    assert_eq!(mask(&format!("key=\"{KEY}\", and {KEY}")), (format!("key=\"{stars}\", and {stars}"), false));
    let (masked, _) = mask(&format!("a %73{}!", &KEY[1..]));
    assert_eq!(masked, format!("a {}!", "*".repeat(KEY.len() + 2)));
}

#[test]
fn what_is_no_secret_is_not_looked_for() {
    assert!(hits(&Watchlist::new::<&str>(&[]).unwrap(), &[b"anything at all"]).is_empty());
    for text in ["short", "sk-xxxxxxxxxxxxxxxxxxxxxxxx", "- - - -.-.-.-.- _ - - - a b c"] {
        assert!(!Watchlist::can_watch(text.as_bytes()), "{text}");
        assert!(hits(&Watchlist::new(&[text]).unwrap(), &[text.as_bytes()]).is_empty());
    }
    assert!(matches!(Watchlist::new(&[KEY; SECRETS_MAX + 1]), Err(WatchlistError::TooMany(_))));
}

/// A text in one of the listed encodings.
fn encoded(secret: &str, form: usize) -> String {
    match form {
        0 => secret.to_owned(),
        1 => secret.chars().rev().collect(),
        2 => secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        3 => secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        4 => secret.bytes().map(|byte| format!("&#x{byte:x};")).collect(),
        5 => secret.chars().map(|char| format!("{char}\u{2060}")).collect(),
        _ => secret.chars().map(|char| format!("\\u{:04x}", char as u32)).collect(),
    }
}

#[test]
fn a_secret_is_found_once_whatever_separates_it_from_the_next_text() {
    let list = Watchlist::new(&["sk-proj-0123456789abcdefXYZ"]).unwrap();
    let found = hits(&list, &[b"sk-proj-0123456789abcdefXYZ - \"\", ", b" .. \\n"]);
    let whole = found.iter().filter(|hit| (hit.view, hit.form) == (View::Plain, Form::Plain)).count();
    assert_eq!(whole, 1, "{found:?}");
}

proptest! {
    /// The secret in any place of any text, in any form, the text in any pieces: it is found, and where the pieces are
    /// cut changes nothing.
    #[test]
    fn where_the_text_is_cut_changes_nothing(
        secret in "[a-zA-Z0-9_-]{20,64}",
        before in ".{0,40}",
        after in ".{0,40}",
        form in 0usize..7,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        prop_assume!(Watchlist::can_watch(secret.as_bytes()));
        let text = format!("{before} {} {after}", encoded(&secret, form)).into_bytes();
        let list = Watchlist::new(&[&secret]).unwrap();
        let whole = hits(&list, &[&text]);
        prop_assert!(!whole.is_empty(), "{}", String::from_utf8_lossy(&text));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        prop_assert_eq!(hits(&list, &pieces), whole);
    }

    /// Views that part from the plain one and join it again find what they would find alone.
    #[test]
    fn joined_views_see_what_each_sees_alone(text in "[ab1 \\\\%&#;xué-]{0,80}") {
        let list = Watchlist::new(&["ab1ab1a1b1a1bbaa-cdefgh"]).unwrap();
        let mut joined = Channel::default();
        joined.feed(&list, text.as_bytes(), |_| {});
        for view in View::ALL {
            let (mut lens, mut squash, mut state) = (Lens::default(), Squash::default(), State::default());
            for byte in text.bytes() {
                lens.look(view, byte, |byte| if let Some(letter) = squash.look(byte) {
                    state = list.table.next(state, letter);
                });
            }
            prop_assert!(joined.tail(&list).letters >= list.tail(state).letters, "{:?} {}", view, text);
        }
    }

    /// Passing a text in blocks, each in four parts, changes nothing of what is found and of how it ends.
    #[test]
    fn long_texts_are_passed_as_byte_by_byte(
        words in proptest::collection::vec("[a-z0-9]{1,9}[ .,-]{1,2}|ab1ab1a1b1a1bbaa[ -]|ab1ab1a1b1a1bb|bbaa1b|[%\\\\é]", 0..500),
        before in 0usize..30,
    ) {
        let secret = "ab1ab1a1b1a1bbaa-cdefgh";
        let list = Watchlist::new(&[secret, "cdefghijklmnop0123"]).unwrap();
        let (text, plain) = (words.concat(), words.concat().replace(['%', '\\', 'é'], ""));
        for text in [format!("{}{text}", &secret[..before.min(secret.len())]), format!("{plain}{secret}{plain}")] {
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(hits(&list, &[text.as_bytes()]), hits(&list, &single));
            let (mut whole, mut apart) = (Channel::default(), Channel::default());
            whole.feed(&list, text.as_bytes(), |_| {});
            single.iter().for_each(|byte| apart.feed(&list, byte, |_| {}));
            prop_assert_eq!(whole.tail(&list), apart.tail(&list));
            prop_assert_eq!(whole.seen(), apart.seen());
        }
    }

    /// Looking at the end of a text is enough to know where its last letters begin.
    #[test]
    fn the_last_letters_begin_where_they_begin_in_the_whole_text(
        text in "([ab1]|[ \\\\%&#;xué0-]|&#[0]{0,40}65;|\\\\u0041|%41|\\\\{1,40}|[a-z0]{30}){0,60}",
        letters in 0usize..20,
    ) {
        for view in View::ALL {
            let starts = Watchlist::starts(text.as_bytes(), view);
            let expected = starts.len().checked_sub(letters).and_then(|at| starts.get(at)).copied();
            prop_assert_eq!(Watchlist::start_in(text.as_bytes(), view, letters), expected.unwrap_or(0), "{:?}", view);
        }
    }

    #[test]
    fn other_text_is_not_taken_for_a_secret(secret in "[a-zA-Z0-9]{20,48}", text in "[a-zA-Z0-9 .\\\\%&;-]{0,400}") {
        prop_assume!(!text.contains(&secret));
        let list = Watchlist::new(&[&secret]).unwrap();
        prop_assert_eq!(hits(&list, &[text.as_bytes()]), vec![]);
    }

    /// After masking nothing is left to be found, and nothing has become longer.
    #[test]
    fn masked_text_holds_no_secret(
        secret in "[a-zA-Z0-9_-]{20,64}",
        // A backslash at its end would take the meaning from the escape after it.
        before in "([ -~]{0,29}[ -\\[\\]-~])?",
        form in 0usize..7,
    ) {
        prop_assume!(Watchlist::can_watch(secret.as_bytes()));
        let list = Watchlist::new(&[&secret]).unwrap();
        // A backslash right before an escape would make it another one.
        let text = format!("{before} {} {before}", encoded(&secret, form)).into_bytes();
        let mut masked = text.clone();
        prop_assert!(!list.mask(&mut masked).is_empty());
        prop_assert_eq!(masked.len(), text.len());
        prop_assert_eq!(hits(&list, &[&masked]), vec![]);
    }
}
