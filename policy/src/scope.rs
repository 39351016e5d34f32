//! What a capability allows. Server-side rows, so that an edit or a revocation holds from the next request on.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

use crate::{AgentName, CapabilityId, Denial, DenialCode, Method, ProviderId, TimestampUs, TokenRef};

/// What kind of thing a route of a provider's API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteClass {
    /// Produces text, images or sound from a model; costs money.
    Generate,
    /// Produces embeddings, rankings or moderation verdicts; costs a little.
    Embed,
    /// Lists or describes models.
    Metadata,
    /// Counts tokens.
    Count,
    /// Uploads, lists or removes stored files, batches, vector stores.
    File,
    /// Administers the account: keys, users, projects, billing, fine-tuning.
    Admin,
    /// Mints credentials that would work without the gateway.
    Mint,
}

/// A pattern for model names in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelGlob(Box<str>);

/// The limits of a capability. An empty list limits nothing, except for routes: see [`Scope::allows_route`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The providers that may be called.
    pub providers: Vec<ProviderId>,
    /// The models that may be asked for.
    pub models: Vec<ModelGlob>,
    /// The classes of routes that may be called.
    pub routes: Vec<RouteClass>,
    /// The methods that may be used.
    pub methods: Vec<Method>,
    /// Whether the caller must come over the Unix socket.
    pub requires_unix_socket: bool,
}

/// A stored capability: who it stands for, until when, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The public part of its token.
    pub id: CapabilityId,
    /// SHA-256 of the secret part of its token.
    pub secret_hash: [u8; 32],
    /// The agent it stands for.
    pub agent: AgentName,
    /// The capability it was made from, which it can only narrow.
    pub parent: Option<CapabilityId>,
    /// What it allows.
    pub scope: Scope,
    /// When it was minted.
    pub created_at: TimestampUs,
    /// When it ends; `None` is never.
    pub expires_at: Option<TimestampUs>,
    /// When it was revoked.
    pub revoked_at: Option<TimestampUs>,
}

impl RouteClass {
    /// Every class, in the order they are shown.
    pub const ALL: [Self; 7] =
        [Self::Generate, Self::Embed, Self::Metadata, Self::Count, Self::File, Self::Admin, Self::Mint];

    /// The stable name, as in the catalogue and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Metadata => "metadata",
            Self::Count => "count",
            Self::File => "file",
            Self::Admin => "admin",
            Self::Mint => "mint",
        }
    }

    /// Whether a route of this class needs to be named in the scope to be allowed: what it makes or changes
    /// outlives the capability, or runs where nobody meters it.
    fn must_be_named(self) -> bool {
        match self {
            Self::File | Self::Admin | Self::Mint => true,
            Self::Generate | Self::Embed | Self::Metadata | Self::Count => false,
        }
    }
}

impl FromStr for RouteClass {
    type Err = UnknownRouteClass;

    fn from_str(text: &str) -> Result<Self, UnknownRouteClass> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or(UnknownRouteClass)
    }
}

/// Text that names no class of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a class of routes is one of generate, embed, metadata, count, file, admin, mint")]
pub struct UnknownRouteClass;

impl ModelGlob {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers the whole of `model`.
    pub fn matches(&self, model: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| model.strip_prefix(first)) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        let middle =
            parts.iter().try_fold(rest, |rest, part| rest.find(part).map(|at| &rest[at + part.len()..]));
        middle.is_some_and(|rest| rest.ends_with(last))
    }
}

impl FromStr for ModelGlob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        let plain = !text.is_empty() && text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic());
        if plain { Ok(Self(text.into())) } else { Err(InvalidGlob) }
    }
}

/// Text that cannot be a pattern for model names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern for models has 1 to 200 visible ASCII characters; `*` stands for any run of them")]
pub struct InvalidGlob;

impl fmt::Display for RouteClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ModelGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scope {
    /// The scope that limits nothing.
    pub const OPEN: Self = Self {
        providers: Vec::new(),
        models: Vec::new(),
        routes: Vec::new(),
        methods: Vec::new(),
        requires_unix_socket: false,
    };

    /// Whether the provider may be called.
    pub fn allows_provider(&self, provider: &ProviderId) -> bool {
        self.providers.is_empty() || self.providers.contains(provider)
    }

    /// Whether the model may be asked for. A request without a model is refused once models are limited.
    pub fn allows_model(&self, model: Option<&str>) -> bool {
        self.models.is_empty()
            || model.is_some_and(|model| self.models.iter().any(|glob| glob.matches(model)))
    }

    /// Whether the method may be used.
    pub fn allows_method(&self, method: Method) -> bool {
        self.methods.is_empty() || self.methods.contains(&method)
    }

    /// Whether the class of route may be called. Without a list everything may that neither stores files or
    /// batches, mints credentials, nor administers the account.
    pub fn allows_route(&self, class: RouteClass) -> bool {
        if self.routes.is_empty() { !class.must_be_named() } else { self.routes.contains(&class) }
    }
}

impl Capability {
    /// Whether `token` is the token of this capability; the comparison takes the same time wherever it fails.
    pub fn is_proven_by(&self, token: &TokenRef<'_>) -> bool {
        self.id == token.id() && bool::from(self.secret_hash.ct_eq(&token.secret_hash()))
    }

    /// Whether it may be used at `now`.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: revoked or expired.
    pub fn check_lifetime(&self, now: TimestampUs) -> Result<(), Denial> {
        if self.revoked_at.is_some() {
            return Err(Denial::new(DenialCode::RevokedCapability, "the capability was revoked"));
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(Denial::new(DenialCode::ExpiredCapability, "the capability has expired"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MintedToken;

    #[track_caller]
    fn check_glob(glob: &str, model: &str, matches: bool) {
        assert_eq!(glob.parse::<ModelGlob>().unwrap().matches(model), matches, "{glob} on {model}");
    }

    #[test]
    fn a_star_stands_for_any_run() {
        check_glob("gpt-4o", "gpt-4o", true);
        check_glob("gpt-4o", "gpt-4o-mini", false);
        check_glob("gpt-4o*", "gpt-4o-mini", true);
        check_glob("claude-*-4*", "claude-opus-4-5", true);
        check_glob("claude-*-4*", "claude-opus-3", false);
        check_glob("*", "anything", true);
        check_glob("*mini", "gpt-4o-mini-x", false);
        check_glob("a*a", "a", false);
        check_glob("a*b*b", "ab", false);
    }

    #[test]
    fn what_outlives_the_capability_must_be_named() {
        let open = Scope::default();
        assert!(open.allows_route(RouteClass::Generate) && open.allows_route(RouteClass::Metadata));
        for class in [RouteClass::File, RouteClass::Mint, RouteClass::Admin] {
            assert!(!open.allows_route(class), "{class}");
        }
        let named = Scope { routes: vec![RouteClass::Mint], ..Scope::default() };
        assert!(named.allows_route(RouteClass::Mint) && !named.allows_route(RouteClass::Generate));
    }

    #[test]
    fn a_limit_on_models_refuses_a_request_that_names_none() {
        let scope = Scope { models: vec!["gpt-*".parse().unwrap()], ..Scope::default() };
        assert!(scope.allows_model(Some("gpt-4o")) && !scope.allows_model(None));
    }

    fn capability(token: &MintedToken) -> Capability {
        Capability {
            id: token.id,
            secret_hash: token.secret_hash,
            agent: "ci".parse().unwrap(),
            parent: None,
            scope: Scope::default(),
            created_at: 0,
            expires_at: Some(100),
            revoked_at: None,
        }
    }

    #[track_caller]
    fn check_lifetime(capability: &Capability, now: TimestampUs, code: Option<DenialCode>) {
        assert_eq!(capability.check_lifetime(now).err().map(|denial| denial.code()), code);
    }

    #[test]
    fn a_capability_holds_until_it_ends() {
        let token = MintedToken::from_random([1; 8], [2; 32]);
        check_lifetime(&capability(&token), 99, None);
        check_lifetime(&capability(&token), 100, Some(DenialCode::ExpiredCapability));
        check_lifetime(&Capability { expires_at: None, ..capability(&token) }, TimestampUs::MAX, None);
        let revoked = Capability { revoked_at: Some(1), ..capability(&token) };
        check_lifetime(&revoked, 2, Some(DenialCode::RevokedCapability));
    }

    #[test]
    fn only_its_own_token_proves_a_capability() {
        let token = MintedToken::from_random([1; 8], [2; 32]);
        let forged = MintedToken::from_random([1; 8], [3; 32]);
        let capability = capability(&token);
        assert!(capability.is_proven_by(&TokenRef::parse(&token.text).unwrap()));
        assert!(!capability.is_proven_by(&TokenRef::parse(&forged.text).unwrap()));
    }
}
