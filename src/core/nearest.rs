//! What a person who is denied an image was probably close to.
//!
//! Enters: an image that the candidates lack. Leaves: the nodes that hold it and cannot take the pod, each with the why,
//! and names on the candidates that look like it. Only denials and warnings ask, so it may look at a few single nodes.

use std::sync::Arc;

use super::eligibility::Exclusion;
use super::image::ImageReference;
use super::inventory::Inventory;
use super::inventory::bits::{Bits, NodeSet};
use super::sight::Sight;

/// Nodes that hold the image and are no candidates, for one and the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    pub why: Unfit,
    /// The first, by name.
    pub nodes: Vec<Arc<str>>,
}

/// Why a holder is no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The pod cannot run there.
    Excluded(Arc<Exclusion>),
    /// It could, but the policy does not count this node.
    NotOfPolicy,
}

/// All holders that are no candidates: the few nearest by name, the others as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    pub groups: Vec<Miss>,
    pub others: usize,
}

/// Another name, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Canonical.
    pub text: Arc<str>,
    /// The first node that lists it, by name.
    pub node: Arc<str>,
    pub others: usize,
}

const NAMED_MISSES: usize = 4;
/// Names looked at and names kept: somebody may have a thousand tags of one repository.
const LOOKED_AT: usize = 64;
const KEPT: usize = 3;

pub(in crate::core) fn misses(
    sight: &Sight<'_>,
    image: usize,
    preloaded: bool,
    nodes: &Bits,
    candidates: &Bits,
) -> Misses {
    let mut outside = sight.holders_anywhere(image, preloaded, nodes);
    outside.and_not(candidates);
    let mut groups: Vec<Miss> = Vec::new();
    let (total, mut named) = (outside.len(), 0);
    for nearer in sight.by_distance() {
        if outside.is_empty() || named == NAMED_MISSES {
            break;
        }
        let mut near = outside.clone();
        if let Some(nodes) = nearer {
            near.and(nodes);
        }
        outside.and_not(&near);
        for (slot, name) in sight.inventory.first_named(&near, NAMED_MISSES - named) {
            named += 1;
            let why = sight.fitness(slot).map_or_else(Unfit::Excluded, |_| Unfit::NotOfPolicy);
            match groups.iter_mut().find(|group| group.why == why) {
                Some(group) => group.nodes.push(Arc::clone(name)),
                None => groups.push(Miss { why, nodes: vec![Arc::clone(name)] }),
            }
        }
    }
    Misses { groups, others: total - named }
}

/// Names that look like the one that is wanted, the likeliest first: the same name and tag in another place
/// (`localhost/optio-node:latest`), then another tag of the repository, then another tag elsewhere.
pub(in crate::core) fn alike<'a>(
    inventory: &'a Inventory,
    wanted: &ImageReference,
) -> Vec<(&'a Arc<str>, &'a NodeSet)> {
    let last = wanted.repository().rsplit('/').next().unwrap_or_default();
    let tagged = format!("{last}:");
    let mut found: Vec<_> = inventory.ending_with_segment(&tagged).take(LOOKED_AT).collect();
    // Of so many tags that the wanted one may not be among those.
    if let Some(tag) = wanted.tag().filter(|_| found.len() == LOOKED_AT) {
        let exact = format!("{tagged}{tag}");
        let names = inventory.ending_with_segment(&exact).take(LOOKED_AT);
        let is_exact = |text: &str| text.strip_suffix(exact.as_str()).is_some_and(|before| before.ends_with('/'));
        found.extend(names.filter(|(text, _)| is_exact(text)));
    }
    found.retain(|(text, _)| ***text != *wanted.lookup());
    let found = found.into_iter();
    let mut found: Vec<_> = found.map(|(text, nodes)| (unlikeness(wanted, text), text, nodes)).collect();
    found.sort_unstable_by_key(|(unlikeness, text, _)| (*unlikeness, *text));
    found.dedup_by_key(|(_, text, _)| *text);
    found.into_iter().map(|(_, text, nodes)| (text, nodes)).collect()
}

/// Of these the likeliest that are on the candidates.
pub(in crate::core) fn near_names(sight: &Sight<'_>, image: usize, candidates: &Bits) -> Vec<Near> {
    let near = |(text, nodes): &(&Arc<str>, &NodeSet)| {
        if !nodes.intersects(candidates) {
            return None;
        }
        let mut there = candidates.clone();
        nodes.keep_in(&mut there);
        let (_, node) = sight.inventory.first_named(&there, 1).into_iter().next()?;
        Some(Near { text: Arc::clone(text), node: Arc::clone(node), others: there.len() - 1 })
    };
    sight.near(image).iter().filter_map(near).take(KEPT).collect()
}

fn unlikeness(wanted: &ImageReference, text: &str) -> u8 {
    let same_repository = text.strip_prefix(wanted.name()).is_some_and(|rest| rest.starts_with(':'));
    let same_tag = wanted.tag().is_some_and(|tag| text.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':')));
    match (same_tag, same_repository) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::core::decide::decide;
    use crate::core::fixtures::{inventory, never, node, now, policies, policy};
    use crate::core::namespace::NamespaceFacts;
    use crate::core::node::TaintEffect;
    use crate::core::refusal::NoRefusals;
    use crate::core::verdict::{Judged, Question, Subject};

    #[test]
    fn of_many_holders_those_are_named_that_lack_the_least() {
        let image = "docker.io/library/agent:1";
        let others = (0..6).map(|number| node(&format!("a{number}")).with_image(&[image]));
        let tainted =
            node("z").with_image(&[image]).with_label("pool", "gpu").with_taint("gpu", "", TaintEffect::NoSchedule);
        let inventory = inventory(others.chain([tainted]));
        let pod = never("agent:1").selecting("pool", "gpu");
        let namespace = NamespaceFacts { name: pod.namespace.clone(), labels: Some(Arc::default()) };
        let question = Question { subject: Subject::Pod, pod: &pod, namespace: &namespace, judged: &Judged::Every };
        let verdict = decide(&question, &policies([policy("p")]), &inventory, &NoRefusals, now());
        let text = &verdict.first().expect("a finding").explanation;
        assert!(
            text.contains("; node z holds it but is tainted gpu:NoSchedule; nodes a0, a1, a2 hold it but"),
            "{text}"
        );
        assert!(text.contains("; 3 more nodes that hold it cannot take the pod either"), "{text}");
    }
}
