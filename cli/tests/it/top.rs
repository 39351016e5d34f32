//! `top` at a terminal: what is on the screen, what its keys do, and that the terminal is what it was afterwards.

use rexpect::process::{Signal, WaitStatus};

use crate::support::{Gateway, Home, Setup, Terminal, eventually};

fn top(home: &Home) -> Terminal {
    Terminal::start(home, &["top"], (80, 24), &[])
}

#[test]
fn a_stream_is_seen_killed_by_a_key_and_served_again() {
    let gateway = Gateway::start();
    gateway.run(["budget", "set", "global", "10", "daily"]).expect(0);
    let mut terminal = top(&gateway.home);
    terminal.shows("nothing runs");
    terminal.shows("global/daily");
    assert!(!terminal.is_ordinary(), "keys are taken one by one");
    let (script, _go) = gateway.mock.held_stream();
    let mut client = gateway.hold(&gateway.token, &script);
    terminal.shows("tester  openai    gpt-4o-mini");
    terminal.shows("1 in flight (1)");
    terminal.press("K");
    terminal.shows("kill: serve nothing, and cut what runs? [y/n]");
    terminal.press("n");
    terminal.shows("nothing was done");
    assert_eq!(gateway.overview().state, "ok");
    terminal.press("Ky");
    let body = String::from_utf8(client.try_body().expect("an end in order")).unwrap();
    assert!(body.contains("the kill switch is on"), "{body}");
    terminal.shows("KILLED (killed by its owner)");
    terminal.shows("nothing runs");
    terminal.shows("the kill switch is on");
    terminal.press("Uy");
    terminal.shows("served again");
    assert_eq!(gateway.overview().state, "ok");
    terminal.press("q");
    terminal.quits();
    let changes = gateway.run(["--json", "audit"]).expect(0).json();
    let last = changes["changes"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["action"], &last["command"]), (&"unkill".into(), &"top".into()));
}

#[test]
fn the_chosen_agent_is_revoked_by_a_key_and_no_other() {
    let gateway = Gateway::start();
    let other = gateway.mint(&["other"]);
    let (script, go) = gateway.mock.held_stream();
    let mut kept = gateway.hold(&gateway.token, &script);
    let mut revoked = gateway.hold(&other, &script);
    let mut terminal = top(&gateway.home);
    terminal.shows("1 in flight (2)");
    // The oldest is the first; the second is the other's.
    terminal.press("jR");
    terminal.shows("revoke the agent other, and cut what it runs? [y/n]");
    terminal.press("y");
    terminal.shows("revoked other; tokfence agent restore other");
    let body = String::from_utf8(revoked.try_body().expect("an end in order")).unwrap();
    assert!(body.contains("was revoked"), "{body}");
    terminal.shows("other   revoked");
    terminal.shows("1 in flight (1)");
    go.send(()).unwrap();
    assert!(String::from_utf8(kept.try_body().unwrap()).unwrap().contains("[DONE]"));
    terminal.press("\x03");
    terminal.quits();
}

#[test]
fn a_request_is_opened_and_left_again() {
    let gateway = Gateway::start();
    let (script, _go) = gateway.mock.held_stream();
    let _client = gateway.hold(&gateway.token, &script);
    let mut terminal = top(&gateway.home);
    terminal.shows("1 in flight (1)");
    terminal.press("\r");
    terminal.shows(&gateway.overview().requests[0].id);
    terminal.shows("response bytes");
    terminal.press(" ");
    terminal.shows("2 budgets (0)");
    terminal.press("?");
    terminal.shows("unkill: serve again");
    terminal.press("qq");
    terminal.quits();
}

#[test]
fn the_screen_follows_the_terminal() {
    let gateway = Gateway::start();
    let mut terminal = top(&gateway.home);
    terminal.shows("▶ 1 in flight (0)");
    terminal.resize(60, 20);
    terminal.shows("the terminal has 60×20; this needs 80×24");
    terminal.resize(120, 40);
    terminal.shows("▶ 1 in flight (0)");
    terminal.press("q");
    terminal.quits();
}

#[test]
fn there_is_no_colour_for_who_wants_none() {
    let gateway = Gateway::start();
    let is_coloured = |args: &[&str], env: &[(&str, &str)]| {
        let mut terminal = Terminal::start(&gateway.home, args, (80, 24), env);
        terminal.shows("5 risk (0)");
        let is_coloured = {
            let parser = terminal.screen.lock().unwrap();
            let screen = parser.screen();
            let cell = |row, column| screen.cell(row, column).unwrap().fgcolor();
            (0..24).any(|row| (0..80).any(|column| cell(row, column) != vt100::Color::Default))
        };
        terminal.press("q");
        terminal.quits();
        is_coloured
    };
    assert!(is_coloured(&["top"], &[]));
    assert!(!is_coloured(&["top", "--color", "never"], &[]));
    assert!(!is_coloured(&["top"], &[("NO_COLOR", "1")]));
}

#[test]
fn a_daemon_that_goes_away_is_said_to_and_its_return_is_noticed() {
    let gateway = Gateway::start();
    let mut terminal = top(&gateway.home);
    terminal.shows("  ok  ");
    gateway.run(["stop"]).expect(0);
    terminal.shows("the daemon is not running, trying again");
    // What needs no daemon is done without one.
    terminal.press("Ky");
    terminal.shows("killed: nothing is served");
    gateway.run(["start", "-d"]).expect(0);
    terminal.shows("KILLED");
    terminal.press("q");
    terminal.quits();
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_before() {
    let gateway = Gateway::start();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut terminal = top(&gateway.home);
        terminal.shows("5 risk (0)");
        terminal.process.signal(signal).unwrap();
        let ended = terminal.ends();
        assert!(matches!(ended, WaitStatus::Signaled(_, by, _) if by == signal), "{ended:?}");
    }
}

#[test]
fn a_panic_gives_the_terminal_back_and_tells_its_place_alone() {
    let gateway = Gateway::start();
    // A key for the thread that shows, and an order for the one that asks.
    for (stage, keys, place) in [("screen", "j", "top/mod.rs:"), ("feed", "Ky", "top/feed.rs:")] {
        let env = [("TOKFENCE_TEST_PANIC", stage)];
        let mut terminal = Terminal::start(&gateway.home, &["top"], (80, 24), &env);
        terminal.shows("5 risk (0)");
        terminal.press(keys);
        let ended = terminal.ends();
        assert!(matches!(ended, WaitStatus::Exited(_, 101)), "{ended:?}");
        let shown = terminal.contents();
        assert!(shown.contains("the program itself failed at") && shown.contains(place), "{shown}");
        assert!(shown.contains("hint: ") && shown.matches("error:").count() == 1, "{shown}");
        assert!(!shown.contains("asked") && !shown.contains("left"), "{shown}");
    }
    assert_eq!(gateway.overview().state, "ok", "what was ordered of the thread that failed was not done");
}

#[test]
fn who_cannot_be_shown_anything_is_told_so() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let piped = home.run(["top"]).expect(2);
    assert!(piped.stderr.contains("not a terminal") && piped.stderr.contains("--json"), "{}", piped.stderr);
    assert_eq!(home.run(["--json", "top"]).expect(3).error()["code"], "not_running");
    let mut terminal = top(&home);
    let ended = eventually("the end", || match terminal.process.status() {
        Some(WaitStatus::StillAlive) => None,
        other => other,
    });
    assert!(matches!(ended, WaitStatus::Exited(_, 3)), "{ended:?}");
    terminal.shows("the daemon is not running");
    assert!(terminal.is_ordinary());
    terminal.press("");
}

#[test]
fn once_as_json_it_is_the_whole_overview() {
    let gateway = Gateway::start_with(&Setup::default());
    let (script, _go) = gateway.mock.held_stream();
    let _client = gateway.hold(&gateway.token, &script);
    let document = gateway.run(["--json", "top"]).expect(0).json();
    assert_eq!((&document["state"], &document["in_flight"]), (&"ok".into(), &1.into()));
    assert_eq!(document["requests"][0]["agent"], "tester");
    let names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = "at state killed pid version address started_at log log_read_at today budgets agents agents_total \
        requests in_flight refusals risks risk_events revoked_providers rates";
    assert_eq!(names, promised.split_whitespace().collect::<Vec<_>>());
}
