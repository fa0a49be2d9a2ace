//! Many seeds: a process for each, a few at a time.
//!
//! The processes are this program again, with the system's randomness replaced (`still.c`), because
//! hash maps and the runtime draw from it; so a seed goes the same way every time.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use packhorse_protocol::mutant::Mutant;

use crate::one;

/// What one run may take of real time; most take a hundredth of it.
///
/// The transport's simulated socket (s2n-quic-platform 0.91, `io/turmoil.rs`) spins for ever when the
/// 1,024th entry of its ring is filled by the last datagram that waits: it goes on waiting for room
/// that it has. About one seed in 1,200 ends so. It cannot be told from a loop of ours, so it is told.
const RUN_SECONDS_MAX: u64 = 60;
/// Of so many runs one may end so, and two more.
const STUCK_ONCE_IN: u64 = 100;
const STUCK_MORE: u64 = 2;
/// How `timeout` says that it ended what it was given.
const TIMED_OUT: i32 = 124;
/// Failing seeds that are told in full.
const TOLD_MAX: usize = 5;
/// Lines told of one of them.
const LINES_MAX: usize = 40;

/// Starts runs.
#[derive(Clone, Debug)]
pub(crate) struct Farm {
    program: PathBuf,
    stillness: PathBuf,
    jobs: usize,
    mutant: Option<Mutant>,
}

/// How one run went.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) is_good: bool,
    /// It took too long, see [`RUN_SECONDS_MAX`].
    pub(crate) is_stuck: bool,
    pub(crate) virtual_ms: u64,
    pub(crate) entries: u64,
    pub(crate) fingerprint: String,
    pub(crate) text: String,
}

impl Farm {
    pub(crate) fn new(jobs: Option<usize>, mutant: Option<Mutant>) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("who am I: {error}"))?;
        let cores = thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            program,
            stillness: still()?,
            jobs: jobs.unwrap_or(cores).max(1),
            mutant,
        })
    }

    /// The same with a mutant.
    pub(crate) fn with(&self, mutant: Mutant) -> Self {
        Self {
            mutant: Some(mutant),
            ..self.clone()
        }
    }

    /// Runs one seed here and shows it.
    pub(crate) fn replay(&self, seed: u64, trace: bool, plan: bool) -> Result<bool, String> {
        let mut command = self.command(seed);
        if trace {
            command.env(one::TRACE, "1");
        }
        if plan {
            command.env(one::PLAN, "1");
        }
        let status = command.status().map_err(|error| error.to_string())?;
        Ok(status.success())
    }

    /// Runs all of these and tells of those that fail.
    pub(crate) fn run(&self, seeds: Range<u64>) -> Result<bool, String> {
        let (began, count) = (stopwatch(), seeds.end.saturating_sub(seeds.start));
        let mut failed = BTreeMap::new();
        let (mut virtual_ms, mut entries) = (0_u64, 0_u64);
        let mut stuck = Vec::new();
        self.each(seeds, |seed, outcome| {
            virtual_ms += outcome.virtual_ms;
            entries += outcome.entries;
            if outcome.is_stuck {
                println!("seed {seed} is stuck");
                stuck.push(seed);
            } else if !outcome.is_good {
                if failed.len() < TOLD_MAX {
                    println!("{}", outcome.text);
                }
                println!("seed {seed} FAILED; again: scripts/sim.sh replay {seed}");
                failed.insert(seed, outcome.text.clone());
            }
            true
        });
        let real = began.elapsed().as_secs_f64();
        let virtual_s = virtual_ms as f64 / 1_000.0;
        println!(
            "{count} seeds, {} failed, {entries} entries, {virtual_s:.0} virtual s in {real:.0} s: {:.0} times as fast",
            failed.len(),
            virtual_s / real.max(0.001),
        );
        if !failed.is_empty() {
            let failed: Vec<_> = failed.keys().map(u64::to_string).collect();
            println!("failed: {}", failed.join(" "));
        }
        if !stuck.is_empty() {
            println!("{} stuck for {RUN_SECONDS_MAX} s: {stuck:?}", stuck.len());
        }
        Ok(failed.is_empty() && stuck.len() as u64 <= STUCK_MORE + count / STUCK_ONCE_IN)
    }

    /// Runs each of these twice.
    pub(crate) fn twice(&self, seeds: Range<u64>) -> Result<bool, String> {
        let mut first = BTreeMap::new();
        self.each(seeds.clone(), |seed, outcome| {
            first.insert(seed, outcome.fingerprint.clone());
            true
        });
        let (mut different, count) = (Vec::new(), first.len());
        self.each(seeds, |seed, outcome| {
            if first.get(&seed) != Some(&outcome.fingerprint) {
                different.push(seed);
            }
            true
        });
        println!(
            "{count} seeds twice, {} went another way {different:?}",
            different.len()
        );
        Ok(different.is_empty())
    }

    /// Runs these until one fails. Which, and how.
    pub(crate) fn first_bad(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
    ) -> Option<(u64, Outcome)> {
        let mut found: Option<(u64, Outcome)> = None;
        self.each(seeds, |seed, outcome| {
            let is_bad = !outcome.is_good && !outcome.is_stuck;
            if is_bad && found.as_ref().is_none_or(|(least, _)| seed < *least) {
                found = Some((seed, outcome.clone()));
            }
            found.is_none()
        });
        found
    }

    /// Runs these, a few at a time, as long as `tell` says so.
    fn each(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
        tell: impl FnMut(u64, &Outcome) -> bool + Send,
    ) {
        let (seeds, tell) = (Mutex::new(seeds), Mutex::new(tell));
        let goes_on = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while goes_on.load(Ordering::Relaxed) {
                        let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(seed) = next else { return };
                        let outcome = self.one(seed);
                        let mut tell = tell.lock().unwrap_or_else(PoisonError::into_inner);
                        if !tell(seed, &outcome) {
                            goes_on.store(false, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
    }

    fn one(&self, seed: u64) -> Outcome {
        let mut bad = Outcome {
            is_good: false,
            is_stuck: false,
            virtual_ms: 0,
            entries: 0,
            fingerprint: String::new(),
            text: String::new(),
        };
        let output = self.command(seed).stderr(Stdio::piped()).output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                bad.text = format!("seed {seed}: it cannot be run: {error}");
                return bad;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let end = text.lines().last().and_then(read_end);
        let told: Vec<_> = text.lines().take(LINES_MAX).collect();
        match end {
            Some(end) => Outcome {
                text: told.join("\n"),
                ..end
            },
            None => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                bad.is_stuck = output.status.code() == Some(TIMED_OUT);
                bad.text = format!("seed {seed}: it ended with {}: {stderr}", output.status);
                bad
            }
        }
    }

    fn command(&self, seed: u64) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(RUN_SECONDS_MAX.to_string())
            .arg(&self.program)
            .args(["one", &seed.to_string()])
            .env("LD_PRELOAD", &self.stillness)
            .stdin(Stdio::null());
        if let Some(mutant) = self.mutant {
            command.args(["--mutant", mutant.as_str()]);
        }
        command
    }
}

/// Real time: how fast a simulation is can be told by nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "how long real runs take is what is asked"
)]
pub(crate) fn stopwatch() -> Instant {
    Instant::now()
}

fn read_end(line: &str) -> Option<Outcome> {
    let words: Vec<_> = line.split(' ').collect();
    let ["end", _, verdict, virtual_ms, entries, fingerprint] = words[..] else {
        return None;
    };
    Some(Outcome {
        is_good: verdict == "good",
        is_stuck: false,
        virtual_ms: virtual_ms.parse().ok()?,
        entries: entries.parse().ok()?,
        fingerprint: fingerprint.to_owned(),
        text: String::new(),
    })
}

/// Builds what stands in for the system's randomness, once per build of this program.
fn still() -> Result<PathBuf, String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = folder.join("still.so");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let source = folder.join(format!("still-{}-{number}.c", std::process::id()));
    let made = source.with_extension("so");
    let fail = |what: &str, error: std::io::Error| format!("{what}: {error}");
    std::fs::create_dir_all(folder).map_err(|error| fail("no folder for still.c", error))?;
    std::fs::write(&source, include_str!("still.c")).map_err(|error| fail("still.c", error))?;
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&made, &source])
        .status()
        .map_err(|error| fail("cc is needed, to seed the system's randomness", error))?;
    let _ = std::fs::remove_file(&source);
    if !built.success() {
        return Err(format!("cc could not build still.c: {built}"));
    }
    // Another run may be at it: whoever is last wins, and all of them are equal.
    std::fs::rename(&made, &done).map_err(|error| fail("still.so", error))?;
    Ok(done)
}
