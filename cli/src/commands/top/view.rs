//! What the view shows and what keys do to it: plain data, without a terminal.

use gateway::overview::Overview;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{Pane, Row, rows};

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The last that was told.
    pub(super) overview: Overview,
    /// Why the daemon does not tell more, if it does not.
    pub(super) silence: Option<String>,
    pub(super) pane: Pane,
    /// The row that is chosen in each pane, by its key: rows move about.
    chosen: [Option<String>; Pane::ALL.len()],
    pub(super) mode: Mode,
    /// What came of the last thing that was done.
    pub(super) message: Option<String>,
}

/// What keys are for at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Panes,
    /// Everything about the chosen row.
    Detail,
    Help,
    /// Whether something is to be done.
    Asks(Action),
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Kill,
    Unkill,
    RevokeAgent(String),
}

/// What follows from a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Show it.
    Show,
    /// Ask the daemon again, and show it.
    Look,
    Do(Action),
    Quit,
}

impl Action {
    /// What is asked before.
    pub(super) fn question(&self) -> String {
        match self {
            Self::Kill => "kill: serve nothing, and cut what runs?".to_owned(),
            Self::Unkill => "unkill: serve again what was served before?".to_owned(),
            Self::RevokeAgent(name) => format!("revoke the agent {name}, and cut what it runs?"),
        }
    }
}

impl View {
    pub(super) fn of(overview: Overview) -> Self {
        Self { overview, ..Self::default() }
    }

    /// The rows of a pane.
    pub(super) fn rows(&self, pane: Pane) -> Vec<Row> {
        rows(pane, &self.overview)
    }

    /// Which row of a pane is chosen; the first where the one that was is gone.
    pub(super) fn chosen(&self, pane: Pane, rows: &[Row]) -> usize {
        let key = self.chosen[pane.index()].as_deref();
        rows.iter().position(|row| Some(row.key.as_str()) == key).unwrap_or(0)
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control_c {
            return Next::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Asks(action) => {
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    return Next::Do(action);
                }
                self.message = Some("nothing was done".to_owned());
                Next::Show
            }
            // Any key leads back.
            Mode::Help | Mode::Detail => Next::Show,
            Mode::Panes => self.press_in_panes(key.code),
        }
    }

    fn press_in_panes(&mut self, key: KeyCode) -> Next {
        self.message = None;
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.pane = self.pane.step(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.pane = self.pane.step(-1),
            KeyCode::Char(digit @ '1'..='5') => self.pane = Pane::ALL[usize::from(digit as u8 - b'1')],
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(10),
            KeyCode::PageUp => self.choose(-10),
            KeyCode::Enter if !self.rows(self.pane).is_empty() => self.mode = Mode::Detail,
            KeyCode::Char('?') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('K') => self.mode = Mode::Asks(Action::Kill),
            KeyCode::Char('U') => self.mode = Mode::Asks(Action::Unkill),
            KeyCode::Char('R') => self.ask_to_revoke(),
            KeyCode::Char(' ') => {}
            _ => return Next::Show,
        }
        Next::Look
    }

    fn choose(&mut self, by: isize) {
        let rows = self.rows(self.pane);
        let to = self.chosen(self.pane, &rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.chosen[self.pane.index()] = rows.get(to).map(|row| row.key.clone());
    }

    /// The agent of the chosen row, whatever pane it is in.
    fn ask_to_revoke(&mut self) {
        let rows = self.rows(self.pane);
        let agent = rows.get(self.chosen(self.pane, &rows)).and_then(|row| row.agent.clone());
        match agent {
            Some(name) => self.mode = Mode::Asks(Action::RevokeAgent(name)),
            None => self.message = Some("choose an agent, or a row that has one".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::overview;
    use super::*;

    fn view() -> View {
        View::of(overview())
    }

    fn press(view: &mut View, keys: &str) -> Next {
        let press = |c: char| {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                c => KeyCode::Char(c),
            };
            view.press(KeyEvent::new(code, KeyModifiers::NONE))
        };
        keys.chars().map(press).last().unwrap_or(Next::Show)
    }

    #[test]
    fn what_changes_something_is_asked_first_and_only_yes_is_yes() {
        let mut view = view();
        assert_eq!(press(&mut view, "K"), Next::Look);
        assert_eq!(view.mode, Mode::Asks(Action::Kill));
        assert_eq!(press(&mut view, "n"), Next::Show);
        assert_eq!((&view.mode, view.message.as_deref()), (&Mode::Panes, Some("nothing was done")));
        assert_eq!(press(&mut view, "K\n"), Next::Show);
        assert_eq!(press(&mut view, "Ky"), Next::Do(Action::Kill));
        assert_eq!(press(&mut view, "Uy"), Next::Do(Action::Unkill));
        assert_eq!(press(&mut view, "y"), Next::Show, "nothing was asked");
    }

    #[test]
    fn an_agent_is_revoked_from_its_row_and_from_those_that_name_it() {
        let mut view = view();
        view.pane = Pane::Agents;
        let revoke = |name: &str| Next::Do(Action::RevokeAgent(name.to_owned()));
        assert_eq!(press(&mut view, "Ry"), revoke("ci"));
        assert_eq!(press(&mut view, "jRy"), revoke("dev"));
        view.pane = Pane::Requests;
        assert_eq!(press(&mut view, "Ry"), revoke("ci"));
        view.pane = Pane::Budgets;
        assert_eq!(press(&mut view, "Ry"), Next::Show);
        assert_eq!(view.mode, Mode::Panes);
    }

    #[test]
    fn what_is_chosen_stays_chosen_when_rows_move_and_is_the_first_when_it_goes() {
        let mut view = view();
        view.pane = Pane::Agents;
        press(&mut view, "j");
        let chosen = |view: &View| {
            let rows = view.rows(Pane::Agents);
            rows[view.chosen(Pane::Agents, &rows)].key.clone()
        };
        assert_eq!(chosen(&view), "dev");
        view.overview.agents.reverse();
        assert_eq!(chosen(&view), "dev");
        view.overview.agents.retain(|agent| agent.name != "dev");
        assert_eq!(chosen(&view), "ci");
        press(&mut view, "jjjjkkkkkkk");
        view.overview.agents.clear();
        press(&mut view, "jk\n");
        assert_eq!(view.mode, Mode::Panes, "there is nothing to open");
    }

    #[test]
    fn panes_are_reached_in_turn_and_by_number() {
        let mut view = view();
        let mut seen = vec![view.pane];
        for _ in 1..Pane::ALL.len() {
            press(&mut view, "\t");
            seen.push(view.pane);
        }
        assert_eq!(seen, Pane::ALL);
        press(&mut view, "\t");
        assert_eq!(view.pane, Pane::ALL[0]);
        press(&mut view, "h");
        assert_eq!(view.pane, Pane::ALL[4]);
        press(&mut view, "2");
        assert_eq!(view.pane, Pane::ALL[1]);
    }

    #[test]
    fn the_view_is_left_by_q_and_by_control_c_wherever_it_is() {
        assert_eq!(press(&mut view(), "q"), Next::Quit);
        for mode in [Mode::Panes, Mode::Help, Mode::Detail, Mode::Asks(Action::Kill)] {
            let mut view = View { mode, ..view() };
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(view.press(key), Next::Quit);
        }
        let mut view = view();
        press(&mut view, "?");
        assert_eq!(view.mode, Mode::Help);
        assert_eq!(press(&mut view, "q"), Next::Show, "it leads back first");
    }
}
