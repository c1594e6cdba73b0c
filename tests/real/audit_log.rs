//! The API server's audit log of the test cluster: of each pod that somebody wants to create, what was made of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::stage::repository;

fn log() -> PathBuf {
    repository().join("target/test-audit.log")
}

/// Flags of the API server, for creations of pods alone: the log is to cost nothing.
pub fn flags() -> Result<Vec<String>> {
    let policy = repository().join("target/test-audit-policy.json");
    let rules = json!([
        {"level": "Metadata", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods"]}]},
        {"level": "None"},
    ]);
    let text =
        json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules});
    fs::write(&policy, text.to_string()).with_context(|| format!("cannot write {}", policy.display()))?;
    Ok(vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log().display()),
        "--audit-log-maxsize=20".to_owned(),
        "--audit-log-maxbackup=1".to_owned(),
    ])
}

/// The annotations of the last creation of a pod in this namespace. The API server writes them before it answers.
pub fn last_annotations(namespace: &str) -> Result<Value> {
    let text = fs::read_to_string(log()).with_context(|| format!("cannot read {}", log().display()))?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_namespace = events.filter(|event| event["objectRef"]["namespace"] == namespace);
    let last = of_namespace.next_back().context("the audit log knows of no pod in this namespace")?;
    Ok(last["annotations"].clone())
}
