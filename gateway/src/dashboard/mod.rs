//! The owner's page: what the command line tells and does, in a browser on this machine.
//!
//! It is the one place where a browser may change something, so it is closed to everybody but the page itself. A browser is
//! let in by a link from the control socket, which works once and for a minute. From then on two secrets are asked for
//! together: a cookie that scripts cannot read, and a token that only this origin can. A cookie alone would not do: browsers
//! send it to every port of a host, so whatever an agent serves on another one would be handed it.
//!
//! Cold. Nothing is collected while nobody looks.

mod assets;
mod changes;
mod events;
mod explain;
mod failure;
mod guard;
mod history;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use policy::TimestampUs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process::control::{LoginLink, Reply};
use crate::process::daemon::Daemon;
use changes::Change;
use events::Events;
use failure::Failure;
use history::History;
use session::{Opened, SessionId, Sessions};

/// Where everything of the page is.
const ROOT: &str = "/dashboard/";
/// The header with the token of the page.
const TOKEN: &str = "x-tokfence-page";

/// What a daemon keeps for its page.
#[derive(Debug, Default)]
pub(crate) struct Dashboard {
    sessions: Sessions,
    events: Events,
    history: History,
}

/// What is answered from.
struct Page {
    daemon: Arc<Daemon>,
    address: SocketAddr,
}

type Shown = State<Arc<Page>>;

impl Dashboard {
    /// A link that lets one browser in.
    pub(crate) fn link(daemon: &Daemon) -> Reply {
        let none = |message: &str, hint: &str| Reply::Failed {
            code: "no_dashboard".to_owned(),
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        };
        if !daemon.shared().snapshot.load().config.metrics.dashboard {
            let hint = "set `metrics.dashboard = true` in config.toml, then tokfence restart";
            return none("the dashboard is switched off", hint);
        }
        let Some(address) = daemon.metrics_address() else {
            let hint = "set `metrics.listen` in config.toml to a free address, then tokfence restart";
            return none("there is no dashboard, because nothing listens for it", hint);
        };
        let (secret, ends_at) = daemon.dashboard.sessions.issue(daemon.shared().ledger.now());
        // Behind the `#`: a browser sends it to nobody, and whatever fetches links before they are opened uses nothing up.
        let url = format!("http://{address}{ROOT}#{}", *secret);
        Reply::DashboardLink(LoginLink { url, expires_at_us: ends_at })
    }

    /// Ends every session and every link. Answers how many browsers were let out.
    pub(crate) fn log_out(&self) -> usize {
        self.sessions.close_all()
    }

    /// Ends what is being watched; whoever still looks asks again.
    pub(crate) fn end_events(&self) {
        self.events.end();
    }
}

/// Everything below [`ROOT`].
pub(crate) fn routes(daemon: Arc<Daemon>, address: SocketAddr) -> Router {
    let page = Arc::new(Page { daemon, address });
    let mut routes = Router::new()
        .route("/dashboard", get(async || Redirect::permanent(ROOT)))
        .route("/dashboard/login", post(log_in))
        .route("/dashboard/logout", post(log_out))
        .route("/dashboard/events", get(events))
        .route("/dashboard/history", get(history))
        .route("/dashboard/risk/{event}", get(explain))
        .route("/dashboard/change", post(change))
        .route("/dashboard/{*other}", any(async || Failure::not_found("not_found", "there is no such page")));
    for asset in assets::ALL {
        let answer = ([(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind))], asset.text);
        routes = routes.route(asset.path, get(async move || answer));
    }
    // On these routes alone: what is nowhere on the listener is answered as before.
    routes.route_layer(middleware::from_fn_with_state(page.clone(), guard::guard)).with_state(page)
}

impl Page {
    fn now(&self) -> TimestampUs {
        self.daemon.shared().ledger.now()
    }

    fn sessions(&self) -> &Sessions {
        &self.daemon.dashboard.sessions
    }

    /// Cookies do not know ports, so the name does: another gateway's page has another.
    fn cookie_name(&self) -> String {
        format!("tokfence_{}", self.address.port())
    }

    /// The session of a request, or the refusal.
    fn session(&self, headers: &HeaderMap) -> Result<SessionId, Failure> {
        let name = self.cookie_name();
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let ours = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter_map(|(named, value)| (named == name).then_some(value));
        let token = headers.get(TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
        self.sessions().find(ours, token, self.now()).ok_or_else(|| {
            Failure::new(StatusCode::UNAUTHORIZED, "no_session", "run `tokfence dashboard` for a link")
        })
    }

    /// Runs what reads or writes the database, for which the threads that serve requests do not wait.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Daemon) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let daemon = self.daemon.clone();
        tokio::task::spawn_blocking(move || work(&daemon)).await.unwrap_or_else(|_| Err(Failure::internal()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    secret: String,
}

async fn log_in(State(page): Shown, body: Bytes) -> Result<Response, Failure> {
    let Login { secret } = serde_json::from_slice(&body).map_err(|_| Failure::not_understood())?;
    let Some(Opened { cookie, token, ends_at }) = page.sessions().open(&secret, page.now()) else {
        let message =
            "this link was used already, or its minute is over; run `tokfence dashboard` for another";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "wrong_link", message));
    };
    let cookie = cookie_line(&page.cookie_name(), &cookie, session::LASTS_S);
    let document = json!({ "token": *token, "expires_at": crate::overview::form::timestamp(ends_at) });
    Ok(([(header::SET_COOKIE, cookie)], answer(&document)).into_response())
}

async fn log_out(State(page): Shown, headers: HeaderMap) -> Result<Response, Failure> {
    page.sessions().close(page.session(&headers)?);
    let cookie = cookie_line(&page.cookie_name(), "", 0);
    Ok(([(header::SET_COOKIE, cookie)], answer(&json!({ "status": "logged_out" }))).into_response())
}

/// Without `Domain` it is of this host alone.
fn cookie_line(name: &str, value: &str, lasts_s: i64) -> String {
    format!("{name}={value}; Path={ROOT}; HttpOnly; SameSite=Strict; Max-Age={lasts_s}")
}

async fn events(State(page): Shown, headers: HeaderMap) -> Result<Response, Failure> {
    events::stream(&page.daemon, page.session(&headers)?)
}

async fn history(State(page): Shown, headers: HeaderMap) -> Result<Response, Failure> {
    page.session(&headers)?;
    told(&*page.apart(|daemon| Ok(daemon.dashboard.history.look(daemon.shared())?)).await?)
}

async fn explain(
    State(page): Shown,
    headers: HeaderMap,
    Path(event): Path<i64>,
) -> Result<Response, Failure> {
    page.session(&headers)?;
    let explained = page.apart(move |daemon| Ok(explain::explain(daemon.shared(), event)?)).await?;
    told(
        &explained
            .ok_or_else(|| Failure::not_found("no_such_event", format!("there is no event {event}")))?,
    )
}

async fn change(State(page): Shown, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    page.session(&headers)?;
    let change: Change = serde_json::from_slice(&body).map_err(|_| Failure::not_understood())?;
    told(&page.apart(move |daemon| change.make(daemon.shared())).await?)
}

fn told(document: &impl Serialize) -> Result<Response, Failure> {
    serde_json::to_value(document).map(|document| answer(&document)).map_err(|_| Failure::internal())
}

fn answer(document: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
