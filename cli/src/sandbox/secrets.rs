//! What a sandboxed command does not see, unless it is allowed by name: where keys and logins are kept, what was typed
//! before, and the sockets of programs that would do something on its behalf.

use std::path::{Path, PathBuf};

/// Folders and files of a user's home.
pub(super) const IN_HOME: &[&str] = &[
    // Keys and agents that use them.
    ".ssh",
    ".gnupg",
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".config/age",
    ".config/sops",
    ".pki",
    ".config/op",
    ".config/Bitwarden CLI",
    ".vault-token",
    ".tokfence",
    // Logins at clouds and services.
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/doctl",
    ".oci",
    ".kube",
    ".docker",
    ".config/containers",
    ".terraform.d",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/rclone",
    ".s3cfg",
    ".boto",
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".huggingface",
    ".cache/huggingface/token",
    // Logins at registries and databases.
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".config/pypoetry/auth.toml",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".composer/auth.json",
    ".pgpass",
    ".my.cnf",
    // What a browser or a mail program keeps.
    ".mozilla",
    ".thunderbird",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    "snap/firefox",
    ".var/app",
    // What was typed.
    ".bash_history",
    ".zsh_history",
    ".histfile",
    ".local/share/fish/fish_history",
    ".python_history",
    ".node_repl_history",
    ".psql_history",
    ".env",
    // Engines that start whatever they are told to.
    ".colima",
    ".lima",
    ".orbstack",
    ".rd",
    ".local/share/containers",
];

/// The paths of the sockets that programs of this machine listen on, as far as they have paths. Who may connect to one
/// has somebody who acts outside: a read-only file system does not keep anybody from connecting.
pub(super) fn listening_sockets() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets_of(&table)
}

fn sockets_of(table: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (_, path) = line.split_once(" /")?;
        Some(Path::new("/").join(path))
    };
    table.lines().skip(1).filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_a_path_are_found() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17023 /run/docker.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 17024\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17025 @/tmp/abstract\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17026 /home/a b/x y.sock\n";
        assert_eq!(sockets_of(table), [Path::new("/run/docker.sock"), Path::new("/home/a b/x y.sock")]);
    }
}
