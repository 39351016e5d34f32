//! `run --sandbox`: what a command in a sandbox reaches, reads and writes, and that it is run like any other.
//!
//! They need Bubblewrap and a kernel that lets users make namespaces. Where there is neither they say so and do nothing;
//! `.ci/run` sees to it that Bubblewrap is there.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use rexpect::session::spawn_command;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Command, Gateway, KEYS, Output, PATIENCE, Request, eventually};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[]}"#;

fn gateway() -> &'static Gateway {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);
    &GATEWAY
}

/// Why no sandbox can be made here, if none can: asked of Bubblewrap itself, and not of what is tested.
pub(crate) fn obstacle() -> Option<&'static str> {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(|| {
        let tried = std::process::Command::new("bwrap")
            .args(["--unshare-all", "--ro-bind", "/", "/", "true"])
            .stdin(Stdio::null())
            .output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("bwrap: {error}")),
        }
    });
    OBSTACLE.as_deref()
}

/// Ends a test where no sandbox can be made.
macro_rules! need_sandbox {
    () => {
        if let Some(obstacle) = crate::sandbox::obstacle() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped, no sandbox can be made here: {obstacle}");
            return;
        }
    };
}

pub(crate) use need_sandbox;

/// A user with a home and a project in it.
struct User {
    _place: tempfile::TempDir,
    home: PathBuf,
    project: PathBuf,
}

impl User {
    fn new() -> Self {
        // Where the sources are, which may be in a folder that a sandbox has of its own, such as the one for temporary files.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = tempfile::Builder::new().prefix("user-").tempdir_in(target).unwrap();
        let home = place.path().canonicalize().unwrap();
        let project = home.join("project");
        std::fs::create_dir(&project).unwrap();
        Self { _place: place, home, project }
    }

    /// `run --sandbox`, as this user types it in the project.
    fn run(&self, args: &[&str], command: &[&str]) -> Command {
        let mut run = gateway().home.command([&["run", "--sandbox"], args, &["--"], command].concat());
        run.inner().env("HOME", &self.home).current_dir(&self.project);
        run
    }

    fn bash(&self, args: &[&str], script: &str) -> Command {
        self.run(args, &["bash", "-c", script])
    }
}

#[test]
fn the_gateway_is_reached_where_it_always_is() {
    need_sandbox!();
    let gateway = gateway();
    let request =
        String::from_utf8(Request::post(CHAT, BODY).field("Connection", "close").bearer("$K").bytes());
    let request = request.unwrap().replace("$K", "'$OPENAI_API_KEY'").replace("\r\n", "\\r\\n");
    let script = format!(
        "echo $OPENAI_BASE_URL; exec 3<>/dev/tcp/127.0.0.1/{}; printf '{request}' >&3; cat <&3",
        gateway.address.port()
    );
    let output = User::new().bash(&["--agent", "boxed"], &script).run().expect(0);
    assert!(
        output.stdout.starts_with(&format!("http://{}/openai/v1\n", gateway.address)),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("HTTP/1.1 200"), "{}", output.stdout);
    assert!(output.stderr.contains("1 request,"), "{}", output.stderr);
}

#[test]
fn nothing_else_is_reached() {
    need_sandbox!();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let script = format!(
        "(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>&1; (exec 3<>/dev/tcp/192.0.2.1/80) 2>&1; \
         (exec 3<>/dev/udp/192.0.2.1/53 && echo x >&3) 2>&1; getent hosts example.com || echo unknown name; \
         tail -n +3 /proc/net/dev | grep -v ' lo:' | grep : ; cat /proc/net/unix | grep @; true"
    );
    let output = User::new().bash(&[], &script).run().expect(0).stdout;
    assert!(output.contains("refused"), "{output}");
    assert_eq!(output.matches("unreachable").count(), 4, "two lines for each of TCP and UDP: {output}");
    assert!(output.contains("unknown name"), "{output}");
    assert!(!output.contains(':') || !output.contains(" eth"), "{output}");
    assert!(!output.contains('@'), "sockets without a path are of another network: {output}");
    host.set_nonblocking(true).unwrap();
    assert!(host.accept().is_err(), "a listener of the machine was reached");
}

#[test]
fn what_the_gateway_keeps_and_what_the_user_keeps_is_not_there() {
    need_sandbox!();
    let (gateway, user) = (gateway(), User::new());
    for (name, text) in [(".ssh/id_ed25519", "S3CRET-ssh"), (".netrc", "S3CRET-netrc"), ("notes", "a note\n")]
    {
        let path = user.home.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let helper = UnixListener::bind(user.home.join("helper.sock")).unwrap();
    let ours = gateway.home.path().display();
    let script = format!(
        "ls -A {ours}; cat {ours}/vault.tfv {ours}/config.toml; test -S {ours}/control/control.sock && echo SOCKET; \
         test -S {ours}/tokfence.sock && echo SOCKET; ls -A ~/.ssh; cat ~/.ssh/id_ed25519 ~/.netrc ~/notes; \
         test -S ~/helper.sock && echo SOCKET; ls /run; grep -a 0SENTINEL0 -r /proc/*/environ; env; ls /proc | grep -c '^[0-9]'"
    );
    // Who is allowed the folder around the gateway's own sees that it is there, and nothing in it.
    for allowed in [&[][..], &["--allow-read", gateway.home.path().parent().unwrap().to_str().unwrap()]] {
        check_hidden(&user.bash(allowed, &script).run());
    }
    drop(helper);
}

#[track_caller]
fn check_hidden(output: &Output) {
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines[..2], ["a note", "tokfence"][..], "{}\n{}", output.stdout, output.stderr);
    for text in ["SOCKET", "S3CRET", "SENTINEL", "TOKFENCE_HOME", "TOKFENCE_VAULT_PASSPHRASE"] {
        assert!(!output.stdout.contains(text), "{text}: {}", output.stdout);
    }
    for key in &KEYS {
        assert!(!output.stdout.contains(key.key));
    }
    let processes: u32 = lines.last().unwrap().parse().unwrap();
    assert!(processes < 10, "the processes of the machine are seen");
}

#[test]
fn the_project_is_written_and_the_rest_is_not_unless_that_is_allowed() {
    need_sandbox!();
    let user = User::new();
    for dir in ["state", "other", ".aws"] {
        std::fs::create_dir(user.home.join(dir)).unwrap();
    }
    std::fs::write(user.home.join(".aws/config"), "region\n").unwrap();
    std::fs::write(user.home.join(".aws/credentials"), "S3CRET").unwrap();
    let (state, config) = (user.home.join("state"), user.home.join(".aws/config"));
    let allowed = ["--allow-write", state.to_str().unwrap(), "--allow-read", config.to_str().unwrap()];
    let script = "echo 1 > made; echo 2 > ~/state/kept; echo 3 > ~/other/x; echo 4 > ~/.bashrc; echo 5 > /etc/x; \
                  echo 6 > ~/.aws/config; echo 7 > /tmp/mine; cat ~/.aws/config ~/.aws/credentials; \
                  ls /tmp | grep -vx \"$(pwd | cut -d/ -f3)\"; pwd";
    let output = user.bash(&allowed, script).run().expect(0);
    let project = user.project.display();
    assert_eq!(output.stdout, format!("region\nmine\n{project}\n"), "{}", output.stderr);
    assert_eq!(std::fs::read_to_string(user.project.join("made")).unwrap(), "1\n");
    assert_eq!(std::fs::read_to_string(user.home.join("state/kept")).unwrap(), "2\n");
    assert!(!user.home.join("other/x").exists() && !user.home.join(".bashrc").exists());
    assert_eq!(std::fs::read_to_string(user.home.join(".aws/config")).unwrap(), "region\n");
    assert!(!Path::new("/tmp/mine").exists() && !Path::new("/etc/x").exists());
}

#[test]
fn the_command_has_no_rights_and_does_not_type_into_the_terminal() {
    need_sandbox!();
    let script = r#"grep -E '^(NoNewPrivs|CapEff|CapBnd|Seccomp):' /proc/self/status; perl -e 'my $x = "x"; ioctl(STDIN, 0x5412, $x); print 0 + $!'"#;
    let output = User::new().bash(&[], script).run().expect(0).stdout;
    let words: Vec<_> = output.split_whitespace().collect();
    let expected =
        ["CapEff:", "0000000000000000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"];
    assert_eq!(words[..8], expected, "{output}");
    assert_eq!(words[8], "1", "not refused: {output}");
}

#[test]
fn the_exit_code_is_passed_on() {
    need_sandbox!();
    let user = User::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let output = user.bash(&["--agent", "exits"], script).run();
        assert_eq!(output.code, Some(code), "{script}: {}", output.stderr);
    }
    let mut command =
        gateway().home.command(["--json", "run", "--sandbox", "--", "no-such-program-anywhere"]);
    command.inner().env("HOME", &user.home).current_dir(&user.project);
    assert_eq!(command.run().expect(1).error()["code"], "cannot_run");
}

/// A sandbox that runs: the process outside, and the first line that its command printed.
fn started(mut run: Command) -> (std::process::Child, BufReader<std::process::ChildStdout>, String) {
    let mut child =
        run.inner().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (child, stdout, line.trim().to_owned())
}

#[test]
fn a_signal_is_passed_on_into_the_sandbox() {
    need_sandbox!();
    let user = User::new();
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
        let script =
            format!("trap 'echo got; exit 9' {name}; echo $OPENAI_API_KEY; while :; do sleep 0.05; done");
        let (mut child, mut stdout, token) = started(user.bash(&["--agent", "signalled"], &script));
        gateway().tcp().ask(&Request::post(CHAT, BODY).bearer(&token)).expect(200);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got\n", Some(9)), "{name}");
        gateway()
            .tcp()
            .ask(&Request::post(CHAT, BODY).bearer(&token))
            .expect_refusal(401, "revoked_capability");
    }
}

/// The processes of this machine whose arguments hold a text.
fn processes(text: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .filter(|words| words.contains(text))
        .collect()
}

#[test]
fn everything_ends_with_the_run_that_is_killed_and_no_token_is_in_arguments() {
    need_sandbox!();
    let user = User::new();
    // A time to sleep that nobody else sleeps for; the second leaves its parent, as a daemon would.
    let script = "(setsid sleep 86399.125 &) ; echo $OPENAI_API_KEY; sleep 86399.125";
    let (mut child, _stdout, token) = started(user.bash(&["--agent", "killed"], script));
    eventually("both to sleep", || {
        (processes("sleep 86399.125").iter().filter(|words| words.starts_with("sleep")).count() == 2)
            .then_some(())
    });
    assert_eq!(processes(&token), Vec::<String>::new());
    let door = gateway().home.file(&format!("control/run-{}.sock", &token[4..12]));
    assert!(door.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the end of everything", || processes("86399.125").is_empty().then_some(()));
    eventually("the end of its capability", || {
        (gateway().tcp().ask(&Request::post(CHAT, BODY).bearer(&token)).status() == 401).then_some(())
    });
    eventually("the end of its socket", || (!door.exists()).then_some(()));
}

#[test]
fn what_is_left_in_the_background_ends_with_the_command() {
    need_sandbox!();
    let output = User::new().bash(&[], "(setsid sleep 86398.125 &); echo done").run().expect(0);
    assert_eq!(output.stdout, "done\n");
    eventually("its end", || processes("86398.125").is_empty().then_some(()));
}

#[test]
fn at_a_terminal_a_shell_has_jobs_and_an_interrupt_ends_only_what_runs_in_it() {
    need_sandbox!();
    let user = User::new();
    let mut run = user.run(&[], &["bash", "--norc", "-i"]);
    run.inner().env("PS1", "> ").env("HISTFILE", "");
    let command = std::mem::replace(run.inner(), std::process::Command::new("true"));
    let mut terminal = spawn_command(command, Some(PATIENCE.as_millis().try_into().unwrap())).unwrap();
    terminal.exp_string("> ").unwrap();
    terminal.send_line("echo $((6*7)); sleep 86397.125").unwrap();
    terminal.exp_string("42").unwrap();
    // Before the shell has given it the terminal, an interrupt is the shell's own.
    let sleeps = || processes("86397.125").iter().any(|words| words.starts_with("sleep"));
    eventually("sleep to run", || sleeps().then_some(()));
    terminal.send_control('c').unwrap();
    terminal.exp_string("> ").unwrap();
    terminal.send_line("sleep 600 & jobs; echo $((7*8))").unwrap();
    terminal.exp_string("Running").unwrap();
    terminal.exp_string("56").unwrap();
    terminal.send_line("exit 5").unwrap();
    terminal.exp_string("requests").unwrap();
    let status = terminal.process().wait().unwrap();
    assert!(format!("{status:?}").contains("Exited") && format!("{status:?}").contains('5'), "{status:?}");
}

#[test]
fn a_folder_that_is_more_than_a_project_is_refused_and_so_is_the_gateways_own() {
    need_sandbox!();
    let user = User::new();
    let ours = gateway().home.path();
    for dir in [user.home.as_path(), Path::new("/"), ours] {
        let mut command =
            gateway().home.command(["--json", "run", "--sandbox", "--agent", "refused", "--", "true"]);
        command.inner().env("HOME", &user.home).current_dir(dir);
        assert_eq!(command.run().expect(7).error()["code"], "unsafe_path", "{}", dir.display());
    }
    let vault = ours.join("vault.tfv");
    for path in [ours, vault.as_path()] {
        user.run(&["--agent", "refused", "--allow-read", path.to_str().unwrap()], &["true"]).run().expect(7);
    }
    user.run(&["--agent", "refused", "--allow-write", "/no/such/path"], &["true"]).run().expect(2);
    gateway().run(["run", "--allow-write", "/", "--", "true"]).expect(2);
    gateway().run(["agent", "show", "refused"]).expect(5);
}

#[test]
fn without_bubblewrap_nothing_is_run() {
    let user = User::new();
    let run = user.run(&["--agent", "unboxed"], &["touch", "ran"]).env("PATH", "/nowhere");
    let output = run.run().expect(1);
    assert!(output.stderr.contains("install the package `bubblewrap`"), "{}", output.stderr);
    assert!(!user.project.join("ran").exists());
    gateway().run(["agent", "show", "unboxed"]).expect(5);
}
