//! Every bound of the wire protocol, with its unit and its reason.
//!
//! A number that is not here does not limit anything.
//! This file never holds behaviour: what happens at the edge stands where the limit is checked.

/// Lowest protocol version this build speaks.
pub const VERSION_LOWEST: u16 = 1;
/// Highest protocol version this build speaks.
pub const VERSION_HIGHEST: u16 = 1;

/// Largest message payload: over it a file transfer is the right tool.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest sum of a message's header names and values.
pub const HEADER_BYTES_MAX: usize = 4 << 10;
/// Longest topic, so that a topic fits in one line of a log.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Longest idempotency key.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest node or peer name.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest human reason in a refusal or goodbye.
pub const REASON_BYTES_MAX: usize = 256;
/// Most address hints one node says about itself.
pub const ADDRESSES_MAX: usize = 4;
/// Longest address hint: a DNS name (253) and `:65535`.
pub const ADDRESS_BYTES_MAX: usize = 259;

/// Frame plaintext on lane and control streams: one full message, its headers and
/// topic (1 MiB + 4 KiB + 256 B), and room for the batch head.
pub const FRAME_PLAINTEXT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);
/// Frame plaintext on bulk streams.
pub const BULK_FRAME_PLAINTEXT_BYTES_MAX: usize = 64 << 10;

/// Unsettled messages per lane and direction.
pub const WINDOW_MESSAGES: usize = 1_024;
/// Unsettled payload bytes per lane and direction; one message larger than what is left waits.
pub const WINDOW_BYTES: usize = 4 << 20;
/// Messages in one batch frame: the group that one commit of the recipient takes well.
pub const BATCH_MESSAGES_MAX: usize = 256;
/// Payload bytes after which a batch frame is closed.
pub const BATCH_BYTES_TARGET: usize = 256 << 10;
/// Unconfirmed refusals at which a receiver stops reading the lane.
pub const REFUSALS_UNCONFIRMED_MAX: usize = 1_024;
/// Epochs of one peer for which marks are kept.
pub const EPOCHS_KEPT_MAX: usize = 4_096;

/// A heartbeat goes out this often.
pub const HEARTBEAT_EVERY_MS: u64 = 15_000;
/// A session that heard nothing for this long is dead.
pub const SILENCE_MS_MAX: u64 = 45_000;
/// How long a draining session waits for its outstanding commit.
pub const DRAIN_MS_MAX: u64 = 3_000;
/// A new secret generation is announced this often.
pub const GENERATION_EVERY_MS: u64 = 15 * 60 * 1_000;

const _: () = assert!(BATCH_MESSAGES_MAX <= WINDOW_MESSAGES);
const _: () = assert!(BATCH_BYTES_TARGET <= WINDOW_BYTES);
const _: () = assert!(PAYLOAD_BYTES_MAX <= WINDOW_BYTES);
const _: () = assert!(
    PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX + TOPIC_BYTES_MAX + 1_024 <= FRAME_PLAINTEXT_BYTES_MAX
);
const _: () = assert!(HEARTBEAT_EVERY_MS * 2 < SILENCE_MS_MAX);
