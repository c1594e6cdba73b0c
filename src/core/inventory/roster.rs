//! The nodes by name.
//!
//! Enters: names and slots. Leaves: the slot of a name, and names in their order. A sorted list and not a tree: names come
//! and go seldom, and texts that name the first few nodes of a set walk it often.

use std::sync::Arc;

use super::bits::Bits;

#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    entries: Vec<(Arc<str>, u32)>,
}

impl Roster {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    pub fn slot(&self, name: &str) -> Option<u32> {
        let place = self.place(name).ok()?;
        self.entries.get(place).map(|(_, slot)| *slot)
    }

    pub fn insert(&mut self, name: Arc<str>, slot: u32) {
        match self.place(&name) {
            Ok(place) => {
                if let Some(entry) = self.entries.get_mut(place) {
                    entry.1 = slot;
                }
            }
            Err(place) => self.entries.insert(place, (name, slot)),
        }
    }

    pub fn remove(&mut self, name: &str) -> Option<u32> {
        let place = self.place(name).ok()?;
        Some(self.entries.remove(place).1)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().map(|(name, _)| name)
    }

    /// Those of a set, in the order of their names.
    pub fn among<'a>(&'a self, nodes: &Bits) -> impl Iterator<Item = (u32, &'a Arc<str>)> {
        let members = self.entries.iter().filter(|(_, slot)| nodes.contains(*slot));
        members.map(|(name, slot)| (*slot, name))
    }
}
