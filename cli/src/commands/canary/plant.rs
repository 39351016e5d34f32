//! `canary plant`: lines are added to files where an agent, or who robs it, comes across them.

use std::path::{Path, PathBuf};

use clap::Args;
use policy::{Canary, CanaryKind, DecoyShape};
use serde_json::{Value, json};
use storage::{CanarySummary, Plant, PlantManner, Store};

use super::{file, find, git};
use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};
use crate::format::plain;
use crate::user_file;

/// Where agents find keys.
const ENV_FILE: &str = ".env";
/// What agents take into their system prompts.
const PROMPT_FILES: [&str; 3] = ["CLAUDE.md", "AGENTS.md", "GEMINI.md"];

#[derive(Debug, Args)]
pub(crate) struct PlantIn {
    /// The canary's name
    name: String,
    #[command(flatten)]
    place: Place,
    /// Add a decoy even to a file that git tracks, and that others therefore get
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// The file to add it to; for a decoy it is made where there is none
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The folder of an agent: a decoy goes to its `.env`, a mark to its CLAUDE.md, AGENTS.md and GEMINI.md
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

/// What came of one file.
struct Planted {
    path: String,
    status: &'static str,
    is_new: bool,
    variables: Vec<String>,
}

impl PlantIn {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        let mut store = app.store()?;
        let known = find(&store, &self.name)?;
        if known.canary.kind == CanaryKind::Vault {
            let message = format!("`{}` is in the vault, and must be nowhere else", known.canary.name);
            return Err(Failure::usage(message).with_hint("tokfence canary add NAME --kind decoy"));
        }
        let paths = self.place.resolve(known.canary.kind)?;
        if known.canary.kind == CanaryKind::Decoy && !self.force {
            paths.iter().try_for_each(|path| refuse_tracked(path))?;
        }
        let planted: Vec<Planted> =
            paths.iter().map(|path| plant(&mut store, &known, path)).collect::<Result<_, _>>()?;
        let document = json!({
            "name": known.canary.name.as_str(),
            "files": planted.iter().map(Planted::document).collect::<Vec<_>>(),
        });
        app.output.done(&document, || planted.iter().map(Planted::describe).collect::<Vec<_>>().join("\n"));
        Ok(())
    }
}

impl Place {
    /// The files, each from the root, in folders that exist.
    fn resolve(&self, kind: CanaryKind) -> Result<Vec<PathBuf>, Failure> {
        if let Some(path) = &self.file {
            let path = user_file::from_root(path)?;
            if kind == CanaryKind::Prompt && !path.exists() {
                return Err(no_file(format!("there is no file {}", path.display())));
            }
            return Ok(vec![path]);
        }
        let folder = self.workspace.as_deref().unwrap_or(Path::new("."));
        if kind == CanaryKind::Decoy {
            return Ok(vec![user_file::from_root(&folder.join(ENV_FILE))?]);
        }
        // One that is a link leads to another of them as a rule; what it leads to need not be in the folder.
        let found: Vec<PathBuf> = PROMPT_FILES
            .iter()
            .filter_map(|name| user_file::from_root(&folder.join(name)).ok())
            .filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file()))
            .collect();
        if found.is_empty() {
            let message = format!("{} has no {}", folder.display(), PROMPT_FILES.join(", "));
            return Err(no_file(message).with_hint("name the file of the prompt with --file"));
        }
        Ok(found)
    }
}

fn no_file(message: String) -> Failure {
    Failure::new(Exit::NotFound, "no_such_file", message)
}

fn refuse_tracked(path: &Path) -> Result<(), Failure> {
    let what = match git::is_tracked(path) {
        Some(false) => return Ok(()),
        Some(true) => "git tracks",
        None => "git may track",
    };
    let message = format!("{what} {}, and would give the decoy to others", path.display());
    Err(Failure::new(Exit::Unsafe, "tracked_by_git", message).with_hint("--force adds it all the same"))
}

/// Adds the canary to one file, unless it is there already.
fn plant(store: &mut Store, known: &CanarySummary, path: &Path) -> Result<Planted, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::usage("the path is not UTF-8"))?.to_owned();
    let content = user_file::read(path)?;
    let stands = |plant: &&Plant| {
        let content = content.as_deref().unwrap_or_default();
        plant.path == text && file::without(content, &plant.lines, plant.manner).is_some()
    };
    if let Some(plant) = known.plants.iter().find(stands) {
        let variables = variables_of(&plant.lines);
        return Ok(Planted { path: text, status: "unchanged", is_new: false, variables });
    }
    let lines = lines(&known.canary, path, content.as_deref().unwrap_or_default())?;
    let manner = file::manner(content.as_deref());
    let id = store.remember_plant(known.canary.id, &text, &lines, manner, now_us())?;
    if let Err(failure) = file::append(path, &lines, manner) {
        store.forget_plant(id, now_us())?;
        return Err(failure);
    }
    let variables = variables_of(&lines);
    Ok(Planted { path: text, status: "planted", is_new: manner == PlantManner::Made, variables })
}

/// What to add to a file with this content.
fn lines(canary: &Canary, path: &Path, content: &[u8]) -> Result<String, Failure> {
    let marks: Vec<&str> = canary.marks().collect();
    match canary.shape {
        Some(shape) => {
            let names = free_names(shape, content);
            Ok(names.iter().zip(marks).map(|(name, mark)| format!("{name}={mark}\n")).collect())
        }
        None => marks.first().map_or(Ok(String::new()), |mark| comment(mark, path, content)),
    }
}

/// Variables that the file does not set yet: a second line of the same name would take the place of the first.
fn free_names(shape: DecoyShape, content: &[u8]) -> Vec<String> {
    let content = String::from_utf8_lossy(content);
    let is_set = |name: &String| {
        let mut lines = content.lines().map(|line| line.trim_start().trim_start_matches("export "));
        lines.any(|line| {
            line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        })
    };
    let mut number = 1;
    loop {
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        let names: Vec<String> = shape.variables().iter().map(|name| format!("{name}{suffix}")).collect();
        if !names.iter().any(is_set) {
            return names;
        }
        number += 1;
    }
}

/// The line that a person puts into a prompt.
pub(super) fn mark_line(mark: &str) -> String {
    format!("ref: {mark}")
}

/// A mark as a line that readers pass over and that still reaches the model. In Markdown that is the definition of a
/// link nobody uses: HTML comments are taken out by agents (Claude Code does so) before the model sees the text.
fn comment(mark: &str, path: &Path, content: &[u8]) -> Result<String, Failure> {
    let line = mark_line(mark);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("md" | "mdc" | "markdown") => {
            // It is one only after an empty line.
            let before = if content.is_empty() || content.ends_with(b"\n\n") { "" } else { "\n" };
            Ok(format!("{before}[//]: # ({line})\n"))
        }
        Some("json" | "jsonl" | "jsonc" | "json5") => {
            let message = format!("a line cannot be added to {}", path.display());
            Err(Failure::usage(message).with_hint("write the mark into the text of the prompt"))
        }
        _ => Ok(format!("# {line}\n")),
    }
}

fn variables_of(lines: &str) -> Vec<String> {
    lines.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
}

impl Planted {
    fn document(&self) -> Value {
        json!({ "path": self.path, "status": self.status, "is_new": self.is_new, "variables": self.variables })
    }

    fn describe(&self) -> String {
        let path = plain(&self.path);
        let name = if self.variables.is_empty() {
            String::new()
        } else {
            format!(" as {}", self.variables.join(", "))
        };
        match self.status {
            "planted" if self.is_new => format!("made {path} with it{name}"),
            "planted" => format!("added it to {path}{name}"),
            _ => format!("it stands in {path} already{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{CanaryId, CanaryValue};

    fn canary(shape: Option<DecoyShape>, value: &str) -> Canary {
        Canary {
            id: CanaryId(1),
            kind: if shape.is_some() { CanaryKind::Decoy } else { CanaryKind::Prompt },
            name: "spare".parse().unwrap(),
            shape,
            value: CanaryValue::Text(value.into()),
            holder: None,
        }
    }

    #[track_caller]
    fn check(shape: Option<DecoyShape>, value: &str, path: &str, content: &str, expected: &str) {
        let lines = lines(&canary(shape, value), Path::new(path), content.as_bytes()).unwrap();
        assert_eq!(lines, expected, "{path}: {content:?}");
    }

    #[test]
    fn a_decoy_takes_a_name_that_is_free() {
        let openai = Some(DecoyShape::OpenAi);
        check(openai, "sk-1", ".env", "", "OPENAI_API_KEY_BACKUP=sk-1\n");
        check(
            openai,
            "sk-1",
            ".env",
            "OPENAI_API_KEY=x\n#OPENAI_API_KEY_BACKUP=\n",
            "OPENAI_API_KEY_BACKUP=sk-1\n",
        );
        for taken in ["OPENAI_API_KEY_BACKUP=", "  export  OPENAI_API_KEY_BACKUP = 'x'"] {
            check(openai, "sk-1", ".env", taken, "OPENAI_API_KEY_BACKUP_2=sk-1\n");
        }
        let taken = "OPENAI_API_KEY_BACKUP=\nOPENAI_API_KEY_BACKUP_2=\n";
        check(openai, "sk-1", ".env", taken, "OPENAI_API_KEY_BACKUP_3=sk-1\n");
        let pair = "AWS_ACCESS_KEY_ID_BACKUP=AKIA1\nAWS_SECRET_ACCESS_KEY_BACKUP=k+/1\n";
        check(Some(DecoyShape::Aws), "AKIA1:k+/1", ".env", "", pair);
    }

    #[test]
    fn a_mark_is_a_comment_that_reaches_the_model() {
        check(None, "tkc-1", "CLAUDE.md", "", "[//]: # (ref: tkc-1)\n");
        check(None, "tkc-1", "CLAUDE.md", "# Rules\n\n", "[//]: # (ref: tkc-1)\n");
        check(None, "tkc-1", "CLAUDE.md", "# Rules\n", "\n[//]: # (ref: tkc-1)\n");
        check(None, "tkc-1", "CLAUDE.md", "# Rules", "\n[//]: # (ref: tkc-1)\n");
        check(None, "tkc-1", "prompt.txt", "You are", "# ref: tkc-1\n");
        check(None, "tkc-1", ".cursorrules", "", "# ref: tkc-1\n");
        assert!(lines(&canary(None, "tkc-1"), Path::new("prompt.json"), b"{}").is_err());
    }
}
