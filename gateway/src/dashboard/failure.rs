//! What is answered where something is refused or does not work, in the shape that errors of the command line have.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer;

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn not_understood() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not_understood", "the request is not understood; reload the page")
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "that did not work")
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::NoSuchAgent { .. } => Self::not_found("no_such_agent", error.to_string()),
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, "state_unavailable", error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        (status, answer(&json!({ "error": { "code": code, "message": message } }))).into_response()
    }
}
