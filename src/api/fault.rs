//! The API for deaths on purpose; it exists in builds with the feature `fault` only.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use serde::{Deserialize, Serialize};

use crate::api::client::{Client, ClientError};
use crate::api::routes::{ANSWER_WITHIN, Answer, Api, answer, parse_body, within};

/// The document that answers an order.
pub const SCHEMA: &str = "packhorse.fault.v1";

/// The body of `POST /v1/fault`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    /// Who is to die, by its name in the tree.
    pub actor: String,
    /// How: `panic`, `error`, `kill`, `hang`.
    pub fault: String,
    /// When: `idle`, `before-message`, `after-message`, `stopping`, `starting`, `before-commit`,
    /// `before-answer`.
    pub when: String,
}

/// The routes of this file.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/v1/fault", post(fault))
}

async fn fault(State(api): State<Api>, body: Body) -> Answer {
    let request: FaultRequest = parse_body(body).await?;
    let order = api
        .node
        .fault(&request.actor, &request.when, &request.fault);
    within(ANSWER_WITHIN, order).await?;
    answer(SCHEMA, request)
}

impl Client {
    /// Orders a death.
    pub async fn fault(&mut self, request: &FaultRequest) -> Result<(), ClientError> {
        let _: serde_json::Value = self.post_document("/v1/fault", request).await?;
        Ok(())
    }
}
