//! What the owner decides while agents run: a budget, and the kill switch. Both by the commands that a user types.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use policy::MintedToken;
use serde_json::Value;
use storage::LogFilter;

use crate::commands::budget::{self, Budget};
use crate::commands::kill::Kill;
use crate::failure::{Exit, Failure};
use crate::format::usd;

use super::agent::{Answer, Call};
use super::mock::Mock;
use super::{AGENT, MODEL, Stage, Step, check};

/// What is shown of the refusal that an agent gets.
const SHOWN: [&str; 6] = ["code", "budget", "limit_usd", "spent_usd", "needed_usd", "resets_at"];
/// The stream is killed after so many events.
const EVENTS: usize = 8;
const EVENTS_PATIENCE: Duration = Duration::from_secs(20);

impl Stage {
    /// A budget that has room for one more request.
    pub(super) fn budget(&self, token: &MintedToken, mock: &Mock) -> Result<Step, Failure> {
        self.set_budget("0.001")?;
        let before = mock.count();
        let allowed = self.call(Call::chat(&token.text, MODEL, false))?;
        let refused = self.call(Call::chat(&token.text, MODEL, false))?;
        check(mock.count() == before + 1, "a budget did not keep a request from the provider")?;
        let is_refused = (refused.status, refused.code().as_str()) == (429, "budget_exceeded");
        check(allowed.status == 200 && is_refused, "the budget has room for more or less than one request")?;
        let mut lines = vec![
            format!("tokfence budget set agent:{AGENT} 0.001 daily     what it spent so far counts"),
            format!("a request               {}", allowed.status),
            format!("the next one            {} {}", refused.status, shortened(&refused.error())),
            "                        and is not sent on; its SDK raises this as its own RateLimitError"
                .to_owned(),
        ];
        let standings = budget::standings(&self.app, &self.app.config()?)?;
        lines.extend(budget::table(&standings).lines().map(str::to_owned));
        self.set_budget("1")?;
        let again = self.call(Call::chat(&token.text, MODEL, false))?;
        check(again.status == 200, "a raised budget did not count at once")?;
        lines.push(format!("once it is raised       {}, from the next request on", again.status));
        let title = "A budget: a request for which there is no room is refused".to_owned();
        Ok(Step { name: "budget", title, lines })
    }

    fn set_budget(&self, amount: &str) -> Result<(), Failure> {
        let amount_and_period = vec![amount.to_owned(), "daily".to_owned()];
        Budget::Set { subject: format!("agent:{AGENT}"), amount_and_period }.run(&self.app)
    }

    /// A stream that would go on for ever, until its owner says that it is enough.
    pub(super) fn kill(&self, token: &MintedToken, mock: &Mock) -> Result<Step, Failure> {
        let (answer, killed_at) = self.kill_running(token)?;
        let before = mock.count();
        let refused = self.call(Call::chat(&token.text, MODEL, false))?;
        check(refused.code() == "killed" && mock.count() == before, "something is served after the kill")?;
        let last = answer.last_words().unwrap_or_default();
        let (reason, text) = (&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]["content"]);
        check(last["tokfence"]["code"] == "killed", "the stream was not ended by the kill")?;
        let after_ms = answer.ended_after(killed_at).as_millis();
        let lines = vec![
            format!(
                "the agent reads         {} events, and more to come",
                answer.events.len().saturating_sub(2)
            ),
            "tokfence kill --reason \"the demo is over\"".to_owned(),
            format!(
                "{:24}the stream is at its end, in the provider's own shape:",
                format!("{after_ms} ms later")
            ),
            format!("                        {}", text.as_str().unwrap_or_default().trim()),
            format!("                        finish_reason {reason}, [DONE]"),
            format!("the log                 {}", self.last_cut()?),
            format!("a new request           {} {}, until `tokfence unkill`", refused.status, refused.code()),
        ];
        let title = "The kill switch: what runs ends at once, and agents understand it".to_owned();
        Ok(Step { name: "kill", title, lines })
    }

    /// Kills while a stream runs: what the agent got of it, and when the command was given.
    fn kill_running(&self, token: &MintedToken) -> Result<(Answer, Instant), Failure> {
        let (tell, told) = mpsc::channel();
        let (call, address) = (Call::endless(&token.text, MODEL), self.address.clone());
        let agent = std::thread::spawn(move || {
            call.send_watched(&address, |events| {
                if events == EVENTS {
                    // Whoever waits for it waits once, and not for ever.
                    let _ = tell.send(());
                }
            })
        });
        // Where none comes the stream has failed, which is told below.
        let _ = told.recv_timeout(EVENTS_PATIENCE);
        let killed_at = Instant::now();
        Kill { reason: "the demo is over".to_owned() }.run(&self.app)?;
        let panicked = |_| Failure::new(Exit::Failed, "demo_failed", "the demo's agent ended in a panic");
        let answer = agent.join().map_err(panicked)?;
        let answer = answer.map_err(|error| Failure::failed("read the demo's stream", &error))?;
        Ok((answer, killed_at))
    }

    /// What the log has of the request that was cut.
    fn last_cut(&self) -> Result<String, Failure> {
        self.app.flush_log();
        let rows = self.app.store()?.requests(&LogFilter::default())?;
        let cut =
            rows.into_iter().map(|logged| logged.request).find(|row| row.outcome == storage::Outcome::Cut);
        let text = cut.and_then(|row| {
            let (code, cost) = (row.error_code?, row.cost?);
            Some(format!("{code}: {} tokens came out, estimated at {}", row.usage.output, usd(cost)))
        });
        check(text.is_some(), "the cut stream is not in the log")?;
        Ok(text.unwrap_or_default())
    }
}

/// A refusal as JSON, as much of it as fits.
fn shortened(error: &Value) -> String {
    let fields: Vec<String> = SHOWN.iter().map(|name| format!("\"{name}\":{}", error[*name])).collect();
    let (first, rest) = fields.split_at(3);
    format!("{{\"error\":{{{},\n{:24}    {}, …}}}}", first.join(","), "", rest.join(","))
}
