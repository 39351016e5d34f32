//! The two changes the gateway makes to a request body, as splices: all other bytes stay as the caller sent them.

use std::ops::Range;

use super::request::{LimitField, Members, Nested, OutputLimit, RequestFacts};

/// The body with `stream_options.include_usage` set, so that a stream in OpenAI's chat or completions format ends
/// with its usage; none if it is no stream or asks already. [`super::HideUsage`] keeps the answer as it would have been.
///
/// `facts` must come from the same body.
pub fn inject_include_usage(body: &[u8], facts: &RequestFacts) -> Option<Vec<u8>> {
    if facts.stream != Some(true) || facts.includes_usage() {
        return None;
    }
    let edit = match &facts.include_usage {
        Some((_, span)) => (span.clone(), "true".to_owned()),
        None => put(facts.members, "stream_options", &facts.stream_options, r#""include_usage":true"#)?,
    };
    splice(body, &[edit])
}

/// The body with every limit on the answer's length lowered to `tokens`. `fields` are the names that count to its
/// provider; where there is nothing under them, a limit is put in under the first. None if no limit is greater, or there
/// is no object to put it into.
///
/// `facts` must come from the same body.
pub fn limit_output(
    body: &[u8],
    facts: &RequestFacts,
    fields: &[LimitField],
    tokens: u32,
) -> Option<Vec<u8>> {
    let first = *fields.first()?;
    // A `null` under another name may stay, and the name itself may be one that the model refuses.
    let counts = |limit: &OutputLimit| limit.tokens.is_some() || limit.field == first;
    let limits = || facts.output_limits.iter().filter(|limit| counts(limit));
    let greater = limits().filter(|limit| limit.tokens.is_none_or(|limit| limit > tokens));
    let mut edits: Vec<_> = greater.map(|limit| (limit.span.clone(), tokens.to_string())).collect();
    if !limits().any(|limit| fields.contains(&limit.field)) {
        edits.push(limit_insertion(facts, first, tokens)?);
    }
    edits.sort_by_key(|(place, _)| place.start);
    if edits.is_empty() { None } else { splice(body, &edits) }
}

fn limit_insertion(facts: &RequestFacts, field: LimitField, tokens: u32) -> Option<(Range<usize>, String)> {
    match field {
        LimitField::MaxTokens | LimitField::MaxCompletionTokens | LimitField::MaxOutputTokens => {
            Some(insertion(facts.members, &format!(r#""{}":{tokens}"#, field.name())))
        }
        LimitField::GenerationConfig => {
            let member = format!(r#""maxOutputTokens":{tokens}"#);
            put(facts.members, "generationConfig", &facts.generation_config, &member)
        }
        LimitField::NumPredict => {
            put(facts.members, "options", &facts.options, &format!(r#""num_predict":{tokens}"#))
        }
    }
}

/// A member put into an object of the body, which is made if need be.
fn put(body: Members, key: &str, object: &Nested, member: &str) -> Option<(Range<usize>, String)> {
    match object {
        Nested::Absent => Some(insertion(body, &format!(r#""{key}":{{{member}}}"#))),
        Nested::Null(span) => Some((span.clone(), format!("{{{member}}}"))),
        Nested::Object(members) => Some(insertion(*members, member)),
        Nested::Other => None,
    }
}

/// A member put before the first one of an object.
fn insertion(members: Members, member: &str) -> (Range<usize>, String) {
    let comma = if members.is_empty { "" } else { "," };
    (members.start..members.start, format!("{member}{comma}"))
}

/// Replaces places in ascending order; none if one is not in the body.
fn splice(body: &[u8], edits: &[(Range<usize>, String)]) -> Option<Vec<u8>> {
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut done = 0;
    for (place, text) in edits {
        out.extend_from_slice(body.get(done..place.start)?);
        out.extend_from_slice(text.as_bytes());
        done = place.end;
    }
    out.extend_from_slice(body.get(done..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::request_facts;
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_inject(body: &str, expected: Option<&str>) {
        let facts = request_facts(body.as_bytes()).unwrap();
        let injected = inject_include_usage(body.as_bytes(), &facts);
        assert_eq!(injected.as_deref().map(|body| std::str::from_utf8(body).unwrap()), expected);
    }

    #[track_caller]
    fn check_limit(body: &str, field: LimitField, expected: Option<&str>) {
        let facts = request_facts(body.as_bytes()).unwrap();
        let limited = limit_output(body.as_bytes(), &facts, &[field, LimitField::MaxCompletionTokens], 100);
        assert_eq!(limited.as_deref().map(|body| std::str::from_utf8(body).unwrap()), expected);
    }

    #[test]
    fn a_stream_that_did_not_ask_asks() {
        check_inject(
            r#"{"stream":true,"model":"m"}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true,"model":"m"}"#),
        );
        check_inject(
            r#"{"stream":true,"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check_inject(
            r#"{"stream":true,"stream_options":{ }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        );
        check_inject(
            r#"{"stream":true,"stream_options":{"a":1}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"a":1}}"#),
        );
        check_inject(
            r#"{"stream":true,"stream_options":{"include_usage": false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage": true}}"#),
        );
    }

    #[test]
    fn nothing_is_added_where_it_is_not_needed() {
        check_inject(r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None);
        check_inject(r#"{"stream":false}"#, None);
        check_inject("{}", None);
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        check_limit(r#"{"max_tokens":99}"#, LimitField::MaxTokens, None);
        check_limit(r#"{"max_tokens": 101 }"#, LimitField::MaxTokens, Some(r#"{"max_tokens": 100 }"#));
        check_limit(
            r#"{"max_tokens":null,"n":1,"max_completion_tokens":5000}"#,
            LimitField::MaxTokens,
            Some(r#"{"max_tokens":100,"n":1,"max_completion_tokens":100}"#),
        );
    }

    #[test]
    fn what_stands_under_another_name_is_no_limit() {
        check_limit(
            r#"{"max_output_tokens":1}"#,
            LimitField::MaxTokens,
            Some(r#"{"max_tokens":100,"max_output_tokens":1}"#),
        );
        check_limit(
            r#"{"options":{"a":1},"max_tokens":9000}"#,
            LimitField::NumPredict,
            Some(r#"{"options":{"num_predict":100,"a":1},"max_tokens":100}"#),
        );
        check_limit(
            r#"{"generationConfig":null,"max_tokens":5}"#,
            LimitField::GenerationConfig,
            Some(r#"{"generationConfig":{"maxOutputTokens":100},"max_tokens":5}"#),
        );
        check_limit(
            r#"{"max_completion_tokens":null}"#,
            LimitField::MaxTokens,
            Some(r#"{"max_tokens":100,"max_completion_tokens":null}"#),
        );
    }

    #[test]
    fn a_missing_limit_is_put_where_the_provider_wants_it() {
        check_limit("{}", LimitField::MaxOutputTokens, Some(r#"{"max_output_tokens":100}"#));
        check_limit(
            r#"{"a":1}"#,
            LimitField::GenerationConfig,
            Some(r#"{"generationConfig":{"maxOutputTokens":100},"a":1}"#),
        );
        check_limit(
            r#"{"generation_config":{"topK":1}}"#,
            LimitField::GenerationConfig,
            Some(r#"{"generation_config":{"maxOutputTokens":100,"topK":1}}"#),
        );
        check_limit("{}", LimitField::NumPredict, Some(r#"{"options":{"num_predict":100}}"#));
        check_limit(
            r#"{"options":{"num_predict":-1,"seed":1}}"#,
            LimitField::NumPredict,
            Some(r#"{"options":{"num_predict":100,"seed":1}}"#),
        );
        check_limit(
            r#"{"options":{"seed":1}}"#,
            LimitField::NumPredict,
            Some(r#"{"options":{"num_predict":100,"seed":1}}"#),
        );
        check_limit(r#"{"options":[]}"#, LimitField::NumPredict, None);
    }

    proptest! {
        #[test]
        fn a_rewritten_body_says_what_was_wanted(
            limits in proptest::collection::vec(0u32..1000, 0..3),
            is_streaming: bool,
            options in proptest::option::of(proptest::option::of(any::<bool>())),
        ) {
            let names = [LimitField::MaxTokens, LimitField::MaxCompletionTokens];
            let mut body = serde_json::json!({"stream": is_streaming});
            for (name, limit) in names.iter().zip(&limits) {
                body[name.name()] = (*limit).into();
            }
            if let Some(include_usage) = options {
                body["stream_options"] = serde_json::json!({"include_usage": include_usage});
            }
            let body = body.to_string().into_bytes();
            let facts = request_facts(&body).unwrap();
            if let Some(injected) = inject_include_usage(&body, &facts) {
                prop_assert!(request_facts(&injected).unwrap().includes_usage());
            } else {
                prop_assert!(!is_streaming || facts.includes_usage());
            }
            let limited = limit_output(&body, &facts, &names, 100).unwrap_or(body);
            prop_assert!(request_facts(&limited).unwrap().longest_answer(&names).unwrap() <= 100);
        }
    }
}
