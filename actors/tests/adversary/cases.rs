//! What a paired peer may get wrong, one line each, and what comes of it.
//!
//! A case plays its moves in a session of its own, under an epoch of its own.
//! `mine` is that epoch; `theirs` is the epoch that the node under test numbers under.

use packhorse_protocol::{
    codec::{self, kind},
    epoch::{Epoch, Mark, Refusal, RefusalCode, Span},
    error_class::ErrorClass,
    limits,
    message::{ControlFrame, DeliveryClass, Message, ReceiverFrame, SenderFrame},
    receipt::{self, Receipts},
};

use crate::{
    hand::{Move, On, marks},
    live_common::message,
};

use Move::{
    AfterLast, Answer, Cut, Flipped, Header, Hear, Number, Raw, Say, Settle, Strayed, Swapped,
    Twice,
};

/// How a case ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The session is over, for a reason of this class that holds these words.
    Over(ErrorClass, &'static str),
    /// It goes on: so much is settled on this lane, and these sequences are refused with their codes.
    Settled(On, u64, &'static [(u64, RefusalCode)]),
    /// It goes on, and so many ephemeral messages were dropped.
    Dropped(u64),
    /// It goes on.
    Lives,
}

/// One thing a peer gets wrong.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) moves: fn(mine: Epoch, theirs: Epoch) -> Vec<Move>,
    pub(crate) end: End,
    /// What of it is in the inbox afterwards.
    pub(crate) stores: &'static [&'static str],
}

const fn case(
    what: &'static str,
    moves: fn(Epoch, Epoch) -> Vec<Move>,
    class: ErrorClass,
    words: &'static str,
) -> Case {
    Case {
        what,
        moves,
        end: End::Over(class, words),
        stores: &[],
    }
}

const fn lives(
    what: &'static str,
    moves: fn(Epoch, Epoch) -> Vec<Move>,
    end: End,
    stores: &'static [&'static str],
) -> Case {
    Case {
        what,
        moves,
        end,
        stores,
    }
}

use ErrorClass::{Disconnected, Protocol};

/// Frames and streams that are not what they should be.
#[rustfmt::skip] // One line, one case.
pub(crate) const FRAMES: &[Case] = &[
    case("a frame cut short", |e, _| vec![Cut(On::User, start(e))], Disconnected, "the stream ended after"),
    case("a head that promises too much", |_, _| vec![Raw(On::User, 0x3fff_ffff_u32.to_be_bytes().to_vec())], Protocol, "the limit is 1114112"),
    case("a head that promises too little", |_, _| vec![Raw(On::User, 15_u32.to_be_bytes().to_vec())], Protocol, "malformed frame head"),
    case("a key change with a text", |_, _| vec![Raw(On::User, 0x4000_0011_u32.to_be_bytes().to_vec())], Protocol, "malformed frame head"),
    case("a frame replayed", |e, _| vec![Twice(On::User, start(e))], Protocol, "frame 1 of the stream cannot be opened"),
    case("frames reordered", |e, _| vec![Swapped(On::User, start(e), batch(e, 1, &["late"]))], Protocol, "frame 0 of the stream cannot be opened"),
    case("a frame of another stream", |e, _| vec![Strayed { of: On::System, on: On::User, plain: start(e) }], Protocol, "frame 0 of the stream cannot be opened"),
    case("a frame of the other direction's stream", |e, _| vec![Strayed { of: On::User, on: On::TheirUser, plain: start(e) }], Protocol, "frame 0 of the stream cannot be opened"),
    case("a changed bit", |e, _| vec![Flipped(On::Control, start(e))], Protocol, "frame 0 of the stream cannot be opened"),
    case("a frame after the last", |e, _| vec![AfterLast(On::User, start(e))], Protocol, "the stream's last frame has gone by"),
    case("an empty frame", |_, _| vec![Say(On::User, Vec::new())], Protocol, "the bytes end too early"),
    case("a value cut short", |e, _| vec![Say(On::User, { let mut plain = batch(e, 1, &["x"]); plain.pop(); plain })], Protocol, "the bytes end too early"),
    case("bytes left over", |e, _| vec![Say(On::User, [start(e), vec![0]].concat())], Protocol, "1 bytes too many at the end"),
    case("an unknown kind", |_, _| vec![Say(On::Control, vec![7])], Protocol, "unknown frame kind 7 on the control stream"),
    case("kind 0", |_, _| vec![Say(On::User, vec![0, 1])], Protocol, "unknown frame kind 0"),
    case("a kind of the lane's other side", |e, _| vec![Say(On::User, acknowledge(e, 1))], Protocol, "unknown frame kind 33 on the lane sender stream"),
    case("a kind of another stream", |e, _| vec![Say(On::Control, start(e))], Protocol, "unknown frame kind 16 on the control stream"),
    case("a kind of the lanes on the ephemeral stream", |e, _| vec![Say(On::Ephemeral, start(e))], Protocol, "unknown frame kind 16 on the ephemeral stream"),
    case("a list over its limit", |_, _| vec![Say(On::Control, granted(limits::GRANTS_MAX + 1))], Protocol, "65 grants, more than 64"),
    case("a count without its bytes", |_, _| vec![Say(On::User, vec![kind::START, 253, 255, 255, 255, 255, 255, 255, 255, 127])], Protocol, "more than 4096"),
    case("a length without its bytes", |_, _| vec![Say(On::Control, vec![kind::GOODBYE, 8, 200, b'x'])], Protocol, "the bytes end too early"),
    case("an error class that is none", |_, _| vec![Say(On::Control, vec![kind::GOODBYE, 99, 0])], Protocol, "an error class is not valid"),
    case("a reason with a control character", |_, _| vec![Say(On::Control, vec![kind::GOODBYE, 8, 2, b'a', 0x1b])], Protocol, "a reason is not valid"),
    case("a grant that is no text", |_, _| vec![Say(On::Control, vec![kind::GRANTED, 1, 2, 0xff, 0xfe])], Protocol, "a text is not valid"),
    case("an unknown kind of stream", |_, _| vec![Header([9, 0, 0, 0, 0, 0, 4])], Protocol, "unknown stream kind 9"),
    case("a stream's number used again", |e, _| vec![Say(On::User, start(e)), Header([4, 0, 0, 0, 0, 0, 2])], Protocol, "stream number 2 was used before"),
    case("a stream's number from long ago", |e, _| vec![Number(On::User, 5_000), Say(On::User, start(e)), Header([3, 0, 0, 0, 0, 0, 9])], Protocol, "below the highest"),
    case("a second control stream", |_, _| vec![Say(On::Control, granted(0)), Header([1, 0, 0, 0, 0, 0, 8])], Protocol, "a second Control stream"),
    case("a second stream of a lane", |e, _| vec![Say(On::User, start(e)), Header([2, 0, 0, 0, 0, 0, 8])], Protocol, "a second UserLane stream"),
    case("a second ephemeral stream", |_, _| vec![Say(On::Ephemeral, vec![200]), Header([4, 0, 0, 0, 0, 0, 17])], Protocol, "a second Ephemeral stream"),
    case("a generation that was never announced", |_, _| vec![Header([4, 0, 1, 0, 0, 0, 8])], Protocol, "generation 1 is not at hand"),
    case("a lane's stream that ends", |e, _| vec![Say(On::User, start(e)), Cut(On::System, start(e))], Disconnected, "the stream ended"),
    lives("a kind that may be ignored", |e, _| vec![Say(On::User, vec![200, 1, 2, 3]), Say(On::Control, vec![255]), Say(On::User, start(e)), Say(On::User, batch(e, 1, &["seen"]))], End::Settled(On::User, 1, &[]), &["seen"]),
];

/// Lanes on which the peer sends.
#[rustfmt::skip] // One line, one case.
pub(crate) const SENDING: &[Case] = &[
    case("a batch before Start", |e, _| vec![Say(On::User, batch(e, 1, &["x"]))], Protocol, "batch while the lane is awaiting start"),
    case("Start twice", |e, _| vec![Say(On::User, start(e)), Say(On::User, start(e))], Protocol, "start while the lane is"),
    case("a span that contradicts itself", |e, _| vec![Say(On::User, spans(&[Span { epoch: e, first: 5, last: 2, acknowledged: 0 }]))], Protocol, "contradicts itself"),
    case("a span that begins at 0", |e, _| vec![Say(On::User, spans(&[Span { epoch: e, first: 0, last: 2, acknowledged: 0 }]))], Protocol, "contradicts itself"),
    case("acknowledged beyond what was given out", |e, _| vec![Say(On::User, spans(&[Span { epoch: e, first: 1, last: 2, acknowledged: 3 }]))], Protocol, "contradicts itself"),
    case("an epoch twice in Start", |e, _| vec![Say(On::User, spans(&[empty(e), empty(e)]))], Protocol, "out of order"),
    case("a gap", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 2, &["x"]))], Protocol, "sequence 2 of boot"),
    case("sequence 0", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 0, &["x"]))], Protocol, "sequence 0 of boot"),
    case("a base that leads nowhere", |e, _| vec![Say(On::User, start(e)), Say(On::User, base(e, 1))], Protocol, "base 1 of boot"),
    case("base 0", |e, _| vec![Say(On::User, start(e)), Say(On::User, base(e, 0))], Protocol, "base 0 of boot"),
    case("an empty batch", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 1, &[]))], Protocol, "a batch at sequence 1 with 0 messages"),
    case("a batch of too many", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 1, &["x"; limits::BATCH_MESSAGES_MAX + 1]))], Protocol, "257 messages, more than 256"),
    case("a sequence behind the last number", |e, _| vec![Say(On::User, start(e)), Say(On::User, base(e, u64::MAX)), Say(On::User, batch(e, u64::MAX, &["x"]))], Protocol, "a batch at sequence 18446744073709551615"),
    case("more epochs than are kept", |e, _| vec![Say(On::User, spans(&many_epochs(e))), Say(On::User, base(Epoch { boot: e.boot, nonce: u64::MAX }, 2))], Protocol, "more than 4096 epochs"),
    Case { stores: &["one"], ..case("a sequence again", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 1, &["one"])), Settle(On::User, e, 1), Say(On::User, batch(e, 1, &["two"]))], Protocol, "sequence 1 of boot") },
    Case { stores: &["kept"], ..case("anything behind a message", |e, _| vec![Say(On::User, start(e)), Say(On::User, batch(e, 1, &["kept"])), Settle(On::User, e, 1), Say(On::User, vec![99])], Protocol, "unknown frame kind 99") },
    lives("a confirmation of what was never refused", |e, _| vec![Say(On::User, start(e)), Say(On::User, confirm(e, 1)), Say(On::User, batch(e, 1, &["fine"]))], End::Settled(On::User, 1, &[]), &["fine"]),
    lives("a loss that never was", |e, _| vec![Say(On::User, spans(&[Span { epoch: e, first: 10, last: 9, acknowledged: 9 }])), Say(On::User, base(e, 10)), Say(On::User, batch(e, 10, &["on"]))], End::Settled(On::User, 10, &[]), &["on"]),
];

/// Messages that nobody may keep; their neighbours are.
#[rustfmt::skip] // One line, one case.
pub(crate) const MESSAGES: &[Case] = &[
    lives("a topic without a grant", |e, _| three(e, |middle| middle.topic = "secret".to_owned()), End::Settled(On::User, 3, &[(2, RefusalCode::NO_GRANT)]), &["first", "third"]),
    lives("a topic with a control character", |e, _| three(e, |middle| middle.topic = "news\u{7}".to_owned()), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("no topic", |e, _| three(e, |middle| middle.topic.clear()), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("a topic over its limit", |e, _| three(e, |middle| middle.topic = "t".repeat(257)), End::Settled(On::User, 3, &[(2, RefusalCode::TOO_LARGE)]), &["first", "third"]),
    lives("a header with a control character in its name", |e, _| three(e, |middle| middle.headers.push(("a\nb".to_owned(), String::new()))), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("headers over their limit", |e, _| three(e, |middle| middle.headers.push(("n".to_owned(), "v".repeat(4_096)))), End::Settled(On::User, 3, &[(2, RefusalCode::TOO_LARGE)]), &["first", "third"]),
    lives("too many headers", |e, _| three(e, |middle| middle.headers = vec![("n".to_owned(), String::new()); 65]), End::Settled(On::User, 3, &[(2, RefusalCode::TOO_LARGE)]), &["first", "third"]),
    lives("a payload over its limit", |e, _| three(e, |middle| middle.payload = vec![0; limits::PAYLOAD_BYTES_MAX + 1]), End::Settled(On::User, 3, &[(2, RefusalCode::TOO_LARGE)]), &["first", "third"]),
    lives("a class that is never stored", |e, _| three(e, |middle| middle.class = DeliveryClass::Ephemeral), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("bytes that are no message", |e, _| raw_three(e, &[0xff; 9]), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("a message with bytes left over", |e, _| raw_three(e, &[codec::encode(&message(DeliveryClass::Critical, b"x")), vec![0]].concat()), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("a class that is none", |e, _| raw_three(e, &{ let mut bytes = codec::encode(&message(DeliveryClass::Critical, b"x")); bytes[0] = 9; bytes }), End::Settled(On::User, 3, &[(2, RefusalCode::UNDECODABLE)]), &["first", "third"]),
    lives("a report about what was never sent", |e, theirs| system(e, &report(Receipts { done: vec![(theirs, 1, u64::MAX), (e, 1, 9)], ..Receipts::default() })), End::Settled(On::System, 1, &[]), &[]),
    lives("a report in another form than the canonical", |e, theirs| system(e, &wide_report(theirs)), End::Settled(On::System, 1, &[(1, RefusalCode::UNDECODABLE)]), &[]),
    lives("a report that is none", |e, _| system(e, &note(receipt::TOPIC, b"no report")), End::Settled(On::System, 1, &[(1, RefusalCode::UNDECODABLE)]), &[]),
    lives("another topic on the system lane", |e, _| system(e, &note("news", b"hello")), End::Settled(On::System, 1, &[(1, RefusalCode::UNDECODABLE)]), &[]),
    lives("ephemeral messages that are none, to be kept, without a grant, and too large", |_, _| ephemeral(), End::Dropped(4), &[]),
];

/// Lanes on which the peer receives: what it says about messages of the node under test.
#[rustfmt::skip] // One line, one case.
pub(crate) const RECEIVING: &[Case] = &[
    case("an acknowledgement before Marks", |_, theirs| vec![Say(On::TheirUser, acknowledge(theirs, 1))], Protocol, "acknowledge while the lane is awaiting marks"),
    case("Marks twice", |_, _| vec![Answer(honest), Answer(honest)], Protocol, "marks while the lane is"),
    case("Marks that do not answer", |_, _| vec![Say(On::TheirUser, codec::encode_receiver(&ReceiverFrame::Marks { marks: Vec::new(), refusals: Vec::new() }))], Protocol, "marks for 0 epochs do not answer"),
    case("an acknowledgement of what was never sent", |_, _| vec![Answer(honest), Hear, Answer(|spans| acknowledged(spans, |span| span.last + 1))], Protocol, "of which"),
    case("an acknowledgement of an epoch that was never named", |mine, _| vec![Answer(honest), Hear, Say(On::TheirUser, acknowledge(mine, 1))], Protocol, "was never named on this lane"),
    case("a mark that goes down", |_, _| vec![Answer(honest), Hear, Answer(|spans| acknowledged(spans, |span| span.acknowledged)), Answer(|spans| acknowledged(spans, |span| span.acknowledged.saturating_sub(1)))], Protocol, "acknowledgement of sequence"),
    case("a refusal of what was never sent", |_, _| vec![Answer(honest), Hear, Answer(|spans| refused(spans, 1))], Protocol, "acknowledgement of sequence"),
    case("more refusals than a recipient may hold", |_, _| vec![Answer(honest), Hear, Answer(|spans| refused(spans, 1_025))], Protocol, "1025 refusals, more than 1024"),
    case("a reason to pause with a control character", |_, _| vec![Say(On::TheirUser, vec![kind::PAUSED, 2, b'a', b'\n'])], Protocol, "a reason is not valid"),
    lives("Window of nothing, and Paused without an end", |_, _| vec![Answer(honest), Answer(|_| ReceiverFrame::Window { messages: 0, bytes: 0 }), Answer(|_| ReceiverFrame::Paused { reason: "no room".to_owned() })], End::Lives, &[]),
];

/// The control stream.
#[rustfmt::skip] // One line, one case.
pub(crate) const CONTROL: &[Case] = &[
    case("an answer to no heartbeat", |_, _| vec![Say(On::Control, codec::encode_control(&ControlFrame::HeartbeatReply { number: 9_999, sent_ms: 0 }))], Protocol, "answer to heartbeat 9999, never sent"),
    case("an answer to heartbeat 0", |_, _| vec![Say(On::Control, codec::encode_control(&ControlFrame::HeartbeatReply { number: 0, sent_ms: 0 }))], Protocol, "answer to heartbeat 0, never sent"),
    case("a generation that is skipped", |_, _| vec![Say(On::Control, generation(2))], Protocol, "generation 2 after 0"),
    case("a generation again", |_, _| vec![Say(On::Control, generation(1)), Say(On::Control, generation(1))], Protocol, "generation 1 after 1"),
    case("generation 0", |_, _| vec![Say(On::Control, generation(0))], Protocol, "generation 0 after 0"),
    case("the listener's word from the dialler", |_, _| vec![Say(On::Control, codec::encode_control(&ControlFrame::GenerationReady { generation: 0 }))], Protocol, "generation 0 ready, which was not announced"),
    lives("grants that are none", |_, _| vec![Say(On::Control, codec::encode_control(&ControlFrame::Granted { grants: vec!["\u{1b}[2J".to_owned(), String::new(), "message.send:".to_owned()] }))], End::Lives, &[]),
];

/// What only the dialler may say, from the side that was dialled.
#[rustfmt::skip] // One line, one case.
pub(crate) const DIALLED: &[Case] = &[
    case("a generation announced by who was dialled", |_, _| vec![Say(On::Control, generation(1))], Protocol, "generation 1 after 0"),
    case("an answer to no announcement", |_, _| vec![Say(On::Control, codec::encode_control(&ControlFrame::GenerationReady { generation: 1 }))], Protocol, "generation 1 ready, which was not announced"),
    case("a control stream opened by who was dialled", |_, _| vec![Header([1, 0, 0, 0, 0, 0, 1])], Protocol, "a second Control stream"),
    case("a frame replayed by who was dialled", |_, _| vec![Twice(On::Control, granted(0))], Protocol, "frame 1 of the stream cannot be opened"),
];

fn start(epoch: Epoch) -> Vec<u8> {
    spans(&[empty(epoch)])
}

fn empty(epoch: Epoch) -> Span {
    Span {
        epoch,
        first: 1,
        last: 0,
        acknowledged: 0,
    }
}

fn spans(spans: &[Span]) -> Vec<u8> {
    codec::encode_sender(&SenderFrame::Start(spans.to_vec()))
}

fn many_epochs(epoch: Epoch) -> Vec<Span> {
    let nonces = 0..limits::EPOCHS_KEPT_MAX as u64;
    let epochs = nonces.map(|nonce| Epoch { nonce, ..epoch });
    epochs.map(empty).collect()
}

fn base(epoch: Epoch, first: u64) -> Vec<u8> {
    codec::encode_sender(&SenderFrame::Base { epoch, first })
}

fn confirm(epoch: Epoch, sequence: u64) -> Vec<u8> {
    codec::encode_sender(&SenderFrame::Confirm(vec![(epoch, sequence)]))
}

fn batch(epoch: Epoch, first: u64, texts: &[&str]) -> Vec<u8> {
    let message = |text: &&str| message(DeliveryClass::Critical, text.as_bytes());
    batch_of(epoch, first, texts.iter().map(message).collect())
}

fn batch_of(epoch: Epoch, first: u64, messages: Vec<Message>) -> Vec<u8> {
    codec::encode_sender(&SenderFrame::Batch {
        epoch,
        first,
        messages: messages.into_iter().map(Ok).collect(),
    })
}

/// Three messages, the second of which is spoilt.
fn three(epoch: Epoch, spoil: impl Fn(&mut Message)) -> Vec<Move> {
    let mut messages =
        ["first", "second", "third"].map(|text| message(DeliveryClass::Critical, text.as_bytes()));
    spoil(&mut messages[1]);
    let plain = batch_of(epoch, 1, messages.to_vec());
    vec![Say(On::User, start(epoch)), Say(On::User, plain)]
}

/// Three places of a batch, the second of which holds these bytes.
fn raw_three(epoch: Epoch, second: &[u8]) -> Vec<Move> {
    let whole = |text: &str| codec::encode(&message(DeliveryClass::Critical, text.as_bytes()));
    let mut plain = vec![kind::BATCH];
    codec::encode_into(&(epoch, 1_u64, 3_u64), &mut plain);
    for place in [&whole("first"), second, &whole("third")] {
        codec::encode_into(&(place.len() as u64), &mut plain);
        plain.extend_from_slice(place);
    }
    vec![Say(On::User, start(epoch)), Say(On::User, plain)]
}

/// One message on the system lane.
fn system(epoch: Epoch, message: &Message) -> Vec<Move> {
    let plain = batch_of(epoch, 1, vec![message.clone()]);
    vec![Say(On::System, start(epoch)), Say(On::System, plain)]
}

fn note(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: topic.to_owned(),
        ..message(DeliveryClass::Critical, payload)
    }
}

fn report(receipts: Receipts) -> Message {
    note(receipt::TOPIC, &codec::encode_receipts(&receipts))
}

/// A range of one, with a number written in more bytes than it needs.
fn wide_report(epoch: Epoch) -> Message {
    let mut payload = vec![receipt::USER_LANE, 1];
    codec::encode_into(&epoch, &mut payload);
    payload.extend([251, 1, 0, 1, 0]);
    note(receipt::TOPIC, &payload)
}

fn ephemeral() -> Vec<Move> {
    let ephemeral = message(DeliveryClass::Ephemeral, b"now");
    let messages = [
        message(DeliveryClass::Critical, b"to be kept"),
        Message {
            topic: "secret".to_owned(),
            ..ephemeral.clone()
        },
        Message {
            payload: vec![0; limits::PAYLOAD_BYTES_MAX + 1],
            ..ephemeral
        },
    ];
    let plains = messages.iter().map(codec::encode_ephemeral);
    std::iter::once(vec![kind::EPHEMERAL, 0xff, 0xff])
        .chain(plains)
        .map(|plain| Say(On::Ephemeral, plain))
        .collect()
}

fn acknowledge(epoch: Epoch, settled: u64) -> Vec<u8> {
    let mark = Mark { epoch, settled };
    codec::encode_receiver(&ReceiverFrame::Acknowledge {
        mark,
        refusals: Vec::new(),
    })
}

/// What somebody says who has stored what it acknowledged, and nothing more.
fn honest(spans: &[Span]) -> ReceiverFrame {
    marks(spans, |span| span.acknowledged)
}

fn acknowledged(spans: &[Span], settled: impl Fn(&Span) -> u64) -> ReceiverFrame {
    let span = spans.last().expect("the epoch in use");
    ReceiverFrame::Acknowledge {
        mark: Mark {
            epoch: span.epoch,
            settled: settled(span),
        },
        refusals: Vec::new(),
    }
}

/// Refusals of what comes behind the last message.
fn refused(spans: &[Span], count: u64) -> ReceiverFrame {
    let span = spans.last().expect("the epoch in use");
    let refusal = |number| Refusal {
        epoch: span.epoch,
        sequence: span.last + 1 + number,
        code: RefusalCode::NO_GRANT,
    };
    ReceiverFrame::Acknowledge {
        mark: Mark {
            epoch: span.epoch,
            settled: span.acknowledged,
        },
        refusals: (0..count).map(refusal).collect(),
    }
}

fn granted(count: usize) -> Vec<u8> {
    let grants = vec!["message.send:*".to_owned(); count];
    codec::encode_control(&ControlFrame::Granted { grants })
}

fn generation(generation: u16) -> Vec<u8> {
    codec::encode_control(&ControlFrame::Generation { generation })
}
