//! `launch`: what the engine is told, word by word; what is in the container and what is not; and that stopping it leaves
//! nothing that opens anything.

mod engine;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use serde_json::{Value, json};

use crate::sandbox::need_sandbox;
use crate::support::{Client, Command, Gateway, Request, eventually};
use engine::{Asked, DIGEST, Engine, IMAGE, IMAGE_ID, play, source};

const NAME: &str = "tokfence-openclaw";
const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

/// A gateway, an engine, and a free port.
struct World {
    gateway: Gateway,
    engine: Engine,
    port: u16,
}

impl World {
    fn new() -> Self {
        Self::with(play)
    }

    fn with(begin: impl Fn(&Value) + Send + Sync + 'static) -> Self {
        let gateway = Gateway::start();
        let engine = Engine::start(gateway.home.file("engine.sock"), begin);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { gateway, engine, port }
    }

    fn command(&self, args: &[&str]) -> Command {
        let command = self.gateway.home.command([&["launch"], args].concat());
        command.env("DOCKER_HOST", format!("unix://{}", self.engine.path.display()))
    }

    fn launch(&self) -> Command {
        self.command(&["--image", IMAGE, "--port", &self.port.to_string()])
    }

    /// The address of the agent's page.
    fn page(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.gateway.home.file(&format!("launch/{NAME}/{name}"))
    }

    /// The variables of the container, as the agent gets them.
    fn variable(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.file("env")).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
        found.unwrap()
    }
}

impl Drop for World {
    /// Nothing that carries connections outlives its test.
    fn drop(&mut self) {
        let lock = self.file("bridge.lock");
        let is_held = std::fs::File::open(&lock).is_ok_and(|file| file.try_lock().is_err());
        let carrier = std::fs::read_to_string(lock).unwrap_or_default();
        if let Some(carrier) = carrier.trim().parse().ok().and_then(Pid::from_raw).filter(|_| is_held) {
            let _ = kill_process(carrier, Signal::KILL);
        }
    }
}

fn lines(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|(line, _)| line.as_str()).collect()
}

/// What the page answers.
fn page(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_engine_is_told_to_close_it_in_and_nothing_that_opens_anything() {
    let world = World::new();
    world.engine.pulls(&[
        json!({ "status": "Pulling from claw", "id": "1" }),
        json!({ "status": "Downloading", "progressDetail": { "current": 1 }, "id": "aa" }),
        json!({ "status": "Downloading", "progressDetail": { "current": 2 }, "id": "aa" }),
    ]);
    let output = world.launch().run().expect(0);
    assert_eq!(
        output.stdout,
        format!("launched `{NAME}` at http://127.0.0.1:{}/, from {DIGEST}\n", world.port)
    );
    assert_eq!(output.stderr.matches("aa: Downloading").count(), 1, "{}", output.stderr);
    let asked = world.engine.asked();
    let of_container = format!("/containers/{NAME}");
    assert_eq!(
        lines(&asked)[..8],
        [
            "GET /_ping".to_owned(),
            "GET /info".to_owned(),
            "GET /version".to_owned(),
            format!("GET {of_container}/json"),
            "POST /images/create?fromImage=example.com/claw:1".to_owned(),
            "GET /images/example.com/claw:1/json".to_owned(),
            format!("POST /containers/create?name={NAME}"),
            format!("POST {of_container}/start"),
        ]
    );
    assert!(lines(&asked)[8..].iter().all(|line| *line == format!("GET {of_container}/json")), "{asked:?}");
    check_made(&world, &asked[6].1);

    let token = world.variable("OPENAI_API_KEY");
    assert!(token.starts_with("tfk_"));
    let told = format!("{asked:?}{}{}", output.stdout, output.stderr);
    assert!(!told.contains(&token) && !told.contains(&token[13..]), "{told}");
    let config: Value =
        serde_json::from_slice(&std::fs::read(world.file("home/.openclaw/openclaw.json")).unwrap()).unwrap();
    let own = config["gateway"]["auth"]["token"].as_str().unwrap();
    assert!(own.len() == 48 && !told.contains(own), "{told}");
    for file in ["env", "home/.openclaw/openclaw.json", "launch.json"] {
        assert_eq!(
            std::fs::metadata(world.file(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    assert_eq!(config["models"]["providers"]["openai"]["apiKey"], token);
    assert_eq!(
        config["models"]["providers"]["openai"]["baseUrl"],
        format!("http://{}/openai/v1", world.gateway.address)
    );
}

/// What the container is made of, to the last word.
#[track_caller]
fn check_made(world: &World, made: &Value) {
    let user = std::fs::metadata(world.file("sockets")).unwrap();
    let mut made = made.clone();
    let mounts = made["HostConfig"]["Mounts"].take();
    let entrypoint = made["Entrypoint"].take();
    let mut options = vec!["no-new-privileges:true"];
    if Path::new("/sys/fs/selinux/enforce").exists() {
        options.push("label=disable");
    }
    let scratch = "rw,nosuid,nodev,size=256m,mode=1777";
    assert_eq!(
        made,
        json!({
            "Image": IMAGE_ID, "User": format!("{}:{}", user.uid(), user.gid()), "Env": ["HOME=/tokfence/home"],
            "Entrypoint": null, "Cmd": ["sleep", "600.25"],
            "Labels": { "tokfence.home": world.gateway.home.path() },
            "HostConfig": {
                "NetworkMode": "none", "ReadonlyRootfs": true, "CapDrop": ["ALL"], "SecurityOpt": options,
                "Memory": 2_147_483_648_u64, "MemorySwap": 2_147_483_648_u64, "PidsLimit": 512, "NanoCpus": 2_000_000_000,
                "RestartPolicy": { "Name": "no" },
                "Tmpfs": { "/tmp": scratch, "/run": scratch, "/var/tmp": scratch },
                "Mounts": null,
            },
        })
    );
    assert_ne!(user.uid(), 0);
    let folder = world.file("");
    let mounts = mounts.as_array().unwrap();
    let written: Vec<_> = mounts
        .iter()
        .filter(|mount| mount["ReadOnly"] == false)
        .map(|mount| mount["Target"].as_str().unwrap())
        .collect();
    assert_eq!(written, ["/tokfence/sockets", "/tokfence/home", "/workspace"]);
    for mount in mounts {
        let (from, to) = (Path::new(mount["Source"].as_str().unwrap()), mount["Target"].as_str().unwrap());
        let is_program = to == "/tokfence/tokfence" || to.starts_with("/tokfence/lib/");
        assert!(is_program || from.starts_with(&folder), "{mount}");
        assert!(from.exists() && mount["Type"] == "bind", "{mount}");
    }
    let words: Vec<_> = entrypoint.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let inside = words.iter().position(|word| *word == "inside").unwrap();
    assert_eq!(words[inside - 1], "/tokfence/tokfence");
    assert_eq!(
        words[inside + 1..],
        [
            "--way",
            &format!("{}=/tokfence/sockets/gateway.sock", world.gateway.address),
            "--way",
            "/tokfence/sockets/agent.sock=127.0.0.1:18789",
            "--env-file",
            "/tokfence/env",
            "--",
        ]
    );
}

#[test]
fn connections_are_carried_in_and_out_and_over_a_restart_of_the_gateway() {
    let mut world = World::new();
    world.launch().run().expect(0);
    assert!(page(world.page()).ends_with("claw!"));
    let request = Request::post(CHAT, BODY).bearer(&world.variable("OPENAI_API_KEY"));
    let out = world.file("sockets/gateway.sock");
    Client::unix(&out).ask(&request).expect(200);
    world.gateway.run(["stop"]).expect(0);
    world.gateway.start_again();
    // The port is another one in a test, and a call over the socket need not name it.
    let ask = || Client::unix(&out).ask(&request).status();
    assert_eq!(eventually("an answer", || Some(ask()).filter(|status| *status == 200)), 200);
}

#[test]
fn it_is_told_of_and_stopped_with_all_that_it_had() {
    let world = World::new();
    world.command(&["status"]).run().expect(5);
    world.command(&["stop"]).run().expect(5);
    world.launch().run().expect(0);
    let status = world.command(&["--json", "status"]).run().expect(0).json();
    assert_eq!(
        (&status["running"], &status["connected"], &status["digest"], &status["image"]),
        (&json!(true), &json!(true), &json!(DIGEST), &json!(IMAGE)),
        "{status:#}"
    );
    assert_eq!(status["url"], format!("http://127.0.0.1:{}/", world.port));
    assert_eq!(world.command(&["logs"]).run().expect(0).stdout, "listening\nwarned [31mred\n");
    let shown = world.command(&["config"]).run().expect(0).stdout;
    assert!(shown.contains("\"token\": \"(hidden)\"") && !shown.contains("tfk_"), "{shown}");
    world.launch().run().expect(1);

    let request = Request::post(CHAT, BODY).bearer(&world.variable("OPENAI_API_KEY"));
    world.gateway.tcp().ask(&request).expect(200);
    world.engine.asked();
    world.command(&["stop"]).run().expect(0);
    let asked = world.engine.asked();
    let of_container = format!("/containers/{NAME}");
    assert_eq!(
        lines(&asked)[2..],
        [format!("POST {of_container}/stop?t=10"), format!("DELETE {of_container}?force=true&v=true")]
    );
    world.gateway.tcp().ask(&request).expect_refusal(401, "revoked_capability");
    assert!(TcpStream::connect(world.page()).is_err(), "somebody still listens");
    assert_eq!(world.command(&["--json", "status"]).run().expect(3).json()["running"], false);
    world.command(&["--json", "stop"]).run().expect(0);
}

#[test]
fn a_restart_is_as_before_with_another_capability() {
    let world = World::new();
    let workspace = world.gateway.home.file("work");
    std::fs::create_dir(&workspace).unwrap();
    let launch =
        ["--image", IMAGE, "--port", &world.port.to_string(), "--workspace", workspace.to_str().unwrap()];
    world.command(&launch).run().expect(0);
    let (before, made) = (world.variable("OPENAI_API_KEY"), world.engine.asked().remove(6).1);
    assert_eq!(source(&made, "/workspace"), workspace);
    let config = world.file("home/.openclaw/openclaw.json");
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&config).unwrap()).unwrap();
    let mut changed = read();
    changed["channels"] = json!({ "telegram": { "enabled": true } });
    std::fs::write(&config, changed.to_string()).unwrap();

    world.command(&["restart", "--no-pull"]).run().expect(0);
    let asked = world.engine.asked();
    assert!(!lines(&asked).iter().any(|line| line.contains("/images/create")), "{asked:?}");
    let again = asked.iter().find(|(line, _)| line.contains("/containers/create")).unwrap();
    assert_eq!(again.1, made);
    let after = world.variable("OPENAI_API_KEY");
    assert_ne!(before, after);
    world
        .gateway
        .tcp()
        .ask(&Request::post(CHAT, BODY).bearer(&before))
        .expect_refusal(401, "revoked_capability");
    world.gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&after)).expect(200);
    let now = read();
    assert_eq!(now["channels"], changed["channels"]);
    assert_eq!(now["gateway"]["auth"]["token"], changed["gateway"]["auth"]["token"]);
}

#[test]
fn a_container_of_somebody_else_is_left_alone() {
    let world = World::new();
    world.launch().run().expect(0);
    for labels in [json!({}), json!({ "tokfence.home": "/srv/other/.tokfence" }), Value::Null] {
        world.engine.has(json!({ "Labels": labels }), true);
        world.engine.asked();
        for args in
            [&["stop"][..], &["restart"], &["status"], &["logs"], &["--image", IMAGE, "--port", "1024"]]
        {
            let output = world.command(&[&["--json"], args].concat()).run().expect(7);
            assert_eq!(output.error()["code"], "foreign_container", "{args:?}");
        }
        let asked = world.engine.asked();
        assert!(lines(&asked).iter().all(|line| line.starts_with("GET ")), "{asked:?}");
        assert!(world.engine.has_container());
    }
}

#[test]
fn what_fails_on_the_way_leaves_nothing_that_runs() {
    // One that is started and ends at once: nobody plays it.
    let world = World::with(|_| {});
    let free = world.port.to_string();
    world.engine.pulls(&[json!({ "status": "Pulling" }), json!({ "error": "manifest unknown" })]);
    let failure = world.command(&["--json", "--image", IMAGE, "--port", &free]).run().expect(1).error();
    assert!(failure["message"].as_str().unwrap().contains("manifest unknown"), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("--no-pull"), "{failure}");
    world.engine.pulls(&[]);
    world.engine.has_no_image();
    let failure =
        world.command(&["--json", "--image", IMAGE, "--port", &free, "--no-pull"]).run().expect(5).error();
    assert_eq!(failure["code"], "no_such_image");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let failure = world.command(&["--json", "--port", &port]).run().expect(1).error();
    assert_eq!(failure["code"], "cannot_listen");
    for args in [
        &["--image", "a b"][..],
        &["--name", "../x"],
        &["--port", "0"],
        &["--workspace", "/no/such"],
        &["status", "--image", "a"],
    ] {
        world.command(args).run().expect(2);
    }
    let asked = world.engine.asked();
    assert!(!lines(&asked).iter().any(|line| line.contains("/containers/create")), "{asked:?}");
    assert!(!world.file("").exists());
    world.gateway.run(["agent", "show", NAME]).expect(5);
}

#[test]
fn a_container_that_ends_at_once_is_told_of_with_its_last_words() {
    let world = World::with(|_| {});
    let ending = world.engine.path.clone();
    // It is there, and does not run.
    let handle = std::thread::spawn({
        let has_ended = world.file("launch.json");
        move || eventually("the launch", || has_ended.exists().then(|| ending.clone()))
    });
    let mut launch = world.launch();
    let child = launch.inner().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    handle.join().unwrap();
    eventually("its start", || {
        world.engine.asked().iter().any(|(line, _)| line.ends_with("/start")).then_some(())
    });
    world.engine.has(json!({ "Labels": { "tokfence.home": world.gateway.home.path() } }), false);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("the container has ended; it said:\n  listening\n  warned"), "{stderr}");
    assert!(!world.engine.has_container() && TcpStream::connect(world.page()).is_err());
    let token = world.variable("OPENAI_API_KEY");
    world
        .gateway
        .tcp()
        .ask(&Request::post(CHAT, BODY).bearer(&token))
        .expect_refusal(401, "revoked_capability");
}

#[test]
fn without_an_engine_or_a_gateway_nothing_is_launched() {
    let world = World::new();
    for host in ["unix:///nowhere/engine.sock", "tcp://127.0.0.1:2375"] {
        let output = world.command(&["--json"]).env("DOCKER_HOST", host).run().expect(1);
        let failure = output.error();
        assert_eq!(failure["code"], "no_engine", "{host}");
        assert!(failure["hint"].as_str().unwrap().contains("tokfence run --sandbox"), "{failure}");
    }
    world.gateway.run(["stop"]).expect(0);
    world.launch().run().expect(3);
    assert!(!world.file("").exists());
}

/// In a root of its own with nothing of this machine's but what the engine is told to mount.
#[test]
fn this_program_runs_in_an_image_that_has_nothing_it_needs() {
    need_sandbox!();
    let world = World::new();
    world.launch().run().expect(0);
    let made = world.engine.asked().remove(6).1;
    let words = engine::entrypoint(&made);
    let program = &words[..words.iter().position(|word| *word == "inside").unwrap()];
    let output = engine::run(&made, &[], &[program, &["--version"]].concat()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("tokfence "), "{output:?}");
}

/// The page is the gateway's own here: in through the port, and out to the gateway on the way that an agent has.
#[test]
fn in_the_container_the_gateway_is_where_it_always_is_and_nothing_else() {
    need_sandbox!();
    let container = Arc::new(Mutex::new(None));
    let started = container.clone();
    let world = World::with(move |made| {
        let words = engine::entrypoint(made);
        let inside = words.iter().position(|word| *word == "inside").unwrap();
        let gateway = words[inside + 2].split('=').next().unwrap();
        let page = format!("127.0.0.1:18789={gateway}");
        let image = ["/usr", "/bin", "/lib", "/lib64"].map(Path::new);
        let image: Vec<&Path> = image.into_iter().filter(|path| path.exists()).collect();
        let script = "grep -c : /proc/net/dev > /workspace/networks; echo $OPENAI_API_KEY > /workspace/key; \
                      exec sleep 600";
        let agent = ["inside", "--way", &page, "--", "sh", "-c", script];
        let command = [&words[..], &words[..inside], &agent].concat();
        own_again(made);
        let mut command = engine::run(made, &image, &command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        *started.lock().unwrap() = Some(Ended(command.spawn().unwrap()));
    });
    world.launch().run().expect(0);
    let token = world.variable("OPENAI_API_KEY");
    Client::tcp(world.page()).ask(&Request::post(CHAT, BODY).bearer(&token)).expect(200);
    let read = |name: &str| std::fs::read_to_string(world.file(&format!("workspace/{name}"))).ok();
    assert_eq!(eventually("what it wrote", || read("key")).trim(), token);
    assert_eq!(read("networks").unwrap(), "1\n", "only the one with itself");
    drop(container.lock().unwrap().take());
}

/// A process that ends with its group when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Gives what the container's user owns back to who runs the tests, who may be root: Bubblewrap knows one user alone.
fn own_again(made: &Value) {
    let socket = source(made, "/tokfence/sockets").join("gateway.sock");
    let folders = ["/tokfence/env", "/tokfence/sockets", "/tokfence/home", "/workspace"];
    for path in folders.map(|target| source(made, target)).into_iter().chain([socket]) {
        std::os::unix::fs::chown(path, Some(geteuid().as_raw()), None).unwrap();
    }
}
