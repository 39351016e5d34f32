//! `man`: manual pages, made of what `--help` is made of, so that the two cannot differ.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use serde_json::json;

use crate::app::App;
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page is printed, such as `agent mint`; without one, that of tokfence itself
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    words: Vec<String>,
    /// Write every page into this folder instead, one for each command
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match &self.dir {
            Some(dir) => write_all(app, dir),
            None => print(app, &self.words),
        }
    }
}

fn print(app: &App, words: &[String]) -> Result<(), Failure> {
    let all = pages().map_err(not_made)?;
    let name = file_name(words.iter().map(String::as_str));
    let Some((name, page)) = all.into_iter().find(|(file, _)| *file == name) else {
        let message = format!("there is no command `{}`", words.join(" "));
        return Err(Failure::new(Exit::NotFound, "no_such_command", message).with_hint("tokfence --help"));
    };
    app.output.data(&json!({ "name": name, "page": page }), || page.clone());
    Ok(())
}

fn write_all(app: &App, dir: &PathBuf) -> Result<(), Failure> {
    let all = pages().map_err(not_made)?;
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        all.iter().try_for_each(|(name, page)| fs::write(dir.join(name), page))
    };
    write().map_err(|error| {
        Failure::new(Exit::Failed, "not_written", format!("{} cannot be written: {error}", dir.display()))
    })?;
    let names: Vec<&String> = all.iter().map(|(name, _)| name).collect();
    let dir = dir.display().to_string();
    app.output.done(&json!({ "dir": dir, "pages": names }), || {
        format!("{} pages are in {dir}; read one with `man -l {dir}/tokfence.1`", names.len())
    });
    Ok(())
}

fn not_made(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, "not_made", format!("the page cannot be made: {error}"))
}

/// Every page with the name of its file: `tokfence.1`, `tokfence-agent-mint.1`.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut root = crate::args::Args::command();
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut Vec::new(), &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, words: &mut Vec<String>, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let name = file_name(words.iter().map(String::as_str));
    let title = name.trim_end_matches(".1").to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(title.to_uppercase()).render(&mut page)?;
    pages.push((name, String::from_utf8_lossy(&page).into_owned()));
    for inner in command.get_subcommands() {
        words.push(inner.get_name().to_owned());
        add(inner, words, pages)?;
        words.pop();
    }
    Ok(())
}

fn file_name<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let name: Vec<&str> = std::iter::once("tokfence").chain(words).collect();
    format!("{}.1", name.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_that_tells_of_it() {
        let pages = pages().unwrap();
        let page = |name: &str| &pages.iter().find(|(file, _)| file == name).unwrap().1;
        assert!(page("tokfence.1").contains("agent"));
        assert!(page("tokfence-agent-mint.1").contains("\\-\\-ttl"));
        assert!(page("tokfence-man.1").contains("\\-\\-dir"));
        assert!(pages.iter().all(|(_, page)| page.starts_with(".ie") && page.contains(".TH TOKFENCE")));
    }
}
