//! Attenuation: what a capability may give away. Whoever holds one may make another from it that allows less, and
//! never one that allows more.
//!
//! That a child is narrow is checked when it is made, so that its holder is told. It does not hang on that: each
//! request is judged by the child and by all of its ancestors, and spends from the limits of all of them.

use crate::{
    ANCESTORS_MAX, Allowance, Capability, Denial, DenialCode, Method, ModelGlob, ProviderId, RateLimit,
    RouteClass, Rules, Scope, Subject, TimestampUs,
};

/// Capabilities in force that were made from one, not counting what was made from those.
pub const CHILDREN_MAX: usize = 64;
/// Capabilities in force that come from one that its owner minted, all of them together.
pub const DESCENDANTS_MAX: usize = 1_024;

/// How a new capability shall be narrower than the one it is made from. What is `None` is taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// The providers it may call.
    pub providers: Option<Vec<ProviderId>>,
    /// The models it may ask for.
    pub models: Option<Vec<ModelGlob>>,
    /// The classes of routes it may call.
    pub routes: Option<Vec<RouteClass>>,
    /// The methods it may use.
    pub methods: Option<Vec<Method>>,
    /// How long it lasts, in microseconds.
    pub ttl_us: Option<u64>,
    /// How much it may do in a minute and at once.
    pub rate: RateLimit,
    /// What it may spend, beside what its ancestors may.
    pub budgets: Vec<Allowance>,
    /// Whether its caller must come over the Unix socket.
    pub requires_unix_socket: Option<bool>,
}

/// What a new capability allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// The scope, whole.
    pub scope: Scope,
    /// When it ends.
    pub expires_at: Option<TimestampUs>,
    /// Limits of its own, beside those of its ancestors.
    pub rate: RateLimit,
}

/// Decides whether the holder of `parent` may make another capability from it, and what that one allows.
///
/// # Errors
/// The [`Denial`] that names what would be wider, or that the parent has no room for another.
pub fn attenuate(
    rules: &Rules,
    parent: &Capability,
    wanted: &Narrowing,
    now: TimestampUs,
) -> Result<Narrowed, Denial> {
    check_room(rules, parent, now)?;
    let ttl_max = rules.risk(Some(parent), &parent.agent, now).child_ttl_us(&parent.agent)?;
    Ok(Narrowed {
        scope: narrow_scope(&parent.scope, wanted)?,
        expires_at: narrow_end(rules, parent, (wanted.ttl_us, ttl_max), now)?,
        rate: narrow_rate(rules, parent, wanted.rate)?,
    })
}

/// Whether there may be one more capability below `parent`.
fn check_room(rules: &Rules, parent: &Capability, now: TimestampUs) -> Result<(), Denial> {
    if rules.lineage(Some(parent)).count() > ANCESTORS_MAX {
        return Err(refusal(format!("a capability has at most {ANCESTORS_MAX} ancestors")));
    }
    let root = rules.root(parent);
    let (mut children, mut descendants) = (0, 0);
    for other in rules.capabilities.values().filter(|other| other.parent.is_some()) {
        if rules.root(other).id != root.id || rules.check_caller(Some(other), &other.agent, now).is_err() {
            continue;
        }
        descendants += 1;
        children += usize::from(other.parent == Some(parent.id));
    }
    if children >= CHILDREN_MAX {
        return Err(refusal(format!("{CHILDREN_MAX} capabilities made from this one are in force already")));
    }
    if descendants >= DESCENDANTS_MAX {
        let id = root.id;
        return Err(refusal(format!(
            "{DESCENDANTS_MAX} capabilities that come from `{id}` are in force already"
        )));
    }
    Ok(())
}

fn narrow_scope(parent: &Scope, wanted: &Narrowing) -> Result<Scope, Denial> {
    let providers = narrow(&parent.providers, wanted.providers.as_deref(), "provider", |provider| {
        parent.allows_provider(provider)
    })?;
    let models = narrow(&parent.models, wanted.models.as_deref(), "model", |glob| covers(parent, glob))?;
    let routes = narrow(&parent.routes, wanted.routes.as_deref(), "class of routes", |class| {
        parent.allows_route(*class)
    })?;
    let methods =
        narrow(&parent.methods, wanted.methods.as_deref(), "method", |method| parent.allows_method(*method))?;
    if parent.requires_unix_socket && wanted.requires_unix_socket == Some(false) {
        return Err(refusal("this capability may be used over the Unix socket only".to_owned()));
    }
    let requires_unix_socket = wanted.requires_unix_socket.unwrap_or(parent.requires_unix_socket);
    Ok(Scope { providers, models, routes, methods, requires_unix_socket })
}

/// The list that is wanted, each item of which must be allowed; without one the parent's.
fn narrow<T: Clone + ToString>(
    parent: &[T],
    wanted: Option<&[T]>,
    what: &str,
    is_allowed: impl Fn(&T) -> bool,
) -> Result<Vec<T>, Denial> {
    let Some(wanted) = wanted else { return Ok(parent.to_vec()) };
    if wanted.is_empty() {
        // In a scope no names mean no limit, which is the contrary of what they seem to say here.
        let message = format!("an empty list allows nothing; leave it out, or name at least one {what}");
        return Err(Denial::new(DenialCode::InvalidRequest, message));
    }
    match wanted.iter().find(|item| !is_allowed(item)) {
        Some(wider) => {
            Err(refusal(format!("the {what} `{}` is not allowed to this capability", wider.to_string())))
        }
        None => Ok(wanted.to_vec()),
    }
}

/// Whether one of the parent's patterns covers all that `glob` covers. The stars of `glob` are matched as if they
/// were characters, which only a star of the parent's can do; and what such a star covers, it covers whatever runs the
/// stars of `glob` stand for.
fn covers(parent: &Scope, glob: &ModelGlob) -> bool {
    parent.models.is_empty() || parent.models.iter().any(|wide| wide.matches(glob.as_str()))
}

/// When the capability ends that shall last as long as is wanted, and may last no longer than the most.
fn narrow_end(
    rules: &Rules,
    parent: &Capability,
    (wanted, most): (Option<u64>, Option<u64>),
    now: TimestampUs,
) -> Result<Option<TimestampUs>, Denial> {
    let latest = rules.lineage(Some(parent)).filter_map(|link| link.expires_at).min();
    let end = |ttl_us: u64| now.saturating_add(i64::try_from(ttl_us).unwrap_or(TimestampUs::MAX));
    let Some(ttl_us) = wanted else { return Ok(latest.into_iter().chain(most.map(end)).min()) };
    let end = end(ttl_us.min(most.unwrap_or(u64::MAX)));
    match latest.filter(|latest| end > *latest) {
        Some(latest) => {
            let left = latest.saturating_sub(now) / 1_000_000;
            Err(refusal(format!("this capability itself ends in {left} seconds")))
        }
        None => Ok(Some(end)),
    }
}

fn narrow_rate(rules: &Rules, parent: &Capability, wanted: RateLimit) -> Result<RateLimit, Denial> {
    for link in rules.lineage(Some(parent)) {
        let Some(limit) = rules.rate_limits.get(&Subject::Capability(link.id)) else { continue };
        let requests = (wanted.requests_per_minute.map(u64::from), limit.requests_per_minute.map(u64::from));
        let tokens = (wanted.tokens_per_minute, limit.tokens_per_minute);
        let concurrent = (wanted.concurrent.map(u64::from), limit.concurrent.map(u64::from));
        for (what, (wanted, limit)) in
            [("requests a minute", requests), ("tokens a minute", tokens), ("requests at once", concurrent)]
        {
            if let (Some(wanted), Some(limit)) = (wanted, limit)
                && wanted > limit
            {
                return Err(refusal(format!("{wanted} {what} are more than the {limit} of this capability")));
            }
        }
    }
    Ok(wanted)
}

fn refusal(message: String) -> Denial {
    Denial::new(DenialCode::OutOfScope, message)
}

#[cfg(test)]
#[path = "attenuate_tests.rs"]
mod tests;
