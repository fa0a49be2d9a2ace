//! The dialler's side of the handshake.
//!
//! It accepts exactly the node it dialled and nobody else.
//! It never decides whether to dial; and a link error is not its business: dropping it ends it.
//!
//! Order: [`Initiator::start`], [`Initiator::on_reply`], [`AwaitVerdict::on_verdict`].

use std::fmt;

use curve25519_dalek::MontgomeryPoint;
use ml_kem::array::Array;
use ml_kem::{Decapsulate, DecapsulationKey, MlKem768};
use zeroize::{Zeroize, Zeroizing};

use super::proof::{PlainPairing, PlainProof, TicketProof, covered};
use super::reply::{PlainReply, ReplyParts};
use super::schedule::{self, PAIRING, Place, Schedule, Transcript};
use super::verdict::{PlainVerdict, VERDICT_BYTES};
use super::{
    DialIntent, Established, HandshakeError, Introduction, LinkKind, Local, Pairing, SessionId,
    VerdictRefusal, hello,
};
use crate::grant::Grants;
use crate::identity::IdentityKey;
use crate::node_id::NodeId;
use crate::purpose::Purpose;

/// A dialler that has said Hello.
pub struct Initiator {
    identity: IdentityKey,
    responder: NodeId,
    place: Place,
    local: Local,
    intent: DialIntent,
    hello: Vec<u8>,
    kem_key: DecapsulationKey<MlKem768>,
    x25519_secret: Zeroizing<[u8; 32]>,
}

impl Initiator {
    /// Begins, and returns Hello.
    ///
    /// `random` is 128 fresh random bytes, used nowhere else: 0..32 the nonce, 32..96 the seed
    /// of the ML-KEM key (d ‖ z of FIPS 203), 96..128 the X25519 secret.
    ///
    /// # Errors
    /// [`HandshakeError::OwnId`] if a node dials itself, [`HandshakeError::Text`] if what it says
    /// about itself or asks for breaks a limit.
    pub fn start(
        identity: &IdentityKey,
        responder: NodeId,
        kind: LinkKind,
        binding: [u8; 32],
        local: Local,
        intent: DialIntent,
        mut random: [u8; 128],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if responder == identity.id() {
            return Err(HandshakeError::OwnId);
        }
        local.check()?;
        intent.pairing.as_ref().map_or(Ok(()), Pairing::check)?;
        let place = Place { kind, binding };
        let mut nonce = [0; 32];
        let mut seed = [0; 64];
        let mut x25519_secret = Zeroizing::new([0; 32]);
        nonce.copy_from_slice(&random[..32]);
        seed.copy_from_slice(&random[32..96]);
        x25519_secret.copy_from_slice(&random[96..]);
        random.zeroize();
        let kem_key = DecapsulationKey::<MlKem768>::from_seed(Array(seed));
        seed.zeroize();
        let x25519_public = MontgomeryPoint::mul_base_clamped(*x25519_secret).to_bytes();
        let hello = hello::write(responder, &place, &nonce, &kem_key, &x25519_public);
        let identity = identity.clone();
        let bytes = hello.clone();
        let initiator = Self {
            identity,
            responder,
            place,
            local,
            intent,
            hello,
            kem_key,
            x25519_secret,
        };
        Ok((initiator, bytes))
    }

    /// Takes the answer to Hello, of [`super::answer_bytes`] bytes, and returns Proof.
    ///
    /// # Errors
    /// Whatever is wrong with the answer; the link is to be closed.
    pub fn on_reply(self, bytes: &[u8]) -> Result<(AwaitVerdict, Vec<u8>), HandshakeError> {
        let reply = ReplyParts::read(bytes)?;
        let t1 = schedule::t1(&self.place, &self.hello, reply.clear);
        let schedule = self.agree(&t1, &reply)?;
        let sealed = HandshakeError::Sealed { message: "reply" };
        let plain = PlainReply::read(&schedule.open_reply(&t1, reply.sealed).ok_or(sealed)?)?;

        let actual = NodeId::from_bytes(plain.responder)?;
        actual.verify(
            Purpose::Responder,
            &[&t1, actual.as_bytes()],
            &plain.signature,
        )?;
        if actual != self.responder {
            return Err(HandshakeError::WrongResponder {
                expected: self.responder,
                actual,
            });
        }

        let t2 = schedule::t2(&t1, reply.sealed);
        let dialler = self.identity.id();
        let covered = covered(&t2, &self.responder, &dialler);
        let pairing = match self.intent.pairing {
            None => PlainPairing::None,
            Some(Pairing::Ticket { ticket_id, key }) => PlainPairing::Ticket(TicketProof {
                id: ticket_id,
                mac: key.0.mac(PAIRING, &covered),
            }),
            Some(Pairing::Request { text }) => PlainPairing::Request(text),
        };
        let proof = PlainProof {
            dialler: *dialler.as_bytes(),
            local: self.local,
            dial_counter: self.intent.dial_counter,
            alive: self.intent.alive,
            signature: self.identity.sign(Purpose::Initiator, &covered),
            pairing,
        };
        let proof = schedule.seal_proof(&t2, proof.write());
        let t3 = schedule::t3(&t2, &proof);
        Ok((
            AwaitVerdict {
                responder: self.responder,
                dialler,
                schedule,
                t3,
            },
            proof,
        ))
    }

    fn agree(&self, t1: &Transcript, reply: &ReplyParts<'_>) -> Result<Schedule, HandshakeError> {
        let x25519 = Zeroizing::new(
            MontgomeryPoint(reply.x25519_public)
                .mul_clamped(*self.x25519_secret)
                .to_bytes(),
        );
        if *x25519 == [0; 32] {
            return Err(HandshakeError::WeakExchange);
        }
        let malformed = HandshakeError::Malformed {
            message: "reply",
            field: "kem ciphertext",
        };
        let ciphertext = Array::try_from(reply.kem_ciphertext).map_err(|_| malformed)?;
        // A ciphertext that is not for this key gives another secret, and then no box opens.
        let mut kem = self.kem_key.decapsulate(&ciphertext);
        let schedule = Schedule::new(t1, &kem.0, &x25519);
        kem.0.zeroize();
        Ok(schedule)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("responder", &self.responder)
            .finish_non_exhaustive()
    }
}

/// A dialler that has proven itself and waits to be told.
#[derive(Debug)]
pub struct AwaitVerdict {
    responder: NodeId,
    dialler: NodeId,
    schedule: Schedule,
    t3: Transcript,
}

impl AwaitVerdict {
    /// How the session will be called if it is accepted.
    #[must_use]
    pub fn session(&self) -> SessionId {
        schedule::session_id(&self.t3)
    }

    /// Takes Verdict, [`VERDICT_BYTES`] bytes.
    ///
    /// # Errors
    /// Whatever is wrong with it; the link is to be closed, and there is no session.
    pub fn on_verdict(self, bytes: &[u8]) -> Result<Answer, HandshakeError> {
        if bytes.len() != VERDICT_BYTES {
            let (message, expected) = ("verdict", VERDICT_BYTES);
            return Err(HandshakeError::Length {
                message,
                bytes: bytes.len(),
                expected,
            });
        }
        let sealed = HandshakeError::Sealed { message: "verdict" };
        let plain = self.schedule.open_verdict(&self.t3, bytes).ok_or(sealed)?;
        Ok(match PlainVerdict::read(&plain)? {
            PlainVerdict::Accepted {
                local:
                    Local {
                        name,
                        addresses,
                        epoch,
                    },
                granted,
            } => {
                let peer = Introduction {
                    id: self.responder,
                    name,
                    addresses,
                    epoch,
                };
                let established =
                    self.schedule
                        .establish(&self.t3, bytes, self.responder, self.dialler);
                Answer::Accepted {
                    peer,
                    granted,
                    established,
                }
            }
            PlainVerdict::Refused(refusal) => Answer::Refused(refusal),
        })
    }
}

/// What the responder decided.
#[derive(Debug)]
pub enum Answer {
    /// There is a session.
    Accepted {
        /// Who it is with.
        peer: Introduction,
        /// What the peer says this node may do there.
        granted: Grants,
        /// Its secret.
        established: Established,
    },
    /// There is none.
    Refused(VerdictRefusal),
}
