//! A condition over a JSON document: `$.peers[name=right].state == 'connected'`.
//!
//! ```text
//! [every | any | no] PATH[.count()] TEST
//!
//! PATH   $  .key  .'key with spaces'  [0]  [-1]  [*]  [key=value]
//! TEST   == LITERAL   != LITERAL   < <= > >= NUMBER   contains LITERAL   exists   missing
//! LITERAL  'text'  "text"  12  -0.5  true  false  null
//! ```
//!
//! A path with `[*]` or `[key=value]` finds several values. Unless `any` or `no` stands in front the
//! test must hold for every one of them, and there must be one. `exists` and `missing` ask each of what
//! the last `[*]` or `[key=value]` found whether the rest of the path leads anywhere in it.
//! `.count()` takes no such word in front: it counts the values of a path with `[*]` or `[key=value]`,
//! and otherwise the elements of the one list or the keys of the one table there, which must be there.
//! It never changes anything, and it never fails on a document: what is not there is not there.

mod path;

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use self::path::{JsonPath, Scanner};

/// Characters of a found document that a message repeats.
const SHOWN_CHARS_MAX: usize = 160;

/// A test of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    quantifier: Quantifier,
    path: JsonPath,
    is_count: bool,
    test: Test,
}

/// For how many of the values the test must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    Every,
    Any,
    No,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Compare(Comparison, Value),
    Contains(Value),
    Exists,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// Where in the text, in bytes.
    pub offset: usize,
    text: String,
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConditionError {}

impl Condition {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Condition, ConditionError> {
        let mut scanner = Scanner::new(text);
        let words = [
            ("every", Quantifier::Every),
            ("any", Quantifier::Any),
            ("no", Quantifier::No),
        ];
        let start = scanner.offset();
        let word = words.into_iter().find(|(word, _)| scanner.word(word));
        let quantifier = word.map_or(Quantifier::Every, |(_, quantifier)| quantifier);
        let path = JsonPath::read(&mut scanner)?;
        let is_count = scanner.sign(".count()");
        if let Some((word, _)) = word.filter(|_| is_count) {
            let text = format!("`{word}` and `.count()` do not go together: a count is one number");
            return Err(scanner.error_at(start, &text));
        }
        let at = scanner.offset();
        let test = read_test(&mut scanner)?;
        if is_count && !matches!(test, Test::Compare(..)) {
            return Err(scanner.error_at(at, "a count is compared: ==, !=, <, <=, > or >="));
        }
        if !scanner.is_at_end() {
            return Err(scanner.error("the condition ends before this"));
        }
        Ok(Condition {
            text: text.to_owned(),
            quantifier,
            path,
            is_count,
            test,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds; if not, what was seen instead.
    pub fn judge(&self, document: &Value) -> Result<(), String> {
        let found = self.path.find(document);
        if self.is_count {
            return self.judge_count(&found);
        }
        match self.test {
            Test::Exists => return self.judge_presence(document, &found, true),
            Test::Missing => return self.judge_presence(document, &found, false),
            _ => {}
        }
        let holds = |value: &&Value| self.test.holds(value);
        let is_met = match self.quantifier {
            Quantifier::Every => !found.is_empty() && found.iter().all(holds),
            Quantifier::Any => found.iter().any(holds),
            Quantifier::No => !found.iter().any(holds),
        };
        if is_met {
            return Ok(());
        }
        let offending = match self.quantifier {
            Quantifier::Every => found.iter().find(|value| !holds(value)),
            Quantifier::Any => None,
            Quantifier::No => found.iter().find(|value| holds(value)),
        };
        Err(match (offending, found.as_slice()) {
            (Some(value), _) | (None, [value]) => format!("{} is {}", self.path, shown(value)),
            (None, []) => format!("{} is not there", self.path),
            (None, several) => {
                let several = Value::from_iter(several.iter().map(|value| (*value).clone()));
                format!("{} is one of {}", self.path, shown(&several))
            }
        })
    }

    fn judge_count(&self, found: &[&Value]) -> Result<(), String> {
        let count = if self.path.finds_several() {
            found.len()
        } else {
            match found {
                [Value::Array(items)] => items.len(),
                [Value::Object(fields)] => fields.len(),
                [other, ..] => {
                    return Err(format!(
                        "{} is {}, which has no count",
                        self.path,
                        shown(other)
                    ));
                }
                // A misspelt path must not count nothing.
                [] => return Err(format!("{} is not there", self.path)),
            }
        };
        let count = Value::from(count);
        if self.test.holds(&count) {
            Ok(())
        } else {
            Err(format!("{}.count() is {count}", self.path))
        }
    }

    /// Whether the rest of the path leads somewhere, or nowhere, in what the quantifier asks for.
    fn judge_presence(
        &self,
        document: &Value,
        found: &[&Value],
        wants_presence: bool,
    ) -> Result<(), String> {
        let present = self.path.presence(document);
        let holds = |is_there: &bool| *is_there == wants_presence;
        let is_met = match self.quantifier {
            Quantifier::Every => present.iter().all(holds),
            Quantifier::Any => present.iter().any(holds),
            Quantifier::No => !present.iter().any(holds),
        };
        let is_lacking = wants_presence != (self.quantifier == Quantifier::No);
        match (is_met, found) {
            (true, _) => Ok(()),
            (false, [first, ..]) if !is_lacking => {
                Err(format!("{} is {}", self.path, shown(first)))
            }
            (false, []) => Err(format!("{} is not there", self.path)),
            (false, _) => Err(format!("{} is not there everywhere", self.path)),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value as a message shows it.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    let mut cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    cut.push('…');
    cut
}

fn read_test(scanner: &mut Scanner<'_>) -> Result<Test, ConditionError> {
    // The longer sign of two that begin alike stands first.
    let comparisons = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Different),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (sign, comparison) in comparisons {
        if scanner.sign(sign) {
            let at = scanner.offset();
            let literal = scanner.literal()?;
            let needs_number = !matches!(comparison, Comparison::Equal | Comparison::Different);
            if needs_number && !literal.is_number() {
                return Err(scanner.error_at(at, &format!("`{sign}` compares numbers")));
            }
            return Ok(Test::Compare(comparison, literal));
        }
    }
    if scanner.word("contains") {
        return Ok(Test::Contains(scanner.literal()?));
    }
    if scanner.word("exists") {
        return Ok(Test::Exists);
    }
    if scanner.word("missing") {
        return Ok(Test::Missing);
    }
    Err(scanner.expected("==, !=, <, <=, >, >=, contains, exists or missing"))
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Test::Compare(comparison, literal) => comparison.holds(value, literal),
            Test::Contains(literal) => match (value, literal) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), literal) => items.iter().any(|item| is_same(item, literal)),
                _ => false,
            },
            // Asked of the path, not of a value.
            Test::Exists | Test::Missing => false,
        }
    }
}

impl Comparison {
    fn holds(self, value: &Value, literal: &Value) -> bool {
        match self {
            Comparison::Equal => is_same(value, literal),
            Comparison::Different => !is_same(value, literal),
            Comparison::Less => order(value, literal) == Some(Ordering::Less),
            Comparison::Greater => order(value, literal) == Some(Ordering::Greater),
            Comparison::LessOrEqual => {
                order(value, literal).is_some_and(|order| order != Ordering::Greater)
            }
            Comparison::GreaterOrEqual => {
                order(value, literal).is_some_and(|order| order != Ordering::Less)
            }
        }
    }
}

/// Whether two values are the same; 1 and 1.0 are.
pub(super) fn is_same(left: &Value, right: &Value) -> bool {
    left == right || order(left, right) == Some(Ordering::Equal)
}

/// The order of two numbers; whole ones are compared exactly.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    let whole = |value: &Value| {
        let unsigned = value.as_u64().map(i128::from);
        unsigned.or_else(|| value.as_i64().map(i128::from))
    };
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(left.cmp(&right));
    }
    left.as_f64()?.partial_cmp(&right.as_f64()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "name": "left",
            "peers": [
                { "name": "right", "state": "connected", "outbox": 0 },
                { "name": "hub", "state": "waiting", "outbox": 3, "paused": null },
            ],
            "storage": { "refusing": ["the disk has 5 MiB"], "free bytes": 1.5 },
        })
    }

    #[track_caller]
    fn check(condition: &str, expected: Result<(), &str>) {
        let parsed = Condition::parse(condition).expect(condition);
        let found = parsed.judge(&status());
        assert_eq!(found, expected.map_err(ToOwned::to_owned), "{condition}");
    }

    #[test]
    fn a_condition_holds_or_says_what_was_seen() {
        check("$.name == 'left'", Ok(()));
        check("$.name == \"left\"", Ok(()));
        check("$.name != 'left'", Err("$.name is \"left\""));
        check("$.peers[0].state == 'connected'", Ok(()));
        check("$.peers[-1].outbox >= 3", Ok(()));
        check("$.peers[-1].outbox < 3", Err("$.peers[-1].outbox is 3"));
        check(
            "$.peers[name=hub].state == 'connected'",
            Err("$.peers[name=hub].state is \"waiting\""),
        );
        check(
            "$.peers[name=nobody].state == 'x'",
            Err("$.peers[name=nobody].state is not there"),
        );
        check("$.storage.'free bytes' > 1", Ok(()));
        check("$.storage.'free bytes' <= 1.5", Ok(()));
    }

    #[test]
    fn several_values_are_asked_for_every_any_or_no_one() {
        check("$.peers[*].outbox >= 0", Ok(()));
        check(
            "$.peers[*].state == 'connected'",
            Err("$.peers[*].state is \"waiting\""),
        );
        check("any $.peers[*].state == 'connected'", Ok(()));
        check(
            "any $.peers[*].state == 'x'",
            Err("$.peers[*].state is one of [\"connected\",\"waiting\"]"),
        );
        check("no $.peers[*].state == 'x'", Ok(()));
        check("no $.peers[*].outbox == 3", Err("$.peers[*].outbox is 3"));
        check("no $.nothing[*].outbox == 3", Ok(()));
        check("every $.nothing[*] == 3", Err("$.nothing[*] is not there"));
    }

    #[test]
    fn things_are_counted_and_looked_for() {
        check("$.peers.count() == 2", Ok(()));
        check("$.peers.count() > 2", Err("$.peers.count() is 2"));
        check("$.peers[*].paused.count() == 1", Ok(()));
        check("$.peers[1].paused exists", Ok(()));
        check("$.peers[1].paused == null", Ok(()));
        check("$.peers[0].paused missing", Ok(()));
        check(
            "$.peers[1].paused missing",
            Err("$.peers[1].paused is null"),
        );
        check("$.peers[5] exists", Err("$.peers[5] is not there"));
        check("$.storage.refusing contains 'the disk has 5 MiB'", Ok(()));
        check("$.storage.refusing[0] contains 'disk'", Ok(()));
        check(
            "$.storage.refusing contains 'disk'",
            Err("$.storage.refusing is [\"the disk has 5 MiB\"]"),
        );
    }

    #[test]
    fn presence_is_asked_of_every_any_or_no_one() {
        let right =
            "$.peers[name=right] is {\"name\":\"right\",\"outbox\":0,\"state\":\"connected\"}";
        for (condition, expected) in [
            ("no $.peers[name=nobody] exists", Ok(())),
            ("no $.peers[name=right] exists", Err(right)),
            ("$.peers[name=right] exists", Ok(())),
            ("any $.peers[name=right] exists", Ok(())),
            (
                "any $.peers[name=nobody] exists",
                Err("$.peers[name=nobody] is not there"),
            ),
            ("$.peers[name=nobody] missing", Ok(())),
            ("$.peers[name=right] missing", Err(right)),
            ("no $.peers[name=right] missing", Ok(())),
            (
                "no $.peers[name=nobody] missing",
                Err("$.peers[name=nobody] is not there"),
            ),
            ("$.peers[*].state exists", Ok(())),
            (
                "$.peers[*].paused exists",
                Err("$.peers[*].paused is not there everywhere"),
            ),
            ("any $.peers[*].paused exists", Ok(())),
            (
                "no $.peers[*].paused exists",
                Err("$.peers[*].paused is null"),
            ),
            ("any $.peers[*].paused missing", Ok(())),
            (
                "$.peers[*].paused missing",
                Err("$.peers[*].paused is null"),
            ),
            ("$.peers[*].nothing missing", Ok(())),
            ("no $.nothing exists", Ok(())),
            ("no $.name exists", Err("$.name is \"left\"")),
        ] {
            check(condition, expected);
        }
    }

    #[test]
    fn only_what_is_there_is_counted() {
        check("$.peers.count() == 2", Ok(()));
        check("$.peesr.count() == 0", Err("$.peesr is not there"));
        check(
            "$.name.count() == 1",
            Err("$.name is \"left\", which has no count"),
        );
        check("$.storage.count() == 2", Ok(()));
        check("$.peers[name=nobody].count() == 0", Ok(()));
        check("$.peers[state=connected].count() == 1", Ok(()));
        check("$.peers[name=right].count() == 1", Ok(()));
    }

    #[test]
    fn what_is_no_condition_is_refused_at_its_letter() {
        for (text, offset, expected) in [
            (
                "any $.a.count() == 1",
                0,
                "`any` and `.count()` do not go together: a count is one number",
            ),
            (
                "$.a.count() exists",
                12,
                "a count is compared: ==, !=, <, <=, > or >=",
            ),
            ("", 0, "expected a path that begins with $, found the end"),
            (
                "name == 1",
                0,
                "expected a path that begins with $, found `name`",
            ),
            (
                "$.a = 1",
                4,
                "expected ==, !=, <, <=, >, >=, contains, exists or missing, found `=`",
            ),
            (
                "$.a == connected",
                7,
                "expected 'text', a number, true, false or null, found `connected`: texts stand in quotes",
            ),
            ("$.a == 'x", 7, "the quote is not closed"),
            (
                "$.a[x] == 1",
                4,
                "expected a number, * or key=value, found `x]`",
            ),
            ("$.a[0 == 1", 6, "expected ], found `==`"),
            ("$. == 1", 2, "expected a key, found ` == 1`"),
            ("$.a < 'b'", 6, "`<` compares numbers"),
            ("$.a == 1 and", 9, "the condition ends before this"),
        ] {
            let error = Condition::parse(text).expect_err(text);
            assert_eq!(
                (error.to_string().as_str(), error.offset),
                (expected, offset),
                "{text}"
            );
        }
    }
}
