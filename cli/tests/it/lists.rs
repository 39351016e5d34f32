//! What lists look like at a terminal of eighty columns: what can be spared is left out before a line is broken. The paths and
//! values that others hold are not cut.

use policy::{DecoyShape, decoy};
use rexpect::session::spawn_command;

use crate::support::{Gateway, Home, PATIENCE, Request, json, program};

const BODY: &str = r#"{"model":"gpt-4o-mini-2024-07-18","messages":[]}"#;
const ANSWER: &str =
    r#"{"model":"gpt-4o-mini-2024-07-18","usage":{"prompt_tokens":1234567,"completion_tokens":89012}}"#;

/// What a command shows at a terminal of eighty columns.
#[track_caller]
fn at_eighty_columns(home: &Home, args: &[&str]) -> String {
    let mut like = home.command(args.iter().copied());
    // The terminal has its width before the program looks.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "stty cols 80 && exec \"$0\" \"$@\" 2>/dev/null", program()]).args(args).env_clear();
    command.envs(like.inner().get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = spawn_command(command, Some(PATIENCE.as_millis().try_into().unwrap())).unwrap();
    // It takes each byte for a character.
    let bytes =
        terminal.exp_eof().unwrap().chars().map(|byte| u8::try_from(u32::from(byte)).unwrap()).collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn no_line_of_a_list_is_longer_than_the_terminal() {
    let gateway = Gateway::start();
    let note = "writes the code, all of it, by day and by night, and tells nobody";
    gateway.mint(&["coder-with-a-longish-name", "--provider", "openai", "--note", note]);
    gateway.run(["ratelimit", "set", "agent:coder-with-a-longish-name", "60", "--concurrent", "4"]).expect(0);
    gateway.run(["budget", "set", "agent:coder-with-a-longish-name", "10", "daily"]).expect(0);
    gateway.run(["canary", "add", "bait-for-whoever-reads", "--kind", "decoy"]).expect(0);
    let key = decoy(DecoyShape::OpenAi, [1; 32]);
    std::fs::write(gateway.home.file(".zshrc"), format!("export OPENAI_API_KEY={key}\n")).unwrap();
    let script = gateway.mock.plays(json(ANSWER));
    gateway.ask(Request::post("/openai/v1/chat/completions", BODY).script(&script)).expect(200);
    gateway.run(["revoke", "anthropic"]).expect(0);
    gateway.ask(Request::post("/anthropic/v1/messages", BODY)).expect_refusal(403, "provider_revoked");
    gateway.rest();
    for (args, header) in [
        (&["agent", "list"][..], "AGENT"),
        (&["agent", "show", "coder-with-a-longish-name"], "ID"),
        (&["audit"], "ROW"),
        (&["budget", "status"], "BUDGET"),
        (&["canary", "list"], "CANARY"),
        (&["log"], "REMARK"),
        (&["pricing", "list"], "PROVIDER"),
        (&["provider", "list"], "NAME"),
        (&["ratelimit", "status"], "SUBJECT"),
        (&["scan"], "PROVIDER"),
        (&["setup"], "AGENT"),
        (&["stats"], "GROUP"),
        (&["vault", "list"], "PROVIDER"),
    ] {
        let shown = at_eighty_columns(&gateway.home, args);
        assert!(shown.contains(header), "{args:?}: {shown}");
        let longest = shown.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 80, "{args:?}: {longest}");
    }
}
