//! News that comes behind what has happened since.

use super::*;

/// The dial that lost a crossing ends behind the session that won it: the peer stays connected.
#[tokio::test(start_paused = true)]
async fn news_of_an_older_dial_hides_no_session_that_lives() {
    let mut world = World::new(1).await;
    world.start(false).await;
    world.board.update(ONE, |line| {
        line.set_state(PeerState::Connected, 1);
        line.link = Some("quic://127.0.0.1:1".to_owned());
    });
    let exit = SessionExit::blaming(Blame::Nobody, ErrorClass::Busy, "crossing dial");
    world.fake.retry.tell(RetryMsg::Over {
        peer: ONE,
        exit,
        retry_after_ms: Some(2_000),
    });
    world.fake.retry.tell(RetryMsg::Connected(ONE));
    world.pass(MINUTE).await;
    let line = world.board.line(ONE);
    assert_eq!(line.state, PeerState::Connected);
    assert_eq!(line.next_attempt_ms, None);
}
