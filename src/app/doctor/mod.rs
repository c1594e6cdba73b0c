//! `pullguard doctor`: is this installation well, and can it hurt the cluster?
//!
//! Enters: one look at an installation ([`scene`]). Leaves: a line for each thing that was looked at, with what to do about
//! it, and the exit status. Only what was really seen is said to be well; what could not be read is a warning.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `scene` | all reads, and the two reviews that ask the API server a question |
//! | `certificates` | the Secret, its expiry, and whether what is served is trusted |
//! | `webhooks` | reach, and what a webhook that fails closed could lock out |
//! | `rights` | what the service account must be granted: the rules of `manifests/base/rbac.yaml` themselves |
//! | `nodes` | policies in force, and nodes whose lists prove nothing |

mod certificates;
mod nodes;
mod rights;
mod scene;
mod webhooks;

use std::process::ExitCode;

use serde::Serialize;

use super::cli::{DoctorArgs, Output};
use super::cluster::Cluster;
use super::output;
use scene::Scene;

/// # Errors
/// There is no cluster to look at.
pub async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::current().await?;
    let scene = Scene::read(&cluster, &args.namespace).await?;
    let lines = examine(&scene);
    match args.output {
        Output::Json => output::json(&lines)?,
        Output::Table => output::text_out(&table(&lines))?,
    }
    let failed = lines.iter().any(|line| line.status == Status::Fail);
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn examine(scene: &Scene) -> Vec<Line> {
    let mut lines = Vec::new();
    certificates::examine(scene, &mut lines);
    webhooks::examine(scene, &mut lines);
    rights::examine(scene, &mut lines);
    nodes::examine(scene, &mut lines);
    lines
}

/// From well to ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at: a stable shape, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// A word for the thing, the same in every version.
    check: &'static str,
    status: Status,
    message: String,
    /// What to do; `null` where all is well.
    remedy: Option<String>,
}

impl Line {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, message: message.into(), remedy: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// What could not be looked at is not well.
    fn unread(check: &'static str, why: &str) -> Self {
        Self::warn(check, format!("not checked: {why}"), "Run doctor as somebody who may read it.")
    }
}

fn table(lines: &[Line]) -> String {
    let mut table = output::Table::new(&["STATUS", "CHECK"]);
    for line in lines {
        table.row(&[line.status.as_str(), line.check]);
        table.note(&line.message);
        if let Some(remedy) = &line.remedy {
            table.note(&format!("-> {remedy}"));
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_line_has_its_documented_shape() {
        let line = serde_json::to_value(Line::warn("nodes", "a", "b")).expect("json");
        assert_eq!(line, serde_json::json!({"check": "nodes", "status": "warn", "message": "a", "remedy": "b"}));
        assert!(serde_json::to_value(Line::ok("nodes", "a")).expect("json")["remedy"].is_null());
    }
}
