//! Routes of where peers are dialled, and when.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;

use crate::api::documents::{AddressRequest, KeepRequest, PeerAnswer, schema};
use crate::api::error::ApiError;
use crate::api::routes::{ANSWER_WITHIN, Answer, Api, answer, parse_body, within};
use crate::settings::Advertised;

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/peers/addresses", post(add))
        .route("/v1/peers/addresses/remove", post(remove))
        .route("/v1/peers/keep", post(keep))
}

async fn add(State(api): State<Api>, body: Body) -> Answer {
    let (peer, address) = parsed(body).await?;
    let peer = within(ANSWER_WITHIN, api.node.add_address(&peer, &address)).await?;
    answer(schema::PEER, PeerAnswer { peer })
}

async fn remove(State(api): State<Api>, body: Body) -> Answer {
    let (peer, address) = parsed(body).await?;
    let peer = within(ANSWER_WITHIN, api.node.remove_address(&peer, &address)).await?;
    answer(schema::PEER, PeerAnswer { peer })
}

async fn keep(State(api): State<Api>, body: Body) -> Answer {
    let request: KeepRequest = parse_body(body).await?;
    let peer = within(ANSWER_WITHIN, api.node.keep(&request.peer, request.keep)).await?;
    answer(schema::PEER, PeerAnswer { peer })
}

async fn parsed(body: Body) -> Result<(String, Advertised), ApiError> {
    let request: AddressRequest = parse_body(body).await?;
    let address: Advertised = request
        .address
        .parse()
        .map_err(|error| ApiError::usage(format!("{error}")))?;
    Ok((request.peer, address))
}
