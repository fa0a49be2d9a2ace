//! What is asked of the store for people alone: nothing else depends on these answers.

use super::error::StoreError;
use super::handle::StoreHandle;
use super::receipt::ReceiptId;
use super::tables::place::{self, SentPlace};

impl StoreHandle {
    /// Where a message is that was accepted here.
    pub async fn sent_place(&self, id: ReceiptId) -> Result<SentPlace, StoreError> {
        self.read(move |reader| Ok(place::of(reader, &id)?)).await
    }
}
