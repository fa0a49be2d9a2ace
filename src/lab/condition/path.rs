//! A path into a JSON document, and the scanner that conditions are read with.

use std::fmt;

use serde_json::Value;

use super::{ConditionError, is_same};

/// Letters of the rest that a message repeats.
const FOUND_CHARS_MAX: usize = 24;

/// From the root of a document to values in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Key(String),
    /// From the end where it is negative.
    Index(i64),
    All,
    /// Elements whose key has this value.
    Where(String, Value),
}

impl JsonPath {
    pub(super) fn read(scanner: &mut Scanner<'_>) -> Result<JsonPath, ConditionError> {
        if !scanner.sign("$") {
            return Err(scanner.expected("a path that begins with $"));
        }
        let mut parts = Vec::new();
        loop {
            // Not a key, although it looks like one.
            if scanner.rest().starts_with(".count()") {
                break;
            }
            // No space within a path: the test begins behind one.
            if scanner.letter('.') {
                parts.push(Part::Key(scanner.key()?));
            } else if scanner.letter('[') {
                parts.push(read_brackets(scanner)?);
            } else {
                break;
            }
        }
        Ok(JsonPath(parts))
    }

    /// Every value that the path leads to.
    pub(super) fn find<'v>(&self, document: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, document)
    }

    /// Whether it may lead to several values.
    pub(super) fn finds_several(&self) -> bool {
        self.0.iter().any(Part::is_several)
    }

    /// Whether the rest of the path leads anywhere, for each of what its last `[*]` or `[key=value]`
    /// found, or for the document; one `false` where that found nothing.
    pub(super) fn presence(&self, document: &Value) -> Vec<bool> {
        let split = self.0.iter().rposition(Part::is_several);
        let (head, rest) = self.0.split_at(split.map_or(0, |at| at + 1));
        let asked = follow(head, document);
        if asked.is_empty() {
            return vec![false];
        }
        let is_there = |value| !follow(rest, value).is_empty();
        asked.into_iter().map(is_there).collect()
    }
}

fn follow<'v>(parts: &[Part], document: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![document];
    for part in parts {
        let next = found.into_iter().flat_map(|value| part.step(value));
        found = next.collect();
    }
    found
}

impl Part {
    fn is_several(&self) -> bool {
        matches!(self, Part::All | Part::Where(..))
    }

    fn step<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Part::Key(key), value) => value.get(key).into_iter().collect(),
            (Part::Index(index), Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                let item = usize::try_from(at).ok().and_then(|at| items.get(at));
                item.into_iter().collect()
            }
            (Part::All, Value::Array(items)) => items.iter().collect(),
            (Part::All, Value::Object(fields)) => fields.values().collect(),
            (Part::Where(key, wanted), Value::Array(items)) => items
                .iter()
                .filter(|item| item.get(key).is_some_and(|found| is_same(found, wanted)))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for part in &self.0 {
            match part {
                Part::Key(key) if key.chars().all(is_key_char) => write!(f, ".{key}")?,
                Part::Key(key) => write!(f, ".'{key}'")?,
                Part::Index(index) => write!(f, "[{index}]")?,
                Part::All => f.write_str("[*]")?,
                Part::Where(key, Value::String(text)) => write!(f, "[{key}={text}]")?,
                Part::Where(key, value) => write!(f, "[{key}={value}]")?,
            }
        }
        Ok(())
    }
}

fn read_brackets(scanner: &mut Scanner<'_>) -> Result<Part, ConditionError> {
    let part = if scanner.sign("*") {
        Part::All
    } else if let Some(index) = scanner.index() {
        Part::Index(index)
    } else {
        let at = scanner.offset();
        let key = scanner.key();
        match key {
            Ok(key) if scanner.sign("=") => Part::Where(key, scanner.bare()?),
            _ => {
                scanner.go_back(at);
                return Err(scanner.expected("a number, * or key=value"));
            }
        }
    };
    if !scanner.sign("]") {
        return Err(scanner.expected("]"));
    }
    Ok(part)
}

fn is_key_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Goes through the text of a condition.
#[derive(Debug)]
pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str) -> Scanner<'t> {
        Scanner { text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Where the next word begins.
    pub(super) fn offset(&mut self) -> usize {
        self.skip_spaces();
        self.at
    }

    fn go_back(&mut self, at: usize) {
        self.at = at;
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_spaces();
        self.rest().is_empty()
    }

    /// Takes a letter that stands exactly here.
    fn letter(&mut self, letter: char) -> bool {
        let is_here = self.rest().starts_with(letter);
        if is_here {
            self.at += letter.len_utf8();
        }
        is_here
    }

    /// Takes a sign, perhaps behind spaces.
    pub(super) fn sign(&mut self, sign: &str) -> bool {
        let at = self.offset();
        let is_here = self.rest().starts_with(sign);
        if is_here {
            self.at = at + sign.len();
        }
        is_here
    }

    /// Takes a word that is not the beginning of a longer one.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.skip_spaces();
        let is_here = self
            .rest()
            .strip_prefix(word)
            .is_some_and(|rest| !rest.starts_with(is_key_char));
        if is_here {
            self.at += word.len();
        }
        is_here
    }

    fn key(&mut self) -> Result<String, ConditionError> {
        if self.rest().starts_with(['\'', '"']) {
            return self.quoted();
        }
        let rest = self.rest();
        let end = rest.find(|c| !is_key_char(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected_here("a key"));
        }
        self.at += end;
        Ok(rest.get(..end).unwrap_or_default().to_owned())
    }

    fn index(&mut self) -> Option<i64> {
        self.skip_spaces();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '-'))
            .unwrap_or(rest.len());
        let index = rest.get(..end)?.parse().ok()?;
        self.at += end;
        Some(index)
    }

    fn quoted(&mut self) -> Result<String, ConditionError> {
        let start = self.at;
        let quote = self.rest().chars().next().unwrap_or('\'');
        self.at += quote.len_utf8();
        let rest = self.rest();
        let Some(end) = rest.find(quote) else {
            return Err(self.error_at(start, "the quote is not closed"));
        };
        self.at += end + quote.len_utf8();
        Ok(rest.get(..end).unwrap_or_default().to_owned())
    }

    /// A literal, or a bare word for a text.
    fn bare(&mut self) -> Result<Value, ConditionError> {
        self.skip_spaces();
        if self.rest().starts_with(['\'', '"']) {
            return self.quoted().map(Value::String);
        }
        let rest = self.rest();
        let end = rest
            .find(|c: char| c == ']' || c.is_whitespace())
            .unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        if word.is_empty() {
            return Err(self.expected("a value"));
        }
        self.at += end;
        Ok(match plain(word) {
            Some(value) => value,
            None => Value::String(word.to_owned()),
        })
    }

    pub(super) fn literal(&mut self) -> Result<Value, ConditionError> {
        self.skip_spaces();
        if self.rest().starts_with(['\'', '"']) {
            return self.quoted().map(Value::String);
        }
        let rest = self.rest();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        if let Some(value) = plain(word) {
            self.at += end;
            return Ok(value);
        }
        let error = self.expected("'text', a number, true, false or null");
        if word.is_empty() {
            return Err(error);
        }
        Err(ConditionError {
            text: format!("{error}: texts stand in quotes"),
            ..error
        })
    }

    // --- errors ---

    pub(super) fn error(&mut self, text: &str) -> ConditionError {
        let at = self.offset();
        self.error_at(at, text)
    }

    pub(super) fn error_at(&self, offset: usize, text: &str) -> ConditionError {
        ConditionError {
            offset,
            text: text.to_owned(),
        }
    }

    /// What was expected at the next word.
    pub(super) fn expected(&mut self, what: &str) -> ConditionError {
        self.skip_spaces();
        let word = self.rest().split_whitespace().next().unwrap_or_default();
        self.expected_but(what, word)
    }

    /// What was expected exactly here, a space included.
    fn expected_here(&self, what: &str) -> ConditionError {
        self.expected_but(what, self.rest())
    }

    fn expected_but(&self, what: &str, found: &str) -> ConditionError {
        let found: String = found.chars().take(FOUND_CHARS_MAX).collect();
        let text = if found.is_empty() {
            format!("expected {what}, found the end")
        } else {
            format!("expected {what}, found `{}`", found.escape_debug())
        };
        self.error_at(self.at, &text)
    }
}

/// A number, true, false or null.
fn plain(word: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(word).ok()?;
    (value.is_number() || value.is_boolean() || value.is_null()).then_some(value)
}
