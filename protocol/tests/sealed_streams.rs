//! Whole sealed streams whose bytes were meddled with in any mixture of ways.
//!
//! Goal: the receiving end opens exactly the frames that lie before the first wrong byte, and
//! then says which frame it was that did not open. `sealing.rs` has each way by itself.

use packhorse_protocol::frame::FRAME_HEAD_BYTES;
use packhorse_protocol::generation::SessionSecrets;
use packhorse_protocol::handshake::SessionSecret;
use packhorse_protocol::seal::{Opener, SealError, Sealer};
use packhorse_protocol::stream::{
    STREAM_HEADER_BYTES, Side, StreamError, StreamHeader, StreamKind,
};
use proptest::prelude::*;
use proptest::sample::Index;

const HEADER: StreamHeader = StreamHeader {
    kind: StreamKind::UserLane,
    generation: 1,
    number: 7,
};

/// One step of the sending end.
#[derive(Clone, Debug)]
enum Step {
    Frame(Vec<u8>),
    Rekey,
}

/// Where frames come from that do not belong on the stream.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Number,
    Kind,
    /// What the other end says on the same stream.
    Direction,
    /// The stream of the same number that the other end opened.
    Opener,
    Generation,
    Session,
}

const ORIGINS: [Origin; 6] = [
    Origin::Number,
    Origin::Kind,
    Origin::Direction,
    Origin::Opener,
    Origin::Generation,
    Origin::Session,
];

/// One thing that is done to the frames in between.
#[derive(Clone, Debug)]
enum Meddling {
    Repeat(Index, Index),
    Swap(Index, Index),
    Drop(Index),
    /// By the frame of the same place on another stream.
    Replace(Index, Origin),
    Insert(Index, Origin, Index),
}

/// One thing that is done to the bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index),
    Add(Index, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Short and often alike: what tells two frames apart must not be their contents.
    let frame = prop::collection::vec(0..3_u8, 0..4).prop_map(Step::Frame);
    let step = prop_oneof![4 => frame, 1 => Just(Step::Rekey)];
    prop::collection::vec(step, 0..12)
}

fn meddling() -> impl Strategy<Value = Meddling> {
    let index = any::<Index>;
    let origin = prop::sample::select(&ORIGINS[..]);
    prop_oneof![
        (index(), index()).prop_map(|(from, to)| Meddling::Repeat(from, to)),
        (index(), index()).prop_map(|(one, other)| Meddling::Swap(one, other)),
        index().prop_map(Meddling::Drop),
        (index(), origin.clone()).prop_map(|(at, origin)| Meddling::Replace(at, origin)),
        (index(), origin, index()).prop_map(|(at, o, from)| Meddling::Insert(at, o, from)),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        index().prop_map(Damage::Cut),
        index().prop_map(Damage::Remove),
        (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Add(at, byte)),
    ]
}

/// A session in which two generations are at hand.
fn secrets(session: u8) -> SessionSecrets {
    let mut secrets = SessionSecrets::new(SessionSecret::from_bytes(&[session; 32]));
    secrets.advance().expect("the first");
    secrets
}

fn sealer(session: u8, header: StreamHeader, opener: Side, me: Side) -> Sealer {
    let secrets = secrets(session);
    secrets.stream(&header, opener, me).expect("at hand").0
}

fn foreign_sealer(origin: Origin) -> Sealer {
    use Side::{Dialler, Listener};
    let (number, kind, generation) = (8, StreamKind::SystemLane, 0);
    match origin {
        Origin::Number => sealer(5, StreamHeader { number, ..HEADER }, Dialler, Dialler),
        Origin::Kind => sealer(5, StreamHeader { kind, ..HEADER }, Dialler, Dialler),
        Origin::Direction => sealer(5, HEADER, Dialler, Listener),
        Origin::Opener => sealer(5, HEADER, Listener, Dialler),
        Origin::Generation => {
            let header = StreamHeader {
                generation,
                ..HEADER
            };
            sealer(5, header, Dialler, Dialler)
        }
        Origin::Session => sealer(6, HEADER, Dialler, Dialler),
    }
}

/// The frames of the steps and of a last one.
fn frames(mut sealer: Sealer, steps: &[Step]) -> Vec<Vec<u8>> {
    let end = Step::Frame(b"end".to_vec());
    let count = steps.len();
    let steps = steps.iter().chain([&end]).enumerate();
    steps
        .map(|(index, step)| {
            let mut frame = Vec::new();
            match step {
                Step::Frame(plaintext) => sealer.seal(plaintext, index == count, &mut frame),
                Step::Rekey => sealer.rekey(&mut frame),
            }
            .expect("short, and before the last");
            frame
        })
        .collect()
}

fn meddle(frames: &mut Vec<Vec<u8>>, meddling: &Meddling, steps: &[Step]) {
    if frames.is_empty() {
        return;
    }
    // Never what was sent: a frame of a stream that has this one's keys has to show.
    let others = steps.iter().map(|step| match step {
        Step::Frame(plaintext) => Step::Frame([plaintext, &b"other"[..]].concat()),
        Step::Rekey => Step::Rekey,
    });
    let others: Vec<Step> = others.collect();
    let foreign = |origin: Origin| self::frames(foreign_sealer(origin), &others);
    match meddling {
        Meddling::Repeat(from, to) => {
            let frame = from.get(frames).clone();
            frames.insert(to.index(frames.len() + 1), frame);
        }
        Meddling::Swap(one, other) => {
            let count = frames.len();
            frames.swap(one.index(count), other.index(count));
        }
        Meddling::Drop(at) => drop(frames.remove(at.index(frames.len()))),
        Meddling::Replace(at, origin) => {
            let at = at.index(frames.len().min(steps.len() + 1));
            frames[at] = foreign(*origin).swap_remove(at);
        }
        Meddling::Insert(at, origin, from) => {
            let at = at.index(frames.len() + 1);
            frames.insert(at, from.get(&foreign(*origin)).clone());
        }
    }
}

fn hurt(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
        Damage::Add(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
    }
}

/// How reading ended.
#[derive(Debug, PartialEq)]
enum End {
    /// Behind the last frame, with no byte left.
    Last,
    /// The bytes ended before the last frame, or in the middle of what would be one more.
    Cut,
    Header(StreamError),
    Seal(SealError),
}

/// Reads as a driver does. Returns the plaintexts, how many frames opened, and the end.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, u64, End) {
    let (mut opened, mut count) = (Vec::new(), 0);
    let Some((header, mut rest)) = bytes.split_first_chunk::<STREAM_HEADER_BYTES>() else {
        return (opened, count, End::Cut);
    };
    let header = match StreamHeader::from_bytes(*header) {
        Ok(header) => header,
        Err(error) => return (opened, count, End::Header(error)),
    };
    let mut opener = match secrets(5).stream(&header, Side::Dialler, Side::Listener) {
        Ok((_, opener)) => opener,
        Err(error) => return (opened, count, End::Seal(error)),
    };
    loop {
        if rest.is_empty() && opener.is_ended() {
            return (opened, count, End::Last);
        }
        match read_frame(&mut opener, &mut rest) {
            Ok(None) => return (opened, count, End::Cut),
            Ok(Some((is_rekey, plaintext))) => {
                count += 1;
                if is_rekey {
                    assert!(plaintext.is_empty());
                } else {
                    opened.push(plaintext);
                }
            }
            Err(error) => return (opened, count, End::Seal(error)),
        }
    }
}

type Opened = Option<(bool, Vec<u8>)>;

fn read_frame(opener: &mut Opener, rest: &mut &[u8]) -> Result<Opened, SealError> {
    let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let head = opener.head(*head)?;
    let Some((ciphertext, behind)) = behind.split_at_checked(head.ciphertext_bytes) else {
        return Ok(None);
    };
    *rest = behind;
    let mut ciphertext = ciphertext.to_vec();
    let result = opener.open(head, &mut ciphertext).map(<[u8]>::to_vec);
    if result.is_err() {
        // What did not open once is over, whatever comes.
        assert_eq!(opener.head([0, 0, 0, 16]), Err(SealError::Broken));
    }
    Ok(Some((head.rekey, result?)))
}

fn check(steps: &[Step], meddlings: &[Meddling], damages: &[Damage]) -> Result<(), TestCaseError> {
    let original = frames(sealer(5, HEADER, Side::Dialler, Side::Dialler), steps);
    let mut frames = original.clone();
    for meddling in meddlings {
        meddle(&mut frames, meddling, steps);
    }
    let bytes_of = |frames: &[Vec<u8>]| [&HEADER.to_bytes()[..], &frames.concat()].concat();
    let mut bytes = bytes_of(&frames);
    // Another header before the frames of that other stream is that other stream, and honest.
    let header = match meddlings {
        [] => Vec::new(),
        _ => bytes.drain(..STREAM_HEADER_BYTES).collect(),
    };
    for damage in damages {
        hurt(&mut bytes, damage);
    }
    let bytes = [header, bytes].concat();

    // Frames that lie wholly before the first byte that is not the original's.
    let whole = bytes_of(&original);
    let same = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
    let mut end = STREAM_HEADER_BYTES;
    let ends = original.iter().map(|frame| {
        end += frame.len();
        end
    });
    let intact = ends.take_while(|end| *end <= same).count();

    let (opened, count, end) = read(&bytes);
    prop_assert_eq!(count, intact as u64);
    let plaintexts = steps.iter().take(intact).filter_map(|step| match step {
        Step::Frame(plaintext) => Some(plaintext.clone()),
        Step::Rekey => None,
    });
    let mut expected: Vec<Vec<u8>> = plaintexts.collect();
    if intact == original.len() {
        expected.push(b"end".to_vec());
    }
    prop_assert_eq!(opened, expected);
    prop_assert_eq!(end == End::Last, bytes == whole, "{:?}", end);
    match end {
        End::Last => {}
        End::Cut => prop_assert!(bytes != whole),
        End::Header(error) => {
            let StreamError::UnknownKind(kind) = error else {
                return Err(TestCaseError::fail(format!("{error}")));
            };
            prop_assert_eq!(kind, bytes[0]);
        }
        End::Seal(SealError::Open { counter }) => prop_assert_eq!(counter, intact as u64),
        End::Seal(SealError::Ended) => prop_assert_eq!(intact, original.len()),
        End::Seal(SealError::UnknownGeneration { .. }) => prop_assert!(same < 3),
        End::Seal(SealError::Head { .. } | SealError::TooLong { .. }) => {
            prop_assert!(intact < original.len());
        }
        End::Seal(error) => return Err(TestCaseError::fail(format!("{error}"))),
    }
    Ok(())
}

proptest! {
    #[test]
    fn streams_that_nobody_touched_open_to_their_end(steps in steps()) {
        check(&steps, &[], &[])?;
    }

    #[test]
    fn frames_out_of_their_place_do_not_open(
        steps in steps(), meddlings in prop::collection::vec(meddling(), 1..4)
    ) {
        check(&steps, &meddlings, &[])?;
    }

    #[test]
    fn a_stream_opens_up_to_its_first_wrong_byte(
        steps in steps(), damages in prop::collection::vec(damage(), 1..4)
    ) {
        check(&steps, &[], &damages)?;
    }

    #[test]
    fn whatever_is_done_to_a_stream_it_opens_to_a_beginning_of_what_was_sent(
        steps in steps(),
        meddlings in prop::collection::vec(meddling(), 0..4),
        damages in prop::collection::vec(damage(), 0..3),
    ) {
        check(&steps, &meddlings, &damages)?;
    }
}
