//! What became of links whose other end nobody knows yet.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Strangers, counted since the node started, and what goes on now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Links and first packets turned away within the last hour.
    pub turned_away_recently: u64,
    /// Handshakes of the transport under way now.
    pub half_open: usize,
    /// Links now that have not shown that they know this node's id.
    pub cheap: usize,
    /// Links now between that and the verdict.
    pub costly: usize,
    /// Addresses from which a peer authenticated within a week; links from there go first.
    pub known_prefixes: u64,
    /// How often each thing happened: `retried`, `knocked_wrong`, `accepted`.
    pub counts: BTreeMap<String, u64>,
    /// Known nodes that were refused, by the refusal's class.
    pub refused: BTreeMap<String, u64>,
}

/// Words of [`Strangers::counts`] that stand for somebody turned away, with what people read.
const TURNED_AWAY: [(&str, &str); 13] = [
    ("dropped_links", "too many links"),
    ("dropped_prefix", "too many of one address"),
    ("dropped_half_open", "too many half open"),
    ("half_open_ended", "never finished"),
    ("half_open_excess", "sent too much before a link was up"),
    ("evicted", "made room"),
    ("silent", "said nothing"),
    ("excess", "sent too much"),
    ("knocked_wrong", "did not know this node"),
    ("too_many_knocks", "too many handshakes"),
    ("costly_full", "too many at once"),
    ("proof_missing", "never proved themselves"),
    ("proof_bad", "broke the handshake"),
];

/// One line, without a name before it; the reasons since the start, the most frequent first.
impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turned away within the last hour",
            self.turned_away_recently
        )?;
        let mut reasons: Vec<_> = TURNED_AWAY
            .iter()
            .filter_map(|(word, text)| Some((*self.counts.get(*word)?, text)))
            .filter(|(count, _)| *count > 0)
            .collect();
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        for (index, (count, text)) in reasons.iter().take(3).enumerate() {
            let before = if index == 0 {
                "; since the start "
            } else {
                ", "
            };
            write!(f, "{before}{count} {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use packhorse_actors::listener::Outcome;

    use super::*;

    #[test]
    fn a_person_reads_the_most_frequent_reasons() {
        let counts = [
            ("retried", 900),
            ("silent", 3),
            ("dropped_links", 40),
            ("knocked_wrong", 7),
            ("excess", 1),
            ("evicted", 0),
        ];
        let strangers = Strangers {
            turned_away_recently: 51,
            counts: counts
                .map(|(word, count)| (word.to_owned(), count))
                .into_iter()
                .collect(),
            ..Strangers::default()
        };
        assert_eq!(
            strangers.to_string(),
            "51 turned away within the last hour; since the start 40 too many links, \
             7 did not know this node, 3 said nothing"
        );
    }

    #[test]
    fn everything_that_is_turned_away_has_words_for_people() {
        for outcome in Outcome::ALL {
            let has_words = TURNED_AWAY.iter().any(|(word, _)| *word == outcome.word());
            assert_eq!(has_words, outcome.is_turned_away(), "{}", outcome.word());
        }
    }
}
