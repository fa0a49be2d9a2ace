//! Requests about where peers are dialled, and when.

use super::{Client, ClientError};
use crate::api::documents::{AddressRequest, KeepRequest, PeerAnswer};

impl Client {
    /// Adds an address at which a peer is dialled first.
    pub async fn add_address(
        &mut self,
        request: &AddressRequest,
    ) -> Result<PeerAnswer, ClientError> {
        self.post_document("/v1/peers/addresses", request).await
    }

    /// Takes one back.
    pub async fn remove_address(
        &mut self,
        request: &AddressRequest,
    ) -> Result<PeerAnswer, ClientError> {
        self.post_document("/v1/peers/addresses/remove", request)
            .await
    }

    /// Says when a link to a peer is kept.
    pub async fn keep(&mut self, request: &KeepRequest) -> Result<PeerAnswer, ClientError> {
        self.post_document("/v1/peers/keep", request).await
    }
}
