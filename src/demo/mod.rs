//! `demo`: three real nodes on this machine, killed in the middle of their work, and nothing lost.
//!
//! Everything in it is what a person could type: real processes of this very program, the local API,
//! tickets, SIGKILL. It never reaches into a store: it counts what `receive` hands out and what
//! receipts say.
//!
//! Read [`scenario`] for what happens, [`jobs`] for its second chapter; [`cluster`] and [`process`]
//! keep the nodes, [`ledger`] counts, [`report`] tells.

mod cluster;
mod jobs;
mod ledger;
mod process;
mod report;
mod scenario;
mod stage;

use packhorse::Exit;
use packhorse::api::documents::schema;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Failure, Screen};
use crate::demo::cluster::Cluster;
use crate::demo::report::Report;
use crate::demo::stage::Stage;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many messages the node that is down is sent
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    messages: u64,
    /// Leave the nodes' folders and logs behind
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: &DemoArgs, screen: &Screen) -> Result<Exit, Failure> {
    // ORDER: signals count before anything is made, or an early one would leave it behind.
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let stage = Stage::new(screen, args.messages);
    let mut cluster = Cluster::new(&stage)?;
    // The cluster outlives the scenario, so that however that ends the nodes are stopped after it.
    let played = tokio::select! {
        played = scenario::play(&mut cluster, args.messages, &stage) => Some(played),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = hangup.recv() => None,
    };
    stage.finish();
    if let Some(Err(failure)) = &played {
        screen.note(&format!("the demo failed: {}", failure.text()));
        cluster.show_logs(screen);
    }
    cluster.end(args.keep, screen).await;
    match played {
        Some(Ok(report)) => show(&report, screen),
        Some(Err(failure)) => Err(failure),
        None => Ok(Exit::Interrupted),
    }
}

fn watch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Exit::Failure, format!("signals cannot be watched: {error}")))
}

fn show(report: &Report, screen: &Screen) -> Result<Exit, Failure> {
    if screen.is_json() {
        screen.document(schema::DEMO, report)?;
    } else {
        screen.data(&report.render())?;
    }
    if !report.kept {
        return Err(Failure::new(
            Exit::Failure,
            "a promise was broken: see the table",
        ));
    }
    screen.next("packhorse up --listen 0.0.0.0:7433   (and the README pairs it with another)");
    Ok(Exit::Done)
}
