//! What nodes listed until a short while ago, and list no longer.
//!
//! Enters: removals from nodes' lists, with the time at which we saw them. Leaves: whether a node has lost an image of late.
//! Only the runtime half asks: a `Never` pod whose image the node never had is the task's trouble, one whose image the node
//! had and lost may be the node's. A loss that is forgotten, or that a process before this one saw, counts for nothing: then
//! the failure is judged by what nodes list now, as it is everywhere else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// A node that lost its store is noticed within minutes, by the pods that come to it.
const KEPT: SignedDuration = SignedDuration::from_mins(30);

/// Some 100 bytes each. 60 nodes that lose everything at once fill it, and then a brake is on anyway.
const MAX: usize = 16_384;

#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    times: HashMap<(u32, Arc<str>), Timestamp>,
    queue: VecDeque<(Timestamp, u32, Arc<str>)>,
}

impl Lost {
    pub fn note(&mut self, slot: u32, lookup: &Arc<str>, now: Timestamp) {
        self.times.insert((slot, Arc::clone(lookup)), now);
        self.queue.push_back((now, slot, Arc::clone(lookup)));
        while let Some((at, slot, lookup)) = self.queue.front() {
            if self.queue.len() <= MAX && now.duration_since(*at) < KEPT {
                break;
            }
            // An entry of the queue may be of a loss that was made good since, or made good and lost again.
            let key = (*slot, Arc::clone(lookup));
            if self.times.get(&key) == Some(at) {
                self.times.remove(&key);
            }
            self.queue.pop_front();
        }
    }

    /// The node lists it again.
    pub fn found(&mut self, slot: u32, lookup: &Arc<str>) {
        if !self.times.is_empty() {
            self.times.remove(&(slot, Arc::clone(lookup)));
        }
    }

    /// The node is gone, or is another machine of the same name.
    pub fn forget(&mut self, slot: u32) {
        self.times.retain(|(at_slot, _), _| *at_slot != slot);
    }

    pub fn is_lost(&self, slot: u32, lookup: &str, now: Timestamp) -> bool {
        let at = self.times.get(&(slot, Arc::from(lookup)));
        at.is_some_and(|at| now.duration_since(*at) < KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_loss_is_known_for_a_while_and_until_it_is_made_good() {
        let (mut lost, image) = (Lost::default(), Arc::from("docker.io/library/a:1"));
        lost.note(1, &image, at(0));
        assert!(lost.is_lost(1, &image, at(1_799)));
        assert!(!lost.is_lost(1, &image, at(1_800)), "too long ago");
        assert!(!lost.is_lost(2, &image, at(0)), "another node");
        lost.found(1, &image);
        assert!(!lost.is_lost(1, &image, at(1)));
        lost.note(1, &image, at(2));
        lost.forget(1);
        assert!(!lost.is_lost(1, &image, at(3)));
    }

    #[test]
    fn losses_are_bounded_and_the_newest_stay() {
        let mut lost = Lost::default();
        for number in 0..100_000 {
            lost.note(1, &Arc::from(format!("i{number}")), at(number / 1000));
        }
        assert!(lost.queue.len() <= MAX && lost.times.len() <= MAX);
        assert!(lost.is_lost(1, "i99999", at(100)));
    }
}
