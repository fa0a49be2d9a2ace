//! What is kept of a failure beside folders and logs: the report, the scenario, and what every node
//! says of itself, or how it ended.
//!
//! It helps whoever looks later; that it cannot be got is no further failure.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Doing, all};
use crate::lab::machine::Machine;
use crate::lab::report::{RunReport, schema};
use crate::lab::{Cluster, LabError, Scenario};

/// How long all nodes together may take; one that hangs must not hold up the report of it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Writes `NAME.status.json`, `NAME.tree.json` and `NAME.events.json` beside the logs, `network.txt`,
/// `report.json`, and `scenario.toml` where the scenario's file can be read.
pub(super) async fn collect(cluster: &Cluster, scenario: &Scenario, report: &RunReport) {
    let folder = cluster.folder();
    let _ = std::fs::copy(&scenario.path, folder.join("scenario.toml"));
    if let Ok(mut document) = serde_json::to_value(report) {
        if let Value::Object(fields) = &mut document {
            fields.insert("schema".to_owned(), schema::RUN.into());
        }
        write(&folder.join("report.json"), &document);
    }
    let mut ways = String::new();
    for way in cluster.network().report() {
        ways.push_str(&format!(
            "{} to {}: {}; {:?}\n",
            way.from, way.to, way.impairment, way.counts
        ));
    }
    let _ = std::fs::write(folder.join("network.txt"), ways);
    let asking = cluster.nodes().iter().map(|node| -> Doing<'_> {
        Box::pin(async move {
            ask(folder, node).await;
            Ok(())
        })
    });
    let _ = tokio::time::timeout(ANSWERS_WITHIN, all(asking.collect())).await;
}

async fn ask(folder: &Path, node: &Machine) {
    let path = |what: &str| folder.join(format!("{}.{what}.json", node.name()));
    if !node.is_running() {
        let ended = json!({ "ended": node.last_end() });
        for what in ["status", "tree", "events"] {
            write(&path(what), &ended);
        }
        return;
    }
    // One that was paused could not answer.
    if node.is_paused() {
        let _ = node.resume().await;
    }
    let told = |document: Result<Value, LabError>| {
        document.unwrap_or_else(|error| Value::String(error.to_string()))
    };
    write(&path("status"), &told(node.status().await));
    write(&path("tree"), &told(node.tree().await));
    write(&path("events"), &told(node.events(None).await));
}

fn write(path: &Path, document: &Value) {
    let _ = std::fs::write(path, format!("{document:#}\n"));
}
