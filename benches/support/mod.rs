//! What the benchmarks share: a made-up cluster, reviews as the API server sends them, and a table of figures.
//!
//! Enters: numbers of a generator that is the same in every run. Leaves: nodes, policies, pods and reviews of the size
//! that the design names. Nothing here is measured.

#![allow(dead_code, clippy::allow_attributes, reason = "each benchmark uses a part of it")]

pub mod api;
pub mod cluster;
pub mod figures;
pub mod machine;
pub mod objects;
pub mod stand;

/// A small generator of our own: the same numbers in every run.
#[derive(Clone, Debug)]
pub struct Lots(pub u64);

impl Lots {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % below
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.next(times) == 0
    }
}
