//! The nodes as one pod sees them, for all policies that judge it.
//!
//! Enters: a pod's images and its way to a node, and the inventory. Leaves: judgements, one for each different thing that
//! policies ask. It must not know policies beyond that.
//!
//! A hundred policies may ask, and five thousand nodes be looked at for each, in some ten microseconds. So what depends on
//! the pod alone is worked out once, a judgement is a few operations on whole sets of nodes, and nodes are counted only
//! for the images that are to blame.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use super::eligibility::{Candidates, Exclusion, Obstacle, Route};
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

/// What stands in a pod's way to a node for the time being, or why it cannot go there.
pub(in crate::core) type Fitness = Result<Option<Arc<Obstacle>>, Arc<Exclusion>>;

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

/// What lists prove where they are at most so long.
#[derive(Clone, Debug)]
struct Proofs {
    limit: ImageLimit,
    parts: Parts,
    /// Of each image, the nodes on which it is proven absent, unless the operator says that it is preloaded there.
    absent: Vec<Bits>,
}

#[derive(Clone, Debug)]
pub(in crate::core) struct Sight<'a> {
    pub inventory: &'a Inventory,
    pub route: Route<'a>,
    pub now: Timestamp,
    candidates: Candidates,
    images: Vec<Seen<'a>>,
    ground: OnceCell<Ground>,
    /// Nearly all policies of a cluster have one and the same limit.
    proofs: RefCell<Vec<Rc<Proofs>>>,
    /// Single nodes: the same few are looked at for each image and each policy.
    looked_at: RefCell<BTreeMap<u32, Fitness>>,
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
        Self {
            inventory,
            route,
            now,
            candidates: Candidates::of(route, inventory, now),
            images,
            ground: OnceCell::new(),
            proofs: RefCell::default(),
            looked_at: RefCell::default(),
        }
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

    fn proofs(&self, limit: ImageLimit) -> Rc<Proofs> {
        if let Some(known) = self.proofs.borrow().iter().find(|proofs| proofs.limit == limit) {
            return Rc::clone(known);
        }
        let ground = self.ground();
        let mut list_cut = Bits::default();
        self.inventory.facets().list_cut(limit).for_each(|nodes| nodes.add_to(&mut list_cut));
        let mut sound = self.candidates.eligible.clone();
        for doubtful in [&self.candidates.obstructed, &list_cut, &ground.list_empty, &ground.names_cut] {
            sound.and_not(doubtful);
        }
        let absent = self.images.iter().map(|seen| seen.proven_absent(&sound, ground)).collect();
        let proofs = Rc::new(Proofs { limit, parts: self.sort(&list_cut), absent });
        self.proofs.borrow_mut().push(Rc::clone(&proofs));
        proofs
    }

    /// The nodes by how far the pod is from running there, the nearest first: a toleration is soon added, then the policy
    /// may not count the node; where the pod asks for other nodes (`None`: all), it is meant so.
    pub fn by_distance(&self) -> [Option<&Bits>; 3] {
        [Some(&self.candidates.repelling), Some(&self.candidates.eligible), None]
    }

    /// Whether a single node could take the pod.
    pub fn fitness(&self, slot: u32) -> Fitness {
        let mut looked_at = self.looked_at.borrow_mut();
        let fitness = looked_at.entry(slot).or_insert_with(|| {
            let Some(node) = self.inventory.view(slot) else { return Ok(None) };
            let fitness = self.route.to(node, self.inventory.settings(), self.now);
            fitness.map(|obstacle| obstacle.map(Arc::new)).map_err(Arc::new)
        });
        fitness.clone()
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

    /// The nodes that could take the pod, hold all images, and have no obstacle. Preloads are on a policy's nodes; whether
    /// it counts the others does not matter here.
    pub fn holders(&self, ask: &Ask, nodes: &Bits) -> Bits {
        self.holding_all(&self.held(ask, nodes), &self.candidates.eligible)
    }

    /// Of each image asked for, the nodes that hold it.
    fn held(&self, ask: &Ask, nodes: &Bits) -> Vec<Cow<'_, Bits>> {
        let of = |(image, preloaded): &(usize, bool)| {
            self.images.get(*image).map_or_else(Cow::default, |seen| seen.held(*preloaded, nodes))
        };
        ask.images.iter().map(of).collect()
    }

    fn holding_all(&self, held: &[Cow<'_, Bits>], candidates: &Bits) -> Bits {
        let mut holders = candidates.clone();
        holders.and_not(&self.candidates.obstructed);
        for held in held {
            holders.and(held);
            if holders.is_empty() {
                break;
            }
        }
        holders
    }

    /// The nodes that hold an image, candidates or not.
    pub fn holders_anywhere(&self, image: usize, preloaded: bool, nodes: &Bits) -> Bits {
        let Some(seen) = self.images.get(image) else { return Bits::default() };
        let mut holders = seen.held(preloaded, nodes).into_owned();
        holders.and(self.inventory.live());
        holders
    }

    pub fn judge(&self, ask: &Ask, nodes: &Bits) -> Judgement {
        let held = self.held(ask, nodes);
        let candidates = self.candidates(nodes);
        if !self.holding_all(&held, &candidates).is_empty() {
            return Judgement::Present;
        }
        if candidates.is_empty() {
            let lack = |(image, _): &(usize, bool)| Lack::uncounted(*image, Detail::NoEligibleNode);
            return Judgement::Unknown(ask.images.iter().map(lack).collect());
        }
        let proofs = self.proofs(ask.limit);
        let absent: Vec<Cow<'_, Bits>> = ask.images.iter().map(|wanted| self.absent(*wanted, &proofs, nodes)).collect();
        let mut open = candidates.clone();
        absent.iter().for_each(|absent| open.and_not(absent));
        let is_open = !open.is_empty();
        let blamed =
            if is_open { self.blamed_for_doubt(&held, &open) } else { blamed_for_absence(&absent, &candidates) };
        let (considered, of_parts) = candidates.counts_in(&candidates, &proofs.parts.nodes);
        let mut hindered = candidates.clone();
        hindered.and(&self.candidates.obstructed);
        let lacks = blamed.places.into_iter().filter_map(|place| {
            let (image, _) = *ask.images.get(place)?;
            let (seen, held) = (self.images.get(image)?, held.get(place)?);
            let mut tally = Tally { considered, ..Tally::default() };
            tally.count(seen, held, &candidates, &proofs.parts, &of_parts);
            let detail = match blamed.why {
                Blame::Doubt => Some(tally.doubt()),
                Blame::Everywhere | Blame::Somewhere if ask.elastic => Some(Detail::MayScaleUp),
                Blame::Everywhere => None,
                Blame::Somewhere => Some(Detail::NoNodeHoldsAll),
            };
            let is_hindered = tally.hold_obstructed > 0;
            let obstructed = if is_hindered { self.first_obstructed(held, &hindered) } else { Vec::new() };
            Some(Lack { image, detail, tally, obstructed })
        });
        let lacks = lacks.collect();
        if is_open || ask.elastic { Judgement::Unknown(lacks) } else { Judgement::Absent(lacks) }
    }

    /// The nodes on which an image is proven absent.
    fn absent<'p>(&self, (image, preloaded): (usize, bool), proofs: &'p Proofs, nodes: &Bits) -> Cow<'p, Bits> {
        let (Some(seen), Some(unless_preloaded)) = (self.images.get(image), proofs.absent.get(image)) else {
            return Cow::default();
        };
        if !preloaded {
            return Cow::Borrowed(unless_preloaded);
        }
        let mut absent = unless_preloaded.clone();
        absent.and_not(&seen.promised(nodes));
        Cow::Owned(absent)
    }

    /// To blame are the images that no open candidate surely holds; where there is none, those that some open one lacks.
    fn blamed_for_doubt(&self, held: &[Cow<'_, Bits>], open: &Bits) -> Blamed {
        let mut unhindered = open.clone();
        unhindered.and_not(&self.candidates.obstructed);
        let places = |is_blamed: &dyn Fn(&Bits) -> bool| -> Vec<usize> {
            (0..).zip(held).filter(|(_, held)| is_blamed(held)).map(|(place, _)| place).collect()
        };
        let held_by_none = places(&|held| !held.intersects(&unhindered));
        let lacked = || places(&|held| !open.is_subset(held));
        Blamed { why: Blame::Doubt, places: if held_by_none.is_empty() { lacked() } else { held_by_none } }
    }

    /// The nodes by what they say of an image that they do not have: obstacles first, then what keeps a list from being
    /// proof, each by the first that is true of it.
    fn sort(&self, list_cut: &Bits) -> Parts {
        let ground = self.ground();
        let (mut well, mut hindered) = (self.candidates.eligible.clone(), self.candidates.eligible.clone());
        well.and_not(&self.candidates.obstructed);
        hindered.and(&self.candidates.obstructed);
        let mut parts = Parts::default();
        parts.add(Part::NotReady, hindered.take(&ground.not_ready));
        parts.add(Part::ReadinessUnknown, hindered.take(&ground.readiness_unknown));
        parts.add(Part::Cordoned, hindered.take(&ground.cordoned));
        parts.add(Part::InTransition, hindered);
        parts.add(Part::ListCut, well.take(list_cut));
        parts.add(Part::ListEmpty, well.take(&ground.list_empty));
        parts.add(Part::NamesCut, well.take(&ground.names_cut));
        parts.add(Part::NotContainerd, well.take(&ground.not_containerd));
        parts.add(Part::Proving, well);
        parts
    }

    /// The first candidates, by name, that hold an image and have an obstacle.
    fn first_obstructed(&self, held: &Bits, hindered: &Bits) -> Vec<(Arc<str>, Arc<Obstacle>)> {
        const SHOWN: usize = 3;
        let mut holders = hindered.clone();
        holders.and(held);
        let named = self.inventory.first_named(&holders, SHOWN).into_iter();
        named
            .filter_map(|(slot, name)| {
                let obstacle = self.fitness(slot).ok().flatten()?;
                Some((Arc::clone(name), obstacle))
            })
            .collect()
    }
}

/// Why images are to blame.
#[derive(Clone, Copy, Debug)]
enum Blame {
    /// On each candidate at least one is proven absent: these are so on all of them.
    Everywhere,
    /// None is absent on all of them: these are on some.
    Somewhere,
    Doubt,
}

/// The images to blame, by their places among those asked for.
#[derive(Clone, Debug)]
struct Blamed {
    why: Blame,
    places: Vec<usize>,
}

/// What a node says of an image that it does not have.
#[derive(Clone, Copy, Debug)]
enum Part {
    NotReady,
    ReadinessUnknown,
    Cordoned,
    InTransition,
    ListCut,
    ListEmpty,
    NamesCut,
    /// Its list proves nothing of short names.
    NotContainerd,
    /// Its list is proof.
    Proving,
}

impl Part {
    const fn has_obstacle(self) -> bool {
        match self {
            Self::NotReady | Self::ReadinessUnknown | Self::Cordoned | Self::InTransition => true,
            Self::ListCut | Self::ListEmpty | Self::NamesCut | Self::NotContainerd | Self::Proving => false,
        }
    }
}

/// All nodes that a pod could run on, each in one part. No part is empty.
#[derive(Clone, Debug, Default)]
struct Parts {
    which: Vec<Part>,
    nodes: Vec<Bits>,
}

impl Parts {
    fn add(&mut self, part: Part, nodes: Bits) {
        if !nodes.is_empty() {
            self.which.push(part);
            self.nodes.push(nodes);
        }
    }
}

impl Tally {
    /// What the candidates say of an image, each counted once. `all`: how many candidates there are in each part.
    fn count(&mut self, seen: &Seen<'_>, held: &Bits, candidates: &Bits, parts: &Parts, all: &[usize]) {
        let (holding, mut speaking) = candidates.counts_in(held, &parts.nodes);
        let of_parts = parts.which.iter().zip(&speaking);
        self.hold_obstructed = of_parts.filter(|(part, _)| part.has_obstacle()).map(|(_, count)| count).sum();
        self.hold = holding - self.hold_obstructed;
        if seen.reference().is_none() {
            self.by_id = self.considered - holding;
            return;
        }
        if !seen.denied.is_empty() {
            let mut spoken = held.clone();
            spoken.or(&seen.denied);
            let (all_speaking, of_parts) = candidates.counts_in(&spoken, &parts.nodes);
            self.denied = all_speaking - holding;
            speaking = of_parts;
        }
        for ((part, all), speaking) in parts.which.iter().zip(all).zip(speaking) {
            let silent = match part {
                Part::NotReady => &mut self.not_ready,
                Part::ReadinessUnknown => &mut self.readiness_unknown,
                Part::Cordoned => &mut self.cordoned,
                Part::InTransition => &mut self.in_transition,
                Part::ListCut => &mut self.list_cut,
                Part::ListEmpty => &mut self.list_empty,
                Part::NamesCut => &mut self.names_cut,
                Part::NotContainerd if seen.is_short => &mut self.short_name,
                Part::NotContainerd | Part::Proving => &mut self.not_listed,
            };
            *silent += all - speaking;
        }
    }
}

/// To blame are the images that are absent everywhere; where there is none, all that are absent somewhere: each is on
/// some node, but no node can have all.
fn blamed_for_absence(absent: &[Cow<'_, Bits>], candidates: &Bits) -> Blamed {
    let places = |is_blamed: &dyn Fn(&Bits) -> bool| -> Vec<usize> {
        (0..).zip(absent).filter(|(_, absent)| is_blamed(absent)).map(|(place, _)| place).collect()
    };
    let everywhere = places(&|absent| candidates.is_subset(absent));
    if everywhere.is_empty() {
        Blamed { why: Blame::Somewhere, places: places(&|absent| absent.intersects(candidates)) }
    } else {
        Blamed { why: Blame::Everywhere, places: everywhere }
    }
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

    /// Of the nodes whose lists are sound, and those whose kubelets have spoken, the ones that do not have the image. An id
    /// is in no list, so none proves anything.
    fn proven_absent(&self, sound: &Bits, ground: &Ground) -> Bits {
        if self.reference().is_none() {
            return Bits::default();
        }
        let mut absent = sound.clone();
        if self.is_short {
            absent.and_not(&ground.not_containerd);
        }
        absent.or(&self.denied);
        absent.and_not(&self.listed);
        absent
    }

    /// The nodes that have a preloaded image by the operator's word, which is for the policy's nodes. A kubelet's word is
    /// above it.
    fn promised(&self, nodes: &Bits) -> Bits {
        let mut promised = nodes.clone();
        promised.and_not(&self.denied);
        promised
    }

    /// The nodes that hold the image.
    fn held(&self, preloaded: bool, nodes: &Bits) -> Cow<'_, Bits> {
        if !preloaded {
            return Cow::Borrowed(&self.listed);
        }
        let mut held = self.promised(nodes);
        held.or(&self.listed);
        Cow::Owned(held)
    }
}
