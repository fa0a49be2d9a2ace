//! `GET /metrics`: the node's numbers as Prometheus reads them.
//!
//! Names follow its conventions: `packhorse_` before, `_total` behind what only rises, base units.
//! The registry is made anew for every answer, because everything in it is counted elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::api::client::{Client, ClientError};
use crate::api::error::ApiError;
use crate::api::routes::{ANSWER_WITHIN, Answer, Api, within};
use crate::error::{ErrorKind, NodeError};
use crate::insight::{Branch, Happened, Metrics};
use crate::status::PeerState;

/// What Prometheus calls this text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Name of the document that `metrics --json` prints.
pub const SCHEMA: &str = "packhorse.metrics.v1";

/// The numbers by their names and labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// As in the text: name, then labels in braces.
    pub samples: BTreeMap<String, f64>,
}

impl Samples {
    /// Reads the text of `GET /metrics`.
    #[must_use]
    pub fn read(text: &str) -> Samples {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Samples {
            samples: samples.collect(),
        }
    }
}

/// What happened up to the last answer; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<Happened>>);

impl Meter {
    /// Counts what happens behind this event.
    pub(crate) fn after(event: u64) -> Meter {
        Meter(Arc::new(Mutex::new(Happened {
            upto: event,
            ..Happened::default()
        })))
    }
}

/// The route of this file.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(api): State<Api>) -> Answer {
    let call = async {
        // Who asks at the same time waits: each event is added up once.
        let mut happened = api.meter.0.lock().await;
        let metrics = api.node.metrics(happened.clone()).await?;
        *happened = metrics.happened.clone();
        Ok(metrics)
    };
    let metrics = within(ANSWER_WITHIN, call).await?;
    let text = render(&metrics).map_err(|error| {
        ApiError::from(NodeError::new(
            ErrorKind::Internal,
            format!("no metrics: {error}"),
        ))
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

impl Client {
    /// Asks for the metrics as text.
    pub async fn metrics(&mut self) -> Result<String, ClientError> {
        self.get_text("/metrics").await
    }
}

type Labels = Vec<(&'static str, String)>;

type Seconds = Gauge<f64, AtomicU64>;

/// Registers metrics one at a time.
struct Page(Registry);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn counters(&mut self, name: &str, help: &str, values: impl Iterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(value));
        self.0.register(name, help, gauge);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl Iterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(whole(value));
        }
        self.0.register(name, help, family);
    }

    fn duration(&mut self, name: &str, help: &str, ms: u64) {
        let gauge = Seconds::default();
        gauge.set(seconds(ms));
        self.0.register_with_unit(name, help, Unit::Seconds, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, values: impl Iterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Seconds>::default();
        for (labels, ms) in values {
            family.get_or_create(&labels).set(seconds(ms));
        }
        self.0.register_with_unit(name, help, Unit::Seconds, family);
    }
}

/// Prometheus counts time in seconds.
fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

/// Prometheus' whole numbers have a sign.
fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn render(metrics: &Metrics) -> Result<String, std::fmt::Error> {
    let mut page = Page(Registry::with_prefix("packhorse"));
    node(&mut page, metrics);
    peers(&mut page, metrics);
    strangers(&mut page, metrics);
    actors(&mut page, &metrics.tree);
    let mut text = String::new();
    encode(&mut text, &page.0)?;
    Ok(text)
}

fn node(page: &mut Page, metrics: &Metrics) {
    let status = &metrics.status;
    let version = vec![("version", status.version.clone())];
    page.gauges(
        "build_info",
        "The program's version",
        [(version, 1)].into_iter(),
    );
    page.duration("uptime", "Since the node started", status.uptime_ms);
    page.counter(
        "store_commits",
        "Durable commits of the store",
        metrics.commits,
    );
    let (jobs, bytes) = metrics.queued;
    page.gauge(
        "store_queue_jobs",
        "Jobs that wait for the store's writer",
        jobs as u64,
    );
    page.gauge("store_queue_bytes", "Bytes of these jobs", bytes as u64);
    page.gauge(
        "store_quarantined_records",
        "Records that do not open",
        metrics.quarantined,
    );
    page.counter(
        "events_missed",
        "Events that were overwritten before they were counted here",
        metrics.happened.missed,
    );
}

fn peers(page: &mut Page, metrics: &Metrics) {
    let peers = &metrics.status.peers;
    let label = |name: &str| vec![("peer", name.to_owned())];
    page.gauge("peers", "Paired peers", peers.len() as u64);
    let connected = peers
        .iter()
        .filter(|peer| peer.state == PeerState::Connected);
    page.gauge(
        "peers_connected",
        "Peers with a live session",
        connected.count() as u64,
    );
    page.gauges(
        "peer_connected",
        "Whether a session with the peer lives",
        peers.iter().map(|peer| {
            let connected = u64::from(peer.state == PeerState::Connected);
            (label(&peer.name), connected)
        }),
    );
    page.gauges(
        "outbox_waiting_messages",
        "Messages that wait for the peer",
        peers.iter().map(|peer| (label(&peer.name), peer.outbox)),
    );
    page.seconds(
        "outbox_oldest_age",
        "Age of the oldest message that waits for the peer",
        peers
            .iter()
            .map(|peer| (label(&peer.name), peer.oldest_waiting_ms.unwrap_or(0))),
    );
    page.counters(
        "peer_failures",
        "Failed attempts to reach the peer since it was paired",
        peers
            .iter()
            .map(|peer| (label(&peer.name), u64::from(peer.failures))),
    );
    let happened = &metrics.happened;
    page.counter(
        "sessions_started",
        "Sessions that began",
        happened.sessions_started,
    );
    page.counters(
        "sessions_ended",
        "Sessions that ended",
        labelled("class", &happened.sessions_ended),
    );
    page.counters(
        "dead_letters",
        "Messages that became dead letters",
        labelled("reason", &happened.dead_letters),
    );
}

fn strangers(page: &mut Page, metrics: &Metrics) {
    let strangers = &metrics.strangers;
    page.counters(
        "strangers",
        "What became of first packets and of links whose other end is not known yet",
        labelled("outcome", &strangers.counts),
    );
    page.counters(
        "strangers_refused",
        "Nodes that proved who they are and were refused",
        labelled("class", &strangers.refused),
    );
    let now = [
        ("half_open", strangers.half_open),
        ("cheap", strangers.cheap),
        ("costly", strangers.costly),
    ];
    page.gauges(
        "strangers_places",
        "Places that strangers hold now",
        now.into_iter()
            .map(|(stage, held)| (vec![("stage", stage.to_owned())], held as u64)),
    );
    page.gauge(
        "known_prefixes",
        "Addresses from which a peer authenticated within a week",
        strangers.known_prefixes,
    );
}

/// The actors of the node itself; sessions come and go, and are counted as such.
fn actors(page: &mut Page, root: &Branch) {
    let actors = || std::iter::once(root).chain(&root.children);
    let label = |branch: &Branch| vec![("actor", branch.actor.clone())];
    page.counters(
        "actor_restarts",
        "Restarts of the actor since the node started",
        actors().map(|branch| (label(branch), branch.restarts)),
    );
    page.gauges(
        "actor_queue_depth",
        "Messages in the actor's mailbox",
        actors().map(|branch| (label(branch), branch.queue_depth)),
    );
}

fn labelled(
    label: &'static str,
    counts: &BTreeMap<String, u64>,
) -> impl Iterator<Item = (Labels, u64)> {
    counts
        .iter()
        .map(move |(word, count)| (vec![(label, word.clone())], *count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insight::Strangers;
    use crate::peer::Keep;
    use crate::status::{PeerStatus, Status};
    use crate::storage::StorageStatus;

    #[test]
    fn the_page_has_names_units_and_labels_as_prometheus_wants_them() {
        let id = crate::testing::node_id();
        let branch = |actor: &str| Branch {
            actor: actor.into(),
            incarnation: 3,
            restarts: 2,
            last_exit: None,
            uptime_ms: Some(1),
            queue_depth: 4,
            children: Vec::new(),
        };
        let strangers = Strangers {
            counts: [("retried".to_owned(), 7)].into(),
            half_open: 3,
            ..Strangers::default()
        };
        let metrics = Metrics {
            status: Status {
                node: id,
                name: "left".into(),
                version: "0.1.0".into(),
                uptime_ms: 1_500,
                listen: Vec::new(),
                advertise: Vec::new(),
                storage: StorageStatus::default(),
                peers: vec![PeerStatus {
                    name: "a \"quoted\"\nname".into(),
                    id,
                    state: PeerState::Connected,
                    link: None,
                    key_exchange: None,
                    round_trip_ms: None,
                    outbox: 12,
                    oldest_waiting_ms: Some(2_500),
                    last_seen: None,
                    last_error: None,
                    next_attempt: None,
                    since: None,
                    failures: 5,
                    paused: None,
                    skew_ms: None,
                    keep: Keep::Auto,
                    trouble: None,
                }],
                strangers: strangers.clone(),
            },
            strangers,
            tree: Branch {
                children: vec![branch("store")],
                ..branch("root")
            },
            commits: 42,
            queued: (1, 200),
            quarantined: 0,
            happened: Happened {
                sessions_started: 2,
                sessions_ended: [("disconnected".to_owned(), 1)].into(),
                ..Happened::default()
            },
        };
        let text = render(&metrics).expect("plain values");
        let peer = r#"{peer="a \"quoted\"\nname"}"#;
        for line in [
            "packhorse_uptime_seconds 1.5",
            "packhorse_store_commits_total 42",
            "packhorse_peers_connected 1",
            &format!("packhorse_outbox_waiting_messages{peer} 12"),
            &format!("packhorse_outbox_oldest_age_seconds{peer} 2.5"),
            r#"packhorse_sessions_ended_total{class="disconnected"} 1"#,
            r#"packhorse_strangers_total{outcome="retried"} 7"#,
            r#"packhorse_strangers_places{stage="half_open"} 3"#,
            r#"packhorse_actor_restarts_total{actor="store"} 2"#,
            r#"packhorse_actor_queue_depth{actor="root"} 4"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        let samples = Samples::read(&text).samples;
        assert_eq!(samples["packhorse_store_commits_total"], 42.0);
    }
}
