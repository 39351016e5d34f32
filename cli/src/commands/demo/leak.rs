//! A canary: what happens to an agent that reads a planted key and sends it away.

use gateway::overview::explain::manner;
use policy::{CanaryKind, CanaryValue, DecoyShape, Holder, MintedToken, Subject, decoy};
use serde_json::json;
use storage::NewCanary;

use super::agent::Call;
use super::mock::Mock;
use super::{AGENT, MODEL, Stage, Step, check};
use crate::app::now_us;
use crate::commands::agent::random_bytes;
use crate::failure::Failure;

impl Stage {
    /// A planted key is found in what the agent is about to send, however it is written.
    pub(super) fn canary(&self, token: &MintedToken, mock: &Mock) -> Result<Step, Failure> {
        let planted = self.plant()?;
        let hex: String = planted.bytes().map(|byte| format!("{byte:02x}")).collect();
        let before = mock.count();
        let leak = self.call(self.tool_result(token, &hex))?;
        check(leak.code() == "secret_in_request", "a planted key was sent")?;
        let next = self.call(Call::chat(&token.text, MODEL, false))?;
        check(next.code() == "risk_restricted" && mock.count() == before, "the agent goes on")?;
        let mut store = self.app.store()?;
        let event = store.newest_risk_events(1)?.pop();
        let told = event.map(|event| {
            let seen = event.seen;
            let form = seen.spot.map(|spot| manner(&spot.form)).unwrap_or_default();
            format!("{}: {}, written {form}; {} to {}", seen.signal, seen.pattern, event.before, event.after)
        });
        store.clear_risk(&[Subject::Capability(token.id)], "the demo goes on", now_us())?;
        self.app.tell_daemon()?;
        let again = self.call(Call::chat(&token.text, MODEL, false))?;
        check(again.status == 200, "an agent that was cleared is not served")?;
        let lines = vec![
            format!(
                "tokfence canary add spare --kind decoy     a key that opens nothing, in the agent's files"
            ),
            format!(
                "the agent sends it, as hex      {} {}; the provider heard nothing",
                leak.status,
                leak.code()
            ),
            format!("tokfence risk                   {}", told.unwrap_or_default()),
            format!("its next request                {} {}", next.status, next.code()),
            format!("tokfence risk clear {AGENT}  {}, from the next request on", again.status),
        ];
        let title = "A canary: a planted key is seen before it leaves, and its agent is stopped".to_owned();
        Ok(Step { name: "canary", title, lines })
    }

    fn plant(&self) -> Result<String, Failure> {
        let shape = DecoyShape::OpenAi;
        let value = decoy(shape, random_bytes()?);
        let invalid = |error: policy::InvalidName| Failure::usage(error.to_string());
        let new = NewCanary {
            name: "spare".parse().map_err(invalid)?,
            kind: CanaryKind::Decoy,
            shape: Some(shape),
            value: CanaryValue::Text(value.clone().into()),
            holder: Some(Holder { agent: AGENT.parse().map_err(invalid)?, capability: None }),
        };
        self.app.store()?.add_canary(&new, now_us())?;
        self.app.tell_daemon()?;
        Ok(value)
    }

    /// The next turn of a conversation in which a tool has read a file.
    fn tool_result(&self, token: &MintedToken, text: &str) -> Call {
        let content = format!("$ xxd -p .env\n{text}\n");
        let messages = json!([{ "role": "tool", "tool_call_id": "call_1", "content": content }]);
        let body = json!({ "model": MODEL, "messages": messages });
        Call::post(&token.text, "/openai/v1/chat/completions", &body.to_string())
    }
}
