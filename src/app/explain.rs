//! `pullguard explain`: why a pod's image does not come, what to do, and what Pullguard will do.
//!
//! Enters: a kubelet's words, or one look at a pod in the current cluster. Leaves: the judgement of the very code that the
//! controller runs, in words for people or as JSON. Nothing is written.

use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace, Node};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde::Serialize;

use super::cli::{ExplainArgs, Output};
use super::cluster::{Cluster, ClusterError};
use super::output;
use crate::core::cause::{Cause, Diagnosis, FailureClass, Permanence, Words, classify};
use crate::core::image::ImageReference;
use crate::core::inventory::Inventory;
use crate::core::namespace::NamespaceFacts;
use crate::core::policies::{Certainty, Policies};
use crate::core::policy::Policy;
use crate::core::runtime::brake_sign::BrakeSign;
use crate::core::runtime::effect::Record;
use crate::core::runtime::explain::{Explanation, Look, explain, record_of};
use crate::core::runtime::sight::{EventSight, PodSight};
use crate::k8s;
use crate::k8s::crd::{NodeImagePolicy, PullFailure};
use crate::k8s::sight::Evidence;
use crate::k8s::watched::WatchedPod;

/// # Errors
/// The pod, or what it is judged on, cannot be read.
pub async fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let told = match &args.pod {
        Some(pod) => live(args, pod).await?,
        None => offline(args),
    };
    match args.output {
        Output::Json => output::json(&told)?,
        Output::Table => output::text_out(&told.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The answer: a stable shape, for programs. Fields are added, never taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    pull_failure: bool,
    /// `null`: no pull failure.
    class: Option<&'static str>,
    permanence: Option<&'static str>,
    /// For whom it is true: `Node` or `Task`.
    scope: Option<&'static str>,
    image: Option<String>,
    summary: String,
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<ToldPod>,
}

/// What only a look at a cluster can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldPod {
    namespace: String,
    name: String,
    node: Option<String>,
    container: Option<String>,
    policies: Vec<String>,
    /// The name of the task's `PullFailure`.
    record: Option<String>,
    evidence: Vec<ToldEvidence>,
    /// What Pullguard will do, and when.
    next: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ToldEvidence {
    from: String,
    says: String,
}

fn offline(args: &ExplainArgs) -> Told {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (reason, message) = (text(&args.reason), text(&args.message));
    of_words(&Words { reason: &reason, message: &message, image: args.image.as_deref() })
}

fn of_words(words: &Words<'_>) -> Told {
    match classify(words) {
        Diagnosis::PullFailure(Cause { class, permanence, image, summary, remedy }) => {
            Told { image, summary, remedy: Some(remedy), ..Told::of(class, permanence) }
        }
        Diagnosis::CauseElsewhere { image } => Told {
            image,
            summary: "the kubelet backs off and does not tell the cause here".to_owned(),
            remedy: Some("Look at the pod's Events: kubelets before 1.32 tell the cause only there.".to_owned()),
            ..Told::of(FailureClass::Unknown, Permanence::Transient)
        },
        Diagnosis::NotAPullFailure => Told {
            image: words.image.map(str::to_owned),
            summary: "these are not the words of an image that cannot be pulled".to_owned(),
            ..Told::default()
        },
    }
}

async fn live(args: &ExplainArgs, pod: &str) -> anyhow::Result<Told> {
    let name = match pod.split_once('/') {
        Some(("pod" | "pods" | "po", name)) if !name.is_empty() => name,
        Some((kind, _)) => anyhow::bail!("{kind}: only pods can be explained; write pod/NAME"),
        None => pod,
    };
    let cluster = Cluster::current().await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| cluster.default_namespace.clone());
    let pods: Api<WatchedPod> = Api::namespaced(cluster.client.clone(), &namespace);
    let Some(found) = cluster.get(&pods, name).await? else {
        anyhow::bail!("there is no pod {name} in namespace {namespace}");
    };
    let pod = k8s::sight::pod(found);
    let scene = Scene::read(args, &cluster, &pod, &namespace).await?;
    Ok(scene.told(&pod, Timestamp::now()))
}

/// What a pod is judged on.
#[derive(Debug)]
struct Scene {
    namespace: NamespaceFacts,
    policies: Policies,
    /// The brakes that are on, by what the policies' statuses say.
    brakes: Vec<BrakeSign>,
    events: Vec<EventSight>,
    records: Vec<Record>,
    inventory: Inventory,
    /// What could not be read, and so is missing in the judgement.
    gaps: Vec<String>,
}

impl Scene {
    async fn read(
        args: &ExplainArgs,
        cluster: &Cluster,
        pod: &PodSight,
        namespace: &str,
    ) -> Result<Self, ClusterError> {
        let client = || cluster.client.clone();
        let mut gaps = Vec::new();
        // The pod itself was read: what else a person may not read makes the answer poorer, not impossible.
        let mut lacks = |error: ClusterError| -> Result<(), ClusterError> {
            match error {
                ClusterError::Refused { .. } | ClusterError::NotInstalled { .. } => {
                    gaps.push(error.to_string());
                    Ok(())
                }
                ClusterError::NoConfig(_) | ClusterError::Unreachable { .. } => Err(error),
            }
        };
        let all = ListParams::default();
        let mut listed = Vec::new();
        match cluster.list(&Api::<NodeImagePolicy>::all(client()), &all).await {
            Ok(policies) => listed = policies,
            Err(error) => lacks(error)?,
        }
        let mut inventory = Inventory::new(args.settings.settings());
        match cluster.list(&Api::<Node>::all(client()), &all).await {
            Ok(nodes) => {
                let now = Timestamp::now();
                for node in nodes {
                    inventory.apply(k8s::node::facts(node), now);
                }
                inventory.set_synced(true);
            }
            Err(error) => lacks(error)?,
        }
        let about_pod = all.clone().fields(&format!("involvedObject.uid={}", pod.uid));
        let mut events = Vec::new();
        match cluster.list(&Api::<Event>::namespaced(client(), namespace), &about_pod).await {
            Ok(found) => events = found.into_iter().filter_map(pull_event).collect(),
            Err(error) => lacks(error)?,
        }
        events.sort_by_key(|event: &EventSight| event.at);
        let mut records = Vec::new();
        match cluster.list(&Api::<PullFailure>::namespaced(client(), namespace), &all).await {
            Ok(found) => records = found.into_iter().filter_map(k8s::record::sight).map(|sight| sight.record).collect(),
            Err(error) => lacks(error)?,
        }
        let mut facts = NamespaceFacts::unlabelled(namespace);
        match cluster.get(&Api::<PartialObjectMeta<Namespace>>::all(client()), namespace).await {
            Ok(found) => facts.labels = found.map(|namespace| Arc::new(namespace.labels().clone())),
            Err(error) => lacks(error)?,
        }
        let (policies, brakes) = in_force(&listed, &mut gaps);
        Ok(Self { namespace: facts, policies, brakes, events, records, inventory, gaps })
    }

    fn told(&self, pod: &PodSight, now: Timestamp) -> Told {
        let matching: Vec<&Policy> = self
            .policies
            .matching(&pod.facts.labels, &self.namespace)
            .filter(|(_, certainty)| *certainty == Certainty::Certain)
            .map(|(entry, _)| &*entry.policy)
            .collect();
        let look = Look {
            pod,
            events: &self.events,
            policies: &matching,
            record: record_of(pod, &self.records),
            nodes: &self.inventory,
            now,
        };
        let Explanation {
            pull_failure,
            class,
            permanence,
            container,
            image,
            summary,
            remedy,
            evidence,
            mut next,
            record,
        } = explain(&look);
        let host = image.as_deref().and_then(|image| ImageReference::parse(image).ok());
        let registry = host.as_ref().map(ImageReference::registry);
        next.extend(class.into_iter().flat_map(|class| {
            self.brakes.iter().filter_map(move |brake| brake.means_for(class, registry, pod.node.as_deref()))
        }));
        let evidence = evidence.into_iter().map(|evidence| ToldEvidence { from: evidence.from, says: evidence.says });
        let gaps = self.gaps.iter().map(|gap| ToldEvidence { from: "not read".to_owned(), says: gap.clone() });
        Told {
            pull_failure,
            class: class.map(FailureClass::as_str),
            permanence: permanence.map(Permanence::as_str),
            scope: class.map(|class| class.scope().as_str()),
            image,
            summary,
            remedy,
            pod: Some(ToldPod {
                namespace: pod.namespace().to_owned(),
                name: pod.name().to_owned(),
                node: pod.node.clone(),
                container,
                policies: matching.iter().map(|policy| policy.name.clone()).collect(),
                record,
                evidence: evidence.chain(gaps).collect(),
                next,
            }),
        }
    }
}

/// The policies that can be compiled, as the controller would, and the brakes that their statuses tell of.
fn in_force(listed: &[NodeImagePolicy], gaps: &mut Vec<String>) -> (Policies, Vec<BrakeSign>) {
    let mut policies = Policies::default();
    let mut brakes: Vec<BrakeSign> = Vec::new();
    for policy in listed {
        match k8s::policy::compile(policy) {
            Ok(compiled) => policies.apply(compiled),
            Err(error) => gaps.push(format!("NodeImagePolicy {} cannot be compiled: {error}", policy.name_any())),
        }
        let said = policy.status.iter().flat_map(|status| &status.brakes);
        brakes.extend(said.filter_map(|text| BrakeSign::parse(text, &policy.name_any())));
    }
    brakes.sort();
    brakes.dedup();
    (policies, brakes)
}

fn pull_event(event: Event) -> Option<EventSight> {
    match k8s::sight::event(event)? {
        Evidence::Pull(event) => Some(event),
        Evidence::Denial(_) => None,
    }
}

impl Told {
    fn of(class: FailureClass, permanence: Permanence) -> Self {
        Self {
            pull_failure: true,
            class: Some(class.as_str()),
            permanence: Some(permanence.as_str()),
            scope: Some(class.scope().as_str()),
            ..Self::default()
        }
    }

    fn text(&self) -> String {
        let mut lines = Lines::default();
        if let Some(pod) = &self.pod {
            lines.say("Pod", &format!("{}/{}", pod.namespace, pod.name));
            lines.maybe("Node", pod.node.as_deref());
            lines.maybe("Container", pod.container.as_deref());
        }
        lines.maybe("Image", self.image.as_deref());
        lines.say("Class", self.class.unwrap_or("none: not a pull failure"));
        if let (Some(permanence), Some(scope)) = (self.permanence, self.scope) {
            let scope = if scope == "Node" { "for this pod on this node" } else { "wherever the task's pods land" };
            lines.say("Permanence", &format!("{permanence}, {scope}"));
        }
        lines.say("Summary", &self.summary);
        lines.maybe("Remedy", self.remedy.as_deref());
        if let Some(pod) = &self.pod {
            lines.maybe("Record", pod.record.as_deref());
            lines.maybe("Policies", Some(pod.policies.join(", ")).filter(|names| !names.is_empty()).as_deref());
            lines.list("Evidence", pod.evidence.iter().map(|evidence| format!("{}: {}", evidence.from, evidence.says)));
            lines.list("Next", pod.next.iter().cloned());
        }
        lines.0
    }
}

/// Text in two columns.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn say(&mut self, name: &str, text: &str) {
        let name = format!("{name}:");
        self.0.push_str(&format!("{name:<13}{}\n", output::plain(text)));
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.say(name, text);
        }
    }

    fn list(&mut self, name: &str, items: impl Iterator<Item = String>) {
        let mut items = items.peekable();
        if items.peek().is_none() {
            return;
        }
        self.0.push_str(&format!("{name}:\n"));
        for item in items {
            self.0.push_str(&output::wrapped(&format!("- {}", output::plain(&item))));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cli::{Cli, Command};
    use super::*;
    use crate::core::runtime::brake::{BrakeReport, Level, Place};
    use crate::k8s::crd::NodeImagePolicyStatus;
    use crate::shell::policy_status::brakes;

    fn told(reason: &str, message: &str) -> Told {
        of_words(&Words { reason, message, image: Some("agent:1") })
    }

    #[test]
    fn a_class_has_permanence_scope_and_remedy() {
        let told = told("ErrImageNeverPull", "Container image \"agent:1\" is not present with pull policy of Never");
        assert_eq!((told.class, told.permanence, told.scope), (Some("NeverPull"), Some("Permanent"), Some("Node")));
        assert!(told.pull_failure && told.remedy.is_some() && !told.summary.is_empty());
    }

    #[test]
    fn a_bare_back_off_is_a_pull_failure_of_unknown_class() {
        let told = told("ImagePullBackOff", "Back-off pulling image \"agent:1\"");
        assert_eq!((told.pull_failure, told.class, told.permanence), (true, Some("Unknown"), Some("Transient")));
    }

    #[test]
    fn a_crash_loop_has_no_class() {
        let told = told("CrashLoopBackOff", "back-off 10s restarting failed container");
        assert_eq!((told.pull_failure, told.class, told.permanence, told.scope), (false, None, None, None));
        let json = serde_json::to_value(&told).expect("json");
        assert!(json["class"].is_null() && json["permanence"].is_null() && json.get("pod").is_none());
    }

    #[test]
    fn the_text_names_class_permanence_and_remedy_in_lines() {
        let text =
            told("ErrImageNeverPull", "Container image \"agent:1\" is not present with pull policy of Never").text();
        assert!(
            text.starts_with(
                "Image:       agent:1\nClass:       NeverPull\nPermanence:  Permanent, for this pod on this node\n"
            ),
            "{text}"
        );
    }

    /// Real messages with their labels: id, source, reason, message, runtime, class, retryable, image, where.
    const REAL: [&str; 2] =
        [include_str!("../../tests/data/pull-messages.tsv"), include_str!("../../tests/data/more-messages.tsv")];

    /// Through the command line, as JSON.
    fn json(reason: &str, message: &str, image: &str) -> serde_json::Value {
        let mut line = vec!["pullguard", "explain", "-o", "json", "--reason", reason];
        for (flag, value) in [("--message", message), ("--image", image)] {
            if !value.is_empty() {
                line.extend([flag, value]);
            }
        }
        let Command::Explain(args) = Cli::try_parse_from(line).expect("a command line").command else {
            panic!("another command")
        };
        serde_json::to_value(offline(&args)).expect("json")
    }

    #[test]
    fn every_real_message_is_explained_as_it_is_labelled() {
        let mut seen = 0;
        for line in REAL.into_iter().flat_map(|file| file.lines().skip(1)) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [_, _, reason, message, _, class, retryable, image, _] = fields[..] else { panic!("{line}") };
            let told = json(reason, message, image);
            seen += 1;
            if class == "NotPullFailure" {
                assert_eq!(told["pullFailure"], false, "{line}");
                assert!(told["class"].is_null() && told["permanence"].is_null() && told["scope"].is_null(), "{line}");
                continue;
            }
            assert_eq!((&told["pullFailure"], &told["class"]), (&true.into(), &class.into()), "{line}");
            // Never more than its collector thought, and never less than it may be.
            let may_be: &[&str] = match retryable {
                "permanent" => &["Permanent", "Unclear"],
                "ambiguous" => &["Unclear", "Transient"],
                _ => &["Transient"],
            };
            assert!(may_be.contains(&told["permanence"].as_str().unwrap_or_default()), "{told} {line}");
            assert!(!told["summary"].as_str().unwrap_or_default().is_empty(), "{line}");
            assert!(told["remedy"].is_string(), "{line}");
            if !image.is_empty() {
                assert_eq!(told["image"], image, "{line}");
            }
        }
        assert!(seen > 450, "{seen}");
    }

    #[test]
    fn a_reason_alone_is_enough_where_it_says_it_all() {
        for (reason, class, permanence) in [
            ("ErrImageNeverPull", "NeverPull", "Permanent"),
            ("InvalidImageName", "InvalidName", "Permanent"),
            ("ImageInspectError", "InspectFailed", "Unclear"),
            ("InspectFailed", "InspectFailed", "Unclear"),
            ("RegistryUnavailable", "RegistryError", "Transient"),
            ("SignatureValidationFailed", "SignatureInvalid", "Permanent"),
            ("ErrImagePull", "Unknown", "Transient"),
            ("ImagePullBackOff", "Unknown", "Transient"),
        ] {
            for image in ["", "r.io/not-found:401"] {
                let told = json(reason, "", image);
                assert_eq!(told["pullFailure"], true, "{told}");
                assert_eq!((&told["class"], &told["permanence"]), (&class.into(), &permanence.into()), "{reason}");
            }
        }
        for reason in [
            "Failed",
            "FailedSync",
            "BackOff",
            "FailedCreatePodSandBox",
            "CrashLoopBackOff",
            "ContainerCreating",
            "Pulled",
        ] {
            let told = json(reason, "", "r.io/not-found:401");
            assert!(told["pullFailure"] == false && told["class"].is_null() && told["permanence"].is_null(), "{told}");
        }
    }

    /// What is said of a pod that waits on `node-a` for `agent:1`, while these brakes are on.
    fn next(reason: &str, message: &str, reports: &[BrakeReport]) -> Vec<String> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "apps", "uid": "u"},
            "spec": {"nodeName": "node-a", "containers": [{"name": "m", "image": "agent:1"}]},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "m", "image": "agent:1", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]}});
        let pod: WatchedPod = serde_json::from_value(pod).expect("a pod");
        let mut policy = NodeImagePolicy::new("agents", serde_json::from_value(serde_json::json!({})).expect("a spec"));
        policy.status =
            Some(NodeImagePolicyStatus { brakes: brakes(reports, "agents"), ..NodeImagePolicyStatus::default() });
        let (policies, brakes) = in_force(&[policy], &mut Vec::new());
        let scene = Scene {
            namespace: NamespaceFacts::unlabelled("apps"),
            policies,
            brakes,
            events: Vec::new(),
            records: Vec::new(),
            inventory: Inventory::default(),
            gaps: Vec::new(),
        };
        scene.told(&k8s::sight::pod(pod), Timestamp::now()).pod.expect("a pod").next
    }

    #[test]
    fn a_brake_is_told_as_the_leader_wrote_it_into_the_status() {
        let report = |place, level| BrakeReport { place, level, failing_images: 5, failing_nodes: 1 };
        let hub = |level| report(Place::Registry("docker.io".into()), level);
        let told = |reason, message, report: BrakeReport| {
            next(reason, message, &[report]).into_iter().find(|text| text.contains("brake is on"))
        };
        let refused = "failed to resolve image: dial tcp 1.2.3.4:443: connect: connection refused";
        let out = told("ErrImagePull", refused, hub(Level::Outage)).expect("told");
        assert!(out.contains("registry docker.io") && out.contains("nothing is declared permanent"), "{out}");
        let suspect = told("ErrImagePull", refused, hub(Level::Suspect)).expect("told");
        assert!(suspect.contains("suspect") && !suspect.contains("nothing is declared"), "{suspect}");
        let node = told("ErrImagePull", refused, report(Place::Node("node-a".into()), Level::Outage)).expect("told");
        assert!(node.contains("node node-a"), "{node}");
        for elsewhere in [
            report(Place::Registry("registry.local".into()), Level::Outage),
            report(Place::Node("node-b".into()), Level::Outage),
            report(Place::Policy("agents".into()), Level::Outage),
        ] {
            assert_eq!(told("ErrImagePull", refused, elsewhere), None);
        }
        let never = "Container image \"agent:1\" is not present with pull policy of Never";
        assert_eq!(told("ErrImageNeverPull", never, hub(Level::Outage)), None, "no registry was asked");
    }
}
