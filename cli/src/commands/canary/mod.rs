//! `canary`: secrets that open nothing, planted where only a leak or a thief would bring them out.

mod file;
mod git;
mod list;
mod plant;
mod remove;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use policy::{
    AgentName, CanaryKind, CanaryName, CanaryValue, CapabilityId, DecoyShape, Holder, decoy, prompt_mark,
};
use serde_json::json;
use storage::{CanarySummary, NewCanary, Store};
use vault::{Entry, EntryKind, NewEntry, Secret};

use crate::app::{App, closest, now_us};
use crate::commands::agent::{find_agent, random_bytes};
use crate::failure::{Exit, Failure};
use crate::unlock;

#[derive(Debug, Subcommand)]
pub(crate) enum Canary {
    /// Make a canary; one for a prompt or a workspace is shown once
    Add(Add),
    /// List canaries and where they are planted
    List,
    /// Add a canary to a file, or to the files of a workspace where an agent finds it
    Plant(plant::PlantIn),
    /// Remove a canary, and what was planted of it
    Remove {
        /// The canary's name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What to call it
    name: String,
    /// `prompt`: a mark for a system prompt; `decoy`: a key that opens nothing; `vault`: the same as an entry of the vault
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: CanaryKind,
    /// Whose keys a decoy, or an entry of the vault, looks like; `openai` by default
    #[arg(long, value_name = "SHAPE", value_parser = shapes())]
    like: Option<DecoyShape>,
    /// The agent that can see it
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

fn kinds() -> impl TypedValueParser<Value = CanaryKind> {
    PossibleValuesParser::new(CanaryKind::ALL.map(CanaryKind::as_str)).try_map(|text| text.parse())
}

fn shapes() -> impl TypedValueParser<Value = DecoyShape> {
    PossibleValuesParser::new(DecoyShape::ALL.map(DecoyShape::as_str)).try_map(|text| text.parse())
}

impl Canary {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Add(add) => add.run(app),
            Self::List => list::list(app),
            Self::Plant(plant) => plant.run(app),
            Self::Remove { name } => remove::remove(app, &name),
        }
    }
}

impl Add {
    fn run(self, app: &App) -> Result<(), Failure> {
        let name: CanaryName =
            self.name.parse().map_err(|error: policy::InvalidName| Failure::usage(error.to_string()))?;
        self.check()?;
        let mut store = app.store()?;
        if store.canaries()?.iter().any(|known| known.canary.name == name) {
            return Err(storage::Error::CanaryExists { name }.into());
        }
        let agent = self.agent.as_deref().map(|agent| find_agent(&store, agent)).transpose()?;
        let shape = (self.kind != CanaryKind::Prompt).then(|| self.like.unwrap_or(DecoyShape::OpenAi));
        let text = match shape {
            Some(shape) => decoy(shape, random_bytes()?),
            None => prompt_mark(random_bytes()?),
        };
        let value = match shape.filter(|_| self.kind == CanaryKind::Vault) {
            Some(shape) => CanaryValue::hash_of(store_in_vault(app, &name, shape, &text)?.expose()),
            None => CanaryValue::Text(text.as_str().into()),
        };
        let holder = agent.map(|agent| Holder { agent, capability: None });
        let new = NewCanary { name, kind: self.kind, shape, value, holder };
        store.add_canary(&new, now_us())?;
        app.tell_daemon()?;
        tell(app, &new, &text);
        Ok(())
    }

    /// Refuses options that mean nothing together.
    fn check(&self) -> Result<(), Failure> {
        match self.kind {
            CanaryKind::Prompt if self.like.is_some() => {
                Err(Failure::usage("a mark of a prompt looks like no key; leave out --like"))
            }
            CanaryKind::Vault if self.agent.is_some() => {
                Err(Failure::usage("no agent sees what is in the vault; leave out --agent"))
            }
            CanaryKind::Prompt | CanaryKind::Decoy | CanaryKind::Vault => Ok(()),
        }
    }
}

/// Stores the canary as an entry of the vault. One that is there already, from another machine or from an attempt that
/// failed half-way, is taken as it is.
fn store_in_vault(
    app: &App,
    name: &CanaryName,
    shape: DecoyShape,
    text: &str,
) -> Result<Secret<String>, Failure> {
    let config = app.config()?;
    let provider = config.provider(shape.as_str()).ok_or_else(|| {
        let message = format!("the vault holds keys of providers, and `{shape}` is none");
        Failure::usage(message).with_hint("--like openai")
    })?;
    let mut vault = unlock::open(app)?;
    if let Some(known) = vault.entry(name.as_str(), EntryKind::Canary) {
        return Ok(Secret::from(known.secret().expose().as_str()));
    }
    let parts = NewEntry {
        provider: name.to_string(),
        kind: EntryKind::Canary,
        label: String::new(),
        secret: Secret::from(text),
        allowed_origin: provider.origin.clone(),
        auth_style: provider.auth.as_str().to_owned(),
    };
    vault.put(Entry::new(parts, now_us())?)?;
    Ok(Secret::from(text))
}

/// Shows the value of a canary that its owner has to place, this once.
fn tell(app: &App, new: &NewCanary, text: &str) {
    let (name, holder) = (&new.name, new.holder.as_ref());
    let shown = (new.kind != CanaryKind::Vault).then_some(text);
    let document = json!({
        "name": name.as_str(),
        "kind": new.kind.as_str(),
        "like": new.shape.map(DecoyShape::as_str),
        "agent": holder.map(|holder| holder.agent.as_str()),
        "value": shown,
    });
    match new.kind {
        CanaryKind::Prompt => {
            app.output.data(&document, || plant::mark_line(text));
            app.output.note(&format!(
                "add this line to a system prompt, or: tokfence canary plant {name} --file CLAUDE.md; it is shown this once"
            ));
        }
        CanaryKind::Decoy => {
            app.output.data(&document, || new.value.marks().collect::<Vec<_>>().join("\n"));
            app.output.note(&format!(
                "put it where only a thief would look, or: tokfence canary plant {name} --workspace DIR; it is shown this once"
            ));
        }
        CanaryKind::Vault => {
            app.output.done(&document, || format!("stored `{name}` in the vault; it is never sent anywhere"));
        }
    }
}

/// Makes a decoy for one run. Answers the variable and the value to put into its environment.
pub(crate) fn for_run(
    app: &App,
    agent: &AgentName,
    capability: CapabilityId,
) -> Result<(&'static str, String), Failure> {
    let shape = DecoyShape::OpenAi;
    let text = decoy(shape, random_bytes()?);
    let name = format!("run-{}", capability.as_str().to_ascii_lowercase());
    let new = NewCanary {
        name: name.parse().map_err(|error: policy::InvalidName| Failure::failed("name the decoy", &error))?,
        kind: CanaryKind::Decoy,
        shape: Some(shape),
        value: CanaryValue::Text(text.as_str().into()),
        holder: Some(Holder { agent: agent.clone(), capability: Some(capability) }),
    };
    app.store()?.add_canary(&new, now_us())?;
    app.tell_daemon()?;
    Ok((shape.variables()[0], text))
}

/// The canary of a name that somebody typed.
fn find(store: &Store, name: &str) -> Result<CanarySummary, Failure> {
    let mut canaries = store.canaries()?;
    if let Some(known) = canaries.iter().position(|known| known.canary.name.as_str() == name) {
        return Ok(canaries.swap_remove(known));
    }
    // A canary's value that was typed where a name belongs is not shown again.
    let message = match name.parse::<CanaryName>() {
        Ok(name) => format!("there is no canary `{name}`"),
        Err(_) => "there is no such canary".to_owned(),
    };
    let failure = Failure::new(Exit::NotFound, "no_such_canary", message);
    Err(match closest(name, canaries.iter().map(|known| known.canary.name.as_str())) {
        Some(similar) => failure.with_hint(format!("did you mean `{similar}`?")),
        None => failure.with_hint("tokfence canary list"),
    })
}
