//! One image on one node: what the runtime half asks, and what a kubelet's own word changes.
//!
//! Enters: a node's name and an image. Leaves: present, absent with the proof, or unknown with the why; never a bool.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Access, Inventory, Node};
use crate::core::eligibility::Obstacle;
use crate::core::image::{ImageName, ImageReference, PatternSet};
use crate::core::node::{Readiness, Runtime};
use crate::core::policy::{ImageLimit, Policy};
use crate::core::selector::Selector;

/// How a policy looks at nodes.
#[derive(Clone, Copy, Debug)]
pub struct Lens<'a> {
    pub limit: ImageLimit,
    pub preloaded: &'a PatternSet,
    /// The nodes for which the operator's word holds.
    pub nodes: &'a Selector,
}

impl<'a> Lens<'a> {
    pub fn of(policy: &'a Policy) -> Self {
        Self { limit: policy.node_image_limit, preloaded: &policy.preloaded_images, nodes: &policy.nodes }
    }
}

/// Whether an image is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Present(Held),
    Absent(Absence),
    Unknown(Doubt),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The node has listed it since then at the latest.
    Listed { since: Timestamp },
    /// The node lists a name that its runtime may mean by a short one.
    ListedAs { name: Arc<str> },
    /// The operator's word.
    Preloaded,
}

/// Why it is sure that an image is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// A complete list does not have it.
    NotListed,
    /// The kubelet said so.
    KubeletSaid { at: Timestamp },
}

/// Why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    NotSynced,
    NoSuchNode,
    Obstacle(Obstacle),
    ListEmpty,
    /// As many entries as the limit, or more.
    ListTruncated,
    /// An entry has as many names as a kubelet tells.
    NamesTruncated,
    ShortName,
    ImageId,
}

/// What became of a kubelet's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It proves the absence, until the node lists the image or the word is old.
    Absent,
    /// The node lists the image, since then at the latest. If that is longer than a list's lag, the kubelet hides the
    /// image from this pod; if not, the image may just have been removed. Nothing is concluded.
    StillListed {
        since: Timestamp,
    },
    UnknownNode,
}

impl Inventory {
    /// A kubelet refused a pod: the image is not on its node (`ErrImageNeverPull`).
    pub fn kubelet_denies(&mut self, node: &str, image: &ImageReference, access: Access, at: Timestamp) -> Heard {
        let Some((slot, record)) = self.node(node) else { return Heard::UnknownNode };
        if let Some(since) = self.listed(slot, record, image.lookup()) {
            return Heard::StillListed { since };
        }
        self.words.say(slot, image, access, at);
        Heard::Absent
    }

    /// A container of the image has started on the node, for a pod with this access: what the kubelet said before is over.
    pub fn container_started(&mut self, node: &str, image: &ImageReference, access: &Access, started: Timestamp) {
        if let Some(slot) = self.slot(node) {
            self.words.started(slot, image.lookup(), access, started);
        }
    }

    /// Whether no kubelet has denied anything of late.
    pub fn nothing_denied(&self) -> bool {
        self.words.is_empty()
    }

    /// When the node's kubelet last denied an image to a pod with this access, if that still holds.
    pub fn heard(&self, node: &str, image: &ImageReference, access: &Access, now: Timestamp) -> Option<Timestamp> {
        self.words.heard(self.slot(node)?, image.lookup(), access, now)
    }

    /// Since when, at the latest, a node lists a name (as `ImageReference::lookup` gives it). `None`: it does not.
    pub fn first_listed(&self, node: &str, lookup: &str) -> Option<Timestamp> {
        let (slot, record) = self.node(node)?;
        self.listed(slot, record, lookup)
    }

    /// When a node was seen to begin to list a name. `None`: it does not, or nobody saw it begin.
    pub(in crate::core) fn began_to_list(&self, slot: u32, lookup: &str) -> Option<Timestamp> {
        self.recent.began(slot, self.names.number(lookup)?)
    }

    /// When a node was first seen, with all that it listed then.
    pub(in crate::core) fn first_seen(&self, slot: u32) -> Option<Timestamp> {
        self.at(slot).map(|node| node.known)
    }

    fn listed(&self, slot: u32, record: &Node, lookup: &str) -> Option<Timestamp> {
        let number = self.names.number(lookup)?;
        record.names.binary_search(&number).ok()?;
        Some(self.recent.since(slot, number, record.known))
    }

    /// One image on one node. A cordon and taints are no obstacle here: the question is not where a pod could go.
    pub fn presence_on(
        &self,
        node: &str,
        image: &ImageName,
        lens: &Lens<'_>,
        access: &Access,
        now: Timestamp,
    ) -> Presence {
        if !self.synced {
            return Presence::Unknown(Doubt::NotSynced);
        }
        let Some((slot, record)) = self.node(node) else { return Presence::Unknown(Doubt::NoSuchNode) };
        let ImageName::Reference(image) = image else { return Presence::Unknown(Doubt::ImageId) };
        if let Some(since) = self.listed(slot, record, image.lookup()) {
            return Presence::Present(Held::Listed { since });
        }
        let resolves_short = match record.shape.runtime {
            Runtime::Containerd => false,
            Runtime::Docker | Runtime::Other => !image.has_explicit_host(),
        };
        if resolves_short
            && let Some((name, _)) = self.names.of_short(image.short_path()).find(|(_, nodes)| nodes.contains(slot))
        {
            return Presence::Present(Held::ListedAs { name: Arc::clone(name) });
        }
        // Above the operator's word, and above any doubt about the list.
        if let Some(at) = self.words.heard(slot, image.lookup(), access, now) {
            return Presence::Absent(Absence::KubeletSaid { at });
        }
        if lens.preloaded.matches(image) && self.selects(lens.nodes, slot) {
            return Presence::Present(Held::Preloaded);
        }
        match self.doubt(record, lens.limit, resolves_short, now) {
            Some(doubt) => Presence::Unknown(doubt),
            None => Presence::Absent(Absence::NotListed),
        }
    }

    /// Why a node's list proves nothing about a name that is not in it.
    fn doubt(&self, record: &Node, limit: ImageLimit, resolves_short: bool, now: Timestamp) -> Option<Doubt> {
        let shape = &record.shape;
        let cut = match limit {
            ImageLimit::AtMost(limit) => shape.entries >= limit,
            ImageLimit::Unlimited => false,
        };
        match shape.readiness {
            Readiness::NotReady => Some(Doubt::Obstacle(Obstacle::NotReady)),
            Readiness::Unknown => Some(Doubt::Obstacle(Obstacle::ReadinessUnknown)),
            Readiness::Ready if shape.created > self.settings.young_after(now) => {
                Some(Doubt::Obstacle(Obstacle::Young))
            }
            Readiness::Ready if shape.entries == 0 => Some(Doubt::ListEmpty),
            Readiness::Ready if cut => Some(Doubt::ListTruncated),
            Readiness::Ready if shape.names_cut => Some(Doubt::NamesTruncated),
            Readiness::Ready if resolves_short => Some(Doubt::ShortName),
            Readiness::Ready => None,
        }
    }

    pub(super) fn selects(&self, nodes: &Selector, slot: u32) -> bool {
        nodes.requirements().iter().all(|requirement| {
            let value = self.at(slot).and_then(|node| super::NodeView::label(node, &requirement.key));
            requirement.accepts(value)
        })
    }
}
