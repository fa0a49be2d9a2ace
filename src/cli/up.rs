//! `up`: the node in the foreground, from the first word until a signal or its own end.
//!
//! ORDER: settings and socket path are checked before anything is made; the node opens the store
//! and thereby takes its lock; only then is the socket bound; ready is said last.
//! The end goes the other way round.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use packhorse::api::documents::schema;
use packhorse::api::{Server, ServerHandle};
use packhorse::identity::Passphrase;
use packhorse::settings::{Advertised, LISTEN_MAX, NodeName, Settings, parse_listen};
use packhorse::{Ended, Exit, Node};
use packhorse_protocol::limits::{ADDRESSES_MAX, NAME_BYTES_MAX};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::folder::DataFolder;
use crate::cli::notify::Notifier;
use crate::cli::{Failure, Screen, id, passphrase};
use crate::telemetry;

/// How long the node may take to stop after the requests have ended.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Listen here for other nodes, such as 0.0.0.0:7433; repeatable; without it nobody can dial in
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,
    /// What other nodes should dial, where it differs from what is listened on; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<Advertised>,
    /// The name that this node announces; the machine's name unless given
    #[arg(long, value_name = "NAME")]
    name: Option<NodeName>,
    /// Let nodes without a ticket ask to be paired; see `packhorse requests`
    #[arg(long)]
    requests: bool,
    /// The file with the passphrase that unseals the identity; one that is made now is sealed with it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Stop when stdin closes, so that a parent process never leaves a node behind
    #[arg(long)]
    stop_with_stdin: bool,
}

/// The ready line; scripts wait for it.
#[derive(Debug, Serialize)]
struct Ready {
    node: String,
    name: String,
    listen: Vec<String>,
    advertise: Vec<String>,
    socket: String,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: UpArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let settings = Settings::load(folder.path())?;
    let socket = folder.socket()?;
    telemetry::install(settings.log.as_deref())?;
    // ORDER: asked for before signals are taken, so that a person can still interrupt the question.
    let passphrase = passphrase::for_start(
        folder,
        args.passphrase_file.as_deref(),
        settings.passphrase_file.as_deref(),
        screen,
    )?;
    // Signals count from here on: one that comes while the store opens must not kill it.
    let mut stop = Stop::install(args.stop_with_stdin)?;
    let node = tokio::select! {
        started = start(folder.path(), args, settings, passphrase) => Arc::new(started?),
        () = stop.asked() => return Ok(Exit::Done),
    };
    let server = match Server::bind(&socket) {
        Ok(server) => server.start(Arc::clone(&node)),
        Err(error) => {
            node.shutdown().await;
            return Err(error.into());
        }
    };
    if node.is_new() {
        id::tell_backup(folder, screen);
    }
    let socket =
        std::path::absolute(socket.as_path()).unwrap_or_else(|_| socket.as_path().to_owned());
    let mut notifier = Notifier::new();
    notifier.ready(Arc::clone(&node)).await;
    say_ready(&node, &socket, folder, screen);
    serve(node, server, stop, notifier, screen).await
}

async fn start(
    data_dir: &Path,
    args: UpArgs,
    settings: Settings,
    passphrase: Option<Passphrase>,
) -> Result<Node, Failure> {
    let rules = settings.class_rules();
    let quotas = settings.quota;
    // A flag beats the file; lists are replaced, not joined.
    let listen = if args.listen.is_empty() {
        settings.listen
    } else {
        args.listen
    };
    let advertise = if args.advertise.is_empty() {
        settings.advertise
    } else {
        args.advertise
    };
    if listen.len() > LISTEN_MAX {
        let count = listen.len();
        return Err(Failure::usage(format!(
            "{count} × --listen, the limit is {LISTEN_MAX}"
        )));
    }
    if advertise.len() > ADDRESSES_MAX {
        let count = advertise.len();
        return Err(Failure::usage(format!(
            "{count} × --advertise, the limit is {ADDRESSES_MAX}"
        )));
    }
    let name = match args.name.or(settings.name) {
        Some(name) => name.to_string(),
        None => machine_name(),
    };
    let mut builder = Node::builder(data_dir)
        .name(name)
        .class_rules(rules)
        .accept_requests(args.requests || settings.requests)
        .quotas(quotas);
    if let Some(passphrase) = passphrase {
        builder = builder.passphrase(passphrase);
    }
    for address in listen {
        builder = builder.listen(address);
    }
    for address in advertise {
        builder = builder.advertise(address.to_string());
    }
    Ok(builder.start().await?)
}

fn say_ready(node: &Node, socket: &Path, folder: &DataFolder, screen: &Screen) {
    let (listen, advertise) = (node.listen(), node.advertise());
    let socket = socket.to_string_lossy().into_owned();
    let printed = if screen.is_json() {
        let (node, name) = (node.id().to_string(), node.name().to_owned());
        screen.document(
            schema::UP,
            Ready {
                node,
                name,
                listen: listen.clone(),
                advertise,
                socket,
            },
        )
    } else {
        let advertise = match advertise.is_empty() || advertise == listen {
            true => String::new(),
            false => format!("\ndial    {}", advertise.join(" ")),
        };
        let listen = if listen.is_empty() {
            "nowhere".to_owned()
        } else {
            listen.join(" ")
        };
        screen.data(&format!(
            "node    {}\nname    {}\nlisten  {listen}{advertise}\nsocket  {socket}",
            node.id(),
            node.name()
        ))
    };
    if let Err(error) = printed {
        // A daemon lives on without somebody who reads its first line.
        tracing::warn!(%error, "the ready line could not be printed");
    }
    if listen.is_empty() {
        screen.note("nobody can dial this node: it was started without --listen");
        screen.next(&folder.command("join TICKET"));
    } else {
        screen.next(&folder.command("invite --grant 'message.send:*'"));
    }
}

async fn serve(
    node: Arc<Node>,
    mut server: ServerHandle,
    mut stop: Stop,
    mut notifier: Notifier,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let outcome = tokio::select! {
        () = stop.asked() => Ok(Exit::Done),
        () = node.drained() => Ok(Exit::Done),
        ended = node.ended() => Err(gave_up(&ended)),
        reason = server.ended() => Err(Failure::new(
            Exit::Internal,
            format!("the local API ended: {reason}"),
        )),
    };
    let drained = async {
        notifier.stopping().await;
        server.drain().await;
        tokio::time::timeout(SHUTDOWN_WITHIN, node.shutdown())
            .await
            .is_ok()
    };
    tokio::select! {
        is_stopped = drained => {
            if !is_stopped && outcome.is_ok() {
                return Err(Failure::new(
                    Exit::Internal,
                    format!("the node did not stop within {} s", SHUTDOWN_WITHIN.as_secs()),
                ));
            }
            outcome
        }
        () = stop.asked_again() => {
            screen.note("stopped without draining; what was accepted is safe");
            Ok(Exit::Interrupted)
        }
    }
}

fn gave_up(ended: &Ended) -> Failure {
    Failure::new(
        ended.exit,
        format!("{} gave up: {}", ended.actor, ended.reason),
    )
    .with_hint("start the node again; its store is safe")
}

/// Everything that asks the process to stop.
#[derive(Debug)]
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone: no reason to stop, but unheard it would end the process.
    hangup: Signal,
    /// Resolves when stdin is closed, where that counts.
    stdin: Option<oneshot::Receiver<()>>,
    /// How many signals came.
    signals: u32,
}

impl Stop {
    fn install(with_stdin: bool) -> Result<Stop, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failure, format!("signals cannot be watched: {error}"))
            })
        };
        Ok(Stop {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
            stdin: with_stdin.then(stdin_closed),
            signals: 0,
        })
    }

    /// Resolves at the first reason to stop.
    async fn asked(&mut self) {
        let closed = async {
            match self.stdin.as_mut() {
                Some(closed) => {
                    let _ = closed.await;
                }
                None => std::future::pending().await,
            }
        };
        let mut closed = std::pin::pin!(closed);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => self.signals += 1,
                _ = self.interrupt.recv() => self.signals += 1,
                () = closed.as_mut() => {}
                _ = self.hangup.recv() => {
                    tracing::info!("a hangup is ignored: SIGTERM or SIGINT stops the node");
                    continue;
                }
            }
            return;
        }
    }

    /// Resolves when somebody is in a hurry, which is a second signal.
    ///
    /// One after a closed stdin is the first one: a parent often ends by the same Ctrl-C.
    async fn asked_again(&mut self) {
        while self.signals < 2 {
            tokio::select! {
                _ = self.terminate.recv() => self.signals += 1,
                _ = self.interrupt.recv() => self.signals += 1,
            }
        }
    }
}

fn stdin_closed() -> oneshot::Receiver<()> {
    let (sender, closed) = oneshot::channel();
    // A thread of its own: reading stdin blocks, and cannot be called off.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    closed
}

/// The machine's name, as far as it can be a node's.
fn machine_name() -> String {
    let uname = rustix::system::uname();
    node_name_from(&uname.nodename().to_string_lossy())
}

fn node_name_from(machine: &str) -> String {
    let first_label = machine.split('.').next().unwrap_or_default();
    let kept: String = first_label
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .take(NAME_BYTES_MAX)
        .collect();
    if kept.is_empty() {
        "node".to_owned()
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_name_always_becomes_a_node_name() {
        for (machine, expected) in [
            ("barn", "barn"),
            ("barn.example.org", "barn"),
            ("", "node"),
            ("(none)", "none"),
            ("..", "node"),
        ] {
            assert_eq!(node_name_from(machine), expected);
            assert!(expected.parse::<NodeName>().is_ok());
        }
        let long = node_name_from(&"x".repeat(300));
        assert!(long.parse::<NodeName>().is_ok());
    }

    #[test]
    fn the_ready_line_has_the_published_shape() {
        let ready = Ready {
            node: "phn1x".into(),
            name: "left".into(),
            listen: vec!["quic://127.0.0.1:7433".into()],
            advertise: vec!["quic://left.example:7433".into()],
            socket: "/d/api.sock".into(),
        };
        let document = packhorse::api::Document::new(schema::UP, ready);
        assert_eq!(
            serde_json::to_string(&document).expect("plain values"),
            r#"{"schema":"packhorse.up.v1","node":"phn1x","name":"left","listen":["quic://127.0.0.1:7433"],"advertise":["quic://left.example:7433"],"socket":"/d/api.sock"}"#
        );
    }
}
