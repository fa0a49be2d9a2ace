//! What may be sent to the socket: requests that mean nothing, and bytes that are no request.
//!
//! Whoever may open the socket is the node's owner, so nothing here is an attack; but a program
//! with a fault must hear of it, and must not take the daemon with it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::Scene;
use crate::support::deadline::SOON;
use crate::support::{Random, seed};

/// Sends bytes and returns everything that comes back.
fn exchange(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    send(scene, bytes, false)
}

/// The same, and says that nothing more will come: what is unfinished stays so.
fn exchange_all(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    send(scene, bytes, true)
}

fn send(scene: &Scene, bytes: &[u8], ends: bool) -> Vec<u8> {
    let socket = scene.left.data_dir().join("api.sock");
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream.set_write_timeout(Some(SOON)).expect("a socket");
    // Who is refused early may find the other side closed.
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The status of an answer, 0 when there is none.
fn status(answer: &[u8]) -> u16 {
    let head = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
    let word = head.split(' ').nth(1).unwrap_or_default();
    word.parse().unwrap_or(0)
}

fn request(line: &str, heads: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nhost: packhorse\r\nconnection: close\r\n{heads}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A request that is understood as one, and refused with the published error document.
struct Refused(&'static str, &'static str, u16, u64, &'static str);

#[rustfmt::skip] // One line, one request: what is asked, its body, the status, the exit, the words.
const REFUSED: &[Refused] = &[
    Refused("GET /v1/nothing", "", 404, 4, "/v1/nothing"),
    Refused("GET /", "", 404, 4, "no route"),
    Refused("GET /v1/../../etc/passwd", "", 404, 4, "no route"),
    Refused("GET /v1/status/", "", 404, 4, "no route"),
    Refused("DELETE /v1/status", "", 405, 2, "DELETE"),
    Refused("OPTIONS /v1/status", "", 405, 2, "OPTIONS"),
    Refused("TRACE /v1/status", "", 405, 2, "TRACE"),
    Refused("POST /v1/status", "", 405, 2, "POST"),
    Refused("GET /v1/messages", "", 405, 2, "GET"),
    Refused("GET /v1/inbox?limit=-1", "", 400, 2, "query"),
    Refused("GET /v1/inbox?limit=1&limit=2", "", 400, 2, "limit"),
    Refused("GET /v1/inbox?limit=99999999999999999999", "", 400, 2, "query"),
    Refused("GET /v1/inbox?limit=10001", "", 400, 2, "10000"),
    Refused("GET /v1/inbox?colour=blue", "", 400, 2, "colour"),
    Refused("GET /v1/outbox?peer=nobody", "", 404, 4, "nobody"),
    Refused("GET /v1/receipts/nonsense", "", 400, 2, "nonsense"),
    Refused("GET /v1/receipts/%ff%fe", "", 400, 2, ""),
    Refused("GET /v1/why/peers/nobody", "", 404, 4, "nobody"),
    Refused("GET /v1/why/messages/%00", "", 400, 2, ""),
    Refused("POST /v1/messages", "hay", 400, 2, "peer"),
    Refused("POST /v1/messages?peer=right", "hay", 400, 2, "topic"),
    Refused("POST /v1/messages?peer=right&topic=", "hay", 400, 2, "topic is empty"),
    Refused("POST /v1/messages?peer=right&topic=a%0ab", "hay", 400, 2, "control character"),
    Refused("POST /v1/messages?peer=nobody&topic=orders", "hay", 404, 4, "nobody"),
    Refused("POST /v1/messages?peer=%00&topic=orders", "hay", 404, 4, "no peer"),
    Refused("POST /v1/messages?peer=right&topic=orders&class=purple", "hay", 400, 2, "purple"),
    Refused("POST /v1/messages?peer=right&topic=orders&id=", "hay", 400, 2, "key"),
    Refused("POST /v1/messages?peer=right&topic=orders&id=key", "hay", 403, 5, "key"),
    Refused("POST /v1/messages?peer=right&topic=orders&headers=x", "hay", 400, 2, "query"),
    Refused("POST /v1/messages?peer=right&topic=orders&headers=%7B%22a%0A%22%3A1%7D", "hay", 400, 2, "query"),
    Refused("POST /v1/messages?peer=right&topic=orders&expires_ms=0", "hay", 400, 2, "0"),
    Refused("POST /v1/messages?peer=right&topic=orders&expires_ms=18446744073709551615", "hay", 400, 2, "limit"),
    Refused("POST /v1/messages?peer=right&topic=orders&wait=soon", "hay", 400, 2, "soon"),
    Refused("POST /v1/messages?peer=right&topic=orders&urgent=1", "hay", 400, 2, "urgent"),
    Refused("POST /v1/lines?peer=right&topic=orders&first=0&id=k", "hay\n", 400, 2, "number 0"),
    Refused("POST /v1/lines?peer=right&topic=orders&first=18446744073709551615&id=k", "a\nb\n", 400, 2, "18446744073709551615"),
    Refused("POST /v1/invites", "", 400, 2, "body"),
    Refused("POST /v1/invites", "{", 400, 2, "body"),
    Refused("POST /v1/invites", "null", 400, 2, "body"),
    Refused("POST /v1/invites", "{\"grants\":\"message.send:*\"}", 400, 2, "body"),
    Refused("POST /v1/invites", "{\"grants\":[\"everything\"]}", 400, 2, "everything"),
    Refused("POST /v1/invites", "{\"grants\":[],\"uses\":0}", 400, 2, "0 uses"),
    Refused("POST /v1/invites", "{\"grants\":[],\"uses\":-1}", 400, 2, "body"),
    Refused("POST /v1/invites", "{\"grants\":[],\"uses\":1e400}", 400, 2, "body"),
    Refused("POST /v1/invites", "{\"grants\":[],\"expires_ms\":0}", 400, 2, "0 ms"),
    Refused("POST /v1/invites", "{\"grants\":[],\"expires_ms\":18446744073709551615}", 400, 2, "limits"),
    Refused("POST /v1/invites", "{\"grants\":[],\"grants\":[]}", 400, 2, "grants"),
    Refused("POST /v1/invites", "{\"grants\":[],\"for\":\"me\"}", 400, 2, "for"),
    Refused("POST /v1/join", "{}", 400, 2, "ticket"),
    Refused("POST /v1/join", "{\"ticket\":\"pht1\",\"grants\":[]}", 400, 2, "ticket"),
    Refused("POST /v1/receive", "{\"topic\":\"orders\"}", 400, 2, "count"),
    Refused("POST /v1/receive", "{\"topic\":\"\",\"count\":1}", 400, 2, "topic"),
    Refused("POST /v1/acknowledge", "{\"arrivals\":[-1]}", 400, 2, "body"),
    Refused("POST /v1/acknowledge", "{\"arrivals\":[1.5]}", 400, 2, "body"),
    Refused("POST /v1/outbox/drop", "{}", 400, 2, ""),
    Refused("POST /v1/dead/drop", "{}", 400, 2, ""),
    Refused("POST /v1/dead/retry", "{}", 400, 2, ""),
];

#[test]
fn requests_that_mean_nothing_are_refused_with_a_document_and_change_nothing() {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for Refused(line, body, code, exit, words) in REFUSED {
        let answer = exchange(&scene, &request(line, "", body.as_bytes()));
        let text = String::from_utf8_lossy(&answer).into_owned();
        let document = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let error = &document["error"];
        let says = error["text"].as_str().unwrap_or_default();
        let is_right = status(&answer) == *code
            && error["exit"] == *exit
            && error["code"].is_string()
            && says.to_lowercase().contains(&words.to_lowercase());
        if !is_right {
            wrong.push(format!("{line} {body}: {} {document}", status(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.is_as_it_was();
}

#[test]
fn bodies_over_their_limits_are_refused_and_not_held() {
    let scene = Scene::new();
    let deep = "[".repeat(60 << 10);
    let cases = [
        (
            "POST /v1/messages?peer=right&topic=orders",
            vec![b'x'; (1 << 20) + 1],
            "1048576",
        ),
        (
            "POST /v1/messages?peer=right&topic=orders",
            vec![b'x'; 16 << 20],
            "1048576",
        ),
        (
            "POST /v1/lines?peer=right&topic=orders",
            vec![b'x'; 4 << 20],
            "limit",
        ),
        (
            "POST /v1/lines?peer=right&topic=orders",
            vec![b'\n'; 4_096],
            "1024",
        ),
        ("POST /v1/invites", vec![b' '; (64 << 10) + 1], "65536"),
        ("POST /v1/invites", deep.into_bytes(), "body"),
    ];
    for (line, body, words) in cases {
        let answer = exchange(&scene, &request(line, "", &body));
        let text = String::from_utf8_lossy(&answer);
        // A body that is cut off by the refusal may take the answer with it.
        let is_refused = answer.is_empty() || (status(&answer) == 400 && text.contains(words));
        assert!(is_refused, "{line}, {} bytes: {text}", body.len());
    }
    scene.is_as_it_was();
}

#[test]
fn bytes_that_are_no_request_are_answered_or_cut_and_the_daemon_goes_on() {
    let scene = Scene::new();
    let header = |name: &str, count: usize| -> Vec<u8> {
        let heads = format!("{name}: x\r\n").repeat(count);
        request("GET /v1/status", &heads, b"")
    };
    let huge = format!("x: {}\r\n", "y".repeat(4 << 20));
    let long = format!("GET /v1/{}", "a".repeat(1 << 20));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a newline", b"\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4_096]),
        ("no text", vec![0xff; 4_096]),
        ("an older protocol", b"GET /v1/status\r\n\r\n".to_vec()),
        ("a newer protocol", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("no version", b"GET /v1/status HTTP/9.9\r\n\r\n".to_vec()),
        ("a control character", b"GET /v1/\x1b[2J HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a head without an end", b"GET /v1/status HTTP/1.1\r\nhost: ".to_vec()),
        ("a header without a name", request("GET /v1/status", ": x\r\n", b"")),
        ("a header over lines", request("GET /v1/status", "a: b\r\n c\r\n", b"")),
        ("a header with a zero", request("GET /v1/status", "a: \0\r\n", b"")),
        ("a huge header", request("GET /v1/status", &huge, b"")),
        ("many headers", header("x", 10_000)),
        ("a long path", request(&long, "", b"")),
        ("two lengths", request("POST /v1/invites", "content-length: 1\r\n", b"{}")),
        ("a length below 0", b"POST /v1/invites HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec()),
        ("a length beyond all", b"POST /v1/invites HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n".to_vec()),
        ("a length that is a lie", b"POST /v1/invites HTTP/1.1\r\nhost: x\r\ncontent-length: 4096\r\n\r\n{".to_vec()),
        ("length and chunks", request("POST /v1/invites", "transfer-encoding: chunked\r\n", b"0\r\n\r\n")),
        ("chunks that are none", b"POST /v1/invites HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\n".to_vec()),
        ("a chunk beyond all", b"POST /v1/invites HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx".to_vec()),
        ("a connect", b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("an upgrade", request("GET /v1/status", "upgrade: websocket\r\n", b"")),
    ];
    for (what, bytes) in cases {
        let answer = exchange_all(&scene, &bytes);
        let code = status(&answer);
        let is_right = answer.is_empty() || (200..500).contains(&code);
        assert!(is_right, "{what}: {}", String::from_utf8_lossy(&answer));
        scene.left.cli(&["status"]).expect(0);
    }
    scene.is_as_it_was();
}

#[test]
fn requests_with_changed_bytes_never_end_the_daemon() {
    const ROUNDS: usize = 400;
    let scene = Scene::new();
    let mut random = Random::new(seed());
    // What changes nothing whatever becomes of it, since the method is left alone.
    let whole = [
        request(
            "GET /v1/inbox?limit=10",
            "accept: application/json\r\n",
            b"",
        ),
        request("GET /v1/why/peers/right", "", b""),
        request("GET /v1/outbox?peer=right&limit=3", "", b""),
        request("GET /v1/events?after=0", "", b""),
    ];
    for _ in 0..ROUNDS {
        let at = random.below(whole.len() as u64) as usize;
        let mut bytes = whole[at].clone();
        for _ in 0..=random.below(4) {
            let at = 4 + random.below(bytes.len() as u64 - 4) as usize;
            match random.below(3) {
                0 => bytes[at] = random.next().to_le_bytes()[0],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.next().to_le_bytes()[0]),
            }
        }
        let code = status(&exchange_all(&scene, &bytes));
        assert!(code < 500, "{code}: {}", String::from_utf8_lossy(&bytes));
    }
    scene.is_as_it_was();
}
