//! Keys, capabilities and the passphrase have a recognisable middle. After everything that can happen to a
//! request has happened, it is looked for in every file and everything that was printed.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rustix::process::Signal;

use crate::support::{Gateway, KEYS, Mock, Output, PASSPHRASE, Request, Setup, Then, json, sse};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// The secret as it is and in the forms in which it could slip through.
pub(crate) fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    forms.push(secret.bytes().rev().collect());
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    forms.push(hex.to_ascii_uppercase().into_bytes());
    forms.push(hex.into_bytes());
    forms.push(secret.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>().into_bytes());
    // Base 64 of a text that holds the secret somewhere: one form for each place in a group of three.
    for before in 0..3 {
        let text = [&b"..."[..before], secret.as_bytes()].concat();
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            let whole_groups = text.len() / 3 * 4;
            forms.push(encoded.as_bytes()[4 * usize::from(before > 0)..whole_groups].to_vec());
        }
    }
    forms
}

/// What must not be found anywhere: all but the last characters, which are shown to tell keys apart.
fn secrets(tokens: &[String]) -> Vec<(String, Vec<Vec<u8>>)> {
    let keys = KEYS.iter().map(|key| (key.provider.to_owned(), &key.key[..key.key.len() - 4]));
    // The id of a capability is no secret, what follows it is.
    let tokens = tokens.iter().map(|token| ("a capability".to_owned(), &token[13..]));
    let passphrase = ("the passphrase".to_owned(), PASSPHRASE);
    keys.chain(tokens).chain([passphrase]).map(|(name, secret)| (name, forms(secret))).collect()
}

pub(crate) fn find(secrets: &[(String, Vec<Vec<u8>>)], place: &str, bytes: &[u8]) -> Vec<String> {
    let holds = |form: &Vec<u8>| bytes.windows(form.len()).any(|part| part == form.as_slice());
    secrets
        .iter()
        .filter(|(_, forms)| forms.iter().any(holds))
        .map(|(name, _)| format!("{name} in {place}"))
        .collect()
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Sends requests of every kind, good and bad, with the capability in every place.
fn make_requests(gateway: &Gateway, elsewhere: &Mock) {
    let token = &gateway.token;
    let send = |bytes: Vec<u8>| {
        for mut client in [gateway.tcp(), gateway.unix()] {
            let _ = client.try_send(&bytes);
            client.finish_sending();
            // Whatever the answer is: what is kept of the request is the question.
            let _ = client.try_response();
        }
    };
    let post = |target: &str| Request::post(target, BODY);
    for field in ["x-api-key", "x-goog-api-key", "api-key", "X-Tokfence-Capability", "Cookie", "X-Other"] {
        send(post(CHAT).field(field, token).bytes());
    }
    send(post(CHAT).bearer(token).bytes());
    send(post(CHAT).bearer(KEYS[0].key).bytes());
    send(post(&format!("{CHAT}?key={token}")).bytes());
    send(post(&format!("{CHAT}?key={}", KEYS[2].key)).bytes());
    send(post(&format!("{CHAT}?api_key={token}&x=%zz")).bytes());
    send(post(&format!("/nobody/v1?key={token}")).bytes());
    send(post(&format!("/openai/../x?key={token}")).bytes());
    send(post("/openai/v1/organization/keys").bearer(token).bytes());
    send(post("/unreachable/v1/chat/completions").bearer(token).bytes());
    send(format!("GET {CHAT}?key={token} HTTP/1.0\r\nHost: localhost\r\n\r\n").into_bytes());
    send(format!("GET http://x/?key={token} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes());
    send(format!("GET {CHAT}?key={token} HTTP/1.1\r\nHost: {token}\r\n\r\n").into_bytes());
    send(
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nX: \0\r\n\r\n")
            .into_bytes(),
    );
    send(post(CHAT).bearer(token).body(format!("{{\"model\":\"m\",\"metadata\":\"{token}\"")).bytes());
    send(post(CHAT).bearer(token).body(format!("{{\"model\":\"m\",\"metadata\":\"{token}\"}}")).bytes());
    let echo = format!("{{\"error\":{{\"message\":\"Incorrect API key provided: {}\"}}}}", KEYS[0].key);
    let scripts = [
        gateway.mock.plays(crate::support::answer("401 Unauthorized", &echo)),
        gateway.mock.plays(json(&echo)),
        gateway.mock.plays(sse(&[&format!("data: {echo}\n\n")])),
        gateway.mock.plays(format!("HTTP/1.1 {} {}\r\n\r\n", KEYS[0].key, token)),
        gateway.mock.plays(format!("{}\r\n\r\n", KEYS[0].key)),
        gateway.mock.script(|_, _| Ok(Then::Reset)),
        gateway.mock.plays(crate::support::answer_with(
            "302 Found",
            &format!("Location: http://{}/?key={}\r\n", elsewhere.address, KEYS[0].key),
            "",
        )),
    ];
    for script in scripts {
        send(post(CHAT).bearer(token).script(&script).bytes());
    }
}

#[test]
fn no_secret_is_in_any_file_or_any_output() {
    let (elsewhere, setup) = (Mock::start(), Setup::default());
    let tables = "[providers.unreachable]\nupstream = \"http://127.0.0.1:1\"\nlocal = true".to_owned();
    let gateway = Gateway::start_with(&Setup { tables, ..setup });
    let home = &gateway.home;
    home.command(["vault", "add", "unreachable", "-"]).input(KEYS[0].key).run().expect(0);
    make_requests(&gateway, &elsewhere);

    let mut printed: Vec<(String, Output)> = Vec::new();
    let mut run = |args: &[&str]| {
        let output = home.command(args.iter().copied()).input(KEYS[0].key).run();
        printed.push((args.join(" "), output));
    };
    for args in [
        &["status"][..],
        &["log", "--limit", "1000"],
        &["stats"],
        &["vault", "list"],
        &["agent", "list"],
        &["agent", "show", "tester"],
        &["doctor"],
        &["config", "show"],
        &["provider", "list"],
        &["vault", "add", "nobody", KEYS[0].key],
        &["vault", "rotate", "openai", "-"],
        &["vault", "add", "openai", "-", "--label", "x"],
        &["agent", "revoke", &gateway.token],
        &["agent", "show", &gateway.token],
        &["start", "-d"],
        &["lock"],
        &["unlock"],
        &["agent", "revoke", "tester"],
        &["agent", "restore", "tester"],
        &["run", "--", "true"],
        &["vault", "remove", "mistral"],
        &["audit", "--limit", "1000"],
        &["audit", "verify"],
    ] {
        run(args);
        run(&[&["--json"], args].concat());
    }
    let wrong = home.command(["--json", "vault", "list"]).env("TOKFENCE_VAULT_PASSPHRASE", "wrong");
    printed.push(("a wrong passphrase".to_owned(), wrong.run().expect(4)));

    let secrets = secrets(std::slice::from_ref(&gateway.token));
    let mut found = Vec::new();
    if let Some(pid) = home.daemon_pid().filter(|_| cfg!(target_os = "linux")) {
        for name in ["cmdline", "environ"] {
            // A daemon may deny even its owner the look; then there is nothing to find.
            let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            found.extend(find(&secrets, name, &bytes));
        }
    }
    let files_seen = files_of(home.path());
    home.signal(Signal::TERM);
    home.wait_for_end();
    for (args, output) in &printed {
        found.extend(find(&secrets, args, output.stdout.as_bytes()));
        found.extend(find(&secrets, args, output.stderr.as_bytes()));
    }
    for path in files_seen.into_iter().chain(files_of(home.path())) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        found.extend(find(&secrets, &path.display().to_string(), &bytes));
    }
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(elsewhere.connections(), 0);
    // The search itself must be able to find something.
    assert!(
        !find(&secrets, "a probe", format!("..{}..", STANDARD.encode(KEYS[0].key)).as_bytes()).is_empty()
    );
}

/// The files of a home but the vault, in which keys are, sealed.
pub(crate) fn files_of(home: &Path) -> Vec<PathBuf> {
    let mut files = files(home);
    files.retain(|path| !path.ends_with("vault.tfv") && path.extension().is_none_or(|kind| kind != "sock"));
    assert!(files.iter().any(|path| path.ends_with("tokfence.db")));
    assert!(files.iter().any(|path| path.ends_with("log/tokfence.log")));
    files
}
