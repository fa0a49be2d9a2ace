//! The kinds of frames, numbered by hand and never reused.
//!
//! One space of numbers serves every stream, so that a frame on the wrong stream is named.

/// `ControlFrame::Heartbeat`.
pub const HEARTBEAT: u8 = 1;
/// `ControlFrame::HeartbeatReply`.
pub const HEARTBEAT_REPLY: u8 = 2;
/// `ControlFrame::Generation`.
pub const GENERATION: u8 = 3;
/// `ControlFrame::GenerationReady`.
pub const GENERATION_READY: u8 = 4;
/// `ControlFrame::Goodbye`.
pub const GOODBYE: u8 = 5;
/// `ControlFrame::Granted`.
pub const GRANTED: u8 = 6;
/// `SenderFrame::Start`.
pub const START: u8 = 16;
/// `SenderFrame::Base`.
pub const BASE: u8 = 17;
/// `SenderFrame::Batch`.
pub const BATCH: u8 = 18;
/// `SenderFrame::Confirm`.
pub const CONFIRM: u8 = 19;
/// `ReceiverFrame::Marks`.
pub const MARKS: u8 = 32;
/// `ReceiverFrame::Acknowledge`.
pub const ACKNOWLEDGE: u8 = 33;
/// `ReceiverFrame::Paused`.
pub const PAUSED: u8 = 34;
/// `ReceiverFrame::Resumed`.
pub const RESUMED: u8 = 35;
/// `ReceiverFrame::Window`.
pub const WINDOW: u8 = 36;
/// A message that travels now or never.
pub const EPHEMERAL: u8 = 48;
/// From here on a kind may be ignored by who does not know it.
pub const OPTIONAL_FIRST: u8 = 128;
/// `ControlFrame::Addresses`: optional, because whoever does not know it hears the same in the next
/// handshake.
pub const ADDRESSES: u8 = 128;
/// `ControlFrame::SeenEpoch`: optional, because whoever does not know it is only told later.
pub const SEEN_EPOCH: u8 = 129;
