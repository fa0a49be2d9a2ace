//! How far the two ends of a lane have come, and how that is called in a fault.

/// How far a sender has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderPhase {
    /// The store was asked what it holds.
    ReadingLines,
    /// Start is out.
    AwaitingMarks,
    /// What the peer had already is being deleted; only then rows are loaded.
    Settling,
    /// Messages flow.
    Running,
}

impl SenderPhase {
    pub(super) const fn name(self) -> &'static str {
        match self {
            SenderPhase::ReadingLines => "reading its lines",
            SenderPhase::AwaitingMarks => "awaiting marks",
            SenderPhase::Settling => "settling what was there",
            SenderPhase::Running => "running",
        }
    }
}

/// How far a receiver has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverPhase {
    /// The peer has not said what it holds.
    AwaitingStart,
    /// The store was asked how far it is.
    ReadingMarks,
    /// Messages flow.
    Running,
}

impl ReceiverPhase {
    pub(super) const fn name(self) -> &'static str {
        match self {
            ReceiverPhase::AwaitingStart => "awaiting start",
            ReceiverPhase::ReadingMarks => "reading its marks",
            ReceiverPhase::Running => "running",
        }
    }
}
