//! A terminal that a program has to itself, and what a person sees there.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rexpect::process::{PtyProcess, WaitStatus};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::{Home, PATIENCE, eventually};

/// The same command once its terminal has a size: a size that comes later is an event of its own for the program.
fn after_sizing(command: &Command, columns: u16, rows: u16) -> Command {
    let mut sized = Command::new("/bin/sh");
    let script = format!("/bin/stty columns {columns} rows {rows}; exec \"$@\"");
    sized.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    let env = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    sized.env_clear().envs(env);
    sized
}

/// The program at a terminal of its own, as a person sees it.
pub(crate) struct Terminal {
    pub(crate) process: PtyProcess,
    pub(crate) screen: Arc<Mutex<vt100::Parser>>,
    line: File,
}

impl Terminal {
    pub(crate) fn start(
        home: &Home,
        args: &[&str],
        (columns, rows): (u16, u16),
        env: &[(&str, &str)],
    ) -> Self {
        let mut command = home.command(args.iter().copied());
        for (name, value) in env {
            command = command.env(name, value);
        }
        let mut process = PtyProcess::new(after_sizing(command.inner(), columns, rows)).unwrap();
        process.set_kill_timeout(Some(5_000));
        let line = process.get_file_handle().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            NonZero::new(rows).unwrap(),
            NonZero::new(columns).unwrap(),
            0,
        )));
        let (mut reader, shown) = (line.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            // The end of the program is an error of its terminal.
            while let Ok(count @ 1..) = reader.read(&mut part) {
                shown.lock().unwrap().process(&part[..count]);
            }
        });
        Self { process, screen, line }
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (height, width) = (NonZero::new(rows).unwrap(), NonZero::new(columns).unwrap());
        self.screen.lock().unwrap().screen_mut().set_size(height, width);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.line, size).unwrap();
    }

    pub(crate) fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.contents().contains(text) {
            assert!(std::time::Instant::now() < deadline, "{text:?} is not in\n{}", self.contents());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.line.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal takes lines and echoes signals, as it does where no program has it to itself.
    pub(crate) fn is_ordinary(&self) -> bool {
        tcgetattr(&self.line).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the end of the program. The terminal must be what it was.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> WaitStatus {
        let ended = eventually("the end of the program", || match self.process.status() {
            Some(WaitStatus::StillAlive) => None,
            other => other,
        });
        eventually("the screen of before", || {
            (!self.screen.lock().unwrap().screen().alternate_screen()).then_some(())
        });
        eventually("the cursor", || (!self.screen.lock().unwrap().screen().hide_cursor()).then_some(()));
        assert!(self.is_ordinary());
        ended
    }

    #[track_caller]
    pub(crate) fn quits(&mut self) {
        assert!(matches!(self.ends(), WaitStatus::Exited(_, 0)));
    }
}
