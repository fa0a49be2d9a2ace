//! Every situation with its sentence.

use super::*;

const NOW: WallTime = WallTime(1_000_000);

fn peer(state: PeerState) -> PeerFacts {
    PeerFacts {
        now: NOW,
        name: "left".into(),
        state,
        since: Some(WallTime(NOW.0 - 192_000)),
        link: None,
        has_address: true,
        keep: Keep::Auto,
        waiting: 0,
        oldest_ms: None,
        paused: None,
        failures: 0,
        last_error: None,
        last_seen: Some(WallTime(NOW.0 - 60_000)),
        next_attempt: None,
        trouble: None,
    }
}

fn connected() -> PeerFacts {
    PeerFacts {
        link: Some("quic://192.0.2.7:7433".into()),
        ..peer(PeerState::Connected)
    }
}

fn unreachable() -> PeerFacts {
    PeerFacts {
        waiting: 2,
        failures: 3,
        last_error: Some(PeerFault {
            class: "disconnected".into(),
            text: "no answer".into(),
        }),
        next_attempt: Some(WallTime(NOW.0 + 4_500)),
        ..peer(PeerState::Waiting)
    }
}

#[test]
fn a_peer_is_explained_in_one_sentence() {
    let cases: Vec<(PeerFacts, &str, &str)> = vec![
        (
            connected(),
            "connected",
            "left is connected over quic://192.0.2.7:7433 for 3m 12s and nothing waits for it.",
        ),
        (
            PeerFacts {
                waiting: 7,
                oldest_ms: Some(1_500),
                ..connected()
            },
            "connected",
            "left is connected over quic://192.0.2.7:7433 for 3m 12s and 7 messages are being sent to it, the oldest accepted 1.5s ago.",
        ),
        (
            PeerFacts {
                waiting: 1,
                paused: Some("its store is full".into()),
                ..connected()
            },
            "paused",
            "left is connected over quic://192.0.2.7:7433 but takes no messages now (its store is full); 1 message waits until it does.",
        ),
        (
            PeerFacts {
                waiting: 1,
                ..peer(PeerState::Dialling)
            },
            "dialling",
            "left has been dialled for 3m 12s and 1 message waits for it.",
        ),
        (
            PeerFacts {
                since: None,
                waiting: 1,
                oldest_ms: Some(2_000),
                ..peer(PeerState::Dialling)
            },
            "dialling",
            "left is being dialled now and 1 message waits for it, accepted 2s ago.",
        ),
        (
            PeerFacts {
                oldest_ms: Some(61_000),
                ..unreachable()
            },
            "waiting",
            "left is dialled again in 4.5s after 3 failed attempts (last error: disconnected: no answer), and 2 messages wait for it, the oldest accepted 1m 1s ago.",
        ),
        (
            unreachable(),
            "waiting",
            "left is dialled again in 4.5s after 3 failed attempts (last error: disconnected: no answer), and 2 messages wait for it.",
        ),
        (
            PeerFacts {
                next_attempt: None,
                failures: 1,
                last_error: None,
                ..unreachable()
            },
            "waiting",
            "left is dialled again soon after 1 failed attempt, and 2 messages wait for it.",
        ),
        (
            PeerFacts {
                has_address: false,
                next_attempt: None,
                ..unreachable()
            },
            "no address",
            "No address of left is known here, so it has to dial this node, last seen 1m ago; 2 messages wait for it.",
        ),
        (
            PeerFacts {
                keep: Keep::Never,
                next_attempt: None,
                ..unreachable()
            },
            "not dialled",
            "left is never dialled from here, as `peers keep` says, so it has to dial this node, last seen 1m ago; 2 messages wait for it.",
        ),
        (
            PeerFacts {
                state: PeerState::Refused,
                last_error: Some(PeerFault {
                    class: "authentication".into(),
                    text: "not paired".into(),
                }),
                ..unreachable()
            },
            "refused",
            "left does not accept this node (authentication: not paired), and it is dialled again in 4.5s; 2 messages wait for it.",
        ),
        (
            peer(PeerState::Idle),
            "idle",
            "Nothing waits for left and no session with it is alive (last seen 1m ago).",
        ),
        (
            PeerFacts {
                last_seen: None,
                ..peer(PeerState::NeverSeen)
            },
            "never seen",
            "Nothing waits for left and no session with it is alive (never seen since it was paired).",
        ),
        (
            PeerFacts {
                waiting: 2,
                next_attempt: Some(NOW),
                ..peer(PeerState::Idle)
            },
            "idle",
            "2 messages wait for left and no session with it is alive (last seen 1m ago), and it is dialled again now.",
        ),
    ];
    for (facts, state, sentence) in cases {
        let why = of_peer(&facts);
        assert_eq!(why.sentence, sentence);
        assert_eq!(why.state, state, "{sentence}");
        assert_eq!(why.subject, "peer left");
        assert_eq!(why.next_attempt, facts.next_attempt);
    }
}

fn waiting(peer: PeerFacts, ahead: u64) -> MessageFacts {
    MessageFacts::Waiting {
        peer,
        topic: "orders".into(),
        born: WallTime(NOW.0 - 30_000),
        ahead,
        expires: None,
    }
}

fn dead(state: DeadState, reason: &str) -> MessageFacts {
    MessageFacts::Dead {
        now: NOW,
        peer: "left".into(),
        topic: Some("orders".into()),
        state,
        is_open: state == DeadState::MayBeDelivered && !reason.contains("set back"),
        reason: reason.into(),
        at: WallTime(NOW.0 - 5_000),
    }
}

fn done(output: Option<&[u8]>) -> MessageFacts {
    MessageFacts::Done {
        now: NOW,
        peer: "left".into(),
        at: Some(WallTime(NOW.0 - 5_000)),
        output: output.map(<[u8]>::to_vec),
    }
}

fn inbox(claim: ClaimFacts) -> MessageFacts {
    MessageFacts::Inbox {
        now: NOW,
        sender: "left".into(),
        topic: "orders".into(),
        claim,
    }
}

#[test]
fn a_message_that_leaves_is_explained_in_one_sentence() {
    let cases: Vec<(MessageFacts, &str, &str)> = vec![
        (
            waiting(unreachable(), 12),
            "accepted",
            "It was accepted 30s ago for left and waits behind 12 others: left is dialled again in 4.5s after 3 failed attempts (last error: disconnected: no answer), and 2 messages wait for it.",
        ),
        (
            MessageFacts::Waiting {
                peer: PeerFacts {
                    waiting: 1,
                    ..connected()
                },
                topic: "orders".into(),
                born: WallTime(NOW.0 - 1_000),
                ahead: 0,
                expires: Some(WallTime(NOW.0 + 60_000)),
            },
            "accepted",
            "It was accepted 1s ago for left and is the next to be sent, expires in 1m: left is connected over quic://192.0.2.7:7433 for 3m 12s and 1 message is being sent to it.",
        ),
        (
            dead(DeadState::NotDelivered, "expired"),
            "not delivered",
            "It was given up 5s ago (expired) and certainly not delivered to left; it waits among the dead letters.",
        ),
        (
            dead(DeadState::MayBeDelivered, "3 failed attempts"),
            "may be delivered",
            "It was given up 5s ago (3 failed attempts) while it was on its way, and the next session with left tells whether it was delivered.",
        ),
        (
            dead(DeadState::MayBeDelivered, "this store was set back"),
            "may be delivered",
            "It was given up 5s ago (this store was set back), so nobody can tell whether it was delivered to left; it waits among the dead letters.",
        ),
        (
            dead(DeadState::Refused, "no grant"),
            "refused",
            "left refused it (no grant), as this node learnt 5s ago; it waits among the dead letters.",
        ),
        (
            MessageFacts::Stored {
                peer: "left".into(),
            },
            "stored",
            "It is stored on the disk of left, which has not said that it was handled.",
        ),
        (
            done(Some(b"42 bales\n")),
            "done",
            "It was handled by left with the output \"42 bales\", as this node learnt 5s ago.",
        ),
        (
            done(Some(b"")),
            "done",
            "It was handled by left without output, as this node learnt 5s ago.",
        ),
        (
            done(None),
            "done",
            "It was handled by left, as this node learnt 5s ago.",
        ),
        (
            MessageFacts::Failed {
                now: NOW,
                peer: "left".into(),
                at: None,
                reason: "exit 65".into(),
            },
            "failed",
            "It failed at left (exit 65).",
        ),
    ];
    check(cases);
}

#[test]
fn a_message_that_arrived_is_explained_in_one_sentence() {
    let cases: Vec<(MessageFacts, &str, &str)> = vec![
        (
            inbox(ClaimFacts::Free {
                may_execute: true,
                failures: 0,
            }),
            "waiting here",
            "It came from left and waits here for a consumer of `orders`.",
        ),
        (
            inbox(ClaimFacts::Free {
                may_execute: false,
                failures: 0,
            }),
            "waiting here",
            "It came from left and waits here for a consumer of `orders`; only `receive` gets it, because left has no grant execute for this topic.",
        ),
        (
            inbox(ClaimFacts::Leased {
                until: WallTime(NOW.0 + 12_000),
                attempts: 2,
            }),
            "claimed here",
            "It came from left and a consumer of `orders` has it, after 2 runs of a handler; its claim ends in 12s unless it is extended.",
        ),
        (
            inbox(ClaimFacts::Backoff {
                until: WallTime(NOW.0 + 90_000),
                failures: 4,
                reason: "exit 1".into(),
            }),
            "in backoff here",
            "It came from left and its handlers failed 4 times (exit 1); it is handed out again in 1m 30s.",
        ),
        (
            inbox(ClaimFacts::Backoff {
                until: WallTime(NOW.0 + 1_000),
                failures: 0,
                reason: String::new(),
            }),
            "in backoff here",
            "It came from left and its handler asked for more time; it is handed out again in 1s.",
        ),
        (
            MessageFacts::Left {
                sender: Some("left".into()),
            },
            "left",
            "It arrived here from left and is here no more: it was handled, refused or dropped.",
        ),
        (
            MessageFacts::DeadHere {
                now: NOW,
                sender: "left".into(),
                topic: "orders".into(),
                reason: "exit 65".into(),
                at: WallTime(NOW.0 - 60_000),
            },
            "not handled",
            "It came from left, was given up here 1m ago (exit 65) and waits among the dead letters.",
        ),
    ];
    check(cases);
}

#[track_caller]
fn check(cases: Vec<(MessageFacts, &str, &str)>) {
    let id = crate::testing::receipt_id();
    for (facts, state, sentence) in cases {
        let why = of_message(&id, &facts);
        assert_eq!(why.sentence, sentence);
        assert_eq!(why.state, state, "{sentence}");
        assert_eq!(why.subject, format!("message {id}"));
        assert_eq!(why.peer, "left");
    }
}

#[test]
fn a_retried_letter_names_its_new_receipt() {
    let id = crate::testing::receipt_id();
    let facts = MessageFacts::Retried {
        peer: "left".into(),
        receipt: id,
    };
    let why = of_message(&id, &facts);
    assert_eq!(
        why.sentence,
        format!("It was given up and accepted anew for left as {id}.")
    );
    assert_eq!(why.retried_as, Some(id));
}

#[test]
fn an_answer_has_the_published_shape() {
    let why = of_peer(&unreachable());
    let text = serde_json::to_string(&why).expect("plain values");
    assert_eq!(
        text,
        r#"{"subject":"peer left","sentence":"left is dialled again in 4.5s after 3 failed attempts (last error: disconnected: no answer), and 2 messages wait for it.","state":"waiting","peer":"left","topic":null,"since":"1970-01-01T00:13:28.000Z","next_attempt":"1970-01-01T00:16:44.500Z","retried_as":null}"#
    );
    assert_eq!(
        serde_json::from_str::<Why>(&text).expect("its own text"),
        why
    );
}

#[test]
fn a_long_output_is_quoted_by_its_head_and_stays_on_one_line() {
    let long = format!("a\n{}", "x".repeat(100));
    let why = of_message(&crate::testing::receipt_id(), &done(Some(long.as_bytes())));
    assert!(!why.sentence.contains('\n'), "{}", why.sentence);
    assert!(why.sentence.contains("x…"), "{}", why.sentence);
}
