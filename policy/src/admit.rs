//! Admission: whether a caller may make a request. The only place where a [`Plan`] is made.

use crate::{
    AgentName, Budget, BudgetId, Capability, Denial, DenialCode, Method, ProviderId, Quote, RiskVerdict,
    RouteClass, Rules, Scope, Unit,
};

/// Who is asking.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The agent to whom the request is booked.
    pub agent: &'a AgentName,
    /// The capability it presented; without one the scope that limits nothing holds.
    pub capability: Option<&'a Capability>,
    /// How far it is restricted.
    pub risk: &'a RiskVerdict,
}

/// How the caller reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection, which any user of the machine can make.
    Tcp,
    /// The Unix socket, which the file system guards.
    Unix,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The provider to be called.
    pub provider: &'a ProviderId,
    /// The class of the route.
    pub class: RouteClass,
    /// The method.
    pub method: Method,
    /// The model, from the body or the path.
    pub model: Option<&'a str>,
    /// Whether the body names further models that may answer instead of it.
    pub names_other_models: bool,
    /// How the request came in.
    pub transport: Transport,
    /// What it may cost.
    pub quote: Quote,
}

/// Proof that a request was admitted, with what it needs of which budgets. Only [`admit`] makes one, and only the
/// ledger turns it into a reservation, without which no credential is given out.
#[derive(Debug)]
#[must_use = "an admitted request is not yet reserved"]
pub struct Plan {
    quote: Quote,
    budgets: Vec<BudgetId>,
}

impl Plan {
    /// What the request may cost.
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The budgets that must all have room.
    pub fn budgets(&self) -> &[BudgetId] {
        &self.budgets
    }
}

impl Transport {
    /// The stable name: `tcp` or `unix`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
        }
    }
}

/// Decides whether `caller` may have what it asks for: its capability must allow it, and so must every capability
/// that one was made from.
///
/// # Errors
/// The [`Denial`] to answer with, by the first rule that refuses.
pub fn admit(rules: &Rules, caller: &Caller<'_>, ask: &Ask<'_>) -> Result<Plan, Denial> {
    caller.risk.check_route(caller.agent, ask.class, ask.method)?;
    caller.risk.check_fallbacks(caller.agent, ask.names_other_models)?;
    match caller.capability {
        None => check_scope(&Scope::OPEN, ask)?,
        capability => {
            rules.lineage(capability).try_for_each(|link| check_scope(&link.scope, ask))?;
        }
    }
    let budgets = rules.budgets_for(caller.capability, caller.agent, ask.provider);
    let counts_money = |budget: &&Budget| budget.limit.unit == Unit::NanoUsd;
    if !ask.quote.is_priced
        && let Some(budget) = budgets.iter().copied().find(counts_money)
    {
        return Err(price_unknown(budget, ask));
    }
    Ok(Plan { quote: ask.quote, budgets: budgets.iter().map(|budget| budget.id).collect() })
}

/// A budget of money cannot hold what has no price.
fn price_unknown(budget: &Budget, ask: &Ask<'_>) -> Denial {
    let what = match ask.model {
        Some(model) => format!("the price of the model `{}` is unknown", printable(model)),
        None => "the request names no model, so its price is unknown".to_owned(),
    };
    let message = format!("{what}, and the budget {} counts money", budget.name());
    let hint = "tokfence pricing list, or set `budget.unknown_model` to `charge_max` or `allow`";
    Denial::new(DenialCode::ModelPriceUnknown, message).with_hint(hint)
}

fn check_scope(scope: &Scope, ask: &Ask<'_>) -> Result<(), Denial> {
    let refuse =
        |message: String| Err(Denial::new(DenialCode::OutOfScope, message).with_hint("tokfence agent show"));
    if !scope.allows_route(ask.class) {
        let message = format!("routes of the class `{}` are not allowed to this capability", ask.class);
        return Err(Denial::new(DenialCode::EndpointDenied, message).with_hint("tokfence agent show"));
    }
    if !scope.allows_provider(ask.provider) {
        return refuse(format!("the provider `{}` is not in the capability's scope", ask.provider));
    }
    if scope.requires_unix_socket && ask.transport != Transport::Unix {
        return refuse("this capability may be used over the Unix socket only".to_owned());
    }
    if !scope.allows_method(ask.method) {
        return refuse(format!("the method {} is not in the capability's scope", ask.method));
    }
    if let Some(message) = refused_model(scope, ask) {
        return refuse(message);
    }
    Ok(())
}

/// Why the request is outside a scope that limits models: it names another, or it could use one that we do not
/// see, in a file of batched requests or as a fallback.
fn refused_model(scope: &Scope, ask: &Ask<'_>) -> Option<String> {
    let uses_model = match ask.class {
        RouteClass::Generate | RouteClass::Embed | RouteClass::Count | RouteClass::File => true,
        RouteClass::Metadata | RouteClass::Admin | RouteClass::Mint => false,
    };
    if scope.models.is_empty() || !uses_model {
        return None;
    }
    if ask.class == RouteClass::File {
        return Some(
            "files and batches can name any model, and the capability's scope limits models".to_owned(),
        );
    }
    match ask.model {
        Some(_) if ask.names_other_models => {
            Some("the request names fallback models, and the capability's scope limits models".to_owned())
        }
        model if scope.allows_model(model) => None,
        Some(model) => Some(format!("the model `{}` is not in the capability's scope", printable(model))),
        None => Some("the request names no model, and the capability's scope limits models".to_owned()),
    }
}

/// A caller's text, shortened and without control characters, fit for a message.
fn printable(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CapabilityId;

    fn capability(id: &str, parent: Option<&str>, scope: Scope) -> Capability {
        Capability {
            id: id.parse().unwrap(),
            secret_hash: [0; 32],
            agent: "ci".parse().unwrap(),
            parent: parent.map(|id| id.parse().unwrap()),
            scope,
            created_at: 0,
            expires_at: None,
            revoked_at: None,
        }
    }

    fn rules(capabilities: Vec<Capability>) -> Rules {
        Rules {
            capabilities: capabilities.into_iter().map(|one| (one.id, one)).collect(),
            ..Rules::default()
        }
    }

    fn verdict(rules: &Rules, id: &str, ask: &Ask<'_>) -> Option<DenialCode> {
        let agent = "ci".parse().unwrap();
        let capability = rules.capabilities.get(&id.parse::<CapabilityId>().unwrap());
        admit(rules, &Caller { agent: &agent, capability, risk: &RiskVerdict::default() }, ask)
            .err()
            .map(|denial| denial.code())
    }

    fn ask<'a>(provider: &'a ProviderId, class: RouteClass, model: Option<&'a str>) -> Ask<'a> {
        let (method, transport) = (Method::Post, Transport::Tcp);
        Ask { provider, class, method, model, names_other_models: false, transport, quote: Quote::FREE }
    }

    #[track_caller]
    fn check_admit(scope: Scope, class: RouteClass, model: Option<&str>, code: Option<DenialCode>) {
        let provider = "openai".parse().unwrap();
        let rules = rules(vec![capability("aaaaaaaa", None, scope)]);
        assert_eq!(verdict(&rules, "aaaaaaaa", &ask(&provider, class, model)), code);
    }

    #[test]
    fn an_open_scope_admits_what_does_not_outlive_it() {
        check_admit(Scope::OPEN, RouteClass::Generate, Some("gpt-4o"), None);
        check_admit(Scope::OPEN, RouteClass::Metadata, None, None);
        check_admit(Scope::OPEN, RouteClass::Mint, None, Some(DenialCode::EndpointDenied));
    }

    #[test]
    fn each_limit_refuses() {
        let provider = Scope { providers: vec!["groq".parse().unwrap()], ..Scope::default() };
        check_admit(provider, RouteClass::Generate, Some("gpt-4o"), Some(DenialCode::OutOfScope));
        let model = || Scope { models: vec!["gpt-5*".parse().unwrap()], ..Scope::default() };
        check_admit(model(), RouteClass::Generate, Some("gpt-4o"), Some(DenialCode::OutOfScope));
        check_admit(model(), RouteClass::Generate, None, Some(DenialCode::OutOfScope));
        check_admit(model(), RouteClass::Metadata, None, None);
        check_admit(model(), RouteClass::Embed, Some("text-embedding-3-large"), Some(DenialCode::OutOfScope));
        let files = Scope { routes: vec![RouteClass::File], ..model() };
        check_admit(files, RouteClass::File, None, Some(DenialCode::OutOfScope));
        let socket = Scope { requires_unix_socket: true, ..Scope::default() };
        check_admit(socket, RouteClass::Generate, Some("gpt-4o"), Some(DenialCode::OutOfScope));
        let method = Scope { methods: vec![Method::Get], ..Scope::default() };
        check_admit(method, RouteClass::Generate, Some("gpt-4o"), Some(DenialCode::OutOfScope));
    }

    #[test]
    fn a_fallback_model_is_no_way_around_a_limit() {
        let provider = "openrouter".parse().unwrap();
        let ask =
            Ask { names_other_models: true, ..ask(&provider, RouteClass::Generate, Some("gpt-5-mini")) };
        let limited = Scope { models: vec!["gpt-5*".parse().unwrap()], ..Scope::default() };
        let rules =
            rules(vec![capability("aaaaaaaa", None, limited), capability("bbbbbbbb", None, Scope::OPEN)]);
        assert_eq!(verdict(&rules, "aaaaaaaa", &ask), Some(DenialCode::OutOfScope));
        assert_eq!(verdict(&rules, "bbbbbbbb", &ask), None);
    }

    #[test]
    fn a_child_has_no_right_that_an_ancestor_lacks() {
        let provider = "openai".parse().unwrap();
        let ask = ask(&provider, RouteClass::Generate, Some("gpt-4o"));
        let limited = Scope { providers: vec!["groq".parse().unwrap()], ..Scope::default() };
        let rules = rules(vec![
            capability("aaaaaaaa", None, limited),
            capability("bbbbbbbb", Some("aaaaaaaa"), Scope::OPEN),
            capability("cccccccc", Some("bbbbbbbb"), Scope::OPEN),
        ]);
        assert_eq!(verdict(&rules, "cccccccc", &ask), Some(DenialCode::OutOfScope));
    }
}
