//! The mutating half: what can be changed in a pod so that it runs, where a denial would only tell its author to.
//!
//! Enters: a pod that is being created. Leaves: a change as a value, or none; applied to the changed pod it is none
//! again. It must not know JSON. It never widens where a pod may go, never touches a template, and acts only where all
//! policies that match ask for the same, and enforce: Audit and Warn promise to change nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::decide::is_allowed;
use super::eligibility::NodeView as _;
use super::image::ImageName;
use super::inventory::bits::Bits;
use super::inventory::{Access, Inventory};
use super::outcome::route;
use super::pod::{ContainerFacts, NodeTerm, Placement, PodFacts, PullPolicy};
use super::policies::{Certainty, Entry, Policies};
use super::policy::{Enforcement, PresenceScope, Rescue};
use super::presence::is_preloaded;
use super::selector::{Operator, Requirement};
use super::sight::{Ask, Sight};
use super::verdict::{Judged, Question, Subject};

pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// More would make the pod's affinity a list of the cluster.
pub const MAX_HOLDERS: usize = 20;

/// What to change in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescued {
    /// Pin it to nodes that hold its images.
    Pin(Pin),
    /// Let these containers (places in `PodFacts::containers`) pull: `Never` becomes `IfNotPresent`.
    Pull(Vec<usize>),
}

/// A requirement on nodes that holds beside all that the pod asks for already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// By name.
    pub nodes: Vec<Arc<str>>,
    /// By host name label: a `matchFields` takes one node only.
    pub requirement: Requirement,
    pub add_to: PinTo,
}

/// Where in the required node affinity the requirement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinTo {
    /// There is no required node affinity: it becomes the one term.
    NewTerm,
    /// Into the `matchExpressions` of the terms at these places. Any of the terms suffices to the scheduler, so each must
    /// have it; but for empty ones, which match no node and would then match some.
    Terms(Vec<usize>),
}

impl Pin {
    pub fn apply(&self, placement: &mut Placement) {
        match &self.add_to {
            PinTo::NewTerm => {
                let term = NodeTerm { expressions: vec![self.requirement.clone()], fields: Vec::new() };
                placement.required_affinity.get_or_insert_default().push(term);
            }
            PinTo::Terms(places) => {
                let terms = placement.required_affinity.iter_mut().flatten();
                for (_, term) in terms.enumerate().filter(|(place, _)| places.contains(place)) {
                    term.expressions.push(self.requirement.clone());
                }
            }
        }
    }
}

impl Rescued {
    /// As the policy's field names it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pin(_) => "PinToHolders",
            Self::Pull(_) => "PullIfNotPresent",
        }
    }

    /// What was changed in the pod, in words.
    pub fn told(&self, pod: &PodFacts) -> String {
        const NAMED: usize = 5;
        let (what, names): (_, Vec<&str>) = match self {
            Self::Pin(pin) => {
                ("pinned to the nodes that hold its images", pin.nodes.iter().map(|node| &**node).collect())
            }
            Self::Pull(places) => {
                let containers = places.iter().filter_map(|place| pod.containers.get(*place));
                (
                    "imagePullPolicy is IfNotPresent instead of Never for",
                    containers.map(|one| one.name.as_str()).collect(),
                )
            }
        };
        let named: Vec<&str> = names.iter().take(NAMED).copied().collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{what}: {}{more}", named.join(", "))
    }

    /// The change, made to our own facts.
    pub fn apply(&self, pod: &mut PodFacts) {
        match self {
            Self::Pin(pin) => pin.apply(&mut pod.placement),
            Self::Pull(places) => {
                let containers = pod.containers.iter_mut().enumerate();
                for (_, container) in containers.filter(|(place, _)| places.contains(place)) {
                    container.pull_policy = PullPolicy::IfNotPresent;
                }
            }
        }
    }
}

/// What would help the pod, if it needs help and the policies ask for it. `request`: what tells pods apart whose names are
/// yet to be generated, the review's uid.
pub fn rescue(
    question: &Question<'_>,
    request: &str,
    policies: &Policies,
    inventory: &Inventory,
    now: Timestamp,
) -> Option<Rescued> {
    let pod = question.pod;
    let is_new_unbound_pod =
        question.subject == Subject::Pod && *question.judged == Judged::Every && pod.placement.node_name.is_none();
    // Where it could go is not known yet.
    let is_settled = !pod.placement.tolerations_to_come;
    let has_never = pod.containers.iter().any(|container| container.pull_policy == PullPolicy::Never);
    if !is_new_unbound_pod || !is_settled || !has_never || !inventory.is_synced() {
        return None;
    }
    let matching: Vec<(&Entry, Certainty)> = policies.matching(&pod.labels, question.namespace).collect();
    let (first, _) = matching.first()?;
    let wanted = first.policy.rescue;
    let agree = matching.iter().all(|(entry, certainty)| {
        *certainty == Certainty::Certain
            && entry.policy.rescue == wanted
            && entry.policy.enforcement == Enforcement::Enforce
    });
    if !agree {
        return None;
    }
    let entries: Vec<&Entry> = matching.into_iter().map(|(entry, _)| entry).collect();
    match wanted {
        Rescue::None => None,
        Rescue::PinToHolders => pin(question, request, &entries, inventory, now).map(Rescued::Pin),
        Rescue::PullIfNotPresent => pull(question, &entries, inventory, now).map(Rescued::Pull),
    }
}

/// The nodes that could take the pod, and what all policies say of them.
struct Common {
    eligible: Bits,
    /// Hold all images of some containers, without obstacle.
    holding: Bits,
    /// Those of them that every policy counts.
    holders: Bits,
}

fn common(
    question: &Question<'_>,
    entries: &[&Entry],
    images: &[&ImageName],
    inventory: &Inventory,
    now: Timestamp,
) -> Common {
    let access = Access::of(question.pod);
    let sight = Sight::new(inventory, route(question), images.iter().copied().map(Some), &access, now);
    let of_policy = |entry: &&Entry| {
        let policy = &entry.policy;
        let nodes = inventory.select(&policy.nodes);
        let asked = (0..).zip(images).map(|(index, name)| (index, is_preloaded(policy, name)));
        let ask =
            Ask { nodes: 0, limit: policy.node_image_limit, elastic: policy.presence.elastic, images: asked.collect() };
        (sight.holders(&ask, &nodes), sight.candidates(&nodes))
    };
    let eligible = sight.candidates(inventory.live());
    let all = Common { holding: eligible.clone(), holders: eligible.clone(), eligible };
    entries.iter().map(of_policy).fold(all, |mut all, (holding, counted)| {
        all.holding.and(&holding);
        all.holders.and(&holding);
        all.holders.and(&counted);
        all
    })
}

impl Common {
    /// Wherever the pod lands, its images are there: the scheduler does not know which nodes a policy counts.
    fn needs_no_help(&self) -> bool {
        !self.eligible.is_empty() && self.eligible.is_subset(&self.holding)
    }
}

fn pin(
    question: &Question<'_>,
    request: &str,
    entries: &[&Entry],
    inventory: &Inventory,
    now: Timestamp,
) -> Option<Pin> {
    let all = entries.iter().any(|entry| entry.policy.presence.scope == PresenceScope::All);
    let counts = |container: &&ContainerFacts| match container.pull_policy {
        PullPolicy::Never => true,
        PullPolicy::IfNotPresent => all,
        PullPolicy::Always => false,
    };
    let containers = question.pod.containers.iter().filter(counts);
    // A reference that cannot be parsed runs nowhere: the verdict says so.
    let images: Vec<&ImageName> = containers.map(|container| container.parsed.as_ref().ok()).collect::<Option<_>>()?;
    let common = common(question, entries, &images, inventory, now);
    if common.needs_no_help() {
        return None;
    }
    let holders = chosen(question.pod, request, &common.holders, inventory);
    if holders.is_empty() {
        return None;
    }
    let (nodes, hosts): (Vec<Arc<str>>, BTreeSet<String>) = holders.into_iter().unzip();
    let add_to = match &question.pod.placement.required_affinity {
        None => PinTo::NewTerm,
        Some(terms) => {
            let is_empty = |term: &NodeTerm| term.expressions.is_empty() && term.fields.is_empty();
            let places = terms.iter().enumerate().filter(|(_, term)| !is_empty(term));
            PinTo::Terms(places.map(|(place, _)| place).collect())
        }
    };
    let requirement = Requirement { key: HOSTNAME_LABEL.to_owned(), operator: Operator::In(hosts) };
    Some(Pin { nodes, requirement, add_to })
}

/// At most [`MAX_HOLDERS`] with their host names, by node name. Of more, another choice for each pod, so that not all
/// pods are pinned to the same few; the same choice each time that it is asked.
fn chosen(pod: &PodFacts, request: &str, holders: &Bits, inventory: &Inventory) -> Vec<(Arc<str>, String)> {
    let named = inventory.first_named(holders, usize::MAX);
    let mut choice: Vec<(u64, Arc<str>, String)> = named
        .into_iter()
        .filter_map(|(slot, name)| {
            let host = inventory.view(slot)?.label(HOSTNAME_LABEL)?;
            // A host name that two nodes share would let the pod onto one that does not hold its images.
            let unique = inventory.with_label(HOSTNAME_LABEL, host)?.len() == 1;
            unique.then(|| (lot(pod, request, name), Arc::clone(name), host.to_owned()))
        })
        .collect();
    choice.sort_unstable();
    choice.truncate(MAX_HOLDERS);
    choice.sort_unstable_by(|(_, a, _), (_, b, _)| a.cmp(b));
    choice.into_iter().map(|(_, name, host)| (name, host)).collect()
}

/// A lot that depends on the pod and the node alone (FNV-1a): equal on all replicas and releases. The pods of a ReplicaSet
/// differ in nothing as long as they have no names, so that of the request stands in.
fn lot(pod: &PodFacts, request: &str, node: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let owner = pod.owner.as_ref().map_or("", |owner| owner.uid.as_str());
    let labels = pod.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    let name = if pod.name.is_empty() { request } else { &pod.name };
    let texts = [pod.namespace.as_str(), name, owner].into_iter().chain(labels).chain([node]);
    // The zero byte ends each text, so that their borders count.
    let bytes = texts.flat_map(|text| text.bytes().chain([0]));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The loosening is bounded by the allowlists: every policy has one, and each permits the image.
fn pull(question: &Question<'_>, entries: &[&Entry], inventory: &Inventory, now: Timestamp) -> Option<Vec<usize>> {
    let may_pull = |name: &ImageName| {
        name.reference().is_some()
            && entries.iter().all(|entry| entry.policy.allowed_images.is_some() && is_allowed(&entry.policy, name))
    };
    let never = question.pod.containers.iter().enumerate();
    let never = never.filter(|(_, container)| container.pull_policy == PullPolicy::Never);
    let images: Vec<(usize, &ImageName)> = never
        .filter_map(|(place, container)| Some((place, container.parsed.as_ref().ok()?)))
        .filter(|(_, name)| may_pull(name))
        .collect();
    if images.is_empty() {
        return None;
    }
    let names: Vec<&ImageName> = images.iter().map(|(_, name)| *name).collect();
    if common(question, entries, &names, inventory, now).needs_no_help() {
        return None;
    }
    Some(images.into_iter().map(|(place, _)| place).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{inventory, never, node, now, policies, policy};
    use super::super::namespace::NamespaceFacts;
    use super::super::node::{NodeFacts, TaintEffect};
    use super::super::policy::Policy;
    use super::*;

    fn host(name: &str) -> NodeFacts {
        node(name).with_label(HOSTNAME_LABEL, name)
    }

    fn rescued(pod: &PodFacts, request: &str, policy: Policy, nodes: Vec<NodeFacts>) -> Option<Rescued> {
        let namespace = NamespaceFacts { name: pod.namespace.clone(), labels: Some(Arc::default()) };
        let question = Question { subject: Subject::Pod, pod, namespace: &namespace, judged: &Judged::Every };
        rescue(&question, request, &policies([policy]), &inventory(nodes), now())
    }

    fn names(rescued: Option<Rescued>) -> Vec<String> {
        match rescued {
            Some(Rescued::Pin(pin)) => pin.nodes.iter().map(ToString::to_string).collect(),
            Some(Rescued::Pull(_)) | None => Vec::new(),
        }
    }

    const IMAGE: &str = "docker.io/library/agent:1";

    #[test]
    fn a_pod_that_may_land_beside_the_policys_nodes_is_pinned_to_them() {
        let policy = || policy("p").of_nodes("pool", "agents").rescuing(Rescue::PinToHolders);
        let agent = |name| host(name).with_label("pool", "agents").with_image(&[IMAGE]);
        let pod = never("agent:1");
        assert_eq!(names(rescued(&pod, "r", policy(), vec![agent("a1"), agent("a2"), host("web")])), ["a1", "a2"]);
        // Nothing is wrong with a node that has the image, counted or not.
        let web = host("web").with_image(&[IMAGE]);
        assert_eq!(rescued(&pod, "r", policy(), vec![agent("a1"), web]), None);
        assert_eq!(rescued(&pod, "r", policy(), vec![agent("a1"), agent("a2")]), None);
    }

    #[test]
    fn pods_without_names_of_their_own_are_not_all_pinned_to_the_same_nodes() {
        let nodes = || (0..200).map(|n| host(&format!("n{n:03}")).with_image(&[IMAGE])).chain([host("z")]).collect();
        let pinned = |pod: &PodFacts, request| {
            let names = names(rescued(pod, request, policy("p").rescuing(Rescue::PinToHolders), nodes()));
            assert_eq!(names.len(), MAX_HOLDERS);
            names
        };
        let generated = PodFacts { name: String::new(), ..never("agent:1") };
        assert_eq!(pinned(&generated, "r-1"), pinned(&generated, "r-1"));
        assert_ne!(pinned(&generated, "r-1"), pinned(&generated, "r-2"));
        let named = PodFacts { name: "a".to_owned(), ..generated };
        assert_eq!(pinned(&named, "r-1"), pinned(&named, "r-2"));
    }

    #[test]
    fn a_pod_whose_tolerations_are_to_come_is_left_alone() {
        let tainted = host("k1").with_image(&[IMAGE]).with_taint("runtime", "kata", TaintEffect::NoSchedule);
        let mut pod = never("agent:1");
        let policy = || policy("p").rescuing(Rescue::PinToHolders);
        let nodes = || vec![tainted.clone(), host("a").with_image(&[IMAGE]), host("b")];
        assert_eq!(names(rescued(&pod, "r", policy(), nodes())), ["a"]);
        pod.placement.tolerations_to_come = true;
        assert_eq!(rescued(&pod, "r", policy(), nodes()), None);
    }
}
