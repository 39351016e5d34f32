//! What is on the screen, for whoever has 80 by 24 characters and no colour.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::draw::{Looks, draw};
use super::rows::Pane;
use super::samples::overview;
use super::view::{Action, Mode, View};

const PLAIN: Looks = Looks { has_color: false };

fn view() -> View {
    View::of(overview())
}

fn screen_of(view: &View, (width, height): (u16, u16), looks: Looks) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, looks)).unwrap();
    terminal.backend().clone()
}

/// The lines of the screen.
fn lines_of(view: &View, size: (u16, u16)) -> Vec<String> {
    let screen = screen_of(view, size, PLAIN);
    let cells: Vec<&str> = screen.buffer().content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(usize::from(size.0)).map(|line| line.concat().trim_end().to_owned()).collect()
}

fn lines(view: &View) -> Vec<String> {
    lines_of(view, (80, 24))
}

#[track_caller]
fn check_shows(lines: &[String], text: &str) {
    assert!(lines.iter().any(|line| line.contains(text)), "{text:?} is not in\n{}", lines.join("\n"));
}

#[test]
fn everything_is_there_at_eighty_by_twenty_four() {
    let lines = lines(&view());
    let shown = lines.join("\n");
    assert!(lines[0].starts_with("tokfence 0.2.0  ok  http://127.0.0.1:9471  for 2h  "), "{shown}");
    assert_eq!(
        lines[1],
        "today $2.500000  24 requests  2 refused  45.0k in, 12.3k out  1 in flight  revoked: groq"
            .chars()
            .take(80)
            .collect::<String>()
            .trim_end()
    );
    for text in [
        "▶ 1 in flight (1)",
        "  ci     openai    gpt-4o-mini  1500  320  ~$0.000417  42s",
        "  2 budgets (2)",
        "  global/daily    ██████▒▒····   70%   $5.000000  $2.000000  $10.000000      8h",
        "  openai/monthly  ████████████  100%  $10.000000  $0.000000  $10.000000      8h",
        "  3 agents (2)",
        "  dev    RED          1        12        1   $1.250000     1m ago",
        "  4 refused or cut (1)",
        "budget_exceeded ×3  a budget had no room",
        "  5 risk (2)",
        "secret_in_request  is RED",
        "secret_in_request  GREEN to RED  refused",
    ] {
        check_shows(&lines, text);
    }
    assert!(lines[23].starts_with("q quit"), "{shown}");
}

#[test]
fn without_colour_nothing_is_lost() {
    let mut view = view();
    view.mode = Mode::Asks(Action::Kill);
    let colourless = screen_of(&view, (80, 24), PLAIN);
    let cells = colourless.buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let coloured = screen_of(&view, (80, 24), Looks { has_color: true });
    assert!(coloured.buffer().content().iter().any(|cell| cell.fg == Color::Red));
    let text = |screen: &TestBackend| {
        screen.buffer().content().iter().map(|cell| cell.symbol().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(text(&colourless), text(&coloured));
}

#[test]
fn a_terminal_that_is_too_small_is_told_so() {
    for size in [(79, 24), (80, 23), (20, 5), (1, 1)] {
        let lines = lines_of(&view(), size).concat();
        assert!(size.0 < 20 || lines.replace(' ', "").contains("thisneeds80×24"), "{size:?}: {lines}");
    }
    check_shows(&lines_of(&view(), (200, 60)), "gpt-4o-mini");
}

#[test]
fn an_empty_gateway_says_what_there_is_not() {
    let mut view = view();
    let overview = &mut view.overview;
    overview.requests.clear();
    overview.budgets.clear();
    overview.agents.clear();
    overview.refusals.clear();
    overview.risks.clear();
    overview.risk_events.clear();
    (overview.agents_total, overview.in_flight) = (0, 0);
    let lines = lines(&view);
    for pane in Pane::ALL {
        check_shows(&lines, pane.when_empty());
        check_shows(&lines, &format!("{} {} (0)", pane.index() + 1, pane.title()));
    }
}

#[test]
fn a_kill_and_a_silent_daemon_stand_in_the_first_line() {
    let mut view = view();
    let reason = "a leak\u{1b}[2J".to_owned();
    view.overview.killed = Some(gateway::overview::TakenBack { at: 0, reason });
    view.overview.state = "killed".to_owned();
    check_shows(&lines(&view)[..1], "KILLED (a leak\\u{1b}[2J");
    view.silence = Some("the daemon is not running".to_owned());
    check_shows(&lines(&view)[..1], "the daemon is not running, trying again");
    let mut locked = super::tests::view();
    locked.overview.state = "locked".to_owned();
    check_shows(&lines(&locked)[..1], "LOCKED");
    let mut failing = super::tests::view();
    failing.overview.log = "the disk is full".to_owned();
    check_shows(&lines(&failing)[..1], "log: the disk is full");
}

#[test]
fn long_lists_keep_the_chosen_row_on_the_screen() {
    let mut view = view();
    let agent = view.overview.agents[0].clone();
    view.overview.agents = (0..500)
        .map(|number| gateway::overview::AgentToday { name: format!("agent-{number}"), ..agent.clone() })
        .collect();
    view.overview.agents_total = 5_000;
    view.pane = Pane::Agents;
    check_shows(&lines(&view), "3 agents (500 of 5000)");
    check_shows(&lines(&view), "  agent-0 ");
    for _ in 0..30 {
        view.press(ratatui::crossterm::event::KeyCode::PageDown.into());
    }
    check_shows(&lines(&view), "  agent-300 ");
    // The other panes keep their place.
    for pane in Pane::ALL {
        check_shows(&lines(&view), &format!("{} {} (", pane.index() + 1, pane.title()));
    }
}

#[test]
fn names_give_way_to_numbers() {
    let mut view = view();
    let request = &mut view.overview.requests[0];
    request.agent = "a".repeat(63);
    request.model = Some("m".repeat(200));
    let shown = lines(&view);
    check_shows(&shown, "…");
    check_shows(&shown, "1500  320  ~$0.000417  42s");
}

#[test]
fn a_row_is_opened_with_all_that_is_known() {
    let mut view = view();
    view.mode = Mode::Detail;
    let shown = lines(&view);
    for text in
        ["capability      abcdefgh", "response bytes  4096", "is streaming    true", "any key leads back"]
    {
        check_shows(&shown, text);
    }
    view.pane = Pane::Budgets;
    check_shows(&lines(&view), "limit      10.000000 usd");
    view.mode = Mode::Help;
    check_shows(&lines(&view), "unkill");
}

#[test]
fn what_is_about_to_be_done_is_asked_in_the_last_line() {
    let mut view = view();
    view.mode = Mode::Asks(Action::RevokeAgent("ci".to_owned()));
    assert_eq!(lines(&view)[23], "revoke the agent ci, and cut what it runs? [y/n]");
    view.mode = Mode::Panes;
    view.message = Some("revoked ci".to_owned());
    assert_eq!(lines(&view)[23], "revoked ci");
}
