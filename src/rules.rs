//! Which class a message gets: topic rules, then what its sender asked for, then the default.
//!
//! The first rule whose patterns fit decides, and beats what the sender asked for unless it is
//! overridable. Nothing here looks at a message's content or changes a rule.

use packhorse_protocol::grant::matches;
use packhorse_protocol::limits::GRANT_PATTERN_BYTES_MAX;
use packhorse_protocol::message::DeliveryClass;
use packhorse_protocol::text::{self, TextError};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::{NodeId, class};

/// Most topic rules: every message is held against each of them.
pub const RULES_MAX: usize = 256;

/// One rule of the settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicRule {
    /// The topics: `*` stands for any characters, `?` for exactly one.
    #[serde(deserialize_with = "pattern")]
    pub pattern: String,
    /// The recipients, by a pattern for their names here or by a whole node id; all when left out.
    #[serde(default, deserialize_with = "some_pattern")]
    pub peer: Option<String>,
    /// What such messages are.
    #[serde(deserialize_with = "class::deserialize")]
    pub class: DeliveryClass,
    /// Whether a sender that asks for another class gets it.
    #[serde(default)]
    pub overridable: bool,
}

impl TopicRule {
    /// A rule for these topics, whoever they go to, which no sender overrides.
    ///
    /// # Errors
    /// A pattern that is empty, too long, or holds a control character.
    pub fn new(pattern: impl Into<String>, class: DeliveryClass) -> Result<TopicRule, TextError> {
        let pattern = pattern.into();
        check_pattern(&pattern)?;
        Ok(TopicRule {
            pattern,
            peer: None,
            class,
            overridable: false,
        })
    }

    fn concerns(&self, topic: &str, name: &str, id: NodeId) -> bool {
        let is_recipient = |peer: &String| matches(peer, name) || *peer == id.to_string();
        matches(&self.pattern, topic) && self.peer.as_ref().is_none_or(is_recipient)
    }
}

/// All rules of a node, in their order, and what is left when none fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRules {
    /// The first that fits decides.
    pub rules: Vec<TopicRule>,
    /// For topics without a rule whose sender asks for nothing.
    pub default: DeliveryClass,
}

impl Default for ClassRules {
    /// No rule, and every message is tried until it is delivered.
    fn default() -> ClassRules {
        ClassRules {
            rules: Vec::new(),
            default: DeliveryClass::Critical,
        }
    }
}

impl ClassRules {
    /// The class of a message on this topic for this peer.
    #[must_use]
    pub fn class(
        &self,
        topic: &str,
        peer: (&str, NodeId),
        asked: Option<DeliveryClass>,
    ) -> DeliveryClass {
        let (name, id) = peer;
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.concerns(topic, name, id));
        match (rule, asked) {
            (Some(rule), Some(asked)) if rule.overridable => asked,
            (Some(rule), _) => rule.class,
            (None, asked) => asked.unwrap_or(self.default),
        }
    }
}

fn check_pattern(pattern: &str) -> Result<(), TextError> {
    text::check("the rule's pattern", pattern, GRANT_PATTERN_BYTES_MAX)
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    if pattern.is_empty() {
        return Err(D::Error::custom("the rule's pattern is empty: `*` is all"));
    }
    check_pattern(&pattern).map_err(D::Error::custom)?;
    Ok(pattern)
}

fn some_pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    pattern(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use DeliveryClass::{Critical, Ephemeral, Moderate};

    use super::*;

    fn rule(pattern: &str, class: DeliveryClass) -> TopicRule {
        TopicRule::new(pattern, class).expect("a pattern")
    }

    #[test]
    fn the_first_rule_that_fits_beats_the_sender_who_beats_the_default() {
        let id = crate::testing::node_id();
        let rules = ClassRules {
            rules: vec![
                TopicRule {
                    peer: Some("mill*".to_owned()),
                    ..rule("*", Moderate)
                },
                TopicRule {
                    peer: Some(id.to_string()),
                    ..rule("by-id", Moderate)
                },
                TopicRule {
                    overridable: true,
                    ..rule("metrics/*", Ephemeral)
                },
                rule("orders?", Critical),
            ],
            default: Moderate,
        };
        let cases = [
            // topic, peer, asked for, given
            ("other", "barn", None, Moderate),
            ("other", "barn", Some(Critical), Critical),
            ("orders1", "barn", None, Critical),
            ("orders1", "barn", Some(Ephemeral), Critical),
            ("orders12", "barn", Some(Ephemeral), Ephemeral),
            ("metrics/cpu", "barn", None, Ephemeral),
            ("metrics/cpu", "barn", Some(Critical), Critical),
            ("metrics", "barn", None, Moderate),
            ("orders1", "mill-2", Some(Critical), Moderate),
            ("metrics/cpu", "mill", Some(Critical), Moderate),
            ("by-id", "barn", Some(Critical), Moderate),
        ];
        for (topic, peer, asked, given) in cases {
            let found = rules.class(topic, (peer, id), asked);
            assert_eq!(found, given, "{topic} for {peer}, asked {asked:?}");
        }
    }

    #[test]
    fn without_rules_the_sender_decides_and_critical_is_the_default() {
        let rules = ClassRules::default();
        let peer = ("barn", crate::testing::node_id());
        assert_eq!(rules.class("orders", peer, None), Critical);
        assert_eq!(rules.class("orders", peer, Some(Ephemeral)), Ephemeral);
    }
}
