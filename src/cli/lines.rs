//! `send --lines`: one message per line of stdin, in order, many lines with one sync.
//!
//! A thread reads and cuts stdin into requests; one request at a time is under way,
//! so that the order of the lines is the order of the messages whatever is lost.
//! What was accepted is printed however it ends.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use packhorse::api::documents::{
    LINES_BYTES_TARGET, LINES_COUNT_MAX, LinesAccepted, LinesQuery, schema,
};
use packhorse::api::{Client, ClientError};
use packhorse::{DeliveryClass, Exit};
use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
use tokio::sync::mpsc;

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

/// Requests that are read ahead while one is under way: 2 × 1.25 MiB at the most.
const CHUNKS_AHEAD: usize = 2;
/// How long an interrupted command waits for the request under way, so that its count is right.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What to send the lines as.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) peer: String,
    pub(crate) topic: String,
    pub(crate) class: Option<DeliveryClass>,
    pub(crate) id: Option<String>,
    pub(crate) replace: bool,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) headers: Vec<(String, String)>,
}

pub(crate) async fn run(
    folder: &DataFolder,
    client: Client,
    job: Lines,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // A thread of its own: reading stdin blocks, and cannot be called off.
    std::thread::spawn(move || {
        for chunk in Chunks::new(std::io::stdin().lock()) {
            let is_last = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || is_last {
                break;
            }
        }
    });
    let mut accepted = 0;
    let outcome = send_all(folder, client, &job, chunks, &mut accepted, screen).await;
    if screen.is_json() {
        let document = LinesAccepted {
            peer: job.peer,
            topic: job.topic,
            accepted,
        };
        screen.document(schema::LINES, document)?;
    } else {
        screen.data(&accepted.to_string())?;
    }
    outcome
}

async fn send_all(
    folder: &DataFolder,
    mut client: Client,
    job: &Lines,
    mut chunks: mpsc::Receiver<Result<Chunk, LineError>>,
    accepted: &mut u64,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let progress = progress(screen);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let chunk = tokio::select! {
            Ok(()) = interrupted.as_mut() => return Ok(Exit::Interrupted),
            chunk = chunks.recv() => chunk,
        };
        let Some(chunk) = chunk else {
            return Ok(Exit::Done);
        };
        let chunk = chunk.map_err(|error| Failure::usage(error.to_string()))?;
        let query = LinesQuery {
            peer: job.peer.clone(),
            topic: job.topic.clone(),
            class: job.class,
            id: job.id.clone(),
            replace: job.replace,
            expires_ms: job.expires_ms,
            headers: job.headers.clone(),
            first: chunk.first,
        };
        let mut request = std::pin::pin!(client.lines(&query, chunk.body.into()));
        let (answer, is_last) = tokio::select! {
            answer = request.as_mut() => (answer, false),
            Ok(()) = interrupted.as_mut() => {
                match tokio::time::timeout(LAST_ANSWER_WITHIN, request.as_mut()).await {
                    Ok(answer) => (answer, true),
                    Err(_) => return Ok(unknown_end(chunk.first, chunk.count, screen)),
                }
            }
        };
        match answer {
            Ok(answer) => *accepted += answer.accepted,
            Err(error) => return Err(failure(folder, error, job, chunk.first)),
        }
        progress.set_position(*accepted);
        if is_last {
            return Ok(Exit::Interrupted);
        }
    }
}

fn unknown_end(first: u64, count: u64, screen: &Screen) -> Exit {
    let last = first + count - 1;
    screen.note(&format!(
        "interrupted: whether lines {first} to {last} were accepted is unknown"
    ));
    Exit::Interrupted
}

/// The failure with what keeps a repetition from doubling.
fn failure(folder: &DataFolder, error: ClientError, job: &Lines, first: u64) -> Failure {
    let is_unknown = matches!(
        error,
        ClientError::Lost { .. } | ClientError::TimedOut { .. }
    );
    let failure = folder.failure(error);
    match (is_unknown, &job.id) {
        (true, Some(_)) => failure.with_hint(
            "repeat the same command: what was accepted has its keys and is not doubled",
        ),
        (true, None) => failure.with_hint(format!(
            "lines before {first} were accepted; with --id the command could be repeated whole"
        )),
        (false, _) => failure,
    }
}

fn progress(screen: &Screen) -> indicatif::ProgressBar {
    if !screen.draws_progress() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new_spinner();
    match indicatif::ProgressStyle::with_template("{spinner} {human_pos} accepted, {per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Some lines, each with its newline, that go into one request.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    /// Number of the first line, counted from 1.
    first: u64,
    count: u64,
    body: Vec<u8>,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("line {number} is over the limit of {PAYLOAD_BYTES_MAX} bytes for one message")]
    TooLong { number: u64 },
    #[error("cannot read line {number} of stdin: {source}")]
    Read { number: u64, source: std::io::Error },
}

/// Cuts an input into chunks; an error comes after the lines before it, and is the last item.
struct Chunks<R> {
    input: BufReader<R>,
    /// Number of the next line.
    next: u64,
    error: Option<LineError>,
    is_over: bool,
}

impl<R: Read> Chunks<R> {
    fn new(input: R) -> Chunks<R> {
        Chunks {
            input: BufReader::with_capacity(LINES_BYTES_TARGET, input),
            next: 1,
            error: None,
            is_over: false,
        }
    }

    /// Appends the next line with its newline; false at the end of the input.
    fn read_line(&mut self, body: &mut Vec<u8>) -> Result<bool, LineError> {
        let start = body.len();
        let number = self.next;
        // The longest line and its newline: without the bound, one endless line would fill the memory.
        let mut bounded = (&mut self.input).take(PAYLOAD_BYTES_MAX as u64 + 1);
        let read = bounded
            .read_until(b'\n', body)
            .map_err(|source| LineError::Read { number, source })?;
        if read == 0 {
            return Ok(false);
        }
        if body.last() != Some(&b'\n') {
            if read > PAYLOAD_BYTES_MAX {
                body.truncate(start);
                return Err(LineError::TooLong { number });
            }
            body.push(b'\n');
        }
        self.next += 1;
        Ok(true)
    }
}

impl<R: Read> Iterator for Chunks<R> {
    type Item = Result<Chunk, LineError>;

    fn next(&mut self) -> Option<Result<Chunk, LineError>> {
        let first = self.next;
        let mut body = Vec::new();
        while !self.is_over
            && body.len() < LINES_BYTES_TARGET
            && self.next - first < LINES_COUNT_MAX as u64
            // What is whole goes out before reading on, which may wait for whoever writes.
            && (body.is_empty() || self.input.buffer().contains(&b'\n'))
        {
            match self.read_line(&mut body) {
                Ok(true) => {}
                Ok(false) => self.is_over = true,
                Err(error) => {
                    self.error = Some(error);
                    self.is_over = true;
                }
            }
        }
        if self.next > first {
            return Some(Ok(Chunk {
                first,
                count: self.next - first,
                body,
            }));
        }
        self.error.take().map(Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(input: &[u8]) -> Vec<Result<(u64, u64, usize), String>> {
        let size = |chunk: Chunk| (chunk.first, chunk.count, chunk.body.len());
        Chunks::new(input)
            .map(|chunk| chunk.map(size).map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn lines_keep_their_numbers_across_chunks() {
        assert_eq!(chunks(b""), []);
        assert_eq!(chunks(b"a\nb\n"), [Ok((1, 2, 4))]);
        assert_eq!(chunks(b"a\nb"), [Ok((1, 1, 2)), Ok((2, 1, 2))]);
        let many = "x\n".repeat(LINES_COUNT_MAX);
        assert_eq!(chunks(many.as_bytes()), [Ok((1, 1_024, 2_048))]);
        assert_eq!(
            chunks(format!("{many}y").as_bytes()),
            [Ok((1, 1_024, 2_048)), Ok((1_025, 1, 2))]
        );
    }

    #[test]
    fn a_chunk_holds_the_whole_lines_that_were_read_at_once() {
        let line = [vec![b'x'; 100 << 10], b"\n".to_vec()].concat();
        let two = 2 * line.len();
        assert_eq!(chunks(&line.repeat(4)), [Ok((1, 2, two)), Ok((3, 2, two))]);
    }

    #[test]
    fn whole_lines_do_not_wait_for_one_that_is_still_being_written() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut chunks = Chunks::new(reader);
        std::io::Write::write_all(&mut writer, b"one\ntwo\nthr").expect("written");
        let chunk = chunks.next().expect("more to come").expect("readable");
        assert_eq!(chunk.body, b"one\ntwo\n");
        std::io::Write::write_all(&mut writer, b"ee\n").expect("written");
        let chunk = chunks.next().expect("more to come").expect("readable");
        assert_eq!((chunk.first, &chunk.body[..]), (3, &b"three\n"[..]));
    }

    #[test]
    fn empty_lines_are_messages_too() {
        assert_eq!(chunks(b"\n\na\n"), [Ok((1, 3, 4))]);
    }

    #[test]
    fn a_line_over_the_limit_is_named_after_those_before_it() {
        let longest = vec![b'x'; PAYLOAD_BYTES_MAX];
        assert_eq!(chunks(&longest), [Ok((1, 1, PAYLOAD_BYTES_MAX + 1))]);
        let with_newline = [longest.as_slice(), b"\n"].concat();
        assert_eq!(chunks(&with_newline), [Ok((1, 1, PAYLOAD_BYTES_MAX + 1))]);
        let over = [b"a\nb\n", longest.as_slice(), b"x\nc\n"].concat();
        assert_eq!(
            chunks(&over),
            [
                Ok((1, 2, 4)),
                Err("line 3 is over the limit of 1048576 bytes for one message".to_owned())
            ]
        );
    }
}
