//! One seed, in this process.

use std::{
    io::Write,
    panic,
    sync::{Mutex, PoisonError},
};

use packhorse_protocol::mutant::{self, Mutant};

use crate::{
    checks,
    ledger::{Ledger, SharedLedger},
    plan::Plan,
    world::World,
};

/// In whose panics nobody sees a fault.
const ORDERED: &str = "a test ordered";
/// Set by whoever wants to read what happened.
pub(crate) const TRACE: &str = "SIM_TRACE";
pub(crate) const PLAN: &str = "SIM_PLAN";
/// A filter of the node's own log, for whoever looks for a fault.
const LOG: &str = "SIM_LOG";

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs a seed and says how it went; the last line is for whoever started this process.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>) -> bool {
    if let Some(mutant) = mutant {
        mutant::choose(mutant);
    }
    if let Ok(filter) = std::env::var(LOG) {
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
        subscriber
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains(ORDERED) {
            let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
            panics.push(text);
        }
    }));
    let plan = Plan::of(seed);
    let mut out = std::io::stdout().lock();
    if std::env::var_os(PLAN).is_some() {
        let _ = writeln!(out, "{plan}");
    }
    let ledger = SharedLedger::default();
    let end = World::new(plan.clone(), ledger.clone()).run();
    let ledger = ledger.read();
    if std::env::var_os(TRACE).is_some() {
        for entry in &ledger.entries {
            let _ = writeln!(out, "{entry}");
        }
    }
    let mut complaints: Vec<String> = checks::judge(&plan, &ledger, &end.remains)
        .iter()
        .map(ToString::to_string)
        .collect();
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    complaints.extend(panics.iter().map(|text| format!("panic: {text}")));
    for complaint in &complaints {
        let _ = writeln!(out, "seed {seed}: {complaint}");
    }
    let is_good = complaints.is_empty();
    let _ = writeln!(
        out,
        "end {seed} {} {} {} {}",
        if is_good { "good" } else { "bad" },
        end.virtual_ms,
        ledger.entries.len(),
        fingerprint(&ledger),
    );
    is_good
}

/// Two runs went alike when theirs are equal.
fn fingerprint(ledger: &Ledger) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in &ledger.entries {
        hasher.update(entry.to_string().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
