//! Steps that change the network between nodes.

use super::{Run, Trouble, Turn};
use crate::lab::Impairment;
use crate::lab::scenario::fields::Nodes;
use crate::lab::step::Change;

impl Run<'_> {
    pub(super) fn partition(
        &self,
        sides: &[Nodes],
        from: Option<&Nodes>,
        is_one_way: bool,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        let network = self.cluster.network();
        if let [side] = sides {
            let (side, from) = match from {
                Some(from) => turn.pick_two(side, from),
                None => (turn.pick(side), network.names().to_vec()),
            };
            let others: Vec<&String> = from.iter().filter(|name| !side.contains(name)).collect();
            if side.is_empty() || others.is_empty() {
                return Err(nothing("cut", &side, &from));
            }
            if is_one_way {
                network.cut(&side, &others)?;
            } else {
                network.partition(&side, &others)?;
            }
            return Ok(());
        }
        let mut taken: Vec<String> = Vec::new();
        let mut picked: Vec<Vec<String>> = Vec::new();
        for side in sides {
            let side = turn.pick_beside(side, &taken);
            taken.extend(side.iter().cloned());
            picked.push(side);
        }
        for (index, side) in picked.iter().enumerate() {
            for other in picked.iter().skip(index + 1) {
                if cross(side, other).is_empty() {
                    return Err(nothing("cut", side, other));
                }
                network.partition(side, other)?;
            }
        }
        Ok(())
    }

    pub(super) fn impair(
        &self,
        nodes: &Nodes,
        to: Option<&Nodes>,
        change: &Change,
        is_one_way: bool,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        self.each_way(nodes, to, is_one_way, turn, |now| change.of(now))
    }

    /// Changes every way between the nodes and the others.
    pub(super) fn each_way(
        &self,
        nodes: &Nodes,
        others: Option<&Nodes>,
        is_one_way: bool,
        turn: &Turn<'_>,
        change: impl Fn(Impairment) -> Impairment,
    ) -> Result<(), Trouble> {
        let network = self.cluster.network();
        let (nodes, others) = match others {
            Some(others) => turn.pick_two(nodes, others),
            None => (turn.pick(nodes), network.names().to_vec()),
        };
        let ways = cross(&nodes, &others);
        if ways.is_empty() {
            return Err(nothing("change", &nodes, &others));
        }
        for (from, to) in ways {
            network.impair(&from, &to, change(network.impairment(&from, &to)?))?;
            if !is_one_way {
                network.impair(&to, &from, change(network.impairment(&to, &from)?))?;
            }
        }
        Ok(())
    }
}

/// Every one of the first with every one of the second, but none with itself.
pub(super) fn cross(from: &[String], to: &[String]) -> Vec<(String, String)> {
    from.iter()
        .flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())))
        .filter(|(from, to)| from != to)
        .collect()
}

fn nothing(what: &str, one: &[String], other: &[String]) -> Trouble {
    let (one, other) = (one.join(", "), other.join(", "));
    Trouble::wrong(format!(
        "there is nothing to {what} between [{one}] and [{other}]"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_paired_with_itself_and_an_empty_crossing_is_told_with_both_sides() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (one, both) = (names(&["a"]), names(&["a", "b"]));
        assert_eq!(cross(&one, &both), [("a".to_owned(), "b".to_owned())]);
        assert!(cross(&one, &one).is_empty());
        assert_eq!(
            nothing("cut", &one, &one).reason,
            "there is nothing to cut between [a] and [a]"
        );
    }
}
