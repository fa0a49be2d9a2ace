//! The dialling side of the handshake over a real link, in two halves.
//!
//! Greeting shows that the responder itself answers and tells nothing about this node, so it may go
//! on at several addresses at once. Proving says who dials; of one dial one link at a time comes
//! that far.

use packhorse_protocol::{
    generation::SessionSecrets,
    handshake::{
        Answer, AwaitVerdict, DialIntent, Initiator, LinkKind, VERDICT_BYTES, answer_bytes,
    },
    node_id::NodeId,
    stream::Side,
};

use super::{
    Wiring,
    handshake::{Accepted, HANDSHAKE_WITHIN, HandshakeFailure, STRANGER_CLOSED},
};
use crate::link::{Link, LinkError, LinkHandle, ReceiveHalf, SendHalf};

/// A link whose other end has shown that it is the responder; it does not know yet who dials.
#[derive(Debug)]
pub(super) struct Greeted {
    link: Link,
    send: SendHalf,
    receive: ReceiveHalf,
    awaiting: AwaitVerdict,
    proof: Vec<u8>,
    dial_counter: u64,
    said: Vec<String>,
}

impl Greeted {
    /// The way to close it.
    pub(super) fn link(&self) -> LinkHandle {
        self.link.handle()
    }
}

/// Dials' side, until the other end has shown that it is `responder`. It may be done at several
/// addresses at once: this node says nothing about itself.
pub(super) async fn greet(
    wiring: &Wiring,
    mut link: Link,
    responder: NodeId,
    intent: DialIntent,
) -> Result<Greeted, HandshakeFailure> {
    let dial_counter = intent.dial_counter;
    let exchange = async {
        let (mut send, mut receive) = link.open().await?;
        let random = wiring.env.random_bytes();
        let me = &wiring.me;
        let binding = link.info().binding;
        let local = me.local();
        let said = local.addresses.clone();
        let (initiator, hello) = Initiator::start(
            &me.identity,
            responder,
            LinkKind::Quic,
            binding,
            local,
            intent,
            random,
        )?;
        send.send(hello.into()).await?;
        let reply = match read_reply(&mut receive).await {
            Ok(reply) => reply,
            // Who does not answer to the id in the knock closes without a word.
            Err(HandshakeFailure::Link(LinkError::Closed(code)))
                if code == u64::from(STRANGER_CLOSED) =>
            {
                return Err(HandshakeFailure::NotThem(responder));
            }
            Err(failure) => return Err(failure),
        };
        let (awaiting, proof) = initiator.on_reply(&reply)?;
        Ok(Greeted {
            link,
            send,
            receive,
            awaiting,
            proof,
            dial_counter,
            said,
        })
    };
    tokio::time::timeout(HANDSHAKE_WITHIN, exchange)
        .await
        .unwrap_or(Err(HandshakeFailure::TimedOut(HANDSHAKE_WITHIN)))
}

/// Dials' side: proves who this node is to a responder that has shown who it is, and hears its
/// verdict.
pub(super) async fn prove(greeted: Greeted) -> Result<Accepted, HandshakeFailure> {
    let Greeted {
        link,
        mut send,
        mut receive,
        awaiting,
        proof,
        dial_counter,
        said,
    } = greeted;
    let exchange = async {
        send.send(proof.into()).await?;
        let verdict = receive.read_exact(VERDICT_BYTES).await?;
        // The responder has left the stream already; the verdict is all that mattered.
        let _ = send.finish();
        Ok::<_, HandshakeFailure>(awaiting.on_verdict(&verdict)?)
    };
    let answer = tokio::time::timeout(HANDSHAKE_WITHIN, exchange)
        .await
        .map_err(|_| HandshakeFailure::TimedOut(HANDSHAKE_WITHIN))??;
    match answer {
        Answer::Accepted {
            peer,
            granted,
            established,
        } => Ok(Accepted {
            link,
            side: Side::Dialler,
            session: established.session,
            compare: established.compare,
            secrets: SessionSecrets::new(established.secret),
            peer,
            granted,
            dial_counter,
            said,
            hint: None,
        }),
        Answer::Refused(refusal) => {
            link.close(STRANGER_CLOSED);
            Err(HandshakeFailure::Refused(refusal))
        }
    }
}

/// The answer to Hello says by its first byte how long it is.
async fn read_reply(receive: &mut ReceiveHalf) -> Result<Vec<u8>, HandshakeFailure> {
    let kind = receive.read_exact(1).await?;
    let Some(bytes) = kind.first().copied().and_then(answer_bytes) else {
        return Err(HandshakeFailure::NotPackhorse);
    };
    let rest = receive.read_exact(bytes - kind.len()).await?;
    Ok([&kind[..], &rest[..]].concat())
}
