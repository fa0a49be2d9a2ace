//! `events`: what happened, numbered; with `--follow` also what happens from now on.
//!
//! It pulls with a cursor, so a slow reader delays nobody; what the node forgot meanwhile is
//! named as a gap. A daemon that is restarted is waited for, and the cursor goes on.

use std::io::{self, Write};
use std::time::Duration;

use packhorse::Exit;
use packhorse::api::documents::whole_ms;
use packhorse::api::insight::{
    EVENTS_COUNT_DEFAULT, EVENTS_COUNT_MAX, EVENTS_WAIT_MAX, EventsQuery, schema,
};
use packhorse::api::{Client, Document};
use packhorse::insight::{Event, Events};
use serde::Serialize;

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::patience::Patience;
use crate::cli::signals::Signals;
use crate::cli::{Failure, Screen};

/// How long one question waits for an event; the next one follows at once.
const WAIT: Duration = Duration::from_secs(20);

const _: () = assert!(WAIT.as_secs() <= EVENTS_WAIT_MAX.as_secs());

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// Show those after this number; the newest 100 unless given
    #[arg(long, value_name = "N")]
    since: Option<u64>,
    /// Go on with events as they happen, until told to stop
    #[arg(long)]
    follow: bool,
    /// Print one JSON document per event, each on a line of its own
    #[arg(long)]
    jsonl: bool,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Lines,
    Document,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: EventsArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let form = match (screen.is_json(), args.jsonl) {
        (true, false) if !args.follow => Form::Document,
        (true, _) => {
            return Err(Failure::usage(
                "--json prints one document: it goes with neither --follow nor --jsonl",
            )
            .with_hint("--jsonl prints one document an event"));
        }
        (false, true) => Form::Lines,
        (false, false) => Form::Text,
    };
    let mut signals = Signals::install()?;
    let mut watcher = Watcher {
        folder,
        client: folder.client()?,
        form,
        screen,
        patience: Patience::default(),
        after: args.since,
        follows: args.follow,
    };
    tokio::select! {
        outcome = watcher.run() => outcome,
        exit = signals.next() => Ok(if args.follow { exit } else { Exit::Interrupted }),
    }
}

struct Watcher<'a> {
    folder: &'a DataFolder,
    client: Client,
    form: Form,
    screen: &'a Screen,
    patience: Patience,
    /// The number of the last event that was shown.
    after: Option<u64>,
    follows: bool,
}

impl Watcher<'_> {
    async fn run(&mut self) -> Result<Exit, Failure> {
        // A page without end for a person who asked for it; what was there at first, otherwise.
        let mut until = None;
        loop {
            let Some(events) = self.ask().await? else {
                continue;
            };
            let last = match (&events.events[..], events.gap) {
                ([.., last], _) => Some(last.number),
                ([], Some((_, last))) => Some(last),
                ([], None) => None,
            };
            // Nothing new and a smaller newest number: it is another store's count now.
            let is_restarted = self.after.is_some_and(|after| after > events.newest);
            if is_restarted && self.follows {
                self.screen
                    .note("the numbers began anew: this is another store");
                self.after = Some(0);
                continue;
            }
            self.after = last.or(self.after).or(Some(events.newest));
            let until = *until.get_or_insert(events.newest);
            let is_over = !self.follows
                && (self.form == Form::Document || last.is_none_or(|last| last >= until));
            self.show(events).await?;
            if is_over {
                return Ok(Exit::Done);
            }
        }
    }

    /// The next page; none when the daemon is to be asked again.
    async fn ask(&mut self) -> Result<Option<Events>, Failure> {
        tokio::time::sleep(self.patience.pause()).await;
        let wait = if self.follows && self.after.is_some() {
            whole_ms(self.patience.wait(WAIT))
        } else {
            0
        };
        let query = EventsQuery {
            after: self.after,
            limit: Some(match self.after {
                None => EVENTS_COUNT_DEFAULT,
                Some(_) => EVENTS_COUNT_MAX,
            }),
            wait_ms: Some(wait),
        };
        match self.client.events(&query).await {
            Ok(events) => {
                self.patience.answered(self.screen);
                Ok(Some(events))
            }
            Err(error) if self.follows && self.patience.bears(&error, self.screen) => Ok(None),
            Err(error) => Err(self.folder.failure(error)),
        }
    }

    async fn show(&self, events: Events) -> Result<(), Failure> {
        let form = self.form;
        // Beside the runtime: a reader that does not read must not keep signals from being heard.
        let shown = tokio::task::spawn_blocking(move || write(&events, form)).await;
        match shown {
            Ok(shown) => Ok(shown?),
            Err(error) => Err(Failure::new(Exit::Internal, error.to_string())),
        }
    }
}

/// Events that are lost for ever, as `--jsonl` prints them.
#[derive(Debug, Serialize)]
struct Gap {
    gap: (u64, u64),
}

fn write(events: &Events, form: Form) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match form {
        Form::Document => {
            serde_json::to_writer(&mut stdout, &Document::new(schema::EVENTS, events))?;
            stdout.write_all(b"\n")?;
        }
        Form::Lines => {
            if let Some(gap) = events.gap {
                serde_json::to_writer(&mut stdout, &Gap { gap })?;
                stdout.write_all(b"\n")?;
            }
            for event in &events.events {
                serde_json::to_writer(&mut stdout, &Document::new(schema::EVENT, event))?;
                stdout.write_all(b"\n")?;
            }
        }
        Form::Text => {
            if let Some((first, last)) = events.gap {
                writeln!(stdout, "events {first} to {last} are kept no longer")?;
            }
            for event in &events.events {
                writeln!(stdout, "{}", line(event))?;
            }
        }
    }
    stdout.flush()
}

fn line(event: &Event) -> String {
    let peer = match &event.peer {
        Some(peer) => format!("{}: ", printable(peer)),
        None => String::new(),
    };
    format!(
        "{}  {}  {:<22}  {peer}{}",
        event.number,
        event.at,
        printable(&event.kind),
        printable(&event.text)
    )
}

#[cfg(test)]
mod tests {
    use packhorse::time::WallTime;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let event = Event {
            number: 7,
            at: WallTime(1_763_724_600_123),
            kind: "paired".into(),
            peer: Some("left".into()),
            text: "a\nb".into(),
        };
        assert_eq!(
            line(&event),
            r"7  2025-11-21T11:30:00.123Z  paired                  left: a\nb"
        );
    }
}
