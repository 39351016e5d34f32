//! What a request may cost, before it is sent; and how long its answer may be, once it is known what budgets afford.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use policy::{
    AgentName, Denial, DenialCode, Map, NanoUsd, Part, Price, PriceTable, Quote, RouteClass, Usage,
};

use crate::config::{Budget, Reserve, UnknownModel};
use crate::meter;
use crate::provider::catalogue::{AuthStyle, Provider};
use crate::request::facts::Facts;
use crate::state::Snapshot;
use crate::wire::{self, LimitField, WireFormat};

/// In a strict budget a request is refused when it cannot have an answer of this length.
const STRICT_OUTPUT_MIN: u64 = 256;
/// The longest answer, in tokens, that is asked of a model about which nothing is known: every model has as much.
const STRICT_OUTPUT_UNKNOWN: u64 = 4_096;
/// Answers remembered for each agent: as many as a percentile needs to leave out one.
const ANSWERS: usize = 100;
/// Agents whose answers are remembered.
const AGENTS_MAX: usize = 4_096;

/// How long the recent answers to each agent were that did not stream, in tokens: what the next may need.
#[derive(Debug, Default)]
pub(crate) struct AnswerLengths(Mutex<Map<AgentName, VecDeque<u64>>>);

impl AnswerLengths {
    /// Remembers the length of an answer.
    pub(crate) fn add(&self, agent: &AgentName, tokens: u64) {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.len() >= AGENTS_MAX && !agents.contains_key(agent) {
            agents.clear();
        }
        let answers = agents.entry(agent.clone()).or_default();
        if answers.len() >= ANSWERS {
            answers.pop_front();
        }
        answers.push_back(tokens);
    }

    /// The length that 99 of 100 recent answers did not pass.
    fn p99(&self, agent: &AgentName) -> Option<u64> {
        let agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = agents.get(agent)?;
        // Of a hundred it is the second longest, of fewer the longest.
        let (mut longest, mut second) = (0, 0);
        for &tokens in answers {
            second = second.max(longest.min(tokens));
            longest = longest.max(tokens);
        }
        Some(if answers.len() < ANSWERS { longest } else { second })
    }
}

/// What the request that `facts` knows may cost, where a budget applies to it. Routes that cost nothing are free, but
/// still need budgets that are not used up.
///
/// # Errors
/// The [`Denial`] of a request whose input has no bound, in a strict budget, or whose answer nobody sees.
pub(crate) fn quote(
    facts: &Facts,
    snapshot: &Snapshot,
    lengths: &AnswerLengths,
    body_bytes: u64,
) -> Result<Quote, Denial> {
    let config = &snapshot.config.budget;
    let Some(provider) = &facts.provider else { return Ok(Quote::FREE) };
    if !matches!(facts.class, Some(RouteClass::Generate | RouteClass::Embed)) {
        return Ok(Quote::FREE);
    }
    if facts.body.as_ref().is_some_and(|body| body.is_background) {
        let message = "a budget applies, and what an answer that is made in the background costs is not known when its \
                       request ends";
        return Err(Denial::new(DenialCode::BudgetExceeded, message).with_hint("ask without `background`"));
    }
    let is_strict = config.reserve == Reserve::Strict;
    let answers = facts.body.as_ref().map_or(1, |body| body.answers);
    let price = price(facts, provider, snapshot);
    let input = match config.reserve {
        Reserve::Strict => input_bound(facts, price, body_bytes)?,
        Reserve::Rolling => facts.estimate_input(body_bytes),
    };
    let quote = match (price, config.unknown_model) {
        _ if is_free(provider) => Quote::unpriced(input, answers).with_price(),
        (Some(price), _) => {
            // An estimate may be short, and a long context is dearer as a whole.
            let reached = if is_strict { input } else { input.saturating_mul(5) / 4 };
            let rates = price.rates_for(reached, &service_tiers(facts, is_strict));
            Quote::priced(input, answers, &rates, input_parts(facts, is_strict))
        }
        (None, UnknownModel::Deny) => Quote::unpriced(input, answers),
        (None, UnknownModel::Allow) => Quote::unpriced(input, answers).with_price(),
        (None, UnknownModel::ChargeMax) => match snapshot.prices.dearest(&provider.prices) {
            Some(rates) => Quote::priced(input, answers, &rates, input_parts(facts, is_strict)),
            None => Quote::unpriced(input, answers),
        },
    };
    let (least, most) = output(facts, config, price, lengths);
    Ok(quote.with_output(least, most))
}

/// The service tiers beside the ordinary one in which the answer may come. Where the caller leaves it to the provider,
/// the account's own setting decides, which may be the dearer tier.
fn service_tiers(facts: &Facts, is_strict: bool) -> Vec<&str> {
    let asked = facts.body.as_ref().map_or(&[][..], |body| &body.service_tiers);
    let is_left_open = asked.is_empty() || asked.iter().any(|tier| tier.eq_ignore_ascii_case("auto"));
    let may_be = (is_strict && is_left_open).then_some("priority");
    asked.iter().map(String::as_str).chain(may_be).collect()
}

/// What the input may be charged as. An estimate takes it for text.
fn input_parts(facts: &Facts, is_strict: bool) -> &'static [Part] {
    use Part::{AudioInput, CacheWrite1h, CacheWrite5m, ImageInput, Input};
    match &facts.body {
        _ if !is_strict => &[Input, CacheWrite5m],
        Some(body) if body.contents.is_text() => &[Input, CacheWrite5m, CacheWrite1h],
        Some(_) | None => &[Input, CacheWrite5m, CacheWrite1h, AudioInput, ImageInput],
    }
}

/// The most tokens that the input can have: what its bytes allow, or what the model takes at all.
fn input_bound(facts: &Facts, price: Option<&Price>, body_bytes: u64) -> Result<u64, Denial> {
    let model = facts.model.as_deref();
    let of_bytes = match &facts.body {
        Some(body) => meter::input_upper_bound(&body.contents, model),
        None => Some(body_bytes),
    };
    // The model's limit is one for each prompt of a list, and for each text of those that are embedded or ranked, of
    // which it is not known how many there are.
    let prompts = facts.body.as_ref().map_or(1, |body| u64::from(body.prompts));
    let is_generate = facts.class == Some(RouteClass::Generate);
    let of_model = price.and_then(|price| price.max_input_tokens).filter(|_| is_generate);
    let of_model = of_model.map(|tokens| tokens.saturating_mul(prompts));
    of_bytes.into_iter().chain(of_model).min().ok_or_else(|| {
        let message = "a strict budget applies, and the input of this request has no bound: it refers to a file, to an \
                       earlier answer, or to what else is not in it";
        let hint = "set `budget.reserve` to `rolling`, or send the input itself";
        Denial::new(DenialCode::BudgetExceeded, message).with_hint(hint)
    })
}

/// Whether the provider takes no money: it runs on this machine and needs no key.
pub(crate) fn is_free(provider: &Provider) -> bool {
    provider.is_local && provider.auth == AuthStyle::None
}

/// What a usage costs at the price of the first of these models that has one, in the service tier that answered.
pub(crate) fn cost(
    prices: &PriceTable,
    provider: &Provider,
    models: &[Option<&str>],
    usage: &Usage,
    tier: Option<&str>,
) -> Option<NanoUsd> {
    if is_free(provider) {
        return Some(NanoUsd::ZERO);
    }
    let mut named = models.iter().copied().flatten();
    let resolved = named.find_map(|model| prices.resolve(&provider.prices, model))?;
    resolved.price.cost(usage, tier).ok()
}

/// The price of what is asked for. Where other models may answer, it is that of none of them.
fn price<'a>(facts: &Facts, provider: &Provider, snapshot: &'a Snapshot) -> Option<&'a Price> {
    let model = facts.model.as_deref().filter(|_| !facts.names_other_models)?;
    snapshot.prices.resolve(&provider.prices, model).map(|resolved| resolved.price)
}

/// The shortest and the longest answer to reserve for, in tokens.
fn output(facts: &Facts, config: &Budget, price: Option<&Price>, lengths: &AnswerLengths) -> (u64, u64) {
    if facts.class == Some(RouteClass::Embed) {
        return (0, 0);
    }
    let asked = longest_asked(facts).map(u64::from);
    match config.reserve {
        Reserve::Strict => {
            let longest = price.and_then(|price| price.max_output_tokens).unwrap_or(STRICT_OUTPUT_UNKNOWN);
            let most = asked.unwrap_or(longest);
            (STRICT_OUTPUT_MIN.min(most), most)
        }
        Reserve::Rolling => {
            let recent = facts.agent.as_ref().filter(|_| !facts.is_streaming);
            let needed = recent.and_then(|agent| lengths.p99(agent)).unwrap_or(0).max(config.slice_tokens);
            let most = needed.min(asked.unwrap_or(u64::MAX));
            (most, most)
        }
    }
}

/// The limit to put on the length of an answer, in tokens, where a strict budget covers less than may come; `None`
/// where it covers all.
///
/// # Errors
/// The [`Denial`] of a request whose answer cannot be limited.
pub(crate) fn output_limit(facts: &Facts, snapshot: &Snapshot, covered: u64) -> Result<Option<u32>, Denial> {
    let Some(provider) = facts.provider.as_ref().filter(|_| facts.class == Some(RouteClass::Generate)) else {
        return Ok(None);
    };
    let longest = price(facts, provider, snapshot).and_then(|price| price.max_output_tokens);
    let may_come = longest_asked(facts).map(u64::from).or(longest).unwrap_or(u64::MAX);
    let is_unlimited = facts.body.as_ref().is_none_or(|body| body.has_unlimited_output());
    if covered >= may_come && !is_unlimited {
        return Ok(None);
    }
    if !can_limit(facts) {
        let message = "a strict budget applies, and the length of this answer cannot be limited";
        return Err(Denial::new(DenialCode::BudgetExceeded, message)
            .with_hint("set `budget.reserve` to `rolling`, or use a route whose answer can be limited"));
    }
    Ok(Some(u32::try_from(covered).unwrap_or(u32::MAX)))
}

/// Whether the length of the answer can be limited.
pub(crate) fn can_limit(facts: &Facts) -> bool {
    facts.class == Some(RouteClass::Generate) && facts.body.is_some() && !limit_fields(facts).is_empty()
}

/// The longest answer that the caller asks for, in tokens, where it says so under a name that counts on its route and
/// nowhere that there is no limit.
pub(crate) fn longest_asked(facts: &Facts) -> Option<u32> {
    let body = facts.body.as_ref().filter(|body| !body.has_unlimited_output())?;
    body.longest_answer(limit_fields(facts))
}

/// The body with the answer limited to `tokens`.
///
/// # Errors
/// The [`Denial`] of a body that has no place for a limit.
pub(crate) fn limit_answer(facts: &Facts, body: &[u8], tokens: u32) -> Result<Vec<u8>, Denial> {
    let fields = limit_fields(facts);
    let limited = facts.body.as_ref().and_then(|found| wire::limit_output(body, found, fields, tokens));
    limited.ok_or_else(|| {
        let name = fields.first().map_or("a limit", |field| field.name());
        let message = format!("the answer must be limited, and `{name}` cannot be set in this body");
        Denial::new(DenialCode::InvalidRequest, message)
    })
}

/// Under which names the route takes a limit on the answer's length, first the one to set where there is none. What
/// stands under another name limits nothing there: some providers pass over what they do not know. None on routes whose
/// answer has no such limit.
fn limit_fields(facts: &Facts) -> &'static [LimitField] {
    use LimitField as Field;
    const OTHER_PLACES: [&str; 4] = ["/images/", "/audio/", "/conversations", "/hf-inference/"];
    const OTHER_ENDS: [&str; 5] = ["/ocr", "/compact", "/complete", "/converse", "/converse-stream"];
    const BEDROCK: [&str; 2] = ["/invoke", "/invoke-with-response-stream"];
    let wire = facts.provider.as_ref().map_or(WireFormat::OpenAi, |provider| provider.wire);
    let path = facts.path.as_str();
    let is_openai = facts.provider.as_ref().is_some_and(|provider| provider.prices == "openai");
    match wire {
        WireFormat::Google if !path.contains("/openai/") => {
            if path.ends_with(":predict") {
                &[]
            } else {
                &[Field::GenerationConfig]
            }
        }
        WireFormat::Ollama if path.starts_with("/api/") => &[Field::NumPredict],
        _ if OTHER_PLACES.iter().any(|part| path.contains(part)) => &[],
        _ if OTHER_ENDS.iter().any(|end| path.ends_with(end)) => &[],
        // Bedrock's, whose bodies are as the model's maker wants them.
        WireFormat::OpenAi if BEDROCK.iter().any(|end| path.ends_with(end)) => &[],
        _ if path.ends_with("/responses") => &[Field::MaxOutputTokens],
        // OpenAI's reasoning models refuse the older name, and its older models take the newer one.
        _ if path.ends_with("/chat/completions") && is_openai => {
            &[Field::MaxCompletionTokens, Field::MaxTokens]
        }
        _ if path.ends_with("/chat/completions") => &[Field::MaxTokens, Field::MaxCompletionTokens],
        _ => &[Field::MaxTokens],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_a_hundred_answers_is_left_out() {
        let (lengths, agent) = (AnswerLengths::default(), "ci".parse().unwrap());
        assert_eq!(lengths.p99(&agent), None);
        lengths.add(&agent, 7);
        assert_eq!(lengths.p99(&agent), Some(7));
        (1..=100).for_each(|tokens| lengths.add(&agent, tokens));
        assert_eq!(lengths.p99(&agent), Some(99));
        assert_eq!(lengths.p99(&"other".parse().unwrap()), None);
    }
}
