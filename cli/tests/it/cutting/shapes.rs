//! How each kind of stream ends, read as the SDKs of its provider read it.

use super::*;

/// Checks that a stream of this kind is cut at once, and that it was charged.
#[track_caller]
fn check_cut(request: Request, text: &str) -> (String, RequestRow) {
    let gateway = Gateway::shared();
    let stream = Stream::start(gateway, request, text);
    let revoked = stream.revoke();
    let (body, row) = stream.ends(revoked);
    assert_eq!((row.error_code.as_deref(), row.status), (Some("revoked_capability"), Some(200)));
    assert_eq!(row.basis, Basis::Estimated);
    assert!(row.usage.input > 0 && row.usage.output > 0, "{:?}", row.usage);
    assert!(body.contains("[tokfence] stopped: the agent `"), "{body}");
    (body, row)
}

#[test]
fn a_chat_is_cut_between_two_events() {
    let gateway = Gateway::shared();
    for target in [CHAT, "/ollama/v1/chat/completions", "/google/v1beta/openai/chat/completions"] {
        let script = endless(&gateway.mock, "text/event-stream", HELLO, HELLO);
        let (body, _) = check_cut(Request::post(target, STREAM).script(&script), "hello");
        let body = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {body}"));
        let events = events(body);
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|(_, event)| event["choices"][0]["delta"]["content"] == "hello"));
        assert_eq!(last.1["object"], "chat.completion.chunk");
        assert_eq!(last.1["choices"][0]["finish_reason"], "content_filter");
        assert_eq!(last.1["tokfence"]["code"], "revoked_capability");
    }
}

#[test]
fn a_completion_is_cut() {
    let part = "data: {\"choices\":[{\"index\":0,\"text\":\"hello\"}]}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/openai/v1/completions", STREAM).script(&script), "hello");
    let body = body.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {body}"));
    let last = events(body).pop().unwrap().1;
    assert_eq!(
        (&last["object"], &last["choices"][0]["finish_reason"]),
        (&"text_completion".into(), &"content_filter".into())
    );
}

#[test]
fn a_response_is_cut() {
    let part = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/openai/v1/responses", STREAM).script(&script), "hello");
    let (name, last) = events(&body).pop().unwrap();
    assert_eq!(name.as_deref(), Some("response.failed"));
    assert_eq!((&last["type"], &last["response"]["status"]), (&"response.failed".into(), &"failed".into()));
    assert_eq!(last["response"]["error"]["code"], "invalid_prompt");
}

#[test]
fn a_message_is_cut() {
    let part = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post("/anthropic/v1/messages", STREAM).script(&script), "hello");
    let (name, last) = events(&body).pop().unwrap();
    assert_eq!(name.as_deref(), Some("error"));
    assert_eq!((&last["type"], &last["error"]["type"]), (&"error".into(), &"permission_error".into()));
}

#[test]
fn a_gemini_stream_is_cut() {
    let part = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hello\"}]}}]}\r\n\r\n";
    let script = endless(&Gateway::shared().mock, "text/event-stream", part, part);
    let (body, _) = check_cut(Request::post(&format!("{GEMINI}?alt=sse"), "{}").script(&script), "hello");
    let last = events(&body.replace("\r\n", "\n")).pop().unwrap().1;
    assert_eq!(last["candidates"][0]["finishReason"], "OTHER");
}

#[test]
fn a_growing_array_is_cut_and_closed() {
    let element = "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"he}llo\"}]}}]}";
    let next: &'static str = format!(",\r\n{element}").leak();
    let first: &'static str = format!("[{element}").leak();
    let script = endless(&Gateway::shared().mock, "application/json; charset=UTF-8", first, next);
    let (body, _) = check_cut(Request::post(GEMINI, "{}").script(&script), "llo");
    let elements: Vec<Value> = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let (last, before) = elements.split_last().unwrap();
    assert!(before.iter().all(|element| element["candidates"][0]["content"]["parts"][0]["text"] == "he}llo"));
    assert_eq!(last["candidates"][0]["finishReason"], "OTHER");
}

#[test]
fn a_stream_of_lines_is_cut() {
    let part =
        "{\"model\":\"llama3\",\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"done\":false}\n";
    let script = endless(&Gateway::shared().mock, "application/x-ndjson", part, part);
    let body = r#"{"model":"llama3","messages":[]}"#;
    let (body, _) = check_cut(Request::post("/ollama/api/chat", body).script(&script), "hello");
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert!(last["error"].as_str().unwrap().starts_with("[tokfence] stopped"), "{last}");
    assert_eq!(last["done"], true);
}

/// Chunks are cut anywhere, and come faster than they are read.
#[test]
fn a_flood_of_parts_of_events_is_cut_between_two_events() {
    let gateway = Gateway::shared();
    for size in [7, 83, 1000, 30_000] {
        let flood = HELLO.repeat(1000);
        let script = gateway.mock.script(move |_, conn| {
            conn.send(head("text/event-stream"))?;
            let chunks: Vec<u8> = flood.as_bytes().chunks(size).flat_map(chunk).collect();
            while conn.send(&chunks).is_ok() {}
            Ok(Then::Close)
        });
        let mut stream = Stream::start(gateway, Request::post(CHAT, STREAM).script(&script), "hello");
        let agent = stream.agent.clone();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| stream.read_to_end(started));
            gateway.run(["agent", "revoke", &agent]).expect(0);
            let revoked = started.elapsed();
            let took = reader.join().unwrap().saturating_sub(revoked);
            assert!(took < AT_ONCE, "{took:?}");
        });
        let body = String::from_utf8(stream.seen).unwrap();
        let events = events(body.strip_suffix("data: [DONE]\n\n").unwrap());
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|(_, event)| event["choices"][0]["delta"]["content"] == "hello"));
        assert_eq!(last.1["choices"][0]["finish_reason"], "content_filter");
    }
}

#[test]
fn an_event_that_stays_in_the_middle_is_closed_and_then_told_about() {
    let gateway = Gateway::shared();
    let (script, _) = silent(&gateway.mock, "text/event-stream", &[HELLO, "data: {\"choices\":[{\"half"]);
    let stream = Stream::start(
        gateway,
        Request::post(CHAT, STREAM.replace("true", "true,\"stream_options\":{\"include_usage\":true}"))
            .script(&script),
        "half",
    );
    let revoked = stream.revoke();
    let (body, _) = stream.ends(revoked);
    let (before, after) = body.split_once("half\n\n").unwrap_or_else(|| panic!("not closed: {body}"));
    assert!(before.starts_with(HELLO), "{body}");
    assert_eq!(events(after.strip_suffix("data: [DONE]\n\n").unwrap()).len(), 1);
}

/// The provider goes on in the middle of an event after the cut: the caller gets the rest of that event, and of
/// the next one nothing.
#[test]
fn an_event_that_goes_on_is_passed_to_its_end_and_not_further() {
    let gateway = Gateway::start();
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let (start, rest) = HELLO.split_at(20);
    let script = gateway.mock.script(move |_, conn| {
        conn.send(head("text/event-stream"))?;
        conn.send(chunk(start))?;
        gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        conn.send(chunk(format!("{rest}data: {{\"never\":1}}\n\n")))?;
        conn.is_closed_by_peer();
        Ok(Then::Close)
    });
    let body = STREAM.replace("true", "true,\"stream_options\":{\"include_usage\":true}");
    let stream = Stream::start(&gateway, Request::post(CHAT, body).script(&script), start);
    let database = database(&gateway);
    database.execute("UPDATE capabilities SET revoked_at_us = 1, revoke_reason = 'x'", []).unwrap();
    reload(&gateway);
    go.send(()).unwrap();
    let (body, _) = stream.ends(Instant::now());
    let rest = body.strip_prefix(HELLO).unwrap_or_else(|| panic!("the event was not ended: {body}"));
    let events = events(rest.strip_suffix("data: [DONE]\n\n").unwrap());
    assert_eq!(events.len(), 1, "{rest}");
    assert!(events[0].1["tokfence"]["message"].as_str().unwrap().ends_with("was revoked"));
}

#[test]
fn an_answer_that_is_no_stream_breaks_off() {
    let gateway = Gateway::shared();
    // More than the gateway keeps back of an answer whose length is known.
    let start = format!("{{\"hello\":\"{}", "x".repeat(10_000));
    for (agent, fields, part) in [
        ("breaks-sized", "Content-Length: 20000", start.clone().into_bytes()),
        ("breaks-chunked", "Transfer-Encoding: chunked", chunk(&start)),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n\r\n");
        let script = gateway.mock.script(move |_, conn| {
            conn.send(&head)?;
            conn.send(&part)?;
            conn.is_closed_by_peer();
            Ok(Then::Close)
        });
        let mut client = gateway.tcp();
        client.send(&Request::post(CHAT, STREAM).bearer(&gateway.mint(&[agent])).script(&script).bytes());
        let id = client.head().get("x-tokfence-request-id").unwrap().to_owned();
        client.read_until(&mut Vec::new(), "hello");
        gateway.run(["agent", "revoke", agent]).expect(0);
        let revoked = Instant::now();
        assert!(client.try_body().is_err(), "the caller must see that the answer is not whole");
        assert!(revoked.elapsed() < AT_ONCE, "{:?}", revoked.elapsed());
        assert_eq!(gateway.row(&id).request.outcome, Outcome::Cut);
    }
}
