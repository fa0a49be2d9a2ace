//! `tree`: the live actors, drawn, each with its lives and what waits for it.

use std::time::Duration;

use packhorse::Exit;
use packhorse::api::insight::schema;
use packhorse::insight::Branch;
use packhorse::time::short_duration;

use crate::cli::display::{cut, printable};
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen};

/// Characters of a reason that are shown; the document has all of it.
const REASON_CHARS_MAX: usize = 60;

pub(crate) async fn run(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let tree = folder
        .client()?
        .tree()
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::TREE, &tree)?;
    } else {
        screen.data(&render(&tree.root))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn render(root: &Branch) -> String {
    let mut table = Table::new(&["ACTOR", ">LIFE", ">RESTARTS", ">UP", ">QUEUE", "LAST EXIT"]);
    table.row(cells(root, ""));
    draw(&root.children, "", &mut table);
    table.render()
}

/// The rows below a branch; `before` is what the branches above draw in front of them.
fn draw(children: &[Branch], before: &str, table: &mut Table) {
    for (index, child) in children.iter().enumerate() {
        let is_last = index + 1 == children.len();
        let (own, below) = if is_last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        table.row(cells(child, &format!("{before}{own}")));
        draw(&child.children, &format!("{before}{below}"), table);
    }
}

fn cells(branch: &Branch, before: &str) -> Vec<String> {
    let up = match branch.uptime_ms {
        Some(ms) => short_duration(Duration::from_millis(ms)),
        None => "down".to_owned(),
    };
    let reason = branch.last_exit.as_deref().unwrap_or_default();
    vec![
        format!("{before}{}", printable(&branch.actor)),
        branch.incarnation.to_string(),
        branch.restarts.to_string(),
        up,
        branch.queue_depth.to_string(),
        cut(reason, REASON_CHARS_MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(actor: &str, children: Vec<Branch>) -> Branch {
        Branch {
            actor: actor.into(),
            incarnation: 1,
            restarts: 0,
            last_exit: None,
            uptime_ms: Some(10_000),
            queue_depth: 0,
            children,
        }
    }

    #[test]
    fn branches_are_drawn_below_each_other() {
        let mut sessions = branch("session supervisor", vec![branch("session left", vec![])]);
        sessions.incarnation = 2;
        sessions.restarts = 1;
        sessions.last_exit = Some("panic: on purpose".into());
        let mut last = branch("listener", vec![]);
        last.uptime_ms = None;
        let root = branch("root", vec![branch("store", vec![]), sessions, last]);
        assert_eq!(
            render(&root),
            "\
ACTOR                  LIFE  RESTARTS    UP  QUEUE  LAST EXIT
root                      1         0   10s      0  -
├─ store                  1         0   10s      0  -
├─ session supervisor     2         1   10s      0  panic: on purpose
│  └─ session left        1         0   10s      0  -
└─ listener               1         0  down      0  -
"
        );
    }
}
