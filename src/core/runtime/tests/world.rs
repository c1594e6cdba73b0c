//! A cluster in memory, as far as the runtime half can see it.
//!
//! It checks fences as the API server does, fails pods as kubelets do, and ends the pods of a failed Job as the Job
//! controller does. Every write is kept, so that a test can count them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::core::cause::FailureClass;
use crate::core::image::{ImageName, PatternSet};
use crate::core::inventory::{Access, Inventory, InventorySettings};
use crate::core::namespace::NamespaceFacts;
use crate::core::node::{NodeFacts, Readiness, Runtime};
use crate::core::pod::{ContainerFacts, ContainerKind, OwnerRef, Placement, PodFacts, PullPolicy};
use crate::core::policies::Policies;
use crate::core::policy::{
    Action, Enforcement, FailOwner, ImageLimit, Policy, PresenceRules, PresenceScope, Rescue, RuntimeEnforcement,
    RuntimeRules, TaskKind,
};
use crate::core::reason::Reason;
use crate::core::runtime::effect::{Effect, EventDraft, Fence, Outcome, Planned, STATE_LABEL};
use crate::core::runtime::guard::{
    Guard, any_pod_ran, job_may_be_unmarked, job_may_fail, owner_may_be_marked, pod_may_be_collected, pod_may_be_failed,
};
use crate::core::runtime::ledger::{Ledger, Settings};
use crate::core::runtime::plan::{Plan, Setting};
use crate::core::runtime::sight::{
    ContainerSight, ContainerState, EverStarted, JobFacts, OwnerFacts, OwnerSight, Phase, PodSight, RecordSight,
    TemplateRuling, TemplateVerdict,
};
use crate::core::runtime::symptoms::{Told, symptoms};
use crate::core::selector::Selector;

pub const NS: &str = "work";
pub const START: i64 = 1_800_000_000;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).expect("a time")
}

/// Grace of 60 s for all classes but the defaults elsewhere.
pub fn rules() -> RuntimeRules {
    let minute = Duration::from_secs(60);
    let mut rules = RuntimeRules::observe_only();
    rules.enforcement = RuntimeEnforcement::Enforce;
    rules.task_label = Some("task".to_owned());
    rules.grace.never_pull = minute;
    rules.grace.not_found = minute;
    rules.grace.unauthorized = minute;
    rules.grace.other = minute;
    rules
}

pub fn policy(name: &str, runtime: RuntimeRules) -> Policy {
    Policy {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        generation: 1,
        namespace_selector: Selector::default(),
        pod_selector: Selector::default(),
        nodes: Selector::default(),
        allowed_images: None,
        preloaded_images: PatternSet::default(),
        node_image_limit: ImageLimit::Unlimited,
        enforcement: Enforcement::Enforce,
        presence: PresenceRules {
            scope: PresenceScope::NeverOnly,
            on_absent: Action::Deny,
            on_unknown: Action::Warn,
            elastic: false,
        },
        rescue: Rescue::None,
        templates: Action::Warn,
        runtime,
        remedies: Vec::new(),
    }
}

pub fn node(name: &str, images: &[&str]) -> NodeFacts {
    let labels = [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")];
    NodeFacts {
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        taints: Vec::new(),
        unschedulable: false,
        readiness: Readiness::Ready,
        created: at(-1_000_000),
        runtime: Runtime::Containerd,
        images: std::iter::once("docker.io/library/pause:3")
            .chain(images.iter().copied())
            .map(|image| vec![image.to_owned()])
            .collect(),
    }
}

pub fn owner(api_version: &str, kind: &str, name: &str) -> OwnerRef {
    OwnerRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{kind}-{name}"),
    }
}

pub fn job(name: &str) -> OwnerRef {
    owner("batch/v1", "Job", name)
}

/// A pod of one main container that waits; scheduled to node `n1`.
pub fn pod(name: &str, image: &str, created: i64) -> PodSight {
    let parsed = ImageName::parse(image);
    PodSight {
        facts: PodFacts {
            namespace: NS.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            owner: None,
            placement: Placement { node_name: Some("n1".to_owned()), ..Placement::default() },
            containers: vec![ContainerFacts {
                name: "main".to_owned(),
                kind: ContainerKind::Main,
                image: image.to_owned(),
                parsed,
                pull_policy: PullPolicy::IfNotPresent,
            }],
            pull_secrets: Vec::new(),
        },
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        node: Some("n1".to_owned()),
        created: at(created),
        phase: Phase::Pending,
        deleting: false,
        mirror: false,
        disrupted: false,
        active_deadline: None,
        containers: vec![ContainerSight {
            name: "main".to_owned(),
            kind: ContainerKind::Main,
            state: ContainerState::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() },
            ever_started: EverStarted::No,
            last_started: None,
        }],
    }
}

impl PodSight {
    pub fn of(mut self, owner: &OwnerRef) -> Self {
        self.facts.owner = Some(owner.clone());
        self
    }

    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.facts.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self.facts.placement.node_name = Some(node.to_owned());
        self
    }

    pub fn with_policy(mut self, policy: PullPolicy) -> Self {
        self.facts.containers[0].pull_policy = policy;
        self
    }

    pub fn waits(mut self, reason: &str, message: &str) -> Self {
        let state = ContainerState::Waiting { reason: reason.to_owned(), message: message.to_owned() };
        self.containers[0].state = state;
        self
    }

    pub fn image(&self) -> String {
        self.facts.containers[0].image.clone()
    }

    pub fn never(self) -> Self {
        let message = format!("Container image \"{}\" is not present with pull policy of Never", self.image());
        self.with_policy(PullPolicy::Never).waits("ErrImageNeverPull", &message)
    }

    pub fn not_found(self) -> Self {
        let message = not_found_words(&self.image());
        self.waits("ErrImagePull", &message)
    }

    pub fn backs_off(self, words: &str) -> Self {
        let message = format!("Back-off pulling image \"{}\": ErrImagePull: {words}", self.image());
        self.waits("ImagePullBackOff", &message)
    }

    pub fn network(self) -> Self {
        let message = network_words(&self.image());
        self.waits("ErrImagePull", &message)
    }

    pub fn denied(self) -> Self {
        let image = self.image();
        let message = format!(
            "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": pull access denied, \
             repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"
        );
        self.waits("ErrImagePull", &message)
    }

    pub fn runs(mut self, since: i64) -> Self {
        self.containers[0].state = ContainerState::Running { since: Some(at(since)) };
        self.containers[0].ever_started = EverStarted::Yes;
        self.containers[0].last_started = Some(at(since));
        self.phase = Phase::Running;
        self
    }
}

pub fn not_found_words(image: &str) -> String {
    format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve image: \
         {image}: not found"
    )
}

pub fn network_words(image: &str) -> String {
    format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": failed to do request: \
         Head \"https://registry.example/v2/x/manifests/1\": dial tcp 10.0.0.1:443: connect: connection refused"
    )
}

#[derive(Clone, Debug)]
pub struct JobObject {
    pub facts: OwnerFacts,
    pub condition: Option<(Reason, String)>,
    pub annotations: BTreeMap<String, String>,
}

pub struct World {
    pub second: i64,
    pub pods: BTreeMap<String, PodSight>,
    pub jobs: BTreeMap<String, JobObject>,
    pub others: BTreeMap<String, OwnerFacts>,
    pub records: BTreeMap<String, RecordSight>,
    pub events: Vec<EventDraft>,
    pub event_keys: std::collections::BTreeSet<String>,
    pub rulings: BTreeMap<String, TemplateRuling>,
    pub policies: Policies,
    pub inventory: Inventory,
    pub ledger: Ledger,
    pub settings: Settings,
    pub version: u64,
    /// Everything that changed something, Events included.
    pub writes: Vec<Effect>,
    pub reads: usize,
    pub last: Plan,
    /// Kubelets that do nothing.
    pub dead_kubelets: bool,
    pub wall_shift: i64,
}

impl World {
    pub fn new(runtime: RuntimeRules) -> Self {
        let mut policies = Policies::default();
        policies.apply(policy("agents", runtime));
        let mut inventory = Inventory::new(InventorySettings::default());
        inventory.apply(node("n1", &[]), at(-1000));
        inventory.set_synced(true);
        let settings = Settings { own_namespace: "pullguard".to_owned(), ..Settings::default() };
        Self {
            second: 0,
            pods: BTreeMap::new(),
            jobs: BTreeMap::new(),
            others: BTreeMap::new(),
            records: BTreeMap::new(),
            events: Vec::new(),
            event_keys: std::collections::BTreeSet::new(),
            rulings: BTreeMap::new(),
            policies,
            inventory,
            ledger: Ledger::new(settings.clone()),
            settings,
            version: 1,
            writes: Vec::new(),
            reads: 0,
            last: Plan::default(),
            dead_kubelets: false,
            wall_shift: 0,
        }
    }

    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policies.apply(policy);
        self
    }

    pub fn now(&self) -> Timestamp {
        at(self.second + self.wall_shift)
    }

    pub fn node(&mut self, name: &str, images: &[&str]) {
        let now = self.now();
        self.inventory.apply(node(name, images), now);
        self.ledger.reconsider();
    }

    fn version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub fn job(&mut self, name: &str) -> OwnerRef {
        let owner = job(name);
        let facts = OwnerFacts {
            namespace: NS.to_owned(),
            owner: owner.clone(),
            resource_version: self.version(),
            deleting: false,
            controller: None,
            marked: false,
            job: Some(JobFacts { started: true, ..JobFacts::default() }),
        };
        self.jobs.insert(owner.uid.clone(), JobObject { facts, condition: None, annotations: BTreeMap::new() });
        owner
    }

    pub fn job_mut(&mut self, owner: &OwnerRef) -> &mut JobFacts {
        self.jobs.get_mut(&owner.uid).expect("the Job").facts.job.as_mut().expect("a Job")
    }

    /// Creates or changes a pod, and lets the watch show it.
    pub fn put(&mut self, mut pod: PodSight) {
        pod.resource_version = self.version();
        let now = self.now();
        for symptom in symptoms(&pod) {
            let never = matches!(&symptom.told, Told::Cause(cause) if cause.class == FailureClass::NeverPull);
            if let (true, Some(node), Some(image)) = (never, &pod.node, symptom.reference()) {
                self.inventory.kubelet_denies(node, image, Access::of(&pod.facts), now);
            }
        }
        self.pods.insert(pod.uid.clone(), pod.clone());
        let _ = self.ledger.observe_pod(pod, now);
    }

    /// Changes a pod that is there.
    pub fn change(&mut self, name: &str, how: impl FnOnce(PodSight) -> PodSight) {
        let pod = self.pods.get(&format!("uid-{name}")).expect("the pod").clone();
        self.put(how(pod));
    }

    pub fn delete(&mut self, uid: &str) {
        if self.pods.remove(uid).is_some() {
            let now = self.now();
            let _ = self.ledger.forget_pod(uid, now);
        }
    }

    pub fn delete_record(&mut self, name: &str) {
        self.records.remove(name);
        let now = self.now();
        let _ = self.ledger.forget_record(NS, name, now);
    }

    /// A new process: an empty ledger that is shown all there is.
    pub fn restart(&mut self) {
        self.ledger = self.fresh_ledger();
    }

    pub fn fresh_ledger(&self) -> Ledger {
        let mut ledger = Ledger::new(self.settings.clone());
        let now = self.now();
        for record in self.records.values() {
            let _ = ledger.observe_record(record.clone(), now);
        }
        for pod in self.pods.values() {
            let _ = ledger.observe_pod(pod.clone(), now);
        }
        ledger
    }

    pub fn plan(&mut self) -> Plan {
        let now = self.now();
        let namespaces = |name: &str| NamespaceFacts { name: name.to_owned(), labels: Some(Arc::default()) };
        let setting = Setting { policies: &self.policies, namespaces: &namespaces, nodes: &self.inventory };
        self.ledger.plan(now, &setting)
    }

    pub fn plan_of(&self, ledger: &mut Ledger) -> Plan {
        let namespaces = |name: &str| NamespaceFacts { name: name.to_owned(), labels: Some(Arc::default()) };
        let setting = Setting { policies: &self.policies, namespaces: &namespaces, nodes: &self.inventory };
        ledger.plan(self.now(), &setting)
    }

    /// Plans and applies until nothing is left to do at this second.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            let plan = self.plan();
            let effects = plan.effects.clone();
            self.last = plan;
            if effects.is_empty() {
                return;
            }
            for planned in effects {
                self.carry_out(&planned);
            }
        }
        panic!("never settles: {:?}", self.last);
    }

    pub fn carry_out(&mut self, planned: &Planned) {
        let outcome = self.apply(&planned.effect);
        let now = self.now();
        let _ = self.ledger.outcome(&planned.id, outcome, now);
    }

    /// Lets time pass, looking as often as the plans ask for.
    pub fn pass(&mut self, seconds: i64) {
        let end = self.second + seconds;
        self.settle();
        while self.second < end {
            let recheck =
                self.last.recheck_after.map_or(30, |after| i64::try_from(after.as_secs()).unwrap_or(30).max(1));
            self.second = (self.second + recheck).min(end);
            self.settle();
        }
    }

    fn fence_holds(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// What the API server, the kubelets and the Job controller make of an effect.
    pub fn apply(&mut self, effect: &Effect) -> Outcome {
        let now = self.now();
        let done = Outcome::Done { fence: None };
        match effect {
            Effect::LookUpOwner { namespace, owner } => {
                self.reads += 1;
                let sight = self.read_owner(namespace, owner);
                let _ = self.ledger.observe_owner(sight, now);
                done
            }
            Effect::JudgeTemplate { namespace, job } => {
                self.reads += 1;
                let ruling = self.rulings.get(&job.uid).cloned().unwrap_or(TemplateRuling::Unknown);
                let verdict = TemplateVerdict { namespace: namespace.clone(), job: job.clone(), ruling };
                let _ = self.ledger.observe_verdict(verdict, now);
                done
            }
            Effect::WriteRecord { fence, record } => {
                let known = self.records.get(&record.name);
                let fits = match (known, fence) {
                    (None, None) => true,
                    (Some(known), Some(fence)) => {
                        known.uid == fence.uid && known.resource_version == fence.resource_version
                    }
                    (None, Some(_)) => return Outcome::Gone,
                    (Some(_), None) => false,
                };
                if !fits {
                    return Outcome::Conflict;
                }
                let uid =
                    known.map_or_else(|| format!("uid-pf-{}-{}", record.name, self.version), |known| known.uid.clone());
                let sight = RecordSight {
                    uid: uid.clone(),
                    resource_version: self.version(),
                    deleting: false,
                    record: (**record).clone(),
                };
                self.writes.push(effect.clone());
                self.records.insert(record.name.clone(), sight.clone());
                let fence = Fence { uid, resource_version: sight.resource_version.clone() };
                let _ = self.ledger.observe_record(sight, now);
                Outcome::Done { fence: Some(fence) }
            }
            Effect::RemoveRecord { namespace, name, fence } => {
                let Some(known) = self.records.get(name) else { return Outcome::Gone };
                if known.resource_version != fence.resource_version {
                    return Outcome::Conflict;
                }
                self.writes.push(effect.clone());
                self.records.remove(name);
                let _ = self.ledger.forget_record(namespace, name, now);
                done
            }
            Effect::MarkOwner { namespace, owner, labels, annotations } => {
                if let Err(guard) = owner_may_be_marked(&self.read_owner(namespace, owner)) {
                    return Outcome::Refused(guard);
                }
                self.writes.push(effect.clone());
                assert!(labels.contains_key(STATE_LABEL));
                if let Some(job) = self.jobs.get_mut(&owner.uid) {
                    job.facts.marked = true;
                    job.annotations = annotations.clone();
                }
                if let Some(other) = self.others.get_mut(&owner.uid) {
                    other.marked = true;
                }
                done
            }
            Effect::UnmarkJob { namespace, job } => {
                if let Err(guard) = job_may_be_unmarked(&self.read_owner(namespace, job)) {
                    return Outcome::Refused(guard);
                }
                self.writes.push(effect.clone());
                let object = self.jobs.get_mut(&job.uid).expect("the Job");
                object.facts.marked = false;
                object.annotations.clear();
                done
            }
            Effect::FailJob { namespace, job, reason, message, stuck, image } => {
                let sight = self.read_owner(namespace, job);
                let pods = self.pods_of(job);
                if let Err(guard) = job_may_fail(&sight, &pods, stuck, image) {
                    return Outcome::Refused(guard);
                }
                self.writes.push(effect.clone());
                let object = self.jobs.get_mut(&job.uid).expect("the Job");
                object.condition = Some((*reason, message.clone()));
                let facts = object.facts.job.as_mut().expect("a Job");
                facts.failure_target = true;
                facts.finished = true;
                for pod in pods.iter().filter(|pod| !pod.phase.is_over()) {
                    assert!(
                        !matches!(pod.containers[0].state, ContainerState::Running { .. }),
                        "a running pod was ended"
                    );
                    self.delete(&pod.uid);
                }
                done
            }
            Effect::FailPod { fence, labels, image, .. } => {
                if !self.fence_holds(&fence.uid) {
                    return Outcome::Gone;
                }
                let mut pod = self.pods.get(&fence.uid).expect("the pod").clone();
                if let Err(guard) = pod_may_be_failed(&pod, image) {
                    return Outcome::Refused(guard);
                }
                self.writes.push(effect.clone());
                pod.active_deadline = Some(1);
                pod.facts.labels.extend(labels.clone());
                if !self.dead_kubelets {
                    pod.phase = Phase::Failed;
                    pod.containers[0].state = ContainerState::Terminated {
                        reason: "ContainerStatusUnknown".to_owned(),
                        exit_code: 137,
                        started: None,
                        finished: None,
                    };
                    pod.containers[0].ever_started = EverStarted::Unknowable;
                }
                self.put(pod);
                done
            }
            Effect::DeletePod { fence, image, .. } => {
                let Some(pod) = self.pods.get(&fence.uid) else { return Outcome::Gone };
                if let Err(guard) = pod_may_be_collected(pod, image) {
                    return Outcome::Refused(guard);
                }
                self.writes.push(effect.clone());
                self.delete(&fence.uid);
                done
            }
            Effect::EmitEvent(draft) => {
                let regards_cluster = draft.regarding.namespace.is_empty();
                assert!(
                    if regards_cluster {
                        draft.namespace == "default"
                    } else {
                        draft.namespace == draft.regarding.namespace
                    },
                    "the API server would refuse {draft:?}"
                );
                assert!(draft.note.len() <= 1024);
                if self.event_keys.insert(draft.key.clone()) {
                    self.writes.push(effect.clone());
                    self.events.push(draft.clone());
                }
                done
            }
        }
    }

    fn pods_of(&self, owner: &OwnerRef) -> Vec<PodSight> {
        let of = |pod: &&PodSight| pod.facts.owner.as_ref().is_some_and(|of| of.uid == owner.uid);
        self.pods.values().filter(of).cloned().collect()
    }

    pub fn read_owner(&self, namespace: &str, owner: &OwnerRef) -> OwnerSight {
        let pods = self.pods_of(owner);
        if let Some(job) = self.jobs.get(&owner.uid) {
            let mut facts = job.facts.clone();
            if let Some(job) = &mut facts.job {
                job.pod_ran = any_pod_ran(&pods);
            }
            return OwnerSight::Found(facts);
        }
        match self.others.get(&owner.uid) {
            Some(facts) => OwnerSight::Found(facts.clone()),
            None => OwnerSight::NotFound { namespace: namespace.to_owned(), owner: owner.clone() },
        }
    }

    /// The reasons of the Events so far.
    pub fn told(&self) -> Vec<Reason> {
        self.events.iter().map(|event| event.reason).collect()
    }

    pub fn only_record(&self) -> &RecordSight {
        assert_eq!(self.records.len(), 1, "{:?}", self.records.keys());
        self.records.values().next().expect("one")
    }

    /// Writes that end or delete something.
    pub fn acts(&self) -> Vec<&Effect> {
        let act = |effect: &&Effect| {
            matches!(effect, Effect::FailJob { .. } | Effect::FailPod { .. } | Effect::DeletePod { .. })
        };
        self.writes.iter().filter(act).collect()
    }

    pub fn deletes(&self) -> usize {
        self.writes.iter().filter(|effect| matches!(effect, Effect::DeletePod { .. })).count()
    }

    pub fn refused_by(&self, owner: &OwnerRef) -> Result<(), Guard> {
        let pods = self.pods_of(owner);
        let image = pods.iter().flat_map(symptoms).next().map(|symptom| symptom.image_key()).unwrap_or_default();
        job_may_fail(&self.read_owner(NS, owner), &pods, &[], &image)
    }
}

pub fn runtime_with(change: impl FnOnce(&mut RuntimeRules)) -> RuntimeRules {
    let mut rules = rules();
    change(&mut rules);
    rules
}

pub fn listed(group: &str, kind: &str) -> TaskKind {
    TaskKind { group: group.to_owned(), kind: kind.to_owned() }
}

pub fn fail_owner(owner: FailOwner) -> RuntimeRules {
    runtime_with(|rules| rules.fail_owner = owner)
}
