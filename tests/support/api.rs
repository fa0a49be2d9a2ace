//! A small client of the local API, for loops in which a process per question is too slow.
//!
//! One request per connection over the Unix socket; it follows HTTP only as far as the server
//! uses it: a status line, heads, and a body that ends with the connection.
//! It never repeats a request: whether a lost one was carried out is what the tests are about.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// How long one answer may take beyond what was asked to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// The API of one data folder.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    socket: PathBuf,
}

/// Why there is no answer, or none that was hoped for.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The request certainly never reached a daemon.
    NotRunning(io::Error),
    /// The daemon went away in between: what came of the request is unknown.
    Lost(String),
    /// The daemon said no.
    Refused { status: u16, body: Value },
}

impl Api {
    pub(crate) fn of(data_dir: &Path) -> Api {
        Api {
            socket: data_dir.join("api.sock"),
        }
    }

    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, CallError> {
        self.call("GET", path, query, b"")
    }

    pub(crate) fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Value, CallError> {
        self.call("POST", path, query, body)
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Value, CallError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(CallError::NotRunning)?;
        let head = format!(
            "{method} {path}{} HTTP/1.1\r\nhost: packhorse\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            query_text(query),
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let lost = |error: io::Error| CallError::Lost(error.to_string());
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(lost)?;
        stream.write_all(&request).map_err(lost)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(lost)?;
        let (status, body) = parse(&answer).map_err(CallError::Lost)?;
        if status == 200 {
            Ok(body)
        } else {
            Err(CallError::Refused { status, body })
        }
    }
}

/// The status and the document of an answer; cut-off answers are errors.
fn parse(answer: &[u8]) -> Result<(u16, Value), String> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("the answer was cut off in its head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let body = &answer[end + 4..];
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or("the answer has no status")?;
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|word| word.parse().ok())
        .ok_or("the answer has no length")?;
    if body.len() != length {
        return Err(format!("{} of {length} bytes came", body.len()));
    }
    let body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok((status, body))
}

fn query_text(query: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in query {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("a string takes everything");
            }
        }
    }
    text
}
