//! The pure decision, the index and its updates, at the size that the design names: 5,000 nodes x 50 images x 5 names, 100
//! policies.
//!
//! `cargo bench --bench decision`; `BENCH_ONLY="all match, all proven: twelve"` for some policies and one kind of pod. Time
//! is the wall clock of one decision each, with the sentences that its client is told: the denial, the warnings. What the
//! verdict alone takes is printed beside it; sentences that nobody reads are not written. Pods of every kind come in turn,
//! no two alike: present, absent, on nodes that cannot take them, not allowed, apart, with a dozen containers, templates,
//! updates. Policies come in three sorts: for a team each, as clusters have them, so that three match; all for everybody,
//! over a few pools of nodes; and, which no cluster has, each over nodes, limits and preloads of its own besides, so that
//! nothing that is worked out for one can be used for another.
//!
//! Warm is a webhook under load. Cold is one that was left alone for a while: before each decision more memory is walked
//! through than the caches hold.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a measurement may stop where it stands"
)]

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pullguard::core::answer;
use pullguard::core::cause::{FailureClass, Permanence};
use pullguard::core::decide::decide;
use pullguard::core::image::ImageName;
use pullguard::core::inventory::{Inventory, InventorySettings};
use pullguard::core::namespace::NamespaceFacts;
use pullguard::core::node::{TaintEffect, Toleration, TolerationValue};
use pullguard::core::pod::{ContainerFacts, ContainerKind, NodeTerm, OwnerRef, Placement, PodFacts, PullPolicy};
use pullguard::core::policies::Policies;
use pullguard::core::policy::Action;
use pullguard::core::reason::Reason;
use pullguard::core::runtime::effect::{FailureState, Record, RecordedFailure, TaskRef};
use pullguard::core::runtime::recreation::Recreation;
use pullguard::core::selector::Operator;
use pullguard::core::verdict::{Judged, Question, Subject};

use support::Lots;
use support::cluster::{
    COMMON, IMAGES, NAMES, NODES, POLICIES, POOL, POOLS_OF_NODES, Which, Whom, common, is, is_not, missing,
    namespace_labels, node, now, policies, rare, repository, requirement,
};
use support::figures::{Figures, Percentiles};
use support::machine::{load, mib, resident_kib};

const DECISIONS: usize = 20_000;
const COLD_DECISIONS: usize = 400;
/// More than the caches of any one processor's share.
const SWEPT: usize = 64 << 20;

const DECISION_P99: Duration = Duration::from_micros(50);
const BUILD: Duration = Duration::from_secs(2);
const UPDATE_P99: Duration = Duration::from_millis(1);
const MEMORY_MIB: f64 = 64.0;

/// Tasks that have failed for good, which admission must know.
const FAILED_TASKS: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On some node, all of them.
    Present,
    /// On no node.
    Absent,
    /// Each on some node, but not together; one under a tag that is nowhere, with a did-you-mean to find.
    Apart,
    /// Only on nodes that do not take the pod: the nearest miss is told.
    Elsewhere,
    /// No policy's allowlist has it.
    NotAllowed,
    /// Pulled from a registry: only the allowlist and the policies of scope All have a say.
    Pulled,
    /// Twelve containers.
    Large,
    /// A Deployment's.
    Template,
    /// A bound pod of which one image has changed.
    Update,
}

const KINDS: [(&str, Kind); 9] = [
    ("present", Kind::Present),
    ("on no node", Kind::Absent),
    ("not together", Kind::Apart),
    ("on nodes that cannot take it", Kind::Elsewhere),
    ("not allowed", Kind::NotAllowed),
    ("pulled", Kind::Pulled),
    ("twelve containers", Kind::Large),
    ("template", Kind::Template),
    ("update", Kind::Update),
];

fn container(name: &str, image: String, pull_policy: PullPolicy) -> ContainerFacts {
    let parsed = ImageName::parse(&image);
    ContainerFacts { name: name.to_owned(), kind: ContainerKind::Main, image, parsed, pull_policy }
}

fn containers(kind: Kind, lots: &mut Lots) -> Vec<ContainerFacts> {
    let never = PullPolicy::Never;
    let one = |image| container("main", image, never);
    let two = |image, other| vec![one(image), container("side", other, never)];
    match kind {
        Kind::Present | Kind::Template | Kind::Update => two(common(lots), common(lots)),
        Kind::Absent => two(missing(lots), common(lots)),
        Kind::Apart => {
            let unknown_tag = format!("{}:v9", repository(lots.next(POOL)));
            let mut all = two(rare(lots), rare(lots));
            all.push(container("third", unknown_tag, never));
            all
        }
        Kind::Elsewhere => vec![one(rare(lots))],
        Kind::NotAllowed => two(format!("docker.io/somebody/tool-{}:1", lots.next(POOL)), common(lots)),
        Kind::Pulled => vec![container("main", common(lots), PullPolicy::IfNotPresent)],
        Kind::Large => {
            let mut image = |index: usize| if index.is_multiple_of(6) { rare(lots) } else { common(lots) };
            (0..12).map(|index| container(&format!("c{index}"), image(index), never)).collect()
        }
    }
}

fn placement(kind: Kind, lots: &mut Lots) -> Placement {
    let mut placement = Placement::default();
    if lots.one_in(2) {
        placement.node_selector.insert("kubernetes.io/arch".to_owned(), "amd64".to_owned());
    }
    let pool = is("pool", format!("pool-{}", lots.next(POOLS_OF_NODES)));
    let zone = is_not("topology.kubernetes.io/zone", format!("zone-{}", lots.next(3)));
    let big = requirement("cores", Operator::Gt(8));
    let terms = match (kind, lots.next(6)) {
        // One small pool: nearly all holders are outside of it.
        (Kind::Elsewhere, _) => Some(vec![vec![pool, big]]),
        (_, 0) => Some(vec![vec![pool]]),
        (_, 1) => Some(vec![vec![zone, big], vec![pool]]),
        _ => None,
    };
    placement.required_affinity =
        terms.map(|terms| terms.into_iter().map(|expressions| NodeTerm { expressions, fields: Vec::new() }).collect());
    let mut tolerate = |key: &str, value, effect| {
        placement.tolerations.push(Toleration { key: Some(key.to_owned()), value, effect: Some(effect) });
    };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        tolerate(key, TolerationValue::Exists, TaintEffect::NoExecute);
    }
    if lots.one_in(4) {
        tolerate("gpu", TolerationValue::Equal("true".to_owned()), TaintEffect::NoSchedule);
    }
    if lots.one_in(4) {
        let team = format!("team-{}", lots.next(40));
        tolerate("dedicated", TolerationValue::Equal(team), TaintEffect::NoSchedule);
    }
    if lots.one_in(5) {
        placement.os = Some("linux".to_owned());
    }
    if kind == Kind::Update {
        placement.node_name = Some(format!("node-{}", lots.next(NODES)));
    }
    placement
}

struct Asked {
    subject: Subject,
    pod: PodFacts,
    judged: Judged,
}

fn asked(kind: Kind, lots: &mut Lots) -> Asked {
    let number = lots.next(1_000_000);
    // A Job's pod, or a bare one with a task label: both may be of a task that has failed.
    let owner = lots.one_in(2).then(|| OwnerRef {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: format!("job-{number}"),
        uid: format!("uid-{}", lots.next(100 * FAILED_TASKS)),
    });
    let label = |key: &str, value: String| (key.to_owned(), value);
    let pod = PodFacts {
        namespace: "apps".to_owned(),
        name: format!("pod-{number}"),
        labels: BTreeMap::from([label("app", "service".to_owned()), label("task", format!("task-{number}"))]),
        owner: if kind == Kind::Template { None } else { owner },
        placement: placement(kind, lots),
        containers: containers(kind, lots),
        pull_secrets: if lots.one_in(3) { vec!["registry".to_owned()] } else { Vec::new() },
    };
    let (subject, judged) = match kind {
        Kind::Template => (Subject::Template, Judged::Every),
        Kind::Update => (Subject::BoundPod, Judged::Only([0].into())),
        Kind::Present
        | Kind::Absent
        | Kind::Apart
        | Kind::Elsewhere
        | Kind::NotAllowed
        | Kind::Pulled
        | Kind::Large => (Subject::Pod, Judged::Every),
    };
    Asked { subject, pod, judged }
}

/// The failed tasks of a cluster in which something is going on.
fn failed_tasks() -> Recreation {
    let mut failed = Recreation::default();
    for index in 0..FAILED_TASKS {
        let (image, message) = (format!("missing/service-{index}:v1.1"), "it is not on the node".to_owned());
        let failure = RecordedFailure {
            image: image.clone(),
            class: FailureClass::NeverPull,
            permanence: Permanence::Permanent,
            message: message.clone(),
            remedy: String::new(),
            container: "main".to_owned(),
            pod: format!("pod-{index}"),
            node: format!("node-{index}"),
            pull_policy: Some(PullPolicy::Never),
            pull_secrets: Vec::new(),
            first_seen: Some(Timestamp::UNIX_EPOCH),
            last_seen: Some(Timestamp::UNIX_EPOCH),
        };
        failed.observe(&Record {
            namespace: "apps".to_owned(),
            name: format!("job-{index}"),
            task: TaskRef {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name: format!("job-{index}"),
                uid: format!("uid-{index}"),
                label: None,
            },
            maker: None,
            state: FailureState::PermanentlyFailed,
            reason: Reason::PullPermanentlyFailed,
            class: Some(FailureClass::NeverPull),
            image,
            message,
            remedy: String::new(),
            policies: Vec::new(),
            first_seen: Some(Timestamp::UNIX_EPOCH),
            failed_at: Some(Timestamp::UNIX_EPOCH),
            expires_at: None,
            resolved_at: None,
            attempts: 1,
            counted_pods: Vec::new(),
            pods_collected: 0,
            failures: vec![failure],
        });
    }
    assert_eq!(failed.len(), FAILED_TASKS);
    failed
}

fn build(names_of_image: usize, figures: &mut Figures) -> Inventory {
    // What the allocator keeps of freed facts must not count as the index, so they are made and dropped one by one.
    let mut lots = Lots(7);
    let before = resident_kib("self");
    let mut inventory = Inventory::new(InventorySettings::default());
    let mut spent = Duration::ZERO;
    for index in 0..NODES {
        let facts = node(index, names_of_image, &mut lots);
        let start = Instant::now();
        inventory.apply(facts, Timestamp::UNIX_EPOCH);
        spent += start.elapsed();
    }
    inventory.set_synced(true);
    let memory = mib(resident_kib("self").saturating_sub(before));
    let what = format!("{NODES} nodes x {IMAGES} images x {names_of_image} names");
    figures.target(format!("index of {what}: built from scratch"), format!("{spent:.0?}"), "< 2 s", spent < BUILD);
    let met = memory < MEMORY_MIB;
    figures.target(format!("index of {what}: memory"), format!("{memory:.1} MiB"), "< 64 MiB", met);
    inventory
}

fn updates(inventory: &mut Inventory, names_of_image: usize, figures: &mut Figures) {
    let mut lots = Lots(11);
    let mut times = Vec::new();
    // Every other update is a heartbeat that changes nothing; the others exchange all images of the node.
    for round in 0..4_000_u64 {
        let index = lots.next(NODES);
        let facts = node(index, names_of_image, &mut Lots(if round.is_multiple_of(2) { 7 } else { 13 + round }));
        let again = facts.clone();
        for facts in [facts, again] {
            let start = Instant::now();
            black_box(inventory.apply(facts, now()));
            times.push(start.elapsed());
        }
    }
    let times = Percentiles::new(times);
    let (median, p99) = (times.at(500), times.at(990));
    figures.target("update of one node, p99", format!("{p99:.1?}"), "< 1 ms", p99 < UPDATE_P99);
    figures.note("update of one node, p50", format!("{median:.1?}"));
}

/// Makes the caches forget.
struct Sweep(Vec<u8>);

impl Sweep {
    fn new() -> Self {
        Self(vec![1; SWEPT])
    }

    fn walk(&mut self) {
        for place in (0..self.0.len()).step_by(64) {
            self.0[place] = self.0[place].wrapping_add(1);
        }
        black_box(&self.0);
    }
}

struct Decided {
    /// The verdict alone.
    judged: Percentiles,
    /// And what the client is told of it.
    told: Percentiles,
    actions: BTreeMap<Action, usize>,
}

struct Bench<'a> {
    inventory: &'a Inventory,
    policies: &'a Policies,
    failed: &'a Recreation,
}

impl Bench<'_> {
    fn decide(&self, kinds: &[Kind], count: usize, mut before: impl FnMut()) -> Decided {
        let mut lots = Lots(3);
        let namespace = NamespaceFacts { name: "apps".to_owned(), labels: Some(Arc::new(namespace_labels())) };
        let (mut judged_in, mut told_in) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut actions: BTreeMap<Action, usize> = BTreeMap::new();
        for round in 0..count {
            let Asked { subject, pod, judged } = asked(kinds[round % kinds.len()], &mut lots);
            let question = Question { subject, pod: &pod, namespace: &namespace, judged: &judged };
            before();
            let start = Instant::now();
            let verdict = black_box(decide(black_box(&question), self.policies, self.inventory, self.failed, now()));
            judged_in.push(start.elapsed());
            black_box((answer::denial(&verdict), answer::warnings(&verdict)));
            told_in.push(start.elapsed());
            *actions.entry(verdict.action()).or_default() += 1;
        }
        Decided { judged: Percentiles::new(judged_in), told: Percentiles::new(told_in), actions }
    }
}

/// `target`: whether the design's figure is for this.
fn decisions(bench: &Bench<'_>, sort: &str, target: bool, figures: &mut Figures) {
    println!("  {sort}:");
    let only = std::env::var("BENCH_ONLY").ok();
    let is_wanted = |what: &str| only.as_ref().is_none_or(|only| format!("{sort}: {what}").contains(only));
    for (what, kind) in KINDS.into_iter().filter(|(what, _)| is_wanted(what)) {
        let Decided { judged, told, actions } = bench.decide(&[kind], DECISIONS / 8, || ());
        let [(judged_p50, judged_p99), (p50, p99)] = [&judged, &told].map(|times| (times.at(500), times.at(990)));
        println!(
            "    {what:<30} p50 {p50:>8.1?}  p99 {p99:>8.1?}   the verdict alone {judged_p50:>8.1?} {judged_p99:>8.1?}   {actions:?}"
        );
    }
    if only.is_some() {
        return;
    }
    let all = KINDS.map(|(_, kind)| kind);
    let Decided { judged, told, .. } = bench.decide(&all, DECISIONS, || ());
    let (p50, p99) = (told.at(500), told.at(990));
    let what = format!("decision, all in turn, {sort}: p99");
    if target {
        figures.target(what, format!("{p99:.1?}"), "< 50 us", p99 < DECISION_P99);
    } else {
        figures.note(what, format!("{p99:.1?}"));
    }
    figures.note(format!("decision, all in turn, {sort}: p50"), format!("{p50:.1?}"));
    let (p50, p99) = (judged.at(500), judged.at(990));
    figures.note(format!("of these the verdict alone, {sort}: p50 and p99"), format!("{p50:.1?}, {p99:.1?}"));
    let mut sweep = Sweep::new();
    let cold = bench.decide(&all, COLD_DECISIONS, || sweep.walk()).told;
    let (p50, p99) = (cold.at(500), cold.at(990));
    figures.note(format!("decision, {sort}, cold caches: p50 and p99"), format!("{p50:.1?}, {p99:.1?}"));
}

fn main() -> ExitCode {
    let mut figures = Figures::default();
    let failed = failed_tasks();
    // With 5 names an entry no list proves anything, with 4 and a longer limit all of them do.
    for (names_of_image, limit, proves) in [(NAMES, 50, "nothing proven"), (NAMES - 1, 100, "all proven")] {
        let mut inventory = build(names_of_image, &mut figures);
        let known = inventory.known_names();
        println!(
            "{NODES} nodes x {IMAGES} images x {names_of_image} names ({known} different of {COMMON} common and others):"
        );
        for (whom, which, sort, target) in [
            (Whom::Teams, Which::Pools, "3 of them match", true),
            (Whom::Everybody, Which::Pools, "all match", true),
            (Whom::Everybody, Which::AllDifferent, "all match, each for other nodes", false),
        ] {
            let policies = policies(limit, whom, which);
            let bench = Bench { inventory: &inventory, policies: &policies, failed: &failed };
            decisions(&bench, &format!("{POLICIES} policies, {sort}, {proves}"), target, &mut figures);
        }
        if std::env::var_os("BENCH_ONLY").is_none() {
            updates(&mut inventory, names_of_image, &mut figures);
        }
    }
    figures.finish(&format!("decision ({})", load()))
}
