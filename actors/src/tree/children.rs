//! The root's children: how each is started, and how often it may be started again.
//!
//! Each incarnation gets a wiring of its own, so that the root knows when nothing of it is left.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ractor::{ActorCell, SpawnErr};
use tokio::sync::Mutex;

use crate::{
    events::EventBus,
    inbox::{Inbox, InboxHandle},
    link::{QuicDialler, QuicListener},
    listener::Listener,
    retry::{Retry, RetryHandle, RetryMsg},
    session::{SessionSupervisor, SessionsHandle, SessionsMsg, Wiring},
    store::Opened,
    store_keeper::StoreKeeper,
    supervise::{Birth, Budget, ChildSpec, SESSIONS, StartChild},
};

/// Names of listeners in the tree; one beyond them shares the last name.
const LISTENERS: [&str; 8] = [
    "listener",
    "listener 2",
    "listener 3",
    "listener 4",
    "listener 5",
    "listener 6",
    "listener 7",
    "listener 8",
];

fn budget(restarts_max: usize, window_s: u64, delay_first_ms: u64, delay_max_ms: u64) -> Budget {
    Budget {
        restarts_max,
        window: Duration::from_secs(window_s),
        delay_first: Duration::from_millis(delay_first_ms),
        delay_max: Duration::from_millis(delay_max_ms),
    }
}

fn starter<F>(start: impl Fn(Birth) -> F + Send + Sync + 'static) -> StartChild
where
    F: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
{
    Arc::new(move |birth| Box::pin(start(birth)))
}

/// The wiring of one incarnation.
fn wiring_of(birth: &Birth, wiring: &Wiring) -> Wiring {
    Wiring {
        life: birth.life(),
        ..wiring.clone()
    }
}

pub(super) fn store(opened: &Arc<Opened>) -> ChildSpec {
    let opened = Arc::clone(opened);
    ChildSpec {
        name: "store",
        vacate: Box::new(|| ()),
        budget: budget(3, 60, 100, 5_000),
        stop_within: Duration::from_secs(10),
        start: starter(move |birth| {
            let actor = StoreKeeper {
                opened: Arc::clone(&opened),
            };
            async move { Ok(birth.spawn(actor, (), |_| true).await?.cell()) }
        }),
    }
}

pub(super) fn event_bus(wiring: &Wiring) -> ChildSpec {
    let wiring = wiring.clone();
    ChildSpec {
        name: "event bus",
        vacate: Box::new(|| ()),
        budget: budget(5, 10, 50, 1_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |birth| {
            let actor = EventBus {
                env: wiring.env.clone(),
                store: wiring.store.clone(),
                queue: wiring.events.queue(),
            };
            async move { Ok(birth.spawn(actor, (), |_| true).await?.cell()) }
        }),
    }
}

pub(super) fn inbox(wiring: &Wiring, inbox: &InboxHandle) -> ChildSpec {
    let (wiring, inbox) = (wiring.clone(), inbox.clone());
    let gone = inbox.clone();
    ChildSpec {
        name: "inbox",
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 5_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |birth| {
            let actor = Inbox {
                env: wiring.env.clone(),
                store: wiring.store.clone(),
                handle: inbox.clone(),
            };
            let inbox = inbox.clone();
            async move {
                let actor = birth.spawn(actor, (), |_| false).await?;
                inbox.publish(actor.clone());
                Ok(actor.cell())
            }
        }),
    }
}

pub(super) fn retry(
    wiring: &Wiring,
    retry: &RetryHandle,
    sessions: &SessionsHandle,
    hold_links: bool,
) -> ChildSpec {
    let (wiring, retry, sessions) = (wiring.clone(), retry.clone(), sessions.clone());
    let gone = retry.clone();
    ChildSpec {
        name: "retry scheduler",
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 5_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |birth| {
            let actor = Retry {
                env: wiring.env.clone(),
                store: wiring.store.clone(),
                sessions: sessions.clone(),
                board: wiring.board.clone(),
                events: wiring.events.clone(),
                hold_links,
            };
            let retry = retry.clone();
            async move {
                let actor = birth.spawn(actor, (), RetryMsg::is_own).await?;
                retry.publish(actor.clone());
                Ok(actor.cell())
            }
        }),
    }
}

pub(super) fn sessions(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    retry: &RetryHandle,
    dialler: Arc<QuicDialler>,
) -> ChildSpec {
    let (wiring, sessions, retry) = (wiring.clone(), sessions.clone(), retry.clone());
    let dials = Arc::new(AtomicU64::new(0));
    let gone = sessions.clone();
    let is_own = |message: &SessionsMsg| {
        matches!(
            message,
            SessionsMsg::Dialled { .. } | SessionsMsg::Ended { .. } | SessionsMsg::Overdue { .. }
        )
    };
    ChildSpec {
        name: SESSIONS,
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 2_000),
        stop_within: Duration::from_secs(6),
        start: starter(move |birth| {
            let actor = SessionSupervisor::new(
                wiring_of(&birth, &wiring),
                Arc::clone(&dialler),
                retry.clone(),
                sessions.clone(),
                Arc::clone(&dials),
            );
            let (sessions, retry) = (sessions.clone(), retry.clone());
            async move {
                let actor = birth.spawn(actor, (), is_own).await?;
                sessions.publish(actor.clone());
                // A former incarnation's sessions died with it; at the first start nobody hears it.
                // ORDER: only who can be reached is dialled through.
                retry.tell(RetryMsg::AllOver);
                Ok(actor.cell())
            }
        }),
    }
}

pub(super) fn listener(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    endpoint: QuicListener,
    index: usize,
) -> ChildSpec {
    let (wiring, sessions) = (wiring.clone(), sessions.clone());
    let endpoint = Arc::new(Mutex::new(endpoint));
    ChildSpec {
        name: LISTENERS[index.min(LISTENERS.len() - 1)],
        vacate: Box::new(|| ()),
        budget: budget(10, 60, 200, 10_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |birth| {
            let actor = Listener {
                wiring: wiring_of(&birth, &wiring),
                sessions: sessions.clone(),
                endpoint: Arc::clone(&endpoint),
            };
            async move { Ok(birth.spawn(actor, (), |_| true).await?.cell()) }
        }),
    }
}
