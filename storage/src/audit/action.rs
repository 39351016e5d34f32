//! What can be done, as a closed set of stable names.

use std::fmt;
use std::str::FromStr;

/// Text that names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no action has this name")]
pub struct UnknownAction;

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What an owner does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AuditAction {
            $($(#[doc = $doc])+ $name,)+
        }

        impl AuditAction {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

actions! {
    /// The home was set up.
    Init = "init",
    /// The gateway began to serve.
    Start = "start",
    /// The gateway was stopped.
    Stop = "stop",
    /// Another process took the gateway's place.
    Upgrade = "upgrade",
    /// The gateway was made a service, which starts by itself.
    ServiceInstall = "service_install",
    /// The gateway starts by itself no more.
    ServiceUninstall = "service_uninstall",
    /// The gateway forgot the keys.
    Lock = "lock",
    /// The gateway was given the keys.
    Unlock = "unlock",
    /// Nothing is served any more.
    Kill = "kill",
    /// What was served before the kill is served again.
    Unkill = "unkill",
    /// A provider is served no more.
    ProviderRevoke = "provider_revoke",
    /// A provider is served again.
    ProviderRestore = "provider_restore",
    /// A provider was configured.
    ProviderSet = "provider_set",
    /// What was configured of a provider was taken back.
    ProviderRemove = "provider_remove",
    /// An agent was given a capability.
    AgentMint = "agent_mint",
    /// An agent is served no more.
    AgentRevoke = "agent_revoke",
    /// An agent is served again.
    AgentRestore = "agent_restore",
    /// One capability was ended.
    CapabilityRevoke = "capability_revoke",
    /// A capability was given another secret.
    CapabilityRotate = "capability_rotate",
    /// A run was given a capability.
    RunBegin = "run_begin",
    /// A run's capability ended with it.
    RunEnd = "run_end",
    /// A budget was set.
    BudgetSet = "budget_set",
    /// Budgets were removed.
    BudgetClear = "budget_clear",
    /// A limit on rates was set.
    RatelimitSet = "ratelimit_set",
    /// The limits on rates of a subject were removed.
    RatelimitClear = "ratelimit_clear",
    /// A clock that had been ahead was taken for right.
    ClockAccept = "clock_accept",
    /// A state of risk was lowered.
    RiskClear = "risk_clear",
    /// A canary was made.
    CanaryAdd = "canary_add",
    /// A canary was added to a file.
    CanaryPlant = "canary_plant",
    /// A canary was taken out of a file.
    CanaryUnplant = "canary_unplant",
    /// A canary is looked for no more.
    CanaryRemove = "canary_remove",
    /// A key was stored.
    VaultAdd = "vault_add",
    /// A key was replaced by another.
    VaultRotate = "vault_rotate",
    /// A key was removed.
    VaultRemove = "vault_remove",
    /// Keys were read from elsewhere.
    VaultImport = "vault_import",
    /// All keys were written into a file.
    VaultExport = "vault_export",
    /// The vault opens with another passphrase.
    VaultPassphrase = "vault_passphrase",
    /// A price list took the place of another.
    PricingImport = "pricing_import",
    /// The price list before it was put back.
    PricingUndo = "pricing_undo",
    /// This log was taken as it is.
    AuditAccept = "audit_accept",
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AuditAction {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}
