//! The responder's side of the handshake.
//!
//! It proves itself to whoever knows its id, learns who dials, and then stops: whether that
//! dialler is wanted is decided by whoever holds the [`Decision`].
//! Until the knock it spends one BLAKE3; it says nothing to who does not know its id.
//!
//! Order: [`Responder::on_hello`], [`AwaitProof::on_proof`], then [`Decision::accept`] or
//! [`Decision::refuse`].

use std::fmt;

use curve25519_dalek::MontgomeryPoint;
use ml_kem::array::Array;
use zeroize::{Zeroize, Zeroizing};

use super::hello::Knocked;
use super::proof::{PROOF_BYTES, PlainPairing, PlainProof, covered};
use super::schedule::{self, PAIRING, Place, Schedule, Transcript};
use super::verdict::{write_accepted, write_refused};
use super::{
    Established, HandshakeError, Introduction, LinkKind, Local, SessionId, VerdictRefusal, reply,
};
use crate::grant::Grants;
use crate::identity::IdentityKey;
use crate::node_id::NodeId;
use crate::purpose::Purpose;
use crate::ticket::TicketKey;

/// A responder that waits for Hello.
#[derive(Debug)]
pub struct Responder {
    identity: IdentityKey,
    place: Place,
}

impl Responder {
    /// Begins on a link of this kind with this binding.
    #[must_use]
    pub fn new(identity: &IdentityKey, kind: LinkKind, binding: [u8; 32]) -> Self {
        Self {
            identity: identity.clone(),
            place: Place { kind, binding },
        }
    }

    /// Whether this is a Hello by who knows this node's id, at the price of one BLAKE3.
    ///
    /// [`Responder::on_hello`] checks it as well; this is for who has to decide in between whether
    /// the key agreement can be afforded.
    #[must_use]
    pub fn knocks(&self, hello: &[u8]) -> bool {
        Knocked::read(self.identity.id(), &self.place, hello).is_some()
    }

    /// Takes Hello, [`super::HELLO_BYTES`] bytes, and returns Reply.
    ///
    /// `random` is 128 fresh random bytes, used nowhere else: 0..32 the nonce, 32..64 what is
    /// encapsulated (m of FIPS 203), 64..96 the X25519 secret; the last 32 serve nothing.
    ///
    /// # Errors
    /// [`HelloRejected`] says what to send, if anything, before the link is closed.
    pub fn on_hello(
        self,
        bytes: &[u8],
        mut random: [u8; 128],
    ) -> Result<(AwaitProof, Vec<u8>), HelloRejected> {
        let own = self.identity.id();
        let hello = Knocked::read(own, &self.place, bytes).ok_or(HelloRejected::Silent)?;
        let Some(version) = hello.common_version() else {
            return Err(HelloRejected::NoCommonVersion(
                reply::write_no_common_version(),
            ));
        };
        let keys = hello.keys().ok_or(HelloRejected::Silent)?;

        let mut nonce = [0; 32];
        let mut m = [0; 32];
        let mut x25519_secret = Zeroizing::new([0; 32]);
        nonce.copy_from_slice(&random[..32]);
        m.copy_from_slice(&random[32..64]);
        x25519_secret.copy_from_slice(&random[64..96]);
        random.zeroize();

        let x25519_public = MontgomeryPoint::mul_base_clamped(*x25519_secret).to_bytes();
        let x25519 = Zeroizing::new(
            MontgomeryPoint(keys.x25519_public)
                .mul_clamped(*x25519_secret)
                .to_bytes(),
        );
        if *x25519 == [0; 32] {
            return Err(HelloRejected::Silent);
        }
        let mut m = Array(m);
        let (ciphertext, mut kem) = keys.kem_key.encapsulate_deterministic(&m);
        m.0.zeroize();

        let mut answer = reply::write_clear(version, &nonce, ciphertext.as_slice(), &x25519_public);
        let t1 = schedule::t1(&self.place, bytes, &answer);
        let schedule = Schedule::new(&t1, &kem.0, &x25519);
        kem.0.zeroize();
        let signature = self
            .identity
            .sign(Purpose::Responder, &[&t1, own.as_bytes()]);
        let sealed = schedule.seal_reply(&t1, reply::write_plain(own, &signature));
        let t2 = schedule::t2(&t1, &sealed);
        answer.extend_from_slice(&sealed);
        debug_assert_eq!(answer.len(), reply::REPLY_BYTES);
        Ok((
            AwaitProof {
                responder: own,
                schedule,
                t2,
            },
            answer,
        ))
    }
}

/// What to do about a Hello that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloRejected {
    /// Close the link and send no bytes: the sender does not know this node's id, or its Hello
    /// is broken. Which of these it was is nobody's business.
    #[error("hello does not knock on this node")]
    Silent,
    /// Send these bytes, then close the link.
    #[error("no common version")]
    NoCommonVersion(Vec<u8>),
}

/// A responder that has replied and waits for Proof.
#[derive(Debug)]
pub struct AwaitProof {
    responder: NodeId,
    schedule: Schedule,
    t2: Transcript,
}

impl AwaitProof {
    /// Takes Proof, [`PROOF_BYTES`] bytes, and returns what is to be decided.
    ///
    /// # Errors
    /// Whatever is wrong with it; the link is to be closed without an answer.
    pub fn on_proof(self, bytes: &[u8]) -> Result<Decision, HandshakeError> {
        if bytes.len() != PROOF_BYTES {
            let (message, expected) = ("proof", PROOF_BYTES);
            return Err(HandshakeError::Length {
                message,
                bytes: bytes.len(),
                expected,
            });
        }
        let sealed = HandshakeError::Sealed { message: "proof" };
        let proof = PlainProof::read(&self.schedule.open_proof(&self.t2, bytes).ok_or(sealed)?)?;
        let dialler = NodeId::from_bytes(proof.dialler)?;
        if dialler == self.responder {
            return Err(HandshakeError::OwnId);
        }
        let covered = covered(&self.t2, &self.responder, &dialler);
        dialler.verify(Purpose::Initiator, &covered, &proof.signature)?;
        let Local {
            name,
            addresses,
            epoch,
        } = proof.local;
        Ok(Decision {
            responder: self.responder,
            peer: Introduction {
                id: dialler,
                name,
                addresses,
                epoch,
            },
            dial_counter: proof.dial_counter,
            alive: proof.alive,
            pairing: proof.pairing,
            t3: schedule::t3(&self.t2, bytes),
            t2: self.t2,
            schedule: self.schedule,
        })
    }
}

/// Somebody has proven who it is and waits to be told.
pub struct Decision {
    responder: NodeId,
    peer: Introduction,
    dial_counter: u64,
    alive: Option<SessionId>,
    pairing: PlainPairing,
    t2: Transcript,
    t3: Transcript,
    schedule: Schedule,
}

impl Decision {
    /// Makes the session, and returns Verdict. The session holds once Verdict is sent; the
    /// dialler may still never see it.
    ///
    /// # Errors
    /// [`HandshakeError::Text`] or [`HandshakeError::Grants`] if what this node says breaks a
    /// limit; no session, and nothing can be sent any more.
    pub fn accept(
        self,
        local: Local,
        granted: &Grants,
    ) -> Result<(Vec<u8>, Established), HandshakeError> {
        let plaintext = write_accepted(&local, granted)?;
        let verdict = self.schedule.seal_verdict(&self.t3, plaintext);
        let established = self
            .schedule
            .establish(&self.t3, &verdict, self.responder, self.peer.id);
        Ok((verdict, established))
    }

    /// Returns a Verdict that refuses; the reason is cut to its limit.
    #[must_use]
    pub fn refuse(self, refusal: VerdictRefusal) -> Vec<u8> {
        self.schedule
            .seal_verdict(&self.t3, write_refused(&refusal))
    }

    /// Who dials, proven, and what it says about itself.
    #[must_use]
    pub const fn peer(&self) -> &Introduction {
        &self.peer
    }

    /// How the session will be called if it is accepted.
    #[must_use]
    pub fn session(&self) -> SessionId {
        schedule::session_id(&self.t3)
    }

    /// Rises with every dial of the dialler's boot.
    #[must_use]
    pub const fn dial_counter(&self) -> u64 {
        self.dial_counter
    }

    /// The session with this node that the dialler regards as alive. Every other one is stale.
    #[must_use]
    pub const fn alive(&self) -> Option<SessionId> {
        self.alive
    }

    /// The ticket that the dialler names; [`Decision::ticket_matches`] says whether it holds it.
    #[must_use]
    pub fn ticket_id(&self) -> Option<[u8; 16]> {
        match &self.pairing {
            PlainPairing::Ticket(ticket) => Some(ticket.id),
            PlainPairing::None | PlainPairing::Request(_) => None,
        }
    }

    /// What the dialler says to be paired without a ticket, checked for length and characters;
    /// it may be empty. `None` when it does not ask.
    #[must_use]
    pub fn request(&self) -> Option<&str> {
        match &self.pairing {
            PlainPairing::Request(text) => Some(text),
            PlainPairing::None | PlainPairing::Ticket(_) => None,
        }
    }

    /// Whether the dialler holds the ticket with this key; compared in constant time.
    /// Without a ticket the answer is no.
    #[must_use]
    pub fn ticket_matches(&self, key: &TicketKey) -> bool {
        let PlainPairing::Ticket(ticket) = &self.pairing else {
            return false;
        };
        let covered = covered(&self.t2, &self.responder, &self.peer.id);
        key.0.mac_matches(PAIRING, &covered, &ticket.mac)
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("peer", &self.peer)
            .field("dial_counter", &self.dial_counter)
            .field("alive", &self.alive)
            .finish_non_exhaustive()
    }
}
