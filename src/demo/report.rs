//! What the demonstration found, as a table and as a document.
//!
//! It decides one thing: whether every promise was kept.

use std::time::Duration;

use packhorse::insight::Branch;
use packhorse::time::short_duration;
use serde::Serialize;

use crate::cli::{Table, draw_tree, grouped};
use crate::demo::jobs::Jobs;
use crate::demo::ledger::Count;

/// The end of the demonstration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Whether every promise was kept.
    pub(crate) kept: bool,
    pub(crate) roads: Vec<Road>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) jobs: Jobs,
    pub(crate) accepted_ms: u64,
    pub(crate) delivered_ms: u64,
    pub(crate) total_ms: u64,
    /// Alpha's actors at the end.
    pub(crate) tree: Branch,
}

/// The messages from one node to another.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Road {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// Accepted by the sender, each of them once.
    pub(crate) sent: u64,
    /// In the recipient's inbox at the end.
    pub(crate) stored: u64,
    /// Handed out by the recipient.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Handed out but never sent.
    pub(crate) unknown: u64,
}

/// One SIGKILL.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Kill {
    pub(crate) node: &'static str,
    /// What it was doing.
    pub(crate) during: String,
}

impl Road {
    pub(crate) fn new(
        (from, to): (&'static str, &'static str),
        sent: u64,
        stored: u64,
        count: Count,
    ) -> Road {
        let Count {
            received,
            lost,
            duplicated,
            reordered,
            unknown,
        } = count;
        Road {
            from,
            to,
            sent,
            stored,
            received,
            lost,
            duplicated,
            reordered,
            unknown,
        }
    }

    fn is_kept(&self) -> bool {
        self.stored == self.sent
            && self.received == self.sent
            && [self.lost, self.duplicated, self.reordered, self.unknown] == [0; 4]
    }
}

impl Report {
    pub(crate) fn new(
        roads: Vec<Road>,
        kills: Vec<Kill>,
        jobs: Jobs,
        times: Times,
        tree: Branch,
    ) -> Report {
        let whole_ms = packhorse::api::documents::whole_ms;
        Report {
            kept: roads.iter().all(Road::is_kept) && jobs.is_kept(),
            roads,
            kills,
            jobs,
            accepted_ms: whole_ms(times.accepted),
            delivered_ms: whole_ms(times.delivered),
            total_ms: whole_ms(times.total),
            tree,
        }
    }

    /// The report for people.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new(&[
            "MESSAGES",
            ">SENT",
            ">STORED",
            ">RECEIVED",
            ">LOST",
            ">DUPLICATED",
            ">REORDERED",
        ]);
        for road in &self.roads {
            let counts = [
                road.sent,
                road.stored,
                road.received,
                road.lost,
                road.duplicated,
                road.reordered,
            ];
            let mut cells = vec![format!("{} to {}", road.from, road.to)];
            cells.extend(counts.map(grouped));
            table.row(cells);
        }
        let mut text = table.render();
        text.push('\n');
        for kill in &self.kills {
            text.push_str(&format!("SIGKILL    {:<6} {}\n", kill.node, kill.during));
        }
        let Jobs {
            sent,
            done,
            retried,
            failed,
        } = self.jobs;
        text.push_str(&format!(
            "jobs       {} sent to beta's worker, {} done by their receipts ({} at the second attempt), {} failed\n",
            grouped(sent),
            grouped(done),
            grouped(retried),
            grouped(failed)
        ));
        let time = |ms| short_duration(Duration::from_millis(ms));
        text.push_str(&format!(
            "accepted   in {}\ndelivered  in {}\nall        in {}\n\n",
            time(self.accepted_ms),
            time(self.delivered_ms),
            time(self.total_ms)
        ));
        let unknown: u64 = self.roads.iter().map(|road| road.unknown).sum();
        if unknown > 0 {
            text.push_str(&format!(
                "{} were received but never sent\n",
                grouped(unknown)
            ));
        }
        text.push_str("alpha's actors\n");
        text.push_str(&draw_tree(&self.tree));
        text.push('\n');
        text.push_str(if self.kept {
            "every message arrived once and in order, and every job was done\n"
        } else {
            "A PROMISE WAS BROKEN\n"
        });
        text
    }
}

/// How long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From the first message to the last acceptance, the sender's death included.
    pub(crate) accepted: Duration,
    /// From the recipient's start to the last message in its inbox, both deaths included.
    pub(crate) delivered: Duration,
    pub(crate) total: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: Count, stored: u64) -> Report {
        let roads = vec![Road::new(("alpha", "beta"), 10_000, stored, count)];
        let kills = vec![Kill {
            node: "beta",
            during: "with 2,304 stored".into(),
        }];
        let times = Times {
            accepted: Duration::from_millis(900),
            delivered: Duration::from_millis(2_300),
            total: Duration::from_millis(61_000),
        };
        let jobs = Jobs {
            sent: 60,
            done: 60,
            retried: 6,
            failed: 0,
        };
        let tree = Branch {
            actor: "root".into(),
            incarnation: 1,
            restarts: 0,
            last_exit: None,
            uptime_ms: Some(10_000),
            queue_depth: 0,
            children: Vec::new(),
        };
        Report::new(roads, kills, jobs, times, tree)
    }

    #[test]
    fn a_kept_promise_is_a_table_of_zeros() {
        let kept = report(
            Count {
                received: 10_000,
                ..Count::default()
            },
            10_000,
        );
        assert!(kept.kept);
        assert_eq!(
            kept.render(),
            "MESSAGES         SENT  STORED  RECEIVED  LOST  DUPLICATED  REORDERED\n\
             alpha to beta  10,000  10,000    10,000     0           0          0\n\
             \n\
             SIGKILL    beta   with 2,304 stored\n\
             jobs       60 sent to beta's worker, 60 done by their receipts (6 at the second attempt), 0 failed\n\
             accepted   in 900ms\n\
             delivered  in 2.3s\n\
             all        in 1m 1s\n\
             \n\
             alpha's actors\n\
             ACTOR  LIFE  RESTARTS   UP  QUEUE  LAST EXIT\n\
             root      1         0  10s      0  -\n\
             \n\
             every message arrived once and in order, and every job was done\n"
        );
    }

    #[test]
    fn any_single_fault_breaks_the_promise() {
        let good = Count {
            received: 10_000,
            ..Count::default()
        };
        for (count, stored) in [
            (Count { lost: 1, ..good }, 10_000),
            (
                Count {
                    duplicated: 1,
                    ..good
                },
                10_000,
            ),
            (
                Count {
                    reordered: 1,
                    ..good
                },
                10_000,
            ),
            (Count { unknown: 1, ..good }, 10_000),
            (
                Count {
                    received: 10_001,
                    ..good
                },
                10_000,
            ),
            (good, 9_999),
        ] {
            let broken = report(count, stored);
            assert!(!broken.kept, "{count:?}, {stored}");
            assert!(broken.render().ends_with("A PROMISE WAS BROKEN\n"));
        }
        let kept = report(good, 10_000);
        for jobs in [
            Jobs {
                done: 59,
                ..kept.jobs
            },
            Jobs {
                failed: 1,
                ..kept.jobs
            },
        ] {
            assert!(!jobs.is_kept(), "{jobs:?}");
        }
    }
}
