//! `pullguard doctor`: is this installation well, and can it hurt the cluster?
//!
//! Enters: one look at an installation, on a cluster or in manifests. Leaves: a line for each thing that was looked at, with
//! what to do about it, and the exit status.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `scene` | all reads of a cluster, and the reviews and dry runs that ask it a question |
//! | `files` | manifests in its place |
//! | `site` | what both lead to: the installation as it is declared |
//! | `lockout`, `workload`, `rights` | what can be judged of it without a cluster: the proof that it locks nobody out |
//! | `certificates`, `endpoints`, `probe` | what can be seen on a cluster alone: whether the webhooks really answer |
//! | `definitions`, `policies` | whether what is asked for is what is in force |
//! | `line`, `hook` | what is said, and of whom |

mod certificates;
mod definitions;
mod endpoints;
mod files;
#[cfg(test)]
mod fixtures;
mod hook;
mod line;
mod lockout;
mod policies;
mod probe;
mod rights;
mod scene;
mod site;
mod workload;

use std::process::ExitCode;

use super::cli::{DoctorArgs, Output};
use super::cluster::Cluster;
use super::output;
use line::Line;
use scene::Scene;
use site::Site;

/// # Errors
/// There is nothing to look at: no cluster, or no manifests.
pub async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    if !args.files.is_empty() {
        return files::run(args);
    }
    let cluster = Cluster::current().await?;
    let scene = Scene::read(&cluster, &args.installed.namespace).await?;
    print(&examine(&scene), args.installed.output)
}

fn print(lines: &[Line], output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => output::json(&lines)?,
        Output::Table => output::text_out(&line::table(lines))?,
    }
    Ok(line::exit(lines))
}

fn examine(scene: &Scene) -> Vec<Line> {
    let mut lines = Vec::new();
    let site = &scene.site;
    definitions::examine(&scene.definitions, &mut lines);
    certificates::examine(&scene.secret, &site.hooks, &scene.replicas, &site.namespace, scene.now, &mut lines);
    lines.push(endpoints::examine(&scene.slices, site.fails_closed()));
    match &scene.answers {
        Some(answers) => lines.extend(answers.iter().map(|(webhook, answer)| probe::judge(webhook, answer))),
        None => lines.push(probe::nowhere()),
    }
    match &scene.unread_hooks {
        Some(gap) => lines.push(gap.line("webhooks")),
        None => structure(site, &mut lines),
    }
    policies::examine(&scene.policies, &scene.nodes, &mut lines);
    lines.push(policies::leader(&scene.lease, scene.later.as_ref(), scene.now));
    lines
}

/// What can be judged of an installation as it is declared.
fn structure(site: &Site, lines: &mut Vec<Line>) {
    let configured = lockout::configured(&site.hooks);
    if site.hooks.is_empty() {
        return lines.push(configured);
    }
    let mut safeguards = vec![configured];
    lockout::examine(site, &mut safeguards);
    workload::examine(site, &mut safeguards);
    // Without them no certificate is renewed, and one day none is trusted.
    safeguards.push(rights::examine(site));
    lines.push(lockout::proof(&site.hooks, &safeguards));
    lines.extend(safeguards);
}
