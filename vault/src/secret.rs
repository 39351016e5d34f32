//! [`Secret`], the only way a credential or passphrase travels through the workspace.

use std::fmt;

use zeroize::Zeroize;

/// A value that must not be seen: wiped from memory when dropped, printed as `Secret(..)`.
///
/// It has no `Clone`, `Display`, `Serialize` or `PartialEq` on purpose, so that a copy in a log line, a JSON
/// document or a variable-time comparison does not compile. [`Secret::expose`] is the one way to the value,
/// which makes every use easy to find.
///
/// Wiping is best effort: a `String` that grew before it was wrapped may have left an earlier, shorter copy on
/// the heap. Read secrets into a buffer of sufficient capacity.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`; from here on it is wiped when dropped.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Keep the borrow short and do not copy it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// The last four characters, for telling credentials apart in a listing.
    ///
    /// Empty when the secret has fewer than eight characters, because four would then be most of it.
    pub fn last4(&self) -> String {
        let count = self.0.chars().count();
        if count < 8 { String::new() } else { self.0.chars().skip(count - 4).collect() }
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_last4(secret: &str, expected: &str) {
        assert_eq!(Secret::from(secret).last4(), expected);
    }

    #[test]
    fn last4_shows_the_end_of_long_secrets_only() {
        check_last4("", "");
        check_last4("abc", "");
        check_last4("1234567", "");
        check_last4("12345678", "5678");
        check_last4("ключ-пароль", "роль");
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::from("sk-live-1234567890")), "Secret(..)");
        assert_eq!(format!("{:?}", Some(Secret::new([7u8; 32]))), "Some(Secret(..))");
    }
}
