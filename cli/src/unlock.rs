//! How a command gets the vault open: from the environment, the keyring, or a person.

use std::fs::File;
use std::path::PathBuf;

use vault::{KdfCost, Secret, SlotKind, Unlock, Vault};

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::prompt;

/// Read by the commands that need the passphrase. It works, and it warns.
pub(crate) const PASSPHRASE_VARIABLE: &str = "TOKFENCE_VAULT_PASSPHRASE";
/// Where systemd puts what it unsealed for a service (systemd.exec(5), "Credentials").
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const CREDENTIAL_NAME: &str = "vault-passphrase";
/// `file` or `keyring`: how a new vault is opened, and whether the keyring is asked.
const BACKEND_VARIABLE: &str = "TOKFENCE_VAULT_BACKEND";

/// What is said while the vault is opened.
pub(crate) const OPENING: &str = "opening the vault";

/// Where the vault's secret comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Passphrase(Secret<String>),
    Keyring,
}

/// Which kinds of slots the environment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The keyring where there is one, a passphrase otherwise.
    Any,
    File,
    Keyring,
}

/// What `TOKFENCE_VAULT_BACKEND` says.
pub(crate) fn backend() -> Result<Backend, Failure> {
    match std::env::var(BACKEND_VARIABLE).as_deref() {
        Err(_) | Ok("") => Ok(Backend::Any),
        Ok("file") => Ok(Backend::File),
        Ok("keyring") => Ok(Backend::Keyring),
        Ok(other) => Err(Failure::usage(format!("{BACKEND_VARIABLE} is `{other}`, not `file` or `keyring`"))),
    }
}

/// The passphrase from the environment, with a warning: other processes of the same user can read it there.
pub(crate) fn passphrase_from_environment(app: &App) -> Option<Secret<String>> {
    let text = std::env::var(PASSPHRASE_VARIABLE).ok().filter(|text| !text.is_empty())?;
    app.output.warn(&format!("{PASSPHRASE_VARIABLE} can be read by other processes of this user"));
    Some(Secret::new(text))
}

/// The passphrase that systemd unsealed for this service, in a folder that only it can read.
fn passphrase_from_credential() -> Result<Option<Secret<String>>, Failure> {
    let Some(folder) = std::env::var_os(CREDENTIALS_VARIABLE) else { return Ok(None) };
    let path = PathBuf::from(folder).join(CREDENTIAL_NAME);
    match File::open(&path) {
        Ok(file) => prompt::read_secret(file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(&format!("read {}", path.display()), &error)),
    }
}

/// Finds the secret that opens the vault: given by descriptor, by the service manager, in the environment, in the
/// keyring, or asked for.
/// `None` when there is nobody to ask.
pub(crate) fn find_source(app: &App, passphrase_fd: Option<u32>) -> Result<Option<Source>, Failure> {
    if let Some(fd) = passphrase_fd {
        return prompt::secret_from_fd(fd).map(Source::Passphrase).map(Some);
    }
    let slots = Vault::describe(&app.home.vault())?;
    if slots.has(SlotKind::Passphrase)
        && let Some(passphrase) = passphrase_from_credential()?
    {
        return Ok(Some(Source::Passphrase(passphrase)));
    }
    if let Some(passphrase) = passphrase_from_environment(app).filter(|_| slots.has(SlotKind::Passphrase)) {
        return Ok(Some(Source::Passphrase(passphrase)));
    }
    if slots.has(SlotKind::Keyring) && backend()? != Backend::File {
        return Ok(Some(Source::Keyring));
    }
    if slots.has(SlotKind::Passphrase) && prompt::has_terminal() {
        return prompt::secret("Passphrase of the vault").map(Source::Passphrase).map(Some);
    }
    Ok(None)
}

/// As [`find_source`], where it is an error that there is nobody to ask.
pub(crate) fn require_source(app: &App) -> Result<Source, Failure> {
    find_source(app, None)?.ok_or_else(|| {
        let message = "the vault needs its passphrase and there is no terminal";
        Failure::new(Exit::Locked, "vault_locked", message)
            .with_hint(format!("set {PASSPHRASE_VARIABLE}, or run the command in a terminal"))
    })
}

/// Opens the vault.
pub(crate) fn open(app: &App) -> Result<Vault, Failure> {
    open_with(app, &require_source(app)?)
}

/// Opens the vault with a secret that was found.
pub(crate) fn open_with(app: &App, source: &Source) -> Result<Vault, Failure> {
    let unlock = match source {
        Source::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
        Source::Keyring => Unlock::Keyring,
    };
    let open = || Vault::open(&app.home.vault(), &unlock);
    Ok(app.output.during(OPENING, open)?)
}

/// What gives keys to a daemon that has none.
pub(crate) fn way_to_keys(app: &App) -> &'static str {
    if app.home.vault().exists() {
        "locked until `tokfence unlock`"
    } else {
        "no vault yet; run `tokfence init`"
    }
}

/// What guessing a passphrase costs. Tests, whose vaults guard nothing, ask for less.
pub(crate) fn kdf_cost() -> KdfCost {
    // Only in a build for tests: nothing in a user's environment makes a vault easier to open.
    let is_test = cfg!(debug_assertions) && std::env::var_os("TOKFENCE_TEST_KDF").is_some();
    if is_test { KdfCost::FLOOR } else { KdfCost::DEFAULT }
}
