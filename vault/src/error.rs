//! What can go wrong, each with a stable code and, where there is one, the way out.

use std::io;
use std::path::PathBuf;

use crate::slot::SlotKind;

/// Everything this crate can refuse or fail with.
///
/// The text says what failed; [`Error::hint`] says what to do; [`Error::code`] is stable for scripts. No variant
/// carries secret material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret offered does not open the slot of this kind (its authentication tag does not match).
    #[error("the {slot} does not open this vault")]
    WrongSecret {
        /// The slot that was tried.
        slot: SlotKind,
    },
    /// The vault has no slot of the kind that was asked for.
    #[error("this vault has no {slot} slot")]
    NoSuchSlot {
        /// The slot that was looked for.
        slot: SlotKind,
    },
    /// The vault already has a slot of this kind; there is at most one of each.
    #[error("this vault already has a {slot} slot")]
    SlotExists {
        /// The slot that exists.
        slot: SlotKind,
    },
    /// Removing the slot would leave a vault that nobody can open.
    #[error("the {slot} slot is the last one that opens this vault")]
    LastSlot {
        /// The slot that was to be removed.
        slot: SlotKind,
    },
    /// The file is empty or ends too early. This is damage, never an empty vault.
    #[error("the vault file is cut short ({bytes} bytes)")]
    Truncated {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// The file does not begin as a vault does.
    #[error("the file is not a tokfence vault")]
    Foreign,
    /// The file begins as a vault does but breaks a rule of the format.
    #[error("the vault file is malformed: {what}")]
    Format {
        /// The rule that is broken.
        what: &'static str,
    },
    /// A version of the format that this program does not know; such a file is never overwritten.
    #[error("the vault file has format version {version}, and this program knows version 1 only")]
    UnsupportedVersion {
        /// The version in the file.
        version: u16,
    },
    /// Key derivation parameters outside the accepted range; nothing was derived.
    #[error("key derivation cost out of bounds: {m_kib} KiB, {t} passes, {p} lanes")]
    Cost {
        /// Memory in KiB.
        m_kib: u32,
        /// Number of passes.
        t: u32,
        /// Number of lanes.
        p: u8,
    },
    /// The key derivation needs more memory than the system gives.
    #[error("not enough memory for the key derivation ({m_kib} KiB)")]
    OutOfMemory {
        /// Memory in KiB.
        m_kib: u32,
    },
    /// The slot opened, but what it protects does not match: the file was damaged or edited.
    #[error("the vault file is damaged or was edited: {what}")]
    Damaged {
        /// The check that failed.
        what: &'static str,
    },
    /// The file has the wrong owner, mode or type; refused, not mended silently.
    #[error("{} is not safe to use: {fault}", path.display())]
    UnsafeFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A file is already there and would have been overwritten.
    #[error("{} already exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no vault at this path.
    #[error("there is no vault at {}", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// Another process kept the vault locked for the whole waiting time.
    #[error("the vault is being changed by {}", holder(*pid))]
    Busy {
        /// The process that holds the lock, if it wrote itself into the lock file.
        pid: Option<u32>,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The operating system's keyring cannot be used, or does not hold this vault's item.
    #[error("the system keyring cannot be used: {reason}")]
    KeyringUnavailable {
        /// The keyring's reason.
        reason: String,
    },
    /// A new passphrase is too short.
    #[error("the passphrase has {chars} characters and needs at least {chars_min}")]
    WeakPassphrase {
        /// Characters given, after normalisation.
        chars: usize,
        /// Characters needed.
        chars_min: usize,
    },
    /// The text is not a recovery code: wrong length, wrong character, or a typing error caught by its check.
    #[error("the recovery code is mistyped: {what}")]
    MistypedRecoveryCode {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file at this path is now another vault.
    #[error("the vault file was replaced by a different vault")]
    Replaced,
    /// The vault's data key was changed, so the one in memory no longer opens it.
    #[error("the vault's data key was changed since it was unlocked")]
    Rekeyed,
    /// The vault's content would not fit the format's limit.
    #[error("the vault would hold {bytes} bytes, and at most {bytes_max} fit")]
    TooLarge {
        /// The size needed, in bytes.
        bytes: usize,
        /// The size allowed, in bytes.
        bytes_max: usize,
    },
    /// The generation counter is at its end.
    #[error("the vault's generation counter is exhausted")]
    GenerationExhausted,
    /// The operating system gave no randomness; nothing was written.
    #[error("the system's random number generator failed: {reason}")]
    Random {
        /// The system's reason.
        reason: String,
    },
    /// A field of an entry breaks its rule.
    #[error("invalid {field}: {reason}")]
    InvalidEntry {
        /// The field.
        field: &'static str,
        /// The rule.
        reason: &'static str,
    },
    /// The vault holds no key of this kind of this provider.
    #[error("the vault holds no {kind} key of `{provider}`")]
    NoSuchEntry {
        /// The provider asked for.
        provider: String,
        /// The kind asked for.
        kind: crate::EntryKind,
    },
    /// A line of a `.env` file cannot be read without guessing.
    #[error("line {line} of the .env text: {reason}")]
    Dotenv {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it; never the line itself.
        reason: &'static str,
    },
    /// The file of the Go program cannot be read.
    #[error("the old vault.enc is malformed: {what}")]
    Legacy {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What makes a file unsafe to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// Group or others have access; carries the permission bits.
    #[error("mode {0:04o} gives others access")]
    Mode(u32),
    /// It belongs to another user; carries that user's id.
    #[error("it belongs to user id {0}")]
    Owner(u32),
    /// It has more than one name; carries the number of hard links.
    #[error("it has {0} hard links")]
    HardLinks(u64),
    /// The path is a symbolic link.
    #[error("it is a symbolic link")]
    SymbolicLink,
    /// It is a directory, a device, a pipe or a socket.
    #[error("it is not a regular file")]
    NotRegular,
}

impl Error {
    /// A stable `snake_case` code, the same in every release.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongSecret { slot } => match slot {
                SlotKind::Passphrase => "wrong_passphrase",
                SlotKind::Keyring => "wrong_keyring_item",
                SlotKind::Recovery => "wrong_recovery_code",
                SlotKind::Unknown(_) => "wrong_secret",
            },
            Self::NoSuchSlot { .. } => "no_such_slot",
            Self::SlotExists { .. } => "slot_exists",
            Self::LastSlot { .. } => "last_slot",
            Self::Truncated { .. } => "vault_truncated",
            Self::Foreign => "not_a_vault",
            Self::Format { .. } => "vault_malformed",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::Cost { .. } => "cost_out_of_bounds",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Damaged { .. } => "vault_damaged",
            Self::UnsafeFile { .. } => "unsafe_file",
            Self::Exists { .. } => "already_exists",
            Self::NotFound { .. } => "vault_not_found",
            Self::Busy { .. } => "busy",
            Self::Io { .. } => "io",
            Self::KeyringUnavailable { .. } => "keyring_unavailable",
            Self::WeakPassphrase { .. } => "weak_passphrase",
            Self::MistypedRecoveryCode { .. } => "mistyped_recovery_code",
            Self::Replaced => "vault_replaced",
            Self::Rekeyed => "vault_rekeyed",
            Self::TooLarge { .. } => "vault_too_large",
            Self::GenerationExhausted => "generation_exhausted",
            Self::Random { .. } => "random_failed",
            Self::InvalidEntry { .. } => "invalid_entry",
            Self::NoSuchEntry { .. } => "no_such_entry",
            Self::Dotenv { .. } => "dotenv_malformed",
            Self::Legacy { .. } => "legacy_malformed",
        }
    }

    /// What the person can do about it, if anything is known to help.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::WrongSecret { slot: SlotKind::Passphrase } => {
                "check the keyboard layout and Caps Lock; the recovery code opens the vault as well"
            }
            Self::WrongSecret { .. } | Self::NoSuchSlot { .. } => {
                "unlock with another slot: `tokfence vault list` shows which ones this vault has"
            }
            Self::SlotExists { .. } => "remove the slot first, or change the passphrase",
            Self::LastSlot { .. } => "add another slot before removing this one",
            Self::Truncated { .. } | Self::Damaged { .. } | Self::Format { .. } => {
                "restore the vault from a backup or an export; the file was left as it is"
            }
            Self::Foreign => "check the path; the file was left as it is",
            Self::UnsupportedVersion { .. } => "use a newer tokfence; the file was left as it is",
            Self::Cost { .. } => {
                "between 64 MiB and 1 GiB, 3 to 16 passes, and 4 to 16 lanes are accepted when writing"
            }
            Self::UnsafeFile { path, fault } => return unsafe_file_hint(path, *fault),
            Self::Exists { .. } => "choose another path, or move the file away first",
            Self::NotFound { .. } => "`tokfence init` makes one",
            Self::Busy { .. } => "wait for that process to finish, then try again",
            Self::KeyringUnavailable { .. } => {
                "unlock with the passphrase or the recovery code, or start and unlock the keyring service"
            }
            Self::WeakPassphrase { .. } => "a few unrelated words are easy to remember and hard to guess",
            Self::MistypedRecoveryCode { .. } => "it has nine groups of four letters and digits",
            Self::Replaced | Self::Rekeyed => "lock and unlock again",
            Self::TooLarge { .. } => "remove credentials that are no longer used",
            Self::NoSuchEntry { .. } => "`tokfence vault list` shows what there is",
            Self::Legacy { .. } => "use the vault.enc of the Go program, unchanged",
            Self::OutOfMemory { .. }
            | Self::Io { .. }
            | Self::GenerationExhausted
            | Self::Random { .. }
            | Self::InvalidEntry { .. }
            | Self::Dotenv { .. } => return None,
        };
        Some(text.to_owned())
    }
}

fn unsafe_file_hint(path: &std::path::Path, fault: FileFault) -> Option<String> {
    let path = path.display();
    Some(match fault {
        FileFault::Mode(_) => format!("chmod 600 '{path}'"),
        FileFault::Owner(_) => format!("run as the owner, or: sudo chown \"$(id -u)\" '{path}'"),
        FileFault::HardLinks(_) => format!("find the other name with: find ~ -samefile '{path}'"),
        FileFault::SymbolicLink | FileFault::NotRegular => {
            format!("replace '{path}' by a regular file of your own")
        }
    })
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
