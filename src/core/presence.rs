//! Whether some node that a pod could run on holds all its images.
//!
//! Enters: the images that are wanted together, the candidates, and a policy's view of nodes. Leaves: present, absent or
//! unknown, and for each image that is to blame what the candidates say of it, in counts. It must not know actions or
//! sentences. How the nodes are looked through is in `sight`.

use std::sync::Arc;

use jiff::Timestamp;

use super::eligibility::{Obstacle, Route};
use super::image::ImageName;
use super::inventory::{Access, Inventory};
use super::policy::Policy;
use super::reason::Detail;
use super::sight::{Ask, Sight};

/// The joint answer for all images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Some candidate without obstacle holds all.
    Present,
    /// On every candidate at least one is proven absent. The images to blame, never none.
    Absent(Vec<Lack>),
    Unknown(Vec<Lack>),
}

/// An image that kept the answer from being `Present`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its place among the images that were asked for.
    pub image: usize,
    pub detail: Option<Detail>,
    pub tally: Tally,
    /// The first candidates, by name, that hold it and have an obstacle.
    pub obstructed: Vec<(Arc<str>, Arc<Obstacle>)>,
}

/// What the candidates say of one image. Each is counted once, so that the numbers add up to `considered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub considered: usize,
    /// Hold it, without obstacle.
    pub hold: usize,
    /// Hold it, with a temporary obstacle.
    pub hold_obstructed: usize,
    /// Their kubelets said that it is not there.
    pub denied: usize,
    /// A complete list does not have it.
    pub not_listed: usize,
    /// Do not list it, and have a temporary obstacle.
    pub not_ready: usize,
    pub readiness_unknown: usize,
    pub cordoned: usize,
    /// Young, or starting up or going away by a taint.
    pub in_transition: usize,
    pub list_empty: usize,
    pub list_cut: usize,
    pub names_cut: usize,
    pub short_name: usize,
    /// Given by id, which no list has.
    pub by_id: usize,
}

impl Lack {
    /// Where there is nothing to count.
    pub(in crate::core) fn uncounted(image: usize, detail: Detail) -> Self {
        Self { image, detail: Some(detail), tally: Tally::default(), obstructed: Vec::new() }
    }
}

impl Tally {
    /// On how many candidates its absence is proven.
    pub fn absent(&self) -> usize {
        self.denied + self.not_listed
    }

    /// The one detail that tells best why an image is neither present nor absent: a holder that is only hindered, then
    /// what most nodes suffer from.
    pub(in crate::core) fn doubt(&self) -> Detail {
        let hindered = self.not_ready + self.readiness_unknown + self.cordoned + self.in_transition;
        if self.hold_obstructed > 0 {
            return Detail::TemporaryObstacle;
        }
        let causes = [
            (self.by_id, Detail::ImageId),
            (self.list_cut, Detail::ListTruncated),
            (self.names_cut, Detail::NamesTruncated),
            (self.list_empty, Detail::ListEmpty),
            (hindered, Detail::TemporaryObstacle),
            (self.short_name, Detail::ShortName),
        ];
        // The first of the largest: `max_by_key` would give the last.
        let largest = causes.into_iter().rev().max_by_key(|(count, _)| *count);
        largest.filter(|(count, _)| *count > 0).map_or(Detail::NoNodeHoldsAll, |(_, detail)| detail)
    }
}

/// The joint judgement on some images under one policy, for whoever has no verdict to give: the runtime half asks it
/// whether a failure that holds for one node holds for the task. The policy's `elastic` counts.
pub fn judge(
    inventory: &Inventory,
    route: Route<'_>,
    images: &[&ImageName],
    policy: &Policy,
    access: &Access,
    now: Timestamp,
) -> Judgement {
    let sight = Sight::new(inventory, route, images.iter().copied().map(Some), access, now);
    let asked = (0..).zip(images).map(|(index, name)| (index, is_preloaded(policy, name))).collect();
    let ask = Ask { nodes: 0, limit: policy.node_image_limit, elastic: policy.presence.elastic, images: asked };
    if !inventory.is_synced() {
        let lack = |(image, _): &(usize, bool)| Lack::uncounted(*image, Detail::InventoryNotSynced);
        return Judgement::Unknown(ask.images.iter().map(lack).collect());
    }
    sight.judge(&ask, &inventory.select(&policy.nodes))
}

/// An image id names no repository that a pattern could match, so it is never preloaded.
pub(in crate::core) fn is_preloaded(policy: &Policy, name: &ImageName) -> bool {
    !policy.preloaded_images.is_empty()
        && name.reference().is_some_and(|reference| policy.preloaded_images.matches(reference))
}
