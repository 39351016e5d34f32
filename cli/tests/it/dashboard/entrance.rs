//! Who comes in, who does not, and what either can see.

use super::*;

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
