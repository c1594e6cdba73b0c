//! Since when nodes list the names that they list.
//!
//! Enters: additions to nodes' lists, with the time at which we saw them. Leaves: since when at the latest a pair of node
//! and name is listed. Only the runtime half asks, to tell "not there" from "there, but hidden from this pod".
//!
//! A time for each of a million pairs would cost more than the whole index. So only recent additions have their own; of
//! all others it is known that they are older than the newest one we have forgotten ([`Recent::horizon`]). The answer may
//! be too late, never too early: "listed for longer than the list's lag" is never said wrongly. For "it has just come" too
//! late is wrong: that is only said of an addition that was seen ([`Recent::began`]).

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// Longer than any list's lag (some 40 s) by far.
const KEPT: SignedDuration = SignedDuration::from_mins(10);

/// 28 bytes each, twice: at most some 4 MiB.
const MAX: usize = 65_536;

#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    times: HashMap<(u32, u32), Timestamp>,
    queue: VecDeque<(Timestamp, u32, u32)>,
    horizon: Option<Timestamp>,
}

impl Recent {
    pub fn added(&mut self, slot: u32, number: u32, now: Timestamp) {
        self.times.insert((slot, number), now);
        self.queue.push_back((now, slot, number));
        self.expire(now);
    }

    pub fn removed(&mut self, slot: u32, number: u32) {
        self.times.remove(&(slot, number));
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((at, slot, number)) = self.queue.front().copied() {
            if self.queue.len() <= MAX && now.duration_since(at) < KEPT {
                break;
            }
            self.queue.pop_front();
            // An entry of the queue may be of an addition that was undone since, or undone and done again.
            if self.times.get(&(slot, number)) == Some(&at) {
                self.times.remove(&(slot, number));
                self.horizon = self.horizon.max(Some(at));
            }
        }
    }

    /// When the node was seen to begin to list the name. `None`: it lists it since its first sight, or since too long ago.
    pub fn began(&self, slot: u32, number: u32) -> Option<Timestamp> {
        self.times.get(&(slot, number)).copied()
    }

    /// `known`: when the node itself was first seen.
    pub fn since(&self, slot: u32, number: u32, known: Timestamp) -> Timestamp {
        match (self.times.get(&(slot, number)), self.horizon) {
            (Some(at), _) => *at,
            (None, Some(horizon)) => horizon.max(known),
            (None, None) => known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_recent_addition_has_its_own_time_and_the_others_are_never_dated_too_early() {
        let mut recent = Recent::default();
        recent.added(1, 1, at(100));
        recent.added(1, 2, at(200));
        assert_eq!(recent.since(1, 2, at(0)), at(200));
        assert_eq!(recent.since(1, 3, at(0)), at(0));
        recent.added(2, 9, at(750));
        assert_eq!(recent.since(1, 1, at(0)), at(100), "forgotten, and the horizon is its own time");
        assert_eq!(recent.since(1, 3, at(0)), at(100), "too late, never too early");
        assert_eq!(recent.since(3, 3, at(500)), at(500));
        assert_eq!(recent.began(1, 2), Some(at(200)));
        assert_eq!((recent.began(1, 1), recent.began(1, 3)), (None, None), "the horizon is nobody's beginning");
    }

    #[test]
    fn additions_are_bounded() {
        let mut recent = Recent::default();
        for number in 0..200_000 {
            recent.added(1, number, at(i64::from(number / 1000)));
        }
        assert!(recent.queue.len() <= MAX && recent.times.len() <= MAX);
        assert!(recent.since(1, 5, at(0)) >= at(100), "the bound moved the horizon");
    }
}
