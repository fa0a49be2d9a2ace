//! Just enough reading of Rust to tell code from comments, literals and tests.
//!
//! Everything that is not code becomes spaces, so that places keep their lines.
//! It never parses: a rule that needs a syntax tree does not belong here.
//!
//! Read [`code`], then [`product`], then [`words`].

/// The text with comments and the insides of literals blanked.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if raw_string_starts(bytes, at) => raw_string_end(bytes, at),
            b'\'' => char_end(text, at),
            _ => at,
        };
        blank(&mut out, at, end);
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole characters were replaced by spaces")
}

/// Code without what is compiled only for tests. Takes what [`code`] gave.
pub(crate) fn product(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut out = bytes.to_vec();
    for (start, attribute) in attributes(code) {
        let condition = attribute.trim_start_matches(['#', '!', '[']);
        let is_test = condition.starts_with("cfg(")
            && words(condition).any(|word| word.text == "test")
            && !condition.contains("not(test");
        if is_test {
            let whole_file = attribute.starts_with("#!");
            let end = if whole_file {
                bytes.len()
            } else {
                item_end(bytes, start + attribute.len())
            };
            blank(&mut out, start, end);
        }
    }
    String::from_utf8(out).expect("whole characters were replaced by spaces")
}

/// Whether a whole file is test code by where it lies.
pub(crate) fn is_test_file(path: &str) -> bool {
    let folder =
        |name: &str| path.starts_with(&format!("{name}/")) || path.contains(&format!("/{name}/"));
    folder("tests") || folder("benches") || path.ends_with("/tests.rs")
}

/// One identifier of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word<'a> {
    /// The identifier.
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
    /// Everything before it.
    pub(crate) before: &'a str,
    /// Everything behind it.
    pub(crate) behind: &'a str,
}

/// Every identifier, in order. Numbers count as identifiers, which no rule minds.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    let mut line = 1;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_word_char)?;
        let length = text[start..]
            .find(|c| !is_word_char(c))
            .unwrap_or(text.len() - start);
        line += text[at..start].matches('\n').count();
        at = start + length;
        Some(Word {
            text: &text[start..at],
            line,
            before: &text[..start],
            behind: &text[at..],
        })
    })
}

/// Every attribute with the byte it starts at: `#[...]` or `#![...]`.
pub(crate) fn attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices('#').filter_map(|(start, _)| {
        let rest = &code[start..];
        (rest.starts_with("#[") || rest.starts_with("#![")).then(|| {
            let open = rest.find('[').unwrap_or_default();
            let close = bracket_end(rest.as_bytes(), open);
            (start, &rest[..close])
        })
    })
}

/// The line of a byte, counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Whether a character belongs to an identifier.
pub(crate) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank(out: &mut [u8], start: usize, end: usize) {
    for byte in &mut out[start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    bytes[start..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| start + length)
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// At an `r` that opens a raw string: `r"`, `r#"`, and the same behind `b` or `c`.
fn raw_string_starts(bytes: &[u8], at: usize) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let before = at.checked_sub(1).map(|index| bytes[index]);
    let ahead = at.checked_sub(2).map(|index| bytes[index]);
    let is_prefix = matches!(before, Some(b'b' | b'c')) && !ahead.is_some_and(is_name);
    let stands_alone = !before.is_some_and(is_name) || is_prefix;
    let hashes = bytes[at + 1..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    stands_alone && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    let closing = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let inside = start + 2 + hashes;
    bytes[inside..]
        .windows(closing.len())
        .position(|window| window == closing)
        .map_or(bytes.len(), |length| inside + length + closing.len())
}

/// The end of a character literal, or `start` where the quote opens a lifetime.
fn char_end(text: &str, start: usize) -> usize {
    let mut rest = text[start + 1..].char_indices();
    match (rest.next(), rest.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            // The escaped character itself may be a quote, so the search starts behind it.
            let from = start + 1 + escaped + 1;
            text.get(from..)
                .and_then(|tail| tail.find('\''))
                .map_or(text.len(), |length| from + length + 1)
        }
        (Some(_), Some((length, '\''))) => start + 1 + length + 1,
        _ => start,
    }
}

/// The end of the bracket that opens at `start`.
fn bracket_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in bytes[start..].iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return start + offset + 1;
        }
    }
    bytes.len()
}

/// The end of the item that starts at `start`: a semicolon, or its first block of braces.
fn item_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b';' => return at + 1,
            b'{' => return with_semicolon(bytes, bracket_end(bytes, at)),
            b'(' | b'[' => at = bracket_end(bytes, at),
            b'}' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `use a::{b, c};` ends behind its braces.
fn with_semicolon(bytes: &[u8], end: usize) -> usize {
    let is_next = bytes.get(end) == Some(&b';');
    end + usize::from(is_next)
}

#[test]
fn comments_and_literals_are_not_code() {
    let check = |text: &str, expected: &str| {
        let found = code(text);
        assert_eq!(found.len(), text.len(), "places move in {text:?}");
        assert_eq!(
            found.split_whitespace().collect::<Vec<_>>().join(" "),
            expected,
            "in {text:?}"
        );
    };
    check("a // b\nc", "a c");
    check("a /* b /* c */ d */ e", "a e");
    check("f(\"b \\\" c\") d", "f( ) d");
    check("f(r#\"b \" c\"#) d", "f( ) d");
    check("f(br\"b\\\") d", "f(b ) d");
    check("bar\"x\"", "bar");
    check("f('\"', 'b', '\\'', '\\u{1f}', 'é') d", "f( , , , , ) d");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("let r = b'x'; r#type", "let r = b ; r#type");
    check("\"https://a\" b", "b");
    check("a // \"\nb \"// c\" d", "a b d");
    check("a \"never closed", "a");
}

#[test]
fn what_is_compiled_only_for_tests_is_not_product() {
    let check = |text: &str, expected: &str| {
        let found = product(&code(text));
        assert_eq!(
            found.split_whitespace().collect::<Vec<_>>().join(" "),
            expected,
            "in {text:?}"
        );
    };
    check(
        "a(); #[cfg(test)] mod tests { fn f() { g(); } } b();",
        "a(); b();",
    );
    check(
        "#[cfg(test)]\n#[allow(x)]\nfn f(a: [u8; 4]) -> u8 { 1 } b();",
        "b();",
    );
    check("#[cfg(test)] mod tests; b();", "b();");
    check("#[cfg(all(test, unix))] use a::{b, c}; d();", "d();");
    check("#[cfg(not(test))] a();", "#[cfg(not(test))] a();");
    check("#[cfg(unix)] a();", "#[cfg(unix)] a();");
    check("#![cfg(test)] a();", "");
    check("struct A { #[cfg(test)] b: u8 } c();", "struct A { } c();");
}

#[test]
fn words_know_their_lines_and_neighbours() {
    let found: Vec<_> = words("use std::fs;\n\nlet a_b = 1;")
        .map(|word| (word.text, word.line))
        .collect();
    assert_eq!(
        found,
        [
            ("use", 1),
            ("std", 1),
            ("fs", 1),
            ("let", 3),
            ("a_b", 3),
            ("1", 3)
        ]
    );
    let fs = words("use std::fs;").nth(2).expect("there are three words");
    assert_eq!((fs.before, fs.behind), ("use std::", ";"));
}
