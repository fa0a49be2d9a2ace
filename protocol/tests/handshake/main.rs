//! The handshake against everything an attacker in the middle, a stranger or a bad peer can do.
//!
//! Goal: two honest ends agree on a session, or there is none.
//! Method: our two ends against each other, with bytes changed in between (`tampering`); and each
//! of our ends against `by_hand`, which speaks the protocol from SPEC.md alone (`lies`).

mod by_hand;
mod ends;
mod lies;
mod tampering;

use crate::by_hand::Dialler;
use crate::ends::{
    BINDING, DIALLER_RANDOM, PLACE, accepted, decided, decided_with, dialler, first_frame, granted,
    intent, local, refusal, respond, responder, start, start_with, ticket,
};
use packhorse_protocol::error_class::ErrorClass;
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::{
    Answer, DialIntent, HELLO_BYTES, HandshakeError, HelloRejected, Initiator, LinkKind, Local,
    NO_COMMON_VERSION_BYTES, PROOF_BYTES, Pairing, REPLY_BYTES, Responder, SessionId,
    VERDICT_BYTES, VerdictRefusal, answer_bytes,
};
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::node_id::NodeId;

#[test]
fn two_honest_ends_agree_on_everything() {
    let alive = Some(SessionId([0xab; 16]));
    let (await_verdict, decision) = decided_with(DialIntent { alive, ..intent() });
    let Local {
        name,
        addresses,
        epoch,
    } = local("mule");
    assert_eq!(decision.peer().id, dialler().id());
    assert_eq!(decision.peer().name, name);
    assert_eq!(decision.peer().addresses, addresses);
    assert_eq!(decision.peer().epoch, epoch);
    assert_eq!(decision.dial_counter(), 5);
    assert_eq!(decision.alive(), alive);
    assert_eq!(decision.ticket_id(), None);
    assert_eq!(decision.session(), await_verdict.session());

    let (verdict, theirs) = decision.accept(local("barn"), &granted()).expect("it fits");
    let answer = await_verdict.on_verdict(&verdict).expect("a good verdict");
    let Answer::Accepted {
        peer,
        granted: told,
        established: ours,
    } = answer
    else {
        panic!("refused");
    };
    assert_eq!(peer.id, responder().id());
    assert_eq!(peer.name, "barn");
    assert_eq!(peer.addresses, local("barn").addresses);
    assert_eq!(told, granted());
    assert_eq!(ours.session, theirs.session);
    assert_eq!(ours.compare, theirs.compare);
    assert_eq!(first_frame(ours), first_frame(theirs));
}

#[test]
fn messages_have_their_fixed_lengths_whatever_they_say() {
    let pairing = Pairing::Ticket {
        ticket_id: [6; 16],
        key: ticket(7).key(),
    };
    for intent in [
        intent(),
        asking("hay"),
        asking(&"r".repeat(256)),
        DialIntent {
            pairing: Some(pairing),
            ..intent()
        },
    ] {
        let (initiator, hello) = start_with(intent);
        assert_eq!(hello.len(), HELLO_BYTES);
        let (await_proof, reply) = respond(&hello).expect("a good hello");
        assert_eq!(reply.len(), REPLY_BYTES);
        assert_eq!(answer_bytes(reply[0]), Some(REPLY_BYTES));
        let (_, proof) = initiator.on_reply(&reply).expect("a good reply");
        assert_eq!(proof.len(), PROOF_BYTES);
        let decision = await_proof.on_proof(&proof).expect("a good proof");
        let (verdict, _) = decision.accept(local("barn"), &granted()).expect("it fits");
        assert_eq!(verdict.len(), VERDICT_BYTES);
    }
    assert_eq!(decided().1.refuse(refusal("no")).len(), VERDICT_BYTES);
    assert_eq!(answer_bytes(2), Some(NO_COMMON_VERSION_BYTES));
    assert_eq!(answer_bytes(0), None);
}

#[test]
fn every_handshake_has_its_own_secrets() {
    let (await_verdict, decision) = decided();
    let (verdict, one) = decision.accept(local("barn"), &granted()).expect("it fits");
    let (_, decision) = decided();
    // Only the verdict differs, and the session secret already does.
    let (_, two) = decision
        .accept(local("barn"), &Grants::none())
        .expect("it fits");
    assert_eq!(one.session, two.session);
    assert_ne!(one.compare, two.compare);
    let same = accepted(await_verdict.on_verdict(&verdict).expect("a good verdict"));
    assert_eq!(same.compare, one.compare);
    assert_ne!(first_frame(one), first_frame(two));
}

#[test]
fn a_responder_with_another_id_stays_silent() {
    let (_, hello) = start();
    let other = IdentityKey::from_seed(&[3; 32]);
    let rejected = Responder::new(&other, LinkKind::Quic, BINDING).on_hello(&hello, [4; 128]);
    assert_eq!(rejected.expect_err("not its knock"), HelloRejected::Silent);
}

#[test]
fn a_ticket_is_proven_by_its_key_alone() {
    let shown = |secret| {
        let pairing = Pairing::Ticket {
            ticket_id: ticket(secret).id(),
            key: ticket(secret).key(),
        };
        decided_with(DialIntent {
            pairing: Some(pairing),
            ..intent()
        })
        .1
    };
    let right = shown(7);
    assert_eq!(right.ticket_id(), Some([6; 16]));
    assert!(right.ticket_matches(&ticket(7).key()));
    assert!(!right.ticket_matches(&ticket(8).key()));
    assert!(!shown(8).ticket_matches(&ticket(7).key()));

    let (_, without) = decided();
    assert_eq!(without.ticket_id(), None);
    assert!(!without.ticket_matches(&ticket(7).key()));
}

fn asking(text: &str) -> DialIntent {
    let text = text.to_owned();
    DialIntent {
        pairing: Some(Pairing::Request { text }),
        ..intent()
    }
}

#[test]
fn a_request_reaches_who_decides_and_is_answered_by_a_refusal_that_says_so() {
    let (await_verdict, decision) = decided_with(asking("hay for two mules"));
    assert_eq!(decision.request(), Some("hay for two mules"));
    assert_eq!(decision.ticket_id(), None);
    assert!(!decision.ticket_matches(&ticket(7).key()));
    let waits = VerdictRefusal {
        class: ErrorClass::Authentication,
        code: VerdictRefusal::ASKED,
        reason: String::from("asked"),
        retry_after_ms: 30_000,
    };
    let verdict = decision.refuse(waits.clone());
    let Ok(Answer::Refused(told)) = await_verdict.on_verdict(&verdict) else {
        panic!("not a refusal");
    };
    assert_eq!(told, waits);
    assert!(told.is_asked());
    let no = VerdictRefusal {
        code: VerdictRefusal::NOT_ALLOWED,
        ..waits.clone()
    };
    let other = VerdictRefusal {
        class: ErrorClass::Busy,
        ..waits
    };
    assert!(!no.is_asked() && !other.is_asked());
    assert_eq!(decided().1.request(), None);
}

#[test]
fn a_request_that_nobody_may_send_is_not_sent() {
    for text in ["a\nb", "a\u{202e}b", &"r".repeat(257)] {
        let (id, random) = (responder().id(), DIALLER_RANDOM);
        let (place, name) = (LinkKind::Quic, local("mule"));
        let started = Initiator::start(&dialler(), id, place, BINDING, name, asking(text), random);
        assert!(matches!(started.expect_err(text), HandshakeError::Text(_)));
    }
}

#[test]
fn versions_are_answered_in_clear_only_behind_a_valid_knock() {
    let id = *responder().id().as_bytes();
    let hello = |versions| Dialler::new(PLACE, id, versions).hello;
    for versions in [(2, 9), (0, 0), (u16::MAX, u16::MAX)] {
        let rejected = respond(&hello(versions)).expect_err("no common version");
        let answer = HelloRejected::NoCommonVersion(vec![2, 0, 1, 0, 1]);
        assert_eq!(rejected, answer, "{versions:?}");
    }
    for versions in [(1, 1), (0, 1), (1, 9), (0, u16::MAX)] {
        let (_, reply) = respond(&hello(versions)).expect("version 1 is common");
        assert_eq!(reply[1..3], [0, 1], "{versions:?}");
    }
    let rejected = respond(&hello((2, 1))).expect_err("a range upside down");
    assert_eq!(rejected, HelloRejected::Silent);
    let mut strange = hello((2, 9));
    strange[HELLO_BYTES - 1] ^= 1;
    assert_eq!(
        respond(&strange).expect_err("a wrong knock"),
        HelloRejected::Silent
    );
}

#[test]
fn a_version_answer_ends_the_attempt_and_says_why() {
    let error = start()
        .0
        .on_reply(&[2, 0, 3, 0, 4])
        .expect_err("a version answer");
    assert_eq!(
        error,
        HandshakeError::NoCommonVersion {
            lowest: 3,
            highest: 4
        }
    );
    assert_eq!(error.class(), ErrorClass::Protocol);
    assert!(start().0.on_reply(&[2, 0, 3, 0]).is_err());
    assert!(start().0.on_reply(&[3]).is_err());
}

#[test]
fn what_this_node_says_about_itself_keeps_the_same_limits() {
    let (id, random) = (responder().id(), DIALLER_RANDOM);
    for name in ["", "a\nb", &"n".repeat(65)] {
        let started = Initiator::start(
            &dialler(),
            id,
            LinkKind::Quic,
            BINDING,
            local(name),
            intent(),
            random,
        );
        assert!(matches!(started.expect_err(name), HandshakeError::Text(_)));
        let accepted = decided().1.accept(
            Local {
                name: name.to_owned(),
                ..local("barn")
            },
            &granted(),
        );
        assert!(matches!(accepted.expect_err(name), HandshakeError::Text(_)));
    }
}

#[test]
fn a_refusal_carries_class_code_reason_and_delay() {
    for (said, heard) in [
        ("crossing dial", "crossing dial"),
        ("", ""),
        ("two\nlines", "two\u{fffd}lines"),
        (&"r".repeat(300), &"r".repeat(256)),
    ] {
        let (await_verdict, decision) = decided();
        let verdict = decision.refuse(refusal(said));
        let Ok(Answer::Refused(told)) = await_verdict.on_verdict(&verdict) else {
            panic!("not a refusal");
        };
        assert_eq!(told, refusal(heard));
    }
    assert_eq!(
        refusal("crossing dial").to_string(),
        "refused (busy, code 17): crossing dial"
    );
}

/// The golden hashes change only with a new protocol version.
#[test]
fn messages_keep_their_bytes() {
    let pairing = Some(Pairing::Ticket {
        ticket_id: [6; 16],
        key: ticket(7).key(),
    });
    let alive = Some(SessionId([0xab; 16]));
    let (initiator, hello) = start_with(DialIntent {
        dial_counter: 5,
        alive,
        pairing,
    });
    let (await_proof, reply) = respond(&hello).expect("a good hello");
    let (await_verdict, proof) = initiator.on_reply(&reply).expect("a good reply");
    let decision = await_proof.on_proof(&proof).expect("a good proof");
    let (verdict, theirs) = decision.accept(local("barn"), &granted()).expect("it fits");
    let ours = accepted(await_verdict.on_verdict(&verdict).expect("a good verdict"));
    let refused = decided().1.refuse(refusal("crossing dial"));
    let (initiator, hello) = start_with(asking("hay for two mules"));
    let (_, reply) = respond(&hello).expect("a good hello");
    let (_, request) = initiator.on_reply(&reply).expect("a good reply");
    let text = format!(
        "dialler {}\nresponder {}\nticket {}\nhello {}\nreply {}\nproof {}\nverdict {}\n\
         refused {}\nrequest {}\nsession {}\ncompare {}\nframe {}\n",
        dialler().id(),
        responder().id(),
        ticket(7),
        blake3::hash(&hello),
        blake3::hash(&reply),
        blake3::hash(&proof),
        blake3::hash(&verdict),
        blake3::hash(&refused),
        blake3::hash(&request),
        ours.session,
        ours.compare,
        blake3::hash(&first_frame(theirs)),
    );
    assert_eq!(
        text,
        include_str!("../golden/handshake.txt"),
        "now:\n{text}"
    );
}

#[test]
fn ids_are_only_ever_the_verified_ones() {
    // A name that looks like another node's id is only a name.
    let id: NodeId = dialler().id();
    let (_, decision) = decided();
    assert_eq!(decision.peer().id, id);
    assert_ne!(decision.peer().name, id.to_string());
}
