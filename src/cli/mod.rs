//! The command line: what may be typed, and which file carries it out.
//!
//! Data goes to stdout and everything else to stderr; `--json` gives one document.
//! No command has a policy of its own: the daemon decides, the command asks and shows.
//!
//! Read [`Command`] for the words, then [`run`]; each command is one file below.

mod address;
mod ask;
mod completions;
mod dead;
mod display;
mod doctor;
mod drain;
mod events;
mod failure;
#[cfg(feature = "fault")]
mod fault;
mod folder;
mod forget;
mod grant;
mod id;
mod invite;
mod invites;
mod join;
mod lab;
mod lines;
mod listing;
mod metrics;
mod notify;
mod outbox;
mod passphrase;
mod patience;
mod peers;
mod ping;
mod qr;
mod receipt;
mod receive;
mod requests;
mod select;
mod send;
mod signals;
mod status;
mod table;
mod tree;
mod up;
mod why;
mod work;

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use packhorse::api::documents::LISTING_COUNT_DEFAULT;
use packhorse::{Exit, PROTOCOL_VERSION, STORE_FORMAT, VERSION};

pub(crate) use display::{Screen, grouped};
pub(crate) use failure::Failure;
pub(crate) use table::Table;
pub(crate) use tree::render as draw_tree;

use crate::demo;

static VERSION_TEXT: LazyLock<String> = LazyLock::new(|| {
    format!("{VERSION}\nprotocol {PROTOCOL_VERSION}\nstore format {STORE_FORMAT}")
});

const EXAMPLES: &str = "\
Examples:
  packhorse demo                                        see three nodes survive being killed
  packhorse up --listen 0.0.0.0:7433 --name left        run a node in the foreground
  packhorse invite --grant 'message.send:*'             print a ticket for one other node
  packhorse join TICKET --grant 'message.send:*'        pair with the node that made it
  packhorse send left orders 'two bales of hay'         send; it arrives when left can be reached
  packhorse receive orders --count 10                   print what arrived
  packhorse work orders --exec './handle.sh'            run a command for each as it arrives

Exit codes:
  0 done  1 failure  2 usage  3 accepted but not there yet  4 not found  5 refused
  6 daemon not reachable  7 store locked or damaged  8 wrong key  9 storage full
  10 internal failure  124 timed out  130 interrupted";

/// Carries messages between machines that are not always reachable, and never drops its load
#[derive(Debug, Parser)]
#[command(name = "packhorse", version = VERSION_TEXT.as_str(), after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The folder that holds identity, store, settings and socket
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PACKHORSE_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
    /// Print one JSON document with a `schema` field
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make folder and identity, and print the node id
    Init,
    /// Print the node id, or take a new identity
    Id(id::IdArgs),
    /// Seal the identity file with a passphrase, or take the passphrase off
    Passphrase {
        #[command(subcommand)]
        command: passphrase::PassphraseCommand,
    },
    /// Run the node in the foreground; the first start makes everything it needs
    Up(up::UpArgs),
    /// Print a ticket with which another node may pair with this one
    Invite(invite::InviteArgs),
    /// Show the tickets that were given out, or take them back
    Invites {
        #[command(subcommand)]
        command: Option<invites::InvitesCommand>,
    },
    /// Pair with the node that made a ticket, or ask one without a ticket
    Join(join::JoinArgs),
    /// Show the nodes that this one is paired with, and what is known about them
    Peers {
        #[command(subcommand)]
        command: Option<peers::PeersCommand>,
    },
    /// Allow a peer something here
    Grant(grant::GrantArgs),
    /// Take from a peer what it may do here
    Revoke(grant::RevokeArgs),
    /// Unpair a peer for good: no ticket pairs it again, and what waits becomes dead letters
    Forget(forget::ForgetArgs),
    /// Show who asks to be paired without a ticket, and decide
    Requests {
        #[command(subcommand)]
        command: Option<requests::RequestsCommand>,
    },
    /// Send a message, or one per line, to a peer
    Send(send::SendArgs),
    /// Show how far a message came, and what its handler printed
    Receipt(receipt::ReceiptArgs),
    /// Show messages that wait for their recipients, drop them, or have their peers dialled now
    Outbox {
        #[command(flatten)]
        list: select::BoxListArgs,
        #[command(subcommand)]
        command: Option<outbox::OutboxCommand>,
    },
    /// Show messages that were given up, take them up again, or delete them
    Dead {
        #[command(flatten)]
        list: dead::DeadListArgs,
        #[command(subcommand)]
        command: Option<dead::DeadCommand>,
    },
    /// Show messages that wait to be handled here
    Inbox {
        #[command(flatten)]
        list: ListArgs,
        #[command(subcommand)]
        command: Option<ListCommand>,
    },
    /// Print waiting messages of a topic, one a line, and acknowledge each
    Receive(receive::ReceiveArgs),
    /// Run a command for every message of a topic
    Work(work::WorkArgs),
    /// Show the node and what it is waiting for, peer by peer
    Status,
    /// Print the node's numbers as Prometheus reads them
    Metrics,
    /// Draw the live actors of the node
    Tree,
    /// Show what happened in the node, and follow it
    Events(events::EventsArgs),
    /// Measure a round trip to a connected peer
    Ping(ping::PingArgs),
    /// Take no new work, send what can be sent, and stop the daemon
    Drain(drain::DrainArgs),
    /// Make an actor die on purpose
    #[cfg(feature = "fault")]
    Fault(fault::FaultArgs),
    /// Say whether the data folder is well, and mend what can be mended
    Doctor(doctor::DoctorArgs),
    /// Say in one sentence what a peer or a message waits for
    Why {
        #[command(subcommand)]
        command: why::WhyCommand,
    },
    /// Run three real nodes, kill them, and count what was lost
    Demo(demo::DemoArgs),
    /// Run clusters of real nodes on this machine as scenario files say
    Lab {
        #[command(subcommand)]
        command: lab::LabCommand,
    },
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

#[derive(Debug, Subcommand)]
enum ListCommand {
    /// Show the oldest messages
    List(ListArgs),
}

/// How much of a box to show.
#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    /// Most messages to show
    #[arg(long, value_name = "N", default_value_t = LISTING_COUNT_DEFAULT)]
    limit: usize,
}

impl Cli {
    /// Whether the command runs a node or children of its own.
    pub(crate) fn is_long_running(&self) -> bool {
        matches!(
            self.command,
            Command::Up(_) | Command::Demo(_) | Command::Lab { .. }
        )
    }
}

/// Carries out a command; errors are shown here, so that the caller only ends.
pub(crate) async fn run(cli: Cli) -> Exit {
    let screen = Screen::new(cli.json);
    let outcome = dispatch(cli, &screen).await;
    outcome.unwrap_or_else(|failure| {
        failure.show();
        failure.exit()
    })
}

async fn dispatch(cli: Cli, screen: &Screen) -> Result<Exit, Failure> {
    // These need no data folder, and must work where none can be found.
    match cli.command {
        Command::Completions(args) => return completions::run(&args, screen),
        Command::Demo(args) => return Box::pin(demo::run(&args, screen)).await,
        Command::Lab { command } => return lab::run(command, screen).await,
        _ => {}
    }
    let folder = folder::DataFolder::choose(cli.data_dir)?;
    match cli.command {
        Command::Init => id::init(&folder, screen),
        Command::Id(args) => id::run(&folder, args, screen).await,
        Command::Passphrase { command } => passphrase::run(&folder, command, screen),
        // These handle interruption themselves: something of theirs is to be ended in order.
        Command::Up(args) => Box::pin(up::run(&folder, args, screen)).await,
        Command::Send(args) => send::run(&folder, args, screen).await,
        Command::Receipt(args) => receipt::run(&folder, args, screen).await,
        Command::Receive(args) => receive::run(&folder, args, screen).await,
        Command::Work(args) => Box::pin(work::run(&folder, args, screen)).await,
        Command::Events(args) => events::run(&folder, args, screen).await,
        command => {
            tokio::select! {
                outcome = ask(command, &folder, screen) => outcome,
                Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            }
        }
    }
}

/// The commands that are one question to the daemon.
async fn ask(
    command: Command,
    folder: &folder::DataFolder,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        Command::Invite(args) => invite::run(folder, args, screen).await,
        Command::Doctor(args) => doctor::run(folder, args, screen).await,
        Command::Join(args) => join::run(folder, args, screen).await,
        Command::Invites { command } => {
            let command = command.unwrap_or(invites::InvitesCommand::List);
            invites::run(folder, command, screen).await
        }
        Command::Peers { command } => {
            let command = command.unwrap_or(peers::PeersCommand::List);
            peers::run(folder, command, screen).await
        }
        Command::Grant(args) => grant::grant(folder, args, screen).await,
        Command::Revoke(args) => grant::revoke(folder, args, screen).await,
        Command::Forget(args) => forget::run(folder, args, screen).await,
        Command::Requests { command } => {
            let command = command.unwrap_or(requests::RequestsCommand::List);
            requests::run(folder, command, screen).await
        }
        Command::Outbox { list, command } => {
            let command = command.unwrap_or(outbox::OutboxCommand::List(list));
            outbox::run(folder, command, screen).await
        }
        Command::Dead { list, command } => {
            let command = command.unwrap_or(dead::DeadCommand::List(list));
            dead::run(folder, command, screen).await
        }
        Command::Why { command } => why::run(folder, command, screen).await,
        Command::Inbox { list, command } => {
            listing::inbox(folder, &chosen(list, command), screen).await
        }
        Command::Status => status::run(folder, screen).await,
        Command::Metrics => metrics::run(folder, screen).await,
        Command::Tree => tree::run(folder, screen).await,
        Command::Ping(args) => ping::run(folder, args, screen).await,
        Command::Drain(args) => drain::run(folder, args, screen).await,
        #[cfg(feature = "fault")]
        Command::Fault(args) => fault::run(folder, args, screen).await,
        // Carried out before; listed so that a new command cannot be forgotten here.
        Command::Init
        | Command::Id(_)
        | Command::Passphrase { .. }
        | Command::Up(_)
        | Command::Send(_)
        | Command::Receipt(_)
        | Command::Receive(_)
        | Command::Work(_)
        | Command::Events(_)
        | Command::Demo(_)
        | Command::Lab { .. }
        | Command::Completions(_) => Ok(Exit::Done),
    }
}

fn chosen(list: ListArgs, command: Option<ListCommand>) -> ListArgs {
    match command {
        Some(ListCommand::List(args)) => args,
        None => list,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_guide_are_understood() {
        for line in [
            "packhorse --data-dir d up --listen 127.0.0.1:0 --name n --json",
            "packhorse invite --grant message.send:* --expires 10m --uses 1",
            "packhorse join phn1x@host:7433 --ask --message hello --wait --timeout 5m",
            "packhorse requests",
            "packhorse requests list --json",
            "packhorse requests approve abcd --name n --grant message.send:*",
            "packhorse requests reject abcd --deny",
            "packhorse peers",
            "packhorse peers list --json",
            "packhorse peers address add p barn.example:7433",
            "packhorse peers address remove p quic://[2001:db8::7]:7433 --json",
            "packhorse peers keep p always",
            "packhorse up --listen 0.0.0.0:7433 --listen [::]:7433 --advertise a.example:1 --advertise [::1]:2",
            "packhorse peers rename p q",
            "packhorse peers denied",
            "packhorse invite --grant message.send:* --grant-expires 30d",
            "packhorse invite --wait --timeout 1m",
            "packhorse invites",
            "packhorse invites list --json",
            "packhorse invites revoke abcdefghij bcd",
            "packhorse invites revoke --all",
            "packhorse grant p message.send:a execute:!b --expires 30d",
            "packhorse revoke p message.send execute:a",
            "packhorse forget p --json",
            "packhorse send p t hello --json --wait stored --timeout 30s",
            "packhorse send p t @file --id k --class moderate",
            "packhorse send p t -",
            "packhorse send p --lines t --id run",
            "packhorse send p t hello --expires 7d --header a:b --header c:d --reply-to answers",
            "packhorse send p t hello --id k --replace --wait done",
            "packhorse receipt raebagbafayaaaaabaaaaaaaaaaaaeaaaaaaaaa3bcq --wait done --timeout 1m",
            "packhorse outbox list --json --limit 100 --peer p --topic t",
            "packhorse outbox --peer p",
            "packhorse outbox drop --peer p --topic t",
            "packhorse outbox drop --all",
            "packhorse outbox flush",
            "packhorse outbox flush --peer p",
            "packhorse dead",
            "packhorse dead list --direction in --limit 3",
            "packhorse dead retry --all",
            "packhorse dead drop --topic t",
            "packhorse why peer p",
            "packhorse doctor --json",
            "packhorse doctor --repair",
            "packhorse inbox --limit 5",
            "packhorse receive t --count 3",
            "packhorse receive t --wait --timeout 5s --json",
            "packhorse receive t --follow --jsonl --count 3",
            "packhorse receive t -0 --follow",
            "packhorse work t --exec 'cat' --jobs 64 --lease 1h --count 2 --once",
            "packhorse tree --json",
            "packhorse metrics",
            "packhorse events --follow --since 7 --jsonl",
            "packhorse ping p --count 3",
            "packhorse drain --timeout 1m",
            "packhorse status --json",
            "packhorse completions bash",
            "packhorse demo",
            "packhorse lab run a.toml b.toml --seed 7 --keep --junit j.xml --jsonl",
            "packhorse lab check a.toml b.toml --json",
            "packhorse lab new storm",
            "packhorse lab schema",
            "packhorse id --new --passphrase-file f",
            "packhorse passphrase set --file f --old-file g",
            "packhorse passphrase remove",
            "packhorse up --passphrase-file f",
        ] {
            let words = line.split(' ');
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "packhorse send p t hello --lines t",
            "packhorse send p t hello --wait never",
            "packhorse send p t hello --timeout 0s",
            "packhorse send p t",
            "packhorse send p",
            "packhorse send p --lines t --wait stored",
            "packhorse send p t hello --replace",
            "packhorse send p t hello --expires 0s",
            "packhorse send p t hello --header novalue",
            "packhorse receipt nonsense",
            "packhorse outbox drop",
            "packhorse outbox drop --all --peer p",
            "packhorse dead drop",
            "packhorse dead retry nonsense",
            "packhorse dead list --direction up",
            "packhorse why",
            "packhorse why message nonsense",
            "packhorse invite --uses 0",
            "packhorse invite --timeout 1m",
            "packhorse invites revoke",
            "packhorse invites revoke a --all",
            "packhorse grant p",
            "packhorse grant p message.send",
            "packhorse grant p fly:a",
            "packhorse grant p message.send:a --expires 0s",
            "packhorse revoke p",
            "packhorse revoke p fly",
            "packhorse peers allow nonsense",
            "packhorse peers rename p",
            "packhorse forget",
            "packhorse join t --message hello",
            "packhorse join t --wait",
            "packhorse join t@h:1 --ask --timeout 5s",
            "packhorse requests approve",
            "packhorse up --listen nowhere",
            "packhorse up --advertise barn.example",
            "packhorse up --advertise barn.example:0",
            "packhorse up --advertise 2001:db8::7:7433",
            "packhorse peers address add p",
            "packhorse peers address add p barn",
            "packhorse peers keep p often",
            "packhorse receive t --count 0",
            "packhorse receive t --wait --follow",
            "packhorse receive t --timeout 1s",
            "packhorse receive t -0 --jsonl",
            "packhorse work t",
            "packhorse work t --exec x --jobs 65",
            "packhorse work t --exec x --lease 2h",
            "packhorse ping p --count 0",
        ] {
            let words = line.split(' ');
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
