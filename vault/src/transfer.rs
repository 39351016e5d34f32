//! Moving credentials between vaults: an export is a vault file of its own, with one passphrase slot.

use std::path::Path;

use crate::entry::Entries;
use crate::file;
use crate::format::{self, FILE_BYTES_MAX};
use crate::kdf::KdfCost;
use crate::random::draw;
use crate::seal::{self, DataKey};
use crate::slot::{self, NewSlot, Surroundings, Unlock};
use crate::{Error, Secret, Vault};

/// What to do with a credential that the vault already has for the same provider and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Keep the vault's own.
    Keep,
    /// Take the imported one.
    Replace,
}

/// What an import did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Credentials that were new.
    pub added: usize,
    /// Credentials that replaced the vault's own.
    pub replaced: usize,
    /// Credentials that were left out because the vault had its own.
    pub kept: usize,
}

/// Reads the entries of an exported file, or of any vault file with a passphrase slot, from its bytes. Looking at them
/// before [`Vault::merge`] is the dry run of an import.
///
/// # Errors
/// As [`Vault::open`], without those about the file itself.
pub fn open_export(bytes: &[u8], passphrase: &Secret<String>) -> Result<Entries, Error> {
    let file = format::decode(bytes)?;
    let unlock = Unlock::Passphrase(passphrase);
    let data_key = slot::open(&file.header.slots, &file.header.vault_id, &unlock, &Surroundings::system())?;
    seal::open_payload(&data_key, &file)
}

impl Vault {
    /// All entries as a vault file with an identity and a data key of its own, opened by `passphrase` alone. It shares
    /// no key with this vault, so its passphrase can be given away and this vault's cannot be attacked through it.
    ///
    /// # Errors
    /// [`Error::WeakPassphrase`], [`Error::Cost`], [`Error::Random`].
    pub fn export(&self, passphrase: &Secret<String>, cost: KdfCost) -> Result<Vec<u8>, Error> {
        let around = self.surroundings();
        let random = around.random.as_ref();
        let vault_id = draw(random)?;
        let data_key = DataKey::generate(random)?;
        let made = slot::make(&NewSlot::Passphrase { passphrase, cost }, &data_key, &vault_id, around)?;
        let (_, bytes) = seal::seal_file(&data_key, vault_id, 1, vec![made.slot], self.entries(), random)?;
        Ok(bytes)
    }

    /// [`Vault::export`] into a new file that only its owner can read.
    ///
    /// # Errors
    /// As [`Vault::export`]; [`Error::Exists`] when something is at `path`; file errors.
    pub fn export_file(&self, path: &Path, passphrase: &Secret<String>, cost: KdfCost) -> Result<(), Error> {
        file::write_new(path, &self.export(passphrase, cost)?)
    }

    /// Merges the entries of an exported file into this vault, all or none. Unlike the vault's own file, the exported
    /// one may be readable by others: it is encrypted, and may come from a medium without modes.
    ///
    /// # Errors
    /// As [`open_export`] and [`Vault::edit`].
    pub fn import_file(
        &mut self,
        path: &Path,
        passphrase: &Secret<String>,
        on_conflict: OnConflict,
    ) -> Result<ImportReport, Error> {
        let entries = open_export(&file::read_foreign(path, FILE_BYTES_MAX)?, passphrase)?;
        self.merge(entries, on_conflict)
    }

    /// Merges `entries` into this vault in one write, all or none.
    ///
    /// # Errors
    /// As [`Vault::edit`].
    pub fn merge(&mut self, entries: Entries, on_conflict: OnConflict) -> Result<ImportReport, Error> {
        self.edit(|own| {
            let mut report = ImportReport::default();
            for entry in entries {
                let is_taken = own.get(entry.provider(), entry.kind()).is_some();
                match (is_taken, on_conflict) {
                    (true, OnConflict::Keep) => report.kept += 1,
                    (true, OnConflict::Replace) => {
                        own.put(entry);
                        report.replaced += 1;
                    }
                    (false, OnConflict::Keep | OnConflict::Replace) => {
                        own.put(entry);
                        report.added += 1;
                    }
                }
            }
            Ok(report)
        })
    }
}
