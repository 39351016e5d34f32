use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

#[track_caller]
fn check_fault(body: impl AsRef<[u8]>, fault: RequestFault) {
    assert_eq!(request_facts(body.as_ref()), Err(fault), "{}", String::from_utf8_lossy(body.as_ref()));
}

#[track_caller]
fn check_syntax_fault(body: &str) {
    let fault = request_facts(body.as_bytes());
    assert!(matches!(fault, Err(RequestFault::Syntax(_))), "{body}: {fault:?}");
}

#[track_caller]
fn check_wrong_value(body: &str, field: &'static str) {
    let fault = request_facts(body.as_bytes());
    assert!(
        matches!(fault, Err(RequestFault::WrongValue { field: named, .. }) if named == field),
        "{body}: {fault:?}"
    );
}

#[track_caller]
fn facts(body: &str) -> RequestFacts {
    request_facts(body.as_bytes()).unwrap()
}

#[test]
fn the_fields_of_each_provider_are_taken() {
    let openai = facts(
        r#" {"model":"gpt-4o","stream":true,"n":2,"max_completion_tokens":5,
            "stream_options":{"include_usage":true},"messages":[{"role":"user","content":"{\"model\":1}"}]} "#,
    );
    assert_eq!(openai.model.as_deref(), Some("gpt-4o"));
    assert_eq!((openai.stream, openai.answers, openai.max_output_tokens()), (Some(true), 2, Some(5)));
    assert!(openai.includes_usage());

    let gemini = facts(r#"{"generationConfig":{"maxOutputTokens":7,"candidateCount":3}}"#);
    assert_eq!((gemini.model.as_deref(), gemini.stream), (None, None));
    assert_eq!((gemini.max_output_tokens(), gemini.answers), (Some(7), 3));

    let ollama = facts(r#"{"model":"llama3","options":{"num_predict":-1}}"#);
    assert_eq!((ollama.max_output_tokens(), ollama.output_limits.len()), (None, 1));
}

#[test]
fn the_greatest_of_several_limits_counts() {
    assert_eq!(facts(r#"{"max_tokens":1,"max_completion_tokens":2}"#).max_output_tokens(), Some(2));
    assert_eq!(facts(r#"{"max_tokens":null}"#).max_output_tokens(), None);
    assert_eq!(facts(r#"{"max_tokens":0}"#).max_output_tokens(), Some(0));
    assert_eq!(facts(r#"{"n":1,"best_of":4}"#).answers, 4);
    assert_eq!(facts(r#"{"prompt":["a","b","c"],"n":2}"#).answers, 6);
    assert_eq!(facts(r#"{"n":2,"prompt":[[1,2],[3]]}"#).answers, 4);
    for one in [r#"[1,2,3]"#, r#""a""#, "[]", "null", r#"{"id":"p"}"#, r#"["a"]"#] {
        assert_eq!(facts(&format!(r#"{{"prompt":{one}}}"#)).answers, 1, "{one}");
    }
    assert!(facts(r#"{"prompt":{"id":"p"}}"#).contents.is_unbounded);
    assert!(facts(r#"{"background":true}"#).is_background && !facts(r#"{"background":null}"#).is_background);
    assert!(facts(r#"{"options":{"num_predict":0}}"#).has_unlimited_output());
    assert!(!facts(r#"{"max_tokens":0}"#).has_unlimited_output());
    let asked = facts(r#"{"max_tokens":7,"max_output_tokens":9}"#);
    assert_eq!(asked.longest_answer(&[LimitField::MaxTokens, LimitField::NumPredict]), Some(7));
    assert_eq!(asked.longest_answer(&[LimitField::MaxCompletionTokens]), None);
}

#[test]
fn escapes_spell_the_same_key_and_the_same_model() {
    assert_eq!(facts(r#"{"mod\u0065l":"a\u002fb \ud83d\ude00"}"#).model.as_deref(), Some("a/b 😀"));
    check_fault(r#"{"model":"a","mod\u0065l":"b"}"#, RequestFault::DuplicateKey(13));
    check_fault(r#"{"stream_options":{"x":1,"\u0078":2}}"#, RequestFault::DuplicateKey(25));
    check_fault(r#"{"unknown":1,"unknown":2}"#, RequestFault::DuplicateKey(13));
}

#[test]
fn two_spellings_of_one_gemini_field_are_a_duplicate() {
    let twice = r#"{"generationConfig":{"maxOutputTokens":1},"generation_config":{"max_output_tokens":9}}"#;
    assert!(matches!(request_facts(twice.as_bytes()), Err(RequestFault::DuplicateKey(_))));
    let inside = r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#;
    assert!(matches!(request_facts(inside.as_bytes()), Err(RequestFault::DuplicateKey(_))));
}

#[test]
fn a_key_that_differs_only_in_case_is_refused() {
    check_fault(r#"{"Model":"a"}"#, RequestFault::AmbiguousKey("model"));
    check_fault(r#"{"model":"a","MODEL":"b"}"#, RequestFault::AmbiguousKey("model"));
    check_fault(r#"{"ſtream":true}"#, RequestFault::AmbiguousKey("stream"));
    check_fault("{\"max_to\u{212a}ens\":1}", RequestFault::AmbiguousKey("max_tokens"));
    check_fault(
        r#"{"generationConfig":{"MaxOutputTokens":1}}"#,
        RequestFault::AmbiguousKey("maxOutputTokens"),
    );
}

#[test]
fn numbers_that_are_no_plain_counts_are_refused() {
    for value in ["-1", "-0", "1.0", "1e3", "2147483648", "1e308", "\"5\"", "true", "[]", "{}"] {
        // -0 is the one of these that an integer parser takes; it is zero for everybody.
        if value != "-0" {
            check_wrong_value(&format!(r#"{{"max_tokens":{value}}}"#), "max_tokens");
        }
    }
    check_wrong_value(r#"{"generationConfig":{"maxOutputTokens":-5}}"#, "generationConfig.maxOutputTokens");
    check_wrong_value(r#"{"options":{"num_predict":-3}}"#, "options.num_predict");
    check_wrong_value(r#"{"n":129}"#, "n");
    check_wrong_value(r#"{"best_of":-1}"#, "best_of");
    check_wrong_value(r#"{"model":7}"#, "model");
    check_wrong_value(r#"{"stream":"true"}"#, "stream");
    check_wrong_value(r#"{"stream_options":{"include_usage":1}}"#, "stream_options.include_usage");
}

#[test]
fn only_one_strict_object_is_a_body() {
    check_fault(b"{\"a\":\"\xff\"}", RequestFault::NotUtf8(6));
    check_fault("\u{feff}{}", RequestFault::ByteOrderMark);
    check_fault("[]", RequestFault::NotAnObject);
    check_fault("{} x", RequestFault::TrailingData(3));
    check_fault("{}{}", RequestFault::TrailingData(2));
    for body in [
        "",
        " ",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":tru}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"",
        "{\"a\":[1,]}",
        "{\"a\":[,]}",
        "{\"a\":[1}",
        "{\"a\":{\"b\":1]}",
        "{\"a\":1e999}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":/**/1}",
    ] {
        check_syntax_fault(body);
    }
}

#[test]
fn nesting_ends_at_its_limit() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(request_facts(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
    check_fault(nested(DEPTH_MAX), RequestFault::TooDeep(5 + DEPTH_MAX - 1));
    check_fault(nested(1_000_000), RequestFault::TooDeep(5 + DEPTH_MAX - 1));
}

#[test]
fn keys_end_at_their_limit() {
    let body = |keys: usize| {
        let members: Vec<_> = (0..keys).map(|key| format!("\"k{key}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(request_facts(body(KEYS_MAX).as_bytes()).is_ok());
    assert!(matches!(request_facts(body(KEYS_MAX + 1).as_bytes()), Err(RequestFault::TooManyKeys(_))));
}

#[test]
fn messages_never_repeat_the_body() {
    for body in ["{\"secret\":1,\"secret\":2}", "{\"a\":secret}", "{\"MODEL\":\"secret\"}", "secret"] {
        let message = request_facts(body.as_bytes()).unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(".{0,8}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Bodies with the keys that matter, in any order, with any values.
fn body() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof![
        Just("model".to_owned()),
        Just("stream".to_owned()),
        Just("max_tokens".to_owned()),
        Just("n".to_owned()),
        Just("generationConfig".to_owned()),
        Just("stream_options".to_owned()),
        ".{0,8}",
    ];
    let member = prop_oneof![value(), (0u32..200).prop_map(Value::from), any::<bool>().prop_map(Value::from)];
    proptest::collection::vec((key, member), 0..12).prop_map(|members| members.into_iter().collect())
}

#[track_caller]
fn agrees_with_serde(body: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(facts) = request_facts(body) {
        let value: Value =
            serde_json::from_slice(body).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(facts.model.as_deref(), value["model"].as_str());
        prop_assert_eq!(facts.stream, value["stream"].as_bool());
        let limits = [&value["max_tokens"], &value["max_completion_tokens"], &value["max_output_tokens"]];
        let camel = &value["generationConfig"]["maxOutputTokens"];
        let snake = &value["generationConfig"]["max_output_tokens"];
        let limit = limits.into_iter().chain([camel, snake]).filter_map(Value::as_u64).max();
        prop_assert_eq!(facts.max_output_tokens().map(u64::from), limit);
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_accepted_means_the_same_to_serde(body in body(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
        agrees_with_serde(text.unwrap().as_bytes())?;
    }

    #[test]
    fn ordinary_bodies_are_accepted(value in value()) {
        let body = serde_json::json!({"model": "m", "max_tokens": 5, "messages": value}).to_string();
        prop_assert_eq!(request_facts(body.as_bytes()).unwrap().max_output_tokens(), Some(5));
    }

    #[test]
    fn damaged_bodies_never_mean_something_else(body in body(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut text = serde_json::to_vec(&body).unwrap();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        agrees_with_serde(&text)?;
    }

    #[test]
    fn no_bytes_can_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        agrees_with_serde(&body)?;
    }

    #[test]
    fn json_like_noise_cannot_panic(body in "[{}\\[\\]\",:\\\\a-fu0-9.eE+ -]{0,60}") {
        agrees_with_serde(body.as_bytes())?;
        agrees_with_serde(format!("{{\"a\":{body}}}").as_bytes())?;
    }

    #[test]
    fn duplicates_are_always_refused(body in body(), key in "[a-z_]{1,12}", escaped in any::<prop::sample::Index>()) {
        let at = escaped.index(key.len());
        let spelled = format!("{}\\u{:04x}{}", &key[..at], key.as_bytes()[at], &key[at + 1..]);
        let others: String = body.iter().map(|(key, value)| format!(",{}:{value}", Value::from(key.as_str()))).collect();
        let text = format!("{{\"{key}\":null{others},\"{spelled}\":null}}");
        prop_assert!(request_facts(text.as_bytes()).is_err());
    }
}
