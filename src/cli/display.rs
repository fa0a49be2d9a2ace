//! Where a command's words go: data to stdout, everything else to stderr.
//!
//! A closed stdout is an ordinary error here, never a panic.
//! What other nodes chose (names, payloads, reasons) is shown with its control characters
//! escaped, so that a peer cannot steer the terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use packhorse::api::Document;
use serde::Serialize;

/// The two streams of a command, and whether it was asked for a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    json: bool,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Screen {
        Screen { json }
    }

    /// Prints one document.
    pub(crate) fn document<T: Serialize>(&self, schema: &'static str, value: T) -> io::Result<()> {
        let text = serde_json::to_string(&Document::new(schema, value))?;
        self.data(&text)
    }

    /// Prints data and a newline, and makes sure that it is out.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// Tells something to a person.
    pub(crate) fn note(&self, text: &str) {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Tells a person what may come next; programs that asked for a document are spared.
    pub(crate) fn next(&self, text: &str) {
        if !self.json {
            self.note(&format!("next: {text}"));
        }
    }

    /// Whether a document was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress may be drawn.
    pub(crate) fn draws_progress(&self) -> bool {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        io::stderr().is_terminal() && !dumb
    }
}

/// Whether a character could move the cursor, break a line, or turn what follows it: those that no
/// text from a peer may hold (SPEC, Texts).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with its control characters escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// The text on one line, cut with `…` where it is longer than this many characters.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    let shown = printable(text);
    if shown.chars().count() <= chars_max {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(chars_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A count with a comma between thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A word quoted for a shell where it needs to be, as hints print commands to be pasted.
pub(crate) fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c));
    if is_plain {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_others_are_escaped() {
        assert_eq!(printable("plain ü"), "plain ü");
        assert_eq!(printable("a\x1b[2Jb\n"), r"a\u{1b}[2Jb\n");
        for c in "\u{61c}\u{200e}\u{2028}\u{2029}\u{202e}\u{2069}\u{feff}".chars() {
            let escaped = format!("a{}b", c.escape_default());
            assert_eq!(printable(&format!("a{c}b")), escaped);
        }
    }

    #[test]
    fn long_text_is_cut_at_the_limit() {
        assert_eq!(cut("12345", 5), "12345");
        assert_eq!(cut("123456", 5), "1234…");
        assert_eq!(cut("", 5), "");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_would_split_or_expand_them() {
        assert_eq!(shell_word("/tmp/a-b"), "/tmp/a-b");
        assert_eq!(shell_word("message.send:*"), "'message.send:*'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
