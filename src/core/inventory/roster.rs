//! The nodes by name.
//!
//! Enters: names and slots. Leaves: the slot of a name, and names in their order. It must not know what is on a node. A
//! sorted list and not a tree: names come and go seldom, and texts that name the first few nodes of a set walk it often.

use std::sync::Arc;

use super::bits::Bits;

#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    entries: Vec<(Arc<str>, u32)>,
    /// Of each slot, its place among the entries.
    ranks: Vec<usize>,
}

impl Roster {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    pub fn slot(&self, name: &str) -> Option<u32> {
        let place = self.place(name).ok()?;
        self.entries.get(place).map(|(_, slot)| *slot)
    }

    /// A node that is not there yet.
    pub fn insert(&mut self, name: Arc<str>, slot: u32) {
        let (Ok(place) | Err(place)) = self.place(&name);
        self.entries.insert(place, (name, slot));
        self.rank_from(place);
    }

    pub fn remove(&mut self, name: &str) -> Option<u32> {
        let place = self.place(name).ok()?;
        let (_, slot) = self.entries.remove(place);
        self.rank_from(place);
        Some(slot)
    }

    fn rank_from(&mut self, place: usize) {
        for (rank, (_, slot)) in self.entries.iter().enumerate().skip(place) {
            let slot = *slot as usize;
            if self.ranks.len() <= slot {
                self.ranks.resize(slot + 1, 0);
            }
            if let Some(known) = self.ranks.get_mut(slot) {
                *known = rank;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().map(|(name, _)| name)
    }

    /// The first of a set, by name.
    pub fn first(&self, nodes: &Bits, count: usize) -> Vec<(u32, &Arc<str>)> {
        let length = nodes.len();
        let count = count.min(length);
        // Of many the first are soon met in the order of all names; of few they are picked out.
        if length * length > self.len() * count {
            let members = self.entries.iter().filter(|(_, slot)| nodes.contains(*slot));
            return members.take(count).map(|(name, slot)| (*slot, name)).collect();
        }
        let all = nodes.iter().filter_map(|slot| self.ranks.get(slot as usize).copied());
        let mut ranks: Vec<usize> = Vec::with_capacity(count + 1);
        if count == length {
            ranks.extend(all);
            ranks.sort_unstable();
        } else {
            for rank in all {
                if ranks.len() < count || ranks.last().is_some_and(|last| rank < *last) {
                    ranks.insert(ranks.partition_point(|known| *known < rank), rank);
                    ranks.truncate(count);
                }
            }
        }
        ranks.iter().filter_map(|rank| self.entries.get(*rank)).map(|(name, slot)| (*slot, name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_the_first_are_the_first_by_name(
            steps in prop::collection::vec((0_u32..60, "[a-d]{1,2}"), 0..200),
            wanted in prop::collection::btree_set(0_u32..60, 0..60),
            count in prop_oneof![0_usize..8, Just(usize::MAX)],
        ) {
            let (mut roster, mut model) = (Roster::default(), BTreeMap::<String, u32>::new());
            for (slot, name) in steps {
                match model.remove(&name) {
                    Some(known) => prop_assert_eq!(roster.remove(&name), Some(known)),
                    None if model.values().any(|known| *known == slot) => {}
                    None => {
                        roster.insert(name.as_str().into(), slot);
                        model.insert(name, slot);
                    }
                }
            }
            prop_assert_eq!(roster.len(), model.len());
            for (name, slot) in &model {
                prop_assert_eq!(roster.slot(name), Some(*slot));
            }
            let nodes: Bits = wanted.iter().copied().filter(|slot| model.values().any(|known| known == slot)).collect();
            let first: Vec<_> = roster.first(&nodes, count).into_iter().map(|(slot, name)| (name.to_string(), slot)).collect();
            let expected: Vec<_> = model.into_iter().filter(|(_, slot)| nodes.contains(*slot)).take(count).collect();
            prop_assert_eq!(first, expected);
        }
    }
}
