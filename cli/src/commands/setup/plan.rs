//! What is to become of each file: read first, then worked out, and only then written.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use gateway::catalogue::AuthStyle;
use policy::scan::{Shape, shapes};
use policy::{Capability, CapabilityId, Scope, TokenRef};
use serde_json::{Value, json};

use super::Job;
use super::record::{Record, Written};
use crate::agents::{FileEdit, Format, merged};
use crate::app::{App, now_us};
use crate::commands::agent::{Grant, mint};
use crate::commands::scan;
use crate::failure::{Exit, Failure};
use crate::user_file::{self, PRIVATE};

/// A capability that ends sooner is not used again.
const REUSE_LEFT_US: i64 = 60 * 60 * 1_000_000;

/// The files of an agent as they are.
pub(super) struct Plan {
    files: Vec<Place>,
    record: Option<Record>,
}

/// One file before anything is done.
struct Place {
    path: PathBuf,
    current: Option<Vec<u8>>,
    /// What the settings are put into: what stood there before the last setup, if nobody has changed it since.
    base: String,
    /// What was remembered of it, if it still holds.
    old: Option<Written>,
    /// Why it is left alone.
    reason: Option<String>,
}

/// The capability that the agent gets.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) id: CapabilityId,
    pub(super) expires_at: Option<i64>,
    pub(super) is_new: bool,
}

impl Plan {
    /// Looks at the files that the agent reads.
    pub(super) fn of(job: &Job<'_>, record: Option<Record>) -> Result<Self, Failure> {
        let edits = (job.known.files)(&job.wiring(""));
        if let Some(other) = record.as_ref().and_then(|record| {
            record.files.iter().find(|written| !edits.iter().any(|edit| edit.path == written.path))
        }) {
            let message = format!("{} is set up in {} already", job.known.title, other.path.display());
            let hint = format!("tokfence setup {} --undo", job.known.name);
            return Err(Failure::new(Exit::Failed, "set_up_elsewhere", message).with_hint(hint));
        }
        let place = |edit: &FileEdit| Place::look(edit, record.as_ref());
        Ok(Self { files: edits.iter().map(place).collect::<Result<_, _>>()?, record })
    }

    /// The capability that stands in one of the files, if it still serves; otherwise a new one.
    pub(super) fn token(&self, app: &App, job: &Job<'_>, ttl: Duration) -> Result<Token, Failure> {
        let rules = app.store()?.load_policy()?.rules;
        let now = now_us();
        for text in self.files.iter().flat_map(|place| tokens_in(place.current.as_deref())) {
            let Ok(parsed) = TokenRef::parse(&text) else { continue };
            let Some(known) = rules.capabilities.get(&parsed.id()) else { continue };
            let is_it = known.secret_hash == parsed.secret_hash() && serves(known, job, now);
            if is_it && rules.check_caller(Some(known), &known.agent, now).is_ok() {
                let (id, expires_at) = (known.id, known.expires_at);
                return Ok(Token { text, id, expires_at, is_new: false });
            }
        }
        let providers = job.providers.iter().map(|provider| provider.id.clone()).collect();
        let grant = Grant {
            scope: Scope { providers, ..Scope::default() },
            ttl: Some(ttl),
            note: Some(format!("setup {}", job.known.name)),
            ..Grant::default()
        };
        let (token, expires_at) = mint(app, &job.agent, grant)?;
        Ok(Token { text: token.text.clone(), id: token.id, expires_at, is_new: true })
    }

    /// Writes the settings into the document that is printed.
    pub(super) fn print(&self, _app: &App, job: &Job<'_>, token: &Token, document: &mut Value) -> bool {
        let wiring = job.wiring(&token.text);
        let edits = (job.known.files)(&wiring);
        let files: Vec<Value> =
            edits.iter().zip(&self.files).map(|(edit, place)| place.shown(edit)).collect();
        document["files"] = json!(files);
        if let Some(provider) = job.providers.first().filter(|_| edits.is_empty()) {
            document["variables"] =
                json!({ "OPENAI_BASE_URL": wiring.openai_base(provider), "OPENAI_API_KEY": token.text });
        }
        true
    }

    /// Writes all files, or none and says why. Answers whether they are written.
    pub(super) fn write(
        &self,
        app: &App,
        job: &Job<'_>,
        token: &Token,
        document: &mut Value,
    ) -> Result<bool, Failure> {
        let edits = (job.known.files)(&job.wiring(&token.text));
        let texts: Vec<Result<String, String>> =
            edits.iter().zip(&self.files).map(|(edit, place)| place.text(edit)).collect();
        if texts.iter().any(Result::is_err) {
            self.print(app, job, token, document);
            for (place, text) in self.files.iter().zip(&texts) {
                if let Err(reason) = text {
                    let path = place.path.display();
                    app.output.warn(&format!("{path} is left alone, because {reason}; add this by hand:"));
                }
            }
            return Ok(false);
        }
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        let changed: Vec<bool> =
            self.files.iter().zip(&texts).map(|(place, text)| place.is_changed_by(text)).collect();
        let mut record = Record { capability: token.id.to_string(), files: Vec::new() };
        for (place, text) in self.files.iter().zip(&texts) {
            record.files.push(place.begin(text.as_bytes())?);
        }
        // What is to be written is remembered first: whatever happens from here on can be taken back.
        record.save(app, job.known.name)?;
        let mut files = Vec::new();
        for ((place, text), is_changed) in self.files.iter().zip(&texts).zip(changed) {
            if is_changed {
                place.put(text.as_bytes())?;
            }
            let written = record.of(&place.path);
            let backup = written.and_then(|written| written.backup.as_ref());
            if let Some(backup) = backup.filter(|_| is_changed && place.holds_key(app)) {
                app.output.warn(&format!(
                    "a key of a provider stood in {}, and is in {} now; better: --undo, tokfence scan --fix, and this again",
                    place.path.display(),
                    backup.display()
                ));
            }
            let status = match (is_changed, &place.current) {
                (false, _) => "unchanged",
                (true, None) => "made",
                (true, Some(_)) => "changed",
            };
            files.push(json!({
                "path": place.path.display().to_string(), "status": status,
                "backup": backup.map(|path| path.display().to_string()),
            }));
        }
        document["files"] = json!(files);
        self.end_former(app, token)?;
        Ok(true)
    }

    /// Ends the capability of the last setup, which is in no file any more.
    fn end_former(&self, app: &App, token: &Token) -> Result<(), Failure> {
        let former: Option<CapabilityId> =
            self.record.as_ref().and_then(|record| record.capability.parse().ok());
        if let Some(former) = former.filter(|former| *former != token.id) {
            match app.store()?.revoke_capability(former, "it was set up anew", now_us()) {
                Err(storage::Error::NoSuchCapability { .. }) => {}
                revoked => drop(revoked?),
            }
            app.tell_daemon()?;
        }
        Ok(())
    }
}

impl Place {
    fn look(edit: &FileEdit, record: Option<&Record>) -> Result<Self, Failure> {
        let path = edit.path.clone();
        let (current, reason) = match user_file::read(&path) {
            Ok(current) => (current, None),
            // A link or the like: its owner has to see to it.
            Err(failure) if failure.exit == Exit::Unsafe => (None, Some(failure.message)),
            Err(failure) => return Err(failure),
        };
        let old = record
            .and_then(|record| record.of(&path))
            .filter(|written| written.is_as_written(current.as_deref()))
            .cloned();
        let base = match &old {
            Some(written) => written.before()?,
            None => current.clone(),
        };
        let base = String::from_utf8(base.unwrap_or_default());
        let reason = reason.or_else(|| base.is_err().then(|| "it is not text".to_owned()));
        Ok(Self { path, current, base: base.unwrap_or_default(), old, reason })
    }

    /// What it is to hold.
    fn text(&self, edit: &FileEdit) -> Result<String, String> {
        match &self.reason {
            Some(reason) => Err(reason.clone()),
            None => merged(&self.base, edit.format, &edit.settings),
        }
    }

    /// The settings alone, as they are written in such a file.
    fn shown(&self, edit: &FileEdit) -> Value {
        let text = merged("", edit.format, &edit.settings).unwrap_or_default();
        json!({ "path": self.path.display().to_string(), "status": "printed", "text": text })
    }

    fn holds_key(&self, app: &App) -> bool {
        app.config().is_ok_and(|config| scan::holds_key(&config, self.base.as_bytes()))
    }

    fn is_changed_by(&self, text: &str) -> bool {
        self.current.as_deref() != Some(text.as_bytes())
    }

    fn begin(&self, new: &[u8]) -> Result<Written, Failure> {
        match &self.old {
            Some(written) => Ok(written.again(new)),
            None => Written::begin(&self.path, self.current.as_deref(), new),
        }
    }

    fn put(&self, text: &[u8]) -> Result<(), Failure> {
        let folder = self.path.parent().unwrap_or(&self.path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| user_file::put(&self.path, text, PRIVATE))
            .map_err(|error| Failure::failed(&format!("write {}", self.path.display()), &error))
    }
}

/// Whether a capability is what this setup would make, for long enough.
fn serves(known: &Capability, job: &Job<'_>, now: i64) -> bool {
    let allowed = &known.scope.providers;
    known.agent == job.agent
        && known.expires_at.is_none_or(|end| end > now.saturating_add(REUSE_LEFT_US))
        && !known.scope.requires_unix_socket
        && job.providers.iter().all(|provider| allowed.is_empty() || allowed.contains(&provider.id))
}

/// The capabilities that stand in a file.
fn tokens_in(content: Option<&[u8]>) -> Vec<String> {
    let content = content.unwrap_or_default();
    let mut tokens = Vec::new();
    shapes(content, |shape, at| {
        if shape == Shape::Capability {
            let end = content[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
            tokens.extend(std::str::from_utf8(&content[at..at + end.count()]).map(str::to_owned));
        }
    });
    tokens
}

/// The providers of which nothing is in the files, because the agent has to be told their models and nobody knows any.
pub(super) fn left_out<'a>(job: &'a Job<'_>) -> Vec<&'a str> {
    let wiring = job.wiring("");
    let edits = (job.known.files)(&wiring);
    let texts: String =
        edits.iter().flat_map(|edit| &edit.settings).map(|setting| setting.value.to_string()).collect();
    let is_out = |url: &str| !["\"", "/"].iter().any(|end| texts.contains(&format!("{url}{end}")));
    let providers =
        job.providers.iter().filter(|provider| !edits.is_empty() && is_out(&wiring.url(provider)));
    providers.map(|provider| provider.id.as_str()).collect()
}

/// Variables of this shell that would come before what is in a file of variables.
pub(super) fn overrides(job: &Job<'_>, token: &str) -> Vec<String> {
    if job.providers.iter().any(|provider| provider.auth == AuthStyle::Passthrough) {
        return Vec::new();
    }
    let edits = (job.known.files)(&job.wiring(token));
    let settings = edits.iter().filter(|edit| edit.format == Format::DotEnv).flat_map(|edit| &edit.settings);
    let differs =
        |name: &str, value: &Value| std::env::var(name).is_ok_and(|set| Some(set.as_str()) != value.as_str());
    settings
        .map(|setting| (setting.at.join("_"), &setting.value))
        .filter(|(name, value)| differs(name, value))
        .map(|(name, _)| format!("{name} is set in this shell and comes before the file; unset {name}"))
        .collect()
}

/// What came of a file, in a line or as what belongs into it.
pub(super) fn describe(file: &Value) -> String {
    let path = file["path"].as_str().unwrap_or_default();
    match (file["status"].as_str().unwrap_or_default(), file["backup"].as_str()) {
        ("printed", _) => format!("# {path}\n{}", file["text"].as_str().unwrap_or_default()),
        ("changed", Some(backup)) => format!("changed {path}; what it held is in {backup}"),
        ("unchanged", _) => format!("{path} is as it should be"),
        (status, _) => format!("{status} {path}"),
    }
}
