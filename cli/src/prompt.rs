//! Questions to a person. A secret is read from the terminal without echo, never from an argument.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use vault::Secret;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// No key or passphrase is longer; what is, is something else that was piped in by mistake.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Whether somebody can be asked.
pub(crate) fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a secret without echo.
pub(crate) fn secret(question: &str) -> Result<Secret<String>, Failure> {
    let answer = rpassword::prompt_password(format!("{question}: "));
    answer.map(Secret::new).map_err(|error| {
        Failure::new(Exit::Failed, "no_terminal", format!("the terminal cannot be read: {error}"))
            .with_hint("pipe the secret in, with `-` in its place")
    })
}

/// Asks for a new passphrase twice.
pub(crate) fn new_passphrase() -> Result<Secret<String>, Failure> {
    let first = secret("New passphrase for the vault")?;
    let second = secret("The same again")?;
    if first.expose() != second.expose() {
        return Err(Failure::new(Exit::Failed, "passphrases_differ", "the two passphrases differ"));
    }
    Ok(first)
}

/// Reads a secret from standard input; one line ending at its end does not belong to it.
pub(crate) fn secret_from_stdin() -> Result<Secret<String>, Failure> {
    read_secret(io::stdin().lock())
}

/// Reads a secret from an inherited file descriptor.
pub(crate) fn secret_from_fd(fd: u32) -> Result<Secret<String>, Failure> {
    if fd == 0 {
        return secret_from_stdin();
    }
    let file = std::fs::File::open(format!("/dev/fd/{fd}"));
    read_secret(file.map_err(|error| Failure::failed("the file descriptor cannot be read", &error))?)
}

/// Writes a secret so that [`read_secret`] reads exactly it, whatever characters are at its end.
pub(crate) fn write_secret(mut target: impl Write, secret: &Secret<String>) -> io::Result<()> {
    target.write_all(secret.expose().as_bytes())?;
    target.write_all(b"\r\n")
}

pub(crate) fn read_secret(source: impl Read) -> Result<Secret<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let read = source.take(SECRET_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::failed("the secret cannot be read", &error))?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let secret = line.unwrap_or(&text);
    if secret.is_empty() {
        return Err(Failure::usage("nothing was given where a secret was expected"));
    }
    Ok(Secret::from(secret))
}

/// Asks a question whose answer is yes or no; no is the answer of an empty line.
pub(crate) fn confirm(question: &str) -> bool {
    if !has_terminal() {
        return false;
    }
    // A question that cannot be shown is not answered with yes.
    if write!(io::stderr(), "{question} [y/N] ").is_err() {
        return false;
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_read(text: &str, expected: &str) {
        assert_eq!(read_secret(text.as_bytes()).unwrap().expose(), expected);
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_a_secret() {
        check_read("secret", "secret");
        check_read("secret\n", "secret");
        check_read("secret\r\n", "secret");
        check_read(" two  words \n", " two  words ");
        check_read("first\nsecond\n", "first\nsecond");
        assert!(read_secret(&b"\r\n"[..]).is_err());
    }

    #[test]
    fn only_one_end_of_a_line_is_taken_off() {
        check_read("secret\r", "secret\r");
        check_read("secret\n\n", "secret\n");
        check_read("secret\r\r\n", "secret\r");
    }

    #[test]
    fn a_secret_survives_the_way_to_another_process() {
        for text in ["secret", "secret\r", "secret\n", "secret\r\n", "secret\n\r", "\n"] {
            let mut pipe = Vec::new();
            write_secret(&mut pipe, &Secret::from(text)).unwrap();
            assert_eq!(read_secret(pipe.as_slice()).unwrap().expose(), text, "{text:?}");
        }
    }
}
