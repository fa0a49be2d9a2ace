//! A nudge that every actor understands, whatever its messages are.
//!
//! A tiny actor is started below the one that is nudged, and ends at once. The wrapper around the
//! nudged actor sees the supervision event between two messages, so an answer proves that its loop
//! moves. Actors need no message for it.

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

/// No such message is ever sent: the type is what the wrapper knows the tiny actor by.
#[derive(Debug)]
pub(super) struct PokeMsg;

struct Poke;

impl Actor for Poke {
    type Msg = PokeMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<PokeMsg>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(
        &self,
        myself: ActorRef<PokeMsg>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        myself.stop(None);
        Ok(())
    }
}

/// Nudges an actor. The nudge is over when the tiny actor has ended.
pub(crate) async fn poke(cell: ActorCell) -> Result<(), SpawnErr> {
    let (_, ended) = Actor::spawn_linked(None, Poke, (), cell).await?;
    // It cannot panic, and nobody needs to know when it has ended.
    let _ = ended.await;
    Ok(())
}

/// Whether an event is about a nudge.
pub(super) fn is_poke(cell: &ActorCell) -> bool {
    cell.is_message_type_of::<PokeMsg>() == Some(true)
}
