//! Routes of pairing without a ticket.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::routing::{get, post};

use super::{ANSWER_WITHIN, Answer, Api, JOIN_WITHIN, answer, parse_body, parse_query, within};
use crate::api::documents::requests::{
    ApproveRequest, Approved, AskRequest, AskedAnswer, AskedQuery, RejectRequest, Rejected, schema,
};
use crate::api::work::place_to_wait;
use crate::request::{Approval, Ask};

/// Longest wait in one request; who wants more asks again.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/requests", get(list).post(ask))
        .route("/v1/requests/asked", get(asked))
        .route("/v1/requests/approve", post(approve))
        .route("/v1/requests/reject", post(reject))
}

async fn list(State(api): State<Api>) -> Answer {
    let requests = within(ANSWER_WITHIN, api.node.requests()).await?;
    answer(schema::REQUESTS, requests)
}

async fn ask(State(api): State<Api>, body: Body) -> Answer {
    let request: AskRequest = parse_body(body).await?;
    let ask = Ask {
        name: request.name,
        grants: request.grants,
        message: request.message,
    };
    let asking = api.node.ask(request.node, &request.address, ask);
    let asked = within(JOIN_WITHIN, asking).await?;
    answer(schema::ASKED, AskedAnswer::from(asked))
}

async fn asked(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let query: AskedQuery = parse_query(query)?;
    let wait = Duration::from_millis(query.wait_ms.unwrap_or_default()).min(ASKED_WAIT_MAX);
    let _place = place_to_wait(&api, wait)?;
    let mut draining = api.draining.clone();
    let over = async {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The daemon stops; who asked comes back when it runs again.
            _ = draining.wait_for(|draining| *draining) => {}
        }
    };
    let asked = within(wait + ANSWER_WITHIN, api.node.asked(query.node, over)).await?;
    answer(schema::ASKED, AskedAnswer::from(asked))
}

async fn approve(State(api): State<Api>, body: Body) -> Answer {
    let request: ApproveRequest = parse_body(body).await?;
    let approval = Approval {
        name: request.name,
        grants: request.grants,
    };
    let approved = async {
        let id = api.node.request_by_name_or_id(&request.request).await?;
        api.node.approve_request(id, approval).await
    };
    let peer = within(ANSWER_WITHIN, approved).await?;
    answer(schema::APPROVED, Approved { peer })
}

async fn reject(State(api): State<Api>, body: Body) -> Answer {
    let request: RejectRequest = parse_body(body).await?;
    let denied = request.deny;
    let rejected = async {
        let id = api.node.request_by_name_or_id(&request.request).await?;
        api.node.reject_request(id, denied).await?;
        Ok(id)
    };
    let node = within(ANSWER_WITHIN, rejected).await?;
    answer(schema::REJECTED, Rejected { node, denied })
}
