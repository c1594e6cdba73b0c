//! The brakes: when so much fails at one registry, on one node or by one policy that the cause is not in the tasks.
//!
//! Enters: failures and successes of pulls, by registry host and by node, and Jobs that a policy denies. Leaves: a level for
//! each, and news when it changes. In `Outage` nothing is declared permanent and nothing is deleted, and when it ends the grace clocks start anew.
//!
//! **What counts.** Distinct images, not pods: a hundred pods of one bad image are one bad image. A registry that does not
//! answer (network, 5xx, 429, TLS) is out as long as it does not, so such a failure counts while it lasts. One that says "no"
//! has answered: that is news only once, for [`Limits::window`], because five bad images that nobody mends would
//! otherwise hold the brake for ever. At a node only what the node may be to blame for counts: a registry's answer
//! proves that the way to it is well, and an image that a `Never` pod lacks counts only where the node had it and lost it:
//! five tasks whose images nobody ever loaded are five tasks, not a node in trouble. Nor does a registry count what is a
//! node's own trouble: its disk, its runtime, its kubelet's limits. **A success** is the start of a container whose pull policy
//! is `Always`: others may have come from the node's cache, and an outage full of cached starts must not look healthy.
//!
//! **Levels.** `Suspect` needs 5 distinct images or 3 nodes. `Outage` needs that, at least two images (one image that is
//! missing fails on every node it lands on), and that 55 % of the images tried within the window fail: the figure of the
//! node lifecycle controller. In `Suspect` only a clear "no" is concluded from, what is unclear waits.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::cause::{FailureClass, Permanence};
use super::moment::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub window: Duration,
    pub images: usize,
    pub nodes: usize,
    /// Of the images tried within the window, in percent.
    pub failing_percent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: Duration::from_secs(300), images: 5, nodes: 3, failing_percent: 55 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    #[default]
    Normal,
    Suspect,
    Outage,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Suspect => "Suspect",
            Self::Outage => "Outage",
        }
    }
}

/// What a brake is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Registry(String),
    Node(String),
    /// `DeniedTooLong` under one policy.
    Policy(String),
}

/// A brake that is not `Normal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrakeReport {
    pub place: Place,
    pub level: Level,
    pub failing_images: usize,
    pub failing_nodes: usize,
}

/// A brake that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub report: BrakeReport,
    pub before: Level,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    onset: Moment,
    last: Moment,
    answered: bool,
}

impl Failing {
    fn counts(&self, window: Duration, now: Moment) -> bool {
        now.since(if self.answered { self.onset } else { self.last }) < window
    }
}

#[derive(Clone, Debug, Default)]
struct Site {
    images: BTreeMap<String, Failing>,
    nodes: BTreeMap<String, Failing>,
    good: BTreeMap<String, Moment>,
    level: Level,
}

/// More images at one place than anybody fails or pulls within five minutes while the difference still matters: beyond it
/// the level is the same.
const MOST_NAMES: usize = 256;
/// Nodes are as many as the cluster has, but only those with failures have a site.
const MOST_NODES: usize = 2_048;
const MOST_REGISTRIES: usize = 512;
/// Of those, how many may be known by successes alone: what is well must not take the room of what is not.
const MOST_HEALTHY: usize = 256;
const MOST_POLICIES: usize = 512;

fn note(failing: &mut BTreeMap<String, Failing>, name: &str, answered: bool, now: Moment) {
    if let Some(known) = failing.get_mut(name) {
        known.last = now;
        // What stops answering counts again; what answered once and fails still is no news.
        known.answered = answered;
    } else if failing.len() < MOST_NAMES {
        failing.insert(name.to_owned(), Failing { onset: now, last: now, answered });
    }
}

impl Place {
    /// Whether another place is of the same kind.
    const fn is_like(&self, other: &Self) -> bool {
        match self {
            Self::Registry(_) => matches!(other, Self::Registry(_)),
            Self::Node(_) => matches!(other, Self::Node(_)),
            Self::Policy(_) => matches!(other, Self::Policy(_)),
        }
    }
}

impl Site {
    fn pulled(&mut self, image: &str, now: Moment) {
        self.images.remove(image);
        if self.good.len() < MOST_NAMES {
            self.good.insert(image.to_owned(), now);
        }
    }

    fn forget_old(&mut self, window: Duration, now: Moment) {
        // Kept for a while longer than it counts, so that a back-off of five minutes does not make it news again.
        let keep = window * 2;
        self.images.retain(|_, failing| now.since(failing.last) < keep);
        self.nodes.retain(|_, failing| now.since(failing.last) < keep);
        self.good.retain(|_, at| now.since(*at) < window);
    }

    fn measure(&self, limits: &Limits, now: Moment, by_node: bool) -> (Level, usize, usize) {
        let images = self.images.values().filter(|failing| failing.counts(limits.window, now)).count();
        let nodes = self.nodes.values().filter(|failing| failing.counts(limits.window, now)).count();
        let many = images >= limits.images || (!by_node && nodes >= limits.nodes);
        let good = self.good.keys().filter(|image| !self.images.contains_key(*image)).count();
        let share = images * 100 >= limits.failing_percent * (images + good);
        let level = match (many, images >= 2 && share) {
            (false, _) => Level::Normal,
            (true, false) => Level::Suspect,
            (true, true) => Level::Outage,
        };
        (level, images, nodes)
    }

    fn is_empty(&self) -> bool {
        self.images.is_empty() && self.nodes.is_empty() && self.good.is_empty() && self.level == Level::Normal
    }
}

/// A failure as the brakes see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure<'a> {
    pub host: Option<&'a str>,
    pub node: Option<&'a str>,
    pub image: &'a str,
    /// `None`: no cause was told.
    pub class: Option<FailureClass>,
    /// The node had the image until a short while ago.
    pub lost: bool,
}

/// Whether a registry has spoken, whatever it said. What nobody understands may be anything, so it counts as silence.
const fn answered(class: Option<FailureClass>) -> bool {
    match class {
        None => false,
        Some(class) => match class.permanence() {
            Permanence::Permanent => true,
            Permanence::Transient => false,
            Permanence::Unclear => matches!(
                class,
                FailureClass::NotFoundOrDenied | FailureClass::NeverPullNoAccess | FailureClass::CorruptImage
            ),
        },
    }
}

/// Whether trouble of the node could look like this: a store that lost its images makes every `Never` pod fail. What a
/// registry has answered proves that the way to it is well, and is held by the registry's own brake.
pub(super) const fn goes_through_node_brake(class: Option<FailureClass>, lost: bool) -> bool {
    match class {
        None => true,
        Some(FailureClass::NeverPull | FailureClass::NeverPullNoAccess) => lost,
        Some(
            FailureClass::InvalidName
            | FailureClass::PlatformMismatch
            | FailureClass::NotFound
            | FailureClass::Unauthorized
            | FailureClass::NotFoundOrDenied
            | FailureClass::RateLimited
            | FailureClass::RegistryError
            | FailureClass::SignatureInvalid,
        ) => false,
        Some(
            FailureClass::Network
            | FailureClass::Tls
            | FailureClass::DiskFull
            | FailureClass::CorruptImage
            | FailureClass::NodeThrottle
            | FailureClass::InspectFailed
            | FailureClass::Unknown,
        ) => true,
    }
}

#[derive(Clone, Debug, Default)]
pub struct Brakes {
    limits: Limits,
    sites: BTreeMap<Place, Site>,
}

impl Brakes {
    pub fn new(limits: Limits) -> Self {
        Self { limits, sites: BTreeMap::new() }
    }

    /// The site of a failure.
    fn site(&mut self, place: Place) -> Option<&mut Site> {
        let most = match &place {
            Place::Registry(_) => MOST_REGISTRIES,
            Place::Node(_) => MOST_NODES,
            Place::Policy(_) => MOST_POLICIES,
        };
        self.site_of(place, most)
    }

    fn site_of(&mut self, place: Place, most: usize) -> Option<&mut Site> {
        let is_new = !self.sites.contains_key(&place);
        if is_new && self.sites.keys().filter(|known| place.is_like(known)).count() >= most {
            return None;
        }
        Some(self.sites.entry(place).or_default())
    }

    pub(super) fn failed(&mut self, failure: &Failure<'_>, now: Moment) {
        let answered = answered(failure.class);
        if let Some(host) = failure.host
            && failure.class.is_none_or(FailureClass::goes_through_brake)
            && let Some(site) = self.site(Place::Registry(host.to_owned()))
        {
            note(&mut site.images, failure.image, answered, now);
            if let Some(node) = failure.node {
                note(&mut site.nodes, node, answered, now);
            }
        }
        if let Some(node) = failure.node
            && goes_through_node_brake(failure.class, failure.lost)
            && let Some(site) = self.site(Place::Node(node.to_owned()))
        {
            note(&mut site.images, failure.image, answered, now);
        }
    }

    /// A Job under a policy whose pods are denied: an image of it, by which jobs of one maker are one. It counts as long as
    /// it is denied: that many images at once are the policy's doing, however long, and a policy is easily mended, a failed
    /// Job is not.
    pub(super) fn denied(&mut self, policy: &str, image: &str, now: Moment) {
        if let Some(site) = self.site(Place::Policy(policy.to_owned())) {
            note(&mut site.images, image, false, now);
        }
    }

    /// A container started whose image was certainly asked of its registry.
    pub(super) fn pulled(&mut self, host: &str, node: Option<&str>, image: &str, now: Moment) {
        let registry = self.site_of(Place::Registry(host.to_owned()), MOST_HEALTHY);
        registry.into_iter().for_each(|site| site.pulled(image, now));
        // A node on which nothing fails needs no site: what went well before the first failure says little of what follows.
        let node = node.and_then(|node| self.sites.get_mut(&Place::Node(node.to_owned())));
        node.into_iter().for_each(|site| site.pulled(image, now));
    }

    /// Measures anew, and tells what changed.
    pub(super) fn update(&mut self, now: Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        for (place, site) in &mut self.sites {
            site.forget_old(self.limits.window, now);
            let by_node = match place {
                Place::Node(_) | Place::Policy(_) => true,
                Place::Registry(_) => false,
            };
            let (level, failing_images, failing_nodes) = site.measure(&self.limits, now, by_node);
            if level != site.level {
                let before = std::mem::replace(&mut site.level, level);
                let report = BrakeReport { place: place.clone(), level, failing_images, failing_nodes };
                changes.push(Change { report, before });
            }
        }
        self.sites.retain(|_, site| !site.is_empty());
        changes
    }

    pub fn level(&self, place: &Place) -> Level {
        self.sites.get(place).map_or(Level::Normal, |site| site.level)
    }

    /// The brake that holds a failure: the strictest of its registry's and its node's.
    pub(super) fn holding(&self, failure: &Failure<'_>) -> Level {
        let registry = failure
            .host
            .filter(|_| failure.class.is_none_or(FailureClass::goes_through_brake))
            .map_or(Level::Normal, |host| self.level(&Place::Registry(host.to_owned())));
        let node = failure
            .node
            .filter(|_| goes_through_node_brake(failure.class, failure.lost))
            .map_or(Level::Normal, |node| self.level(&Place::Node(node.to_owned())));
        registry.max(node)
    }

    pub fn reports(&self, now: Moment) -> Vec<BrakeReport> {
        let on = self.sites.iter().filter(|(_, site)| site.level != Level::Normal);
        on.map(|(place, site)| {
            let (_, failing_images, failing_nodes) = site.measure(&self.limits, now, false);
            BrakeReport { place: place.clone(), level: site.level, failing_images, failing_nodes }
        })
        .collect()
    }

    /// Places with a brake in `Outage`.
    pub fn out(&self) -> BTreeSet<&Place> {
        self.sites.iter().filter(|(_, site)| site.level == Level::Outage).map(|(place, _)| place).collect()
    }
}
