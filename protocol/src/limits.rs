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
/// Most headers of a message: with empty values they would otherwise cost memory that
/// no byte limit sees.
pub const HEADERS_MAX: usize = 64;
/// Longest topic, so that a topic fits in one line of a log.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Longest idempotency key.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest node or peer name.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest human reason in a refusal or goodbye.
pub const REASON_BYTES_MAX: usize = 256;
/// Longest text of a request to be paired: one sentence that a person reads in a list.
pub const REQUEST_BYTES_MAX: usize = 256;
/// Most address hints one node says about itself.
pub const ADDRESSES_MAX: usize = 4;
/// Longest address hint, `quic://HOST:PORT`: a name of 246 bytes fits, real ones are far shorter.
pub const ADDRESS_BYTES_MAX: usize = 259;
/// Most grants of one peer: they travel in one Verdict.
pub const GRANTS_MAX: usize = 64;
/// All grants of one peer as text: they travel in one Verdict of 4 KiB, which also carries
/// a name and four addresses (1.1 KiB).
pub const GRANTS_BYTES_MAX: usize = 2 << 10;
/// Longest pattern of a grant: as long as what it is matched with.
pub const GRANT_PATTERN_BYTES_MAX: usize = TOPIC_BYTES_MAX;

/// Frame plaintext on lane and control streams: one full message, its headers and
/// topic (1 MiB + 4 KiB + 256 B), and room for the batch head.
pub const FRAME_PLAINTEXT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);
/// Stream numbers below the highest seen that are still told apart; older ones are refused.
pub const STREAM_WINDOW: u32 = 1_024;
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

/// Rows a sender asks its store for at once: four batches, one window.
pub const LOAD_MESSAGES_MAX: usize = 1_024;
/// Payload bytes a sender asks its store for at once. With the window it bounds what
/// one lane holds in memory: 1 MiB waiting here and 4 MiB on the way.
pub const LOAD_BYTES_MAX: usize = 1 << 20;
/// A sender asks for more rows when it holds fewer than this.
pub const LOAD_BELOW_MESSAGES: usize = 256;
/// A sender asks for more rows when it holds fewer payload bytes than this.
pub const LOAD_BELOW_BYTES: usize = 256 << 10;
/// A store that was full is asked again after this long.
pub const PAUSE_RETRY_MS: u64 = 1_000;
/// Both sides have told Start and Marks on both lanes within this, or the session ends.
/// Generous: the answer may wait behind a slow disk.
pub const OPENING_MS_MAX: u64 = 30_000;
/// A superseded secret generation is kept this long after both sides confirmed the next,
/// for streams that were opened under it and are still on the way.
pub const GENERATION_GRACE_MS: u64 = 10_000;
/// Heartbeats without an answer that are remembered: the silence limit ends the session first.
pub const HEARTBEATS_UNANSWERED_MAX: usize = 8;

/// A heartbeat goes out this often.
pub const HEARTBEAT_EVERY_MS: u64 = 15_000;
/// A session that heard nothing for this long is dead.
pub const SILENCE_MS_MAX: u64 = 45_000;
/// So is one whose heartbeat had no answer for this long: a peer that is heard need not hear.
pub const HEARTBEAT_ANSWER_MS_MAX: u64 = 30_000;
/// How long a draining session waits for its outstanding commit.
pub const DRAIN_MS_MAX: u64 = 3_000;
/// A new secret generation is announced this often.
pub const GENERATION_EVERY_MS: u64 = 15 * 60 * 1_000;

const _: () = assert!(BATCH_MESSAGES_MAX <= WINDOW_MESSAGES);
const _: () = assert!(BATCH_BYTES_TARGET <= WINDOW_BYTES);
const _: () = assert!(PAYLOAD_BYTES_MAX <= WINDOW_BYTES);
// The full frame of acknowledgement: 1,024 refusals of at most 14 + 9 + 3 bytes.
const _: () = assert!(REFUSALS_UNCONFIRMED_MAX * 32 + 64 <= FRAME_PLAINTEXT_BYTES_MAX);
// The full frame of Start: 4,096 spans of at most 14 + 27 bytes.
const _: () = assert!(EPOCHS_KEPT_MAX * 48 + 64 <= FRAME_PLAINTEXT_BYTES_MAX);
// A batch that is closed just under the target and holds the most messages with the most
// headers still fits: each header costs up to 6 bytes of lengths, each message up to 40.
const _: () = assert!(
    BATCH_BYTES_TARGET + BATCH_MESSAGES_MAX * (HEADERS_MAX * 6 + 40) + 64
        <= FRAME_PLAINTEXT_BYTES_MAX
);
const _: () = assert!(WINDOW_MESSAGES <= REFUSALS_UNCONFIRMED_MAX);
const _: () = assert!(HEARTBEATS_UNANSWERED_MAX as u64 * HEARTBEAT_EVERY_MS > SILENCE_MS_MAX);
const _: () = assert!(
    PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX + TOPIC_BYTES_MAX + 1_024 <= FRAME_PLAINTEXT_BYTES_MAX
);
const _: () = assert!(HEARTBEAT_EVERY_MS * 2 < SILENCE_MS_MAX);
// A link that is dead one way is noticed as soon as one that is dead both ways.
const _: () = assert!(HEARTBEAT_EVERY_MS + HEARTBEAT_ANSWER_MS_MAX <= SILENCE_MS_MAX);
