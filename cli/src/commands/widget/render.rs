//! A menu in the words of each program.
//!
//! SwiftBar, xbar and Argos read lines: a text, and behind a `|` what the line does, as `name='value'`. What is behind the
//! first `|` is read as words of a shell by Argos, and by a parser of its own by SwiftBar, which knows no way to write a quote
//! within quotes. So a path with a quote in it gets no actions, rather than others than those that were meant.

use std::path::Path;

use serde_json::{Value, json};

use super::menu::{Action, Menu, Seen};
use crate::app::App;
use crate::commands::start::this_program;
use crate::failure::Failure;

/// SwiftBar makes pictures of words between colons, and symbols.
const SWIFTBAR_TEXT: &str = "emojize=false symbolize=false";
/// Argos reads markup and escapes as well.
const ARGOS_TEXT: &str = "emojize=false unescape=false useMarkup=false ansi=false";

/// How this program is called for this home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The program, and what stands in front of the command.
    words: Vec<String>,
}

impl Call {
    pub(super) fn of(app: &App) -> Result<Self, Failure> {
        Self::new(&this_program()?, app)
    }

    /// The same of another program file.
    pub(super) fn new(program: &Path, app: &App) -> Result<Self, Failure> {
        let text = |path: &Path| {
            let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
            text.map(str::to_owned)
                .ok_or_else(|| Failure::usage(format!("{} cannot stand in a script", path.display())))
        };
        let mut words = vec![text(program)?, "--home".to_owned(), text(app.home.dir())?];
        if app.config_path != app.home.config() {
            words.extend(["--config".to_owned(), text(&app.config_path)?]);
        }
        Ok(Self { words })
    }

    #[cfg(test)]
    pub(super) fn from_words(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// The file of the program.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("tokfence", String::as_str)
    }

    /// A command line of a shell.
    pub(super) fn in_shell(&self, command: &[&str]) -> String {
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let words = self.words.iter().map(|word| quoted(word));
        words.chain(command.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>().join(" ")
    }

    /// What stands behind the `|` of a line that calls it; nothing where that cannot be written.
    fn in_menu(&self, action: &Action) -> Option<String> {
        if self.words.iter().any(|word| word.contains(['\'', '\\'])) {
            return None;
        }
        let words = self.words.iter().map(String::as_str).chain(action.words.iter().copied());
        let named = words.enumerate().map(|(index, word)| match index {
            0 => format!("bash='{word}'"),
            index => format!("param{index}='{word}'"),
        });
        let how = format!("terminal={} refresh=true", action.needs_terminal);
        Some(named.chain([how]).collect::<Vec<_>>().join(" "))
    }
}

/// For SwiftBar and xbar.
pub(super) fn swiftbar(menu: &Menu, call: &Call) -> String {
    lines(menu, call, SWIFTBAR_TEXT, "font=Menlo")
}

/// For Argos.
pub(super) fn argos(menu: &Menu, call: &Call) -> String {
    lines(menu, call, ARGOS_TEXT, "font=monospace")
}

fn lines(menu: &Menu, call: &Call, text: &str, font: &str) -> String {
    let mut lines = vec![format!("{} | {text}", menu.headline)];
    for group in &menu.groups {
        lines.push("---".to_owned());
        lines.extend(group.iter().map(|line| format!("{line} | {text} {font}")));
    }
    lines.push("---".to_owned());
    let actions: Option<Vec<String>> = menu
        .actions
        .iter()
        .map(|action| call.in_menu(action).map(|does| format!("{} | {text} {does}", action.text)))
        .collect();
    lines.extend(actions.unwrap_or_else(|| {
        vec![format!("a path with a quote or a backslash in it cannot be called from a menu | {text}")]
    }));
    lines.push(format!("Look again | {text} refresh=true"));
    lines.join("\n")
}

/// For waybar: one line of JSON, whose texts are markup.
pub(super) fn waybar(menu: &Menu) -> String {
    let groups: Vec<String> = menu.groups.iter().map(|group| group.join("\n")).collect();
    let document = json!({
        "text": markup(&menu.headline),
        "alt": menu.state,
        "tooltip": markup(&groups.join("\n\n")),
        "class": menu.state,
    });
    document.to_string()
}

/// Text that is no markup.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// For programs of others.
pub(super) fn document(menu: &Menu, seen: &Seen) -> Value {
    let overview = match seen {
        Seen::Running(overview) => serde_json::to_value(overview).unwrap_or_default(),
        Seen::Down(_) | Seen::Silent(_) => Value::Null,
    };
    json!({
        "running": !matches!(seen, Seen::Down(_)),
        "state": menu.state,
        "headline": menu.headline,
        "lines": menu.lines().collect::<Vec<_>>(),
        "overview": overview,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::kill::TakenBack;
    use crate::commands::top::samples::overview;

    fn call() -> Call {
        Call::from_words(&["/usr/local/bin/tokfence", "--home", "/srv/me/tokfence"])
    }

    fn running() -> (Menu, Seen) {
        let seen = Seen::Running(Box::new(overview()));
        (Menu::of(&seen), seen)
    }

    #[test]
    fn swiftbar_gets_lines_and_what_they_do() {
        let expected = "\
$2.50 · 24 | emojize=false symbolize=false
---
serves http://127.0.0.1:9471 for 2h | emojize=false symbolize=false font=Menlo
---
today $2.500000 | emojize=false symbolize=false font=Menlo
24 requests, 2 refused | emojize=false symbolize=false font=Menlo
45.0k tokens in, 12.3k out | emojize=false symbolize=false font=Menlo
---
██████████ 100% openai/monthly: $10.000000 of $10.000000 | emojize=false symbolize=false font=Menlo
█████▒▒···  70% global/daily: $5.000000 of $10.000000 | emojize=false symbolize=false font=Menlo
---
ci runs gpt-4o-mini: 320 tokens out, 42s | emojize=false symbolize=false font=Menlo
---
groq is revoked: prices | emojize=false symbolize=false font=Menlo
---
dev is RED (secret_in_request) | emojize=false symbolize=false font=Menlo
---
Kill: serve nothing, cut what runs | emojize=false symbolize=false bash='/usr/local/bin/tokfence' param1='--home' param2='/srv/me/tokfence' param3='kill' terminal=false refresh=true
Open the live view | emojize=false symbolize=false bash='/usr/local/bin/tokfence' param1='--home' param2='/srv/me/tokfence' param3='top' terminal=true refresh=true
Follow the log | emojize=false symbolize=false bash='/usr/local/bin/tokfence' param1='--home' param2='/srv/me/tokfence' param3='log' param4='-f' terminal=true refresh=true
Stop the gateway | emojize=false symbolize=false bash='/usr/local/bin/tokfence' param1='--home' param2='/srv/me/tokfence' param3='stop' terminal=false refresh=true
Look again | emojize=false symbolize=false refresh=true";
        let shown = swiftbar(&running().0, &call());
        let lines = shown.lines().filter(|line| !line.starts_with("Open the dashboard | "));
        assert_eq!(lines.collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn argos_reads_no_markup_and_no_escapes() {
        let text = argos(&running().0, &call());
        let lines: Vec<&str> = text.lines().filter(|line| *line != "---").collect();
        assert!(lines.iter().all(|line| line.contains(&format!(" | {ARGOS_TEXT}"))), "{text}");
        assert!(lines[0].starts_with("$2.50 · 24 | "), "{text}");
    }

    #[test]
    fn waybar_gets_one_line_of_json() {
        let text = waybar(&running().0);
        assert_eq!(text.lines().count(), 1);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["text"], &document["class"]), (&"$2.50 · 24".into(), &"warning".into()));
        assert!(document["tooltip"].as_str().unwrap().contains("70% global/daily"));
    }

    #[test]
    fn programs_get_the_lines_and_the_whole_overview() {
        let (menu, seen) = running();
        let document = document(&menu, &seen);
        assert_eq!((&document["running"], &document["state"]), (&true.into(), &"warning".into()));
        assert_eq!(document["overview"], serde_json::to_value(overview()).unwrap());
        assert_eq!(document["lines"][0], "serves http://127.0.0.1:9471 for 2h");
    }

    #[test]
    fn no_text_makes_a_line_or_an_action() {
        let mut overview = overview();
        let bad = "x | bash='/bin/sh' param1='-c' refresh=true\n---\n--sub\r\u{1b}[2J <b>&amp;";
        overview.killed = Some(gateway::overview::TakenBack { at: 0, reason: bad.to_owned() });
        overview.revoked_providers[0].taken_back.reason = bad.to_owned();
        overview.requests[0].model = Some(bad.to_owned());
        overview.requests[0].agent = bad.to_owned();
        overview.risks[0].agent = Some(bad.to_owned());
        overview.budgets[0].name = bad.to_owned();
        overview.address = bad.to_owned();
        overview.log = bad.to_owned();
        let seen = Seen::Running(Box::new(overview));
        let menu = Menu::of(&seen);
        let count = menu.lines().count() + menu.groups.len() + menu.actions.len() + 3;
        for text in [swiftbar(&menu, &call()), argos(&menu, &call())] {
            assert_eq!(text.lines().count(), count, "{text}");
            for line in text.lines().filter(|line| *line != "---") {
                assert_eq!(line.matches('|').count(), 1, "{line}");
                assert!(!line.starts_with('-') && !line.chars().any(char::is_control), "{line:?}");
                let does = line.split_once('|').unwrap().1;
                assert!(!does.contains("/bin/sh"), "{line}");
            }
        }
        let shown: Value = serde_json::from_str(&waybar(&menu)).unwrap();
        assert!(!shown.to_string().contains('<'), "{shown}");
    }

    #[test]
    fn a_path_that_cannot_be_quoted_gets_no_actions() {
        let menu = running().0;
        for path in ["/it's/tokfence", r"/a\b/tokfence"] {
            let text = swiftbar(&menu, &Call::from_words(&[path]));
            assert!(!text.contains("bash=") && text.contains("cannot be called from a menu"), "{text}");
        }
        let text = swiftbar(&menu, &Call::from_words(&["/a b|c/tokfence"]));
        assert!(text.contains("bash='/a b|c/tokfence' param1='kill'"), "{text}");
        let call = Call::from_words(&["/it's/a \"b\" $HOME"]);
        assert_eq!(call.in_shell(&["widget"]), r#"'/it'\''s/a "b" $HOME' widget"#);
    }

    #[test]
    fn a_gateway_that_is_down_is_shown_with_what_starts_it() {
        let menu = Menu::of(&Seen::Down(TakenBack::default()));
        let text = swiftbar(&menu, &call());
        assert!(text.starts_with("tokfence off | "), "{text}");
        assert!(text.contains("the gateway is not running"), "{text}");
        assert!(text.contains("param3='start' param4='-d' terminal=true"), "{text}");
        let silent = Menu::of(&Seen::Silent("busy | bash=x".to_owned()));
        assert!(argos(&silent, &call()).contains("does not answer: busy ¦ bash=x |"));
    }

    #[test]
    fn what_is_killed_is_offered_back_and_what_is_locked_is_told() {
        let mut killed = overview();
        killed.killed = Some(gateway::overview::TakenBack { at: 0, reason: "a leak".to_owned() });
        killed.state = "killed".to_owned();
        let menu = Menu::of(&Seen::Running(Box::new(killed)));
        assert_eq!((menu.headline.as_str(), menu.state), ("KILLED · $2.50 · 24", "killed"));
        assert_eq!(menu.actions[0].words, ["unkill"]);
        let mut locked = overview();
        locked.state = "locked".to_owned();
        let menu = Menu::of(&Seen::Running(Box::new(locked)));
        assert_eq!((menu.headline.as_str(), menu.state), ("LOCKED · $2.50 · 24", "locked"));
        assert!(menu.actions.iter().any(|action| action.words == ["unlock"] && action.needs_terminal));
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let mut long = overview();
        long.budgets = (0..20).map(|_| long.budgets[0].clone()).collect();
        let menu = Menu::of(&Seen::Running(Box::new(long)));
        assert!(menu.lines().any(|line| line == "and 12 more budgets"));
    }
}
