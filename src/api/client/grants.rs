//! Questions about what peers may do here, about forgetting them, and about tickets.

use std::time::Duration;

use super::{Client, ClientError};
use crate::api::documents::{
    AllowRequest, Allowed, DeniedList, ForgetRequest, GrantRequest, InviteRequest, Invited,
    Invites, PeerAnswer, RenameRequest, RevokeInvitesRequest, RevokeRequest, RevokedInvites,
};
use crate::peer::{Forgotten, Revoked};

/// Longest that putting aside what a peer left may take.
const FORGET_WAIT: Duration = Duration::from_secs(60 * 60);

impl Client {
    /// Gives a peer grants.
    pub async fn grant(&mut self, request: &GrantRequest) -> Result<PeerAnswer, ClientError> {
        self.post_document("/v1/grants", request).await
    }

    /// Takes grants away from a peer.
    pub async fn revoke(&mut self, request: &RevokeRequest) -> Result<Revoked, ClientError> {
        self.post_document("/v1/grants/revoke", request).await
    }

    /// Gives a peer another name.
    pub async fn rename(&mut self, request: &RenameRequest) -> Result<PeerAnswer, ClientError> {
        self.post_document("/v1/peers/rename", request).await
    }

    /// Forgets a peer.
    pub async fn forget(&mut self, request: &ForgetRequest) -> Result<Forgotten, ClientError> {
        self.post_document_within("/v1/peers/forget", request, FORGET_WAIT)
            .await
    }

    /// Asks for the identities that pair no more.
    pub async fn denied(&mut self) -> Result<DeniedList, ClientError> {
        self.get("/v1/denied", Duration::ZERO).await
    }

    /// Lets an identity pair again.
    pub async fn allow(&mut self, request: &AllowRequest) -> Result<Allowed, ClientError> {
        self.post_document("/v1/denied/allow", request).await
    }

    /// Makes a ticket.
    pub async fn invite(&mut self, request: &InviteRequest) -> Result<Invited, ClientError> {
        self.post_document("/v1/invites", request).await
    }

    /// Asks for the tickets that are remembered.
    pub async fn invites(&mut self) -> Result<Invites, ClientError> {
        self.get("/v1/invites", Duration::ZERO).await
    }

    /// Takes tickets back.
    pub async fn revoke_invites(
        &mut self,
        request: &RevokeInvitesRequest,
    ) -> Result<RevokedInvites, ClientError> {
        self.post_document("/v1/invites/revoke", request).await
    }
}
