//! Reads the keys of one table, and collects everything that is wrong instead of stopping at the first.
//!
//! Every reading function answers `None` both for a key that is not there and for one that is wrong;
//! what is wrong was reported by then, so the caller only has to give up its own value.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use packhorse_protocol::message::DeliveryClass;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::{FAULTS, FieldDoc, Kind, SIGNALS, STATES};
use super::place::{self, Lines, Place, Problem, nearest};
use crate::class;
use crate::lab::condition::Condition;
use crate::lab::{Rate, Share, Signal};
use crate::storage::Size;
use crate::time::parse_duration;

/// Characters of a found text that a message repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// Problems of one file that are told; whoever has more begins with these.
pub(super) const PROBLEMS_COUNT_MAX: usize = 50;

/// The file being read, the nodes that it names, and what was found to be wrong.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    text: &'t str,
    lines: Lines<'t>,
    pub(super) nodes: RefCell<Vec<String>>,
    problems: RefCell<Vec<Problem>>,
}

/// A value with its place.
pub(crate) type Found<'i> = Spanned<DeValue<'i>>;

/// Some nodes of the scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Their names, in the order of the file.
    pub names: Vec<String>,
    /// Whether the seed chooses one of them when the step runs.
    pub is_any: bool,
}

/// From how long to how long; both ends alike where nothing is to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

/// How often something is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// So many rounds.
    Rounds(u64),
    /// Until this time is over; the round that runs then is finished.
    For(Duration),
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Reader<'t> {
        Reader {
            text,
            lines: Lines::new(text),
            nodes: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// From here on these nodes are known.
    pub(crate) fn know_nodes(&self, names: Vec<String>) {
        self.nodes.replace(names);
    }

    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        self.lines.place(span.start)
    }

    pub(crate) fn report(&self, offset: usize, text: impl AsRef<str>) {
        self.report_at(self.lines.place(offset), text);
    }

    pub(crate) fn report_at(&self, place: Place, text: impl AsRef<str>) {
        if !self.is_full() {
            let problem = Problem::new(place, text.as_ref());
            self.problems.borrow_mut().push(problem);
        }
    }

    /// Whether so much is wrong that reading on is of no use.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= PROBLEMS_COUNT_MAX
    }

    /// Everything that was reported, in the order of the file.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let is_full = self.is_full();
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        if is_full {
            let last = problems.last().map(|last| last.place);
            let place = last.unwrap_or(Place { line: 1, column: 1 });
            let text = format!("there may be more: the first {PROBLEMS_COUNT_MAX} are told");
            problems.push(Problem::new(place, &text));
        }
        problems
    }

    /// Whether nothing was reported so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// What the text of a value begins with in the file, behind its quote; `None` where escapes make
    /// the two differ, so that no offset within it can be told.
    pub(crate) fn inner_offset(&self, found: &Found<'_>, inner: &str) -> Option<usize> {
        let span = found.span();
        let raw = self.text.get(span.clone())?;
        let at = raw.find(inner)?;
        // An offset into something that was written otherwise would point at the wrong letter.
        (!inner.is_empty()).then_some(span.start + at)
    }
}

/// The keys of one table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'r, 'i> {
    pub(crate) reader: &'r Reader<'r>,
    table: &'r DeTable<'i>,
    /// Where the table stands.
    pub(crate) start: usize,
    /// What the table is, for messages: "`send`", "a node".
    what: &'r str,
}

impl<'r, 'i> Fields<'r, 'i> {
    pub(crate) fn new(
        reader: &'r Reader<'r>,
        table: &'r DeTable<'i>,
        start: usize,
        what: &'r str,
    ) -> Fields<'r, 'i> {
        Fields {
            reader,
            table,
            start,
            what,
        }
    }

    pub(crate) fn found(&self, name: &str) -> Option<&'r Found<'i>> {
        self.table
            .iter()
            .find(|(key, _)| key.get_ref().as_ref() == name)
            .map(|(_, value)| value)
    }

    /// Where the value of a key stands, or the table where there is none.
    pub(crate) fn at(&self, name: &str) -> usize {
        self.found(name)
            .map_or(self.start, |found| found.span().start)
    }

    /// Keys with their places.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'r str, Range<usize>)> {
        self.table
            .iter()
            .map(|(key, _)| (key.get_ref().as_ref(), key.span()))
    }

    /// Reports keys that nobody knows and keys that are missing.
    pub(crate) fn check(&self, docs: &[FieldDoc]) {
        for (key, span) in self.keys() {
            if docs.iter().any(|doc| doc.name == key) {
                continue;
            }
            let known = docs.iter().map(|doc| doc.name);
            let text = match nearest(key, known.clone()) {
                Some(meant) => format!(
                    "{} takes no key `{}`; did you mean `{meant}`?",
                    self.what,
                    shown(key)
                ),
                None => format!(
                    "{} takes no key `{}`, expected one of {}",
                    self.what,
                    shown(key),
                    listed(known)
                ),
            };
            self.reader.report(span.start, text);
        }
        for doc in docs.iter().filter(|doc| doc.is_required) {
            if self.found(doc.name).is_none() {
                let text = format!(
                    "{} needs the key `{}`: {}",
                    self.what,
                    doc.name,
                    doc.kind.expected()
                );
                self.reader.report(self.start, text);
            }
        }
    }

    pub(super) fn wrong(&self, name: &str, found: &Found<'_>, kind: Kind) {
        let text = format!(
            "`{name}` must be {}, found {}",
            kind.expected(),
            describe(found.get_ref())
        );
        self.reader.report(found.span().start, text);
    }

    /// The value as text, with its place.
    fn raw_text(&self, name: &str, kind: Kind) -> Option<(&'r str, &'r Found<'i>)> {
        let found = self.found(name)?;
        match found.get_ref().as_str() {
            Some(text) if !text.is_empty() => Some((text, found)),
            _ => {
                self.wrong(name, found, kind);
                None
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let (text, _) = self.raw_text(name, Kind::Text)?;
        Some(text.to_owned())
    }

    /// A text that may be empty.
    pub(crate) fn payload(&self, name: &str) -> Option<String> {
        let found = self.found(name)?;
        let text = found.get_ref().as_str();
        if text.is_none() {
            self.wrong(name, found, Kind::Payload);
        }
        text.map(ToOwned::to_owned)
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let found = self.found(name)?;
        let texts: Option<Vec<String>> = found.get_ref().as_array().and_then(|items| {
            let text = |item: &Found<'_>| item.get_ref().as_str().map(ToOwned::to_owned);
            items.iter().map(text).collect()
        });
        if texts.is_none() {
            self.wrong(name, found, Kind::Texts);
        }
        texts
    }

    pub(crate) fn words(&self, name: &str) -> Option<Vec<String>> {
        let found = self.found(name)?;
        if let Some(text) = found.get_ref().as_str() {
            let words: Vec<String> = text.split_whitespace().map(ToOwned::to_owned).collect();
            if text.contains(['\'', '"']) {
                let text = format!(
                    "`{name}` is split at spaces and knows no quotes: write a list of words instead"
                );
                self.reader.report(found.span().start, text);
                return None;
            }
            if !words.is_empty() {
                return Some(words);
            }
        } else if found.get_ref().as_array().is_some_and(|items| {
            !items.is_empty() && items.iter().all(|item| item.get_ref().as_str().is_some())
        }) {
            return self.texts(name);
        }
        self.wrong(name, found, Kind::Words);
        None
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let found = self.found(name)?;
        let flag = found.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(name, found, Kind::Flag);
        }
        flag
    }

    fn integer(found: &Found<'_>) -> Option<u64> {
        let integer = found.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        let found = self.found(name)?;
        let count = Self::integer(found).filter(|count| *count > 0);
        if count.is_none() {
            self.wrong(name, found, Kind::Count);
        }
        count
    }

    /// A count with a limit that has a reason.
    pub(crate) fn count_up_to(&self, name: &str, most: u64) -> Option<u64> {
        let count = self.count(name)?;
        if count > most {
            let text = format!("`{name}` is {count}, the limit is {most}");
            self.reader.report(self.at(name), text);
            return None;
        }
        Some(count)
    }

    pub(crate) fn exit(&self, name: &str) -> Option<u8> {
        let found = self.found(name)?;
        let code = Self::integer(found).and_then(|code| u8::try_from(code).ok());
        if code.is_none() {
            self.wrong(name, found, Kind::Exit);
        }
        code
    }

    pub(crate) fn weights(&self, name: &str) -> Option<Vec<u64>> {
        let found = self.found(name)?;
        let weights: Option<Vec<u64>> = found
            .get_ref()
            .as_array()
            .and_then(|items| items.iter().map(Self::integer).collect());
        if weights.is_none() {
            self.wrong(name, found, Kind::Weights);
        }
        weights
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.parsed(name, Kind::Duration, parse_duration)
    }

    pub(crate) fn pause(&self, name: &str) -> Option<Pause> {
        let read = |text: &str| match text.split_once("..") {
            None => parse_duration(text)
                .map(|least| Pause { least, most: least })
                .map_err(|error| error.to_string()),
            Some((least, most)) => {
                let [least, most] = [least, most]
                    .map(|text| parse_duration(text).map_err(|error| error.to_string()));
                let pause = Pause {
                    least: least?,
                    most: most?,
                };
                if pause.least > pause.most {
                    return Err(format!("`{text}` ends before it begins"));
                }
                Ok(pause)
            }
        };
        self.parsed(name, Kind::Pause, read)
    }

    pub(crate) fn times(&self, name: &str) -> Option<Times> {
        let found = self.found(name)?;
        if found.get_ref().as_str().is_some() {
            return self
                .parsed(name, Kind::Times, parse_duration)
                .map(Times::For);
        }
        match Self::integer(found).filter(|rounds| *rounds > 0) {
            Some(rounds) => Some(Times::Rounds(rounds)),
            None => {
                self.wrong(name, found, Kind::Times);
                None
            }
        }
    }

    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        let size: Size = self.parsed(name, Kind::Size, str::parse)?;
        Some(size.0)
    }

    pub(crate) fn percent(&self, name: &str) -> Option<Share> {
        self.parsed(name, Kind::Percent, str::parse)
    }

    pub(crate) fn rate(&self, name: &str) -> Option<Rate> {
        self.parsed(name, Kind::Rate, str::parse)
    }

    pub(crate) fn class(&self, name: &str) -> Option<DeliveryClass> {
        self.parsed(name, Kind::Class, class::class_from_word)
    }

    pub(crate) fn state(&self, name: &str) -> Option<&'static str> {
        self.word_of(name, Kind::State, &STATES)
    }

    pub(crate) fn signal(&self, name: &str) -> Option<Signal> {
        self.word_of(name, Kind::Signal, &SIGNALS)?.parse().ok()
    }

    pub(crate) fn fault(&self, name: &str) -> Option<&'static str> {
        self.word_of(name, Kind::Fault, &FAULTS)
    }

    fn word_of(&self, name: &str, kind: Kind, words: &[&'static str]) -> Option<&'static str> {
        let (text, found) = self.raw_text(name, kind)?;
        let word = words.iter().find(|word| **word == text).copied();
        if word.is_none() {
            self.wrong(name, found, kind);
        }
        word
    }

    pub(crate) fn condition(&self, name: &str) -> Option<Condition> {
        let (text, found) = self.raw_text(name, Kind::Condition)?;
        match Condition::parse(text) {
            Ok(condition) => Some(condition),
            Err(error) => {
                let inside = self.reader.inner_offset(found, text);
                let at = inside.map_or(found.span().start, |start| start + error.offset);
                self.reader.report(at, format!("`{name}`: {error}"));
                None
            }
        }
    }

    fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        kind: Kind,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, found) = self.raw_text(name, kind)?;
        match parse(text) {
            Ok(value) => Some(value),
            // The reason would repeat all of it.
            Err(_) if text.chars().nth(SHOWN_CHARS_MAX).is_some() => {
                self.wrong(name, found, kind);
                None
            }
            Err(error) => {
                self.reader
                    .report(found.span().start, format!("`{name}`: {error}"));
                None
            }
        }
    }

    pub(crate) fn variables(&self, name: &str) -> Option<Vec<(String, String)>> {
        let found = self.found(name)?;
        let variables: Option<Vec<(String, String)>> = found.get_ref().as_table().and_then(|t| {
            let pair = |(key, value): (&Spanned<_>, &Found<'_>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), value.get_ref().as_str()?.to_owned()))
            };
            t.iter().map(pair).collect()
        });
        if variables.is_none() {
            self.wrong(name, found, Kind::Variables);
        }
        variables
    }
}

/// What was found, for the end of a message.
pub(crate) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "an empty text".to_owned(),
        DeValue::String(text) => format!("the text \"{}\"", shown(text)),
        DeValue::Integer(integer) => format!("the number {}", shown(&integer.to_string())),
        DeValue::Float(float) => format!("the number {}", shown(&float.to_string())),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The words with backquotes and commas.
pub(crate) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// A found text as messages quote it.
pub(crate) fn shown(text: &str) -> String {
    place::shown(text, SHOWN_CHARS_MAX)
}
