//! The nodes as one pod sees them, for all policies that judge it.
//!
//! Enters: a pod's images and its way to a node, and the inventory. Leaves: judgements, one for each different thing that
//! policies ask. It must not know policies beyond that.
//!
//! A hundred policies may ask, and five thousand nodes be looked at for each, in some ten microseconds. So what depends on
//! the pod alone is worked out once, and a judgement is one walk over the sets, 64 nodes at a time, without a set of its
//! own; it ends at the first node that holds all images.

use std::cell::OnceCell;
use std::sync::Arc;

use jiff::Timestamp;

use super::eligibility::{Candidates, Obstacle, Route};
use super::image::{ImageName, ImageReference};
use super::inventory::bits::{Bits, NodeSet};
use super::inventory::{Access, Inventory};
use super::nearest;
use super::policy::ImageLimit;
use super::presence::{Judgement, Lack, Tally};
use super::reason::Detail;

/// What a policy asks of the nodes. Equal asks have equal judgements, so they are worked out once for many policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Ask {
    /// Which set of nodes: equal numbers for equal sets.
    pub nodes: usize,
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
    /// A short name: a runtime that is not containerd may know it as something else.
    is_short: bool,
    /// Also by a short name, where the runtime may mean it.
    listed: Bits,
    /// Said to be absent by a kubelet, and not listed.
    denied: Bits,
    near: OnceCell<Vec<(&'a Arc<str>, &'a NodeSet)>>,
}

/// Why lists prove nothing, as sets to walk over. Only needed where an image is not simply present.
#[derive(Clone, Debug)]
struct Ground {
    not_ready: Bits,
    readiness_unknown: Bits,
    cordoned: Bits,
    list_empty: Bits,
    names_cut: Bits,
    not_containerd: Bits,
}

#[derive(Clone, Debug)]
pub(in crate::core) struct Sight<'a> {
    pub inventory: &'a Inventory,
    pub route: Route<'a>,
    pub now: Timestamp,
    candidates: Candidates,
    images: Vec<Seen<'a>>,
    ground: OnceCell<Ground>,
    list_cut: OnceCell<(ImageLimit, Bits)>,
}

/// What a walk learns of one image.
#[derive(Clone, Copy, Debug, Default)]
struct Walked {
    tally: Tally,
    /// Some open candidate (one where nothing is proven absent) has it, without obstacle.
    surely_held: bool,
    /// Some open candidate lacks it.
    lacking: bool,
    /// The word of the walk.
    held: u64,
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
        let candidates = Candidates::of(route, inventory, now);
        Self { inventory, route, now, candidates, images, ground: OnceCell::new(), list_cut: OnceCell::new() }
    }

    /// The names that look like an image's.
    pub fn near(&self, image: usize) -> &[(&'a Arc<str>, &'a NodeSet)] {
        let Some(seen) = self.images.get(image) else { return &[] };
        seen.near.get_or_init(|| match seen.reference() {
            Some(reference) => nearest::alike(self.inventory, reference),
            None => Vec::new(),
        })
    }

    fn ground(&self) -> &Ground {
        self.ground.get_or_init(|| {
            let facets = self.inventory.facets();
            Ground {
                not_ready: facets.not_ready.to_bits(),
                readiness_unknown: facets.readiness_unknown.to_bits(),
                cordoned: facets.cordoned.to_bits(),
                list_empty: facets.list_empty().map(NodeSet::to_bits).unwrap_or_default(),
                names_cut: facets.names_cut.to_bits(),
                not_containerd: facets.not_containerd.to_bits(),
            }
        })
    }

    /// Nearly all policies of a cluster have one and the same limit: that one is kept.
    fn list_cut<T>(&self, limit: ImageLimit, then: impl FnOnce(&Bits) -> T) -> T {
        let cut = |limit| {
            let mut cut = Bits::default();
            self.inventory.facets().list_cut(limit).for_each(|nodes| nodes.add_to(&mut cut));
            cut
        };
        let (kept, bits) = self.list_cut.get_or_init(|| (limit, cut(limit)));
        if *kept == limit { then(bits) } else { then(&cut(limit)) }
    }

    /// 64 of the candidates among a policy's nodes. A pod that already runs has its own node, whatever policy asks.
    fn candidates_word(&self, nodes: &Bits, index: usize) -> u64 {
        let eligible = self.candidates.eligible.word(index);
        match self.route {
            Route::Placed(_) => eligible & nodes.word(index),
            Route::Bound(_) => eligible,
        }
    }

    /// The candidates among a policy's nodes.
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
        self.candidates.eligible.map_words(|index, _| self.holders_word(ask, nodes, index))
    }

    fn holders_word(&self, ask: &Ask, nodes: &Bits, index: usize) -> u64 {
        let sure = self.candidates_word(nodes, index) & !self.candidates.obstructed.word(index);
        ask.images.iter().fold(sure, |holders, (image, preloaded)| {
            let held = |seen: &Seen<'_>| seen.held_word(*preloaded, nodes, index);
            holders & self.images.get(*image).map_or(0, held)
        })
    }

    /// The nodes that hold an image, candidates or not.
    pub fn holders_anywhere(&self, image: usize, preloaded: bool, nodes: &Bits) -> Bits {
        let Some(seen) = self.images.get(image) else { return Bits::default() };
        if preloaded {
            self.inventory.live().map_words(|index, _| seen.held_word(true, nodes, index))
        } else {
            seen.listed.clone()
        }
    }

    pub fn judge(&self, ask: &Ask, nodes: &Bits) -> Judgement {
        let words = self.candidates.eligible.words_len();
        if (0..words).any(|index| self.holders_word(ask, nodes, index) != 0) {
            return Judgement::Present;
        }
        let mut walked = vec![Walked::default(); ask.images.len()];
        let open = self.list_cut(ask.limit, |list_cut| {
            let doubts = Doubts { ground: self.ground(), list_cut };
            (0..words).fold(false, |open, index| self.walk(ask, nodes, &doubts, index, &mut walked) | open)
        });
        let considered = walked.first().map_or(0, |walked| walked.tally.considered);
        if considered == 0 {
            let lack = |(image, _): &(usize, bool)| Lack::uncounted(*image, Detail::NoEligibleNode);
            return Judgement::Unknown(ask.images.iter().map(lack).collect());
        }
        let blamed = if open { blamed_for_doubt(&walked) } else { blamed_for_absence(&walked, ask.elastic) };
        let lack = |(place, detail): (usize, Option<Detail>)| {
            let ((image, preloaded), walked) = (ask.images.get(place)?, walked.get(place)?);
            let tally = walked.tally;
            let obstructed =
                if tally.hold_obstructed > 0 { self.first_obstructed(*image, *preloaded, nodes) } else { Vec::new() };
            Some(Lack { image: *image, detail, tally, obstructed })
        };
        let lacks = blamed.into_iter().filter_map(lack).collect();
        if open || ask.elastic { Judgement::Unknown(lacks) } else { Judgement::Absent(lacks) }
    }

    /// Looks at 64 nodes: what each image's tally gains, and whether any of them is open, with nothing proven absent.
    fn walk(&self, ask: &Ask, nodes: &Bits, doubts: &Doubts<'_>, index: usize, walked: &mut [Walked]) -> bool {
        let candidates = self.candidates_word(nodes, index);
        if candidates == 0 {
            return false;
        }
        let considered = count(candidates);
        let obstructed = candidates & self.candidates.obstructed.word(index);
        let mut absent = 0;
        for ((image, preloaded), walked) in ask.images.iter().zip(&mut *walked) {
            let Some(seen) = self.images.get(*image) else { continue };
            let tally = &mut walked.tally;
            let held = candidates & seen.held_word(*preloaded, nodes, index);
            let rest = candidates & !held;
            walked.held = held;
            tally.considered += considered;
            tally.hold += count(held & !obstructed);
            tally.hold_obstructed += count(held & obstructed);
            if seen.reference().is_none() {
                tally.by_id += count(rest);
                continue;
            }
            let denied = rest & seen.denied.word(index);
            let rest = rest & !denied;
            tally.denied += count(denied);
            tally.hinder(rest & obstructed, doubts.ground, index);
            let rest = tally.doubt_lists(rest & !obstructed, doubts, seen.is_short, index);
            tally.not_listed += count(rest);
            absent |= denied | rest;
        }
        let open = candidates & !absent;
        for walked in walked {
            walked.surely_held |= walked.held & open & !obstructed != 0;
            walked.lacking |= open & !walked.held != 0;
        }
        open != 0
    }

    /// The first candidates, by name, that hold an image and have an obstacle.
    fn first_obstructed(&self, image: usize, preloaded: bool, nodes: &Bits) -> Vec<(Arc<str>, Obstacle)> {
        const SHOWN: usize = 3;
        let Some(seen) = self.images.get(image) else { return Vec::new() };
        let holders = self.candidates.eligible.map_words(|index, _| {
            self.candidates_word(nodes, index)
                & seen.held_word(preloaded, nodes, index)
                & self.candidates.obstructed.word(index)
        });
        let named = self.inventory.first_named(&holders, SHOWN).into_iter();
        named
            .filter_map(|(slot, name)| {
                let node = self.inventory.view(slot)?;
                let obstacle = self.route.to(node, self.inventory.settings(), self.now).ok().flatten()?;
                Some((Arc::clone(name), obstacle))
            })
            .collect()
    }
}

/// Why lists prove nothing under one policy's limit.
struct Doubts<'a> {
    ground: &'a Ground,
    list_cut: &'a Bits,
}

/// Takes a part out of a word, and counts it.
fn take(rest: &mut u64, part: u64) -> usize {
    let taken = *rest & part;
    *rest &= !part;
    count(taken)
}

impl Tally {
    /// Nodes that lack the image and have an obstacle, each by its first one.
    fn hinder(&mut self, mut nodes: u64, ground: &Ground, index: usize) {
        if nodes != 0 {
            self.not_ready += take(&mut nodes, ground.not_ready.word(index));
            self.readiness_unknown += take(&mut nodes, ground.readiness_unknown.word(index));
            self.cordoned += take(&mut nodes, ground.cordoned.word(index));
            self.in_transition += count(nodes);
        }
    }

    /// Nodes that lack the image and whose list proves nothing, each by the first why. The others are left.
    fn doubt_lists(&mut self, mut nodes: u64, doubts: &Doubts<'_>, is_short: bool, index: usize) -> u64 {
        let Doubts { ground, list_cut } = doubts;
        if nodes != 0 {
            self.list_cut += take(&mut nodes, list_cut.word(index));
        }
        if nodes != 0 {
            self.list_empty += take(&mut nodes, ground.list_empty.word(index));
            self.names_cut += take(&mut nodes, ground.names_cut.word(index));
            if is_short {
                self.short_name += take(&mut nodes, ground.not_containerd.word(index));
            }
        }
        nodes
    }
}

/// Most words of most sets are empty, and this machine may have no instruction for it.
fn count(word: u64) -> usize {
    if word == 0 { 0 } else { word.count_ones() as usize }
}

/// To blame are the images that are absent everywhere; where there is none, all that are absent somewhere: each is on
/// some node, but no node can have all.
fn blamed_for_absence(walked: &[Walked], elastic: bool) -> Vec<(usize, Option<Detail>)> {
    let is_everywhere = |walked: &Walked| walked.tally.absent() == walked.tally.considered;
    let everywhere = walked.iter().any(is_everywhere);
    let detail = match (elastic, everywhere) {
        (true, _) => Some(Detail::MayScaleUp),
        (false, true) => None,
        (false, false) => Some(Detail::NoNodeHoldsAll),
    };
    let blamed = (0..).zip(walked).filter(
        |(_, walked)| {
            if everywhere { is_everywhere(walked) } else { walked.tally.absent() > 0 }
        },
    );
    blamed.map(|(place, _)| (place, detail)).collect()
}

/// To blame are the images that no open candidate surely holds; where there is none, those that some open one lacks.
fn blamed_for_doubt(walked: &[Walked]) -> Vec<(usize, Option<Detail>)> {
    let some_held_by_none = walked.iter().any(|walked| !walked.surely_held);
    let blamed =
        (0..).zip(walked).filter(|(_, walked)| if some_held_by_none { !walked.surely_held } else { walked.lacking });
    blamed.map(|(place, walked)| (place, Some(walked.tally.doubt()))).collect()
}

impl<'a> Seen<'a> {
    fn new(name: Option<&'a ImageName>, inventory: &'a Inventory, access: &Access, now: Timestamp) -> Self {
        let (mut listed, mut denied) = (Bits::default(), Bits::default());
        let mut is_short = false;
        if let Some(ImageName::Reference(reference)) = name {
            is_short = !reference.has_explicit_host();
            let not_containerd = &inventory.facets().not_containerd;
            if is_short && !not_containerd.is_empty() {
                for (_, nodes) in inventory.listing_short(reference.short_path()) {
                    nodes.add_to(&mut listed);
                }
                not_containerd.keep_in(&mut listed);
            }
            match inventory.listing(reference.lookup()) {
                Some(nodes) if listed.words_len() == 0 => listed = nodes.to_bits(),
                Some(nodes) => nodes.add_to(&mut listed),
                None => {}
            }
            inventory.denying(reference.lookup(), access, now).for_each(|slot| denied.insert(slot));
            denied.and_not(&listed);
        }
        Self { name, is_short, listed, denied, near: OnceCell::new() }
    }

    fn reference(&self) -> Option<&'a ImageReference> {
        self.name.and_then(ImageName::reference)
    }

    /// 64 nodes that hold the image. The operator's word is for the policy's nodes; a kubelet's word is above it.
    fn held_word(&self, preloaded: bool, nodes: &Bits, index: usize) -> u64 {
        let by_word = if preloaded { nodes.word(index) & !self.denied.word(index) } else { 0 };
        self.listed.word(index) | by_word
    }
}
