//! Routes of tickets.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use packhorse_actors::store::short_id;

use super::grants::check_grant_life;
use super::{ANSWER_WITHIN, Answer, Api, answer, parse_body, within};
use crate::api::documents::{
    InviteRequest, Invited, Invites, RevokeInvitesRequest, RevokedInvites, schema, whole_ms,
};
use crate::api::error::ApiError;
use crate::node::InviteChoice;
use crate::peer::{Invite, TICKET_EXPIRES_DEFAULT};
use crate::time::{DURATION_MAX, WallTime};

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/invites", get(list).post(invite))
        .route("/v1/invites/revoke", post(revoke))
}

async fn invite(State(api): State<Api>, body: Body) -> Answer {
    let request: InviteRequest = parse_body(body).await?;
    let expires = request
        .expires_ms
        .map_or(TICKET_EXPIRES_DEFAULT, Duration::from_millis);
    if expires.is_zero() || expires > DURATION_MAX {
        let days = DURATION_MAX.as_secs() / 86_400;
        return Err(ApiError::usage(format!(
            "a ticket cannot live for {} ms: the limits are 1 ms and {days} days",
            expires.as_millis()
        )));
    }
    let uses = request.uses.unwrap_or(1);
    if uses == 0 {
        return Err(ApiError::usage(
            "a ticket with 0 uses is no ticket: the least is 1",
        ));
    }
    let grants_for = request.grants_for_ms.map(Duration::from_millis);
    check_grant_life(grants_for)?;
    let invite = Invite {
        grants: request.grants.clone(),
        expires,
        uses,
        grants_for,
    };
    let ticket = within(ANSWER_WITHIN, api.node.invite(invite)).await?;
    let expires = WallTime(WallTime::now().0.saturating_add(whole_ms(expires)));
    answer(
        schema::INVITE,
        Invited {
            id: short_id(ticket.id()),
            ticket,
            grants: request.grants,
            grants_for_ms: request.grants_for_ms,
            expires,
            uses,
        },
    )
}

async fn list(State(api): State<Api>) -> Answer {
    let invites = within(ANSWER_WITHIN, api.node.invites()).await?;
    answer(schema::INVITES, Invites { invites })
}

async fn revoke(State(api): State<Api>, body: Body) -> Answer {
    let request: RevokeInvitesRequest = parse_body(body).await?;
    let choice = match (request.all, request.ids.is_empty()) {
        (true, true) => InviteChoice::All,
        (false, false) => InviteChoice::Ids(request.ids),
        (true, false) => return Err(ApiError::usage("ids and `all` are named: one of them")),
        (false, true) => return Err(ApiError::usage("neither ids nor `all` are named")),
    };
    let revoked = within(ANSWER_WITHIN, api.node.revoke_invites(choice)).await?;
    answer(schema::REVOKED_INVITES, RevokedInvites { revoked })
}
