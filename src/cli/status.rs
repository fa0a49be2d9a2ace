//! `status`: the node on two lines, then for every peer what it is waiting for.

use std::time::Duration;

use packhorse::api::documents::schema;
use packhorse::time::{WallTime, short_duration};
use packhorse::{Exit, Keep, PeerState, PeerStatus, Status};

use crate::cli::display::{grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen};

pub(crate) async fn run(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let status = folder
        .client()?
        .status()
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::STATUS, &status)?;
        return Ok(Exit::Done);
    }
    screen.data(&render(&status, WallTime::now().0))?;
    if status.peers.is_empty() {
        screen.next(&folder.command("invite --grant 'message.send:*'"));
    }
    Ok(Exit::Done)
}

fn render(status: &Status, now_ms: u64) -> String {
    let uptime = short_duration(Duration::from_millis(status.uptime_ms));
    let mut text = format!(
        "{}  {}\npackhorse {}, up {uptime}\n",
        printable(&status.name),
        status.node,
        printable(&status.version),
    );
    for (what, addresses) in [
        ("listens on", &status.listen),
        ("advertises", &status.advertise),
    ] {
        // What is announced is told where it is something else.
        if !addresses.is_empty() && (what == "listens on" || *addresses != status.listen) {
            text.push_str(&format!("{what} {}\n", printable(&addresses.join(" "))));
        }
    }
    for reason in &status.storage.refusing {
        text.push_str(&format!("storage  new work is refused: {reason}\n"));
    }
    if status.storage.line_bytes > 0 && status.storage.reserve_bytes == 0 {
        text.push_str("storage  no reserve: the disk is too small, or cannot set space aside\n");
    }
    // A line about something that is not going on would only be one more to read.
    if status.strangers.turned_away_recently > 0 {
        text.push_str(&format!("strangers  {}\n", status.strangers));
    }
    if status.peers.is_empty() {
        text.push_str("no peers\n");
        return text;
    }
    let mut table = Table::new(&[
        "PEER",
        "NODE",
        "STATE",
        "LINK",
        ">ROUND TRIP",
        ">OUTBOX",
        ">OLDEST",
        ">LAST SEEN",
        ">NEXT ATTEMPT",
    ]);
    for peer in &status.peers {
        table.row(cells(peer, now_ms));
    }
    text.push('\n');
    text.push_str(&table.render());
    for peer in &status.peers {
        if peer.keep == Keep::Never && peer.state != PeerState::Connected {
            text.push_str(&format!(
                "{}: never dialled from here, as `peers keep` says\n",
                printable(&peer.name)
            ));
        }
        if let Some(reason) = &peer.paused {
            text.push_str(&format!(
                "{}: takes no messages now: {}\n",
                printable(&peer.name),
                printable(reason)
            ));
        }
        if let Some(trouble) = &peer.trouble {
            text.push_str(&format!(
                "{}: trouble: {} ({})\n",
                printable(&peer.name),
                printable(&trouble.text),
                since(trouble.at, now_ms)
            ));
        }
        if let Some(fault) = &peer.last_error {
            text.push_str(&format!(
                "{}: {}: {}\n",
                printable(&peer.name),
                printable(&fault.class),
                printable(&fault.text)
            ));
        }
    }
    text
}

fn cells(peer: &PeerStatus, now_ms: u64) -> Vec<String> {
    let link = [&peer.link, &peer.key_exchange].into_iter().flatten();
    let link: Vec<String> = link.map(|word| printable(word).into_owned()).collect();
    let until = |time: WallTime| match time.0.checked_sub(now_ms) {
        Some(0) | None => "now".to_owned(),
        Some(ms) => format!("in {}", short_duration(Duration::from_millis(ms))),
    };
    vec![
        printable(&peer.name).into_owned(),
        peer.id.short(),
        peer.state.to_string(),
        link.join(" "),
        peer.round_trip_ms
            .map(|ms| format!("{ms:.1} ms"))
            .unwrap_or_default(),
        grouped(peer.outbox),
        peer.oldest_waiting_ms
            .map(|ms| short_duration(Duration::from_millis(ms)))
            .unwrap_or_default(),
        peer.last_seen
            .map(|time| since(time, now_ms))
            .unwrap_or_default(),
        peer.next_attempt.map(until).unwrap_or_default(),
    ]
}

fn since(time: WallTime, now_ms: u64) -> String {
    match now_ms.checked_sub(time.0) {
        Some(0..1_000) | None => "now".to_owned(),
        Some(ms) => format!("{} ago", short_duration(Duration::from_millis(ms))),
    }
}

#[cfg(test)]
mod tests {
    use packhorse::insight::Strangers;
    use packhorse::{IdentityKey, PeerFault, PeerTrouble, StorageStatus};

    use super::*;

    #[test]
    fn a_person_sees_what_each_peer_waits_for() {
        let id = IdentityKey::from_seed(&[7; 32]).id();
        let status = Status {
            node: id,
            name: "left".into(),
            version: "0.1.0".into(),
            uptime_ms: 192_000,
            listen: vec!["quic://0.0.0.0:7433".into()],
            advertise: vec!["quic://left.example:7433".into()],
            storage: StorageStatus::default(),
            peers: vec![
                PeerStatus {
                    name: "barn".into(),
                    id,
                    state: PeerState::Connected,
                    link: Some("quic".into()),
                    key_exchange: Some("X25519MLKEM768".into()),
                    round_trip_ms: Some(0.42),
                    outbox: 0,
                    oldest_waiting_ms: None,
                    last_seen: Some(WallTime(99_900)),
                    last_error: None,
                    next_attempt: None,
                    since: None,
                    failures: 0,
                    paused: Some("its store is full".into()),
                    skew_ms: Some(3),
                    keep: Keep::Auto,
                    trouble: Some(PeerTrouble {
                        text: "it was set back".into(),
                        at: WallTime(40_000),
                    }),
                },
                PeerStatus {
                    name: "mill".into(),
                    id,
                    state: PeerState::Waiting,
                    link: None,
                    key_exchange: None,
                    round_trip_ms: None,
                    outbox: 12_345,
                    oldest_waiting_ms: Some(61_000),
                    last_seen: Some(WallTime(40_000)),
                    last_error: Some(PeerFault {
                        class: "disconnected".into(),
                        text: "no answer\u{7}".into(),
                    }),
                    next_attempt: Some(WallTime(104_500)),
                    since: None,
                    failures: 4,
                    paused: None,
                    skew_ms: None,
                    keep: Keep::Never,
                    trouble: None,
                },
            ],
            strangers: Strangers {
                turned_away_recently: 3,
                counts: [("silent".to_owned(), 4)].into(),
                ..Strangers::default()
            },
        };
        let short = id.short();
        assert_eq!(
            render(&status, 100_000),
            format!(
                "left  {id}\n\
                 packhorse 0.1.0, up 3m 12s\n\
                 listens on quic://0.0.0.0:7433\n\
                 advertises quic://left.example:7433\n\
                 strangers  3 turned away within the last hour; since the start 4 said nothing\n\
                 \n\
                 PEER  NODE        STATE      LINK                 ROUND TRIP  OUTBOX  OLDEST  LAST SEEN  NEXT ATTEMPT\n\
                 barn  {short}  connected  quic X25519MLKEM768      0.4 ms       0       -        now             -\n\
                 mill  {short}  waiting    -                             -  12,345   1m 1s     1m ago       in 4.5s\n\
                 barn: takes no messages now: its store is full\n\
                 barn: trouble: it was set back (1m ago)\n\
                 mill: never dialled from here, as `peers keep` says\n\
                 mill: disconnected: no answer\\u{{7}}\n"
            )
        );
    }
}
