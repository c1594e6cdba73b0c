//! Sets of node slots: dense for working with, hybrid for keeping.
//!
//! Enters: small numbers. Leaves: sets of them. It must not know what a slot stands for.
//!
//! Our own and not `roaring` or `fixedbitset`: the universe is some thousand slots, so one set is some eighty words that
//! the compiler turns into vector instructions, sizes may differ, and nothing here can panic.

const WORD: u32 = u64::BITS;

fn place(slot: u32) -> (usize, u64) {
    ((slot / WORD) as usize, 1 << (slot % WORD))
}

/// A dense set. Missing words are empty; so the order is one for maps, and equal sets of different sizes may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub fn insert(&mut self, slot: u32) {
        let (index, bit) = place(slot);
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= bit;
        }
    }

    pub fn remove(&mut self, slot: u32) {
        let (index, bit) = place(slot);
        if let Some(word) = self.words.get_mut(index) {
            *word &= !bit;
        }
    }

    pub fn contains(&self, slot: u32) -> bool {
        let (index, bit) = place(slot);
        self.words.get(index).is_some_and(|word| word & bit != 0)
    }

    pub fn and(&mut self, other: &Self) {
        self.words.truncate(other.words.len());
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= theirs;
        }
    }

    pub fn or(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    pub fn and_not(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
    }

    pub fn words_len(&self) -> usize {
        self.words.len()
    }

    pub fn clear(&mut self) {
        self.words.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Takes those out that are in another set too.
    pub fn take(&mut self, which: &Self) -> Self {
        let mut taken = self.clone();
        taken.and(which);
        self.and_not(&taken);
        taken
    }

    /// How many of them are in another set, and of these how many in each of some parts.
    pub fn counts_in(&self, other: &Self, parts: &[Self]) -> (usize, Vec<usize>) {
        let (mut all, mut of_parts) = (0, vec![0; parts.len()]);
        for (index, (mine, theirs)) in self.words.iter().zip(&other.words).enumerate() {
            let both = mine & theirs;
            // Most images are on few nodes.
            if both != 0 {
                all += both.count_ones() as usize;
                for (count, part) in of_parts.iter_mut().zip(parts) {
                    let word = part.words.get(index).copied().unwrap_or_default();
                    *count += (both & word).count_ones() as usize;
                }
            }
        }
        (all, of_parts)
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        let beyond = self.words.get(other.words.len()..).unwrap_or_default();
        beyond.iter().all(|word| *word == 0)
            && self.words.iter().zip(&other.words).all(|(mine, theirs)| mine & !theirs == 0)
    }

    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(mine, theirs)| mine & theirs != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).step_by(WORD as usize).zip(&self.words).flat_map(|(base, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let slot = base + rest.trailing_zeros();
                    rest &= rest - 1;
                    slot
                })
            })
        })
    }
}

impl FromIterator<u32> for Bits {
    fn from_iter<I: IntoIterator<Item = u32>>(slots: I) -> Self {
        let mut bits = Self::default();
        for slot in slots {
            bits.insert(slot);
        }
        bits
    }
}

/// A set to keep: sorted numbers while it is small, bits once these take less room.
///
/// Most image names are on few nodes and most label values too; the few that are everywhere would be long lists.
#[derive(Clone, Debug)]
pub(in crate::core) enum NodeSet {
    Sparse(Vec<u32>),
    Dense(Bits),
}

impl Default for NodeSet {
    fn default() -> Self {
        Self::Sparse(Vec::new())
    }
}

/// Below this many a list is never worth turning into bits.
const ALWAYS_SPARSE: usize = 16;

impl NodeSet {
    pub fn insert(&mut self, slot: u32) {
        match self {
            Self::Sparse(slots) => {
                if let Err(index) = slots.binary_search(&slot) {
                    slots.insert(index, slot);
                }
                // A list takes 4 bytes a member, bits take 1/8 of one for each slot up to the highest.
                let highest = slots.last().copied().unwrap_or_default() as usize;
                if slots.len() > ALWAYS_SPARSE && slots.len() * 32 > highest {
                    *self = Self::Dense(slots.iter().copied().collect());
                }
            }
            Self::Dense(bits) => bits.insert(slot),
        }
    }

    pub fn remove(&mut self, slot: u32) {
        match self {
            Self::Sparse(slots) => {
                if let Ok(index) = slots.binary_search(&slot) {
                    slots.remove(index);
                }
            }
            Self::Dense(bits) => {
                bits.remove(slot);
                // Half of what made it dense, so that one node that comes and goes does not convert it each time.
                let length = bits.len();
                if length <= ALWAYS_SPARSE / 2 || length < bits.words.len() {
                    *self = Self::Sparse(bits.iter().collect());
                }
            }
        }
    }

    pub fn contains(&self, slot: u32) -> bool {
        match self {
            Self::Sparse(slots) => slots.binary_search(&slot).is_ok(),
            Self::Dense(bits) => bits.contains(slot),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Sparse(slots) => slots.is_empty(),
            Self::Dense(bits) => bits.is_empty(),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Sparse(slots) => slots.len(),
            Self::Dense(bits) => bits.len(),
        }
    }

    pub fn to_bits(&self) -> Bits {
        match self {
            Self::Sparse(slots) => slots.iter().copied().collect(),
            Self::Dense(bits) => bits.clone(),
        }
    }

    /// `bits |= self`
    pub fn add_to(&self, bits: &mut Bits) {
        match self {
            Self::Sparse(slots) => slots.iter().for_each(|slot| bits.insert(*slot)),
            Self::Dense(mine) => bits.or(mine),
        }
    }

    /// `bits &= self`
    pub fn keep_in(&self, bits: &mut Bits) {
        match self {
            Self::Sparse(slots) => {
                let kept: Bits = slots.iter().copied().filter(|slot| bits.contains(*slot)).collect();
                *bits = kept;
            }
            Self::Dense(mine) => bits.and(mine),
        }
    }

    /// `bits &= !self`
    pub fn take_from(&self, bits: &mut Bits) {
        match self {
            Self::Sparse(slots) => slots.iter().for_each(|slot| bits.remove(*slot)),
            Self::Dense(mine) => bits.and_not(mine),
        }
    }

    pub fn intersects(&self, bits: &Bits) -> bool {
        match self {
            Self::Sparse(slots) => slots.iter().any(|slot| bits.contains(*slot)),
            Self::Dense(mine) => bits.intersects(mine),
        }
    }

    pub fn slots(&self) -> Vec<u32> {
        match self {
            Self::Sparse(slots) => slots.clone(),
            Self::Dense(bits) => bits.iter().collect(),
        }
    }

    #[cfg(test)]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Sparse(slots) => slots.is_sorted_by(|a, b| a < b),
            Self::Dense(bits) => bits.len() > ALWAYS_SPARSE / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_node_set_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u32..600), 0..900)) {
            let (mut set, mut model) = (NodeSet::default(), BTreeSet::new());
            for (insert, slot) in steps {
                if insert {
                    set.insert(slot);
                    model.insert(slot);
                } else {
                    set.remove(slot);
                    model.remove(&slot);
                }
                prop_assert!(set.is_sound());
            }
            prop_assert_eq!(set.slots(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }

        #[test]
        fn operations_on_bits_are_those_of_sets(
            a in prop::collection::btree_set(0_u32..400, 0..80),
            b in prop::collection::btree_set(0_u32..400, 0..80),
        ) {
            let of = |set: &BTreeSet<u32>| set.iter().copied().collect::<Bits>();
            let mut kept = NodeSet::default();
            b.iter().for_each(|slot| kept.insert(*slot));
            for by_kept in [false, true] {
                let (mut and, mut or, mut and_not) = (of(&a), of(&a), of(&a));
                if by_kept {
                    kept.keep_in(&mut and);
                    kept.add_to(&mut or);
                    kept.take_from(&mut and_not);
                } else {
                    and.and(&of(&b));
                    or.or(&of(&b));
                    and_not.and_not(&of(&b));
                }
                prop_assert_eq!(and.iter().collect::<BTreeSet<_>>(), &a & &b);
                prop_assert_eq!(or.iter().collect::<BTreeSet<_>>(), &a | &b);
                prop_assert_eq!(and_not.iter().collect::<BTreeSet<_>>(), &a - &b);
            }
            prop_assert_eq!(of(&a).is_subset(&of(&b)), a.is_subset(&b));
            prop_assert_eq!(of(&a).intersects(&of(&b)), !a.is_disjoint(&b));
            let even = |slot: &&u32| (**slot).is_multiple_of(2);
            let (even_ones, none): (Bits, _) = (b.iter().filter(even).copied().collect(), Bits::default());
            let counts = (a.intersection(&b).count(), vec![a.intersection(&b).filter(even).count(), 0]);
            prop_assert_eq!(of(&a).counts_in(&of(&b), &[even_ones, none]), counts);
            let (mut rest, taken) = (of(&a), of(&a).take(&of(&b)));
            prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>(), &a & &b);
            rest.take(&of(&b));
            prop_assert_eq!(rest.iter().collect::<BTreeSet<_>>(), &a - &b);
            prop_assert_eq!(kept.intersects(&of(&a)), !a.is_disjoint(&b));
        }
    }
}
