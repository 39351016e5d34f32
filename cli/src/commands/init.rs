//! `init`: the home, the vault and the database. Whatever is there already stays as it is.

use clap::Args;
use serde_json::json;
use vault::{NewSlot, RecoveryCode, Secret, Vault};

use crate::app::App;
use crate::commands::vault::{entries_from_variables, is_key_variable};
use crate::failure::{Exit, Failure};
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
}

impl Init {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        app.home.prepare()?;
        app.config()?;
        app.store()?;
        let mut made = if app.home.vault().exists() { None } else { Some(self.make_vault(app)?) };
        let imported = match &mut made {
            Some((vault, _)) => self.import_environment(app, vault)?,
            None => Vec::new(),
        };
        let recovery = made.as_ref().and_then(|(_, code)| code.as_ref()).map(RecoveryCode::to_text);
        let document = json!({
            "home": app.home.dir().display().to_string(),
            "vault": if made.is_some() { "created" } else { "unchanged" },
            "recovery_code": recovery.as_ref().map(|code| code.expose().clone()),
            "imported": imported,
        });
        app.output.done(&document, || {
            let vault = if made.is_some() { "a new vault" } else { "the vault that was there" };
            format!("{} is ready, with {vault}", app.home.dir().display())
        });
        if let (Some(code), false) = (recovery, app.output.is_json) {
            app.output.warn(&format!(
                "write down the recovery code; it is shown this once:\n\n    {}\n",
                code.expose()
            ));
        }
        if !app.output.is_json {
            app.output.note("next: `tokfence vault add PROVIDER`, then `tokfence start -d`");
        }
        Ok(())
    }

    /// A vault that the keyring opens where there is one, and a passphrase otherwise.
    fn make_vault(&self, app: &App) -> Result<(Vault, Option<RecoveryCode>), Failure> {
        let backend = unlock::backend()?;
        let path = app.home.vault();
        let given = match self.passphrase_fd {
            Some(fd) => Some(prompt::secret_from_fd(fd)?),
            None => unlock::passphrase_from_environment(app),
        };
        let has_keyring = given.is_none() && backend != Backend::File && vault::keyring_status().is_ok();
        if has_keyring || backend == Backend::Keyring {
            return Ok(Vault::create(&path, &[NewSlot::Keyring, NewSlot::Recovery])?);
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
        Ok(Vault::create(&path, &slots)?)
    }

    /// Offers to store the keys that stand in this shell's environment.
    fn import_environment(&self, app: &App, vault: &mut Vault) -> Result<Vec<String>, Failure> {
        let config = app.config()?;
        let is_key = |name: &str, value: &str| {
            !value.is_empty()
                && !value.starts_with("tfk_")
                && config.providers.values().any(|known| is_key_variable(known, name))
        };
        let found: Vec<(String, Secret<String>)> = std::env::vars()
            .filter(|(name, value)| is_key(name, value))
            .filter(|(name, _)| self.import_env || self.confirms(name))
            .map(|(name, value)| (name, Secret::new(value)))
            .collect();
        let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
        if found.is_empty() {
            return Ok(names);
        }
        let entries = entries_from_variables(app, found)?;
        vault.merge(entries, vault::OnConflict::Keep)?;
        app.output.note(&format!("stored {}; now remove them from where they are set", names.join(", ")));
        Ok(names)
    }

    fn confirms(&self, name: &str) -> bool {
        !self.non_interactive
            && prompt::confirm(&format!("{name} is set in this shell. Store its key in the vault?"))
    }
}
