//! Proof: under seal, who dials, what it says about itself, and the ticket it shows or the request
//! it makes.
//!
//! ```text
//! sealed, 2,048 bytes:
//!    0  32    dialler's node id
//!   32  66    name: u16 length ‖ 64 bytes, zeros behind the text
//!   98  u8    count of addresses, at most 4
//!   99  1,044 four times: u16 length ‖ 259 bytes, zeros behind the text
//! 1143  u32   boot
//! 1147  u64   epoch nonce
//! 1155  u64   dial counter
//! 1163  u8    1 if a session with the responder is regarded as alive, else 0
//! 1164  16    that session's id, or zeros
//! 1180  u64   features, unknown bits are ignored
//! 1188  64    signature: packhorse 1 initiator ‖ T2 ‖ responder id ‖ dialler id
//! 1252  u8    0 no pairing, 1 a ticket, 2 a request to be paired
//! 1253  16    ticket id, or zeros
//! 1269  32    HMAC of the ticket key over packhorse 1 pairing ‖ T2 ‖ responder id ‖ dialler id,
//!             or zeros
//! 1301  258   of a request its text: u16 length ‖ 256 bytes, zeros behind the text;
//!             else sent as zeros, ignored
//! 1559  473   sent as zeros, ignored
//! 2032
//! ```
//!
//! The seal says that the sender of Hello wrote it; the signature says who that is; only then
//! are name, addresses, epoch and the rest what *that node* says. The MAC is checked by whoever
//! holds the ticket key, see [`super::Decision::ticket_matches`].

use super::fields::{LOCAL_BYTES, Reader, push_local, push_text, slot_bytes};
use super::schedule::{Opened, TAG_BYTES};
use super::{HandshakeError, Local, SessionId};
use crate::limits::REQUEST_BYTES_MAX;
use crate::node_id::NodeId;
use crate::text;

/// The length of Proof.
pub const PROOF_BYTES: usize = PLAIN_PROOF_BYTES + TAG_BYTES;

/// What this build can do beyond version 1. Nothing yet.
pub(super) const FEATURES: u64 = 0;

const PLAIN_PROOF_BYTES: usize = 2_032;
const USED_BYTES: usize =
    32 + LOCAL_BYTES + 8 + 17 + 8 + 64 + 1 + 16 + 32 + slot_bytes(REQUEST_BYTES_MAX);
const NO_PAIRING: u8 = 0;
const TICKET: u8 = 1;
const REQUEST: u8 = 2;
const NO_ID: [u8; 16] = [0; 16];
const NO_MAC: [u8; 32] = [0; 32];

const _: () = assert!(USED_BYTES == 1_559);

/// What Proof says.
pub(super) struct PlainProof {
    pub(super) dialler: [u8; 32],
    pub(super) local: Local,
    pub(super) dial_counter: u64,
    pub(super) alive: Option<SessionId>,
    pub(super) signature: [u8; 64],
    pub(super) pairing: PlainPairing,
}

/// How it wants to become a peer.
#[derive(Clone, Debug)]
pub(super) enum PlainPairing {
    None,
    Ticket(TicketProof),
    Request(String),
}

/// A ticket, shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct TicketProof {
    pub(super) id: [u8; 16],
    pub(super) mac: [u8; 32],
}

/// What the pairing proof and the dialler's signature cover, after their labels.
pub(super) fn covered<'a>(
    t2: &'a [u8; 32],
    responder: &'a NodeId,
    dialler: &'a NodeId,
) -> [&'a [u8]; 3] {
    [t2, responder.as_bytes(), dialler.as_bytes()]
}

impl PlainProof {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PROOF_BYTES);
        out.extend_from_slice(&self.dialler);
        push_local(&mut out, &self.local);
        out.extend_from_slice(&self.dial_counter.to_be_bytes());
        out.push(u8::from(self.alive.is_some()));
        out.extend_from_slice(&self.alive.map_or(NO_ID, |session| session.0));
        out.extend_from_slice(&FEATURES.to_be_bytes());
        out.extend_from_slice(&self.signature);
        let (kind, id, mac, request) = match &self.pairing {
            PlainPairing::None => (NO_PAIRING, NO_ID, NO_MAC, ""),
            PlainPairing::Ticket(ticket) => (TICKET, ticket.id, ticket.mac, ""),
            PlainPairing::Request(text) => (REQUEST, NO_ID, NO_MAC, text.as_str()),
        };
        out.push(kind);
        out.extend_from_slice(&id);
        out.extend_from_slice(&mac);
        push_text(&mut out, request, REQUEST_BYTES_MAX);
        debug_assert_eq!(out.len(), USED_BYTES);
        out.resize(PLAIN_PROOF_BYTES, 0);
        out
    }

    pub(super) fn read(plaintext: &Opened) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new("proof", plaintext);
        let dialler = reader.array("dialler id")?;
        let local = reader.local()?;
        let dial_counter = reader.u64("dial counter")?;
        let alive = match (reader.u8("alive")?, reader.array("alive session")?) {
            (0, NO_ID) => None,
            (1, session) => Some(SessionId(session)),
            _ => return Err(reader.malformed("alive")),
        };
        reader.u64("features")?;
        let signature = reader.array("signature")?;
        let kind = reader.u8("pairing")?;
        let pairing = match (
            kind,
            reader.array("ticket id")?,
            reader.array("ticket mac")?,
        ) {
            (NO_PAIRING, NO_ID, NO_MAC) => PlainPairing::None,
            (TICKET, id, mac) => PlainPairing::Ticket(TicketProof { id, mac }),
            (REQUEST, NO_ID, NO_MAC) => {
                let request = reader.text("request", REQUEST_BYTES_MAX)?;
                text::check("request", request, REQUEST_BYTES_MAX)?;
                PlainPairing::Request(request.to_owned())
            }
            _ => return Err(reader.malformed("pairing")),
        };
        Ok(Self {
            dialler,
            local,
            dial_counter,
            alive,
            signature,
            pairing,
        })
    }
}
