//! Where a step stands in the run: the rounds around it, its deadline, its chance, and what it saw last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lab::Random;
use crate::lab::scenario::fields::Nodes;
use crate::lab::step::Step;

/// What a command of a step is given less than the step, so that it can still say how far it came.
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// What a step takes over from those around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'s> {
    /// The round of every `repeat`, outermost first.
    pub(super) rounds: &'s [u64],
    bound: Bound<'s>,
}

/// The deadline that comes first.
#[derive(Clone, Copy, Debug)]
struct Bound<'s> {
    until: Instant,
    limit: Duration,
    /// The path of the step that it was given to; none for the scenario's.
    owner: Option<&'s str>,
}

impl<'s> Scope<'s> {
    /// That of a whole scenario.
    pub(super) fn scenario(began: Instant, limit: Duration) -> Scope<'static> {
        let bound = Bound {
            until: began + limit,
            limit,
            owner: None,
        };
        Scope { rounds: &[], bound }
    }

    /// That of a step inside, which has so much time of its own.
    pub(super) fn of<'i>(self, step: &'i Step, within: Option<Duration>) -> Scope<'i>
    where
        's: 'i,
    {
        let own = within.map(|limit| Bound {
            until: Instant::now() + limit,
            limit,
            owner: Some(&step.path),
        });
        let outer: Bound<'i> = self.bound;
        Scope {
            rounds: self.rounds,
            bound: own.filter(|own| own.until < outer.until).unwrap_or(outer),
        }
    }

    /// The same in a round.
    pub(super) fn in_round<'i>(self, rounds: &'i [u64]) -> Scope<'i>
    where
        's: 'i,
    {
        Scope { rounds, ..self }
    }
}

/// Where a step stands in the run.
pub(super) struct Turn<'t> {
    pub(super) path: &'t str,
    pub(super) scope: Scope<'t>,
    random: Mutex<Random>,
    seen: Mutex<String>,
}

impl<'t> Turn<'t> {
    pub(super) fn new(seed: u64, path: &'t str, scope: Scope<'t>) -> Turn<'t> {
        let rounds: Vec<String> = scope.rounds.iter().map(u64::to_string).collect();
        Turn {
            path,
            scope,
            random: Mutex::new(Random::named(seed, &[path, &rounds.join(".")])),
            seen: Mutex::default(),
        }
    }

    /// When it has to be over.
    pub(super) fn until(&self) -> Instant {
        self.scope.bound.until
    }

    /// How long what it asks for may take: a little less than the step itself.
    pub(super) fn limit(&self) -> Duration {
        let left = self.until().saturating_duration_since(Instant::now());
        left.saturating_sub(MARGIN_MAX.min(left / 10))
    }

    pub(super) fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was seen, or what is waited for, for who asks why it took so long.
    pub(super) fn saw(&self, text: impl Into<String>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// The same behind a reason; nothing where nothing was seen.
    pub(super) fn seen_last(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.as_str() {
            "" => String::new(),
            seen => format!("; seen last: {seen}"),
        }
    }

    /// Why it was broken off at its deadline.
    pub(super) fn late(&self) -> String {
        let Bound { limit, owner, .. } = self.scope.bound;
        let (limit, seen) = (limit.as_secs_f32(), self.seen_last());
        match owner {
            None => format!("the scenario's {limit} s are over{seen}"),
            Some(owner) if owner == self.path => format!("not within {limit} s{seen}"),
            Some(owner) => format!("the {limit} s of {owner} are over{seen}"),
        }
    }

    /// The nodes that are meant, after the seed has chosen where there is a choice.
    pub(super) fn pick(&self, nodes: &Nodes) -> Vec<String> {
        self.pick_beside(nodes, &[])
    }

    /// The same for two sides: a side that is to be chosen is chosen beside the other one, where
    /// that leaves a choice.
    pub(super) fn pick_two(&self, one: &Nodes, other: &Nodes) -> (Vec<String>, Vec<String>) {
        if one.is_any && !other.is_any {
            let others = self.pick(other);
            return (self.pick_beside(one, &others), others);
        }
        let ones = self.pick(one);
        let others = self.pick_beside(other, &ones);
        (ones, others)
    }

    /// The same beside nodes that were chosen before.
    pub(super) fn pick_beside(&self, nodes: &Nodes, taken: &[String]) -> Vec<String> {
        if !nodes.is_any {
            return nodes.names.clone();
        }
        let is_free = |name: &&String| !taken.contains(name);
        let mut names: Vec<&String> = nodes.names.iter().filter(is_free).collect();
        if names.is_empty() {
            names = nodes.names.iter().collect();
        }
        let count = u64::try_from(names.len()).unwrap_or(u64::MAX);
        let chosen = usize::try_from(self.random().below(count)).unwrap_or(0);
        names
            .get(chosen)
            .map(|name| (*name).clone())
            .into_iter()
            .collect()
    }

    pub(super) fn choose<'s>(&self, steps: &'s [Step], weights: &[u64]) -> Option<&'s Step> {
        let sum = weights
            .iter()
            .fold(0_u64, |sum, weight| sum.saturating_add(*weight));
        let mut drawn = self.random().below(sum);
        steps.iter().zip(weights).find_map(|(step, weight)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it.then_some(step)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope<'static> {
        Scope::scenario(Instant::now(), Duration::from_secs(60))
    }

    fn nodes(count: u32) -> Nodes {
        Nodes {
            names: (0..count).map(|number| format!("n{number}")).collect(),
            is_any: true,
        }
    }

    #[tokio::test]
    async fn the_seed_chooses_the_same_again_and_something_else_in_another_round() {
        let nodes = nodes(40);
        let chosen = |seed, round: u64| {
            let rounds = [round];
            Turn::new(seed, "steps[0]", scope().in_round(&rounds)).pick(&nodes)
        };
        assert_eq!(chosen(7, 1), chosen(7, 1));
        assert_eq!(chosen(7, 1).len(), 1);
        let rounds: std::collections::BTreeSet<_> = (0..20).map(|round| chosen(7, round)).collect();
        assert!(rounds.len() > 5, "{rounds:?}");
    }

    #[tokio::test]
    async fn two_sides_that_are_chosen_are_never_the_same_node() {
        let one = Nodes {
            names: vec!["n0".into()],
            is_any: false,
        };
        for seed in 0..40 {
            let turn = Turn::new(seed, "steps[0]", scope());
            let (from, to) = turn.pick_two(&nodes(2), &nodes(2));
            assert_ne!(from, to, "seed {seed}");
            assert_eq!(turn.pick_two(&nodes(2), &one).0, ["n1"]);
            assert_eq!(turn.pick_two(&one, &nodes(2)).1, ["n1"]);
        }
    }

    #[tokio::test]
    async fn the_deadline_that_comes_first_counts_and_is_named() {
        let step = Step {
            path: "steps[3]".into(),
            place: crate::lab::scenario::Place { line: 1, column: 1 },
            name: "sequence",
            title: String::new(),
            within: None,
            action: crate::lab::step::Action::Sequence { steps: Vec::new() },
        };
        let seconds = Duration::from_secs;
        let inside = scope().of(&step, Some(seconds(20)));
        let turn = Turn::new(7, "steps[3].sequence[0]", inside);
        let limit = turn.limit();
        assert!(limit <= seconds(19) && limit > seconds(18), "{limit:?}");
        turn.saw("`left` not ready");
        assert_eq!(
            turn.late(),
            "the 20 s of steps[3] are over; seen last: `left` not ready"
        );
        assert_eq!(Turn::new(7, "steps[3]", inside).late(), "not within 20 s");
        let whole = scope().of(&step, Some(seconds(90)));
        let turn = Turn::new(7, "steps[3]", whole);
        assert_eq!(turn.late(), "the scenario's 60 s are over");
    }
}
