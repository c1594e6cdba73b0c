//! Which task a pod belongs to, and what may be done to it.
//!
//! Enters: a pod's owners and labels, and the rules that hold for it. Leaves: a `Task`, whose id is the same for all pods of
//! the task, and the name of its record.

use sha2::{Digest, Sha256};

use super::super::pod::{OwnerRef, PodFacts};
use super::super::policy::TaskKind;
use super::effect::{ObjectRef, TaskRef};
use super::rules::Rules;

/// The identity of a task in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub namespace: String,
    pub key: TaskKey,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKey {
    /// An owner's uid.
    Owner { uid: String },
    /// The value of a task label.
    Label { key: String, value: String },
    /// A pod's uid: a bare one without the label, or one that controls others.
    Pod { uid: String },
}

/// What kind of unit a task is: what can be done to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKindOf {
    /// A `batch/v1` Job: labelled, annotated, failed.
    Job(OwnerRef),
    /// An owner of a kind in `taskKinds`: labelled, annotated, its pods collected.
    Listed(OwnerRef),
    /// Bare pods that share a label's value: labelled, failed in place, collected.
    Label { key: String, value: String },
    /// One bare pod.
    BarePod { name: String, uid: String },
    /// Any other owner, service controllers above all, and pods that make pods: record and Event only.
    ReportOnly(OwnerRef),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    pub id: TaskId,
    pub kind: TaskKindOf,
}

/// How far the question of a pod's task has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Task(Task),
    /// This owner must be looked up first.
    Ask(OwnerRef),
}

/// What is known of an owner's own owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Above {
    /// It was not looked up yet.
    Unasked,
    /// It has none, or it cannot be read.
    Nobody,
    Controller(OwnerRef),
}

/// How many owners are looked up for one pod. Pod, Job, Workflow, and something that made it: nobody builds higher.
const HIGHEST: usize = 4;

/// Kinds that make tasks, or serve for ever: never a task, even if a policy lists them.
const NEVER_TASKS: [&str; 10] = [
    "CronJob",
    "CronWorkflow",
    "ScheduledWorkflow",
    "JobSet",
    "PipelineRun",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
    "DaemonSet",
];

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn is_pod(api_version: &str, kind: &str) -> bool {
    kind == "Pod" && group(api_version).is_empty()
}

/// The key of an owner's task. The driver of a Spark application is a pod: its record is one, whoever of them fails.
pub(super) fn key_of_owner(owner: &OwnerRef) -> TaskKey {
    let uid = owner.uid.clone();
    if is_pod(&owner.api_version, &owner.kind) { TaskKey::Pod { uid } } else { TaskKey::Owner { uid } }
}

pub fn is_job(owner: &OwnerRef) -> bool {
    owner.kind == "Job" && group(&owner.api_version) == "batch"
}

/// Whether an owner is a task: a Job, or of a kind that the policies name.
pub(super) fn can_end(owner: &OwnerRef, rules: &Rules) -> bool {
    is_job(owner) || is_listed(owner, rules)
}

fn is_listed(owner: &OwnerRef, rules: &Rules) -> bool {
    !NEVER_TASKS.contains(&owner.kind.as_str())
        && rules
            .task_kinds
            .contains(&TaskKind { group: group(&owner.api_version).to_owned(), kind: owner.kind.clone() })
}

/// The task of a pod: its nearest controlling owner that can end, else what its label says, else itself.
///
/// Owners above the first are only looked up where the policy names kinds that could be there: service controllers are
/// known by their kind, and the rest would cost a read for every pod of some operator.
pub fn identify(pod: &PodFacts, uid: &str, rules: &Rules, above: &dyn Fn(&OwnerRef) -> Above) -> Identity {
    let id = |key| TaskId { namespace: pod.namespace.clone(), key };
    let Some(nearest) = &pod.owner else {
        let label = rules.task_label.as_ref().and_then(|key| pod.labels.get_key_value(key));
        return Identity::Task(match label {
            Some((key, value)) if !value.is_empty() => Task {
                id: id(TaskKey::Label { key: key.clone(), value: value.clone() }),
                kind: TaskKindOf::Label { key: key.clone(), value: value.clone() },
            },
            Some(_) | None => Task {
                id: id(TaskKey::Pod { uid: uid.to_owned() }),
                kind: TaskKindOf::BarePod { name: pod.name.clone(), uid: uid.to_owned() },
            },
        });
    };
    let by_uid = |owner: &OwnerRef| id(key_of_owner(owner));
    let mut owner = nearest.clone();
    for _ in 0..HIGHEST {
        if is_job(&owner) {
            return Identity::Task(Task { id: by_uid(&owner), kind: TaskKindOf::Job(owner) });
        }
        if is_listed(&owner, rules) {
            return Identity::Task(Task { id: by_uid(&owner), kind: TaskKindOf::Listed(owner) });
        }
        if rules.task_kinds.is_empty() || NEVER_TASKS.contains(&owner.kind.as_str()) {
            break;
        }
        match above(&owner) {
            Above::Unasked => return Identity::Ask(owner),
            Above::Nobody => break,
            Above::Controller(next) => owner = next,
        }
    }
    Identity::Task(Task { id: by_uid(nearest), kind: TaskKindOf::ReportOnly(nearest.clone()) })
}

impl Task {
    pub fn owner(&self) -> Option<&OwnerRef> {
        match &self.kind {
            TaskKindOf::Job(owner) | TaskKindOf::Listed(owner) | TaskKindOf::ReportOnly(owner) => Some(owner),
            TaskKindOf::Label { .. } | TaskKindOf::BarePod { .. } => None,
        }
    }

    pub fn is_job(&self) -> bool {
        matches!(self.kind, TaskKindOf::Job(_))
    }

    pub fn is_bare_pod(&self) -> bool {
        matches!(self.kind, TaskKindOf::BarePod { .. })
    }

    pub fn task_ref(&self) -> TaskRef {
        match &self.kind {
            TaskKindOf::Job(owner) | TaskKindOf::Listed(owner) | TaskKindOf::ReportOnly(owner) => TaskRef {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
                label: None,
            },
            TaskKindOf::Label { key, value } => TaskRef {
                api_version: String::new(),
                kind: "Pod".to_owned(),
                name: value.clone(),
                uid: String::new(),
                label: Some(key.clone()),
            },
            TaskKindOf::BarePod { name, uid } => TaskRef {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.clone(),
                uid: uid.clone(),
                label: None,
            },
        }
    }

    pub fn record_name(&self) -> String {
        record_name(&self.id, &self.task_ref())
    }

    /// What an Event about the task is about; a label's value is no object, so its newest pod stands for it.
    pub fn object(&self, newest_pod: Option<ObjectRef>) -> Option<ObjectRef> {
        match &self.kind {
            TaskKindOf::Job(owner) | TaskKindOf::Listed(owner) | TaskKindOf::ReportOnly(owner) => {
                Some(object_of(owner, &self.id.namespace))
            }
            TaskKindOf::Label { .. } => newest_pod,
            TaskKindOf::BarePod { name, uid } => Some(ObjectRef {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: self.id.namespace.clone(),
                name: name.clone(),
                uid: uid.clone(),
            }),
        }
    }
}

pub fn object_of(owner: &OwnerRef, namespace: &str) -> ObjectRef {
    ObjectRef {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    }
}

/// The task of a record, by what it says. `None`: somebody else wrote it.
pub fn task_of(namespace: &str, task: &TaskRef) -> Option<TaskId> {
    let uid = task.uid.clone();
    let key = match &task.label {
        Some(key) => TaskKey::Label { key: key.clone(), value: task.name.clone() },
        None if uid.is_empty() => return None,
        None if is_pod(&task.api_version, &task.kind) => TaskKey::Pod { uid },
        None => TaskKey::Owner { uid },
    };
    Some(TaskId { namespace: namespace.to_owned(), key })
}

/// Room for the name of what the record is of, so that the whole stays readable in a terminal.
const LONGEST_PART: usize = 180;

/// `job-nightly-import-3f2a9c01d4`: for people kind and name, for us a hash, which alone makes it unique.
fn record_name(id: &TaskId, task: &TaskRef) -> String {
    let mut hash = Sha256::new();
    match &id.key {
        TaskKey::Owner { uid } | TaskKey::Pod { uid } => hash.update(uid.as_bytes()),
        TaskKey::Label { key, value } => {
            for part in [&id.namespace, key, value] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
    }
    let digest: String = hash.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let words = [dns_part(&task.kind), dns_part(&task.name), digest];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// What can stand inside a DNS-1123 name: lower case, digits and dashes, with an alphanumeric first and last.
fn dns_part(text: &str) -> String {
    let mut part: String = text
        .chars()
        .take(LONGEST_PART / 2)
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .collect();
    part.truncate(part.trim_end_matches('-').len());
    part.trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::core::policy::RuntimeRules;

    fn rules(kinds: &[(&str, &str)], label: Option<&str>) -> Rules {
        let defaults = RuntimeRules::observe_only();
        Rules {
            enforcement: defaults.enforcement,
            task_label: label.map(str::to_owned),
            task_kinds: kinds
                .iter()
                .map(|(group, kind)| TaskKind { group: (*group).to_owned(), kind: (*kind).to_owned() })
                .collect::<BTreeSet<_>>(),
            grace: defaults.grace,
            max_attempts: 5,
            fail_owner: defaults.fail_owner,
            fail_denied_after: None,
            keep_pods: 1,
            deny_recreation: true,
            expiry: defaults.expiry,
            elastic: false,
            policies: Vec::new(),
        }
    }

    fn owner(api_version: &str, kind: &str) -> OwnerRef {
        OwnerRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "x".to_owned(),
            uid: format!("uid-{kind}"),
        }
    }

    fn pod(owner: Option<OwnerRef>, labels: &[(&str, &str)]) -> PodFacts {
        PodFacts {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            owner,
            placement: super::super::super::pod::Placement::default(),
            containers: Vec::new(),
            pull_secrets: Vec::new(),
        }
    }

    fn kind_of(pod: &PodFacts, rules: &Rules, above: &dyn Fn(&OwnerRef) -> Above) -> TaskKindOf {
        match identify(pod, "uid-pod", rules, above) {
            Identity::Task(task) => task.kind,
            Identity::Ask(owner) => panic!("asks for {owner:?}"),
        }
    }

    #[test]
    fn the_nearest_owner_that_can_end_is_the_task() {
        let nobody = |_: &OwnerRef| Above::Nobody;
        let job = pod(Some(owner("batch/v1", "Job")), &[("task", "t")]);
        assert_eq!(kind_of(&job, &rules(&[], Some("task")), &nobody), TaskKindOf::Job(owner("batch/v1", "Job")));
        let run = pod(Some(owner("tekton.dev/v1", "TaskRun")), &[]);
        assert_eq!(
            kind_of(&run, &rules(&[], None), &nobody),
            TaskKindOf::ReportOnly(owner("tekton.dev/v1", "TaskRun"))
        );
        let listed = rules(&[("tekton.dev", "TaskRun")], None);
        assert_eq!(kind_of(&run, &listed, &nobody), TaskKindOf::Listed(owner("tekton.dev/v1", "TaskRun")));
        let other_group = rules(&[("example.org", "TaskRun")], None);
        assert!(matches!(kind_of(&run, &other_group, &nobody), TaskKindOf::ReportOnly(_)));
    }

    #[test]
    fn owners_are_looked_up_only_towards_a_kind_that_a_policy_names() {
        let made = pod(Some(owner("example.org/v1", "Step")), &[]);
        let listed = rules(&[("argoproj.io", "Workflow")], None);
        let unasked = |_: &OwnerRef| Above::Unasked;
        assert_eq!(identify(&made, "u", &listed, &unasked), Identity::Ask(owner("example.org/v1", "Step")));
        assert!(matches!(identify(&made, "u", &rules(&[], None), &unasked), Identity::Task(_)));
        let chain = |_: &OwnerRef| Above::Controller(owner("argoproj.io/v1alpha1", "Workflow"));
        assert_eq!(kind_of(&made, &listed, &chain), TaskKindOf::Listed(owner("argoproj.io/v1alpha1", "Workflow")));
    }

    #[test]
    fn makers_and_service_controllers_are_never_tasks_even_if_listed() {
        for kind in NEVER_TASKS {
            let made = pod(Some(owner("batch/v1", kind)), &[]);
            let listed = rules(&[("batch", kind)], None);
            let found = kind_of(&made, &listed, &|_| Above::Unasked);
            assert_eq!(found, TaskKindOf::ReportOnly(owner("batch/v1", kind)), "{kind}");
        }
    }

    #[test]
    fn a_bare_pod_is_the_task_of_its_label_or_its_own() {
        let nobody = |_: &OwnerRef| Above::Nobody;
        let labelled = pod(None, &[("task", "t-1")]);
        let by_label = TaskKindOf::Label { key: "task".to_owned(), value: "t-1".to_owned() };
        assert_eq!(kind_of(&labelled, &rules(&[], Some("task")), &nobody), by_label);
        let own = TaskKindOf::BarePod { name: "p".to_owned(), uid: "uid-pod".to_owned() };
        assert_eq!(kind_of(&labelled, &rules(&[], None), &nobody), own);
        assert_eq!(kind_of(&pod(None, &[("task", "")]), &rules(&[], Some("task")), &nobody), own);
    }

    proptest! {
        #[test]
        fn a_record_name_is_a_dns_name_and_tells_its_task(value in ".{0,300}", kind in "[A-Za-z]{1,63}") {
            let id = TaskId { namespace: "ns".into(), key: TaskKey::Label { key: "k".into(), value: value.clone() } };
            let task = TaskRef { api_version: String::new(), kind, name: value, uid: String::new(), label: Some("k".into()) };
            let name = record_name(&id, &task);
            prop_assert!(name.len() <= 253);
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric()));
            prop_assert_eq!(&name, &record_name(&id, &task));
            prop_assert_eq!(task_of("ns", &task), Some(id));
        }
    }
}
