//! Whether some node that a pod could run on holds all its images.
//!
//! Enters: the images that are wanted together, the candidates, and a policy's view of nodes. Leaves: present, absent or
//! unknown, and for each image that is to blame what the candidates say of it, in counts. It must not know actions or
//! sentences.

use std::sync::Arc;

use jiff::Timestamp;

use super::eligibility::{Candidates, Obstacle, Route};
use super::image::ImageName;
use super::inventory::bits::Bits;
use super::inventory::{Access, Inventory};
use super::policy::{ImageLimit, Policy};
use super::reason::Detail;

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
    pub obstructed: Vec<(Arc<str>, Obstacle)>,
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

/// What a policy asks of the nodes. Equal asks have equal judgements, so they are worked out once for many policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::core) struct Ask {
    /// The class of the policy's `nodes`.
    pub nodes_class: usize,
    pub limit: ImageLimit,
    pub elastic: bool,
    /// The images asked for, and whether they are preloaded.
    pub images: Vec<(usize, bool)>,
}

/// One image, as the inventory has it.
#[derive(Clone, Debug)]
struct Seen<'a> {
    /// `None`: what was written names no image; nobody asks for it.
    name: Option<&'a ImageName>,
    /// Also by a short name, where the runtime may mean it.
    listed: Bits,
    /// Said to be absent by a kubelet, and not listed.
    denied: Bits,
}

/// The nodes as one pod sees them: worked out once, asked by every policy.
#[derive(Clone, Debug)]
pub(in crate::core) struct Sight<'a> {
    pub inventory: &'a Inventory,
    pub route: Route<'a>,
    pub now: Timestamp,
    candidates: Candidates,
    images: Vec<Seen<'a>>,
}

impl<'a> Sight<'a> {
    pub fn new(
        inventory: &'a Inventory,
        route: Route<'a>,
        images: impl IntoIterator<Item = Option<&'a ImageName>>,
        access: &Access,
        now: Timestamp,
    ) -> Self {
        let images = images.into_iter().map(|name| Seen::new(name, inventory, access, now)).collect();
        Self { inventory, route, now, candidates: Candidates::of(route, inventory, now), images }
    }

    pub fn name(&self, image: usize) -> Option<&'a ImageName> {
        self.images.get(image)?.name
    }

    /// The candidates among a policy's nodes. A pod that already runs has its own node, whatever policy asks.
    pub fn candidates(&self, nodes: &Bits) -> Bits {
        let mut candidates = self.candidates.eligible.clone();
        match self.route {
            Route::Placed(_) => candidates.and(nodes),
            Route::Bound(_) => {}
        }
        candidates
    }

    /// The candidates that hold all images, and have no obstacle.
    pub fn holders(&self, ask: &Ask, nodes: &Bits) -> Bits {
        let mut holders = self.candidates(nodes);
        for (image, preloaded) in &ask.images {
            self.keep_holders(*image, *preloaded, nodes, &mut holders);
        }
        holders.and_not(&self.candidates.obstructed);
        holders
    }

    /// The nodes that hold an image, candidates or not.
    pub fn holders_anywhere(&self, image: usize, preloaded: bool, nodes: &Bits) -> Bits {
        let Some(seen) = self.images.get(image) else { return Bits::default() };
        let mut holders = seen.listed.clone();
        if preloaded {
            let mut by_word = nodes.clone();
            by_word.and_not(&seen.denied);
            holders.or(&by_word);
        }
        holders
    }

    /// Keeps of some candidates those that hold an image.
    fn keep_holders(&self, image: usize, preloaded: bool, nodes: &Bits, candidates: &mut Bits) {
        let Some(seen) = self.images.get(image) else { return candidates.clear() };
        if !preloaded {
            return candidates.and(&seen.listed);
        }
        match self.route {
            // All candidates are the policy's nodes, for which the operator's word holds; a kubelet's is above it.
            Route::Placed(_) => candidates.and_not(&seen.denied),
            Route::Bound(_) => candidates.and(&self.holders_anywhere(image, true, nodes)),
        }
    }

    pub fn judge(&self, ask: &Ask, nodes: &Bits) -> Judgement {
        if !self.holders(ask, nodes).is_empty() {
            return Judgement::Present;
        }
        let candidates = self.candidates(nodes);
        if candidates.is_empty() {
            let lack = |(image, _): &(usize, bool)| Lack {
                image: *image,
                detail: Some(Detail::NoEligibleNode),
                tally: Tally::default(),
                obstructed: Vec::new(),
            };
            return Judgement::Unknown(ask.images.iter().map(lack).collect());
        }
        let absent = self.proven_absent(ask, nodes, &candidates);
        let mut somewhere_absent = Bits::default();
        absent.iter().for_each(|absent| somewhere_absent.or(absent));
        if candidates.is_subset(&somewhere_absent) {
            let lacks = self.lacks_of_absence(ask, nodes, &candidates, &absent);
            return if ask.elastic { Judgement::Unknown(lacks) } else { Judgement::Absent(lacks) };
        }
        let mut open = candidates.clone();
        open.and_not(&somewhere_absent);
        Judgement::Unknown(self.lacks_of_doubt(ask, nodes, &candidates, &open))
    }

    /// For each image asked for, the candidates where its absence is proven.
    fn proven_absent(&self, ask: &Ask, nodes: &Bits, candidates: &Bits) -> Vec<Bits> {
        let facets = self.inventory.facets();
        let mut conclusive = candidates.clone();
        conclusive.and_not(&self.candidates.obstructed);
        conclusive.and_not(&self.inconclusive(ask.limit));
        let absent = |(image, preloaded): &(usize, bool)| {
            let Some(seen) = self.images.get(*image) else { return Bits::default() };
            let mut absent = match seen.name {
                None | Some(ImageName::Id(_)) => return Bits::default(),
                Some(ImageName::Reference(_)) if *preloaded && matches!(self.route, Route::Placed(_)) => Bits::default(),
                Some(ImageName::Reference(reference)) => {
                    let mut absent = conclusive.clone();
                    absent.and_not(&self.holders_anywhere(*image, *preloaded, nodes));
                    if !reference.has_explicit_host() {
                        facets.not_containerd.take_from(&mut absent);
                    }
                    absent
                }
            };
            if !seen.denied.is_empty() {
                let mut denied = seen.denied.clone();
                denied.and(candidates);
                absent.or(&denied);
            }
            absent
        };
        ask.images.iter().map(absent).collect()
    }

    /// The nodes whose lists may lack what is there.
    fn inconclusive(&self, limit: ImageLimit) -> Bits {
        let facets = self.inventory.facets();
        let mut nodes = facets.names_cut.to_bits();
        facets.list_empty().into_iter().for_each(|empty| empty.add_to(&mut nodes));
        facets.list_cut(limit).for_each(|cut| cut.add_to(&mut nodes));
        nodes
    }

    /// To blame are the images that are absent everywhere; where there is none, all that are absent somewhere: each is
    /// on some node, but no node can have all.
    fn lacks_of_absence(&self, ask: &Ask, nodes: &Bits, candidates: &Bits, absent: &[Bits]) -> Vec<Lack> {
        let asked = || ask.images.iter().zip(absent);
        let everywhere = asked().any(|(_, absent)| candidates.is_subset(absent));
        let blamed = asked().filter(|(_, absent)| {
            if everywhere { candidates.is_subset(absent) } else { !absent.is_empty() }
        });
        let detail = match (ask.elastic, everywhere) {
            (true, _) => Some(Detail::MayScaleUp),
            (false, true) => None,
            (false, false) => Some(Detail::NoNodeHoldsAll),
        };
        blamed.map(|((image, preloaded), _)| self.lack(*image, *preloaded, ask.limit, nodes, candidates, detail)).collect()
    }

    /// To blame are the images that no open candidate (one where nothing is proven absent) surely holds; where there is
    /// none, those that some open candidate lacks.
    fn lacks_of_doubt(&self, ask: &Ask, nodes: &Bits, candidates: &Bits, open: &Bits) -> Vec<Lack> {
        let mut sure = open.clone();
        sure.and_not(&self.candidates.obstructed);
        let mut held_by_none = Vec::new();
        let mut lacked_by_some = Vec::new();
        for (image, preloaded) in &ask.images {
            let (mut holders, mut all) = (sure.clone(), open.clone());
            self.keep_holders(*image, *preloaded, nodes, &mut holders);
            self.keep_holders(*image, *preloaded, nodes, &mut all);
            if holders.is_empty() {
                held_by_none.push((*image, *preloaded));
            } else if !open.is_subset(&all) {
                lacked_by_some.push((*image, *preloaded));
            }
        }
        let blamed = if held_by_none.is_empty() { lacked_by_some } else { held_by_none };
        let lack = |(image, preloaded)| {
            let lack = self.lack(image, preloaded, ask.limit, nodes, candidates, None);
            Lack { detail: Some(lack.tally.doubt()), ..lack }
        };
        blamed.into_iter().map(lack).collect()
    }

    fn lack(
        &self,
        image: usize,
        preloaded: bool,
        limit: ImageLimit,
        nodes: &Bits,
        candidates: &Bits,
        detail: Option<Detail>,
    ) -> Lack {
        let facets = self.inventory.facets();
        let mut rest = candidates.clone();
        let mut tally = Tally { considered: rest.len(), ..Tally::default() };
        let Some(seen) = self.images.get(image) else { return Lack { image, detail, tally, obstructed: Vec::new() } };
        let Some(ImageName::Reference(reference)) = seen.name else {
            tally.by_id = tally.considered;
            return Lack { image, detail, tally, obstructed: Vec::new() };
        };
        let mut holders = rest.clone();
        self.keep_holders(image, preloaded, nodes, &mut holders);
        rest.and_not(&holders);
        let mut obstructed = holders.clone();
        obstructed.and(&self.candidates.obstructed);
        tally.hold_obstructed = obstructed.len();
        tally.hold = holders.len() - tally.hold_obstructed;
        tally.denied = take(&mut rest, |set| set.and(&seen.denied));
        let mut hindered = rest.clone();
        hindered.and(&self.candidates.obstructed);
        rest.and_not(&hindered);
        tally.not_ready = take(&mut hindered, |set| facets.not_ready.keep_in(set));
        tally.readiness_unknown = take(&mut hindered, |set| facets.readiness_unknown.keep_in(set));
        tally.cordoned = take(&mut hindered, |set| facets.cordoned.keep_in(set));
        tally.in_transition = hindered.len();
        if let Some(empty) = facets.list_empty() {
            tally.list_empty = take(&mut rest, |set| empty.keep_in(set));
        }
        for cut in facets.list_cut(limit) {
            tally.list_cut += take(&mut rest, |set| cut.keep_in(set));
        }
        tally.names_cut = take(&mut rest, |set| facets.names_cut.keep_in(set));
        if !reference.has_explicit_host() {
            tally.short_name = take(&mut rest, |set| facets.not_containerd.keep_in(set));
        }
        tally.not_listed = rest.len();
        Lack { image, detail, tally, obstructed: self.first_obstructed(&obstructed) }
    }

    fn first_obstructed(&self, holders: &Bits) -> Vec<(Arc<str>, Obstacle)> {
        const SHOWN: usize = 3;
        let named = self.inventory.first_named(holders, SHOWN).into_iter();
        named
            .filter_map(|(slot, name)| {
                let node = self.inventory.view(slot)?;
                let obstacle = self.route.to(node, self.inventory.settings(), self.now).ok().flatten()?;
                Some((Arc::clone(name), obstacle))
            })
            .collect()
    }
}

/// Moves a part of a set out of it, and counts it.
fn take(rest: &mut Bits, keep: impl FnOnce(&mut Bits)) -> usize {
    let mut part = rest.clone();
    keep(&mut part);
    rest.and_not(&part);
    part.len()
}

impl<'a> Seen<'a> {
    fn new(name: Option<&'a ImageName>, inventory: &Inventory, access: &Access, now: Timestamp) -> Self {
        let (mut listed, mut denied) = (Bits::default(), Bits::default());
        let Some(ImageName::Reference(reference)) = name else { return Self { name, listed, denied } };
        let facets = inventory.facets();
        if !reference.has_explicit_host() && !facets.not_containerd.is_empty() {
            for (_, nodes) in inventory.listing_short(reference.short_path()) {
                nodes.add_to(&mut listed);
            }
            facets.not_containerd.keep_in(&mut listed);
        }
        if let Some(nodes) = inventory.listing(reference.lookup()) {
            nodes.add_to(&mut listed);
        }
        inventory.denying(reference.lookup(), access, now).for_each(|slot| denied.insert(slot));
        denied.and_not(&listed);
        Self { name, listed, denied }
    }
}

impl Tally {
    /// The one detail that tells best why an image is neither present nor absent: a holder that is only hindered, then
    /// what most nodes suffer from.
    fn doubt(&self) -> Detail {
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
    let ask = Ask {
        nodes_class: 0,
        limit: policy.node_image_limit,
        elastic: policy.presence.elastic,
        images: asked,
    };
    if !inventory.is_synced() {
        let lack = |(image, _): &(usize, bool)| Lack {
            image: *image,
            detail: Some(Detail::InventoryNotSynced),
            tally: Tally::default(),
            obstructed: Vec::new(),
        };
        return Judgement::Unknown(ask.images.iter().map(lack).collect());
    }
    sight.judge(&ask, &inventory.select(&policy.nodes))
}

/// An image id names no repository that a pattern could match, so it is never preloaded.
pub(in crate::core) fn is_preloaded(policy: &Policy, name: &ImageName) -> bool {
    !policy.preloaded_images.is_empty()
        && name.reference().is_some_and(|reference| policy.preloaded_images.matches(reference))
}
