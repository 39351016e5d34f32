//! The listener for figures, and for the owner's page, which has rules of its own. Figures tell nothing that is secret and
//! change nothing; a web page that found them could still read them, so the same rules hold for `Host` and `Origin` as where
//! requests come in.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;

use super::collect::collect;
use super::visitors::Visitors;
use crate::dashboard;
use crate::process::daemon::Daemon;
use crate::request::boundary;
use crate::state::Shared;

/// Serves until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, address: SocketAddr, daemon: Arc<Daemon>) {
    let shared = daemon.shared().clone();
    let guarded = middleware::from_fn_with_state((shared.clone(), address.port()), guard);
    let figures = Router::new().route("/metrics", get(metrics)).layer(guarded).with_state(shared);
    let routes = figures.merge(dashboard::routes(daemon, address));
    if let Err(error) = axum::serve(Visitors::new(listener), routes).await {
        tracing::error!(%error, "figures are not shown any more");
    }
}

async fn guard(State((shared, port)): State<(Arc<Shared>, u16)>, request: Request, next: Next) -> Response {
    let config = shared.snapshot.load().config.clone();
    if request.headers().get_all(header::HOST).iter().count() != 1 {
        return refused(StatusCode::BAD_REQUEST, "one Host is needed".to_owned());
    }
    match boundary::check(&config.daemon, port, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denial) => refused(StatusCode::FORBIDDEN, denial.to_string()),
    }
}

/// A refusal ends its connection: places are few, and a web page would keep what it got.
fn refused(status: StatusCode, message: String) -> Response {
    (status, [(header::CONNECTION, "close")], message).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    // It reads the database, which the threads that serve requests do not wait for.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        TextEncoder::new().encode(&collect(&shared), &mut text).map(|()| text)
    });
    match text.await {
        Ok(Ok(text)) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            ([kind, (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
        }
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
