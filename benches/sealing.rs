//! Framing and sealing on a stream, against the same bytes on a bare stream of the same link kind.
//!
//! Sketch: QUIC over loopback moves 300 to 450 MiB/s with two cores; a second AES-256-GCM pass
//! runs at 6 GiB/s and the copy into the frame at 10 GiB/s, so about 8 % of one side's core.
//!
//! Loopback takes the probed MTU of 9,000, which makes the bare stream about three times as fast as
//! with 1,500; both ends share the machine's cores, so the two passes show most here.
//!
//! `cargo bench --bench sealing`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use packhorse_actors::link::{Link, QuicDialler, QuicListener};
use packhorse_protocol::{
    frame::FRAME_HEAD_BYTES,
    generation::SessionSecrets,
    handshake::SessionSecret,
    stream::{Side, StreamHeader, StreamKind},
};
use support::{Contender, figure, interleave, runtime};

/// One frame as a lane sends it: a batch of 256 messages of 256 B.
const FRAME: usize = 64 << 10;
const FRAMES: usize = 2_048;
const ROUNDS: usize = 7;

fn main() {
    let runtime = runtime();
    let (mut dialled, mut accepted) = runtime.block_on(pair());
    println!(
        "{} MiB in frames of {} KiB, {ROUNDS} interleaved rounds",
        (FRAME * FRAMES) >> 20,
        FRAME >> 10
    );
    let link = std::cell::RefCell::new((&mut dialled, &mut accepted));
    let medians = interleave(
        ROUNDS,
        &mut [
            Contender {
                name: "bare stream",
                round: Box::new(|| {
                    let (dialled, accepted) = &mut *link.borrow_mut();
                    runtime.block_on(bare(dialled, accepted))
                }),
            },
            Contender {
                name: "framed and sealed",
                round: Box::new(|| {
                    let (dialled, accepted) = &mut *link.borrow_mut();
                    runtime.block_on(sealed(dialled, accepted))
                }),
            },
        ],
    );
    let overhead = medians[1].as_secs_f64() / medians[0].as_secs_f64() - 1.0;
    figure("overhead of framing and sealing", overhead, "at most 0.10");
}

async fn pair() -> (Link, Link) {
    let mut listener = QuicListener::bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let dialler = QuicDialler::bind().expect("a socket");
    let address = listener.address();
    let (dialled, accepted) = tokio::join!(dialler.dial(address), listener.accept());
    (
        dialled.expect("dialled"),
        accepted.expect("alive").expect("accepted"),
    )
}

async fn bare(dialled: &mut Link, accepted: &mut Link) -> Duration {
    let start = Instant::now();
    let (mut send, _) = dialled.open().await.expect("a stream");
    let sending = tokio::spawn(async move {
        for _ in 0..FRAMES {
            send.send(Bytes::from(vec![7; FRAME])).await.expect("sent");
        }
        send.finish().expect("finished");
    });
    let (_, mut receive) = accepted.accept().await.expect("the stream");
    for _ in 0..FRAMES {
        let frame = receive.read_exact(FRAME).await.expect("a frame");
        assert_eq!(frame.len(), FRAME);
    }
    sending.await.expect("the sender ends");
    start.elapsed()
}

async fn sealed(dialled: &mut Link, accepted: &mut Link) -> Duration {
    let secrets = || SessionSecrets::new(SessionSecret::from_bytes(&[9; 32]));
    let header = StreamHeader {
        kind: StreamKind::UserLane,
        generation: 0,
        number: 1,
    };
    let (mut sealer, _) = secrets()
        .stream(&header, Side::Dialler, Side::Dialler)
        .expect("stream keys");
    let (_, mut opener) = secrets()
        .stream(&header, Side::Dialler, Side::Listener)
        .expect("stream keys");
    let start = Instant::now();
    let (mut send, _) = dialled.open().await.expect("a stream");
    let sending = tokio::spawn(async move {
        for _ in 0..FRAMES {
            let mut frame = Vec::with_capacity(FRAME + 20);
            sealer.seal(&[7; FRAME], false, &mut frame).expect("sealed");
            send.send(Bytes::from(frame)).await.expect("sent");
        }
        send.finish().expect("finished");
    });
    let (_, mut receive) = accepted.accept().await.expect("the stream");
    for _ in 0..FRAMES {
        let head = receive.read_exact(FRAME_HEAD_BYTES).await.expect("a head");
        let head = opener
            .head([head[0], head[1], head[2], head[3]])
            .expect("a valid head");
        let mut ciphertext = receive
            .read_exact(head.ciphertext_bytes)
            .await
            .expect("a frame");
        assert_eq!(
            opener.open(head, &mut ciphertext).expect("opens").len(),
            FRAME
        );
    }
    sending.await.expect("the sender ends");
    start.elapsed()
}
