//! The ledger's own sense of time, which only ever goes forward and never far at once.
//!
//! Enters: wall-clock times, in whatever order they come. Leaves: moments to measure waiting by.
//!
//! Why not compare wall-clock times: a clock that jumps back an hour would make every grace an hour longer, and one that
//! jumps ahead would convict every pod that has just begun to wait. So a jump back counts as nothing, and a jump ahead
//! as [`LONGEST_STEP`] at most; the shell asks for a plan more often than that while anything is pending.

use std::time::Duration;

use jiff::Timestamp;

/// The most that time advances between two looks at it.
pub const LONGEST_STEP: Duration = Duration::from_secs(20);

/// A point in the ledger's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// How long after another, at least nothing.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How long before `later` a time is, at least nothing.
pub fn elapsed(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// A time later by a duration; the end of time where that is beyond it.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A time as the API keeps it, in whole seconds: the one before.
pub fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() - i64::from(at.subsec_nanosecond() < 0)).unwrap_or(at)
}

/// The next whole second: what a clock is made of again must not be earlier than it was.
pub fn next_second(at: Timestamp) -> Timestamp {
    let down = whole_second(at);
    if down == at { at } else { later(down, Duration::from_secs(1)) }
}

#[derive(Clone, Debug, Default)]
pub struct Pace {
    wall: Option<Timestamp>,
    now: Moment,
}

impl Pace {
    /// Takes notice of the time.
    pub fn tick(&mut self, wall: Timestamp) -> Moment {
        if let Some(last) = self.wall {
            self.now = self.now.plus(elapsed(last, wall).min(LONGEST_STEP));
        }
        self.wall = Some(wall);
        self.now
    }

    pub fn now(&self) -> Moment {
        self.now
    }

    /// The moment of a time in the past; one in the future is now.
    pub fn at(&self, wall: Timestamp) -> Moment {
        self.now.minus(self.wall.map_or(Duration::ZERO, |now| elapsed(wall, now)))
    }

    /// The time of a moment in the past, as the wall clock now stands.
    pub fn wall(&self, moment: Moment) -> Timestamp {
        let now = self.wall.unwrap_or(Timestamp::UNIX_EPOCH);
        now.checked_sub(self.now.since(moment)).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    #[test]
    fn a_clock_that_jumps_adds_a_step_at_most_and_never_takes_away() {
        let mut pace = Pace::default();
        let start = pace.tick(at(0));
        assert_eq!(pace.tick(at(10)).since(start), Duration::from_secs(10));
        assert_eq!(pace.tick(at(-3600)).since(start), Duration::from_secs(10));
        assert_eq!(pace.tick(at(20)).since(start), Duration::from_secs(30), "an hour back and forth is one step");
    }

    #[test]
    fn a_time_in_the_future_is_now() {
        let mut pace = Pace::default();
        pace.tick(at(100));
        assert_eq!(pace.at(at(4000)), pace.now());
        assert_eq!(pace.now().since(pace.at(at(40))), Duration::from_secs(60));
        assert_eq!(pace.wall(pace.at(at(40))), at(40));
    }
}
