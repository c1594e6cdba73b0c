//! Where the images of a question are, with the words for it, for all policies that judge it.
//!
//! Enters: what each policy asks. Leaves: an outcome, worked out once for all that ask the same: policies are many, but
//! few of them differ in what they ask of the nodes that this pod could run on. It must not know actions.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use super::eligibility::Route;
use super::explanation::{Basis, Explanation};
use super::image::ImageReference;
use super::inventory::bits::Bits;
use super::inventory::{Access, Inventory};
use super::message::{self, Evidence, Way};
use super::nearest::{self, Misses, Near};
use super::policies::{Entry, Policies, PolicyPatterns};
use super::presence::Judgement;
use super::reason::Detail;
use super::sight::{Ask, Sight};
use super::verdict::{Question, Subject, Verdict};
use super::want::Want;

/// An image to blame, with its texts.
pub(in crate::core) struct Blame {
    /// Its place among the wants.
    pub want: usize,
    pub detail: Option<Detail>,
    pub explanation: Explanation,
    /// The likeliest first.
    pub near: Rc<[Suggestion]>,
}

pub(in crate::core) enum Outcome {
    Present,
    Absent(Blames),
    Unknown(Blames),
}

/// The images to blame: as many as a verdict can tell of.
pub(in crate::core) struct Blames {
    pub told: Vec<Blame>,
    pub others: usize,
}

/// A near name, for those who ask. Of several mostly the first is told, so what the others take is put off.
pub(in crate::core) struct Suggestion {
    near: Near,
    text: OnceCell<Arc<str>>,
    /// The policies that allow it.
    allowed: OnceCell<Bits>,
}

impl Suggestion {
    fn new(near: Near) -> Self {
        Self { near, text: OnceCell::new(), allowed: OnceCell::new() }
    }

    /// As a sentence.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(self.text.get_or_init(|| message::did_you_mean(&self.near).into()))
    }

    pub fn is_allowed_by(&self, entry: &Entry, patterns: &PolicyPatterns) -> bool {
        let parse = || ImageReference::parse(&self.near.text).ok();
        let allowed = self.allowed.get_or_init(|| patterns.allowing(parse().as_ref()));
        allowed.contains(entry.place)
    }
}

pub(in crate::core) struct Outcomes<'a> {
    question: Question<'a>,
    inventory: &'a Inventory,
    now: Timestamp,
    /// Made for the first policy that asks.
    sight: Option<Sight<'a>>,
    /// By class of `nodes`: the set of the policy's nodes, and that of the candidates among them.
    of_classes: Vec<Option<(usize, usize)>>,
    sets: Sets,
    known: BTreeMap<Ask, Rc<Outcome>>,
}

/// Different sets of nodes, by number: different selectors often select the same, and leave the same candidates.
#[derive(Default)]
struct Sets {
    numbers: BTreeMap<Rc<Bits>, usize>,
    sets: Vec<Rc<Bits>>,
}

impl Sets {
    fn number(&mut self, set: Bits) -> usize {
        if let Some(number) = self.numbers.get(&set) {
            return *number;
        }
        let set = Rc::new(set);
        let number = self.sets.len();
        self.numbers.insert(Rc::clone(&set), number);
        self.sets.push(set);
        number
    }
}

impl<'a> Outcomes<'a> {
    pub fn new(question: &Question<'a>, policies: &Policies, inventory: &'a Inventory, now: Timestamp) -> Self {
        Self {
            question: *question,
            inventory,
            now,
            sight: None,
            of_classes: vec![None; policies.nodes_classes()],
            sets: Sets::default(),
            known: BTreeMap::new(),
        }
    }

    /// Where the images are that a policy wants together: places among the wants, each with whether it is preloaded.
    pub fn of(&mut self, entry: &Entry, images: Vec<(usize, bool)>, wants: &[Want<'a>]) -> Rc<Outcome> {
        let Self { question, inventory, now, .. } = *self;
        let sight = self.sight.get_or_insert_with(|| {
            let names = wants.iter().map(|want| want.parsed.as_ref().ok());
            Sight::new(inventory, route(&question), names, &Access::of(question.pod), now)
        });
        let (whole, candidates) = match self.of_classes.get(entry.nodes_class) {
            Some(Some(sets)) => *sets,
            Some(None) | None => {
                let whole = inventory.select(&entry.policy.nodes);
                let candidates = sight.candidates(&whole);
                let sets = (self.sets.number(whole), self.sets.number(candidates));
                if let Some(place) = self.of_classes.get_mut(entry.nodes_class) {
                    *place = Some(sets);
                }
                sets
            }
        };
        // A preload speaks of all the policy's nodes, so there these count and not only the candidates among them; so
        // they do where there is no candidate and the text says of how many.
        let none = self.sets.sets.get(candidates).is_none_or(|candidates| candidates.is_empty());
        let whole_counts = none || images.iter().any(|(_, preloaded)| *preloaded);
        let ask = Ask {
            nodes: if whole_counts { whole } else { candidates },
            limit: entry.policy.node_image_limit,
            elastic: entry.policy.presence.elastic,
            images,
        };
        if let Some(outcome) = self.known.get(&ask) {
            return Rc::clone(outcome);
        }
        let nodes = self.sets.sets.get(ask.nodes).map(Rc::clone).unwrap_or_default();
        let outcome = Rc::new(work_out(sight, &ask, &nodes, wants, question.subject));
        self.known.insert(ask, Rc::clone(&outcome));
        outcome
    }
}

pub(in crate::core) fn route<'a>(question: &Question<'a>) -> Route<'a> {
    let placement = &question.pod.placement;
    match (question.subject, &placement.node_name) {
        (Subject::BoundPod, Some(node)) => Route::Bound(node),
        (Subject::BoundPod | Subject::Pod | Subject::Template | Subject::DaemonSetTemplate, _) => {
            Route::Placed(placement)
        }
    }
}

fn work_out(sight: &Sight<'_>, ask: &Ask, nodes: &Bits, wants: &[Want<'_>], subject: Subject) -> Outcome {
    let (mut lacks, proven) = match sight.judge(ask, nodes) {
        Judgement::Present => return Outcome::Present,
        Judgement::Absent(lacks) => (lacks, true),
        Judgement::Unknown(lacks) => (lacks, false),
    };
    let others = lacks.len().saturating_sub(Verdict::MAX_FINDINGS);
    lacks.truncate(Verdict::MAX_FINDINGS);
    let candidates = sight.candidates(nodes);
    let way = Way::from(sight.route);
    let blames = lacks.into_iter().filter_map(|lack| {
        let want = lack.image;
        let image = wants.get(want)?.shown()?;
        let held = lack.tally.hold + lack.tally.hold_obstructed > 0;
        let (misses, near) = if held {
            (Misses::default(), Vec::new())
        } else {
            let preloaded = ask.images.contains(&(want, true));
            let misses = nearest::misses(sight, want, preloaded, nodes, &candidates);
            (misses, nearest::near_names(sight, want, &candidates))
        };
        let only = (lack.tally.considered == 1).then(|| sight.inventory.first_named(&candidates, 1));
        let only_node = only.and_then(|only| only.first().map(|(_, name)| Arc::clone(name)));
        let policy_nodes = if lack.tally.considered == 0 { nodes.len() } else { 0 };
        let detail = lack.detail;
        let evidence = Evidence { image, subject, way: way.clone(), lack, proven, only_node, policy_nodes, misses };
        let explanation = Basis::Evidence(Box::new(evidence)).into();
        Some(Blame { want, detail, explanation, near: near.into_iter().map(Suggestion::new).collect() })
    });
    let blames = Blames { told: blames.collect(), others };
    if proven { Outcome::Absent(blames) } else { Outcome::Unknown(blames) }
}
