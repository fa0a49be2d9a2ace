//! `join NODEID@HOST:PORT --ask`: ask a node to be paired, without a ticket.
//!
//! The daemon goes on asking until the other side decides, also after a restart; this only says
//! what to ask and how far it came.

use std::time::Duration;

use packhorse::api::documents::requests::{AskRequest, AskedAnswer, AskedQuery, schema};
use packhorse::api::documents::whole_ms;
use packhorse::settings::Advertised;
use packhorse::time::short_duration;
use packhorse::{Exit, NodeId, RequestState};
use tokio::time::Instant;

use crate::cli::display::{printable, shell_word};
use crate::cli::folder::DataFolder;
use crate::cli::join::JoinArgs;
use crate::cli::patience::is_passing;
use crate::cli::{Failure, Screen};

/// One question waits for so long at most; then it is asked again.
const WAIT_ONCE: Duration = Duration::from_secs(50);
/// Between two questions to a daemon that may be restarting.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Whom to ask, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    node: NodeId,
    address: String,
}

/// Reads `NODEID@HOST:PORT`; `None` for what has another form.
pub(crate) fn parse_place(text: &str) -> Option<Result<Place, Failure>> {
    let (node, address) = text.split_once('@')?;
    let node = match node.parse::<NodeId>() {
        Ok(node) => node,
        Err(error) => return Some(Err(Failure::usage(error.to_string()))),
    };
    let place = address.parse::<Advertised>().map(|address| Place {
        node,
        address: address.to_string(),
    });
    Some(place.map_err(|_| {
        Failure::usage(format!(
            "`{address}` cannot be dialled: write NODEID@HOST:PORT"
        ))
    }))
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: JoinArgs,
    place: Place,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = AskRequest {
        node: place.node,
        address: place.address,
        message: args.message.unwrap_or_default(),
        name: args.name.map(|name| name.to_string()),
        grants: args.grants,
    };
    let mut client = folder.client()?;
    let mut asked = client
        .ask(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    let wait = args.wait.then_some(args.timeout);
    let deadline = wait.map(|wait| Instant::now() + wait);
    while let Some(deadline) = deadline
        && matches!(asked.state, RequestState::Unheard | RequestState::Waiting)
    {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let query = AskedQuery {
            node: request.node,
            wait_ms: Some(whole_ms(left.min(WAIT_ONCE)).max(1)),
        };
        match client.asked(&query).await {
            Ok(answer) => asked = answer,
            // What was asked for is kept whatever becomes of the daemon; it may be restarting.
            Err(error) if is_passing(&error) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            Err(error) => return Err(folder.failure(error)),
        }
    }
    tell(folder, &request, &asked, wait, screen)
}

fn tell(
    folder: &DataFolder,
    request: &AskRequest,
    asked: &AskedAnswer,
    wait: Option<Duration>,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if screen.is_json() {
        screen.document(schema::ASKED, asked)?;
    }
    if let Some(peer) = &asked.peer {
        let name = printable(&peer.name);
        if !screen.is_json() {
            screen.data(&format!("paired with {name}  {}", peer.id))?;
            if peer.grants.is_empty() {
                screen.note(&format!(
                    "nothing is granted to {name}: it may not send messages here"
                ));
            }
            screen.next(&folder.command(&format!("send {} orders hello", shell_word(&name))));
        }
        return Ok(Exit::Done);
    }
    let answer = asked
        .request
        .as_ref()
        .and_then(|request| request.answer.as_deref())
        .unwrap_or("it was not reached yet");
    match asked.state {
        RequestState::Rejected => {
            return Err(Failure::new(Exit::Refused, format!("not paired: {answer}")));
        }
        RequestState::Waiting => screen.note(&format!("asked: {}", waits(wait))),
        _ => screen.note(&format!("not asked yet: {answer}")),
    }
    if !screen.is_json() {
        screen.data(&format!("{}  {}", asked.state.name(), request.node))?;
    }
    screen.note("the node goes on asking for 7 days; `requests reject` withdraws it");
    screen.next(&folder.command("requests list"));
    Ok(Exit::NotYet)
}

fn waits(wait: Option<Duration>) -> String {
    match wait {
        None => "it waits for somebody there to decide".to_owned(),
        Some(wait) => format!("nobody there decided within {}", short_duration(wait)),
    }
}
