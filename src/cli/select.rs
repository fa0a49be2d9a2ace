//! Which messages of a box a command is about: some by name, or all that match a filter.

use packhorse::ReceiptId;
use packhorse::api::documents::{BoxRequest, LISTING_COUNT_DEFAULT, ListQuery};

/// How much of a box to show, and of whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BoxListArgs {
    /// Only messages of this peer
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only messages on exactly this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Most messages to show
    #[arg(long, value_name = "N", default_value_t = LISTING_COUNT_DEFAULT)]
    limit: usize,
}

impl From<BoxListArgs> for ListQuery {
    fn from(args: BoxListArgs) -> ListQuery {
        ListQuery {
            peer: args.peer,
            topic: args.topic,
            limit: Some(args.limit),
        }
    }
}

/// Messages to deal with; a forgotten filter is an error, so that it never empties a box.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct SelectArgs {
    /// These messages
    #[arg(value_name = "ID", conflicts_with_all = ["peer", "topic", "all"])]
    ids: Vec<ReceiptId>,
    /// All messages of this peer
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// All messages on exactly this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Every message
    #[arg(long, conflicts_with_all = ["peer", "topic"])]
    all: bool,
}

impl SelectArgs {
    /// How many messages are named.
    pub(crate) fn named(&self) -> u64 {
        self.ids.len() as u64
    }
}

impl From<SelectArgs> for BoxRequest {
    fn from(args: SelectArgs) -> BoxRequest {
        BoxRequest {
            ids: args.ids,
            peer: args.peer,
            topic: args.topic,
            all: args.all,
        }
    }
}
