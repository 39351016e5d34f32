//! Where a daemon's events go: to standard error in the foreground, to a file in the background.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use gateway::home::make_private_dir;
use tracing_subscriber::EnvFilter;

use crate::defect;
use crate::failure::Failure;

/// A log that is larger makes room for a new one.
const BYTES_MAX: u64 = 10 * 1024 * 1024;

pub(crate) fn to_stderr() {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr);
    // A logger that is set already is the one a test wants.
    let _ = subscriber.try_init();
    std::panic::set_hook(Box::new(log_panic));
}

pub(crate) fn to_file(path: &Path) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        make_private_dir(folder)?;
    }
    let file = RotatingFile::open(path, BYTES_MAX)
        .map_err(|error| Failure::failed(&format!("open {}", path.display()), &error))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(Mutex::new(file));
    let _ = subscriber.try_init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn filter() -> EnvFilter {
    EnvFilter::new("info,pingora_proxy=warn,pingora_core=warn")
}

/// The place of a panic is ours; its message may hold what a caller sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = defect::place(panic);
    tracing::error!(place, "a request ended in a panic");
}

/// A file that is set aside as `.1` when it has grown to its full size, and begun anew. That happens on a write, so
/// that only the one daemon that writes does it, and does it however long it runs.
struct RotatingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl RotatingFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_added_extension("1"))?;
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.bytes_max {
            // A log that is too large is better than none, so the old file goes on where there can be no new one.
            let _ = self.rotate();
        }
        let written = self.file.write(bytes)?;
        self.bytes = self.bytes.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_full_log_is_set_aside_by_the_one_who_writes() {
        let place = tempfile::tempdir().unwrap();
        let (path, old) = (place.path().join("tokfence.log"), place.path().join("tokfence.log.1"));
        let mut log = RotatingFile::open(&path, 10).unwrap();
        log.write_all(b"0123456789\n").unwrap();
        let mut second = RotatingFile::open(&path, 10).unwrap();
        assert!(!old.exists(), "who only opens it moves nothing");
        log.write_all(b"new\n").unwrap();
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((text(&old).as_str(), text(&path).as_str()), ("0123456789\n", "new\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        log.write_all(b"0123456789\n").unwrap();
        log.write_all(b"newer\n").unwrap();
        assert_eq!((text(&old).as_str(), text(&path).as_str()), ("new\n0123456789\n", "newer\n"));
        second.flush().unwrap();
    }

    #[test]
    fn a_log_that_cannot_be_set_aside_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokfence.log");
        let mut log = RotatingFile::open(&path, 1).unwrap();
        std::fs::create_dir(place.path().join("tokfence.log.1")).unwrap();
        log.write_all(b"first\n").unwrap();
        log.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
    }

    #[test]
    fn a_panic_is_logged_by_its_place_and_never_by_its_message() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let file = RotatingFile::open(&path, BYTES_MAX).unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(Mutex::new(file)).finish();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let ended = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("SENTINEL of a caller"))
        });
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("daemon_log.rs:") && !text.contains("SENTINEL"), "{text}");
    }
}
