//! Our two ends with fixed keys and randomness, as far as a test wants them to come.

use crate::by_hand::Place;
use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::error_class::ErrorClass;
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::{
    Answer, AwaitProof, AwaitVerdict, Decision, DialIntent, Established, HelloRejected, Initiator,
    LinkKind, Local, Responder, VerdictRefusal,
};
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::ticket::Ticket;

pub(crate) const BINDING: [u8; 32] = [9; 32];
pub(crate) const PLACE: Place = Place {
    kind: 1,
    binding: BINDING,
};
pub(crate) const DIALLER_SEED: [u8; 32] = [1; 32];
pub(crate) const RESPONDER_SEED: [u8; 32] = [2; 32];
pub(crate) const DIALLER_RANDOM: [u8; 128] = [3; 128];
pub(crate) const RESPONDER_RANDOM: [u8; 128] = [4; 128];

pub(crate) fn dialler() -> IdentityKey {
    IdentityKey::from_seed(&DIALLER_SEED)
}

pub(crate) fn responder() -> IdentityKey {
    IdentityKey::from_seed(&RESPONDER_SEED)
}

pub(crate) fn local(name: &str) -> Local {
    Local {
        name: name.to_owned(),
        addresses: vec![format!("{name}.example:7433"), String::from("[::1]:7433")],
        epoch: Epoch { boot: 7, nonce: 8 },
    }
}

pub(crate) fn intent() -> DialIntent {
    DialIntent {
        dial_counter: 5,
        alive: None,
        pairing: None,
    }
}

pub(crate) fn granted() -> Grants {
    let texts = ["message.send:*", "message.send:!secret/*"];
    Grants::new(texts.map(|text| text.parse().expect("a grant"))).expect("two are few")
}

pub(crate) fn ticket(secret: u8) -> Ticket {
    Ticket::new(responder().id(), [6; 16], [secret; 32], vec![]).expect("it fits")
}

pub(crate) fn start_with(intent: DialIntent) -> (Initiator, Vec<u8>) {
    let (id, random) = (responder().id(), DIALLER_RANDOM);
    Initiator::start(
        &dialler(),
        id,
        LinkKind::Quic,
        BINDING,
        local("mule"),
        intent,
        random,
    )
    .expect("nothing is wrong with it")
}

pub(crate) fn start() -> (Initiator, Vec<u8>) {
    start_with(intent())
}

pub(crate) fn respond(hello: &[u8]) -> Result<(AwaitProof, Vec<u8>), HelloRejected> {
    Responder::new(&responder(), LinkKind::Quic, BINDING).on_hello(hello, RESPONDER_RANDOM)
}

/// Our two ends up to the decision.
pub(crate) fn decided_with(intent: DialIntent) -> (AwaitVerdict, Decision) {
    let (initiator, hello) = start_with(intent);
    let (await_proof, reply) = respond(&hello).expect("a good hello");
    let (await_verdict, proof) = initiator.on_reply(&reply).expect("a good reply");
    (
        await_verdict,
        await_proof.on_proof(&proof).expect("a good proof"),
    )
}

pub(crate) fn decided() -> (AwaitVerdict, Decision) {
    decided_with(intent())
}

pub(crate) fn accepted(answer: Answer) -> Established {
    match answer {
        Answer::Accepted { established, .. } => established,
        Answer::Refused(refusal) => panic!("{refusal}"),
    }
}

/// A first frame, to compare session secrets by what they do.
pub(crate) fn first_frame(established: Established) -> Vec<u8> {
    use packhorse_protocol::generation::SessionSecrets;
    use packhorse_protocol::stream::{Side, StreamHeader, StreamKind};
    let header = StreamHeader {
        kind: StreamKind::Control,
        generation: 0,
        number: 0,
    };
    let secrets = SessionSecrets::new(established.secret);
    let (mut sealer, _) = secrets
        .stream(&header, Side::Dialler, Side::Dialler)
        .expect("generation 0");
    let mut frame = Vec::new();
    sealer.seal(b"hello", false, &mut frame).expect("short");
    frame
}

pub(crate) fn refusal(reason: &str) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Busy,
        code: 17,
        reason: reason.to_owned(),
        retry_after_ms: 2_000,
    }
}
