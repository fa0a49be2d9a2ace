//! What running commands are told while the worker stops.

use tokio::sync::watch;

/// From patient to impatient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Go on.
    #[default]
    Work,
    /// Come to an end by yourself; nothing new is begun.
    Finish,
    /// Be ended, in order.
    Terminate,
    /// Be ended, at once.
    Kill,
}

/// Hears orders.
#[derive(Clone, Debug)]
pub(crate) struct Orders(watch::Receiver<Order>);

impl Orders {
    pub(crate) fn new() -> (watch::Sender<Order>, Orders) {
        let (sender, receiver) = watch::channel(Order::Work);
        (sender, Orders(receiver))
    }

    /// What is told now.
    pub(crate) fn now(&self) -> Order {
        *self.0.borrow()
    }

    /// Resolves when this order or a harder one is given.
    pub(crate) async fn until(&self, order: Order) {
        // A worker that is gone without a word gives the hardest one.
        let _ = self.0.clone().wait_for(|now| *now >= order).await;
    }
}
