//! What happened, numbered, with gaps named.

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts all events of this store, across restarts.
    pub number: u64,
    /// When, by this machine's clock.
    pub at: WallTime,
    /// What kind of thing: `session.started`.
    pub kind: String,
    /// The peer's name here, where it is about one.
    pub peer: Option<String>,
    /// What happened, for people.
    pub text: String,
}

/// Some events after a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Events that are lost between the cursor and the first one here: the first and last number.
    pub gap: Option<(u64, u64)>,
    /// In their order.
    pub events: Vec<Event>,
    /// The number of the newest event that there is.
    pub newest: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_published_shape() {
        let events = Events {
            gap: Some((1, 4)),
            events: vec![Event {
                number: 5,
                at: WallTime(1_763_724_600_123),
                kind: "session.started".into(),
                peer: Some("left".into()),
                text: "a session with left began".into(),
            }],
            newest: 5,
        };
        assert_eq!(
            serde_json::to_string(&events).expect("plain values"),
            r#"{"gap":[1,4],"events":[{"number":5,"at":"2025-11-21T11:30:00.123Z","kind":"session.started","peer":"left","text":"a session with left began"}],"newest":5}"#
        );
    }
}
