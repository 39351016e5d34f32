//! `init`: the home, the vault and the database. Whatever is there already stays as it is.

use clap::Args;
use gateway::config::Config;
use serde_json::{Value, json};
use storage::AuditAction;
use vault::{Entries, Entry, NewSlot, OnConflict, RecoveryCode, Secret, Vault};

use crate::app::App;
use crate::commands::scan::{self, InFiles};
use crate::commands::vault::{imported, owner};
use crate::failure::{Exit, Failure, chain};
use crate::prompt;
use crate::unlock::{self, Backend, PASSPHRASE_VARIABLE};

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Ask nothing; the passphrase comes from a descriptor or the environment
    #[arg(long)]
    non_interactive: bool,
    /// Read the vault's passphrase from this file descriptor
    #[arg(long, value_name = "N")]
    passphrase_fd: Option<u32>,
    /// Move the keys found in this shell's environment into the vault without asking
    #[arg(long)]
    import_env: bool,
    /// Move the keys found in files into the vault without asking, as `tokfence scan --fix` does
    #[arg(long)]
    import_files: bool,
}

impl Init {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        app.home.prepare()?;
        let config = app.config()?;
        let has_database = config.logging.db_path.exists();
        app.store()?;
        if app.home.vault().exists() {
            if !has_database {
                app.record(AuditAction::Init, "home", json!({ "vault": "unchanged" }));
            }
            let made = Made { vault: "unchanged", recovery: None, imported: &[] };
            return self.tell_and_look(app, &config, &made, || unlock::open(app));
        }
        let found = self.keys_of_environment(app, &config);
        let (mut vault, recovery) = self.make_vault(app)?;
        // The code that opens the vault is in no other place, so it is told whatever becomes of the keys.
        let stored = store(&mut vault, found);
        let imported = stored.as_deref().unwrap_or_default();
        app.record(AuditAction::Init, "home", json!({ "vault": "created", "imported": imported }));
        let made = Made { vault: "created", recovery: recovery.as_ref(), imported };
        let looked = self.tell_and_look(app, &config, &made, || Ok(vault));
        stored.and(looked)
    }

    /// Tells what was made, and looks for keys that lie in files. Before a person is asked anything more they have read
    /// what is told this once; a program gets one document of all.
    fn tell_and_look(
        &self,
        app: &App,
        config: &Config,
        made: &Made<'_>,
        open: impl FnOnce() -> Result<Vault, Failure>,
    ) -> Result<(), Failure> {
        if !app.output.is_json {
            tell(app, made, &Value::Null);
        }
        let moved = self.look_into_files(app, config, open);
        if app.output.is_json {
            tell(app, made, moved.as_ref().unwrap_or(&Value::Null));
        }
        moved.map(drop)
    }

    /// Keys that lie in files go into the vault where that is wanted, by what `scan --fix` does and `scan --undo` takes
    /// back. Answers the document of that.
    fn look_into_files(
        &self,
        app: &App,
        config: &Config,
        open: impl FnOnce() -> Result<Vault, Failure>,
    ) -> Result<Value, Failure> {
        let found = app.output.during(scan::SEARCHING, || InFiles::find(config));
        let found = match found {
            Ok(found) if found.count() > 0 => found,
            // Whoever only makes a home need not hear of a file that cannot be read.
            Ok(_) => return Ok(Value::Null),
            Err(_) if !self.import_files => return Ok(Value::Null),
            Err(failure) => return Err(failure),
        };
        let places = found.places();
        let (lie, them) = match found.count() {
            1 => (format!("a key lies in plain text ({places})"), "it"),
            count => (format!("{count} keys lie in plain text ({places})"), "them"),
        };
        let question = format!("{lie}. Move {them} into the vault, and put a capability in the place?");
        if self.import_files || self.may_ask(app) && prompt::confirm(&question) {
            return found.fix(app, config, open);
        }
        app.output.warn(&format!("{lie}; `tokfence scan --fix` moves {them} into the vault"));
        Ok(Value::Null)
    }

    fn may_ask(&self, app: &App) -> bool {
        !self.non_interactive && !app.output.is_json
    }

    /// A vault that the keyring opens where there is one, and a passphrase otherwise.
    fn make_vault(&self, app: &App) -> Result<(Vault, Option<RecoveryCode>), Failure> {
        let backend = unlock::backend()?;
        let given = match self.passphrase_fd {
            Some(fd) => Some(prompt::secret_from_fd(fd)?),
            None => unlock::passphrase_from_environment(app),
        };
        let has_keyring = given.is_none() && backend != Backend::File && vault::keyring_status().is_ok();
        if has_keyring || backend == Backend::Keyring {
            return create(app, &[NewSlot::Keyring, NewSlot::Recovery]);
        }
        let passphrase = match given {
            Some(passphrase) => passphrase,
            None if self.non_interactive || !prompt::has_terminal() => {
                return Err(Failure::new(
                    Exit::Usage,
                    "no_passphrase",
                    "a new vault needs a passphrase, and nobody can be asked",
                )
                .with_hint(format!("give it with --passphrase-fd, or in {PASSPHRASE_VARIABLE}")));
            }
            None => prompt::new_passphrase()?,
        };
        let slots =
            [NewSlot::Passphrase { passphrase: &passphrase, cost: unlock::kdf_cost() }, NewSlot::Recovery];
        create(app, &slots)
    }

    /// The keys in this shell's environment that are to be stored, each with its variable.
    fn keys_of_environment(&self, app: &App, config: &Config) -> Vec<(String, Entry)> {
        // What is not UTF-8 is no key.
        let texts = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut found = Vec::new();
        for (name, value) in texts.filter(|(_, value)| !value.is_empty() && !value.starts_with("tfk_")) {
            let Some(provider) = owner(config, &name) else { continue };
            if !self.import_env && !self.confirms(&name) {
                continue;
            }
            match imported(provider, Secret::new(value)) {
                Ok(entry) => found.push((name, entry)),
                Err(error) => app.output.note(&format!("{name} is left out: {}", chain(&error))),
            }
        }
        found
    }

    fn confirms(&self, name: &str) -> bool {
        !self.non_interactive
            && prompt::confirm(&format!("{name} is set in this shell. Store its key in the vault?"))
    }
}

fn create(app: &App, slots: &[NewSlot<'_>]) -> Result<(Vault, Option<RecoveryCode>), Failure> {
    let made = app.output.during("making the vault", || Vault::create(&app.home.vault(), slots));
    Ok(made?)
}

/// What `init` has to tell.
struct Made<'a> {
    vault: &'static str,
    recovery: Option<&'a RecoveryCode>,
    imported: &'a [String],
}

/// Stores keys in a new vault. Answers the variables they were in.
fn store(vault: &mut Vault, found: Vec<(String, Entry)>) -> Result<Vec<String>, Failure> {
    let mut entries = Entries::default();
    let mut names = Vec::new();
    for (name, entry) in found {
        entries.put(entry);
        names.push(name);
    }
    if !names.is_empty() {
        vault.merge(entries, OnConflict::Keep)?;
    }
    Ok(names)
}

/// With the document of the keys that were moved out of files, if any were to be.
fn tell(app: &App, made: &Made<'_>, moved: &Value) {
    let recovery = made.recovery.map(RecoveryCode::to_text);
    let document = json!({
        "home": app.home.dir().display().to_string(),
        "vault": made.vault,
        "recovery_code": recovery.as_ref().map(Secret::expose),
        "imported": made.imported,
        "files": moved,
    });
    app.output.done(&document, || {
        let vault = if made.recovery.is_some() { "a new vault" } else { "the vault that was there" };
        format!("{} is ready, with {vault}", app.home.dir().display())
    });
    if let Some(code) = recovery {
        let code = code.expose();
        app.output.warn(&format!("write down the recovery code; it is shown this once:\n\n    {code}\n"));
    }
    if !made.imported.is_empty() {
        let names = made.imported.join(", ");
        app.output.note(&format!("stored {names}; remove each from where it is set"));
    }
    app.output.note("next: `tokfence vault add PROVIDER`, then `tokfence start -d`");
}
