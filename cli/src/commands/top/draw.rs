//! The view on a screen. Everything here takes data and a frame; colour underlines what words say already.

use gateway::overview::Overview;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Clear, Paragraph, Wrap};

use super::rows::{Pane, Row, Tone};
use super::view::{Mode, View};
use crate::columns::Column;
use crate::format::{fields, lines, local_clock, plain, rough, short, usd};

/// Below this nothing can be read.
const WIDTH_MIN: u16 = 80;
const HEIGHT_MIN: u16 = 24;

const KEYS: &str = "q quit  Tab pane  ↑↓ choose  Enter open  K kill  U unkill  R revoke  ? help";

const HELP: &str = "\
1 to 5, Tab, ← →    go to a pane
↑ ↓ j k             choose a row; PgUp and PgDn by ten
Enter               everything about the chosen row
K                   kill: serve nothing, and cut what runs (asks first)
U                   unkill: serve again what was served before (asks first)
R                   revoke the agent of the chosen row, and cut what it runs (asks first);
                    tokfence agent restore NAME gives back what it had
q, Esc, Ctrl-C      leave; the gateway goes on

The bar of a budget: █ is spent, ▒ is held by requests in flight, · is left.
~ before a cost: an estimate, because the provider has not reported yet. ?: no price is known.
+ behind a cost: some requests have no known price, and are not in it.
Figures of the log and of budgets are as old as reading them makes necessary: a second or less
where the log is not very long. What runs is as it is now.";

/// How things look: with colour or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    pub(super) has_color: bool,
}

impl Looks {
    fn of(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Warning if self.has_color => Style::new().fg(Color::Yellow),
            Tone::Alarm if self.has_color => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Warning | Tone::Alarm => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn header(self) -> Style {
        let style = Style::new().add_modifier(Modifier::DIM);
        if self.has_color { Style::new().fg(Color::DarkGray) } else { style }
    }

    fn title(self, is_focused: bool) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        match (is_focused, self.has_color) {
            (true, true) => style.fg(Color::Cyan),
            (true, false) => style.add_modifier(Modifier::UNDERLINED),
            (false, _) => style,
        }
    }
}

/// Draws the view.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, looks: Looks) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let Rect { width, height, .. } = area;
        let text = format!("the terminal has {width}×{height}; this needs {WIDTH_MIN}×{HEIGHT_MIN}. q quits");
        return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(head_lines(view, looks, head.width)), head);
    panes(frame, body, view, looks);
    frame.render_widget(foot_line(view, looks), foot);
    match &view.mode {
        Mode::Panes | Mode::Asks(_) => {}
        Mode::Help => page(frame, body, "help", Text::raw(HELP), looks),
        Mode::Detail => {
            let rows = view.rows(view.pane);
            let detail = rows.get(view.chosen(view.pane, &rows)).map(|row| lines(&fields(&row.detail)));
            let text = detail.unwrap_or_else(|| "it is gone".to_owned());
            page(frame, body, view.pane.title(), Text::raw(text), looks);
        }
    }
}

fn head_lines(view: &View, looks: Looks, width: u16) -> Vec<Line<'static>> {
    let overview = &view.overview;
    let (name, clock) = (format!("tokfence {}  ", plain(&overview.version)), local_clock(overview.at));
    let (state, tone) = state(view);
    let room = usize::from(width).saturating_sub(name.chars().count() + clock.chars().count() + 2);
    let state: String = state.chars().take(room).collect();
    let gap = " ".repeat(room - state.chars().count() + 2);
    vec![
        Line::from_iter([
            Span::raw(name),
            Span::styled(state, looks.of(tone).add_modifier(Modifier::BOLD)),
            Span::raw(format!("{gap}{clock}")),
        ]),
        Line::raw(today(overview)),
    ]
}

/// How the gateway is; where all is well, also where it is.
fn state(view: &View) -> (String, Tone) {
    let overview = &view.overview;
    let text = match (&view.silence, &overview.killed, overview.state.as_str()) {
        (Some(silence), _, _) => format!("{}, trying again", plain(silence)),
        (None, Some(killed), _) => format!("KILLED ({})", plain(&killed.reason)),
        (None, None, "ok") if overview.log != "ok" => format!("log: {}", plain(&overview.log)),
        (None, None, "ok") => {
            let age = rough(overview.at - overview.started_at);
            return (format!("ok  http://{}  for {age}", plain(&overview.address)), Tone::Plain);
        }
        (None, None, other) => plain(other).to_uppercase(),
    };
    (text, Tone::Alarm)
}

fn today(overview: &Overview) -> String {
    let today = &overview.today;
    let mut parts = vec![
        format!("today {}", usd(today.cost_usd)),
        format!("{} requests", short(today.requests)),
        format!("{} refused", short(today.refused)),
        format!("{} in, {} out", short(today.input_tokens), short(today.output_tokens)),
        format!("{} in flight", overview.in_flight),
    ];
    if today.unpriced > 0 {
        parts.push(format!("{} unpriced", short(today.unpriced)));
    }
    let revoked: Vec<&str> = overview.revoked_providers.iter().map(|one| one.provider.as_str()).collect();
    if !revoked.is_empty() {
        parts.push(format!("revoked: {}", plain(&revoked.join(", "))));
    }
    parts.join("  ")
}

fn foot_line(view: &View, looks: Looks) -> Line<'static> {
    match (&view.mode, &view.message) {
        (Mode::Asks(action), _) => {
            let style = looks.of(Tone::Alarm).add_modifier(Modifier::REVERSED);
            Line::styled(format!("{} [y/n] ", plain(&action.question())), style)
        }
        (Mode::Panes, Some(message)) => Line::styled(plain(message), looks.of(Tone::Warning)),
        (Mode::Panes, None) => Line::styled(KEYS, looks.header()),
        (Mode::Help | Mode::Detail, _) => Line::styled("any key leads back", looks.header()),
    }
}

fn panes(frame: &mut Frame<'_>, area: Rect, view: &View, looks: Looks) {
    let rows = Pane::ALL.map(|pane| view.rows(pane));
    let wanted = rows.each_ref().map(Vec::len);
    let heights = share(usize::from(area.height), wanted, view.pane.index());
    let mut y = area.y;
    for ((pane, rows), height) in Pane::ALL.into_iter().zip(&rows).zip(heights) {
        let height = u16::try_from(height).unwrap_or(0);
        let part = Rect { y, height, ..area };
        y += height;
        draw_pane(frame, part, view, pane, rows, looks);
    }
}

/// The heights of the panes: a title and a line each; the header of its columns and more lines where there are rows, for
/// the one that is looked at before the others.
fn share<const N: usize>(height: usize, rows: [usize; N], focus: usize) -> [usize; N] {
    let wanted = rows.map(|rows| if rows == 0 { 2 } else { rows + 2 });
    let mut heights = rows.map(|rows| if rows == 0 { 2 } else { 3 });
    let mut left = height.saturating_sub(heights.iter().sum());
    // The one that is looked at takes half of what is left, and the rest goes round.
    let first = (left.div_ceil(2)).min(wanted[focus].saturating_sub(heights[focus]));
    heights[focus] += first;
    left -= first;
    while left > 0 {
        let before = left;
        for (height, wanted) in heights.iter_mut().zip(wanted) {
            if left > 0 && *height < wanted {
                *height += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    heights
}

fn draw_pane(frame: &mut Frame<'_>, area: Rect, view: &View, pane: Pane, rows: &[Row], looks: Looks) {
    let is_focused = pane == view.pane;
    let mark = if is_focused { '▶' } else { ' ' };
    let title = format!("{mark} {} {} ({})", pane.index() + 1, pane.title(), count(pane, rows.len(), view));
    let mut lines = vec![Line::styled(title, looks.title(is_focused))];
    if rows.is_empty() {
        lines.push(Line::styled(format!("  {}", pane.when_empty()), looks.header()));
        return frame.render_widget(Paragraph::new(lines), area);
    }
    let widths = widths(pane.columns(), rows, usize::from(area.width).saturating_sub(2));
    let headers: Vec<String> = pane.columns().iter().map(|column| column.header().to_owned()).collect();
    lines.push(Line::styled(format!("  {}", line(pane.columns(), &widths, &headers)), looks.header()));
    let (chosen, shown) = (view.chosen(pane, rows), usize::from(area.height).saturating_sub(2));
    let skipped = (chosen + 1).saturating_sub(shown.max(1));
    for (index, row) in rows.iter().enumerate().skip(skipped).take(shown) {
        let text = format!("  {}", line(pane.columns(), &widths, &row.cells));
        let style = looks.of(row.tone);
        let is_chosen = is_focused && index == chosen;
        lines
            .push(Line::styled(text, if is_chosen { style.add_modifier(Modifier::REVERSED) } else { style }));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many there are of what a pane lists, which may be more than it lists.
fn count(pane: Pane, listed: usize, view: &View) -> String {
    let total = match pane {
        Pane::Agents => view.overview.agents_total,
        Pane::Requests => view.overview.in_flight.max(listed),
        Pane::Budgets | Pane::Refusals | Pane::Risk => listed,
    };
    if total > listed { format!("{listed} of {total}") } else { total.to_string() }
}

/// The widths of the columns. Where they do not fit, texts give way before numbers, the longest first.
fn widths(columns: &[Column], rows: &[Row], room: usize) -> Vec<usize> {
    let widest = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.cells.get(index));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(column.header().chars().count())
    };
    let mut widths: Vec<usize> =
        columns.iter().enumerate().map(|(index, column)| widest(index, column)).collect();
    let mut excess =
        (widths.iter().sum::<usize>() + 2 * columns.len().saturating_sub(1)).saturating_sub(room);
    const TEXT_MIN: usize = 6;
    while excess > 0 {
        let texts = columns.iter().enumerate().filter(|(_, column)| matches!(column, Column::Left(_)));
        let longest = texts.map(|(index, _)| index).max_by_key(|index| widths[*index]);
        let Some(longest) = longest.filter(|index| widths[*index] > TEXT_MIN) else { break };
        widths[longest] -= 1;
        excess -= 1;
    }
    widths
}

fn line(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let cells = columns.iter().zip(widths).zip(cells).map(|((column, width), cell)| {
        let cell = match cell.char_indices().nth(*width) {
            // One place is for the sign that something is missing.
            Some(_) => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
            None => cell.clone(),
        };
        column.pad(&cell, *width)
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// A page over the panes.
fn page(frame: &mut Frame<'_>, area: Rect, title: &str, text: Text<'_>, looks: Looks) {
    frame.render_widget(Clear, area);
    let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    frame.render_widget(Line::styled(title.to_owned(), looks.title(true)), head);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), body);
}
