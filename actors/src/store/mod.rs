//! The store: everything that a node was given, sealed, on disk, until it is handed on.
//!
//! One thread writes. Jobs decide every write on that thread, over a view of what is committed and
//! of what the batch holds so far; a batch is durable before anything in it can be read, counted
//! or answered. Reading takes snapshots. An engine lies below: fjall in a real node, memory with
//! power cuts in tests and simulation; nothing above `engine.rs` knows which.
//! Nothing outside of this folder names fjall, sees a key, or decides a write.
//!
//! Read [`StoreHandle`] for what can be asked, then `writer.rs` for how it becomes durable, then
//! the tables. `actors/STORE.md` draws every byte.

mod addresses;
mod doctor;
mod engine;
mod engine_files;
mod error;
mod facts;
mod fjall_engine;
mod folder;
mod forgetting;
mod found;
mod grants;
mod handed;
mod handle;
mod incoming;
mod insight;
mod journal_tail;
mod keys;
mod layout;
mod mark_file;
mod memory_engine;
mod open;
mod outgoing;
mod pause;
mod peer_failures;
mod quarantine;
mod quota;
mod reader;
mod receipt;
mod requests;
mod reserve;
mod room;
mod seal;
mod shared;
mod signals;
mod space;
mod tables;
mod view;
mod writer;
#[cfg(feature = "sim")]
mod writer_task;

pub use doctor::{Finding, RepairError, Report, Severity, examine, repair};
pub use error::{EngineError, OpenError, Refused, StoreError};
pub use grants::Revoked;
pub use handle::StoreHandle;
pub use keys::Space;
pub use memory_engine::MemoryDisk;
pub use open::{EngineKind, Opened, Store, StoreConfig};
pub use quota::{QUOTA_BYTES_MIN, Quotas};
pub use receipt::{NotAReceipt, ReceiptId};
pub use shared::{QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, READS_MAX};
pub use signals::OutboxCounts;
pub use space::{Bytes, Shortage, Storage};
pub use tables::asking::{ASKING_MS_MAX, ASKINGS_MAX, AskingAnswer, AskingRecord, AskingState};
pub use tables::dead::{DeadLetter, DeadState};
pub use tables::dead_in::DeadInLetter;
pub use tables::deny::Denied;
pub use tables::forgetting::{Forgotten, PutAside};
pub use tables::inbox::InboxRow;
pub use tables::inbox_search::InboxTopic;
pub(crate) use tables::inbox_search::Search;
pub use tables::inbox_settle::{Begun, Settled, Verdict, Whereabouts};
pub use tables::invites::{InviteRecord, TICKET_USES_MAX, TicketRefusal, short_id};
pub use tables::outbox::{
    Accepted, Filter, Listing, NewMessage, OutboxRow, ReceiptRecord, ReceiptState,
};
pub use tables::pairing::{PairInviter, PairJoiner};
pub use tables::peers::{EpochVerdict, Keep, Noted, PeerError, PeerNumber, PeerRecord};
pub use tables::place::SentPlace;
pub use tables::requests::{
    NewRequest, REQUEST_MS_MAX, REQUESTS_NEAR_MAX, REQUESTS_WAITING_MAX, RequestRecord,
    RequestState, Requested,
};
pub use tables::sweep::Swept;
pub use tables::tries::{FAILURES_MAX, Tries, UNENDED_MAX};
pub use writer::{Writer, WriterEnd};
