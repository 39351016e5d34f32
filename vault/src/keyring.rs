//! The operating system's keyring: Secret Service on Linux (spoken over D-Bus in pure Rust), Keychain on macOS.
//!
//! Nothing here may hang or end the program: a machine without a keyring is ordinary. Each operation runs on a thread
//! of its own and is given up after [`TIMEOUT`]; every failure is [`Error::KeyringUnavailable`].

use std::sync::mpsc;
use std::time::Duration;

use keyring::v1::{Entry, Error as KeyringError, Result as KeyringResult};
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

const SERVICE: &str = "tokfence";
/// How long one operation may take before the keyring counts as unavailable.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where the secrets of keyring slots are kept.
pub(crate) trait SecretStore: Send + Sync {
    /// A short name for listings.
    fn name(&self) -> &'static str;
    fn store(&self, account: &str, secret: &[u8; 32]) -> Result<(), Error>;
    fn load(&self, account: &str) -> Result<Zeroizing<[u8; 32]>, Error>;
    fn delete(&self, account: &str) -> Result<(), Error>;
}

/// Whether a keyring answers, found out by asking it for an item that does not exist. Takes at most two seconds.
///
/// A keyring service that could not be reached is not looked for again while the program runs; one that starts later is
/// found by the next program. A positive answer does not promise that storing will work; [`crate::Vault::create`] finds that out.
///
/// # Errors
/// [`Error::KeyringUnavailable`] with the reason.
pub fn keyring_status() -> Result<(), Error> {
    let absent = |result: KeyringResult<Vec<u8>>| match result {
        Ok(_) | Err(KeyringError::NoEntry) => Ok(()),
        Err(error) => Err(error),
    };
    within(TIMEOUT, move || absent(Entry::new(SERVICE, "probe").and_then(|entry| entry.get_secret())))
}

/// The keyring of the user who runs the program.
pub(crate) struct SystemKeyring;

impl SecretStore for SystemKeyring {
    fn name(&self) -> &'static str {
        if cfg!(target_os = "macos") { "macOS Keychain" } else { "Secret Service" }
    }

    fn store(&self, account: &str, secret: &[u8; 32]) -> Result<(), Error> {
        let (account, secret) = (account.to_owned(), Zeroizing::new(*secret));
        within(TIMEOUT, move || Entry::new(SERVICE, &account)?.set_secret(secret.as_slice()))
    }

    fn load(&self, account: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        let account = account.to_owned();
        let mut stored = within(TIMEOUT, move || Entry::new(SERVICE, &account)?.get_secret())?;
        let secret = <[u8; 32]>::try_from(stored.as_slice()).map(Zeroizing::new);
        stored.zeroize();
        secret.map_err(|_| unavailable("its item for this vault has the wrong length"))
    }

    fn delete(&self, account: &str) -> Result<(), Error> {
        let account = account.to_owned();
        within(TIMEOUT, move || Entry::new(SERVICE, &account)?.delete_credential())
    }
}

/// Runs `work` on a thread and waits for at most `timeout`. A thread that hangs is left to itself; one that panics
/// drops its end of the channel, which is noticed at once.
fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> KeyringResult<T> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("keyring".to_owned()).spawn(move || {
        // The receiver may have given up; then there is nobody to tell.
        let _ = sender.send(work());
    });
    spawned.map_err(|error| unavailable(&error.to_string()))?;
    match receiver.recv_timeout(timeout) {
        Ok(result) => result.map_err(|error| unavailable(&describe(&error))),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(unavailable("it did not answer in time")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(unavailable("its driver failed")),
    }
}

/// Only the variants whose text cannot hold secret material are passed on as they are.
fn describe(error: &KeyringError) -> String {
    match error {
        KeyringError::NoEntry => "it has no item for this vault".to_owned(),
        KeyringError::NoDefaultStore => no_store_reason(),
        KeyringError::NoStorageAccess(_) => "it is locked, or access was refused".to_owned(),
        KeyringError::PlatformFailure(cause) => format!("the platform failed: {cause}"),
        KeyringError::Ambiguous(_) => "it has several items for this vault".to_owned(),
        _ => "it refused the request".to_owned(),
    }
}

fn no_store_reason() -> String {
    match Entry::store_status() {
        Err(error) => format!("no keyring service was found ({error})"),
        Ok(()) => "no keyring service was found".to_owned(),
    }
}

fn unavailable(reason: &str) -> Error {
    Error::KeyringUnavailable { reason: reason.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// A keyring in memory.
    #[derive(Default)]
    pub(crate) struct MemoryKeyring(pub(crate) Mutex<HashMap<String, [u8; 32]>>);

    impl SecretStore for MemoryKeyring {
        fn name(&self) -> &'static str {
            "memory"
        }

        fn store(&self, account: &str, secret: &[u8; 32]) -> Result<(), Error> {
            self.0.lock().expect("not poisoned").insert(account.to_owned(), *secret);
            Ok(())
        }

        fn load(&self, account: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
            let found = self.0.lock().expect("not poisoned").get(account).copied();
            found.map(Zeroizing::new).ok_or_else(|| unavailable("no item"))
        }

        fn delete(&self, account: &str) -> Result<(), Error> {
            self.0.lock().expect("not poisoned").remove(account);
            Ok(())
        }
    }

    #[test]
    fn a_keyring_that_hangs_or_panics_is_unavailable_in_time() {
        let started = Instant::now();
        let hung = within(Duration::from_millis(50), || {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        assert!(matches!(hung, Err(Error::KeyringUnavailable { .. })));
        let panicked =
            within(TIMEOUT, || -> KeyringResult<()> { std::panic::resume_unwind(Box::new("broken")) });
        assert!(matches!(panicked, Err(Error::KeyringUnavailable { .. })));
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn the_system_keyring_answers_or_is_unavailable_in_time() {
        let started = Instant::now();
        match keyring_status() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.code(), "keyring_unavailable"),
        }
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}
