//! The store's actor: keeps one writer thread running.
//!
//! * owns: the task that holds the current writer thread, and has it look at the disk when nothing
//!   else does
//! * listens to: the thread's end
//! * tells: nobody
//! * dies when: the thread panicked (restartable) or the engine takes no more writes (fatal)
//! * comes back with: a new thread that takes the queued jobs back
//!
//! It never touches a row: handles send jobs to the queue, and the queue outlives this actor.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    store::{EngineError, Opened, StoreHandle, Writer, WriterEnd},
    supervise::{Cause, Fatal},
};

/// How often the disk is looked at while nothing is written: so soon it is noticed that space is
/// back.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The store actor's messages.
#[derive(Debug)]
pub(crate) enum StoreKeeperMsg {
    /// From its own task: the writer thread ended.
    Ended(WriterEnd),
}

/// The store actor.
#[derive(Debug)]
pub(crate) struct StoreKeeper {
    /// The opened store, owned by the tree.
    pub(crate) opened: Arc<Opened>,
}

/// The task that holds the writer; both end with the actor.
#[derive(Debug)]
pub(crate) struct StoreKeeperState {
    holding: JoinSet<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// Waits for the writer's end; stops it first when asked to.
async fn hold(
    mut writer: Writer,
    store: StoreHandle,
    stop: oneshot::Receiver<()>,
    myself: ActorRef<StoreKeeperMsg>,
) {
    let look = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Before every batch the writer looks, also before an empty one.
            let _ = store.pulse().await;
        }
    };
    tokio::select! {
        () = look => {}
        end = writer.ended() => {
            let _ = myself.cast(StoreKeeperMsg::Ended(end));
        }
        _ = stop => {
            // Queued jobs are committed and answered before the thread ends.
            writer.stop();
            writer.ended().await;
        }
    }
}

impl Actor for StoreKeeper {
    type Msg = StoreKeeperMsg;
    type State = StoreKeeperState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let writer = self.opened.start_writer()?;
        let (stop, stopped) = oneshot::channel();
        let mut holding = JoinSet::new();
        holding.spawn(hold(writer, self.opened.handle(), stopped, myself));
        Ok(StoreKeeperState {
            holding,
            stop: Some(stop),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        StoreKeeperMsg::Ended(end): Self::Msg,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Err(match end {
            WriterEnd::Failed(error) => {
                let cause = match error {
                    EngineError::Full => Cause::StorageFull,
                    _ => Cause::StorageFailed,
                };
                let reason = error.to_string();
                Fatal { cause, reason }.into()
            }
            other => format!("the writer thread ended: {other:?}").into(),
        })
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children; without this, ractor's default would stop it for a stray event.
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // The root's deadline bounds the wait.
        drop(state.stop.take());
        while state.holding.join_next().await.is_some() {}
        Ok(())
    }
}
