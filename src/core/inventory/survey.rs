//! What a policy's status tells of the nodes.
//!
//! Enters: a policy's `nodes`, limit and preloads. Leaves: counts, and short lists of names. Not for the hot path: it
//! looks at every name once.

use std::sync::Arc;

use jiff::Timestamp;

use super::bits::Bits;
use super::{Inventory, Lens};
use crate::core::image::ImageReference;

/// The nodes of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub matched_nodes: usize,
    /// Different image names that they list.
    pub known_images: usize,
    /// How many have a list as long as the limit, or longer: the absence of an image is not proven there.
    pub truncated_nodes: usize,
    /// The first of those, by name.
    pub truncated: Vec<Arc<str>>,
}

/// A kubelet says that an image of `preloadedImages` is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub node: Arc<str>,
    pub image: ImageReference,
    pub at: Timestamp,
}

impl Inventory {
    /// Counts for a policy's status, with at most `most` names of truncated nodes.
    pub fn survey(&self, lens: &Lens<'_>, most: usize) -> Survey {
        let nodes = self.select(lens.nodes);
        let matched_nodes = nodes.len();
        let known_images = if matched_nodes == self.len() {
            self.names.len()
        } else {
            self.names.iter().filter(|(_, listing)| listing.intersects(&nodes)).count()
        };
        let mut truncated = Bits::default();
        self.facets.list_cut(lens.limit).for_each(|cut| cut.add_to(&mut truncated));
        truncated.and(&nodes);
        Survey {
            matched_nodes,
            known_images,
            truncated_nodes: truncated.len(),
            truncated: self.first_named(&truncated, most).into_iter().map(|(_, name)| Arc::clone(name)).collect(),
        }
    }

    /// The preloads that a kubelet has contradicted, one entry a node and image, by node and image. At most `most`.
    pub fn contradictions(&self, lens: &Lens<'_>, now: Timestamp, most: usize) -> Vec<Contradiction> {
        let contradicted = self
            .words
            .all(now)
            .filter(|(slot, image, _)| lens.preloaded.matches(image) && self.selects(lens.nodes, *slot));
        let mut found: Vec<Contradiction> = contradicted
            .filter_map(|(slot, image, at)| {
                Some(Contradiction { node: Arc::clone(&self.at(slot)?.name), image: image.clone(), at })
            })
            .collect();
        found.sort_unstable_by(|a, b| (&a.node, &a.image, b.at).cmp(&(&b.node, &b.image, a.at)));
        found.dedup_by(|a, b| a.node == b.node && a.image == b.image);
        found.truncate(most);
        found
    }

    /// The nodes that list a name (as `ImageReference::lookup` gives it), by name.
    pub fn nodes_listing(&self, lookup: &str) -> Vec<Arc<str>> {
        let Some(nodes) = self.listing(lookup) else { return Vec::new() };
        let mut names: Vec<_> =
            nodes.slots().into_iter().filter_map(|slot| Some(Arc::clone(&self.at(slot)?.name))).collect();
        names.sort_unstable();
        names
    }

    /// All names that a node lists.
    pub fn names_on(&self, node: &str) -> Vec<Arc<str>> {
        let Some((_, record)) = self.node(node) else { return Vec::new() };
        let mut names: Vec<_> =
            record.names.iter().filter_map(|number| self.names.text(*number).map(Arc::clone)).collect();
        names.sort_unstable();
        names
    }
}
