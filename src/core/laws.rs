//! What holds for every cluster, pod and policy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::decide::decide;
use super::eligibility::{Candidates, Exclusion, Obstacle, Route, could_run};
use super::fixtures::*;
use super::inventory::{Access, Inventory, Lens, Presence};
use super::namespace::NamespaceFacts;
use super::node::{NodeFacts, Readiness, Runtime, Taint, TaintEffect, Toleration, TolerationValue};
use super::pod::{NodeTerm, Placement, PodFacts, PullPolicy};
use super::policies::Policies;
use super::policy::{Action, Enforcement, ImageLimit, Policy, Rescue};
use super::refusal::NoRefusals;
use super::rescue::rescue;
use super::selector::{Operator, Requirement, Selector};
use super::verdict::{Judged, Question, Subject, Verdict};

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
const KEYS: [&str; 3] = ["pool", "cpus", "kubernetes.io/os"];
const VALUES: [&str; 5] = ["linux", "windows", "4", "16", "agents"];
const TAINTS: [&str; 4] = ["gpu", "node.kubernetes.io/unschedulable", "node.cilium.io/agent-not-ready", "team"];
const LISTED: [&str; 8] = [
    "docker.io/library/app:1",
    "docker.io/library/app:latest",
    "docker.io/library/other:1",
    "localhost/app:latest",
    "registry.local/team/app:1",
    "app:1",
    "<none>:<none>",
    "docker.io/library/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
const WRITTEN: [&str; 8] = [
    "app:1",
    "app",
    "other:1",
    "localhost/app:latest",
    "registry.local/team/app:1",
    "app:1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "No Image",
];

fn an_effect() -> impl Strategy<Value = TaintEffect> {
    select(vec![TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute])
}

prop_compose! {
    fn a_taint()(key in select(&TAINTS[..]), value in select(&["", "true", "7"][..]), effect in an_effect()) -> Taint {
        taint(key, value, effect)
    }
}

prop_compose! {
    fn a_node()(
        name in select(&NODES[..]),
        pairs in prop::collection::btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..3),
        taints in prop::collection::vec(a_taint(), 0..3),
        unschedulable in prop::bool::weighted(0.2),
        readiness in prop_oneof![
            6 => Just(Readiness::Ready), 1 => Just(Readiness::NotReady), 1 => Just(Readiness::Unknown)
        ],
        age in prop_oneof![8 => Just(100_000_i64), 1 => 0..240_i64],
        runtime in prop_oneof![4 => Just(Runtime::Containerd), 1 => Just(Runtime::Docker), 1 => Just(Runtime::Other)],
        images in prop::collection::vec(prop::collection::vec(select(&LISTED[..]), 0..6), 0..5),
    ) -> NodeFacts {
        let mut facts = node(name);
        facts.labels.extend(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
        facts.taints = taints;
        facts.unschedulable = unschedulable;
        facts.readiness = readiness;
        facts.created = Timestamp::from_second(now().as_second() - age).expect("a time");
        facts.runtime = runtime;
        facts.images = images.into_iter().map(|names| names.into_iter().map(str::to_owned).collect()).collect();
        facts
    }
}

/// Nodes that hide nothing: ready, old, containerd, with short complete lists.
fn a_plain_node() -> impl Strategy<Value = NodeFacts> {
    a_node().prop_map(|facts| {
        let mut plain = node(&facts.name);
        plain.labels = facts.labels;
        plain.taints = facts.taints;
        let images = facts.images.into_iter().map(|names| names.into_iter().take(3).collect());
        plain.images.extend(images);
        plain
    })
}

fn an_operator() -> impl Strategy<Value = Operator> {
    let values = prop::collection::btree_set(select(&VALUES[..]).prop_map(str::to_owned), 1..3);
    prop_oneof![
        values.clone().prop_map(Operator::In),
        values.prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
        (0_i64..20).prop_map(Operator::Gt),
        (0_i64..20).prop_map(Operator::Lt),
    ]
}

prop_compose! {
    fn a_requirement()(key in select(&KEYS[..]), operator in an_operator()) -> Requirement {
        Requirement { key: key.to_owned(), operator }
    }
}

prop_compose! {
    fn a_field()(
        key in prop_oneof![9 => Just("metadata.name"), 1 => Just("spec.foreign")],
        names in prop::collection::btree_set(select(&NODES[..]).prop_map(str::to_owned), 1..2),
        kind in 0..6_u8,
    ) -> Requirement {
        let operator = match kind {
            0..=2 => Operator::In(names),
            3 => Operator::NotIn(names),
            4 => Operator::Exists,
            _ => Operator::DoesNotExist,
        };
        Requirement { key: key.to_owned(), operator }
    }
}

prop_compose! {
    fn a_toleration()(
        key in prop::option::of(select(&TAINTS[..])),
        effect in prop::option::of(an_effect()),
        value in prop_oneof![
            Just(TolerationValue::Exists),
            Just(TolerationValue::Equal("true".into())),
            Just(TolerationValue::Equal(String::new())),
            Just(TolerationValue::Gt(3)),
        ],
    ) -> Toleration {
        // Without a key only `Exists` is valid.
        let value = if key.is_none() { TolerationValue::Exists } else { value };
        Toleration { key: key.map(str::to_owned), value, effect }
    }
}

prop_compose! {
    fn a_placement()(
        node_name in prop::option::weighted(0.15, select(&NODES[..])),
        node_selector in prop::collection::btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..2),
        terms in prop::option::weighted(0.5, prop::collection::vec(
            (prop::collection::vec(a_requirement(), 0..3), prop::collection::vec(a_field(), 0..2)), 0..3)),
        tolerations in prop::collection::vec(a_toleration(), 0..3),
        tolerations_to_come in prop::bool::weighted(0.2),
        os in prop::option::weighted(0.2, select(&["linux", "windows"][..])),
    ) -> Placement {
        Placement {
            node_name: node_name.map(str::to_owned),
            node_selector: node_selector.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            required_affinity: terms.map(|terms| {
                terms.into_iter().map(|(expressions, fields)| NodeTerm { expressions, fields }).collect()
            }),
            tolerations,
            tolerations_to_come,
            os: os.map(str::to_owned),
        }
    }
}

prop_compose! {
    fn a_pod()(
        placement in prop_oneof![1 => Just(Placement::default()), 1 => a_placement()],
        images in prop::collection::vec((select(&WRITTEN[..]), 0..4_u8), 1..4),
        secret in any::<bool>(),
    ) -> PodFacts {
        let mut pod = PodFacts { placement, ..pod() };
        for (index, (image, pull)) in images.into_iter().enumerate() {
            let pull = match pull {
                0 => PullPolicy::Always,
                1 => PullPolicy::IfNotPresent,
                _ => PullPolicy::Never,
            };
            pod = pod.with(&format!("c{index}"), image, pull);
        }
        if secret { pod.with_secret("s") } else { pod }
    }
}

prop_compose! {
    fn a_policy()(
        name in select(&["p", "q", "r"][..]),
        nodes in prop::collection::vec(a_requirement(), 0..2),
        allowed in prop::option::of(select(&["**", "app", "docker.io/**", "registry.local/**"][..])),
        preloaded in prop::option::weighted(0.2, select(&["app", "other:*"][..])),
        limit in prop_oneof![Just(ImageLimit::Unlimited), Just(ImageLimit::AtMost(3)), Just(ImageLimit::AtMost(50))],
        enforcement in select(vec![Enforcement::Enforce, Enforcement::Enforce, Enforcement::Warn, Enforcement::Audit]),
        (all, elastic, certain) in (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8)),
        (on_absent, on_unknown) in (an_action(), an_action()),
        rescue in select(vec![Rescue::None, Rescue::PinToHolders, Rescue::PullIfNotPresent]),
    ) -> Policy {
        let mut policy = policy(name).enforcing(enforcement).rescuing(rescue);
        policy.nodes = Selector::new(nodes);
        policy.allowed_images = allowed.map(|pattern| patterns(&[pattern]));
        policy.preloaded_images = patterns(preloaded.as_slice());
        policy.node_image_limit = limit;
        policy.presence.elastic = elastic;
        policy.presence.on_absent = on_absent;
        policy.presence.on_unknown = on_unknown;
        if !certain {
            policy.namespace_selector = Selector::new(vec![is("team", "x")]);
        }
        if all { policy.judging_all() } else { policy }
    }
}

fn an_action() -> impl Strategy<Value = Action> {
    select(vec![Action::Allow, Action::Warn, Action::Deny, Action::Deny])
}

fn a_subject() -> impl Strategy<Value = Subject> {
    select(vec![Subject::Pod, Subject::Pod, Subject::BoundPod, Subject::Template, Subject::DaemonSetTemplate])
}

fn decided(subject: Subject, pod: &PodFacts, policies: &Policies, inventory: &Inventory) -> Verdict {
    let namespace = NamespaceFacts::unlabelled(&pod.namespace);
    let question = Question { subject, pod, namespace: &namespace, judged: &Judged::Every };
    decide(&question, policies, inventory, &NoRefusals, now())
}

/// All that can be observed of an inventory, but for since when a name is listed: that is history.
fn snapshot(inventory: &Inventory, pods: &[PodFacts], policies: &Policies) -> impl PartialEq + std::fmt::Debug + use<> {
    let nodes: Vec<_> = inventory.node_names().map(|node| (node.to_string(), inventory.names_on(node))).collect();
    let listing: BTreeMap<_, _> = LISTED
        .iter()
        .filter_map(|text| super::image::ImageReference::parse(text).ok())
        .map(|image| (image.lookup().to_owned(), inventory.nodes_listing(image.lookup())))
        .collect();
    let surveys: Vec<_> = policies.iter().map(|entry| inventory.survey(&Lens::of(&entry.policy), 3)).collect();
    let candidates: Vec<_> = pods.iter().map(|pod| named(inventory, &pod.placement)).collect();
    let verdicts: Vec<_> = pods.iter().map(|pod| decided(Subject::Pod, pod, policies, inventory)).collect();
    let presences: Vec<_> = policies
        .iter()
        .flat_map(|entry| NODES.iter().map(move |node| (entry, node)))
        .flat_map(|(entry, node)| {
            pods.iter().flat_map(|pod| &pod.containers).filter_map(move |container| {
                let image = container.parsed.as_ref().ok()?;
                let lens = Lens::of(&entry.policy);
                match inventory.presence_on(node, image, &lens, &Access::default(), now()) {
                    Presence::Present(_) => Some(None),
                    other @ (Presence::Absent(_) | Presence::Unknown(_)) => Some(Some(other)),
                }
            })
        })
        .collect();
    (inventory.len(), inventory.known_names(), nodes, listing, (surveys, candidates, verdicts, presences))
}

/// The eligible nodes, those of them with an obstacle, and those that only their taints keep from being eligible.
fn named(inventory: &Inventory, placement: &Placement) -> [BTreeSet<String>; 3] {
    let Candidates { eligible, mut obstructed, repelling } = Candidates::of(Route::Placed(placement), inventory, now());
    obstructed.and(&eligible);
    let names = |bits| inventory.first_named(bits, usize::MAX).into_iter().map(|(_, name)| name.to_string()).collect();
    [names(&eligible), names(&obstructed), names(&repelling)]
}

#[derive(Clone, Debug)]
enum Step {
    Apply(NodeFacts),
    Remove(&'static str),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![3 => a_node().prop_map(Step::Apply), 1 => select(&NODES[..]).prop_map(Step::Remove)],
        0..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_interleaving_of_node_updates_equals_a_rebuild(
        steps in steps(),
        pods in prop::collection::vec(a_pod(), 1..4),
        all in prop::collection::vec(a_policy(), 1..3),
    ) {
        let (mut lived, mut last) = (inventory([]), BTreeMap::new());
        for step in steps {
            match step {
                Step::Apply(facts) => {
                    lived.apply(facts.clone(), now());
                    last.insert(facts.name.clone(), facts);
                }
                Step::Remove(name) => {
                    lived.remove(name);
                    last.remove(name);
                }
            }
        }
        let rebuilt = inventory(last.into_values().rev());
        let policies = policies(all);
        prop_assert_eq!(snapshot(&lived, &pods, &policies), snapshot(&rebuilt, &pods, &policies));
    }

    #[test]
    fn candidates_by_the_index_are_those_node_by_node(
        nodes in prop::collection::btree_map(select(&NODES[..]), a_node(), 0..5),
        placement in a_placement(),
    ) {
        let nodes: Vec<NodeFacts> = nodes.into_iter().map(|(name, facts)| NodeFacts { name: name.to_owned(), ..facts }).collect();
        let inventory = inventory(nodes.clone());
        let [mut eligible, mut obstructed, mut repelling] = [const { BTreeSet::new() }; 3];
        for node in &nodes {
            match could_run(&placement, node, inventory.settings(), now()) {
                Ok(obstacle) => {
                    eligible.insert(node.name.clone());
                    obstructed.extend(obstacle.map(|_| node.name.clone()));
                }
                Err(Exclusion::Taint(_)) => {
                    repelling.insert(node.name.clone());
                }
                Err(_) => {}
            }
        }
        prop_assert_eq!(named(&inventory, &placement), [eligible, obstructed, repelling]);
    }

    #[test]
    fn a_verdict_is_total_deterministic_and_never_louder_than_enforcement(
        nodes in prop::collection::vec(a_node(), 0..5),
        pod in a_pod(),
        all in prop::collection::vec(a_policy(), 0..4),
        subject in a_subject(),
        synced in prop::bool::weighted(0.9),
    ) {
        let mut inventory = inventory(nodes);
        inventory.set_synced(synced);
        let policies = policies(all);
        let verdict = decided(subject, &pod, &policies, &inventory);
        prop_assert_eq!(&verdict, &decided(subject, &pod, &policies.clone(), &inventory.clone()));
        prop_assert!(verdict.findings.is_sorted_by(|a, b| a.action >= b.action));
        for finding in &verdict.findings {
            let policy = policies.get(&finding.policy).expect("a policy");
            prop_assert!(finding.action <= finding.unaudited && finding.unaudited <= finding.would_be);
            match policy.enforcement {
                Enforcement::Audit => prop_assert_eq!(finding.action, Action::Allow),
                Enforcement::Warn => prop_assert!(finding.unaudited <= Action::Warn && !finding.is_would_have()),
                Enforcement::Enforce => prop_assert!(!finding.is_would_have()),
            }
            if subject.is_template() {
                prop_assert!(finding.unaudited <= policy.templates);
            }
            let message = finding.message();
            prop_assert!(!message.chars().any(char::is_control), "{message}");
            prop_assert!(super::answer::note(finding, 7).len() <= 1024);
        }
        let denial = super::answer::denial(&verdict);
        prop_assert_eq!(denial.is_empty(), verdict.action() < Action::Deny);
        let warnings = super::answer::warnings(&verdict);
        prop_assert!(warnings.iter().all(|warning| warning.len() <= 256));
        prop_assert!(warnings.iter().map(String::len).sum::<usize>() <= 4096);
    }

    #[test]
    fn many_policies_find_together_what_each_finds_alone(
        nodes in prop::collection::vec(a_node(), 0..5),
        pod in a_pod(),
        all in prop::collection::vec(a_policy(), 1..12),
        subject in a_subject(),
        synced in prop::bool::weighted(0.9),
    ) {
        let mut inventory = inventory(nodes);
        inventory.set_synced(synced);
        let named = |(index, policy): (usize, Policy)| Policy { name: format!("p{index:02}"), ..policy };
        let all: Vec<Policy> = all.into_iter().enumerate().map(named).collect();
        let together = decided(subject, &pod, &policies(all.clone()), &inventory);
        let alone = all.into_iter().map(|policy| decided(subject, &pod, &policies([policy]), &inventory));
        let mut alone: Vec<_> = alone.flat_map(|verdict| verdict.findings).collect();
        alone.sort_by_key(|finding| (Reverse(finding.action), Reverse(finding.would_be)));
        prop_assert_eq!(together.findings, alone);
        prop_assert_eq!(together.omitted, 0);
    }

    #[test]
    fn a_node_that_gains_an_image_never_turns_allow_into_deny(
        nodes in prop::collection::vec(a_plain_node(), 1..5),
        pod in a_pod(),
        mut all in prop::collection::vec(a_policy(), 1..3),
        gained in select(&LISTED[..]),
        which in any::<Index>(),
    ) {
        for policy in &mut all {
            policy.node_image_limit = ImageLimit::AtMost(50);
            policy.presence.on_unknown = policy.presence.on_unknown.min(policy.presence.on_absent);
        }
        let policies = policies(all);
        let mut inventory = inventory(nodes.clone());
        let before = decided(Subject::Pod, &pod, &policies, &inventory);
        let node = which.get(&nodes).name.clone();
        let held = nodes.iter().rfind(|facts| facts.name == node).expect("the node").clone();
        inventory.apply(held.with_image(&[gained]), now());
        let after = decided(Subject::Pod, &pod, &policies, &inventory);
        prop_assert!(after.action() <= before.action(), "{:?} became {:?}", before, after);
    }

    #[test]
    fn a_rescue_applied_is_no_rescue_and_never_widens_where_the_pod_goes(
        nodes in prop::collection::vec(a_plain_node(), 0..5),
        pod in a_pod(),
        kind in select(vec![Rescue::PinToHolders, Rescue::PullIfNotPresent]),
        mut all in prop::collection::vec(a_policy(), 1..3),
    ) {
        for policy in &mut all {
            policy.rescue = kind;
            policy.enforcement = Enforcement::Enforce;
            policy.namespace_selector = Selector::default();
        }
        let (policies, inventory) = (policies(all), inventory(nodes));
        let namespace = NamespaceFacts::unlabelled(&pod.namespace);
        let of = |pod: &PodFacts| {
            rescue(&Question { subject: Subject::Pod, pod, namespace: &namespace, judged: &Judged::Every }, "", &policies, &inventory, now())
        };
        if let Some(rescued) = of(&pod) {
            let mut changed = pod.clone();
            rescued.apply(&mut changed);
            prop_assert_ne!(&changed, &pod);
            prop_assert_eq!(of(&changed), None);
            let eligible = |placement: &Placement| named(&inventory, placement).into_iter().next().unwrap_or_default();
            let (before, after) = (eligible(&pod.placement), eligible(&changed.placement));
            prop_assert!(after.is_subset(&before));
            if kind == Rescue::PinToHolders {
                prop_assert!(!after.is_empty());
                let judged = decided(Subject::Pod, &changed, &policies, &inventory);
                let before = decided(Subject::Pod, &pod, &policies, &inventory);
                prop_assert!(judged.action() <= before.action());
            }
        }
    }

    #[test]
    fn presence_on_a_node_agrees_with_the_joint_judgement(
        facts in a_node(),
        image in select(&WRITTEN[..7]),
        policy in a_policy(),
    ) {
        let inventory = inventory([facts.clone()]);
        let image = name(image);
        let mut policy = policy;
        policy.presence.elastic = false;
        policy.nodes = Selector::default();
        let single = inventory.presence_on(&facts.name, &image, &Lens::of(&policy), &Access::default(), now());
        let route = Route::Bound(&facts.name);
        let joint = super::presence::judge(&inventory, route, &[&image], &policy, &Access::default(), now());
        let unwell = super::eligibility::unwell(&facts, inventory.settings(), now());
        match (single, joint, unwell) {
            (Presence::Present(_), super::presence::Judgement::Present, None)
            | (Presence::Present(_), super::presence::Judgement::Unknown(_), Some(_))
            | (Presence::Absent(_), super::presence::Judgement::Absent(_), _)
            | (Presence::Unknown(_), super::presence::Judgement::Unknown(_), _) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn an_obstacle_has_one_name_for_each_state() {
    let settings = super::inventory::InventorySettings::default();
    let of = |facts: NodeFacts| could_run(&Placement::default(), &facts, &settings, now());
    assert_eq!(of(node("a")), Ok(None));
    assert_eq!(of(node("a").cordoned()), Ok(Some(Obstacle::Cordoned)));
    assert_eq!(of(node("a").with_readiness(Readiness::NotReady).cordoned()), Ok(Some(Obstacle::NotReady)));
    assert_eq!(of(node("a").created_at(now())), Ok(Some(Obstacle::Young)));
}
