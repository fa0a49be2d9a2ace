//! How the API says no: an HTTP status and `{"error":{"code","text","exit","hint"}}`.
//!
//! The exit is the code that a command ends with, so that the client needs no table of its own.
//! Codes are words for programs, the text is for people.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, NodeError};
use crate::exit::Exit;

/// One error, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    /// A word for programs.
    pub code: String,
    /// What happened, for people.
    pub text: String,
    /// The code that a command ends with.
    pub exit: u8,
    /// What a person may do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The body around it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ApiError,
}

impl ApiError {
    /// The request itself is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> ApiError {
        NodeError::new(ErrorKind::Usage, text).into()
    }

    /// The node did not answer in time; what came of it is unknown.
    pub(crate) fn timed_out(text: impl Into<String>) -> ApiError {
        ApiError {
            code: "timed_out".to_owned(),
            text: text.into(),
            exit: Exit::TimedOut.code(),
            hint: None,
        }
    }

    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::from_code(self.exit)
    }

    fn status(&self) -> StatusCode {
        match self.code.as_str() {
            "usage" => StatusCode::BAD_REQUEST,
            "not_found" => StatusCode::NOT_FOUND,
            "refused" => StatusCode::FORBIDDEN,
            "full" => StatusCode::INSUFFICIENT_STORAGE,
            "unsent" => StatusCode::SERVICE_UNAVAILABLE,
            "timeout" | "timed_out" => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> ApiError {
        ApiError {
            code: error.kind().code().to_owned(),
            text: error.to_string(),
            exit: error.exit_code(),
            hint: error.hint().map(ToOwned::to_owned),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(ErrorBody { error: self })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_published_shape() {
        let error: ApiError = NodeError::new(ErrorKind::NotFound, "no peer `left`").into();
        let text = serde_json::to_string(&ErrorBody { error }).expect("plain values");
        assert_eq!(
            text,
            r#"{"error":{"code":"not_found","text":"no peer `left`","exit":4}}"#
        );
    }

    #[test]
    fn every_kind_of_error_has_a_status_of_failure() {
        for kind in ErrorKind::ALL {
            let status = ApiError::from(NodeError::new(kind, "x")).status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{kind:?}"
            );
        }
    }
}
