//! What a peer may do here: a capability and a pattern for what it may be done to.
//!
//! Nothing is granted unless a pattern includes it, and a pattern with `!` takes away whatever
//! the others gave, in whichever order they stand.
//! A grant says nothing about who holds it; whoever stores it knows.
//!
//! Text form: `message.send:*`, `message.send:backup/*`, `message.send:!backup/secret`,
//! `execute:backup/run`.
//! In a pattern `*` stands for any characters, also none, and `?` for exactly one.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::limits::{GRANT_PATTERN_BYTES_MAX, GRANTS_BYTES_MAX, GRANTS_MAX};
use crate::text::{self, TextError};

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Capability {
    /// Send messages to this node; the pattern is for the topic.
    MessageSend,
    /// Start a command on this node by a message; the pattern is for the topic.
    Execute,
}

impl Capability {
    /// Every capability this version knows.
    pub const ALL: [Capability; 2] = [Capability::MessageSend, Capability::Execute];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Capability::MessageSend => "message.send",
            Capability::Execute => "execute",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Capability {
    type Err = GrantError;

    fn from_str(name: &str) -> Result<Self, GrantError> {
        Self::ALL
            .into_iter()
            .find(|capability| capability.name() == name)
            .ok_or_else(|| GrantError::Capability {
                given: text::clipped(name),
            })
    }
}

/// One capability with one pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Grant {
    capability: Capability,
    excludes: bool,
    pattern: String,
}

impl Grant {
    /// What may, or with `!` may not, be done.
    #[must_use]
    pub const fn capability(&self) -> Capability {
        self.capability
    }

    /// Whether the pattern was written with `!`.
    #[must_use]
    pub const fn excludes(&self) -> bool {
        self.excludes
    }

    /// The pattern, without `!`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    fn concerns(&self, capability: Capability, subject: &str) -> bool {
        self.capability == capability && matches(&self.pattern, subject)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bang = if self.excludes { "!" } else { "" };
        write!(f, "{}:{bang}{}", self.capability, self.pattern)
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (name, scope) = match text.split_once(':') {
            Some((name, scope)) => (name, Some(scope)),
            None => (text, None),
        };
        let capability: Capability = name.parse()?;
        let scope = scope.ok_or(GrantError::NoPattern { capability })?;
        let (excludes, pattern) = match scope.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, scope),
        };
        if pattern.is_empty() {
            return Err(GrantError::NoPattern { capability });
        }
        text::check("the grant's pattern", pattern, GRANT_PATTERN_BYTES_MAX)?;
        Ok(Self {
            capability,
            excludes,
            pattern: pattern.to_owned(),
        })
    }
}

/// What is taken away: one grant as it was given, or, written without a pattern, every grant of a
/// capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// This grant.
    One(Grant),
    /// All of the capability's.
    All(Capability),
}

impl Revocation {
    /// Whether a grant is meant.
    #[must_use]
    pub fn means(&self, grant: &Grant) -> bool {
        match self {
            Self::One(one) => one == grant,
            Self::All(capability) => grant.capability == *capability,
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(grant) => grant.fmt(f),
            Self::All(capability) => capability.fmt(f),
        }
    }
}

impl FromStr for Revocation {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        if text.contains(':') {
            text.parse().map(Self::One)
        } else {
            text.parse().map(Self::All)
        }
    }
}

/// A grant as one peer holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What may, or may not, be done.
    pub grant: Grant,
    /// From when on it counts as absent, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

impl Held {
    /// Whether it still counts.
    #[must_use]
    pub fn is_alive(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }
}

/// All that one peer may do. Empty grants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Held>);

impl Grants {
    /// Nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// These grants, each once, in the order given.
    ///
    /// # Errors
    /// [`GrantError::TooMany`] and [`GrantError::TooLong`]: more than a Verdict can carry.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Result<Self, GrantError> {
        let mut all = Self::none();
        for grant in grants {
            all.insert(grant)?;
        }
        Ok(all)
    }

    /// Adds one without an end; `false` if it was there already.
    ///
    /// # Errors
    /// [`GrantError::TooMany`] and [`GrantError::TooLong`]: more than a Verdict can carry.
    pub fn insert(&mut self, grant: Grant) -> Result<bool, GrantError> {
        self.insert_until(grant, None)
    }

    /// Adds one that ends, or gives the one that is there this end; `false` if nothing changed.
    ///
    /// # Errors
    /// [`GrantError::TooMany`] and [`GrantError::TooLong`]: more than a Verdict can carry.
    pub fn insert_until(
        &mut self,
        grant: Grant,
        until_ms: Option<u64>,
    ) -> Result<bool, GrantError> {
        if let Some(held) = self.0.iter_mut().find(|held| held.grant == grant) {
            let is_changed = held.until_ms != until_ms;
            held.until_ms = until_ms;
            return Ok(is_changed);
        }
        if self.0.len() >= GRANTS_MAX {
            return Err(GrantError::TooMany {
                count: self.0.len() + 1,
            });
        }
        let bytes = self.text_bytes() + grant.to_string().len();
        if bytes > GRANTS_BYTES_MAX {
            return Err(GrantError::TooLong { bytes });
        }
        self.0.push(Held { grant, until_ms });
        Ok(true)
    }

    /// Takes one away; `false` if it was not there.
    pub fn remove(&mut self, grant: &Grant) -> bool {
        let before = self.0.len();
        self.0.retain(|held| held.grant != *grant);
        self.0.len() < before
    }

    /// Whether `capability` may be used on `subject` at `now_ms`, in wall milliseconds: some
    /// pattern includes it, none excludes it. What has ended does neither.
    #[must_use]
    pub fn allows(&self, capability: Capability, subject: &str, now_ms: u64) -> bool {
        let mut included = false;
        for held in &self.0 {
            if !held.is_alive(now_ms) || !held.grant.concerns(capability, subject) {
                continue;
            }
            if held.grant.excludes {
                return false;
            }
            included = true;
        }
        included
    }

    /// Those that still count at `now_ms`, in wall milliseconds.
    #[must_use]
    pub fn alive(&self, now_ms: u64) -> Self {
        Self(
            self.0
                .iter()
                .filter(|held| held.is_alive(now_ms))
                .cloned()
                .collect(),
        )
    }

    /// In the order they were given, without their ends.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter().map(|held| &held.grant)
    }

    /// In the order they were given, with their ends.
    pub fn held(&self) -> std::slice::Iter<'_, Held> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn text_bytes(&self) -> usize {
        self.iter().map(|grant| grant.to_string().len()).sum()
    }
}

/// Why something is not a grant, or one too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Nothing of that name can be granted.
    #[error("unknown capability `{given}`: this version knows message.send and execute")]
    Capability {
        /// What was written.
        given: String,
    },
    /// The pattern is missing; granting everything must be written out.
    #[error("{capability} needs a pattern, for example {capability}:*")]
    NoPattern {
        /// The capability.
        capability: Capability,
    },
    /// The pattern is no clean text.
    #[error(transparent)]
    Pattern(#[from] TextError),
    /// Over the count.
    #[error("{count} grants for one peer, the limit is {GRANTS_MAX}")]
    TooMany {
        /// How many there would be.
        count: usize,
    },
    /// Over the length.
    #[error("the grants of one peer are {bytes} bytes of text, the limit is {GRANTS_BYTES_MAX}")]
    TooLong {
        /// How long they would be.
        bytes: usize,
    },
}

/// Whether the pattern covers the whole subject.
///
/// The last `*` is the only one that ever has to be tried again, so the work is at most
/// pattern × subject steps, whatever a peer puts into a topic.
#[must_use]
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut subject = subject.chars();
    // Where to go on after the last `*`, and how much of the subject it had swallowed by then.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let from_here = subject.clone();
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), from_here.clone()));
                subject = from_here;
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => match retry.take() {
                Some((after, mut swallowed)) => {
                    if swallowed.next().is_none() {
                        return false;
                    }
                    pattern = after.clone();
                    subject = swallowed.clone();
                    retry = Some((after, swallowed));
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        let grants = texts.iter().map(|text| text.parse::<Grant>().expect(text));
        Grants::new(grants).expect("few and short")
    }

    #[test]
    fn grants_allow_what_they_include_and_nothing_else() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "a", false),
            (&[], "", false),
            (&["message.send:*"], "a", true),
            (&["message.send:*"], "", true),
            (&["message.send:a"], "a", true),
            (&["message.send:a"], "A", false),
            (&["message.send:a"], "ab", false),
            (&["message.send:a"], "ba", false),
            (&["message.send:backup/*"], "backup/home", true),
            (&["message.send:backup/*"], "backup/home/2", true),
            (&["message.send:backup/*"], "backup", false),
            (&["message.send:*/done"], "a/b/done", true),
            (&["message.send:*/done"], "a/b/done2", false),
            (&["message.send:a*b*c"], "aXbXc", true),
            (&["message.send:a*b*c"], "abXbc", true),
            (&["message.send:a*b*c"], "acb", false),
            (&["message.send:log?"], "log1", true),
            (&["message.send:log?"], "logü", true),
            (&["message.send:log?"], "log", false),
            (&["message.send:log?"], "log12", false),
            // Exclusion wins in either order, and alone includes nothing.
            (
                &["message.send:*", "message.send:!secret*"],
                "secret",
                false,
            ),
            (
                &["message.send:!secret*", "message.send:*"],
                "secret",
                false,
            ),
            (&["message.send:!secret*", "message.send:*"], "open", true),
            (
                &["message.send:!secret*", "message.send:secret/mine"],
                "secret/mine",
                false,
            ),
            (&["message.send:!a"], "b", false),
            (&["message.send:!*", "message.send:*"], "a", false),
            (&["message.send:a", "message.send:b"], "b", true),
            // A capability says nothing about another one.
            (&["execute:*"], "a", false),
            (&["message.send:*", "execute:!a"], "a", true),
        ];
        for &(texts, topic, allowed) in cases {
            let got = grants(texts).allows(Capability::MessageSend, topic, 0);
            assert_eq!(got, allowed, "{texts:?} on {topic:?}");
        }
    }

    #[test]
    fn sending_and_executing_are_granted_apart() {
        let held = grants(&["message.send:*", "execute:job/*", "execute:!job/secret"]);
        assert!(held.allows(Capability::Execute, "job/build", 0));
        assert!(!held.allows(Capability::Execute, "job/secret", 0));
        assert!(!held.allows(Capability::Execute, "news", 0));
        assert!(held.allows(Capability::MessageSend, "job/secret", 0));
    }

    #[test]
    fn a_grant_that_has_ended_neither_includes_nor_excludes() {
        let grant = |text: &str| text.parse::<Grant>().expect(text);
        let mut held = Grants::none();
        let all = grant("message.send:*");
        assert_eq!(held.insert_until(all.clone(), Some(100)), Ok(true));
        assert_eq!(
            held.insert_until(grant("message.send:!b"), Some(50)),
            Ok(true)
        );
        let allows =
            |held: &Grants, topic, now_ms| held.allows(Capability::MessageSend, topic, now_ms);
        assert!(!allows(&held, "b", 49));
        assert!(allows(&held, "b", 50));
        assert!(allows(&held, "a", 99));
        assert!(!allows(&held, "a", 100));
        // Given again it has the new end, and is still one grant.
        assert_eq!(held.insert(all.clone()), Ok(true));
        assert_eq!(held.insert(all), Ok(false));
        assert!(allows(&held, "a", u64::MAX));
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn a_revocation_means_one_grant_or_all_of_a_capability() {
        let grant = |text: &str| text.parse::<Grant>().expect(text);
        let one: Revocation = "message.send:!a".parse().expect("a revocation");
        assert!(one.means(&grant("message.send:!a")));
        assert!(!one.means(&grant("message.send:a")));
        let all: Revocation = "execute".parse().expect("a revocation");
        assert!(all.means(&grant("execute:a")) && all.means(&grant("execute:!b")));
        assert!(!all.means(&grant("message.send:a")));
        for text in ["message.send:!a", "execute"] {
            let revocation: Revocation = text.parse().expect(text);
            assert_eq!(revocation.to_string(), text);
        }
        for text in ["", "fly", "fly:a", "execute:", "execute:!"] {
            assert!(text.parse::<Revocation>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "message.send:*",
            "message.send:!a/b",
            "message.send:a:b",
            "message.send:!!",
            "execute:backup/*",
            "execute:!a",
        ] {
            let grant: Grant = text.parse().expect(text);
            assert_eq!(grant.to_string(), text);
        }
        let grant: Grant = "message.send:!a/b".parse().expect("a grant");
        assert!(grant.excludes());
        assert_eq!(grant.pattern(), "a/b");
        assert_eq!(grant.capability(), Capability::MessageSend);
    }

    #[test]
    fn what_is_no_grant_is_named_for_what_is_wrong() {
        let long = format!("message.send:{}", "a".repeat(GRANT_PATTERN_BYTES_MAX + 1));
        let cases = [
            ("", "unknown capability ``"),
            (
                "fly:*",
                "unknown capability `fly`: this version knows message.send and execute",
            ),
            ("Message.Send:*", "unknown capability `Message.Send`"),
            (
                "message.send",
                "message.send needs a pattern, for example message.send:*",
            ),
            ("message.send:", "needs a pattern"),
            ("message.send:!", "needs a pattern"),
            ("message.send:a\nb", "control character U+000A"),
            (long.as_str(), "257 bytes long, the limit is 256"),
        ];
        for (text, wrong) in cases {
            let error = text.parse::<Grant>().expect_err(wrong).to_string();
            assert!(error.contains(wrong), "{error} does not say: {wrong}");
        }
    }

    #[test]
    fn a_list_keeps_its_limits_and_holds_each_grant_once() {
        let numbered = |count: usize| {
            Grants::new((0..count).map(|i| format!("message.send:{i}").parse().expect("a grant")))
        };
        let mut full = numbered(GRANTS_MAX).expect("the limit itself");
        let first: Grant = "message.send:0".parse().expect("a grant");
        assert_eq!(full.insert(first.clone()), Ok(false));
        assert_eq!(full.len(), GRANTS_MAX);
        assert!(full.remove(&first));
        assert!(!full.remove(&first));
        assert_eq!(
            numbered(GRANTS_MAX + 1),
            Err(GrantError::TooMany { count: 65 })
        );
        let long = |i: usize| format!("message.send:{i}{}", "a".repeat(250)).parse::<Grant>();
        let error = Grants::new((0..8).map(|i| long(i).expect("a grant"))).expect_err("too long");
        assert_eq!(error, GrantError::TooLong { bytes: 8 * 264 });
    }

    /// Too simple to be wrong, and exponential.
    fn plainly_matches(pattern: &[char], subject: &[char]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                (0..=subject.len()).any(|skip| plainly_matches(rest, &subject[skip..]))
            }
            (['?', rest @ ..], [_, subject @ ..]) => plainly_matches(rest, subject),
            ([wanted, rest @ ..], [found, subject @ ..]) if wanted == found => {
                plainly_matches(rest, subject)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_their_plain_model_does(pattern in "[ab*?]{0,8}", subject in "[abc]{0,8}") {
            let model = plainly_matches(
                &pattern.chars().collect::<Vec<_>>(),
                &subject.chars().collect::<Vec<_>>(),
            );
            prop_assert_eq!(matches(&pattern, &subject), model);
        }
    }

    #[test]
    fn a_hostile_topic_costs_no_more_than_its_length_times_the_pattern() {
        let pattern = "*a".repeat(GRANT_PATTERN_BYTES_MAX / 2);
        let subject = "a".repeat(256) + "b";
        assert!(!matches(&pattern, &subject));
    }
}
