//! `drain`: no new work, everything out that somebody can be given, then the daemon ends.

use std::time::Duration;

use packhorse::Exit;
use packhorse::api::documents::whole_ms;
use packhorse::api::insight::{DrainRequest, schema};
use packhorse::insight::Drained;
use packhorse::time::parse_duration;

use crate::cli::display::{grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// How long to go on sending
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: DrainArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = DrainRequest {
        timeout_ms: whole_ms(args.timeout),
    };
    let drained = folder
        .client()?
        .drain(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::DRAIN, &drained)?;
    } else {
        screen.data(&render(&drained))?;
    }
    // What stays for peers that are away is no failure; what was cut off is.
    Ok(if drained.cut_off > 0 {
        Exit::NotYet
    } else {
        Exit::Done
    })
}

fn render(drained: &Drained) -> String {
    if drained.waiting == 0 {
        return "drained: nothing waits for anybody; the daemon stops".to_owned();
    }
    let mut text = format!(
        "drained: {} kept for a later start; the daemon stops\n",
        grouped(drained.waiting)
    );
    for peer in &drained.peers {
        text.push_str(&format!(
            "{} for {}: {}\n",
            grouped(peer.waiting),
            printable(&peer.name),
            peer.state
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use packhorse::PeerState;
    use packhorse::insight::DrainedPeer;

    use super::*;

    #[test]
    fn what_stays_is_told_by_peer() {
        let mut drained = Drained::default();
        assert!(render(&drained).contains("nothing waits"));
        drained.waiting = 1_200;
        drained.peers.push(DrainedPeer {
            name: "left".into(),
            state: PeerState::Waiting,
            waiting: 1_200,
        });
        assert_eq!(
            render(&drained),
            "drained: 1,200 kept for a later start; the daemon stops\n1,200 for left: waiting\n"
        );
    }
}
