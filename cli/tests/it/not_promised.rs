//! What is not promised, shown. Each of these tests gets away with something that `SECURITY.md` says is not prevented; one
//! that fails means that the page must say something else, not that the program must.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use storage::Outcome;

use crate::fence::{ask, canary, chat, key, words};
use crate::prompts::{answer, at_terminal, rest};
use crate::support::{Client, Gateway, Home, PASSPHRASE, Request, Setup, json as json_answer};

const CHAT: &str = "/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// Plays an answer whose words are these, and checks that they reach the caller as they are and nothing is told of it.
#[track_caller]
fn check_reaches_the_caller(text: &str) {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(chat(&[text]));
    assert_eq!(words(&ask(gateway, BODY, &script).expect(200).text()), text);
}

/// Sends a prompt, and checks that it reaches the provider.
#[track_caller]
fn check_reaches_the_provider(content: Value) {
    let gateway = Gateway::shared();
    let script = gateway.mock.plays(json_answer("{}"));
    let body = json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": content }] });
    ask(gateway, &body.to_string(), &script).expect(200);
    let sent: Value = serde_json::from_slice(&gateway.mock.the_request(&script).body).unwrap();
    assert_eq!(sent, body);
}

/// The sound of each character, as somebody would tell it over the telephone.
fn spelled_out(secret: &str) -> String {
    let sound = |letter: char| match letter {
        '0'..='9' => "zero one two three four five six seven eight nine"
            .split(' ')
            .nth(usize::try_from(letter.to_digit(10).unwrap()).unwrap())
            .unwrap()
            .to_owned(),
        '-' => "dash".to_owned(),
        '_' => "underscore".to_owned(),
        letter => format!("{letter} as in {letter}ike"),
    };
    secret.chars().map(sound).collect::<Vec<_>>().join(", ")
}

/// Each letter moved on by three places, the digits left out.
fn caesar(secret: &str) -> String {
    let moved = |first: u8, byte: u8| char::from(first + (byte - first + 3) % 26);
    let shift = |letter: char| match u8::try_from(letter) {
        Ok(byte @ b'a'..=b'z') => moved(b'a', byte),
        Ok(byte @ b'A'..=b'Z') => moved(b'A', byte),
        _ => letter,
    };
    secret.chars().map(shift).collect()
}

#[test]
fn an_acrostic_of_a_key_reaches_the_caller() {
    let lines: String = key("openai").chars().map(|letter| format!("{letter}ow that is a line\n")).collect();
    check_reaches_the_caller(&lines);
}

#[test]
fn a_key_in_two_answers_reaches_the_caller() {
    let (left, right) = key("openai").split_at(key("openai").len() / 2);
    check_reaches_the_caller(&format!("the first half is {left}"));
    check_reaches_the_caller(&format!("the second half is {right}"));
}

#[test]
fn the_beginning_of_a_key_reaches_the_caller() {
    check_reaches_the_caller(&format!("it begins with {}", &key("openai")[..11]));
}

#[test]
fn a_key_that_is_spelled_out_reaches_the_caller() {
    check_reaches_the_caller(&spelled_out(key("openai")));
}

#[test]
fn a_key_in_a_cipher_reaches_the_caller() {
    check_reaches_the_caller(&caesar(key("openai")));
    let hidden: String = key("openai").bytes().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect();
    check_reaches_the_caller(&hidden);
}

#[test]
fn a_hash_of_a_key_reaches_the_caller() {
    let hash: String = Sha256::digest(key("openai")).iter().map(|byte| format!("{byte:02x}")).collect();
    check_reaches_the_caller(&hash);
}

#[test]
fn a_key_in_three_layers_reaches_the_caller() {
    let layers = (0..3).fold(key("openai").as_bytes().to_vec(), |text, _| STANDARD.encode(text).into_bytes());
    check_reaches_the_caller(&String::from_utf8(layers).unwrap());
}

#[test]
fn pieces_that_take_turns_where_nothing_has_a_number_reach_the_caller() {
    let gateway = Gateway::shared();
    let (left, right) = key("openai").split_at(key("openai").len() / 2);
    let document = json!({ "one": left, "between": "something else altogether", "two": right }).to_string();
    let script = gateway.mock.plays(json_answer(&document));
    assert_eq!(ask(gateway, BODY, &script).expect(200).text(), document);
}

#[test]
fn what_a_secret_means_is_sent_to_the_provider() {
    let (left, right) = key("openai").split_at(key("openai").len() / 2);
    check_reaches_the_provider(json!(format!("My key begins with {left}. Remember that.")));
    check_reaches_the_provider(json!(format!("And it ends with {right}.")));
    check_reaches_the_provider(json!(spelled_out(key("openai"))));
}

#[test]
fn a_picture_and_the_address_of_a_file_are_sent_to_the_provider() {
    // The dots of a letter are a picture to whoever sees it, and numbers to whoever searches.
    let dots: Vec<u8> =
        key("openai").bytes().flat_map(|byte| (0..8).map(move |bit| 255 * (byte >> bit & 1))).collect();
    let picture = format!("data:image/x-portable-graymap;base64,{}", STANDARD.encode(dots));
    check_reaches_the_provider(json!([{ "type": "image_url", "image_url": { "url": picture } }]));
    let address = "https://files.example/what-the-agent-put-there.png";
    check_reaches_the_provider(json!([{ "type": "image_url", "image_url": { "url": address } }]));
}

#[test]
fn a_short_secret_and_one_of_few_characters_reach_the_caller() {
    for secret in ["short-key-0123", "abababababababababababab"] {
        let gateway = Gateway::start();
        gateway.home.command(["vault", "rotate", "openai", "-"]).input(secret).run().expect(0);
        let script = gateway.mock.plays(chat(&[secret]));
        assert_eq!(words(&ask(&gateway, BODY, &script).expect(200).text()), secret);
    }
}

#[test]
fn who_leaves_the_decoys_alone_is_not_noticed() {
    let gateway = Gateway::start();
    canary(&gateway, &["spare", "--kind", "decoy"]);
    gateway.ask(Request::post(CHAT, BODY)).expect(200);
    let status = gateway.run(["--json", "risk", "status"]).expect(0).json();
    assert!(!status.to_string().contains("RED") && !status.to_string().contains("ORANGE"), "{status}");
}

#[test]
fn a_holder_spends_what_it_may_on_whatever_it_likes() {
    let gateway = Gateway::start();
    let agent = gateway.mint(&["spender", "--model", "gpt-4o-mini", "--budget", "1.00/total"]);
    for question in ["something useful", "something useless", "the same for somebody else"] {
        let body = json!({ "model": "gpt-4o-mini", "max_tokens": 10, "messages": [{ "role": "user", "content": question }] });
        gateway.tcp().ask(&Request::post(CHAT, body.to_string()).bearer(&agent)).expect(200);
    }
    gateway.rest();
    assert_eq!(gateway.rows().iter().filter(|row| row.request.outcome == Outcome::Completed).count(), 3);
}

#[test]
fn a_capability_is_good_for_whoever_has_it() {
    let gateway = Gateway::shared();
    // Nothing tells the port who is at the other end, and it has one answer for those who have nothing.
    let health = gateway.tcp().ask(&Request::get("/__tokfence/health")).expect(200);
    assert!(health.text().contains("status"));
    gateway.tcp().ask(&Request::post(CHAT, BODY)).expect_refusal(401, "missing_capability");
    let stolen = gateway.token.clone();
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&stolen)).expect(200);
}

#[test]
fn who_takes_the_port_while_no_daemon_runs_is_sent_the_capability() {
    let gateway = Gateway::start();
    gateway.run(["stop"]).expect(0);
    let squatter = TcpListener::bind(gateway.address).expect("nobody else has the port");
    let mut agent = gateway.tcp();
    agent.send(&Request::post(CHAT, BODY).bearer(&gateway.token).bytes());
    let (mut connection, mut seen) = (squatter.accept().unwrap().0, [0; 2048]);
    let count = connection.read(&mut seen).unwrap();
    let seen = String::from_utf8_lossy(&seen[..count]).into_owned();
    assert!(seen.contains(&gateway.token) && !seen.contains(key("openai")), "{seen}");
}

#[test]
fn an_agent_uses_its_own_login_without_the_gateway() {
    const LOGIN: &str = "Bearer eyJhbGciOi.0LOGINSENTINEL0_a-b.c";
    let gateway =
        Gateway::start_with(&Setup { provider: "auth = \"passthrough\"".to_owned(), ..Setup::default() });
    gateway.run(["kill"]).expect(0);
    let login = Request::post("/v1/chat/completions", BODY).field("Authorization", LOGIN);
    Client::tcp(gateway.mock.address).ask(&login).expect(200);
    let received = gateway.mock.unasked();
    assert_eq!(received.last().unwrap().get("authorization").as_deref(), Some(LOGIN));
    assert!(gateway.rows().is_empty());
}

#[test]
fn whoever_runs_as_the_same_user_makes_himself_a_capability() {
    let gateway = Gateway::start();
    let mint = gateway.home.command(["agent", "mint", "malware"]).without_passphrase().run().expect(0);
    let token = mint.stdout.trim().to_owned();
    gateway.tcp().ask(&Request::post(CHAT, BODY).bearer(&token)).expect(200);
}

#[test]
fn an_old_copy_of_the_vault_opens_with_the_old_passphrase() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    home.command(["vault", "add", "openai", "-"]).input(key("openai")).run().expect(0);
    let copy = fs::read(home.file("vault.tfv")).unwrap();
    let mut terminal = at_terminal(&home, &["vault", "passphrase"]);
    answer(&mut terminal, "Present passphrase of the vault: ", PASSPHRASE);
    answer(&mut terminal, "New passphrase for the vault: ", "an entirely new passphrase");
    answer(&mut terminal, "The same again: ", "an entirely new passphrase");
    assert!(rest(terminal).contains("the passphrase is changed"));
    home.run(["vault", "list"]).expect(4);

    let thief = Home::new();
    fs::write(thief.file("vault.tfv"), copy).unwrap();
    fs::set_permissions(thief.file("vault.tfv"), fs::Permissions::from_mode(0o600)).unwrap();
    let passphrase = vault::Secret::from(PASSPHRASE);
    let opened =
        vault::Vault::open(&thief.file("vault.tfv"), &vault::Unlock::Passphrase(&passphrase)).unwrap();
    let entry = opened.entry("openai", vault::EntryKind::Inference).unwrap();
    assert_eq!(entry.secret().expose(), key("openai"));
}

#[test]
fn the_log_tells_whoever_has_the_disk_who_asked_which_model() {
    let gateway = Gateway::start();
    let asked = json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "a-word-of-the-prompt" }] });
    gateway.ask(Request::post(CHAT, asked.to_string())).expect(200);
    gateway.rest();
    gateway.run(["stop"]).expect(0);
    let database = fs::read(gateway.home.file("tokfence.db")).unwrap();
    let holds = |text: &str| database.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(["tester", "openai", "gpt-4o-mini"].iter().all(|text| holds(text)));
    assert!(!holds("a-word-of-the-prompt"));
}

#[test]
fn a_provider_that_reports_too_much_is_believed() {
    let gateway = Gateway::start();
    let usage = json!({ "model": "gpt-4o-mini", "choices": [], "usage": { "prompt_tokens": 1_000_000, "completion_tokens": 0 } });
    let script = gateway.mock.plays(json_answer(usage.to_string()));
    let id = ask(&gateway, r#"{"model":"gpt-4o-mini","messages":[]}"#, &script).expect(200).id();
    assert_eq!(gateway.row(&id).request.usage.input, 1_000_000);
}

#[test]
fn a_key_with_a_character_changed_here_and_there_reaches_the_caller() {
    let changed = |(index, letter)| if index % 11 == 10 { '+' } else { letter };
    check_reaches_the_caller(&key("openai").chars().enumerate().map(changed).collect::<String>());
}

#[test]
fn who_puts_back_both_the_database_and_its_head_is_found_by_a_noted_head_alone() {
    let home = Home::new();
    home.run(["init", "--non-interactive"]).expect(0);
    let both = ["tokfence.db", "tokfence.db.audit-head"].map(|name| home.file(name));
    let copies = both.clone().map(|path| fs::read(path).unwrap());
    home.run(["kill"]).expect(0);
    let noted = home.run(["--json", "audit", "verify"]).expect(0).json();
    for (path, copy) in both.iter().zip(copies) {
        fs::write(path, copy).unwrap();
    }
    home.run(["audit", "verify"]).expect(0);
    home.run(["audit", "verify", "--head", noted["head"].as_str().unwrap()]).expect(6);
}
