//! The client's side of the local API: one connection per command, opened when it is first needed.
//!
//! It never repeats a request by itself: when an answer is lost, what came of the request
//! is unknown, and only the caller knows whether repeating it is harmless.

mod addresses;
mod grants;
mod requests;
mod sending;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::documents::{
    ANSWER_BYTES_MAX, AcknowledgeRequest, Acknowledged, JoinRequest, ListQuery, Peers,
    ReceiveRequest, ReceivedMessages,
};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::socket::SocketPath;
use crate::exit::Exit;
use crate::listing::Listing;
use crate::peer::Joined;
use crate::status::Status;

/// How long connecting to a socket of this machine may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what the request itself waits for;
/// longer than the server's own limits, so that its better message comes first.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);
/// A connection that rested this long is replaced: the server may be about to close it.
const RESTED_MAX: Duration = Duration::from_secs(20);

const _: () = assert!(RESTED_MAX.as_secs() < super::server::HEAD_WITHIN.as_secs());

/// Speaks to the daemon of one data folder.
#[derive(Debug)]
pub struct Client {
    path: SocketPath,
    live: Option<Live>,
}

/// An open connection.
#[derive(Debug)]
struct Live {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with this value.
    _driver: JoinSet<()>,
    used: Instant,
}

impl Client {
    /// A client of this socket; nothing is opened yet.
    #[must_use]
    pub fn new(path: SocketPath) -> Client {
        Client { path, live: None }
    }

    /// Asks for the node and its peers.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.get("/v1/status", Duration::ZERO).await
    }

    /// Asks for every peer.
    pub async fn peers(&mut self) -> Result<Peers, ClientError> {
        self.get("/v1/peers", Duration::ZERO).await
    }

    /// Asks for the oldest messages of the inbox.
    pub async fn inbox(&mut self, limit: Option<usize>) -> Result<Listing, ClientError> {
        self.get(
            &with_query(
                "/v1/inbox",
                &ListQuery {
                    limit,
                    ..ListQuery::default()
                },
            ),
            Duration::ZERO,
        )
        .await
    }

    /// Pairs with the inviter of a ticket.
    pub async fn join(&mut self, request: &JoinRequest) -> Result<Joined, ClientError> {
        self.post_document("/v1/join", request).await
    }

    /// Claims messages.
    pub async fn receive(
        &mut self,
        request: &ReceiveRequest,
    ) -> Result<ReceivedMessages, ClientError> {
        self.post_document("/v1/receive", request).await
    }

    /// Says that messages were handled.
    pub async fn acknowledge(
        &mut self,
        request: &AcknowledgeRequest,
    ) -> Result<Acknowledged, ClientError> {
        self.post_document("/v1/acknowledge", request).await
    }

    pub(crate) async fn get<A: DeserializeOwned>(
        &mut self,
        target: &str,
        wait: Duration,
    ) -> Result<A, ClientError> {
        self.request(Method::GET, target, Bytes::new(), wait).await
    }

    pub(crate) async fn get_text(&mut self, target: &str) -> Result<String, ClientError> {
        let bytes = self
            .exchange(Method::GET, target, Bytes::new(), Duration::ZERO)
            .await?;
        String::from_utf8(bytes.into()).map_err(|error| ClientError::Malformed {
            text: error.to_string(),
        })
    }

    async fn post<A: DeserializeOwned>(
        &mut self,
        target: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<A, ClientError> {
        self.request(Method::POST, target, body, wait).await
    }

    pub(crate) async fn post_document<A: DeserializeOwned>(
        &mut self,
        target: &str,
        request: &impl Serialize,
    ) -> Result<A, ClientError> {
        self.post_document_within(target, request, Duration::ZERO)
            .await
    }

    /// The same for a request that waits for so long by itself.
    pub(crate) async fn post_document_within<A: DeserializeOwned>(
        &mut self,
        target: &str,
        request: &impl Serialize,
        wait: Duration,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Malformed {
            text: error.to_string(),
        })?;
        self.request(Method::POST, target, body.into(), wait).await
    }

    async fn request<A: DeserializeOwned>(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<A, ClientError> {
        read_answer(&self.exchange(method, target, body, wait).await?)
    }

    /// The body of an answer that says yes.
    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<Bytes, ClientError> {
        // The connection is taken out and only put back whole: after an error, a timeout or a
        // dropped call its next answer could belong to the wrong request.
        let mut live = self.connected().await?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "packhorse")
            .body(Full::new(body))
            .map_err(|error| ClientError::Malformed {
                text: error.to_string(),
            })?;
        let exchange = async {
            let answer = live.sender.send_request(request).await?;
            let is_success = answer.status().is_success();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            Ok::<_, hyper::Error>((is_success, body))
        };
        let (is_success, body) = tokio::time::timeout(ANSWER_WITHIN + wait, exchange)
            .await
            .map_err(|_| ClientError::TimedOut {
                seconds: (ANSWER_WITHIN + wait).as_secs(),
            })?
            .map_err(|error| ClientError::Lost {
                text: error.to_string(),
            })?;
        let bytes = body
            .map_err(|error| ClientError::Lost {
                text: error.to_string(),
            })?
            .to_bytes();
        live.used = Instant::now();
        self.live = Some(live);
        if is_success {
            Ok(bytes)
        } else {
            Err(read_error(&bytes))
        }
    }

    async fn connected(&mut self) -> Result<Live, ClientError> {
        if let Some(mut live) = self.live.take()
            && live.used.elapsed() < RESTED_MAX
            // Not ready means closed by the other end, with nothing of this request sent yet.
            && tokio::time::timeout(CONNECT_WITHIN, live.sender.ready()).await.is_ok_and(|r| r.is_ok())
        {
            return Ok(live);
        }
        let path = || self.path.as_path().to_owned();
        let stream =
            match tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(self.path.as_path()))
                .await
            {
                Ok(Ok(stream)) => stream,
                Ok(Err(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Err(ClientError::NotRunning { path: path() });
                }
                Ok(Err(source)) => {
                    return Err(ClientError::Unreachable {
                        path: path(),
                        source,
                    });
                }
                Err(_) => {
                    return Err(ClientError::TimedOut {
                        seconds: CONNECT_WITHIN.as_secs(),
                    });
                }
            };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| ClientError::Lost {
                    text: error.to_string(),
                })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What ends the connection reaches the caller as the error of its request.
            let _ = connection.await;
        });
        Ok(Live {
            sender,
            _driver: driver,
            used: Instant::now(),
        })
    }
}

/// Why the daemon did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens: start the daemon.
    #[error("no daemon runs here: nobody listens on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is there but cannot be used: look at its owner.
    #[error("cannot reach the daemon on {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended before the answer; the request may have been carried out.
    #[error(
        "the daemon went away before it answered; what came of the request is unknown ({text})"
    )]
    Lost {
        /// What the connection said.
        text: String,
    },
    /// No answer in time; the request may have been carried out.
    #[error("the daemon did not answer within {seconds} s; what came of the request is unknown")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The daemon is of another version, or something else listens there.
    #[error("the daemon's answer is not understood: {text}")]
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// The daemon said no.
    #[error(transparent)]
    Answer(#[from] ApiError),
}

impl ClientError {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            ClientError::NotRunning { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Lost { .. } => Exit::Unreachable,
            ClientError::TimedOut { .. } => Exit::TimedOut,
            ClientError::Malformed { .. } => Exit::Failure,
            ClientError::Answer(error) => error.exit(),
        }
    }
}

pub(crate) fn with_query(path: &str, query: &impl Serialize) -> String {
    match serde_urlencoded::to_string(query) {
        Ok(query) if query.is_empty() => path.to_owned(),
        Ok(query) => format!("{path}?{query}"),
        // Only nested values cannot be written, and no query type holds one.
        Err(_) => path.to_owned(),
    }
}

fn read_answer<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Malformed {
        text: error.to_string(),
    })
}

fn read_error(bytes: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(bytes) {
        Ok(body) => ClientError::Answer(body.error),
        Err(error) => ClientError::Malformed {
            text: error.to_string(),
        },
    }
}
