//! A launch, from the look for an engine to the page that answers. What fails on the way leaves nothing that runs.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gateway::catalogue::Provider;
use hyper::Method;
use policy::MintedToken;
use serde_json::Value;

use super::container::{Container, User, command_of, digest_of};
use super::folder::Launched;
use super::program::Program;
use super::show::{document, last_lines, open_page, url};
use super::{Agent, Found, Options, bridge, openclaw};
use crate::agents::Wiring;
use crate::app::App;
use crate::commands::agent::{Grant, mint, parse_agent};
use crate::commands::env::{Variables, served};
use crate::engine::{Engine, encode};
use crate::failure::{Exit, Failure};
use crate::format::plain;
use crate::relay::Endpoint;
use crate::sandbox::inside_address;

const IMAGE: &str = "ghcr.io/openclaw/openclaw:latest";
/// How long the capability of an agent is good for; a restart gives it another.
const TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an agent may take until its page answers.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// What is settled before anything is made.
struct Plan {
    engine: Engine,
    image: String,
    port: u16,
    /// Where the agent works, if somebody named a folder.
    workspace: Option<PathBuf>,
    user: User,
    /// The gateway, as it is called in the container.
    address: SocketAddr,
    providers: Vec<String>,
}

/// An image that is there.
struct Image {
    id: String,
    digest: String,
    command: Vec<String>,
}

pub(super) fn launch(agent: &Agent<'_>, options: &Options) -> Result<(), Failure> {
    let plan = Plan::new(agent.app, options)?;
    match agent.find(&plan.engine)? {
        Some(found) if found.is_running() && agent.folder.bridge().is_some() => {
            let message = format!("`{}` runs already", agent.name);
            return Err(
                Failure::new(Exit::Failed, "already_running", message).with_hint("tokfence launch restart")
            );
        }
        Some(_) => drop(agent.end(&plan.engine)?),
        None => bridge::stop(&agent.folder)?,
    }
    begin(agent, &plan, options)
}

pub(super) fn restart(agent: &Agent<'_>, options: &Options) -> Result<(), Failure> {
    let before = agent.folder.load()?;
    let options = Options {
        image: options.image.clone().or(Some(before.image)),
        port: options.port.or(Some(before.port)),
        workspace: options.workspace.clone().or(before.workspace),
        ..options.clone()
    };
    // All that can be known to fail fails before the one that runs is stopped.
    let plan = Plan::new(agent.app, &options)?;
    agent.end(&plan.engine)?;
    begin(agent, &plan, &options)
}

impl Plan {
    fn new(app: &App, options: &Options) -> Result<Self, Failure> {
        if cfg!(not(target_os = "linux")) {
            let message = "a container is launched on Linux only: this program must run in it";
            return Err(Failure::new(Exit::Failed, "no_engine", message));
        }
        let engine = Engine::find()?;
        let (address, providers) = served(app, None)?;
        let ask =
            |path: &str| engine.call(Method::GET, path, None)?.expect("ask the container engine", &[200]);
        let user = User::of(&ask("/info")?, &ask("/version")?);
        let workspace = options.workspace.as_deref().map(workspace).transpose()?;
        Ok(Self {
            image: options.image.clone().unwrap_or_else(|| IMAGE.to_owned()),
            port: options.port.unwrap_or(openclaw::PORT),
            workspace,
            user,
            address: inside_address(&address)?,
            providers,
            engine,
        })
    }
}

/// A folder that somebody named to work in.
fn workspace(path: &Path) -> Result<PathBuf, Failure> {
    let real = path.canonicalize();
    let real = real.map_err(|error| Failure::usage(format!("the workspace {}: {error}", path.display())))?;
    if real.is_dir() { Ok(real) } else { Err(Failure::usage(format!("{} is no folder", path.display()))) }
}

fn begin(agent: &Agent<'_>, plan: &Plan, options: &Options) -> Result<(), Failure> {
    check_port(plan.port)?;
    if !options.no_pull {
        pull(agent, plan)
            .map_err(|failure| failure.with_hint("--no-pull takes an image that is there already"))?;
    }
    let image = inspect(plan)?;
    let started = start(agent, plan, &image).and_then(|launched| {
        wait_until_ready(agent, plan, &launched)?;
        Ok(launched)
    });
    let launched = started.inspect_err(|_| {
        // What failed is told; that cleaning up failed as well is seen with `status`.
        let _ = agent.end(&plan.engine);
    })?;
    tell(agent, plan, &launched, options)
}

fn check_port(port: u16) -> Result<(), Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|error| {
        let message = format!("cannot listen on 127.0.0.1:{port}: {error}");
        Failure::new(Exit::Failed, "cannot_listen", message).with_hint("--port PORT")
    })
}

/// Downloads the image; what the engine says of it is told once.
fn pull(agent: &Agent<'_>, plan: &Plan) -> Result<(), Failure> {
    let mut told = HashSet::new();
    plan.engine.pull(&plan.image, |line| {
        let part = |key: &str| plain(line[key].as_str().unwrap_or_default());
        let (id, status) = (part("id"), part("status"));
        let text = if id.is_empty() { status } else { format!("{id}: {status}") };
        if !text.is_empty() && told.insert(text.clone()) {
            agent.app.output.note(&text);
        }
    })
}

fn inspect(plan: &Plan) -> Result<Image, Failure> {
    let path = format!("/images/{}/json", encode(&plan.image));
    let answer = plan.engine.call(Method::GET, &path, None)?;
    if answer.status == 404 {
        let message = format!("there is no image `{}`", plan.image);
        return Err(Failure::new(Exit::NotFound, "no_such_image", message).with_hint("leave --no-pull out"));
    }
    let image = answer.expect("look at the image", &[200])?;
    let (id, command) = (image["Id"].as_str().unwrap_or_default().to_owned(), command_of(&image));
    if command.is_empty() {
        let message = format!("the image `{}` does not say what to run", plan.image);
        return Err(Failure::new(Exit::Failed, "nothing_to_run", message));
    }
    Ok(Image { id, digest: digest_of(&image), command })
}

/// Makes everything, and starts the container.
fn start(agent: &Agent<'_>, plan: &Plan, image: &Image) -> Result<Launched, Failure> {
    let (app, folder) = (agent.app, &agent.folder);
    let before = openclaw::read(&folder.openclaw())?;
    let program = Program::this()?;
    folder.prepare(plan.user.owner)?;
    let grant =
        Grant { ttl: Some(TTL), note: Some("launched in a container".to_owned()), ..Grant::default() };
    let (token, _) = mint(app, &parse_agent(&agent.name)?, grant)?;
    let launched = Launched {
        image: plan.image.clone(),
        digest: image.digest.clone(),
        port: plan.port,
        workspace: plan.workspace.clone(),
        capability: token.id.to_string(),
        owner: plan.user.owner,
    };
    folder.save(&launched)?;
    write_secrets(agent, plan, before, &token)?;
    bridge::start(app, &agent.name)?;
    let own_workspace = folder.workspace();
    let container = Container {
        folder,
        program: &program,
        image_id: &image.id,
        command: image.command.clone(),
        user: &plan.user,
        workspace: plan.workspace.as_deref().unwrap_or(&own_workspace),
        gateway: Endpoint::Tcp(plan.address),
        home_label: agent.label(),
    };
    let path = format!("/containers/create?name={}", encode(&agent.name));
    plan.engine
        .call(Method::POST, &path, Some(&container.document()))?
        .expect("make the container", &[201])?;
    plan.engine
        .call(Method::POST, &agent.path("/start"), None)?
        .expect("start the container", &[204, 304])?;
    Ok(launched)
}

/// The files with the capability: OpenClaw's configuration, and the variables of `run` for any other agent.
fn write_secrets(agent: &Agent<'_>, plan: &Plan, before: Value, token: &MintedToken) -> Result<(), Failure> {
    let config = agent.app.config()?;
    let names = plan.providers.iter().filter_map(|name| config.provider(name));
    let providers: Vec<&Provider> = names.map(AsRef::as_ref).collect();
    let address = plan.address.to_string();
    let variables = Variables::new(providers.iter().copied(), &address, &token.text);
    let lines: String = variables.set.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let wiring = Wiring { address: &address, token: &token.text, providers, models: Vec::new() };
    let openclaw = openclaw::complete(before, &wiring)?;
    let (folder, owner) = (&agent.folder, plan.user.owner);
    folder.write(&folder.env(), &lines, owner)?;
    folder.write(&folder.openclaw(), &format!("{openclaw:#}\n"), owner)
}

/// Waits until the page answers.
fn wait_until_ready(agent: &Agent<'_>, plan: &Plan, launched: &Launched) -> Result<(), Failure> {
    let output = &agent.app.output;
    if !output.during("waiting for its page", || becomes_ready(agent, plan, launched))? {
        let patience = READY_PATIENCE.as_secs();
        output
            .warn(&format!("it runs, but its page did not answer within {patience} s; tokfence launch logs"));
    }
    Ok(())
}

/// Whether the page answers in time. A container that ended meanwhile will never; one that runs may have no page at all.
fn becomes_ready(agent: &Agent<'_>, plan: &Plan, launched: &Launched) -> Result<bool, Failure> {
    let begun = Instant::now();
    while begun.elapsed() < READY_PATIENCE {
        if !agent.find(&plan.engine)?.as_ref().is_some_and(Found::is_running) {
            let message = format!("the container has ended; it said:{}", last_lines(agent, &plan.engine));
            return Err(Failure::new(Exit::Failed, "container_ended", message));
        }
        if answers(launched.port) {
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

/// Whether somebody who speaks HTTP answers with something that is no failure of his.
fn answers(port: u16) -> bool {
    let asked = || -> std::io::Result<[u8; 12]> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(line)
    };
    asked().is_ok_and(|line| line.starts_with(b"HTTP/1.") && matches!(line[9], b'2' | b'3' | b'4'))
}

fn tell(agent: &Agent<'_>, plan: &Plan, launched: &Launched, options: &Options) -> Result<(), Failure> {
    let found = agent.find(&plan.engine)?;
    let url = url(launched);
    agent.app.output.done(&document(agent, launched, found.as_ref()), || {
        format!("launched `{}` at {url}, from {}", agent.name, launched.digest)
    });
    let place = agent.folder.openclaw();
    agent
        .app
        .output
        .note(&format!("its page asks for a token, which is `gateway.auth.token` in {}", place.display()));
    if !options.no_open && !agent.app.output.is_json {
        open_page(&url);
    }
    Ok(())
}
