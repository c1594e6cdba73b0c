//! The image names that nodes list, each kept once.
//!
//! Enters: names as nodes write them. Leaves: numbers for them, the nodes of each, and the names that look like another.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::bits::NodeSet;
use crate::core::image::ImageReference;

#[derive(Clone, Debug)]
struct Name {
    /// Canonical, as `ImageReference::lookup` gives it.
    text: Arc<str>,
    nodes: NodeSet,
}

/// Names by number. A name that no node lists any more is forgotten and its number used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Name>,
    free: Vec<u32>,
    /// With their numbers.
    by_ending: BTreeMap<ByEnding, u32>,
}

/// Ordered by what follows the last slash, then by the whole: names that differ only in host or path are neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ByEnding {
    text: Arc<str>,
    /// The length of what is before it.
    before: usize,
}

fn ending(text: &str) -> &str {
    text.rsplit_once('/').map_or(text, |(_, ending)| ending)
}

impl ByEnding {
    fn new(text: Arc<str>) -> Self {
        let before = text.len() - ending(&text).len();
        Self { text, before }
    }

    fn ending(&self) -> &str {
        self.text.get(self.before..).unwrap_or_default()
    }
}

impl Ord for ByEnding {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ending().cmp(other.ending()).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for ByEnding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Names {
    /// The number of a name as a node writes it. `None`: it names no image that a pod could ask for (`<none>:<none>`),
    /// and is dropped, for no reference could equal it.
    ///
    /// Nearly all names are canonical already and known from another node, so the text is looked up before it is parsed:
    /// that is right because a canonical text is its own canonical form.
    pub fn intern(&mut self, written: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(written) {
            return Some(*number);
        }
        let reference = ImageReference::parse(written).ok()?;
        let lookup = reference.lookup();
        if let Some(number) = self.numbers.get(lookup) {
            return Some(*number);
        }
        let text: Arc<str> = lookup.into();
        let name = Name { text: Arc::clone(&text), nodes: NodeSet::default() };
        let number = match self.free.pop() {
            Some(number) => {
                *self.names.get_mut(number as usize)? = name;
                number
            }
            None => {
                let number = u32::try_from(self.names.len()).ok()?;
                self.names.push(name);
                number
            }
        };
        self.by_ending.insert(ByEnding::new(Arc::clone(&text)), number);
        self.numbers.insert(text, number);
        Some(number)
    }

    pub fn add(&mut self, number: u32, slot: u32) {
        if let Some(name) = self.names.get_mut(number as usize) {
            name.nodes.insert(slot);
        }
    }

    pub fn remove(&mut self, number: u32, slot: u32) {
        let Some(name) = self.names.get_mut(number as usize) else { return };
        name.nodes.remove(slot);
        if name.nodes.is_empty() {
            let text = std::mem::replace(&mut name.text, Arc::from(""));
            name.nodes = NodeSet::default();
            self.numbers.remove(&text);
            self.by_ending.remove(&ByEnding::new(text));
            self.free.push(number);
        }
    }

    pub fn number(&self, lookup: &str) -> Option<u32> {
        self.numbers.get(lookup).copied()
    }

    pub fn text(&self, number: u32) -> Option<&Arc<str>> {
        self.names.get(number as usize).map(|name| &name.text)
    }

    pub fn nodes(&self, lookup: &str) -> Option<&NodeSet> {
        let number = self.numbers.get(lookup)?;
        self.names.get(*number as usize).map(|name| &name.nodes)
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &NodeSet)> {
        self.names.iter().filter(|name| !name.nodes.is_empty()).map(|name| (&name.text, &name.nodes))
    }

    /// The names whose last segment begins with a text, in order of that segment.
    pub fn ending_with_segment(&self, start: &str) -> impl Iterator<Item = (&Arc<str>, &NodeSet)> {
        // A slash is before every character that a name can begin with.
        let from = ByEnding::new(format!("/{start}").into());
        self.by_ending
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(name, _)| name.ending().starts_with(start))
            .filter_map(|(name, number)| Some((&name.text, &self.names.get(*number as usize)?.nodes)))
    }

    /// The names that a runtime may mean by a short one: those that end in it, at the boundary of a segment.
    pub fn of_short(&self, short_path: &str) -> impl Iterator<Item = (&Arc<str>, &NodeSet)> {
        let last = ending(short_path);
        self.ending_with_segment(last)
            .take_while(move |(text, _)| ending(text) == last)
            .filter(move |(text, _)| text.strip_suffix(short_path).is_some_and(|before| before.ends_with('/')))
    }
}
