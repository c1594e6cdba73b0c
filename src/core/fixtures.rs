//! Pods, nodes and policies for tests: valid and plain, changed by builder verbs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::image::{ImageName, ImagePattern, PatternSet};
use super::inventory::{Inventory, InventorySettings};
use super::node::{NodeFacts, Readiness, Runtime, Taint, TaintEffect};
use super::pod::{ContainerFacts, ContainerKind, Placement, PodFacts, PullPolicy};
use super::policies::Policies;
use super::policy::{Action, Enforcement, ImageLimit, Policy, PresenceRules, PresenceScope, Rescue, RuntimeRules};
use super::selector::{Labels, Operator, Requirement, Selector};

/// Long after all nodes of these tests were created, but for the young ones.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).expect("a time")
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn is(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In(BTreeSet::from([value.to_owned()])) }
}

pub fn patterns(texts: &[&str]) -> PatternSet {
    PatternSet::new(texts.iter().map(|text| ImagePattern::parse(text).expect("a pattern")))
}

pub fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("an image name")
}

/// A ready containerd node that lists `docker.io/library/pause:3` only, with its host name as a label.
pub fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        labels: labels(&[("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux")]),
        taints: Vec::new(),
        unschedulable: false,
        readiness: Readiness::Ready,
        created: Timestamp::from_second(1000).expect("a time"),
        runtime: Runtime::Containerd,
        images: vec![vec!["docker.io/library/pause:3".to_owned()]],
    }
}

pub fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
    Taint { key: key.to_owned(), value: value.to_owned(), effect }
}

impl NodeFacts {
    pub fn with_image(mut self, names: &[&str]) -> Self {
        self.images.push(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn with_taint(mut self, key: &str, value: &str, effect: TaintEffect) -> Self {
        self.taints.push(taint(key, value, effect));
        self
    }

    pub fn cordoned(mut self) -> Self {
        self.unschedulable = true;
        self.with_taint("node.kubernetes.io/unschedulable", "", TaintEffect::NoSchedule)
    }

    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    pub fn created_at(mut self, created: Timestamp) -> Self {
        self.created = created;
        self
    }

    pub fn with_runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }
}

pub fn inventory(nodes: impl IntoIterator<Item = NodeFacts>) -> Inventory {
    let mut inventory = Inventory::new(InventorySettings::default());
    for node in nodes {
        inventory.apply(node, Timestamp::UNIX_EPOCH);
    }
    inventory.set_synced(true);
    inventory
}

pub fn container(name: &str, image: &str, pull_policy: PullPolicy) -> ContainerFacts {
    ContainerFacts {
        name: name.to_owned(),
        kind: ContainerKind::Main,
        image: image.to_owned(),
        parsed: ImageName::parse(image),
        pull_policy,
    }
}

/// A pod of the namespace `apps` without containers.
pub fn pod() -> PodFacts {
    PodFacts {
        namespace: "apps".to_owned(),
        name: "p".to_owned(),
        labels: Labels::new(),
        owner: None,
        placement: Placement::default(),
        containers: Vec::new(),
        pull_secrets: Vec::new(),
    }
}

/// A pod with one container that is never pulled.
pub fn never(image: &str) -> PodFacts {
    pod().with("main", image, PullPolicy::Never)
}

impl PodFacts {
    pub fn with(mut self, name: &str, image: &str, pull_policy: PullPolicy) -> Self {
        self.containers.push(container(name, image, pull_policy));
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.placement.node_name = Some(node.to_owned());
        self
    }

    pub fn selecting(mut self, key: &str, value: &str) -> Self {
        self.placement.node_selector.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn with_secret(mut self, secret: &str) -> Self {
        self.pull_secrets.push(secret.to_owned());
        self
    }
}

/// A policy with the defaults of the API and neither allowlist nor preloads.
pub fn policy(name: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        generation: 1,
        namespace_selector: Selector::default(),
        pod_selector: Selector::default(),
        nodes: Selector::default(),
        allowed_images: None,
        preloaded_images: PatternSet::default(),
        node_image_limit: ImageLimit::AtMost(50),
        enforcement: Enforcement::Enforce,
        presence: PresenceRules {
            scope: PresenceScope::NeverOnly,
            on_absent: Action::Deny,
            on_unknown: Action::Warn,
            elastic: false,
        },
        rescue: Rescue::None,
        templates: Action::Warn,
        runtime: RuntimeRules::observe_only(),
        remedies: Vec::new(),
    }
}

impl Policy {
    pub fn allowing(mut self, allowed: &[&str]) -> Self {
        self.allowed_images = Some(patterns(allowed));
        self
    }

    pub fn preloading(mut self, preloaded: &[&str]) -> Self {
        self.preloaded_images = patterns(preloaded);
        self
    }

    pub fn enforcing(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    pub fn of_nodes(mut self, key: &str, value: &str) -> Self {
        self.nodes = Selector::new(vec![is(key, value)]);
        self
    }

    pub fn judging_all(mut self) -> Self {
        self.presence.scope = PresenceScope::All;
        self
    }

    pub fn elastic(mut self) -> Self {
        self.presence.elastic = true;
        self
    }

    pub fn rescuing(mut self, rescue: Rescue) -> Self {
        self.rescue = rescue;
        self
    }
}

pub fn policies(all: impl IntoIterator<Item = Policy>) -> Policies {
    let mut policies = Policies::default();
    all.into_iter().for_each(|policy| policies.apply(policy));
    policies
}
