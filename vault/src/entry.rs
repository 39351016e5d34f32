//! What the vault holds: one credential a provider and kind.

use std::fmt;

use crate::{Error, Origin, Secret};

/// Longest secret, in bytes. Provider keys are below 300; this leaves room for signed tokens.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;
/// Longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// Longest auth style, in bytes.
pub const AUTH_STYLE_BYTES_MAX: usize = 64;

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// Sent with callers' requests.
    Inference,
    /// A provider's admin or usage key: read by `watch`, never injected into a caller's request.
    Admin,
    /// Looks like a credential and opens nothing: never sent anywhere, and proof of a leak wherever it is seen.
    Canary,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inference => "inference",
            Self::Admin => "admin",
            Self::Canary => "canary",
        })
    }
}

/// The parts of a new [`Entry`], before they are checked.
#[derive(Debug)]
pub struct NewEntry {
    /// The provider's name: `^[a-z0-9][a-z0-9_-]{0,62}$`.
    pub provider: String,
    /// What the credential is for.
    pub kind: EntryKind,
    /// A person's note; may be empty; at most [`LABEL_BYTES_MAX`] bytes without control characters.
    pub label: String,
    /// The credential: 1 to [`SECRET_BYTES_MAX`] bytes, no control characters, no space at either end.
    pub secret: Secret<String>,
    /// The only origin the credential may be sent to.
    pub allowed_origin: Origin,
    /// How the provider wants the credential (`bearer`, `x-api-key`, …); visible ASCII, may be empty.
    pub auth_style: String,
}

/// One credential with all that belongs to it. Its fields have been checked, so it can be stored and sent.
#[derive(Debug)]
pub struct Entry {
    provider: String,
    kind: EntryKind,
    label: String,
    secret: Secret<String>,
    allowed_origin: Origin,
    auth_style: String,
    created_at_us: i64,
    rotated_at_us: i64,
    not_after_us: Option<i64>,
}

impl Entry {
    /// Checks the parts and dates the entry with `now_us` (microseconds since 1970, UTC).
    ///
    /// # Errors
    /// [`Error::InvalidEntry`] names the field that breaks its rule, never its value.
    pub fn new(parts: NewEntry, now_us: i64) -> Result<Self, Error> {
        check_provider(&parts.provider)?;
        check_text("label", &parts.label, LABEL_BYTES_MAX)?;
        check_secret(parts.secret.expose())?;
        check_auth_style(&parts.auth_style)?;
        let NewEntry { provider, kind, label, secret, allowed_origin, auth_style } = parts;
        let (created_at_us, rotated_at_us, not_after_us) = (now_us, now_us, None);
        Ok(Self {
            provider,
            kind,
            label,
            secret,
            allowed_origin,
            auth_style,
            created_at_us,
            rotated_at_us,
            not_after_us,
        })
    }

    /// The same entry with other dates; microseconds since 1970, UTC.
    #[must_use]
    pub fn with_times(mut self, created_at_us: i64, rotated_at_us: i64, not_after_us: Option<i64>) -> Self {
        (self.created_at_us, self.rotated_at_us, self.not_after_us) =
            (created_at_us, rotated_at_us, not_after_us);
        self
    }

    /// The provider's name.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What the credential is for.
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// A person's note.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The credential.
    pub fn secret(&self) -> &Secret<String> {
        &self.secret
    }

    /// The only origin the credential may be sent to.
    pub fn allowed_origin(&self) -> &Origin {
        &self.allowed_origin
    }

    /// How the provider wants the credential; may be empty.
    pub fn auth_style(&self) -> &str {
        &self.auth_style
    }

    /// When the entry was first stored, in microseconds since 1970, UTC.
    pub fn created_at_us(&self) -> i64 {
        self.created_at_us
    }

    /// When the secret last changed, in microseconds since 1970, UTC.
    pub fn rotated_at_us(&self) -> i64 {
        self.rotated_at_us
    }

    /// When the credential ends, if known, in microseconds since 1970, UTC. Kept here, enforced by the caller.
    pub fn not_after_us(&self) -> Option<i64> {
        self.not_after_us
    }

    /// Replaces the secret and dates the change with `now_us`; everything else stays.
    ///
    /// # Errors
    /// [`Error::InvalidEntry`] when the secret breaks its rule.
    pub fn rotate(&mut self, secret: Secret<String>, now_us: i64) -> Result<(), Error> {
        check_secret(secret.expose())?;
        self.secret = secret;
        self.rotated_at_us = now_us;
        Ok(())
    }

    fn key(&self) -> (&str, EntryKind) {
        (&self.provider, self.kind)
    }
}

/// All entries, ordered by provider and kind, at most one of each.
#[derive(Debug, Default)]
pub struct Entries(Vec<Entry>);

impl Entries {
    /// The entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The credential of `kind` for `provider`.
    pub fn get(&self, provider: &str, kind: EntryKind) -> Option<&Entry> {
        self.position(provider, kind).ok().map(|index| &self.0[index])
    }

    /// The credential of `kind` for `provider`, to be changed in place.
    pub fn get_mut(&mut self, provider: &str, kind: EntryKind) -> Option<&mut Entry> {
        self.position(provider, kind).ok().map(|index| &mut self.0[index])
    }

    /// Stores `entry`, in place of one with the same provider and kind, whose creation date it then takes.
    /// Returns the entry it replaced.
    pub fn put(&mut self, mut entry: Entry) -> Option<Entry> {
        match self.position(&entry.provider, entry.kind) {
            Ok(index) => {
                entry.created_at_us = self.0[index].created_at_us;
                Some(std::mem::replace(&mut self.0[index], entry))
            }
            Err(index) => {
                self.0.insert(index, entry);
                None
            }
        }
    }

    /// Takes the entry out.
    pub fn remove(&mut self, provider: &str, kind: EntryKind) -> Option<Entry> {
        self.position(provider, kind).ok().map(|index| self.0.remove(index))
    }

    /// Adds `entry` at the end; `false` when it does not come after the last one. The decoder uses this to refuse
    /// duplicates and any order but the canonical one.
    pub(crate) fn push_in_order(&mut self, entry: Entry) -> bool {
        let is_next = self.0.last().is_none_or(|last| last.key() < entry.key());
        if is_next {
            self.0.push(entry);
        }
        is_next
    }

    fn position(&self, provider: &str, kind: EntryKind) -> Result<usize, usize> {
        self.0.binary_search_by(|entry| entry.key().cmp(&(provider, kind)))
    }
}

impl IntoIterator for Entries {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Checks a provider's name: `^[a-z0-9][a-z0-9_-]{0,62}$`.
///
/// # Errors
/// [`Error::InvalidEntry`] when it breaks that rule.
pub fn check_provider(name: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let is_valid =
        (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['_', '-']);
    let reason = "1 to 63 lower-case letters, digits, `-` or `_`, the first a letter or digit";
    if is_valid { Ok(()) } else { Err(Error::InvalidEntry { field: "provider", reason }) }
}

/// Control characters are refused everywhere: in a secret they would split a header, in a label a terminal line.
fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.len() > bytes_max {
        return Err(Error::InvalidEntry { field, reason: "it is too long" });
    }
    if text.chars().any(char::is_control) {
        return Err(Error::InvalidEntry { field, reason: "control characters are not allowed" });
    }
    Ok(())
}

fn check_secret(secret: &str) -> Result<(), Error> {
    let field = "secret";
    check_text(field, secret, SECRET_BYTES_MAX)?;
    if secret.is_empty() {
        return Err(Error::InvalidEntry { field, reason: "it is empty" });
    }
    if secret.trim() != secret {
        return Err(Error::InvalidEntry { field, reason: "it begins or ends with a space" });
    }
    Ok(())
}

fn check_auth_style(style: &str) -> Result<(), Error> {
    let field = "auth style";
    check_text(field, style, AUTH_STYLE_BYTES_MAX)?;
    if style.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::InvalidEntry { field, reason: "only visible ASCII characters are allowed" })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(provider: &str, kind: EntryKind, secret: &str) -> Entry {
        let parts = NewEntry {
            provider: provider.to_owned(),
            kind,
            label: "laptop".to_owned(),
            secret: Secret::from(secret),
            allowed_origin: "https://api.openai.com".parse().expect("origin"),
            auth_style: "bearer".to_owned(),
        };
        Entry::new(parts, 1_700_000_000_000_000).expect("a valid sample")
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut NewEntry), expected_field: &str) {
        let mut parts = NewEntry {
            provider: "openai".to_owned(),
            kind: EntryKind::Inference,
            label: String::new(),
            secret: Secret::from("sk-1"),
            allowed_origin: "https://api.openai.com".parse().expect("origin"),
            auth_style: String::new(),
        };
        change(&mut parts);
        match Entry::new(parts, 0) {
            Err(Error::InvalidEntry { field, .. }) => assert_eq!(field, expected_field),
            other => panic!("accepted or failed otherwise: {other:?}"),
        }
    }

    #[test]
    fn fields_that_break_their_rule_are_refused() {
        for name in ["", "OpenAI", "-a", "_a", "a b", "a/b", "ä", &"a".repeat(64)] {
            check_refused(|parts| parts.provider = name.to_owned(), "provider");
        }
        for secret in ["", " a", "a ", "a\nb", "a\0b", "a\u{85}b", &"a".repeat(SECRET_BYTES_MAX + 1)] {
            check_refused(|parts| parts.secret = Secret::from(secret), "secret");
        }
        check_refused(|parts| parts.label = "a\x1b[2J".to_owned(), "label");
        check_refused(|parts| parts.label = "a".repeat(LABEL_BYTES_MAX + 1), "label");
        check_refused(|parts| parts.auth_style = "x api".to_owned(), "auth style");
    }

    #[test]
    fn entries_are_ordered_and_unique() {
        let mut entries = Entries::default();
        assert!(entries.put(sample("openai", EntryKind::Admin, "one-one-one")).is_none());
        assert!(entries.put(sample("openai", EntryKind::Inference, "two-two-two")).is_none());
        assert!(entries.put(sample("anthropic", EntryKind::Inference, "three-three")).is_none());
        let replaced =
            entries.put(sample("openai", EntryKind::Inference, "four-four").with_times(9, 9, None));
        assert_eq!(replaced.expect("one was there").secret().expose(), "two-two-two");
        let order: Vec<_> = entries.iter().map(Entry::key).collect();
        let expected = [
            ("anthropic", EntryKind::Inference),
            ("openai", EntryKind::Inference),
            ("openai", EntryKind::Admin),
        ];
        assert_eq!(order, expected);
        let current = entries.get("openai", EntryKind::Inference).expect("present");
        assert_eq!((current.created_at_us(), current.rotated_at_us()), (1_700_000_000_000_000, 9));
        assert!(entries.remove("openai", EntryKind::Admin).is_some());
        assert!(entries.remove("openai", EntryKind::Admin).is_none());
    }

    #[test]
    fn rotation_keeps_everything_but_the_secret() {
        let mut entry = sample("openai", EntryKind::Inference, "old-old-old");
        entry.rotate(Secret::from("new-new-new"), 5).expect("valid");
        assert_eq!(
            (entry.secret().expose().as_str(), entry.rotated_at_us(), entry.label()),
            ("new-new-new", 5, "laptop")
        );
        assert!(entry.rotate(Secret::from(""), 6).is_err());
        assert_eq!(entry.secret().expose(), "new-new-new");
    }
}
