//! What a program gets that posts an object itself, without kubectl's words around it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::world::Scene;

/// The Status by which the API server refuses a pod.
pub fn refusal(scene: &Scene<'_>, pod: &Value) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{}/pods", scene.namespace);
    // At this verbosity kubectl tells the bodies, whole.
    let denied = scene.cluster.kubectl_stdin(&["create", "--raw", &path, "-f", "-", "-v=10"], &pod.to_string())?;
    ensure!(!denied.status.success(), "it was accepted");
    let log = String::from_utf8(denied.stderr)?;
    log.lines().find_map(status_of).with_context(|| format!("no Status in: {log}"))
}

/// The Status in a line of kubectl's log: as it is, or quoted.
fn status_of(line: &str) -> Option<Value> {
    let quoted = line
        .find("body=\"")
        .and_then(|at| line.get(at + 5..))
        .and_then(|rest| serde_json::Deserializer::from_str(rest).into_iter::<String>().next()?.ok());
    let text = quoted.or_else(|| line.find('{').and_then(|at| line.get(at..)).map(str::to_owned))?;
    let value: Value = serde_json::Deserializer::from_str(&text).into_iter().next()?.ok()?;
    (value["kind"] == "Status").then_some(value)
}
