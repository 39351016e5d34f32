use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::request_facts;
use super::*;

const PNG: &str = "iVBORw0KGgo";

fn contents(body: &Value) -> Contents {
    request_facts(body.to_string().as_bytes()).unwrap().contents
}

/// A string of base64 that begins like this and has so many bytes.
fn base64(head: &str, bytes: usize) -> String {
    let mut text = format!("{head}{}", "Ab9+/".repeat(bytes / 5 + 1));
    text.truncate(bytes);
    text
}

/// Checks long runs, images by their head, images in their place, and linked ones.
#[track_caller]
fn check_counts(body: &Value, base64_bytes: u64, images: u32, placed: u32, linked: u32) {
    let found = contents(body);
    let shown = (found.base64_bytes, found.images, found.placed_images, found.linked_images);
    let text = body.to_string();
    assert_eq!(shown, (base64_bytes, images, placed, linked), "{:.300}", text);
    assert_eq!(found.bytes, text.len() as u64);
    assert_eq!(found.text_bytes() + found.base64_bytes + found.image_bytes, found.bytes);
}

/// A message with this part.
fn part(part: Value) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]})
}

#[test]
fn only_a_long_string_of_nothing_but_base64_is_no_text() {
    let check = |text: String, bytes| check_counts(&part(json!({"text": text})), bytes, 0, 0, 0);
    check("a".repeat(1023), 0);
    check("a".repeat(1024), 1024);
    check(format!("{}=", "a".repeat(1023)), 1024);
    check(format!("{}==", "a".repeat(1022)), 1024);
    check(format!("{}===", "a".repeat(1022)), 0);
    check(format!("{}=a", "a".repeat(1022)), 0);
    check("-_".repeat(512), 1024);
    check(format!("data:application/x;name=a;base64,{}", "a".repeat(1024)), 1024);
    check(format!("data:application/x;base64,{}", "a".repeat(1023)), 0);
    for (at, odd) in [(0, " "), (500, "\n"), (1023, "."), (1024, "\"")] {
        let mut text = "a".repeat(1024);
        text.insert_str(at, odd);
        check(text, 0);
    }
    check("é".repeat(1024), 0);
    // Wherever it stands, also where nobody takes it for a message.
    check_counts(&json!({"input": base64("", 2000)}), 2000, 0, 0, 0);
    check_counts(&json!({"metadata": {"x": [base64("", 2000)]}}), 2000, 0, 0, 0);
    check_counts(&json!({"options": {"x": base64("", 2000)}}), 2000, 0, 0, 0);
}

#[test]
fn images_are_told_where_each_provider_takes_them() {
    let url = format!("data:image/png;base64,{}", base64(PNG, 3000));
    let (png, small) = (base64(PNG, 3000), base64("/9j/", 90));
    for body in [
        part(json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}})),
        part(json!({"type": "image_url", "image_url": {"detail": "low", "url": url}})),
        part(json!({"type": "image_url", "image_url": url})),
        part(json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}})),
        part(json!({"type": "image", "source": {"data": png, "media_type": "image/png"}})),
        part(
            json!({"type": "tool_result", "content": [{"source": {"media_type": "image/jpeg", "data": small}}]}),
        ),
        part(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}})),
        json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
        json!({"input": [{"type": "computer_call_output", "output": {"type": "x", "image_url": url}}]}),
        json!({"contents": [{"parts": [{"inlineData": {"data": png, "mimeType": "image/png"}}]}]}),
        json!({"contents": [{"parts": [{"inline_data": {"mime_type": "IMAGE/heic", "data": small}}]}]}),
        json!({"messages": [{"role": "user", "content": "what?", "images": [small]}]}),
        json!({"prompt": "what?", "images": [png]}),
    ] {
        check_counts(&body, 0, 1, 1, 0);
    }
    let found = contents(&part(json!({"image_url": {"url": url}})));
    assert_eq!((found.image_bytes, found.placed_bytes, found.image_tokens), (3000, 3000, 2143));
    let found = contents(&part(
        json!({"image_url": {"url": format!("data:image/png;base64,{}", base64(PNG, 9000))}}),
    ));
    assert_eq!((found.image_bytes, found.image_tokens), (9000, 5000));
}

#[test]
fn an_image_where_text_belongs_is_estimated_as_one_and_bounded_as_text() {
    let png = base64(PNG, 3000);
    for body in [
        part(json!({"type": "text", "text": png})),
        part(
            json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": png}}),
        ),
        part(json!({"source": {"media_type": "image/png", "data": png, "mime_type": "text/plain"}})),
        part(json!({"source": {"data": png, "x": {}, "media_type": "image/png"}})),
        part(json!({"type": "tool_use", "input": {"media_type": "image/png", "data": png}})),
        part(
            json!({"type": "tool_use", "input": {"image_url": {"url": format!("data:image/png;base64,{png}")}}}),
        ),
        part(json!({"functionCall": {"args": [{"a": {"images": [png]}}]}})),
        part(json!({"functionResponse": {"response": {"images": [png]}}})),
        json!({"tools": [{"input_schema": {"media_type": "image/png", "data": png}}]}),
        json!({"metadata": {"images": [png]}}),
        json!({"prompt": png}),
    ] {
        check_counts(&body, 0, 1, 0, 0);
        assert_eq!(contents(&body).doubtful_images, 1, "{body:.300}");
    }
    // What follows such a place counts again.
    let after = json!([{"input": {"data": [[{}]]}}, {"image_url": format!("data:image/gif;base64,{png}")}]);
    check_counts(&json!({"messages": after}), 0, 1, 1, 0);
}

#[test]
fn keys_and_values_may_be_spelled_with_escapes() {
    let png = base64(PNG, 3000);
    let check = |text: String, placed: u32| {
        let found = request_facts(text.as_bytes()).unwrap().contents;
        assert_eq!(found.placed_images, placed, "{text:.100}");
    };
    check(format!(r#"{{"messages":[{{"im\u0061ge_url":"data:image\/png;base64,{png}"}}]}}"#), 1);
    check(format!(r#"{{"m\u0065ssages":[{{"d\u0061ta":"{png}","mime_type":"\u0069mage/png"}}]}}"#), 1);
    check(format!(r#"{{"messages":[{{"inp\u0075t":{{"data":"{png}","mime_type":"image/png"}}}}]}}"#), 0);
    // Two of one key, and a provider may take either.
    check(format!(r#"{{"messages":[{{"data":"{png}","mime_type":"image/png","data":"x"}}]}}"#), 0);
    check(format!(r#"{{"messages":[{{"mime_type":"image/png","data":"{png}","mime_type":"a/b"}}]}}"#), 0);
    let linked = request_facts(br#"{"messages":[{"image_url":"\u0068ttps:\/\/x"}]}"#).unwrap().contents;
    assert_eq!(linked.linked_images, 1);
    let pdf = br#"{"messages":[{"source":{"bytes":"JVB\u0045Ri0x"}}]}"#;
    assert!(request_facts(pdf).unwrap().contents.is_unbounded);
}

#[test]
fn an_image_may_be_given_by_its_address() {
    let check = |body: Value, linked, is_unbounded| {
        check_counts(&body, 0, 0, 0, linked);
        assert_eq!(contents(&body).is_unbounded, is_unbounded, "{body}");
    };
    check(part(json!({"type": "image_url", "image_url": {"url": "https://a.example/x.png"}})), 1, false);
    check(part(json!({"type": "image_url", "image_url": "HTTP://a.example/x.png"})), 1, false);
    check(part(json!({"type": "image", "source": {"type": "url", "url": "https://a.example"}})), 1, true);
    check(json!({"contents": [{"parts": [{"fileData": {"fileUri": "https://a.example"}}]}]}), 1, true);
    check(json!({"contents": [{"parts": [{"file_data": {"file_uri": "gs://bucket/x"}}]}]}), 0, true);
    check(part(json!({"type": "input_file", "file_id": "file-1"})), 0, true);
    check(part(json!({"type": "video_url", "video_url": {"url": "https://a.example"}})), 0, true);
    // An address that the model reads as text.
    check(part(json!({"type": "tool_use", "input": {"url": "https://a.example"}})), 0, false);
    check(part(json!({"type": "web_search_result", "url": "https://a.example"})), 0, false);
    check(part(json!({"url_citation": {"url": "https://a.example"}})), 0, false);
    check(json!({"mcp_servers": [{"type": "url", "url": "https://a.example"}]}), 0, false);
    check(part(json!({"type": "text", "text": "https://a.example"})), 0, false);
}

#[test]
fn what_the_provider_has_or_unpacks_is_bounded_by_nothing_here() {
    let check = |body: Value, is_unbounded| assert_eq!(contents(&body).is_unbounded, is_unbounded, "{body}");
    check(json!({"previous_response_id": "resp_1", "input": "go on"}), true);
    check(json!({"previous_response_id": null, "input": "hi"}), false);
    check(json!({"conversation": {"id": "c"}}), true);
    check(json!({"prompt": {"id": "p"}}), true);
    check(json!({"prompt": "text"}), false);
    check(json!({"cachedContent": "cachedContents/1", "contents": []}), true);
    check(json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), true);
    check(part(json!({"source": {"media_type": "application/pdf", "data": "JVBERi0xLjc="}})), true);
    check(part(json!({"document": {"format": "docx", "source": {"bytes": "UEsDBBQA"}}})), true);
    check(part(json!({"file": {"file_data": "data:application/pdf;base64,JVBERi0x"}})), true);
    check(part(json!({"file": {"url": "data:application/pdf;base64\\u002cx"}})), true);
    check(part(json!({"inlineData": {"data": "AAAA", "mimeType": "video/mp4"}})), true);
    check(part(json!({"inlineData": {"mimeType": "audio/ogg", "data": "AAAA"}})), true);
    check(part(json!({"input_audio": {"data": "AAAA", "format": "mp3"}})), false);
    check(part(json!({"source": {"type": "text", "media_type": "text/plain", "data": "hi"}})), false);
    check(json!({"metadata": {"conversation": "x", "file_id": "x"}}), false);
}

const MEDIA_TYPES: [&str; 3] = ["media_type", "mime_type", "mimeType"];
const LINKS: [&str; 4] = ["image_url", "file_uri", "fileUri", "file_id"];
const FILES: [&str; 8] =
    ["file_id", "file_uri", "fileUri", "file_url", "file_data", "document_url", "video_url", "audio_url"];

/// The same by a tree and by recursion, as slowly as it pleases.
#[derive(Default)]
struct Oracle {
    found: Contents,
}

#[derive(Clone, Copy)]
enum Under<'a> {
    Key(&'a str),
    List,
    Unknown,
}

impl Oracle {
    fn of(body: &Map<String, Value>) -> Contents {
        let mut oracle = Self::default();
        for (key, value) in body {
            let is_message = MESSAGES.contains(&key.as_str());
            oracle.found.is_unbounded |=
                STORED.contains(&key.as_str()) && !value.is_null() && (key != "prompt" || value.is_object());
            oracle.value(value, Some(key), Under::Unknown, is_message, is_message);
        }
        oracle.found
    }

    fn value(&mut self, value: &Value, key: Option<&str>, under: Under<'_>, is_message: bool, counts: bool) {
        let own = key.map_or(Under::List, Under::Key);
        match value {
            Value::Array(list) => {
                let mut under = own;
                for value in list {
                    self.value(value, None, under, is_message, counts && !opens_opaque(None, value));
                    under = if is_container(value) { Under::Unknown } else { under };
                }
            }
            Value::Object(members) => self.members(members, own, is_message, counts),
            Value::String(text) => self.string(text, key, under, is_message, counts),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn members(&mut self, members: &Map<String, Value>, own: Under<'_>, is_message: bool, counts: bool) {
        let members: Vec<_> = members.iter().collect();
        let mut under = own;
        // Data and their type belong together when nothing opens between them.
        for group in members.chunk_by(|(_, a), (_, b)| !is_container(a) && !is_container(b)) {
            let types = || group.iter().filter(|(key, _)| MEDIA_TYPES.contains(&key.as_str()));
            let is =
                |kind: &str| types().filter_map(|(_, value)| value.as_str()).all(|text| starts(text, kind));
            let texts = types().filter(|(_, value)| value.is_string()).count();
            let (is_image, is_text) = (texts > 0 && is("image/"), is("text/"));
            for (key, value) in group {
                match value.as_str() {
                    Some(text) if counts && *key == "data" => {
                        self.document(text, is_message);
                        self.found.is_unbounded |= texts > 0 && !is_image && !is_text;
                        self.count(text, is_image);
                    }
                    _ => self.value(
                        value,
                        Some(key),
                        under,
                        is_message,
                        counts && !opens_opaque(Some(key), value),
                    ),
                }
                under = if is_container(value) { Under::Unknown } else { under };
            }
        }
    }

    fn string(&mut self, text: &str, key: Option<&str>, under: Under<'_>, is_message: bool, counts: bool) {
        self.document(text, is_message);
        if !counts {
            return self.count(text, false);
        }
        let Some(key) = key else {
            return self.count(text, is_like_image(text) && matches!(under, Under::Key("images")));
        };
        self.found.is_unbounded |= FILES.contains(&key) || key == "type" && text == "item_reference";
        let is_address = key == "url" || LINKS.contains(&key) || FILES.contains(&key);
        if is_address && starts(text, "http") {
            let (is_image, is_unbounded) = match (key, under) {
                (key, _) if LINKS.contains(&key) => (true, false),
                ("url", Under::Key("source") | Under::Unknown) => (true, true),
                ("url", Under::Key(object)) => (object == "image_url", FILES.contains(&object)),
                _ => (false, false),
            };
            self.found.linked_images += u32::from(is_image);
            self.found.is_unbounded |= is_unbounded;
            return;
        }
        let is_place = key == "image_url" || key == "url" && matches!(under, Under::Key("image_url"));
        self.count(text, is_place && starts(text, "data:image/"));
    }

    fn document(&mut self, text: &str, is_message: bool) {
        let is_head = DOCUMENT_HEADS.iter().any(|head| payload_of(text).starts_with(head));
        let is_other = starts(text, "data:") && !starts(text, "data:image/") && !starts(text, "data:text/");
        self.found.is_unbounded |= is_message && (is_head || is_other);
    }

    fn count(&mut self, text: &str, is_placed: bool) {
        let payload = payload_of(text);
        let letters = payload.trim_end_matches('=');
        let is_base64 = payload.len() >= 1024
            && payload.len() - letters.len() <= 2
            && letters.chars().all(|char| char.is_ascii_alphanumeric() || "+/-_".contains(char));
        let is_head = is_like_image(text);
        // As it is spelled in the body.
        let spelled = Value::from(payload).to_string().len() as u64 - 2;
        let found = &mut self.found;
        if is_placed || is_base64 && is_head {
            found.images += 1;
            found.image_bytes += spelled;
            found.image_tokens += (spelled * 5).div_ceil(7).min(5000);
        } else if is_base64 {
            found.base64_bytes += spelled;
        }
        found.placed_images += u32::from(is_placed);
        found.doubtful_images += u32::from(is_head && !is_placed);
        found.placed_bytes += if is_placed { spelled } else { 0 };
    }
}

fn is_like_image(text: &str) -> bool {
    starts(text, "data:image/") || IMAGE_HEADS.iter().any(|head| payload_of(text).starts_with(head))
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

fn opens_opaque(key: Option<&str>, value: &Value) -> bool {
    is_container(value) && key.is_some_and(|key| OPAQUE.contains(&key))
}

fn starts(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn payload_of(text: &str) -> &str {
    let head = &text[..text.floor_char_boundary(128)];
    match head.find(";base64,") {
        Some(at) if starts(text, "data:") => &text[at + 8..],
        _ => text,
    }
}

/// Values in which everything that matters is likely.
fn value() -> impl Strategy<Value = Value> {
    let head = prop::sample::select(vec![
        "",
        "data:image/png;base64,",
        "data:x/y;base64,",
        "data:image/png,",
        "http",
    ]);
    let inner = prop::sample::select(vec![
        "",
        PNG,
        "/9j/",
        "R0lGOD",
        "UklGR",
        "JVBERi",
        "UEsDB",
        "0M8R4KG",
        "https://x",
        "item_reference",
    ]);
    let fill = prop_oneof![Just(0usize), 1000usize..1100, 3000usize..9000];
    let tail = prop::sample::select(vec!["", "=", "==", "===", " ", "\"", "é"]);
    let text = (head, inner, fill, tail).prop_map(|(head, inner, fill, tail)| {
        Value::from(format!("{head}{}{tail}", base64(inner, fill.max(inner.len()))))
    });
    let media = prop::sample::select(vec![
        "image/png",
        "IMAGE/gif",
        "text/plain",
        "video/mp4",
        "item_reference",
        "hi",
    ])
    .prop_map(Value::from);
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), text, media];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let members = proptest::collection::vec((key(), inner.clone()), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..5).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "content",
        "url",
        "image_url",
        "source",
        "data",
        "media_type",
        "mimeType",
        "images",
        "input",
        "args",
        "text",
        "response",
        "document",
        "fileUri",
        "file_id",
        "video_url",
        "type",
    ])
    .prop_map(str::to_owned)
}

fn body() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop::sample::select(vec![
        "messages",
        "messages",
        "input",
        "contents",
        "images",
        "prompt",
        "conversation",
        "tools",
        "metadata",
    ]);
    proptest::collection::vec((key.prop_map(str::to_owned), value()), 0..5)
        .prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn one_pass_finds_what_a_tree_holds(body in body(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let expected = Contents { bytes: text.len() as u64, ..Oracle::of(&body) };
        let found = request_facts(text.as_bytes()).unwrap().contents;
        prop_assert_eq!(found, expected);
        prop_assert_eq!(found.text_bytes() + found.base64_bytes + found.image_bytes, found.bytes);
        prop_assert!(found.placed_bytes <= found.image_bytes && found.placed_images <= found.images);
        // What cannot be undercut is never below what is likely, but for the images that nobody takes for one.
        if let Some(bound) = crate::meter::input_upper_bound(&found, None) {
            prop_assert!(bound >= crate::meter::estimate_contents(&found));
        }
    }

    #[test]
    fn base64_is_told_by_its_letters(text in "[A-Za-z0-9+/_-]{0,200}", at in 0usize..200, odd in any::<u8>()) {
        let mut bytes = text.into_bytes();
        prop_assert!(is_base64(&bytes));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = odd;
        }
        let unpadded = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(&bytes);
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        prop_assert_eq!(is_base64(&bytes), unpadded.iter().all(is_letter));
    }
}
