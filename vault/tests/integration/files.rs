//! Owner, mode, type and leftovers: what may be wrong around the file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};
use vault::{Error, FileFault, Vault};

use crate::support::{check_code, entry, fresh, open};

#[track_caller]
fn check_fault(path: &Path, expected: FileFault) {
    for error in [open(path).expect_err("unsafe"), Vault::describe(path).expect_err("unsafe")] {
        match error {
            Error::UnsafeFile { fault, .. } => assert_eq!(fault, expected),
            other => panic!("expected {expected}, got {other:?}"),
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_new_vault_and_its_lock_are_private() {
    let (directory, _path, mut vault) = fresh();
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .expect("lists")
        .map(|item| item.expect("lists"))
        .map(|item| {
            (
                item.file_name().into_string().expect("text"),
                item.metadata().expect("stat").permissions().mode(),
            )
        })
        .collect();
    names.sort();
    assert_eq!(names, [("vault.lock".to_owned(), 0o100_600), ("vault.tfv".to_owned(), 0o100_600)]);
}

#[test]
fn a_mode_that_lets_others_in_is_refused_with_the_command_that_mends_it() {
    let (_directory, path, mut vault) = fresh();
    for mode in [0o644, 0o640, 0o604, 0o610, 0o602] {
        set_mode(&path, mode);
        check_fault(&path, FileFault::Mode(mode));
        check_code(vault.refresh(), "unsafe_file");
        check_code(vault.put(entry("x", "sk-0001-0001")), "unsafe_file");
    }
    let hint = open(&path).expect_err("unsafe").hint().expect("a command");
    assert_eq!(hint, format!("chmod 600 '{}'", path.display()));
    set_mode(&path, 0o600);
    assert!(vault.put(entry("x", "sk-0001-0001")).is_ok());
    set_mode(&path, 0o400);
    assert!(open(&path).is_ok());
}

#[test]
fn a_lock_file_that_lets_others_in_is_refused() {
    let (_directory, path, mut vault) = fresh();
    set_mode(&path.with_extension("lock"), 0o666);
    check_code(vault.put(entry("x", "sk-0001-0001")), "unsafe_file");
}

#[test]
fn somebody_elses_file_is_refused() {
    if rustix::process::geteuid().is_root() {
        let (_directory, path, _vault) = fresh();
        chown(&path, Some(65_534), None).expect("root may give files away");
        check_fault(&path, FileFault::Owner(65_534));
    } else {
        check_fault(Path::new("/etc/passwd"), FileFault::Owner(0));
    }
}

#[test]
fn links_are_refused() {
    let (directory, path, _vault) = fresh();
    let link = directory.path().join("link.tfv");
    symlink(&path, &link).expect("links");
    check_fault(&link, FileFault::SymbolicLink);
    fs::remove_file(&link).expect("removes");
    fs::hard_link(&path, &link).expect("links");
    check_fault(&path, FileFault::HardLinks(2));
    fs::remove_file(&link).expect("removes");
    assert!(open(&path).is_ok());
}

#[test]
fn a_dangling_link_is_not_a_free_place() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("vault.tfv");
    symlink(directory.path().join("elsewhere"), &path).expect("links");
    let passphrase = crate::support::passphrase();
    check_code(Vault::create(&path, &[crate::support::new_passphrase(&passphrase)]), "already_exists");
    assert!(!directory.path().join("elsewhere").exists());
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("directory")).expect("creates");
    let _listener = UnixListener::bind(at("socket")).expect("binds");
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("creates");
    for name in ["directory", "socket", "pipe"] {
        check_fault(&at(name), FileFault::NotRegular);
    }
    check_fault(Path::new("/dev/null"), FileFault::NotRegular);
}

#[test]
fn damaged_files_are_refused_and_left_as_they_are() {
    let (_directory, path, mut vault) = fresh();
    let good = fs::read(&path).expect("reads");
    let mut newer = good.clone();
    newer[9] = 2;
    let too_large = [good.as_slice(), &vec![0; 2 << 20]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"", "vault_truncated"),
        (b"TOKVAULT", "vault_truncated"),
        (b"{\"providers\":{}}", "not_a_vault"),
        (&good[..good.len() / 2], "vault_truncated"),
        (&newer, "unsupported_version"),
        (&too_large, "vault_malformed"),
    ];
    for (bytes, code) in cases {
        fs::write(&path, bytes).expect("writes");
        check_code(open(&path), code);
        check_code(Vault::describe(&path), code);
        check_code(vault.put(entry("x", "sk-0001-0001")), code);
        check_code(vault.refresh(), code);
        assert!(fs::read(&path).expect("reads") == bytes, "{code}: the file was touched");
    }
}

#[test]
fn what_a_dead_writer_left_is_removed_by_the_next() {
    let (directory, path, mut vault) = fresh();
    let leftover = directory.path().join("vault.new.00000000deadbeef");
    fs::write(&leftover, b"half a vault").expect("writes");
    assert!(open(&path).is_ok());
    vault.put(entry("openai", "sk-0001-0001")).expect("puts");
    assert!(!leftover.exists());
}
