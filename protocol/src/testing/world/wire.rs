//! What is on its way to one node: frames as bytes, in five streams, and what was done to them.
//!
//! A link keeps the order of a stream and sealing holds it to that; with the chances that
//! [`Chaos`] has for frames it is as if neither did. Two orders are kept all the same, because
//! no machine can tell that they were broken: see `must_precede`. And a frame never changes its
//! lane or its session, since it names neither.
//!
//! Read [`Wire::push`], then [`Wire::pop`].

use std::collections::VecDeque;

use crate::codec;
use crate::epoch::Lane;
use crate::message::SenderFrame;
use crate::session::{Input, Output};
use crate::testing::{Chaos, Random};

const STREAMS: usize = 5;

/// The frames on their way to one node, over one link.
#[derive(Debug, Default)]
pub(super) struct Wire {
    streams: [VecDeque<Frame>; STREAMS],
    /// Taken out of their streams; each comes some time, unless the link is lost before.
    held: Vec<Frame>,
    pushed: u64,
    /// How often something was done here that no link does.
    pub(super) disturbances: u64,
}

#[derive(Clone, Debug)]
struct Frame {
    /// Where its sender put it.
    home: usize,
    /// Rises in the order of sending.
    number: u64,
    is_copy: bool,
    bytes: Vec<u8>,
}

/// Where a frame lies.
#[derive(Clone, Copy)]
enum Place {
    Stream(usize, usize),
    Held(usize),
}

impl Wire {
    /// A frame is sent, and comes in order unless chaos has it otherwise.
    pub(super) fn push(
        &mut self,
        stream: usize,
        bytes: Vec<u8>,
        chaos: &Chaos,
        random: &mut Random,
    ) {
        let happens = |random: &mut Random, one_in| one_in > 0 && random.once_in(one_in);
        self.pushed += 1;
        let frame = Frame {
            home: stream,
            number: self.pushed,
            is_copy: false,
            bytes,
        };
        if happens(random, chaos.duplicate) {
            self.disturbances += 1;
            self.held.push(Frame {
                is_copy: true,
                ..frame.clone()
            });
        }
        let length = self.streams[stream].len();
        if happens(random, chaos.swap) && length > 0 {
            self.disturbances += 1;
            self.streams[stream].insert(length - 1, frame);
        } else if happens(random, chaos.hold) {
            self.disturbances += 1;
            self.held.push(frame);
        } else if happens(random, chaos.divert) {
            self.disturbances += 1;
            let kinds = |stream: usize| stream.div_ceil(2);
            let others = (0..STREAMS).filter(|other| kinds(*other) != kinds(stream));
            let others: Vec<usize> = others.collect();
            let to = others[random.below(others.len())];
            self.streams[to].push_back(frame);
        } else {
            self.streams[stream].push_back(frame);
        }
    }

    /// The next frame and the stream that it comes on.
    pub(super) fn pop(&mut self, random: &mut Random) -> Option<(usize, Vec<u8>)> {
        let start = random.below(STREAMS);
        let mut streams = (start..STREAMS).chain(0..start);
        let is_filled = |stream: &usize| !self.streams[*stream].is_empty();
        let place = if !self.held.is_empty() && random.once_in(8) {
            Place::Held(random.below(self.held.len()))
        } else {
            Place::Stream(streams.find(is_filled)?, 0)
        };
        let place = match self.disturbances {
            0 => place,
            _ => self.what_must_precede(place),
        };
        match place {
            Place::Stream(stream, at) => {
                let frame = self.streams[stream].remove(at)?;
                Some((stream, frame.bytes))
            }
            Place::Held(at) => {
                let frame = self.held.remove(at);
                Some((frame.home, frame.bytes))
            }
        }
    }

    /// The link is lost. Of each stream what was sent first may still be read.
    pub(super) fn cut(&mut self, random: &mut Random) {
        for home in 0..STREAMS {
            let all = self.streams.iter().flatten().chain(&self.held);
            let here = all.filter(|frame| frame.home == home);
            let mut numbers: Vec<u64> = here.map(|frame| frame.number).collect();
            numbers.sort_unstable();
            let keep = random.below(numbers.len() + 1);
            let last = numbers[..keep].last().copied().unwrap_or(0);
            let is_kept = |frame: &Frame| frame.home != home || frame.number <= last;
            self.streams
                .iter_mut()
                .for_each(|queue| queue.retain(is_kept));
            self.held.retain(is_kept);
        }
    }

    /// Nobody reads any more.
    pub(super) fn clear(&mut self) {
        self.streams = Default::default();
        self.held.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.streams.iter().all(VecDeque::is_empty)
    }

    /// The first frame that must come before the one at this place, or that one itself.
    fn what_must_precede(&self, mut place: Place) -> Place {
        loop {
            let frame = match place {
                Place::Stream(stream, at) => &self.streams[stream][at],
                Place::Held(at) => &self.held[at],
            };
            let queues = self.streams.iter().enumerate();
            let queued = queues.flat_map(|(stream, queue)| {
                let places = (0..queue.len()).map(move |at| Place::Stream(stream, at));
                places.zip(queue)
            });
            let held = (0..self.held.len()).map(Place::Held).zip(&self.held);
            let before = queued
                .chain(held)
                .filter(|(_, other)| other.home == frame.home && other.number < frame.number)
                .filter(|(_, other)| !other.is_copy && must_precede(other, frame))
                .min_by_key(|(_, other)| other.number);
            // What precedes it may itself have to wait for a third.
            match before {
                Some((before, _)) => place = before,
                None => return place,
            }
        }
    }
}

/// Whether a frame that was sent earlier must also come earlier.
///
/// A base says that nothing below it will come, and is believed: one that overtakes a batch
/// of its epoch has the batch's messages skipped, and they count as delivered. And a recipient
/// knows the order within an epoch, not which epochs still have something to send. From either
/// only the order of the stream protects, which is to say the count in each frame's seal.
fn must_precede(earlier: &Frame, later: &Frame) -> bool {
    let lane_of_sender = 1..=2;
    if !lane_of_sender.contains(&earlier.home) {
        return false;
    }
    match (decoded(earlier), decoded(later)) {
        (SenderFrame::Batch { epoch: before, .. }, SenderFrame::Base { epoch, .. }) => {
            before == epoch
        }
        (SenderFrame::Batch { epoch: before, .. }, SenderFrame::Batch { epoch, .. }) => {
            before < epoch
        }
        _ => false,
    }
}

fn decoded(frame: &Frame) -> SenderFrame {
    let known = "a frame of this version";
    codec::decode_sender(&frame.bytes)
        .expect(known)
        .expect(known)
}

/// The stream of a frame at its destination, and its bytes.
pub(super) fn encode(output: &Output) -> (usize, Vec<u8>) {
    match output {
        Output::SendToReceiver(lane, frame) => (1 + lane.index(), codec::encode_sender(frame)),
        Output::SendToSender(lane, frame) => (3 + lane.index(), codec::encode_receiver(frame)),
        Output::SendControl(frame) => (0, codec::encode_control(frame)),
        other => unreachable!("{other:?} is no frame"),
    }
}

/// What a session is told of the bytes of one frame.
pub(super) fn decode(stream: usize, bytes: &[u8]) -> Input {
    let lane = match stream {
        1 | 3 => Lane::User,
        _ => Lane::System,
    };
    let input = match stream {
        0 => codec::decode_control(bytes).map(|frame| frame.map(Input::Control)),
        1 | 2 => codec::decode_sender(bytes)
            .map(|frame| frame.map(|frame| Input::FromSender(lane, frame))),
        _ => codec::decode_receiver(bytes)
            .map(|frame| frame.map(|frame| Input::FromReceiver(lane, frame))),
    };
    match input {
        Ok(frame) => frame.expect("nobody here sends what may be ignored"),
        Err(error) => Input::Malformed(error.to_string()),
    }
}
