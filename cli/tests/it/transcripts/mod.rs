//! What commands print, whole, as a person and as a program read it: each test is one sitting at a terminal, and its
//! transcript is a file in `snapshots/`. After a change that is meant, `INSTA_UPDATE=always cargo test --workspace --test it
//! transcripts` writes the files anew, and the difference is read before it is committed.

mod money;
mod requests;
mod setting_up;
mod slips;
mod switches;

use std::fmt::Write;

use insta::Settings;

use crate::support::{Home, Output, program};

/// What differs from one run to the next, and what stands in its place: just as long, where columns follow.
const CHANGING: &[(&str, &str)] = &[
    (r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b", "[ID]"),
    (r"\b01[0-9A-HJKMNP-TV-Z]{8}\b", "[ID......]"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[INSTANT]"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "[TIME.............]"),
    (r"\b\d{4}-\d\d-\d\d\b", "[DAY]"),
    (r"_us(.?): \d{16}", "_us$1: [INSTANT]"),
    (r"\b([0-9A-Z]{4}-){8}[0-9A-Z]{4}\b", "[RECOVERY CODE]"),
    (r"tfk_\w+", "[CAPABILITY]"),
    (r#"(capability("?:| ) *"?)\w{8}\b"#, "$1[CAP.ID]"),
    (r#""id": "\w{8}""#, r#""id": "[CAP.ID]""#),
    (r"(?m)^\w{8}(  (active|expired|revoked)  )", "[CAP.ID]$1"),
    (r"sk-proj-[\w-]{20,}", "[DECOY]"),
    (r"\b[0-9a-f]{64}\b", "[HASH]"),
    // The ports that a system gives away.
    (r"127\.0\.0\.1:[3-6]\d{4}", "127.0.0.1:[PORT]"),
    (r#"(process |"[pu]id": )\d+"#, "$1[NUMBER]"),
    (r"\b\d+(\.\d+)?(µs|ms|s)\b", "[SPAN]"),
    (r#"([_ ]ms"?:? +)[\d.]+"#, "$1[SPAN]"),
    // What the machine has.
    (r"(?m)^\w+ +(keyring|certificates) .*$", "[STATUS] $1 [FOUND]"),
    (
        r#""name": "(keyring|certificates)",\s+"status": .*,\s+"message": .*,\s+"hint": .*"#,
        r#""name": "$1", "status": [STATUS], "message": [FOUND], "hint": [HINT]"#,
    ),
    (env!("CARGO_PKG_VERSION"), "[VERSION]"),
];

/// A sitting at a terminal in a home.
struct Transcript<'a> {
    home: &'a Home,
    text: String,
}

impl<'a> Transcript<'a> {
    fn new(home: &'a Home) -> Self {
        Self { home, text: String::new() }
    }

    /// Runs a command, and then again for a program where it only shows something.
    fn show(&mut self, command: &str) -> &mut Self {
        self.run(command).run(&format!("--json {command}"))
    }

    /// Runs a command; `'` holds words together.
    fn run(&mut self, command: &str) -> &mut Self {
        self.run_with(command, "")
    }

    /// Runs a command that is given something on its standard input.
    fn run_with(&mut self, command: &str, input: &str) -> &mut Self {
        // Which agents are installed is the machine's.
        let command_line = self.home.command(words(command)).env("PATH", self.home.path());
        let output = command_line.input(input).run();
        self.write(command, &output);
        self
    }

    fn write(&mut self, command: &str, output: &Output) {
        let Output { code, stdout, stderr } = output;
        writeln!(self.text, "$ tokfence {command}").unwrap();
        self.text.push_str(stdout);
        for line in stderr.lines() {
            writeln!(self.text, "2> {line}").unwrap();
        }
        match code {
            Some(0) => self.text.push('\n'),
            code => writeln!(self.text, "exit {}\n", code.expect("no signal")).unwrap(),
        }
    }

    /// Holds the transcript against the one that is kept under this name.
    #[track_caller]
    fn check(&self, name: &str) {
        self.check_with(name, &[]);
    }

    /// The same with further filters.
    #[track_caller]
    fn check_with(&self, name: &str, further: &[(&str, &str)]) {
        let mut settings = Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_filters(CHANGING.iter().chain(further).copied());
        settings.add_filter(&regex::escape(program()), "tokfence");
        settings.add_filter(&regex::escape(self.home.path().to_str().expect("a text")), "[HOME]");
        settings.bind(|| insta::assert_snapshot!(name, self.text));
    }
}

fn words(command: &str) -> impl Iterator<Item = &str> {
    let parts = command.split('\'').enumerate();
    parts.flat_map(
        |(number, part)| if number % 2 == 1 { vec![part] } else { part.split_whitespace().collect() },
    )
}
