//! Routes of what peers may do here, of forgetting them, and of what they are called.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};

use super::{ANSWER_WITHIN, Answer, Api, answer, parse_body, within};
use crate::api::documents::{
    AllowRequest, Allowed, DeniedList, ForgetRequest, GrantRequest, PeerAnswer, RenameRequest,
    RevokeRequest, schema,
};
use crate::api::error::ApiError;
use crate::time::DURATION_MAX;

/// What forgetting puts aside may be many gigabytes; the node goes on with it by itself.
const FORGET_WITHIN: Duration = Duration::from_secs(60 * 60);

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/grants", post(grant))
        .route("/v1/grants/revoke", post(revoke))
        .route("/v1/peers/rename", post(rename))
        .route("/v1/peers/forget", post(forget))
        .route("/v1/denied", get(denied))
        .route("/v1/denied/allow", post(allow))
}

async fn grant(State(api): State<Api>, body: Body) -> Answer {
    let request: GrantRequest = parse_body(body).await?;
    if request.grants.is_empty() {
        return Err(ApiError::usage("no grant is named"));
    }
    let expires = request.expires_ms.map(Duration::from_millis);
    check_grant_life(expires)?;
    let granted = api.node.grant(&request.peer, request.grants, expires);
    let peer = within(ANSWER_WITHIN, granted).await?;
    answer(schema::PEER, PeerAnswer { peer })
}

async fn revoke(State(api): State<Api>, body: Body) -> Answer {
    let request: RevokeRequest = parse_body(body).await?;
    if request.grants.is_empty() {
        return Err(ApiError::usage("nothing to revoke is named"));
    }
    let revoked = api.node.revoke(&request.peer, request.grants);
    answer(schema::REVOKED, within(ANSWER_WITHIN, revoked).await?)
}

async fn rename(State(api): State<Api>, body: Body) -> Answer {
    let request: RenameRequest = parse_body(body).await?;
    let renamed = api.node.rename(&request.peer, &request.name);
    let peer = within(ANSWER_WITHIN, renamed).await?;
    answer(schema::PEER, PeerAnswer { peer })
}

async fn forget(State(api): State<Api>, body: Body) -> Answer {
    let request: ForgetRequest = parse_body(body).await?;
    let forgotten = within(FORGET_WITHIN, api.node.forget(&request.peer)).await?;
    answer(schema::FORGOTTEN, forgotten)
}

async fn denied(State(api): State<Api>) -> Answer {
    let denied = within(ANSWER_WITHIN, api.node.denied()).await?;
    answer(schema::DENIED, DeniedList { denied })
}

async fn allow(State(api): State<Api>, body: Body) -> Answer {
    let AllowRequest { id } = parse_body(body).await?;
    within(ANSWER_WITHIN, api.node.allow(id)).await?;
    answer(schema::ALLOWED, Allowed { id })
}

/// How long a grant may last when it does not last for ever.
pub(super) fn check_grant_life(life: Option<Duration>) -> Result<(), ApiError> {
    if let Some(life) = life
        && (life.is_zero() || life > DURATION_MAX)
    {
        let days = DURATION_MAX.as_secs() / 86_400;
        return Err(ApiError::usage(format!(
            "a grant cannot last for {} ms: the limits are 1 ms and {days} days",
            life.as_millis()
        )));
    }
    Ok(())
}
