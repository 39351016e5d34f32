//! Admission: whether a caller may make a request. The only place where a [`Plan`] is made.

use crate::{AgentName, Capability, CapabilityId, Denial, DenialCode, ProviderId, RouteClass, Scope};

/// Who is asking: the agent a capability stands for, and what it may do.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The agent to whom the request is booked.
    pub agent: &'a AgentName,
    /// The capability it presented.
    pub capability: Option<CapabilityId>,
    /// The limits that hold for it.
    pub scope: &'a Scope,
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
    /// The model, from the body or the path.
    pub model: Option<&'a str>,
    /// Whether the body names further models that may answer instead of it.
    pub names_other_models: bool,
    /// How the request came in.
    pub transport: Transport,
}

/// Proof that a request was admitted. Only [`admit`] makes one, and only the ledger turns it into a
/// reservation, without which no credential is given out.
#[derive(Debug)]
#[must_use = "an admitted request is not yet reserved"]
pub struct Plan {
    _made_by_admit: (),
}

impl<'a> From<&'a Capability> for Caller<'a> {
    fn from(capability: &'a Capability) -> Self {
        Self { agent: &capability.agent, capability: Some(capability.id), scope: &capability.scope }
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

/// Decides whether `caller` may have what it asks for.
///
/// # Errors
/// The [`Denial`] to answer with, by the first rule that refuses.
pub fn admit(caller: &Caller<'_>, ask: &Ask<'_>) -> Result<Plan, Denial> {
    let scope = caller.scope;
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
    if let Some(message) = refused_model(scope, ask) {
        return refuse(message);
    }
    Ok(Plan { _made_by_admit: () })
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

    #[track_caller]
    fn check_admit(scope: Scope, class: RouteClass, model: Option<&str>, code: Option<DenialCode>) {
        let (agent, provider) = ("ci".parse().unwrap(), "openai".parse().unwrap());
        let caller = Caller { agent: &agent, capability: None, scope: &scope };
        let ask =
            Ask { provider: &provider, class, model, names_other_models: false, transport: Transport::Tcp };
        assert_eq!(admit(&caller, &ask).err().map(|denial| denial.code()), code);
    }

    #[test]
    fn an_open_scope_admits_what_does_not_outlive_it() {
        check_admit(Scope::default(), RouteClass::Generate, Some("gpt-4o"), None);
        check_admit(Scope::default(), RouteClass::Metadata, None, None);
        check_admit(Scope::default(), RouteClass::Mint, None, Some(DenialCode::EndpointDenied));
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
    }

    #[test]
    fn a_fallback_model_is_no_way_around_a_limit() {
        let (agent, provider) = ("ci".parse().unwrap(), "openrouter".parse().unwrap());
        let ask = Ask {
            provider: &provider,
            class: RouteClass::Generate,
            model: Some("gpt-5-mini"),
            names_other_models: true,
            transport: Transport::Tcp,
        };
        let verdict = |scope: &Scope| {
            admit(&Caller { agent: &agent, capability: None, scope }, &ask)
                .map_err(|denial| denial.code())
                .err()
        };
        let limited = Scope { models: vec!["gpt-5*".parse().unwrap()], ..Scope::default() };
        assert_eq!(verdict(&limited), Some(DenialCode::OutOfScope));
        assert_eq!(verdict(&Scope::default()), None);
    }
}
