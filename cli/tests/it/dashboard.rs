//! The owner's page over real sockets: who comes in, who does not, and what it changes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::sentinel::files;
use crate::support::{Client, Gateway, KEYS, Request, Response, Setup, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;
const DATA: [&str; 3] = ["/dashboard/events", "/dashboard/history", "/dashboard/risk/1"];
const FILES: [&str; 9] = [
    "",
    "style.css",
    "app.js",
    "server.js",
    "dom.js",
    "tables.js",
    "charts.js",
    "icon.svg",
    "manifest.webmanifest",
];

/// A browser that was let in.
struct Browser {
    address: SocketAddr,
    cookie: String,
    token: String,
}

fn start() -> Gateway {
    start_with("")
}

fn start_with(metrics: &str) -> Gateway {
    // The table of metrics begins in what comes before, so its keys can go on here.
    Gateway::start_with(&Setup { metrics: "127.0.0.1:0", tables: metrics.to_owned(), ..Setup::default() })
}

/// The address of a new link, and its secret.
#[track_caller]
fn link(gateway: &Gateway) -> (SocketAddr, String) {
    let told = gateway.run(["--json", "dashboard"]).expect(0).json();
    let url = told["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (address, secret) = url.split_once("/dashboard/#").unwrap();
    (address.parse().unwrap(), secret.to_owned())
}

/// A request as the page makes it.
fn of_page(address: SocketAddr, method: &str, path: &str) -> Request {
    let request = Request::new(method, path).without("Host").field("Host", &address.to_string());
    let request = request.field("Sec-Fetch-Site", "same-origin");
    match method {
        "POST" => {
            request.field("Origin", &format!("http://{address}")).field("Content-Type", "application/json")
        }
        _ => request,
    }
}

fn log_in(address: SocketAddr, secret: &str) -> Response {
    let body = json!({ "secret": secret }).to_string();
    Client::tcp(address).ask(&of_page(address, "POST", "/dashboard/login").body(body))
}

impl Browser {
    #[track_caller]
    fn of(gateway: &Gateway) -> Self {
        let (address, secret) = link(gateway);
        let response = log_in(address, &secret).expect(200);
        let cookie = response.head.get("set-cookie").unwrap().to_owned();
        let attributes = format!("; Path=/dashboard/; HttpOnly; SameSite=Strict; Max-Age={}", 12 * 60 * 60);
        let cookie = cookie.strip_suffix(&attributes).unwrap_or_else(|| panic!("{cookie}")).to_owned();
        assert!(cookie.starts_with(&format!("tokfence_{}=", address.port())), "{cookie}");
        Self { address, cookie, token: response.json()["token"].as_str().unwrap().to_owned() }
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let request = of_page(self.address, method, path);
        request.field("Cookie", &self.cookie).field("X-Tokfence-Page", &self.token)
    }

    fn ask(&self, request: &Request) -> Response {
        Client::tcp(self.address).ask(request)
    }

    fn get(&self, path: &str) -> Response {
        self.ask(&self.request("GET", path))
    }

    fn change(&self, what: &Value) -> Response {
        self.ask(&self.request("POST", "/dashboard/change").body(what.to_string()))
    }

    /// The newest event, from a stream of its own.
    #[track_caller]
    fn event(&self) -> Value {
        let mut client = Client::tcp(self.address);
        client.send(&self.request("GET", "/dashboard/events").bytes());
        let head = client.head();
        assert_eq!((head.status, head.get("content-type")), (200, Some("text/event-stream")));
        next_event(&mut client)
    }
}

#[track_caller]
fn next_event(client: &mut Client) -> Value {
    let mut text = Vec::new();
    client.read_until(&mut text, "\n\n");
    let text = String::from_utf8(text).unwrap();
    let document = text.strip_prefix("data: ").and_then(|text| text.split("\n\n").next());
    serde_json::from_str(document.unwrap_or_else(|| panic!("{text}"))).unwrap()
}

#[track_caller]
fn code(response: Response, status: u16) -> String {
    response.expect(status).json()["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_link_lets_one_browser_in_once() {
    let gateway = start();
    let (address, secret) = link(&gateway);
    assert_eq!(code(log_in(address, &secret[1..]), 401), "wrong_link");
    // Whatever looks at the page before the browser does uses nothing up.
    let page = Client::tcp(address).ask(&of_page(address, "GET", "/dashboard/")).expect(200);
    assert!(page.text().contains("tokfence dashboard"), "the page says how to come in");
    let first = log_in(address, &secret).expect(200);
    assert!(!first.text().contains(&secret) && !first.head.has("location"));
    let again = log_in(address, &secret).expect(401);
    assert!(!again.head.has("set-cookie"), "{again:?}");
    assert_eq!(code(again, 401), "wrong_link");

    let told = gateway.run(["dashboard"]).expect(0);
    assert!(
        told.stdout.starts_with("http://127.0.0.1:") && told.stdout.trim().lines().count() == 1,
        "{told:?}"
    );
    assert!(told.stderr.contains("within a minute; it works once"), "{}", told.stderr);
}

#[test]
fn what_is_live_is_told_to_who_is_in() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let (script, go) = gateway.mock.held_stream();
    let mut caller = gateway.hold(&gateway.token, &script);
    let mut client = Client::tcp(browser.address);
    client.send(&browser.request("GET", "/dashboard/events").bytes());
    assert_eq!(client.head().status, 200);
    let seen = eventually("the stream", || {
        let told = next_event(&mut client);
        (told["requests"][0]["output_tokens"].as_u64() > Some(0)).then_some(told)
    });
    assert_eq!((&seen["state"], &seen["requests"][0]["agent"]), (&json!("ok"), &json!("tester")));
    let overview = serde_json::to_value(gateway.overview()).unwrap();
    let names = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&overview), "it is the one document for views");
    go.send(()).unwrap();
    caller.try_body().unwrap();
    eventually("its end", || {
        next_event(&mut client)["requests"].as_array().unwrap().is_empty().then_some(())
    });

    // Who looks is let out with all others, and his stream ends.
    assert_eq!(gateway.run(["--json", "dashboard", "--logout"]).expect(0).json(), json!({ "logged_out": 1 }));
    client.try_body().unwrap();
    assert_eq!(code(browser.get("/dashboard/history"), 401), "no_session");
}

#[test]
fn without_both_secrets_nothing_is_told_or_done() {
    let gateway = start();
    let (one, other) = (Browser::of(&gateway), Browser::of(&gateway));
    let kill = json!({ "do": "kill", "reason": "" }).to_string();
    let refused = |cookie: Option<&str>, token: Option<&str>| {
        let with = |mut request: Request| {
            for (name, value) in [("Cookie", cookie), ("X-Tokfence-Page", token)] {
                request = value.into_iter().fold(request, |request, value| request.field(name, value));
            }
            request
        };
        for path in DATA {
            let response = one.ask(&with(of_page(one.address, "GET", path)));
            assert_eq!(code(response, 401), "no_session", "{path}");
        }
        for path in ["/dashboard/change", "/dashboard/logout"] {
            let response = one.ask(&with(of_page(one.address, "POST", path).body(kill.clone())));
            assert_eq!(code(response, 401), "no_session", "{path}");
        }
    };
    refused(None, None);
    refused(Some(&one.cookie), None);
    refused(None, Some(&one.token));
    refused(Some(&one.cookie), Some(&other.token));
    refused(Some(&one.cookie.replace("tokfence_", "other_")), Some(&one.token));
    refused(Some(&gateway.token), Some(&gateway.token));
    assert_eq!(one.event()["state"], "ok", "and with both it is told");
    assert_eq!(gateway.overview().state, "ok");
    // A cookie that somebody else put beside it hides nothing.
    let both = format!("{}=0; {}", one.cookie.split('=').next().unwrap(), one.cookie);
    let request = of_page(one.address, "GET", DATA[1]).field("Cookie", &both);
    one.ask(&request.field("X-Tokfence-Page", &one.token)).expect(200);

    one.ask(&one.request("POST", "/dashboard/logout").body("{}")).expect(200);
    assert_eq!(code(one.get(DATA[1]), 401), "no_session");
    other.get(DATA[1]).expect(200);
}

#[test]
fn who_is_not_the_page_is_refused_with_good_secrets() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let port = browser.address.port();
    let kill = json!({ "do": "kill", "reason": "" }).to_string();
    let post = || browser.request("POST", "/dashboard/change").body(kill.clone());
    let check = |request: Request, status, expected: &str| {
        assert_eq!(
            code(browser.ask(&request), status),
            expected,
            "{}",
            String::from_utf8_lossy(&request.head())
        );
    };
    for host in [&format!("localhost:{port}"), "127.0.0.1", "127.0.0.1:1", "evil.example", ""] {
        check(post().without("Host").field("Host", host), 403, "host_not_allowed");
    }
    let twice = post().field("Host", &browser.address.to_string());
    check(twice, 403, "host_not_allowed");
    let own = format!("http://127.0.0.1:{port}");
    for origin in [
        "http://127.0.0.1:1",
        "null",
        "https://evil.example",
        &format!("{own}/"),
        &format!("http://localhost:{port}"),
    ] {
        check(post().without("Origin").field("Origin", origin), 403, "origin_not_allowed");
    }
    check(post().without("Origin"), 403, "origin_not_allowed");
    check(post().field("Origin", &own), 403, "origin_not_allowed");
    for site in ["cross-site", "same-site", "Same-Origin"] {
        check(post().without("Sec-Fetch-Site").field("Sec-Fetch-Site", site), 403, "origin_not_allowed");
        for path in DATA {
            let get = browser.request("GET", path).without("Sec-Fetch-Site").field("Sec-Fetch-Site", site);
            check(get, 403, "origin_not_allowed");
        }
    }
    check(browser.request("GET", DATA[1]).field("Origin", "http://127.0.0.1:1"), 403, "origin_not_allowed");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"] {
        check(post().without("Content-Type").field("Content-Type", kind), 415, "unsupported_media");
    }
    // A link in a mail may lead to the page, which is the same for everybody; nothing but a window may be shown it.
    let from_elsewhere = |dest: &str| {
        let page = of_page(browser.address, "GET", "/dashboard/").without("Sec-Fetch-Site");
        browser.ask(&page.field("Sec-Fetch-Site", "cross-site").field("Sec-Fetch-Dest", dest))
    };
    from_elsewhere("document").expect(200);
    from_elsewhere("iframe").expect(403);
    assert_eq!(gateway.overview().state, "ok", "nothing was changed");
}

#[test]
fn what_is_malformed_is_refused_and_changes_nothing() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let ask = |body: &str| browser.ask(&browser.request("POST", "/dashboard/change").body(body));
    for body in [
        "",
        "[]",
        r#"{"do":"kill"}"#,
        r#"{"do":"kill","reason":1}"#,
        r#"{"do":"kill","reason":"","more":1}"#,
        r#"{"do":"stop"}"#,
        r#"{"do":"revoke_agent","reason":""}"#,
    ] {
        assert_eq!(code(ask(body), 400), "not_understood", "{body}");
    }
    let long = json!({ "do": "kill", "reason": "x".repeat(20_000) }).to_string();
    assert_eq!(code(ask(&long), 413), "request_too_large");
    let change = |what: Value| browser.change(&what);
    let unknown = json!({ "do": "revoke_agent", "agent": "nobody", "reason": "" });
    assert_eq!(code(change(unknown), 404), "no_such_agent");
    assert_eq!(code(change(json!({ "do": "restore_agent", "agent": "../x" })), 404), "no_such_agent");
    let unknown = json!({ "do": "revoke_provider", "provider": "opneai", "reason": "" });
    assert_eq!(code(change(unknown), 404), "unknown_provider");
    assert_eq!(code(browser.get("/dashboard/nothing"), 404), "not_found");
    assert_eq!(code(browser.get("/dashboard/risk/77"), 404), "no_such_event");
    browser.get("/dashboard/change").expect(405);
    let rows = gateway.run(["--json", "audit"]).expect(0).json();
    assert!(!rows.to_string().contains(r#""dashboard""#), "{rows}");
}

#[test]
fn a_change_holds_at_once_and_is_in_the_audit_log() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let ask = || gateway.ask(Request::post(CHAT, BODY));
    let change = |what: Value, status: &str| {
        assert_eq!(browser.change(&what).expect(200).json(), json!({ "status": status }), "{what}");
    };
    ask().expect(200);
    let (script, _go) = gateway.mock.held_stream();
    let mut caller = gateway.hold(&gateway.token, &script);
    change(json!({ "do": "kill", "reason": " odd " }), "killed");
    ask().expect_refusal(403, "killed");
    caller.try_body().unwrap();
    change(json!({ "do": "kill", "reason": "again" }), "unchanged");
    assert_eq!(browser.event()["killed"]["reason"], "odd");
    change(json!({ "do": "unkill" }), "restored");
    ask().expect(200);
    change(json!({ "do": "revoke_provider", "provider": "openai", "reason": "" }), "revoked");
    ask().expect_refusal(403, "provider_revoked");
    change(json!({ "do": "restore_provider", "provider": "openai" }), "restored");
    change(json!({ "do": "revoke_agent", "agent": "tester", "reason": "loops" }), "revoked");
    ask().expect_refusal(401, "revoked_capability");
    change(json!({ "do": "restore_agent", "agent": "tester" }), "restored");
    ask().expect(200);

    let rows = gateway.run(["--json", "audit"]).expect(0).json();
    let told: Vec<_> = rows["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["command"] == "dashboard")
        .map(|row| {
            (
                row["action"].as_str().unwrap(),
                row["subject"].as_str().unwrap(),
                row["detail"]["reason"].clone(),
            )
        })
        .collect();
    let revoked = json!("revoked on the dashboard");
    assert_eq!(
        told,
        [
            ("kill", "global", json!("odd")),
            ("unkill", "global", Value::Null),
            ("provider_revoke", "openai", revoked),
            ("provider_restore", "openai", Value::Null),
            ("agent_revoke", "agent:tester", json!("loops")),
            ("agent_restore", "agent:tester", Value::Null),
        ]
    );
    gateway.run(["audit", "verify"]).expect(0);
}

#[test]
fn what_was_is_told_as_the_commands_tell_it() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let secret = KEYS[0].key;
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    let leak = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{secret}"}}]}}"#);
    gateway.ask(Request::post(CHAT, leak)).expect_refusal(403, "secret_in_request");
    // A row is written when its request has ended, which is after its answer.
    eventually("both rows", || (gateway.rows().len() == 2).then_some(()));
    let past = browser.get("/dashboard/history").expect(200).json();
    let stats = |by: &str| gateway.run(["--json", "stats", "--by", by]).expect(0).json()["rows"].clone();
    for (spans, by, count) in [("hours", "hour", 24), ("days", "day", 30)] {
        assert_eq!(
            (&past[spans]["count"], past[spans]["rows"].as_array().unwrap().len()),
            (&json!(count), 1)
        );
        let (told, sums) = (&past[spans]["rows"][0], &stats(by)[0]);
        assert_eq!(told["at"], sums["group"]);
        for name in ["requests", "refused", "input_tokens", "output_tokens", "cost_usd", "unpriced"] {
            assert_eq!(told[name], sums[name], "{by} {name}");
        }
    }
    let providers = past["providers"].as_array().unwrap();
    assert_eq!(providers.len(), KEYS.len(), "those with a key, used or not");
    let openai = providers.iter().find(|provider| provider["provider"] == "openai").unwrap();
    assert_eq!((&openai["requests"], &openai["has_key"]), (&json!(2), &json!(true)));

    let event = eventually("the event", || browser.event()["risk_events"][0]["event"].as_i64());
    let told = browser.get(&format!("/dashboard/risk/{event}")).expect(200).json();
    let facts = told["facts"].as_array().unwrap().iter();
    let mut lines: Vec<String> = facts
        .map(|fact| format!("{:<10} {}", fact[0].as_str().unwrap(), fact[1].as_str().unwrap()))
        .collect();
    lines.push(String::new());
    lines.extend(
        told["consequences"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()),
    );
    let explained = gateway.run(["risk", "explain", &event.to_string()]).expect(0).stdout;
    assert_eq!(lines.join("\n"), explained.trim_end());
}

#[test]
fn every_answer_is_closed_to_others_and_tells_no_secret() {
    let gateway = start();
    let (address, secret) = link(&gateway);
    let browser = Browser::of(&gateway);
    let mut answers = vec![
        browser.get(DATA[1]),
        browser.get("/dashboard/nothing"),
        browser.get("/dashboard"),
        browser.get("/dashboard/login"),
        browser.change(&json!({ "do": "unkill" })),
        browser.ask(&of_page(address, "GET", DATA[1])),
        browser.ask(&browser.request("GET", DATA[1]).field("Origin", "https://evil.example")),
        browser.ask(&Request::get("/dashboard/")),
        log_in(address, "wrong"),
    ];
    answers.extend(FILES.map(|file| browser.get(&format!("/dashboard/{file}")).expect(200)));
    let mut heads: Vec<_> = answers.iter().map(|answer| answer.head.clone()).collect();
    let mut stream = Client::tcp(address);
    stream.send(&browser.request("GET", DATA[0]).bytes());
    heads.push(stream.head());
    let event = next_event(&mut stream).to_string();
    for head in &heads {
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("connection", "close"),
        ] {
            assert_eq!(head.get(name), Some(value), "{name} {head:?}");
        }
        let policy = head.get("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert!(!head.fields.iter().any(|(name, _)| name.starts_with("access-control")), "{head:?}");
    }
    let cookie = browser.cookie.split_once('=').unwrap().1;
    let given = [secret.as_str(), cookie, browser.token.as_str()];
    for secret in KEYS.iter().map(|key| key.key).chain([gateway.token.as_str()]).chain(given) {
        let tells = |answer: &Response| format!("{:?} {}", answer.head, answer.text()).contains(secret);
        assert!(!answers.iter().any(tells) && !event.contains(secret), "{secret}");
    }
    for path in files(gateway.home.path()) {
        // Sockets have nothing to read.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let is_there = |secret: &&str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!given.iter().any(is_there), "{}", path.display());
    }
}

#[test]
fn who_looks_keeps_no_daemon_from_ending_and_leaves_no_trace() {
    let gateway = start();
    let browser = Browser::of(&gateway);
    let watch = || {
        let mut client = Client::tcp(browser.address);
        client.send(&browser.request("GET", DATA[0]).bytes());
        assert_eq!(client.head().status, 200);
        next_event(&mut client);
        client
    };
    let mut viewers: Vec<Client> = (0..16).map(|_| watch()).collect();
    assert_eq!(code(browser.get(DATA[0]), 503), "too_many_viewers");
    drop(viewers.pop());
    eventually("a place", || {
        let mut client = Client::tcp(browser.address);
        client.send(&browser.request("GET", DATA[0]).bytes());
        (client.head().status == 200).then_some(())
    });
    // After an upgrade another process serves, and knows no browser.
    gateway.run(["upgrade"]).expect(0);
    for viewer in &mut viewers {
        viewer.try_body().unwrap();
    }
    assert_eq!(code(browser.get(DATA[1]), 401), "no_session");
    let browser = Browser::of(&gateway);
    let mut viewer = Client::tcp(browser.address);
    viewer.send(&browser.request("GET", DATA[0]).bytes());
    viewer.head();
    next_event(&mut viewer);
    gateway.run(["stop"]).expect(0);
    viewer.try_body().unwrap();
}

#[test]
fn a_dashboard_that_is_switched_off_is_not_there() {
    let gateway = start_with("dashboard = false");
    let off = gateway.run(["--json", "dashboard"]).expect(1).error();
    assert_eq!(off["code"], "no_dashboard");
    assert!(off["hint"].as_str().unwrap().contains("metrics.dashboard"), "{off}");
    let status = gateway.run(["--json", "status"]).expect(0).json();
    let url = status["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
    for path in ["/dashboard/", "/dashboard/app.js", DATA[0]] {
        assert_eq!(code(Client::tcp(address).ask(&of_page(address, "GET", path)), 404), "no_dashboard");
    }
    Client::tcp(address)
        .ask(&Request::get("/metrics").without("Host").field("Host", &address.to_string()))
        .expect(200);

    let nowhere = Gateway::start();
    let none = nowhere.run(["--json", "dashboard"]).expect(1).error();
    assert_eq!(none["code"], "no_dashboard");
    assert!(none["hint"].as_str().unwrap().contains("metrics.listen"), "{none}");
    nowhere.run(["stop"]).expect(0);
    nowhere.run(["dashboard"]).expect(3);
}

#[test]
fn the_link_is_handed_to_the_browser_or_printed() {
    let gateway = start();
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let (bin, opened) = (gateway.home.file("bin"), gateway.home.file("opened"));
    std::fs::create_dir(&bin).unwrap();
    let open = |script: &str| {
        let program = bin.join(opener);
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        gateway.home.command(["dashboard", "--open"]).env("PATH", &bin).run()
    };
    let done = open(&format!("#!/bin/sh\necho \"$1\" > {}\n", opened.display())).expect(0);
    assert_eq!(done.stdout, "the dashboard is open in your browser\n");
    let url = std::fs::read_to_string(&opened).unwrap();
    let (address, secret) = url.trim().strip_prefix("http://").unwrap().split_once("/dashboard/#").unwrap();
    log_in(address.parse().unwrap(), secret).expect(200);
    // Without a browser there is the link to copy.
    let failed = open("#!/bin/sh\nexit 3\n").expect(0);
    assert!(failed.stdout.starts_with("http://127.0.0.1:"), "{failed:?}");
    assert!(failed.stderr.contains("could not be opened"), "{failed:?}");
    let usage = gateway.run(["dashboard", "--open", "--logout"]).expect(2);
    assert!(usage.stderr.contains("--logout"), "{usage:?}");
}
