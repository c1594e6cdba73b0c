//! How much is done at most: per plan, and per minute in a namespace and in the cluster.
//!
//! Enters: the wish to do something, and the moment. Leaves: yes or no. What is refused is not lost: the state that asks for
//! it is still there at the next plan.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::moment::Moment;

const WINDOW: Duration = Duration::from_secs(60);

/// Bounds of one kind of effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    pub per_plan: usize,
    pub per_namespace_minute: usize,
    pub per_minute: usize,
}

/// What ends or deletes something is bounded tighter than what only tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `FailJob`, `FailPod`, `DeletePod`.
    pub acts: Cap,
    /// Records, marks, Events.
    pub notes: Cap,
    /// Owners looked up, templates judged.
    pub reads: Cap,
}

impl Default for Caps {
    /// The 55 pods of one task go in one minute; a namespace that fails as a whole gives a person the time to look.
    /// Notes are many more, so that 5,000 failures at once are all recorded within minutes.
    fn default() -> Self {
        Self {
            acts: Cap { per_plan: 50, per_namespace_minute: 100, per_minute: 300 },
            notes: Cap { per_plan: 250, per_namespace_minute: 6_000, per_minute: 9_000 },
            reads: Cap { per_plan: 250, per_namespace_minute: 6_000, per_minute: 9_000 },
        }
    }
}

/// Which bound was hit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hit {
    Plan,
    Namespace(String),
    Cluster,
}

/// What was spent within the last minute. A window that slides exactly, because a bucket that refills would let twice the
/// bound pass within one minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    in_plan: usize,
    all: VecDeque<Moment>,
    by_namespace: BTreeMap<String, VecDeque<Moment>>,
}

impl Meter {
    pub fn begin_plan(&mut self, now: Moment) {
        self.in_plan = 0;
        expire(&mut self.all, now);
        self.by_namespace.retain(|_, spent| {
            expire(spent, now);
            !spent.is_empty()
        });
    }

    pub fn spend(&mut self, cap: &Cap, namespace: &str, now: Moment) -> Result<(), Hit> {
        if self.in_plan >= cap.per_plan {
            return Err(Hit::Plan);
        }
        if self.all.len() >= cap.per_minute {
            return Err(Hit::Cluster);
        }
        let of_namespace = self.by_namespace.entry(namespace.to_owned()).or_default();
        if of_namespace.len() >= cap.per_namespace_minute {
            return Err(Hit::Namespace(namespace.to_owned()));
        }
        of_namespace.push_back(now);
        self.all.push_back(now);
        self.in_plan += 1;
        Ok(())
    }
}

fn expire(spent: &mut VecDeque<Moment>, now: Moment) {
    while spent.front().is_some_and(|first| now.since(*first) >= WINDOW) {
        spent.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::super::moment::Pace;
    use super::*;

    use jiff::Timestamp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_plan_and_no_minute_exceeds_its_bound_whatever_the_clock_does(jumps in prop::collection::vec(-5_000_i64..5_000, 1..60)) {
            let cap = Cap { per_plan: 5, per_namespace_minute: 8, per_minute: 12 };
            let (mut pace, mut meter, mut wall) = (Pace::default(), Meter::default(), Timestamp::UNIX_EPOCH);
            let mut granted: Vec<(Moment, &str)> = Vec::new();
            for jump in jumps {
                wall = wall.checked_add(jiff::SignedDuration::from_secs(jump)).unwrap_or(wall);
                let now = pace.tick(wall);
                meter.begin_plan(now);
                let mut in_plan = 0;
                for namespace in ["a", "b", "a", "b", "a", "a", "a", "b"] {
                    if meter.spend(&cap, namespace, now).is_ok() {
                        granted.push((now, namespace));
                        in_plan += 1;
                    }
                }
                prop_assert!(in_plan <= cap.per_plan);
                let recent: Vec<_> = granted.iter().filter(|(at, _)| now.since(*at) < WINDOW).collect();
                prop_assert!(recent.len() <= cap.per_minute);
                prop_assert!(recent.iter().filter(|(_, namespace)| *namespace == "a").count() <= cap.per_namespace_minute);
            }
        }
    }
}
