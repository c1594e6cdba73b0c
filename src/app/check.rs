//! `pullguard check`: the verdict that the webhook would give on manifests, before anybody applies them.
//!
//! Enters: manifests, and policies, nodes and namespaces out of files or the current cluster. Leaves: one entry an object,
//! as a table or as JSON, and the exit status. It decides nothing: the question is made and answered by the very code
//! that serves admission, the mutating half before the validating one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::cli::{CheckArgs, OWN_NAMESPACE, Output};
use super::cluster::{Cluster, ClusterError};
use super::manifests::{Checked, Manifests, Object, Place, Problem, Refused, uncompiled};
use super::output;
use crate::core::decide::decide;
use crate::core::inventory::{Inventory, InventorySettings};
use crate::core::namespace::{NAME_LABEL, NamespaceFacts};
use crate::core::policies::Policies;
use crate::core::policy::Action;
use crate::core::rescue::rescue;
use crate::core::runtime::recreation::Recreation;
use crate::core::selector::Labels;
use crate::core::verdict::Verdict;
use crate::k8s;
use crate::k8s::crd::{NodeImagePolicy, PullFailure};
use crate::k8s::question::{Inquiry, Operation, Submitted};

/// # Errors
/// The manifests cannot be judged: an input is wrong, or the cluster cannot be read.
pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut manifests = Manifests::new(args.validate);
    let read = read(args, &mut manifests);
    for warning in &manifests.warnings {
        eprintln!("pullguard: warning: {}", output::plain(&warning.to_string()));
    }
    let Inputs { submissions, policies, nodes, namespaces } = read?;
    let ground = ground(args, policies, nodes, namespaces).await?;
    let now = Timestamp::now();
    let mut entries = Vec::new();
    for submission in &submissions {
        entries.push(ground.entry(submission, now)?);
    }
    let denied = entries.iter().any(|entry| entry.verdict == Action::Deny.as_str());
    match args.output {
        Output::Json => output::json(&entries)?,
        Output::Table => output::text_out(&table(&entries))?,
    }
    Ok(if denied { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// All that files say; `None`: no file was given.
struct Inputs {
    submissions: Vec<Submission>,
    policies: Option<Vec<NodeImagePolicy>>,
    nodes: Option<Vec<Node>>,
    namespaces: Option<Vec<Namespace>>,
}

/// An object that is judged, as it would be sent.
#[derive(Debug)]
struct Submission {
    place: Place,
    group: String,
    kind: String,
    namespace: String,
    name: String,
    json: String,
}

/// Every input is read before the first error is told, so that one run tells all.
fn read(args: &CheckArgs, manifests: &mut Manifests) -> Result<Inputs, Refused> {
    let mut refused = Refused::default();
    let mut keep = |problems: Refused| refused.0.extend(problems.0);
    let submissions = submissions(args, manifests).map_err(&mut keep).unwrap_or_default();
    let policies =
        given(&args.policies, |files| compiled(manifests.policies(files)?)).map_err(&mut keep).unwrap_or_default();
    let nodes =
        given(&args.inventory, |files| Ok(bare(manifests.nodes(files)?))).map_err(&mut keep).unwrap_or_default();
    let namespaces =
        given(&args.namespaces, |files| Ok(bare(manifests.namespaces(files)?))).map_err(&mut keep).unwrap_or_default();
    if refused.0.is_empty() { Ok(Inputs { submissions, policies, nodes, namespaces }) } else { Err(refused) }
}

fn given<T>(files: &[String], read: impl FnOnce(&[String]) -> Result<T, Refused>) -> Result<Option<T>, Refused> {
    if files.is_empty() { Ok(None) } else { read(files).map(Some) }
}

fn bare<T>(found: Vec<(Place, T)>) -> Vec<T> {
    found.into_iter().map(|(_, object)| object).collect()
}

/// Policies that can be compiled; the others are told with their place.
fn compiled(found: Vec<(Place, NodeImagePolicy)>) -> Result<Vec<NodeImagePolicy>, Refused> {
    let wrong = |(place, policy): &(Place, NodeImagePolicy)| {
        k8s::policy::compile(policy).err().map(|error| uncompiled(place, &policy.name_any(), error))
    };
    let problems: Vec<Problem> = found.iter().filter_map(wrong).collect();
    if problems.is_empty() { Ok(bare(found)) } else { Err(Refused(problems)) }
}

fn submissions(args: &CheckArgs, manifests: &mut Manifests) -> Result<Vec<Submission>, Refused> {
    let mut submissions = Vec::new();
    let mut problems = Vec::new();
    for object in manifests.objects(&args.files)? {
        match manifests.check(&object) {
            Ok(Checked::Pod | Checked::Template(_)) => submissions.push(submission(object, &args.namespace)),
            Ok(Checked::NotJudged) => {}
            Err(Refused(more)) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(submissions) } else { Err(Refused(problems)) }
}

fn submission(object: Object, default_namespace: &str) -> Submission {
    let text = |field: &str| object.value.pointer(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    let namespace = match text("/metadata/namespace") {
        "" => default_namespace,
        namespace => namespace,
    };
    let name = match text("/metadata/name") {
        "" => text("/metadata/generateName"),
        name => name,
    };
    Submission {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        json: object.value.to_string(),
        place: object.place,
        group: object.group,
        kind: object.kind,
    }
}

/// What manifests are judged on.
#[derive(Debug)]
struct Ground {
    policies: Policies,
    inventory: Inventory,
    namespaces: BTreeMap<String, Labels>,
    /// Tasks of the cluster that are permanently failed; without a cluster there are none.
    failed: Recreation,
}

/// What no file says, the cluster does. Where files give policies and nodes, no cluster is asked, not even for namespaces:
/// a check in a pipeline must not depend on one by accident.
async fn ground(
    args: &CheckArgs,
    policies: Option<Vec<NodeImagePolicy>>,
    nodes: Option<Vec<Node>>,
    namespaces: Option<Vec<Namespace>>,
) -> anyhow::Result<Ground> {
    let settings = args.settings.settings();
    if let (Some(policies), Some(nodes)) = (&policies, &nodes) {
        let namespaces = namespaces.unwrap_or_default();
        return Ok(Ground::new(policies, nodes.clone(), namespaces, settings, Timestamp::now())?);
    }
    let cluster = Cluster::current().await?;
    let everything = ListParams::default();
    let failed = if policies.is_none() { failed_tasks(&cluster).await? } else { Recreation::default() };
    let policies = match policies {
        Some(policies) => policies,
        None => cluster.list(&Api::<NodeImagePolicy>::all(cluster.client.clone()), &everything).await?,
    };
    let nodes = match nodes {
        Some(nodes) => nodes,
        None => cluster.list(&Api::<Node>::all(cluster.client.clone()), &everything).await?,
    };
    let namespaces = match namespaces {
        Some(namespaces) => namespaces,
        None => cluster.list(&Api::<Namespace>::all(cluster.client.clone()), &everything).await?,
    };
    Ok(Ground { failed, ..Ground::new(&policies, nodes, namespaces, settings, Timestamp::now())? })
}

/// Few manifests are of a task that has failed before: whoever may not read the records is told, and gets a verdict.
async fn failed_tasks(cluster: &Cluster) -> Result<Recreation, ClusterError> {
    let mut failed = Recreation::default();
    match cluster.list(&Api::<PullFailure>::all(cluster.client.clone()), &ListParams::default()).await {
        Ok(records) => {
            for sight in records.into_iter().filter_map(k8s::record::sight) {
                failed.observe(&sight.record);
            }
        }
        Err(error @ (ClusterError::Refused { .. } | ClusterError::NotInstalled { .. })) => {
            eprintln!("pullguard: warning: {error}");
        }
        Err(error @ (ClusterError::NoConfig(_) | ClusterError::Unreachable { .. })) => return Err(error),
    }
    Ok(failed)
}

/// A policy, by name, and why it cannot be judged by.
#[derive(Debug, thiserror::Error)]
#[error("NodeImagePolicy {name} cannot be compiled: {source}")]
struct Uncompiled {
    name: String,
    source: k8s::policy::CompileError,
}

impl Ground {
    fn new(
        policies: &[NodeImagePolicy],
        nodes: Vec<Node>,
        namespaces: Vec<Namespace>,
        settings: InventorySettings,
        now: Timestamp,
    ) -> Result<Self, Uncompiled> {
        let mut compiled = Policies::default();
        for policy in policies {
            let policy =
                k8s::policy::compile(policy).map_err(|source| Uncompiled { name: policy.name_any(), source })?;
            compiled.apply(policy);
        }
        let mut inventory = Inventory::new(settings);
        for node in nodes {
            inventory.apply(k8s::node::facts(node), now);
        }
        inventory.set_synced(true);
        let namespaces = namespaces.into_iter().map(|namespace| {
            let name = namespace.name_any();
            let mut labels = namespace.metadata.labels.unwrap_or_default();
            // The API server puts it on every namespace, and a file written by hand may lack it.
            labels.insert(NAME_LABEL.to_owned(), name.clone());
            (name, labels)
        });
        Ok(Self { policies: compiled, inventory, namespaces: namespaces.collect(), failed: Recreation::default() })
    }

    fn namespace(&self, name: &str) -> NamespaceFacts {
        NamespaceFacts { name: name.to_owned(), labels: self.namespaces.get(name).cloned().map(Arc::new) }
    }

    fn entry(&self, submission: &Submission, now: Timestamp) -> Result<Entry, Problem> {
        let Submission { place, group, kind, namespace, name, json } = submission;
        let submitted = Submitted {
            group,
            kind,
            subresource: "",
            operation: Operation::Create,
            namespace,
            object: json,
            old_object: None,
            admitted: false,
        };
        let verdict = match submitted.inquire(OWN_NAMESPACE) {
            Ok(Ok(inquiry)) => self.verdict(inquiry, now),
            Ok(Err(_exempt)) => Verdict::default(),
            Err(error) => return Err(uncheckable(place, &error)),
        };
        Ok(Entry {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            verdict: verdict.action().as_str(),
            findings: findings(&verdict),
            omitted: verdict.omitted,
        })
    }

    /// As at admission: what the mutating webhook would mend is mended before it is judged.
    fn verdict(&self, mut inquiry: Inquiry, now: Timestamp) -> Verdict {
        let namespace = self.namespace(&inquiry.pod.namespace);
        if let Some(change) = rescue(&inquiry.question(&namespace), "", &self.policies, &self.inventory, now) {
            change.apply(&mut inquiry.pod);
        }
        decide(&inquiry.question(&namespace), &self.policies, &self.inventory, &self.failed, now)
    }
}

fn uncheckable(place: &Place, error: &serde_json::Error) -> Problem {
    place.problem("", error)
}

/// One object with its verdict: a stable shape, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    kind: String,
    namespace: String,
    name: String,
    verdict: &'static str,
    findings: Vec<Told>,
    /// How many findings a verdict had no room for; the strictest come first.
    #[serde(skip_serializing_if = "is_zero")]
    omitted: usize,
}

const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A finding about one container; about the pod as a whole, container and image are `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    policy: String,
    container: Option<String>,
    image: Option<String>,
    reason: &'static str,
    detail: Option<&'static str>,
    action: &'static str,
    would_be: &'static str,
    message: String,
    remedy: Option<String>,
}

/// An image that several containers use is told for each of them.
fn findings(verdict: &Verdict) -> Vec<Told> {
    let mut told = Vec::new();
    for finding in &verdict.findings {
        let about = |container: Option<&String>| Told {
            policy: finding.policy.to_string(),
            container: container.cloned(),
            image: Some(finding.image.to_string()).filter(|_| container.is_some()),
            reason: finding.reason.as_str(),
            detail: finding.detail.map(|detail| detail.as_str()),
            action: finding.action.as_str(),
            would_be: finding.would_be.as_str(),
            message: finding.message(),
            remedy: finding.remedy.as_deref().map(str::to_owned),
        };
        if finding.containers.is_empty() {
            told.push(about(None));
        }
        told.extend(finding.containers.iter().map(|container| about(Some(container))));
    }
    told
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "Nothing to judge: no pods and no templates of pods in these manifests.\n".to_owned();
    }
    let mut table = output::Table::new(&["VERDICT", "KIND", "NAMESPACE", "NAME"]);
    for entry in entries {
        table.row(&[entry.verdict, &entry.kind, &entry.namespace, &entry.name]);
        for finding in &entry.findings {
            let about = match &finding.container {
                Some(container) => format!("container {container}: "),
                None => String::new(),
            };
            let capped = if finding.action == finding.would_be {
                String::new()
            } else {
                format!(" (would be {}, but for enforcement or templates)", finding.would_be)
            };
            let detail = finding.detail.map_or(String::new(), |detail| format!("/{detail}"));
            table.note(&format!("{} {}{detail}{capped}: {about}{}", finding.action, finding.reason, finding.message));
        }
        if entry.omitted > 0 {
            table.note(&format!("and {} findings more", entry.omitted));
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ground(policy: serde_json::Value, images: &[&str]) -> Ground {
        let policy = serde_json::from_value(json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": "agents"}, "spec": policy}))
            .expect("a policy");
        let node = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"containerRuntimeVersion": "containerd://2.4.2"},
                "images": images.iter().map(|image| json!({"names": [image]})).collect::<Vec<_>>(),
            },
        }))
        .expect("a node");
        Ground::new(&[policy], vec![node], Vec::new(), InventorySettings::default(), Timestamp::now())
            .expect("compiles")
    }

    fn entry(ground: &Ground, group: &str, kind: &str, value: serde_json::Value) -> Entry {
        let place = Place { file: "f".into(), document: 1, items: String::new() };
        let object = Object { place, group: group.into(), kind: kind.into(), value };
        ground.entry(&submission(object, "default"), Timestamp::now()).expect("judged")
    }

    fn pod(image: &str) -> serde_json::Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "one", "image": image, "imagePullPolicy": "Never"}, {"name": "two", "image": image, "imagePullPolicy": "Never"}]}})
    }

    #[test]
    fn an_absent_image_is_told_for_each_container_that_uses_it() {
        let entry = entry(&ground(json!({}), &["docker.io/library/other:1"]), "", "Pod", pod("agent:1"));
        assert_eq!(entry.verdict, "Deny");
        let containers: Vec<_> =
            entry.findings.iter().map(|finding| finding.container.as_deref().unwrap_or_default()).collect();
        assert_eq!(containers, ["one", "two"]);
        assert!(entry.findings.iter().all(|finding| finding.reason == "ImageAbsent" && finding.would_be == "Deny"));
    }

    #[test]
    fn audit_is_allowed_and_says_what_would_have_been() {
        let entry =
            entry(&ground(json!({"enforcement": "Audit"}), &["docker.io/library/other:1"]), "", "Pod", pod("agent:1"));
        assert_eq!((entry.verdict, entry.findings.first().map(|finding| finding.would_be)), ("Allow", Some("Deny")));
        assert!(table(&[entry]).contains("would be Deny"));
    }

    #[test]
    fn what_the_mutating_webhook_would_mend_is_judged_mended() {
        let policy = json!({"allowedImages": ["**"], "rescue": "PullIfNotPresent"});
        let entry = entry(&ground(policy, &["docker.io/library/other:1"]), "", "Pod", pod("agent:1"));
        assert_eq!((entry.verdict, entry.findings.len()), ("Allow", 0));
    }

    #[test]
    fn exempt_and_controlled_objects_have_an_entry_and_no_findings() {
        let ground = ground(json!({}), &["docker.io/library/other:1"]);
        let mut system = pod("agent:1");
        system["metadata"]["namespace"] = "kube-system".into();
        let mut controlled = json!({"metadata": {"name": "r", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "controller": true}]}});
        controlled["spec"] = json!({"template": {"spec": pod("agent:1")["spec"]}});
        for entry in [entry(&ground, "", "Pod", system), entry(&ground, "apps", "ReplicaSet", controlled)] {
            assert_eq!((entry.verdict, entry.findings.len()), ("Allow", 0), "{}", entry.kind);
        }
    }

    #[test]
    fn a_selector_of_labels_that_are_not_known_makes_it_unknown() {
        let policy = json!({"match": {"namespaceSelector": {"matchLabels": {"team": "a"}}}});
        let entry = entry(&ground(policy, &["docker.io/library/other:1"]), "", "Pod", pod("agent:1"));
        let first = entry.findings.first().expect("a finding");
        assert_eq!((first.reason, first.detail), ("ImagePresenceUnknown", Some("NamespaceUnknown")));
    }
}
