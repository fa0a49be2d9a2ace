//! Whole nodes in a simulated network: what a seed decides happens, and everything is checked.
//!
//! Every seed runs in a process of its own, so that it runs the same alone and among ten thousand.
//! `scripts/sim.sh` says how it is called; without arguments it is the gate of the checks.
//!
//! Read `plan` for what can happen, `world` for how it happens, `checks` for what must hold.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;
mod clients;
mod clock;
mod farm;
mod gate;
mod host;
mod ledger;
mod one;
mod plan;
mod world;

use std::process::ExitCode;

use packhorse_protocol::mutant::Mutant;

use crate::farm::Farm;

const USAGE: &str = "\
sim gate                          the fixed seeds and every mutant
sim run FIRST COUNT               seeds from FIRST on; prints those that fail
sim twice FIRST COUNT             each of them twice, which must go alike
sim mutants                       every mutant, until a seed catches it
sim replay SEED [trace] [plan]    one seed, with all that happened, or with what was planned
and anywhere: --mutant NAME, --jobs N";

/// What was asked for, beside the command.
#[derive(Clone, Debug, Default)]
struct Options {
    words: Vec<String>,
    mutant: Option<Mutant>,
    jobs: Option<usize>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
            match argument.as_str() {
                "--mutant" => {
                    let name = value()?;
                    let mutant = name.parse().map_err(|error| format!("{error}"))?;
                    options.mutant = Some(mutant);
                }
                "--jobs" => {
                    let count = value()?;
                    let jobs = count
                        .parse()
                        .map_err(|_| format!("{count:?} is no number"))?;
                    options.jobs = Some(jobs);
                }
                word => options.words.push(word.to_owned()),
            }
        }
        Ok(options)
    }

    fn number(&self, index: usize, what: &str) -> Result<u64, String> {
        let word = self.words.get(index).ok_or(format!("{what} is missing"))?;
        word.parse()
            .map_err(|_| format!("{what} {word:?} is no number"))
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|given| given == word)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => return misused(&problem),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => misused(&problem),
    }
}

fn misused(problem: &str) -> ExitCode {
    eprintln!("sim: {problem}\n{USAGE}");
    ExitCode::from(2)
}

fn run(options: &Options) -> Result<bool, String> {
    let command = options.words.first().map_or("gate", String::as_str);
    // Test runners ask for the tests of a binary; this one is run by its own script.
    if command == "--list" {
        return Ok(true);
    }
    let farm = || Farm::new(options.jobs, options.mutant);
    match command {
        "one" => Ok(one::run(options.number(1, "the seed")?, options.mutant)),
        "replay" => farm()?.replay(
            options.number(1, "the seed")?,
            options.has("trace"),
            options.has("plan"),
        ),
        "run" => {
            let first = options.number(1, "the first seed")?;
            let count = options.number(2, "the count")?;
            farm()?.run(first..first.saturating_add(count))
        }
        "twice" => {
            let first = options.number(1, "the first seed")?;
            let count = options.number(2, "the count")?;
            farm()?.twice(first..first.saturating_add(count))
        }
        "mutants" => gate::mutants(options.jobs),
        "gate" => gate::run(options.jobs),
        other => Err(format!("there is no {other:?}")),
    }
}
