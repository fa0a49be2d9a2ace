//! A peer played by hand: an honest handshake over a real link, and then whatever a test says.
//!
//! It knows streams, seals and frames, and no rule: rules are what it is here to break.
//! Read [`Hand::dial`], then [`Hand::play`].

use std::{collections::BTreeMap, net::SocketAddr};

use packhorse_actors::link::{Link, LinkError, LinkHandle, LinkStreams, QuicDialler, QuicListener};
use packhorse_actors::link::{ReceiveHalf, SendHalf};
use packhorse_protocol::{
    codec::{self, kind},
    epoch::{Epoch, Lane, Mark, Refusal, Span},
    error_class::ErrorClass,
    frame::FRAME_HEAD_BYTES,
    generation::SessionSecrets,
    grant::Grants,
    handshake::{
        Answer, DialIntent, HELLO_BYTES, Initiator, LinkKind, Local, PROOF_BYTES, REPLY_BYTES,
        Responder, VERDICT_BYTES,
    },
    identity::IdentityKey,
    message::{ControlFrame, ReceiverFrame, SenderFrame},
    node_id::NodeId,
    seal::{Opener, Sealer},
    stream::{STREAM_HEADER_BYTES, Side, StreamHeader, StreamKind},
};

use crate::live_common::DEADLINE;

/// A stream of the session, by what it is for and by who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum On {
    Control,
    User,
    System,
    Ephemeral,
    TheirUser,
    TheirSystem,
}

impl On {
    /// How this side's own streams begin.
    fn header(self) -> StreamHeader {
        let (kind, number) = match self {
            On::Control => (StreamKind::Control, 1),
            On::User => (StreamKind::UserLane, 2),
            On::System => (StreamKind::SystemLane, 3),
            On::Ephemeral => (StreamKind::Ephemeral, 16),
            On::TheirUser | On::TheirSystem => panic!("the other side opens {self:?}"),
        };
        StreamHeader {
            kind,
            generation: 0,
            number,
        }
    }
}

/// One thing that is done to the other side.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// A frame with this plaintext, sealed in its turn.
    /// Behind a Start it waits for Marks, as every sender has to.
    Say(On, Vec<u8>),
    /// These bytes, as they are.
    Raw(On, Vec<u8>),
    /// One sealed frame, twice.
    Twice(On, Vec<u8>),
    /// Two sealed frames, the second one first.
    Swapped(On, Vec<u8>, Vec<u8>),
    /// A frame sealed for one stream, sent on another.
    Strayed { of: On, on: On, plain: Vec<u8> },
    /// A sealed frame with its last bit changed.
    Flipped(On, Vec<u8>),
    /// All of a sealed frame but its last byte, and the end of the stream.
    Cut(On, Vec<u8>),
    /// The stream's last frame, and another one.
    AfterLast(On, Vec<u8>),
    /// Another stream, of which only the header is sent.
    Header([u8; STREAM_HEADER_BYTES]),
    /// An answer on the user lane that the other side sends on, made from its Start.
    Answer(fn(&[Span]) -> ReceiverFrame),
    /// This side's stream gets another number than its usual one. Before anything is said on it.
    Number(On, u32),
    /// Waits until so much of this epoch was acknowledged on a lane.
    Settle(On, Epoch, u64),
    /// Waits for the first batch that the other side sends.
    Hear,
}

/// Both halves of a stream with their keys.
struct Stream {
    send: SendHalf,
    receive: ReceiveHalf,
    sealer: Sealer,
    opener: Opener,
}

/// A session, and this end of it.
pub(crate) struct Hand {
    link: LinkHandle,
    streams: LinkStreams,
    secrets: SessionSecrets,
    side: Side,
    open: BTreeMap<On, Stream>,
    /// Kept, because dropping a stream would end it.
    headers: Vec<(SendHalf, ReceiveHalf)>,
    /// What the other side's Start said, by the lane's index.
    pub(crate) spans: [Vec<Span>; 2],
}

impl Hand {
    /// An honest dial as the node of `seed`, up to the other side's Start on both lanes.
    pub(crate) async fn dial(
        dialler: &QuicDialler,
        at: SocketAddr,
        whom: NodeId,
        seed: u8,
        epoch: Epoch,
    ) -> Hand {
        let link = dialler.dial(at).await.unwrap();
        let within = tokio::time::timeout(DEADLINE, Self::greet(link, whom, seed, epoch));
        within.await.expect("a session within the deadline")
    }

    async fn greet(link: Link, whom: NodeId, seed: u8, epoch: Epoch) -> Hand {
        let (link, answer) = Self::shake(link, whom, seed, local(seed, epoch)).await;
        let established = match answer {
            Answer::Accepted { established, .. } => established,
            Answer::Refused(refusal) => panic!("an honest handshake was refused: {refusal:?}"),
        };
        let secrets = SessionSecrets::new(established.secret);
        let mut hand = Hand::begin(link, secrets, Side::Dialler);
        hand.accept().await;
        hand.accept().await;
        hand.hear_starts().await;
        hand
    }

    /// A handshake as the node of `seed` that says this about itself, up to the verdict.
    pub(crate) async fn shake(
        mut link: Link,
        whom: NodeId,
        seed: u8,
        local: Local,
    ) -> (Link, Answer) {
        let (mut send, mut receive) = link.open().await.unwrap();
        let intent = DialIntent {
            dial_counter: 1,
            alive: None,
            pairing: None,
        };
        let identity = IdentityKey::from_seed(&[seed; 32]);
        let binding = link.info().binding;
        let random = [0x5a; 128];
        let (initiator, hello) = Initiator::start(
            &identity,
            whom,
            LinkKind::Quic,
            binding,
            local,
            intent,
            random,
        )
        .unwrap();
        send.send(hello.into()).await.unwrap();
        let reply = receive.read_exact(REPLY_BYTES).await.unwrap();
        let (awaiting, proof) = initiator.on_reply(&reply).unwrap();
        send.send(proof.into()).await.unwrap();
        let verdict = receive.read_exact(VERDICT_BYTES).await.unwrap();
        // The other side has left this stream with its verdict.
        let _ = send.finish();
        (link, awaiting.on_verdict(&verdict).unwrap())
    }

    /// An honest answer as the node of `seed` to whoever dials, up to its Start on both lanes.
    pub(crate) async fn answer(listener: &mut QuicListener, seed: u8, epoch: Epoch) -> Hand {
        let answered = async {
            let mut link = listener.accept().await.expect("a listener").unwrap();
            let (mut send, mut receive) = link.accept().await.unwrap();
            let hello = receive.read_exact(HELLO_BYTES).await.unwrap();
            let identity = IdentityKey::from_seed(&[seed; 32]);
            let binding = link.info().binding;
            let responder = Responder::new(&identity, LinkKind::Quic, binding);
            let (awaiting, reply) = responder.on_hello(&hello, [0xa5; 128]).unwrap();
            send.send(reply.into()).await.unwrap();
            let proof = receive.read_exact(PROOF_BYTES).await.unwrap();
            let decision = awaiting.on_proof(&proof).unwrap();
            let (verdict, established) = decision
                .accept(local(seed, epoch), &Grants::none())
                .unwrap();
            send.send(verdict.into()).await.unwrap();
            let _ = send.finish();
            let secrets = SessionSecrets::new(established.secret);
            let mut hand = Hand::begin(link, secrets, Side::Listener);
            for _ in 0..3 {
                hand.accept().await;
            }
            hand.hear_starts().await;
            hand
        };
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.expect("a session within the deadline")
    }

    fn begin(link: Link, secrets: SessionSecrets, side: Side) -> Hand {
        let (handle, streams, _) = link.split();
        Hand {
            link: handle,
            streams,
            secrets,
            side,
            open: BTreeMap::new(),
            headers: Vec::new(),
            spans: [Vec::new(), Vec::new()],
        }
    }

    /// Reads the first frame of both lanes on which the other side sends.
    async fn hear_starts(&mut self) {
        for lane in Lane::ALL {
            let on = theirs(lane);
            let plain = self.read(on).await.expect("its Start");
            match codec::decode_sender(&plain) {
                Ok(Some(SenderFrame::Start(spans))) => self.spans[lane.index()] = spans,
                other => panic!("{other:?} where Start was due on {on:?}"),
            }
        }
    }

    /// Takes one stream that the other side opens.
    async fn accept(&mut self) {
        let (send, mut receive) = self.streams.accept().await.unwrap();
        let mut header = [0; STREAM_HEADER_BYTES];
        header.copy_from_slice(&receive.read_exact(STREAM_HEADER_BYTES).await.unwrap());
        let header = StreamHeader::from_bytes(header).unwrap();
        let on = match header.kind {
            StreamKind::UserLane => On::TheirUser,
            StreamKind::SystemLane => On::TheirSystem,
            StreamKind::Control if self.side == Side::Listener => On::Control,
            kind => panic!("the other side opened a {kind:?} stream"),
        };
        let keys = self.secrets.stream(&header, self.side.other(), self.side);
        let (sealer, opener) = keys.unwrap();
        let stream = Stream {
            send,
            receive,
            sealer,
            opener,
        };
        assert!(self.open.insert(on, stream).is_none(), "a second {on:?}");
    }

    /// The stream, opened if this side opens it and has not yet.
    async fn stream(&mut self, on: On) -> &mut Stream {
        if !self.open.contains_key(&on) {
            self.open(on, on.header()).await.unwrap();
        }
        self.open.get_mut(&on).expect("it is open")
    }

    async fn open(&mut self, on: On, header: StreamHeader) -> Result<(), LinkError> {
        let (mut send, receive) = self.link.open().await?;
        send.send(header.to_bytes().to_vec().into()).await?;
        let keys = self.secrets.stream(&header, self.side, self.side);
        let (sealer, opener) = keys.unwrap();
        let stream = Stream {
            send,
            receive,
            sealer,
            opener,
        };
        assert!(self.open.insert(on, stream).is_none(), "a second {on:?}");
        Ok(())
    }

    async fn seal(&mut self, on: On, plain: &[u8], last: bool) -> Vec<u8> {
        let mut sealed = Vec::new();
        let stream = self.stream(on).await;
        stream.sealer.seal(plain, last, &mut sealed).unwrap();
        sealed
    }

    /// Does what the test says; a link that the other side has closed by then is no failure.
    pub(crate) async fn play(&mut self, moves: Vec<Move>) {
        for play in moves {
            match tokio::time::timeout(DEADLINE, self.play_one(play.clone())).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return,
                Err(_) => panic!("nothing came of {play:?}"),
            }
        }
    }

    async fn play_one(&mut self, play: Move) -> Result<(), LinkError> {
        let (on, bytes) = match play {
            Move::Say(on @ (On::User | On::System), plain)
                if plain.first() == Some(&kind::START) =>
            {
                let sealed = self.seal(on, &plain, false).await;
                self.stream(on).await.send.send(sealed.into()).await?;
                while self.read(on).await?.first() != Some(&kind::MARKS) {}
                return Ok(());
            }
            Move::Say(on, plain) => (on, self.seal(on, &plain, false).await),
            Move::Raw(on, bytes) => (on, bytes),
            Move::Twice(on, plain) => (on, self.seal(on, &plain, false).await.repeat(2)),
            Move::Swapped(on, one, two) => {
                let one = self.seal(on, &one, false).await;
                let two = self.seal(on, &two, false).await;
                (on, [two, one].concat())
            }
            Move::Strayed { of, on, plain } => (on, self.seal(of, &plain, false).await),
            Move::Flipped(on, plain) => {
                let mut sealed = self.seal(on, &plain, false).await;
                *sealed.last_mut().expect("a tag") ^= 1;
                (on, sealed)
            }
            Move::Cut(on, plain) => {
                let mut sealed = self.seal(on, &plain, false).await;
                sealed.pop();
                let stream = self.stream(on).await;
                stream.send.send(sealed.into()).await?;
                return stream.send.finish();
            }
            Move::AfterLast(on, plain) => {
                let last = self.seal(on, &plain, true).await;
                // The sealer rightly refuses to go on, so the first frame stands for the next.
                (on, last.repeat(2))
            }
            Move::Header(header) => {
                let (mut send, receive) = self.link.open().await?;
                send.send(header.to_vec().into()).await?;
                self.headers.push((send, receive));
                return Ok(());
            }
            Move::Answer(answer) => {
                let frame = answer(&self.spans[Lane::User.index()]);
                let plain = codec::encode_receiver(&frame);
                (On::TheirUser, self.seal(On::TheirUser, &plain, false).await)
            }
            Move::Number(on, number) => {
                let header = StreamHeader {
                    number,
                    ..on.header()
                };
                return self.open(on, header).await;
            }
            Move::Settle(on, epoch, up_to) => {
                let _ = self.settled(on, epoch, up_to).await;
                return Ok(());
            }
            Move::Hear => return self.hear().await.map(drop),
        };
        self.stream(on).await.send.send(bytes.into()).await
    }

    /// The next batch that the other side sends.
    pub(crate) async fn hear(&mut self) -> Result<(Epoch, u64, Vec<String>), LinkError> {
        loop {
            let plain = self.read(On::TheirUser).await?;
            let frame = codec::decode_sender(&plain).unwrap();
            if let Some(SenderFrame::Batch {
                epoch,
                first,
                messages,
            }) = frame
            {
                let text = |message: &packhorse_protocol::message::Arrival| {
                    let message = message.as_ref().expect("a message of an honest node");
                    String::from_utf8(message.payload.clone()).unwrap()
                };
                return Ok((epoch, first, messages.iter().map(text).collect()));
            }
        }
    }

    /// The next frame's plaintext.
    async fn read(&mut self, on: On) -> Result<Vec<u8>, LinkError> {
        let stream = self.open.get_mut(&on).expect("it is open");
        let receive = &mut stream.receive;
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            head.copy_from_slice(&receive.read_exact(FRAME_HEAD_BYTES).await?);
            let head = stream.opener.head(head).unwrap();
            let mut ciphertext = receive.read_exact(head.ciphertext_bytes).await?;
            let plain = stream.opener.open(head, &mut ciphertext).unwrap();
            if !head.rekey {
                return Ok(plain.to_vec());
            }
        }
    }

    /// Reads a lane of this side's until so much of `epoch` is settled; the refusals named then.
    pub(crate) async fn settled(&mut self, on: On, epoch: Epoch, up_to: u64) -> Vec<Refusal> {
        let settled = async {
            loop {
                let plain = self.read(on).await.expect("the session goes on");
                if let Ok(Some(ReceiverFrame::Acknowledge { mark, refusals })) =
                    codec::decode_receiver(&plain)
                    && mark.epoch == epoch
                    && mark.settled >= up_to
                {
                    assert_eq!(mark.settled, up_to, "more than was sent");
                    return refusals;
                }
            }
        };
        let settled = tokio::time::timeout(DEADLINE, settled).await;
        settled.unwrap_or_else(|_| panic!("{up_to} of {epoch:?} were not settled on {on:?}"))
    }

    /// Reads a lane of this side's until so much is settled, or the code that it is closed with.
    pub(crate) async fn settled_or_closed(
        &mut self,
        on: On,
        epoch: Epoch,
        up_to: u64,
    ) -> Result<(), u64> {
        let ended = async {
            loop {
                match self.read(on).await {
                    Ok(plain) => {
                        if let Ok(Some(ReceiverFrame::Acknowledge { mark, .. })) =
                            codec::decode_receiver(&plain)
                            && mark.epoch == epoch
                            && mark.settled == up_to
                        {
                            return Ok(());
                        }
                    }
                    Err(LinkError::Closed(code)) => return Err(code),
                    Err(error) => panic!("{error} instead of a code"),
                }
            }
        };
        let ended = tokio::time::timeout(DEADLINE, ended).await;
        ended.expect("an end of the flood")
    }

    /// A heartbeat and its answer: the session lives.
    pub(crate) async fn beat(&mut self) {
        let number = 77;
        let frame = ControlFrame::Heartbeat { number, sent_ms: 0 };
        self.play(vec![Move::Say(On::Control, codec::encode_control(&frame))])
            .await;
        let answered = async {
            loop {
                let plain = self.read(On::Control).await.expect("the session goes on");
                if let Ok(Some(ControlFrame::HeartbeatReply { number: 77, .. })) =
                    codec::decode_control(&plain)
                {
                    return;
                }
            }
        };
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.expect("an answer to a heartbeat");
    }

    /// Waits until the other side closes the link; the code it says.
    pub(crate) async fn closed(&mut self) -> u64 {
        let closed = async {
            loop {
                match self.streams.accept().await {
                    Ok(stream) => self.headers.push(stream),
                    Err(LinkError::Closed(code)) => return code,
                    Err(error) => panic!("{error} instead of a code"),
                }
            }
        };
        let closed = tokio::time::timeout(DEADLINE, closed).await;
        closed.expect("the other side ends the session")
    }

    /// Leaves without a word.
    pub(crate) fn leave(self) {
        self.link.close(ErrorClass::Disconnected.to_u16());
    }
}

fn local(seed: u8, epoch: Epoch) -> Local {
    Local {
        name: format!("node{seed}"),
        addresses: Vec::new(),
        epoch,
    }
}

fn theirs(lane: Lane) -> On {
    match lane {
        Lane::User => On::TheirUser,
        Lane::System => On::TheirSystem,
    }
}

/// Marks that answer a Start truthfully for a peer that has stored `settled` of each epoch.
pub(crate) fn marks(spans: &[Span], settled: impl Fn(&Span) -> u64) -> ReceiverFrame {
    let mark = |span: &Span| Mark {
        epoch: span.epoch,
        settled: settled(span),
    };
    ReceiverFrame::Marks {
        marks: spans.iter().map(mark).collect(),
        refusals: Vec::new(),
    }
}
