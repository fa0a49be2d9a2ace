//! One `send`, as an application and as a script on an open socket sees it, against one
//! `fdatasync` of the same bytes on the same disk.
//!
//! Sketch: one commit is one write and one sync; the rest is two thread hand-overs (about 20 us)
//! and, over the socket, one HTTP exchange (about 100 us). A sync takes 100 us or more.
//!
//! `cargo bench --bench send`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use packhorse::{
    Node, Outgoing,
    api::{Server, SocketPath},
};
use support::{Contender, figure, interleave, paired, runtime, scratch};

const SENDS: usize = 200;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 9;

fn main() {
    let runtime = runtime();
    let folder = scratch();
    let (sender, recipient) = runtime.block_on(paired(&folder));
    // The recipient is down: what is measured is accepting, not delivering.
    runtime.block_on(recipient.shutdown());
    let sender = Arc::new(sender);
    let path = SocketPath::in_folder(sender.data_dir()).expect("a short path");
    let server = {
        let _inside = runtime.enter();
        let server = Server::bind(&path).expect("the socket is free");
        server.start(Arc::clone(&sender))
    };
    let mut socket = UnixStream::connect(path.as_path()).expect("the socket answers");
    let mut file = File::create(folder.path().join("synced")).expect("a file");
    println!("{SENDS} sends of {PAYLOAD} B one after another, {ROUNDS} interleaved rounds");
    let medians = interleave(
        ROUNDS,
        &mut [
            Contender {
                name: "write and fdatasync",
                round: Box::new(|| {
                    let start = Instant::now();
                    for _ in 0..SENDS {
                        file.write_all(&[7; PAYLOAD]).expect("written");
                        file.sync_data().expect("synced");
                    }
                    start.elapsed()
                }),
            },
            Contender {
                name: "Node::send",
                round: Box::new(|| runtime.block_on(sends(&sender))),
            },
            Contender {
                name: "POST /v1/messages on an open socket",
                round: Box::new(|| {
                    let start = Instant::now();
                    for _ in 0..SENDS {
                        post(&mut socket);
                    }
                    start.elapsed()
                }),
            },
        ],
    );
    let ratio = |time: Duration| time.as_secs_f64() / medians[0].as_secs_f64();
    figure(
        "send through the library",
        ratio(medians[1]),
        "at most 2.5 fdatasync",
    );
    figure(
        "send over an open socket",
        ratio(medians[2]),
        "at most 4 fdatasync",
    );
    runtime.block_on(async {
        server.drain().await;
        sender.shutdown().await;
    });
}

async fn sends(sender: &Node) -> Duration {
    let start = Instant::now();
    for _ in 0..SENDS {
        let message = Outgoing::new("bench", vec![7_u8; PAYLOAD]);
        sender.send("recipient", message).await.expect("accepted");
    }
    start.elapsed()
}

/// One request on a connection that stays open; the answer is read to its end.
fn post(socket: &mut UnixStream) {
    let head = format!(
        "POST /v1/messages?peer=recipient&topic=bench HTTP/1.1\r\nhost: n\r\ncontent-length: {PAYLOAD}\r\n\r\n"
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(&[b'x'; PAYLOAD]);
    socket.write_all(&request).expect("sent");
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let count = socket.read(&mut chunk).expect("an answer");
        assert!(count > 0, "the daemon closed the connection");
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0_usize);
        if body.len() >= length {
            return;
        }
    }
}
