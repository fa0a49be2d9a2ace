//! Pairing without a ticket: asking, and deciding about who asks.
//!
//! The tree does the asking, also after a restart; what is here writes down what a person wants.

use std::time::Duration;

use packhorse_actors::store::{
    self, AskingRecord, AskingState, PeerRecord, Refused, RequestRecord, StoreError,
};

use crate::NodeId;
use packhorse_protocol::grant::Grants;

use crate::error::{ErrorKind, NodeError};
use crate::node::Node;
use crate::peer::PeerInfo;
use crate::request::{Approval, Ask, Asked, RequestInfo, RequestState, Requests};
use crate::settings::Advertised;
use crate::time::WallTime;
use crate::translate::{from_store, grants, peer_info};

/// How long the first answer is waited for: a dial and a handshake, with a name to resolve.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(15);

impl Node {
    /// Asks the node with this id, at `HOST:PORT`, to be paired; asking again asks at once.
    /// Returns with the first answer, or after a while without one; the node goes on asking.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for what cannot be asked, [`ErrorKind::Refused`] when it is a peer or
    /// denied here. An answer of no is none: see [`Asked::Refused`].
    pub async fn ask(&self, id: NodeId, address: &str, ask: Ask) -> Result<Asked, NodeError> {
        if id == self.id {
            return Err(NodeError::new(
                ErrorKind::Usage,
                "a node cannot be paired with itself",
            ));
        }
        let hint = match address.parse::<Advertised>() {
            Ok(address) => address.hint(),
            Err(error) => {
                let text = format!("`{address}` cannot be dialled: write HOST:PORT");
                return Err(NodeError::new(ErrorKind::Usage, text).with_source(error));
            }
        };
        let wished = grants(ask.grants)?;
        let record = AskingRecord {
            text: ask.message,
            name: ask.name.unwrap_or_default(),
            grants: wished.clone(),
            ..AskingRecord::new(id, vec![hint])
        };
        let begun = match self.tree.store.begin_asking(record).await {
            Err(StoreError::Refused(Refused::AlreadyPaired(_))) => {
                return self.already_paired(id, &wished).await;
            }
            begun => begun.map_err(from_store)?,
        };
        self.tree.requests.touch();
        let wait = tokio::time::sleep(FIRST_ANSWER_WITHIN);
        self.asked_until(id, wait, |record| {
            record.begun_ms == begun.begun_ms && record.tries == 0
        })
        .await
    }

    /// How far asking a node came; waits for its answer while `wait` lasts.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not asked and no peer.
    pub async fn asked(
        &self,
        id: NodeId,
        wait: impl Future<Output = ()>,
    ) -> Result<Asked, NodeError> {
        self.asked_until(id, wait, |record| record.state != AskingState::Refused)
            .await
    }

    /// Asking a peer again is harmless, as long as it would give the peer nothing new.
    async fn already_paired(&self, id: NodeId, wished: &Grants) -> Result<Asked, NodeError> {
        let peer = self.peer(&id.to_string()).await?;
        let held: Vec<_> = peer.grants.iter().collect();
        if wished.iter().all(|grant| held.contains(&grant)) {
            return Ok(Asked::Paired(peer_info(peer, self.env.now_ms())));
        }
        let name = &peer.name;
        Err(NodeError::new(
            ErrorKind::Refused,
            format!("already paired with it, as `{name}`, which may do other things here"),
        )
        .with_hint("packhorse grant PEER CAP:SCOPE"))
    }

    async fn asked_until(
        &self,
        id: NodeId,
        wait: impl Future<Output = ()>,
        goes_on: impl Fn(&AskingRecord) -> bool,
    ) -> Result<Asked, NodeError> {
        let mut changed = self.tree.requests.changed();
        let mut wait = std::pin::pin!(wait);
        let mut is_over = false;
        loop {
            // ORDER: mark the signal as seen before looking, so that no change is missed.
            changed.borrow_and_update();
            let store = &self.tree.store;
            match store.asking(id).await.map_err(from_store)? {
                Some(record) if !is_over && goes_on(&record) => {}
                Some(record) if record.is_open() => return Ok(Asked::Waits(sent(record))),
                Some(record) => return Ok(Asked::Refused(sent(record))),
                None => {
                    let peer = store.peer_by_id(id).await.map_err(from_store)?;
                    let gone = || from_store(StoreError::Refused(Refused::NoSuchRequest(id)));
                    let peer = peer.map(|peer| peer_info(peer, self.env.now_ms()));
                    return peer.map(Asked::Paired).ok_or_else(gone);
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = wait.as_mut(), if !is_over => is_over = true,
            }
        }
    }

    /// Who asks here, and whom this node asks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn requests(&self) -> Result<Requests, NodeError> {
        let (store, now_ms) = (&self.tree.store, self.env.now_ms());
        let received = store.requests(now_ms).await.map_err(from_store)?;
        let asked = store.askings(now_ms).await.map_err(from_store)?;
        Ok(Requests {
            open: self.tree.requests.is_open(),
            received: received.into_iter().map(received_info).collect(),
            sent: asked.into_iter().map(sent).collect(),
        })
    }

    /// Makes a node that asks a peer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nobody with this id asks.
    pub async fn approve_request(
        &self,
        id: NodeId,
        approval: Approval,
    ) -> Result<PeerInfo, NodeError> {
        let grants = grants(approval.grants)?;
        let store = &self.tree.store;
        let peer: PeerRecord = store
            .approve_request(id, approval.name, grants)
            .await
            .map_err(from_store)?;
        self.tree.requests.touch();
        // It is told by being dialled, where it can be; else it asks again by itself.
        self.tree.retry.added(peer.number);
        Ok(peer_info(peer, self.env.now_ms()))
    }

    /// Rejects the request of a node, for good with `deny`; of a node that is asked, stops asking.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no request either way.
    pub async fn reject_request(&self, id: NodeId, deny: bool) -> Result<(), NodeError> {
        let store = &self.tree.store;
        let asked = store.asking(id).await.map_err(from_store)?;
        let withdrawn = match store.withdraw_asking(id).await {
            Err(StoreError::Refused(Refused::NoSuchRequest(_))) => false,
            answer => answer.map(|()| true).map_err(from_store)?,
        };
        let rejected = match store.reject_request(id, deny).await {
            Err(StoreError::Refused(Refused::NoSuchRequest(_))) if withdrawn => {
                let name = asked.map(|record| record.name).unwrap_or_default();
                match deny {
                    true => store.deny(id, name).await,
                    false => Ok(()),
                }
            }
            answer => answer,
        };
        self.tree.requests.touch();
        rejected.map_err(from_store)
    }

    /// The id of a node that asks or is asked, by its id or the beginning of it, or by its name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for none, [`ErrorKind::Usage`] for more than one.
    pub async fn request_by_name_or_id(&self, given: &str) -> Result<NodeId, NodeError> {
        if let Ok(id) = given.parse() {
            return Ok(id);
        }
        let requests = self.requests().await?;
        let mut found: Vec<NodeId> = requests
            .received
            .iter()
            .chain(&requests.sent)
            .filter(|request| {
                let begins = given.len() >= 4 && request.id.short().starts_with(given);
                begins || (!given.is_empty() && request.name == given)
            })
            .map(|request| request.id)
            .collect();
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(NodeError::new(
                ErrorKind::NotFound,
                format!("no request of `{}`, and none to it", given),
            )
            .with_hint("packhorse requests list")),
            more => Err(NodeError::new(
                ErrorKind::Usage,
                format!("{} requests are meant by `{}`", more.len(), given),
            )
            .with_hint("packhorse requests list --json shows whole ids")),
        }
    }
}

fn received_info(record: RequestRecord) -> RequestInfo {
    let who = record.introduction;
    RequestInfo {
        id: who.id,
        name: who.name,
        message: record.text,
        state: match record.state {
            store::RequestState::Waiting => RequestState::Waiting,
            store::RequestState::Approved => RequestState::Approved,
            store::RequestState::Rejected => RequestState::Rejected,
        },
        addresses: vec![record.from.to_string()],
        asked: WallTime(record.asked_ms),
        last: Some(WallTime(record.last_ms)),
        answer: None,
        next: None,
        grants: Vec::new(),
    }
}

fn sent(record: AskingRecord) -> RequestInfo {
    let is_open = record.is_open();
    RequestInfo {
        id: record.id,
        name: record.name,
        message: record.text,
        state: match record.state {
            AskingState::Unheard => RequestState::Unheard,
            AskingState::Waits => RequestState::Waiting,
            AskingState::Refused => RequestState::Rejected,
        },
        addresses: record.hints,
        asked: WallTime(record.begun_ms),
        last: (record.tries > 0).then_some(WallTime(record.answer_ms)),
        answer: (!record.answer.is_empty()).then_some(record.answer),
        next: is_open.then_some(WallTime(record.next_ms)),
        grants: record.grants.iter().cloned().collect(),
    }
}
