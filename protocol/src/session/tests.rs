//! The life of a session: its whole table of transitions, and its timers.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::epoch::{Epoch, Lane, Mark, Position, Span};
use crate::error_class::ErrorClass;
use crate::limits;
use crate::message::{ControlFrame, DeliveryClass, Message, ReceiverFrame, SenderFrame};
use crate::outbox::Row;
use crate::outbox::receiver::{Receiver, ReceiverPhase};
use crate::outbox::sender::{Sender, SenderPhase};
use crate::session::{Ending, Input, Output, Session, SessionEvent, State};
use crate::stream::Side;

const OURS: Epoch = Epoch { boot: 7, nonce: 70 };
const THEIRS: Epoch = Epoch { boot: 9, nonce: 90 };
const START_MS: u64 = 1_000;

fn message() -> Message {
    Message {
        class: DeliveryClass::Critical,
        topic: "t".to_owned(),
        born_ms: 0,
        headers: Vec::new(),
        payload: vec![1, 2, 3],
    }
}

fn row(sequence: u64) -> Row {
    Row {
        position: Position {
            epoch: OURS,
            sequence,
        },
        message: message(),
    }
}

fn batch(first: u64) -> SenderFrame {
    SenderFrame::Batch {
        epoch: THEIRS,
        first,
        messages: vec![Ok(message())],
    }
}

fn acknowledge(settled: u64) -> ReceiverFrame {
    let mark = Mark {
        epoch: OURS,
        settled,
    };
    ReceiverFrame::Acknowledge {
        mark,
        refusals: Vec::new(),
    }
}

fn marks(epoch: Epoch) -> Vec<Mark> {
    vec![Mark { epoch, settled: 0 }]
}

fn spans(epoch: Epoch) -> Vec<Span> {
    vec![Span {
        epoch,
        first: 1,
        last: 0,
        acknowledged: 0,
    }]
}

fn goodbye() -> Input {
    let (class, reason) = (ErrorClass::ShuttingDown, "bye".to_owned());
    Input::Control(ControlFrame::Goodbye { class, reason })
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

/// A session that has just begun.
fn opening(side: Side) -> Session {
    let mut session = Session::new(side, START_MS, 50_000);
    outputs(&mut session);
    session
}

/// A session whose lanes have started, with one message on its way on the user lane.
fn running(side: Side) -> Session {
    let mut session = opening(side);
    for lane in Lane::ALL {
        let answer = ReceiverFrame::Marks {
            marks: marks(OURS),
            refusals: Vec::new(),
        };
        let inputs = [
            Input::Lines {
                lane,
                spans: spans(OURS),
            },
            Input::FromReceiver(lane, answer),
            Input::Settled { lane },
            Input::FromSender(lane, SenderFrame::Start(spans(THEIRS))),
            Input::MarksRead {
                lane,
                marks: marks(THEIRS),
                refusals: Vec::new(),
            },
        ];
        for input in inputs {
            session.handle(input, START_MS);
        }
    }
    let lane = Lane::User;
    session.handle(
        Input::Rows {
            lane,
            rows: vec![row(1)],
            exhausted: true,
        },
        START_MS,
    );
    outputs(&mut session);
    assert_eq!(*session.state(), State::Running);
    session
}

/// As [`running`], with a commit of one message out.
fn storing(side: Side) -> Session {
    let mut session = running(side);
    session.handle(Input::FromSender(Lane::User, batch(1)), START_MS);
    outputs(&mut session);
    session
}

fn draining() -> Session {
    let mut session = storing(Side::Dialler);
    session.handle(Input::Drain, START_MS);
    outputs(&mut session);
    session
}

fn leaving() -> Session {
    let mut session = storing(Side::Dialler);
    session.handle(goodbye(), START_MS);
    outputs(&mut session);
    session
}

fn closed() -> Session {
    let mut session = storing(Side::Dialler);
    session.handle(Input::LinkLost("gone".to_owned()), START_MS);
    session
}

/// One of every kind of input, valid where it can be.
fn inputs() -> Vec<Input> {
    let lane = Lane::User;
    let reason = || "why".to_owned();
    let control = |frame| Input::Control(frame);
    vec![
        control(ControlFrame::Heartbeat {
            number: 1,
            sent_ms: 5,
        }),
        control(ControlFrame::HeartbeatReply {
            number: 1,
            sent_ms: 50_000,
        }),
        control(ControlFrame::HeartbeatReply {
            number: 2,
            sent_ms: 50_000,
        }),
        control(ControlFrame::Generation { generation: 1 }),
        control(ControlFrame::GenerationReady { generation: 1 }),
        goodbye(),
        Input::FromSender(lane, SenderFrame::Start(spans(THEIRS))),
        Input::FromSender(
            lane,
            SenderFrame::Base {
                epoch: THEIRS,
                first: 5,
            },
        ),
        Input::FromSender(lane, batch(1)),
        Input::FromSender(lane, batch(2)),
        Input::FromSender(lane, batch(9)),
        Input::FromSender(lane, SenderFrame::Confirm(vec![(THEIRS, 1)])),
        Input::FromReceiver(
            lane,
            ReceiverFrame::Marks {
                marks: marks(OURS),
                refusals: Vec::new(),
            },
        ),
        Input::FromReceiver(lane, acknowledge(1)),
        Input::FromReceiver(lane, acknowledge(2)),
        Input::FromReceiver(lane, ReceiverFrame::Paused { reason: reason() }),
        Input::FromReceiver(lane, ReceiverFrame::Resumed),
        Input::FromReceiver(
            lane,
            ReceiverFrame::Window {
                messages: 1,
                bytes: 1,
            },
        ),
        Input::Lines {
            lane,
            spans: spans(OURS),
        },
        Input::Rows {
            lane,
            rows: vec![row(2)],
            exhausted: true,
        },
        Input::Settled { lane },
        Input::MarksRead {
            lane,
            marks: marks(THEIRS),
            refusals: Vec::new(),
        },
        Input::Stored {
            lane,
            marks: vec![Mark {
                epoch: THEIRS,
                settled: 1,
            }],
            refusals: vec![],
        },
        Input::StorePaused {
            lane,
            reason: reason(),
        },
        Input::Confirmed { lane },
        Input::Heard,
        Input::Ping,
        Input::Grew { lane },
        Input::Grant {
            lane,
            messages: 8,
            bytes: 4_096,
        },
        Input::Malformed(reason()),
        Input::Failed(reason()),
        Input::Drain,
        Input::Tick,
        Input::LinkLost(reason()),
    ]
}

/// The name of a value and, for frames, what is in it; never a payload.
fn brief(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let text = text.replace("Epoch { boot: 7, nonce: 70 }", "ours");
    let text = text.replace("Epoch { boot: 9, nonce: 90 }", "theirs");
    let message = format!("{:?}", message());
    text.replace(&message, "message")
}

type Build = fn() -> Session;

/// Every state with every input. Machines are not copied: each cell builds its state anew.
fn table(states: &[(&str, Build)]) -> String {
    let mut table = String::new();
    for (name, build) in states {
        let _ = writeln!(table, "== {name}");
        for input in inputs() {
            let mut session = build();
            let _ = writeln!(table, "{}", brief(&input));
            session.handle(input, START_MS + 1);
            let state = match session.state() {
                State::Closed(Ending { class, reason }) => format!("Closed({class}: {reason})"),
                state => format!("{state:?}"),
            };
            let _ = writeln!(table, "  => {state}");
            for output in outputs(&mut session) {
                if !matches!(output, Output::Close { .. }) {
                    let _ = writeln!(table, "     {}", brief(&output));
                }
            }
        }
    }
    table
}

#[test]
fn the_table_of_transitions_changes_only_on_purpose() {
    let states: [(&str, Build); 7] = [
        ("opening", || opening(Side::Dialler)),
        ("running, dialler", || running(Side::Dialler)),
        ("running, listener", || running(Side::Listener)),
        ("running, a commit out", || storing(Side::Dialler)),
        ("draining, a commit out", draining),
        ("leaving, a commit out", leaving),
        ("closed", closed),
    ];
    insta::assert_snapshot!("session", table(&states));
}

#[test]
fn the_tables_of_the_lanes_change_only_on_purpose() {
    let mut table = String::new();
    let lane = Lane::User;
    let answer = || ReceiverFrame::Marks {
        marks: marks(OURS),
        refusals: Vec::new(),
    };
    let frames = [
        answer(),
        acknowledge(0),
        acknowledge(1),
        ReceiverFrame::Paused {
            reason: "full".to_owned(),
        },
        ReceiverFrame::Resumed,
        ReceiverFrame::Window {
            messages: 1,
            bytes: 1,
        },
    ];
    let phases = [
        SenderPhase::ReadingLines,
        SenderPhase::AwaitingMarks,
        SenderPhase::Settling,
        SenderPhase::Running,
    ];
    for phase in phases {
        let _ = writeln!(table, "== sender {phase:?}");
        for frame in &frames {
            let mut out = VecDeque::new();
            let mut sender = Sender::new(lane, &mut out);
            if phase != SenderPhase::ReadingLines {
                let span = Span {
                    epoch: OURS,
                    first: 1,
                    last: 1,
                    acknowledged: 0,
                };
                sender.on_lines(vec![span], &mut out).unwrap();
            }
            if phase == SenderPhase::Settling {
                let marks = vec![Mark {
                    epoch: OURS,
                    settled: 1,
                }];
                let frame = ReceiverFrame::Marks {
                    marks,
                    refusals: Vec::new(),
                };
                sender.on_frame(frame, &mut out).unwrap();
            }
            if phase == SenderPhase::Running {
                sender.on_frame(answer(), &mut out).unwrap();
                sender.on_settled(&mut out).unwrap();
                sender.on_rows(vec![row(1)], true, &mut out).unwrap();
            }
            assert_eq!(sender.phase(), phase);
            out.clear();
            let result = sender.on_frame(frame.clone(), &mut out);
            note(&mut table, frame, &sender.phase(), result, &mut out);
        }
    }
    let frames = [
        SenderFrame::Start(spans(THEIRS)),
        SenderFrame::Base {
            epoch: THEIRS,
            first: 4,
        },
        batch(1),
        batch(2),
        SenderFrame::Confirm(vec![(THEIRS, 1)]),
    ];
    for phase in [
        ReceiverPhase::AwaitingStart,
        ReceiverPhase::ReadingMarks,
        ReceiverPhase::Running,
    ] {
        let _ = writeln!(table, "== receiver {phase:?}");
        for frame in &frames {
            let mut out = VecDeque::new();
            let mut receiver = Receiver::new(lane);
            if phase != ReceiverPhase::AwaitingStart {
                receiver
                    .on_frame(SenderFrame::Start(spans(THEIRS)), &mut out)
                    .unwrap();
            }
            if phase == ReceiverPhase::Running {
                receiver
                    .on_marks_read(&marks(THEIRS), &[], &mut out)
                    .unwrap();
            }
            assert_eq!(receiver.phase(), phase);
            out.clear();
            let result = receiver.on_frame(frame.clone(), &mut out);
            note(&mut table, frame, &receiver.phase(), result, &mut out);
        }
    }
    insta::assert_snapshot!("lanes", table);
}

fn note<F: std::fmt::Debug, P: std::fmt::Debug>(
    table: &mut String,
    frame: &F,
    phase: &P,
    result: Result<(), crate::outbox::Fault>,
    out: &mut VecDeque<Output>,
) {
    let end = match result {
        Ok(()) => format!("{phase:?}"),
        Err(fault) => format!("fault, {}: {fault}", fault.class()),
    };
    let _ = writeln!(table, "{}\n  => {end}", brief(frame));
    for output in out.drain(..) {
        let _ = writeln!(table, "     {}", brief(&output));
    }
}

#[test]
fn a_new_session_asks_for_a_sign_of_life_and_for_what_it_holds() {
    let mut session = Session::new(Side::Dialler, START_MS, 50_000);
    let heartbeat = ControlFrame::Heartbeat {
        number: 1,
        sent_ms: 50_000,
    };
    let expected = [
        Output::SendControl(heartbeat),
        Output::ReadLines { lane: Lane::User },
        Output::ReadLines { lane: Lane::System },
    ];
    assert_eq!(outputs(&mut session), expected);
    assert_eq!(
        session.deadline(),
        Some(START_MS + limits::HEARTBEAT_EVERY_MS)
    );
}

#[test]
fn the_answer_to_a_heartbeat_gives_round_trip_and_skew() {
    let mut session = opening(Side::Listener);
    let reply = ControlFrame::HeartbeatReply {
        number: 1,
        sent_ms: 50_120,
    };
    session.handle(Input::Control(reply.clone()), START_MS + 40);
    // The answer was written at our 50,020.
    assert_eq!(
        outputs(&mut session),
        [Output::RoundTrip {
            number: 1,
            ms: 40,
            skew_ms: 100
        }]
    );
    session.handle(Input::Control(reply), START_MS + 50);
    assert_eq!(
        outputs(&mut session),
        [],
        "a second answer says nothing new"
    );
}

#[test]
fn a_ping_is_a_heartbeat_out_of_turn_and_their_number_is_bounded() {
    let mut session = running(Side::Dialler);
    let answer = |number| Input::Control(ControlFrame::HeartbeatReply { number, sent_ms: 0 });
    session.handle(answer(1), START_MS);
    outputs(&mut session);
    session.set_wall_clock(90_000, START_MS + 5);
    session.handle(Input::Ping, START_MS + 5);
    let asked = Output::SendControl(ControlFrame::Heartbeat {
        number: 2,
        sent_ms: 90_000,
    });
    assert_eq!(outputs(&mut session), [asked], "by the clock that was set");
    session.handle(answer(2), START_MS + 12);
    assert!(matches!(
        outputs(&mut session).as_slice(),
        [Output::RoundTrip {
            number: 2,
            ms: 7,
            ..
        }]
    ));
    // A storm of pings at a peer that does not answer.
    for _ in 0..100 {
        session.handle(Input::Ping, START_MS + 20);
    }
    assert_eq!(
        outputs(&mut session).len(),
        limits::HEARTBEATS_UNANSWERED_MAX
    );
}

/// The answer to a heartbeat of this side.
fn heartbeat_answer(number: u64) -> Input {
    Input::Control(ControlFrame::HeartbeatReply { number, sent_ms: 0 })
}

/// Lets time pass until then, deadline by deadline; the heartbeats that went out.
fn pass_until(session: &mut Session, until_ms: u64) -> Vec<u64> {
    let mut heartbeats = Vec::new();
    while let Some(deadline) = session.deadline() {
        let now_ms = deadline.min(until_ms);
        session.handle(Input::Tick, now_ms);
        for output in outputs(session) {
            if let Output::SendControl(ControlFrame::Heartbeat { number, .. }) = output {
                heartbeats.push(number);
            }
        }
        if now_ms == until_ms {
            break;
        }
    }
    heartbeats
}

#[test]
fn a_frame_of_any_stream_is_a_sign_of_life() {
    let silent_ms = START_MS + limits::SILENCE_MS_MAX;
    for frame in [
        Input::Heard,
        Input::FromReceiver(Lane::System, ReceiverFrame::Resumed),
    ] {
        let mut session = running(Side::Listener);
        session.handle(heartbeat_answer(1), START_MS);
        session.handle(frame, silent_ms - 1);
        session.handle(Input::Tick, silent_ms);
        assert_eq!(*session.state(), State::Running);
    }
    let mut session = running(Side::Listener);
    session.handle(heartbeat_answer(1), START_MS);
    session.handle(Input::Tick, silent_ms);
    assert!(matches!(session.state(), State::Closed(_)));
}

#[test]
fn a_session_that_hears_nothing_ends_and_one_whose_heartbeats_are_answered_does_not() {
    let mut session = running(Side::Listener);
    session.handle(heartbeat_answer(1), START_MS);
    pass_until(&mut session, START_MS + limits::SILENCE_MS_MAX - 1);
    assert_eq!(*session.state(), State::Running);
    pass_until(&mut session, START_MS + limits::SILENCE_MS_MAX);
    let State::Closed(Ending { class, reason }) = session.state() else {
        panic!("{:?}", session.state())
    };
    assert_eq!(*class, ErrorClass::Disconnected);
    assert_eq!(reason, "nothing heard for 45000 ms");

    let mut session = running(Side::Listener);
    session.handle(heartbeat_answer(1), START_MS);
    let mut now_ms = START_MS;
    for _ in 0..100 {
        now_ms += limits::HEARTBEAT_EVERY_MS;
        for number in pass_until(&mut session, now_ms) {
            session.handle(heartbeat_answer(number), now_ms);
        }
    }
    assert_eq!(*session.state(), State::Running);
}

/// A link that is dead in one direction: all that the peer says arrives, and it hears nothing.
#[test]
fn a_session_that_is_not_heard_ends_although_it_hears_its_peer() {
    let mut session = running(Side::Listener);
    session.handle(heartbeat_answer(1), START_MS);
    let mut now_ms = START_MS;
    while *session.state() == State::Running {
        now_ms += 1_000;
        pass_until(&mut session, now_ms);
        session.handle(Input::Heard, now_ms);
        let sent_ms = now_ms;
        let number = now_ms;
        session.handle(
            Input::Control(ControlFrame::Heartbeat { number, sent_ms }),
            now_ms,
        );
        outputs(&mut session);
    }
    assert_eq!(now_ms, START_MS + limits::SILENCE_MS_MAX);
    assert!(matches!(
        session.state(),
        State::Closed(Ending {
            class: ErrorClass::Disconnected,
            ..
        })
    ));
}

#[test]
fn lanes_that_do_not_start_end_the_session() {
    let mut session = opening(Side::Dialler);
    let heartbeat = Input::Control(ControlFrame::Heartbeat {
        number: 1,
        sent_ms: 0,
    });
    session.handle(heartbeat, START_MS + limits::OPENING_MS_MAX - 1);
    assert_eq!(*session.state(), State::Opening);
    session.handle(Input::Tick, START_MS + limits::OPENING_MS_MAX);
    assert!(matches!(session.state(), State::Closed(_)));
}

#[test]
fn draining_finishes_the_commit_that_is_out_and_tells_the_peer() {
    let mut session = storing(Side::Dialler);
    session.handle(Input::Drain, START_MS);
    let said = outputs(&mut session);
    assert!(matches!(
        said.as_slice(),
        [Output::SendControl(ControlFrame::Goodbye { .. })]
    ));
    session.handle(Input::FromSender(Lane::User, batch(2)), START_MS + 1);
    session.handle(Input::Grew { lane: Lane::User }, START_MS + 1);
    assert_eq!(outputs(&mut session), []);
    let marks = vec![Mark {
        epoch: THEIRS,
        settled: 1,
    }];
    session.handle(
        Input::Stored {
            lane: Lane::User,
            marks,
            refusals: vec![],
        },
        START_MS + 2,
    );
    let said = outputs(&mut session);
    let [
        Output::SendToSender(_, acknowledge),
        Output::Close { class, .. },
    ] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert!(matches!(acknowledge, ReceiverFrame::Acknowledge { .. }));
    assert_eq!(*class, ErrorClass::ShuttingDown);
}

#[test]
fn draining_without_a_commit_out_ends_at_once_and_a_slow_commit_is_not_waited_for() {
    let mut session = running(Side::Dialler);
    session.handle(Input::Drain, START_MS);
    let said = outputs(&mut session);
    assert!(matches!(
        said.last(),
        Some(Output::Close {
            class: ErrorClass::ShuttingDown,
            ..
        })
    ));

    let mut session = draining();
    session.handle(Input::Tick, START_MS + limits::DRAIN_MS_MAX - 1);
    assert_eq!(*session.state(), State::Draining);
    session.handle(Input::Tick, START_MS + limits::DRAIN_MS_MAX);
    assert!(matches!(session.state(), State::Closed(_)));

    let mut session = draining();
    let (lane, reason) = (Lane::User, "full".to_owned());
    session.handle(Input::StorePaused { lane, reason }, START_MS);
    assert!(
        matches!(session.state(), State::Closed(_)),
        "a full store will not answer in time"
    );
}

#[test]
fn a_session_whose_peer_leaves_still_stores_what_comes_and_sends_nothing_new() {
    let mut session = leaving();
    session.handle(Input::Grew { lane: Lane::User }, START_MS);
    assert_eq!(outputs(&mut session), []);
    let marks = vec![Mark {
        epoch: THEIRS,
        settled: 1,
    }];
    session.handle(Input::FromSender(Lane::User, batch(2)), START_MS);
    session.handle(
        Input::Stored {
            lane: Lane::User,
            marks,
            refusals: vec![],
        },
        START_MS,
    );
    let said = outputs(&mut session);
    assert!(matches!(
        said.as_slice(),
        [Output::SendToSender(..), Output::Store { .. }]
    ));
    session.handle(Input::Tick, START_MS + limits::DRAIN_MS_MAX);
    assert!(matches!(session.state(), State::Closed(_)));
}

#[test]
fn the_end_is_told_once_and_nothing_follows_it() {
    let mut session = running(Side::Dialler);
    session.handle(Input::Malformed("trailing bytes".to_owned()), START_MS);
    let said = outputs(&mut session);
    assert!(matches!(
        said.as_slice(),
        [Output::Close {
            class: ErrorClass::Protocol,
            ..
        }]
    ));
    for input in inputs() {
        session.handle(input, START_MS + limits::SILENCE_MS_MAX * 2);
        assert_eq!(outputs(&mut session), []);
    }
    assert_eq!(session.deadline(), None);
}

#[test]
fn secrets_follow_one_another_and_no_stream_outruns_them() {
    let mut dialler = running(Side::Dialler);
    let mut listener = running(Side::Listener);
    let keep_alive = |session: &mut Session, at: u64| {
        session.handle(
            Input::FromReceiver(Lane::System, ReceiverFrame::Resumed),
            at,
        );
    };
    // What is about secrets, with every heartbeat answered.
    let secrets = |session: &mut Session, at: u64| -> Vec<Output> {
        let mut about_secrets = Vec::new();
        for output in outputs(session) {
            match output {
                Output::SendControl(ControlFrame::Heartbeat { number, .. }) => {
                    session.handle(heartbeat_answer(number), at);
                }
                Output::SendControl(ControlFrame::Goodbye { .. }) | Output::RoundTrip { .. } => {}
                output => about_secrets.push(output),
            }
        }
        outputs(session);
        about_secrets
    };
    for session in [&mut dialler, &mut listener] {
        session.handle(heartbeat_answer(1), START_MS);
        outputs(session);
    }
    let mut due_ms = START_MS;
    for generation in 1..=2 {
        due_ms += limits::GENERATION_EVERY_MS;
        keep_alive(&mut dialler, due_ms);
        keep_alive(&mut listener, due_ms);
        let announce = ControlFrame::Generation { generation };
        let derive = Output::AdvanceGeneration { generation };
        let expected = [derive.clone(), Output::SendControl(announce.clone())];
        assert_eq!(
            secrets(&mut dialler, due_ms),
            expected,
            "derived before it is announced"
        );
        secrets(&mut listener, due_ms);
        listener.handle(Input::Control(announce.clone()), due_ms);
        let ready = ControlFrame::GenerationReady { generation };
        let using = Output::UseGeneration { generation };
        let expected = [derive, using.clone(), Output::SendControl(ready.clone())];
        assert_eq!(secrets(&mut listener, due_ms), expected);
        dialler.handle(Input::Control(ready), due_ms);
        assert_eq!(
            secrets(&mut dialler, due_ms),
            [using],
            "used only when the listener has it"
        );
        let erase = Output::EraseGeneration {
            generation: generation - 1,
        };
        for session in [&mut dialler, &mut listener] {
            session.handle(Input::Tick, due_ms + limits::GENERATION_GRACE_MS);
            assert_eq!(secrets(session, due_ms), std::slice::from_ref(&erase));
        }
    }
    for generation in [2, 4] {
        let mut listener = running(Side::Listener);
        listener.handle(
            Input::Control(ControlFrame::Generation { generation }),
            START_MS,
        );
        let State::Closed(Ending { class, .. }) = listener.state() else {
            panic!()
        };
        assert_eq!(*class, ErrorClass::Protocol);
    }
}

#[test]
fn a_session_is_ready_when_both_lanes_have_started_both_ways() {
    let mut session = opening(Side::Dialler);
    let mut ready = 0;
    for lane in Lane::ALL {
        let answer = ReceiverFrame::Marks {
            marks: marks(OURS),
            refusals: Vec::new(),
        };
        let inputs = [
            Input::FromSender(lane, SenderFrame::Start(spans(THEIRS))),
            Input::MarksRead {
                lane,
                marks: marks(THEIRS),
                refusals: Vec::new(),
            },
            Input::Lines {
                lane,
                spans: spans(OURS),
            },
            Input::FromReceiver(lane, answer),
        ];
        for input in inputs {
            assert_eq!(*session.state(), State::Opening);
            session.handle(input, START_MS);
            let is_ready = |output: &&Output| **output == Output::Event(SessionEvent::Ready);
            ready += outputs(&mut session).iter().filter(is_ready).count();
        }
    }
    assert_eq!(*session.state(), State::Running);
    assert_eq!(ready, 1);
}
