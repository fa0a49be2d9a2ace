//! Where in a scenario file something stands, and what is wrong there.

use std::fmt;

/// A line and a column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset in a text.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Place {
        let bytes = text.as_bytes();
        let before = bytes.get(..offset).unwrap_or(bytes);
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Place {
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: String::from_utf8_lossy(in_line).chars().count() + 1,
        }
    }
}

/// The places of one text, found without reading it from its beginning each time.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t [u8],
    /// Where each line begins.
    starts: Vec<usize>,
    /// Letters before every [`CHUNK_BYTES`] of the text.
    letters: Vec<usize>,
}

/// A line of a megabyte is looked through in pieces of this size.
const CHUNK_BYTES: usize = 1_024;

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Lines<'t> {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        let mut before = 0;
        let letters = bytes.chunks(CHUNK_BYTES).map(|chunk| {
            let here = before;
            before += letters_in(chunk);
            here
        });
        let letters = letters.collect();
        Lines {
            text: bytes,
            starts: starts.collect(),
            letters,
        }
    }

    /// The place of a byte offset.
    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied();
        let start = start.unwrap_or_default();
        Place {
            line,
            column: self.letters_before(offset) - self.letters_before(start) + 1,
        }
    }

    fn letters_before(&self, offset: usize) -> usize {
        let chunk = offset / CHUNK_BYTES;
        // Behind the last chunk nothing is left to count.
        let chunk = chunk.min(self.letters.len().saturating_sub(1));
        let before = self.letters.get(chunk).copied().unwrap_or_default();
        let rest = self.text.get(chunk * CHUNK_BYTES..offset);
        before + letters_in(rest.unwrap_or_default())
    }
}

/// Letters whose first byte is here.
fn letters_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What was expected there and what was found.
    pub text: String,
}

/// Characters of a message; what is longer quotes something that nobody reads to its end.
const MESSAGE_CHARS_MAX: usize = 800;

impl Problem {
    /// A problem as it may go to a terminal, on one line.
    pub(crate) fn new(place: Place, text: &str) -> Problem {
        Problem {
            place,
            text: shown(text, MESSAGE_CHARS_MAX),
        }
    }
}

/// A text of somebody else as a message or a report quotes it: what could move the cursor, break the
/// line or turn what follows is escaped, and behind so many characters it ends with `…`.
pub(crate) fn shown(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index >= chars_max {
            shown.push('…');
            break;
        }
        if is_unsafe(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Letters of a word that may be meant for another; a longer one is no word.
const WORD_CHARS_MAX: usize = 64;

/// The known word that somebody probably meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().nth(WORD_CHARS_MAX).is_some() {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        // A third of the letters may be wrong; more is another word.
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace (Levenshtein 1966), a swap of neighbours counting once
/// (Damerau 1964): `strat` is one step from `start`.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let width = right.len() + 1;
    let mut rows: Vec<Vec<usize>> = vec![(0..width).collect()];
    for (row, letter) in left.iter().enumerate() {
        let mut costs = vec![row + 1; width];
        for (column, other) in right.iter().enumerate() {
            let replaced = rows[row][column] + usize::from(letter != other);
            let mut cost = replaced
                .min(rows[row][column + 1] + 1)
                .min(costs[column] + 1);
            let is_swap =
                row > 0 && column > 0 && left[row - 1] == *other && right[column - 1] == *letter;
            if is_swap {
                cost = cost.min(rows[row - 1][column - 1] + 1);
            }
            costs[column + 1] = cost;
        }
        rows.push(costs);
    }
    rows.last()
        .and_then(|row| row.last())
        .copied()
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        let text = "a = 1\nü = x\n";
        assert_eq!(Place::of(text, 0).to_string(), "1:1");
        assert_eq!(Place::of(text, 6).to_string(), "2:1");
        assert_eq!(Place::of(text, 11).to_string(), "2:5");
        assert_eq!(Place::of(text, 999).to_string(), "3:1");
    }

    #[test]
    fn the_index_of_lines_finds_the_same_places() {
        let long = format!("{}\n\n{}x\nü", "ü".repeat(1_500), "ab€".repeat(999));
        for text in ["", "a", "\n", "a = 1\nü = x\n", &long] {
            let lines = Lines::new(text);
            for offset in (0..=text.len() + 2).filter(|at| text.is_char_boundary(*at)) {
                assert_eq!(lines.place(offset), Place::of(text, offset), "{offset}");
            }
            assert_eq!(lines.place(usize::MAX), Place::of(text, text.len()));
        }
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped_and_the_rest_is_not() {
        assert_eq!(shown("\"ü\" 'a'", 20), "\"ü\" 'a'");
        assert_eq!(
            shown("a\u{1b}[2J\nb\u{202e}", 20),
            "a\\u{1b}[2J\\nb\\u{202e}"
        );
        assert_eq!(shown("12345", 5), "12345");
        assert_eq!(shown("123456", 5), "12345…");
    }

    #[test]
    fn a_misspelt_word_finds_the_known_one() {
        let known = ["start", "stop", "restart", "kill"];
        assert_eq!(nearest("strat", known), Some("start"));
        assert_eq!(nearest("sto", known), Some("stop"));
        assert_eq!(nearest("restrat", known), Some("restart"));
        assert_eq!(nearest("explode", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"s".repeat(1 << 20), known), None);
    }
}
