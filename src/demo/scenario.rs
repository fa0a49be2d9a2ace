//! What happens in the demonstration, from the first start to the last count.
//!
//! Kills come in the middle of the work: when a count is seen, not when a time has passed.
//! Every wait has a deadline without progress; then it says what the sender knows about why.

use std::time::Duration;

use packhorse::api::documents::{
    AcknowledgeRequest, InviteRequest, JoinRequest, LINES_COUNT_MAX, LinesQuery, ReceiveRequest,
};
use packhorse::{Exit, Grant};
use tokio::time::Instant;

use crate::cli::{Failure, grouped};
use crate::demo::cluster::Cluster;
use crate::demo::jobs;
use crate::demo::ledger::{Ledger, lines};
use crate::demo::process::NodeProcess;
use crate::demo::report::{Kill, Report, Road, Times};
use crate::demo::stage::{Stage, messages};

/// Lines in one request; small enough that a kill falls between many.
const CHUNK_LINES: u64 = 500;
/// Messages that alpha and gamma exchange meanwhile, each way.
const BESIDES: u64 = 100;
/// How often a count is looked at. Delivery takes some hundred milliseconds;
/// a longer pause would see the end before it saw the middle.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A wait without any progress for this long has failed.
/// Redialling after the deaths takes up to 4 s of backoff at a time.
const STALL_WITHIN: Duration = Duration::from_secs(20);
/// Messages taken from an inbox with one request.
const RECEIVE_COUNT: usize = 1_000;

const _: () = assert!(CHUNK_LINES <= LINES_COUNT_MAX as u64);

const SEND_ANYTHING: &str = "message.send:*";
const EXECUTE_JOBS: &str = "execute:demo/jobs";

const TOPIC: &str = "demo/bales";
const TOPIC_BESIDES: &str = "demo/besides";

/// Plays the whole demonstration.
pub(crate) async fn play(
    cluster: &mut Cluster,
    count: u64,
    stage: &Stage,
) -> Result<Report, Failure> {
    let mut kills = Vec::new();
    begin(cluster, stage).await?;

    let accepting = Instant::now();
    accept_all(cluster, count, &mut kills, stage).await?;
    let accepted = accepting.elapsed();
    stage.tell(&format!(
        "{} accepted, none of them delivered yet",
        messages(count)
    ));
    exchange_besides(cluster, stage).await?;

    let delivering = Instant::now();
    deliver_all(cluster, count, &mut kills, stage).await?;
    let delivered = delivering.elapsed();
    stage.tell(&format!("{} are in beta's inbox", messages(count)));

    stage.tell("counting what is handed out");
    let roads = vec![
        count_road("alpha", &mut cluster.beta, TOPIC, count).await?,
        count_road("alpha", &mut cluster.gamma, TOPIC_BESIDES, BESIDES).await?,
        count_road("gamma", &mut cluster.alpha, TOPIC_BESIDES, BESIDES).await?,
    ];
    let jobs = jobs::play(cluster, stage).await?;
    let tree = cluster.alpha.client().tree().await?.root;
    let times = Times {
        accepted,
        delivered,
        total: stage.elapsed(),
    };
    Ok(Report::new(roads, kills, jobs, times, tree))
}

/// Three nodes, paired, and beta stopped.
async fn begin(cluster: &mut Cluster, stage: &Stage) -> Result<(), Failure> {
    let Cluster {
        alpha, beta, gamma, ..
    } = cluster;
    let (first, second, third) = tokio::join!(alpha.start(), beta.start(), gamma.start());
    first.and(second).and(third)?;
    stage.tell("alpha, beta and gamma are up");
    // Alpha may have commands run at beta; nobody else may anywhere.
    pair(beta, alpha, &[SEND_ANYTHING, EXECUTE_JOBS]).await?;
    pair(alpha, gamma, &[SEND_ANYTHING]).await?;
    stage.tell("alpha is paired with beta, gamma with alpha");
    let status = beta.stop().await?;
    if !status.success() {
        return Err(beta.failure(&format!("did not end well on SIGTERM: {status}")));
    }
    stage.tell("beta is down");
    Ok(())
}

/// Pairs by ticket: the joiner gets these grants, the inviter may send the joiner anything.
async fn pair(
    inviter: &mut NodeProcess,
    joiner: &mut NodeProcess,
    grants: &[&str],
) -> Result<(), Failure> {
    let request = InviteRequest {
        grants: parse_grants(grants)?,
        ..InviteRequest::default()
    };
    let invited = inviter.client().invite(&request).await?;
    let request = JoinRequest {
        ticket: invited.ticket,
        name: None,
        grants: parse_grants(&[SEND_ANYTHING])?,
    };
    joiner.client().join(&request).await?;
    Ok(())
}

fn parse_grants(texts: &[&str]) -> Result<Vec<Grant>, Failure> {
    let parse = |text: &&str| {
        text.parse().map_err(|error| {
            Failure::new(
                Exit::Internal,
                format!("the demo's own grant is not understood: {error}"),
            )
        })
    };
    texts.iter().map(parse).collect()
}

/// Has alpha accept everything for beta; alpha is killed half way and told everything again.
async fn accept_all(
    cluster: &mut Cluster,
    count: u64,
    kills: &mut Vec<Kill>,
    stage: &Stage,
) -> Result<(), Failure> {
    stage.begin("accepted by alpha");
    let alpha = &mut cluster.alpha;
    let mut known = send_lines(alpha, 1, count / 2, stage).await?;
    // The request under way is cut off: whether its lines were accepted is unknown.
    let cut_off = chunk_from(known + 1, count);
    let request = lines_query("beta", TOPIC, cut_off.first);
    let body = lines(cut_off.first, cut_off.last).into();
    {
        // A connection of its own, so that the kill and the request happen at the same time.
        let mut other = alpha.second_client()?;
        let (answer, killed) = tokio::join!(other.lines(&request, body), alpha.kill());
        killed?;
        if answer.is_ok() {
            known = cut_off.last;
        }
    }
    let during = format!("while it accepted, with {} acknowledged", grouped(known));
    stage.tell(&format!("SIGKILL: alpha is dead {during}"));
    kills.push(Kill {
        node: "alpha",
        during,
    });
    alpha.start().await?;
    stage.tell("alpha is up again; every line is sent again under its key");
    stage.begin("accepted by alpha");
    send_lines(alpha, 1, count, stage).await?;
    let total = alpha.client().outbox(Some(1)).await?.total;
    if total != count {
        let text = format!("holds {total} messages for {count} keys before anything was delivered");
        return Err(alpha.failure(&text));
    }
    Ok(())
}

/// Sends the numbers from one to another, and returns the last one acknowledged.
async fn send_lines(
    node: &mut NodeProcess,
    first: u64,
    last: u64,
    stage: &Stage,
) -> Result<u64, Failure> {
    let mut next = first;
    while next <= last {
        let chunk = chunk_from(next, last);
        let query = lines_query("beta", TOPIC, chunk.first);
        node.client()
            .lines(&query, lines(chunk.first, chunk.last).into())
            .await?;
        next = chunk.last + 1;
        stage.progress(chunk.last);
    }
    Ok(last)
}

/// Alpha and gamma are not held up by beta's absence.
async fn exchange_besides(cluster: &mut Cluster, stage: &Stage) -> Result<(), Failure> {
    let Cluster { alpha, gamma, .. } = cluster;
    let body = lines(1, BESIDES);
    alpha
        .client()
        .lines(&lines_query("gamma", TOPIC_BESIDES, 1), body.clone().into())
        .await?;
    gamma
        .client()
        .lines(&lines_query("alpha", TOPIC_BESIDES, 1), body.into())
        .await?;
    let mut watch = Watch::new(BESIDES);
    while watch.look(gamma, alpha).await? < BESIDES {}
    let mut watch = Watch::new(BESIDES);
    while watch.look(alpha, gamma).await? < BESIDES {}
    stage.tell(&format!(
        "alpha and gamma exchanged {} each way meanwhile",
        messages(BESIDES)
    ));
    Ok(())
}

/// Starts beta, kills it and then alpha in the middle, and waits until everything is there.
async fn deliver_all(
    cluster: &mut Cluster,
    count: u64,
    kills: &mut Vec<Kill>,
    stage: &Stage,
) -> Result<(), Failure> {
    stage.begin("stored by beta");
    let Cluster { alpha, beta, .. } = cluster;
    beta.start().await?;
    stage.tell("beta is up");
    let stored = watch_until(beta, alpha, count, count / 5, stage).await?;
    beta.kill().await?;
    let during = format!("while it received, with {} stored", grouped(stored));
    stage.tell(&format!("SIGKILL: beta is dead {during}"));
    kills.push(Kill {
        node: "beta",
        during,
    });
    beta.start().await?;
    stage.tell("beta is up again");
    let stored = watch_until(beta, alpha, count, count / 2, stage).await?;
    alpha.kill().await?;
    let during = format!("while it sent, with {} stored by beta", grouped(stored));
    stage.tell(&format!("SIGKILL: alpha is dead {during}"));
    kills.push(Kill {
        node: "alpha",
        during,
    });
    alpha.start().await?;
    stage.tell("alpha is up again");
    watch_until(beta, alpha, count, count, stage).await?;
    wait_for_empty_outbox(alpha).await
}

async fn watch_until(
    recipient: &mut NodeProcess,
    sender: &mut NodeProcess,
    count: u64,
    wanted: u64,
    stage: &Stage,
) -> Result<u64, Failure> {
    let mut watch = Watch::new(count);
    loop {
        let stored = watch.look(recipient, sender).await?;
        stage.progress(stored);
        if stored >= wanted {
            return Ok(stored);
        }
    }
}

/// The sender has heard of everything that arrived.
async fn wait_for_empty_outbox(sender: &mut NodeProcess) -> Result<(), Failure> {
    let deadline = Instant::now() + STALL_WITHIN;
    loop {
        let waiting = sender.client().outbox(Some(1)).await?.total;
        if waiting == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            let text = format!("still holds {waiting} messages that have arrived");
            return Err(sender.failure(&text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at an inbox again and again, and gives up when nothing moves.
#[derive(Debug)]
struct Watch {
    expected: u64,
    stored: u64,
    moved: Instant,
    has_looked: bool,
}

impl Watch {
    fn new(expected: u64) -> Watch {
        Watch {
            expected,
            stored: 0,
            moved: Instant::now(),
            has_looked: false,
        }
    }

    /// How many messages the recipient holds now.
    async fn look(
        &mut self,
        recipient: &mut NodeProcess,
        sender: &mut NodeProcess,
    ) -> Result<u64, Failure> {
        if self.has_looked {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.has_looked = true;
        let stored = recipient.client().inbox(Some(1)).await?.total;
        if stored > self.stored {
            self.stored = stored;
            self.moved = Instant::now();
        }
        if stored < self.expected && self.moved.elapsed() > STALL_WITHIN {
            return Err(stalled(recipient, sender, stored).await);
        }
        Ok(stored)
    }
}

/// Why nothing moves, as the sender sees it.
async fn stalled(recipient: &NodeProcess, sender: &mut NodeProcess, stored: u64) -> Failure {
    let status = sender.client().status().await.ok();
    let peers = status.into_iter().flat_map(|status| status.peers);
    let seen: Vec<String> = peers
        .filter(|peer| peer.name == recipient.name())
        .map(|peer| {
            let fault = peer.last_error.map(|fault| fault.text).unwrap_or_default();
            format!("{}, {} waiting, {fault}", peer.state, peer.outbox)
        })
        .collect();
    recipient.failure(&format!(
        "holds {stored} messages and got none for {} s; {} says: {}",
        STALL_WITHIN.as_secs(),
        sender.name(),
        seen.join("; ")
    ))
}

/// Takes everything of a topic from an inbox and counts it.
async fn count_road(
    from: &'static str,
    recipient: &mut NodeProcess,
    topic: &str,
    sent: u64,
) -> Result<Road, Failure> {
    let stored = recipient.client().inbox(Some(1)).await?.total;
    let mut ledger = Ledger::new(sent);
    let request = ReceiveRequest {
        topic: topic.to_owned(),
        count: RECEIVE_COUNT,
    };
    loop {
        let claimed = recipient.client().receive(&request).await?;
        if claimed.messages.is_empty() {
            break;
        }
        for message in &claimed.messages {
            ledger.enter(&message.payload);
        }
        let all = claimed.messages.iter().map(|message| message.arrival);
        let request = AcknowledgeRequest {
            arrivals: all.collect(),
            released: Vec::new(),
        };
        recipient.client().acknowledge(&request).await?;
    }
    Ok(Road::new(
        (from, recipient.name()),
        sent,
        stored,
        ledger.count(),
    ))
}

/// Numbers that go into one request.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    last: u64,
}

fn chunk_from(first: u64, last: u64) -> Chunk {
    Chunk {
        first,
        last: last.min(first + CHUNK_LINES - 1),
    }
}

fn lines_query(peer: &str, topic: &str, first: u64) -> LinesQuery {
    LinesQuery {
        peer: peer.to_owned(),
        topic: topic.to_owned(),
        // The key of a line is its number, so that telling alpha everything again doubles nothing.
        id: Some(topic.to_owned()),
        first,
        ..LinesQuery::default()
    }
}
