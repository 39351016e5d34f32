//! The container of a launched agent, as the engine is told of it. Everything that a container may do and this one need
//! not is taken away; that it has no network at all is the point of it (ADR 9).

use std::path::Path;

use serde_json::{Value, json};

use super::folder::{Folder, own};
use super::openclaw::{PORT, WORKSPACE};
use super::program::{OURS, Program};
use crate::relay::{Endpoint, Way};

/// By this label a container is known as one of ours, and of which home.
pub(super) const LABEL: &str = "tokfence.home";

const MEMORY_BYTES: u64 = 2 << 30;
const PROCESSES_MAX: u32 = 512;
const CPUS: u64 = 2;
/// Who runs an agent where root launches it.
const USER: u32 = 1_000;
/// What is written there is in memory, and goes with the container.
const SCRATCH: [&str; 3] = ["/tmp", "/run", "/var/tmp"];

/// Who a container runs as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// As the container counts.
    pub(super) name: String,
    /// As this machine counts.
    pub(super) owner: (u32, u32),
    /// Podman's way to have both the same.
    keeps_id: bool,
}

impl User {
    /// The user who launches it, and never root of this machine.
    pub(super) fn of(info: &Value, version: &Value) -> Self {
        let (user, group) = match own() {
            (0, _) => (USER, USER),
            own => own,
        };
        let options = info["SecurityOptions"].as_array().into_iter().flatten();
        let is_rootless = options.filter_map(Value::as_str).any(|option| option.contains("rootless"));
        let components = version["Components"].as_array().into_iter().flatten();
        let is_podman =
            components.filter_map(|part| part["Name"].as_str()).any(|name| name.contains("Podman"));
        let owner = (user, group);
        match (is_rootless, is_podman) {
            (true, true) => Self { name: format!("{user}:{group}"), owner, keeps_id: true },
            // Its root is the user who runs the engine, with no more rights than he has.
            (true, false) => Self { name: "0:0".to_owned(), owner: own(), keeps_id: false },
            (false, _) => Self { name: format!("{user}:{group}"), owner, keeps_id: false },
        }
    }
}

/// What a container is made of.
#[derive(Debug)]
pub(super) struct Container<'a> {
    pub(super) folder: &'a Folder,
    pub(super) program: &'a Program,
    /// As the engine knows it, exactly.
    pub(super) image_id: &'a str,
    /// What the image would run.
    pub(super) command: Vec<String>,
    pub(super) user: &'a User,
    pub(super) workspace: &'a Path,
    /// Where the gateway is called.
    pub(super) gateway: Endpoint,
    pub(super) home_label: String,
}

impl Container<'_> {
    pub(super) fn document(&self) -> Value {
        let within = |name: &str| format!("{OURS}/{name}");
        let mut host = json!({
            "NetworkMode": "none",
            "ReadonlyRootfs": true,
            "CapDrop": ["ALL"],
            "SecurityOpt": self.security_options(),
            "Memory": MEMORY_BYTES,
            "MemorySwap": MEMORY_BYTES,
            "PidsLimit": PROCESSES_MAX,
            "NanoCpus": CPUS * 1_000_000_000,
            "RestartPolicy": { "Name": "no" },
            "Tmpfs": SCRATCH.iter().map(|path| ((*path).to_owned(), json!("rw,nosuid,nodev,size=256m,mode=1777")))
                .collect::<serde_json::Map<_, _>>(),
            "Mounts": self.mounts(),
        });
        if self.user.keeps_id {
            host["UsernsMode"] = json!("keep-id");
        }
        json!({
            "Image": self.image_id,
            "User": self.user.name,
            // Nothing that opens anything: whoever asks the engine is told all of this.
            "Env": [format!("HOME={}", within("home"))],
            "Entrypoint": self.entrypoint(),
            "Cmd": self.command,
            "Labels": { LABEL: self.home_label },
            "HostConfig": host,
        })
    }

    /// This program first, which opens the ways and then runs what the image would.
    fn entrypoint(&self) -> Vec<String> {
        let sockets = format!("{OURS}/sockets");
        let socket = |name: &str| Endpoint::Unix(format!("{sockets}/{name}").into());
        let out = Way { listen: self.gateway.clone(), to: socket("gateway.sock") };
        let agent = Endpoint::Tcp(([127, 0, 0, 1], PORT).into());
        let inward = Way { listen: socket("agent.sock"), to: agent };
        let mut words = self.program.command.clone();
        words.extend(["inside", "--way", &out.to_string(), "--way", &inward.to_string()].map(str::to_owned));
        words.extend(["--env-file".to_owned(), format!("{OURS}/env"), "--".to_owned()]);
        words
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |source: &Path, target: &str, is_read_only: bool| json!({ "Type": "bind", "Source": source.display().to_string(), "Target": target, "ReadOnly": is_read_only });
        let program = self.program.files.iter().map(|(file, place)| mount(file, place, true));
        let folder = [
            mount(&self.folder.env(), &format!("{OURS}/env"), true),
            mount(&self.folder.sockets(), &format!("{OURS}/sockets"), false),
            mount(&self.folder.home(), &format!("{OURS}/home"), false),
            mount(self.workspace, WORKSPACE, false),
        ];
        program.chain(folder).collect()
    }

    fn security_options(&self) -> Vec<&'static str> {
        let mut options = vec!["no-new-privileges:true"];
        // Its labels would have to be put on this program and its libraries, where they are not ours to change.
        if Path::new("/sys/fs/selinux/enforce").exists() {
            options.push("label=disable");
        }
        options
    }
}

/// What an image would run.
pub(super) fn command_of(image: &Value) -> Vec<String> {
    let words = |key: &str| image["Config"][key].as_array().cloned().unwrap_or_default();
    let all = words("Entrypoint").into_iter().chain(words("Cmd"));
    all.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What is noted of an image: the digest under which it was downloaded, or that of what is there.
pub(super) fn digest_of(image: &Value) -> String {
    let downloaded = image["RepoDigests"][0].as_str().or_else(|| image["Id"].as_str());
    downloaded.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_root_of_this_machine() {
        let podman = json!({ "Components": [{ "Name": "Podman Engine" }] });
        let docker = json!({ "Components": [{ "Name": "Engine" }] });
        let rootless = json!({ "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"] });
        let rootful = json!({ "SecurityOptions": ["name=seccomp"] });
        for (info, version) in [(&rootful, &docker), (&rootful, &podman), (&rootless, &podman)] {
            let user = User::of(info, version);
            assert_ne!(user.owner.0, 0);
            assert_eq!(user.name, format!("{}:{}", user.owner.0, user.owner.1));
            assert_eq!(user.keeps_id, info == &rootless);
        }
        let user = User::of(&rootless, &docker);
        assert_eq!((user.name.as_str(), user.owner), ("0:0", own()));
    }

    #[test]
    fn an_image_is_noted_as_what_it_was() {
        let image = json!({
            "Id": "sha256:aa", "RepoDigests": ["ghcr.io/a/b@sha256:bb"],
            "Config": { "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["node", "x"] },
        });
        assert_eq!(digest_of(&image), "ghcr.io/a/b@sha256:bb");
        assert_eq!(command_of(&image), ["docker-entrypoint.sh", "node", "x"]);
        let built =
            json!({ "Id": "sha256:aa", "RepoDigests": [], "Config": { "Entrypoint": null, "Cmd": ["a"] } });
        assert_eq!((digest_of(&built), command_of(&built)), ("sha256:aa".to_owned(), vec!["a".to_owned()]));
    }
}
