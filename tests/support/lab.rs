//! A scratch folder with nodes in it, removed with everything when the test ends.
//!
//! Ports: a node that is killed and started again needs the same port, and while it is down
//! nobody else may take it. So ports come from below the range from which the system gives
//! out ports by itself, and each is reserved by a TCP listener on the same number for as long
//! as the lab lives; the nodes use UDP.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::command::at_home;
use super::node::{Node, Ticket};
use super::random::{Random, seed};

/// Below 32768, where the system's own choice begins, and above what services use.
const PORT_FIRST: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;

/// A scratch folder and reserved ports. Declare it before its nodes, so that it goes last.
#[derive(Debug)]
pub(crate) struct Lab {
    folder: TempDir,
    ports: Vec<TcpListener>,
    random: Random,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        // A short prefix: the path of a socket has room for 107 bytes.
        let folder = tempfile::Builder::new()
            .prefix("ph")
            .tempdir()
            .expect("a scratch folder");
        Lab {
            folder,
            ports: Vec::new(),
            random: Random::new(seed()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the scratch folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary at home in the scratch folder, which chooses its data folder by itself.
    pub(crate) fn command(&self) -> Command {
        at_home(self.path())
    }

    /// A node that listens, not started yet.
    pub(crate) fn listener(&mut self, name: &str) -> Node {
        let port = self.port();
        Node::new(name, self.file(name), Some(format!("127.0.0.1:{port}")))
    }

    /// A node that nobody can dial, not started yet.
    pub(crate) fn loner(&mut self, name: &str) -> Node {
        Node::new(name, self.file(name), None)
    }

    /// A node that listens and runs.
    pub(crate) fn start(&mut self, name: &str) -> Node {
        let mut node = self.listener(name);
        node.start();
        node
    }

    /// Two nodes that run and may send each other everything; the second joined the first.
    pub(crate) fn pair(&mut self, first: &str, second: &str) -> (Node, Node) {
        let (first, second) = (self.start(first), self.start(second));
        pair(&first, &second);
        (first, second)
    }

    /// The number of a free port, reserved for this lab.
    pub(crate) fn port(&mut self) -> u16 {
        for _ in 0..PORT_COUNT {
            let offset = self.random.below(u64::from(PORT_COUNT));
            let port = PORT_FIRST + u16::try_from(offset).expect("below the count of ports");
            if let Ok(reserved) = TcpListener::bind(("127.0.0.1", port)) {
                self.ports.push(reserved);
                return port;
            }
        }
        panic!("no free port among {PORT_COUNT}");
    }
}

/// Pairs two running nodes through invite and join, each granting the other everything.
pub(crate) fn pair(inviter: &Node, joiner: &Node) {
    let ticket = inviter.invite();
    joiner.join(&ticket, inviter.name()).expect(0);
}

/// A ticket with the argument list that uses it.
pub(crate) fn join_words<'a>(ticket: &'a Ticket, name: &'a str) -> [&'a str; 6] {
    ["join", ticket, "--name", name, "--grant", super::SEND_ALL]
}
