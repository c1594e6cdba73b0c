//! When to try again what has just failed.
//!
//! Enters: failures, one after the other. Leaves: a time before which it is not tried. Without it a plan, which comes within
//! milliseconds of every outcome, would ask for the same again and again as long as the API server is away.

use std::time::Duration;

use super::moment::Moment;

const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// Not before.
    pub until: Moment,
    /// In a row.
    setbacks: u32,
}

impl Patience {
    pub fn set_back(&mut self, now: Moment) {
        self.setbacks = self.setbacks.saturating_add(1);
        self.until = now.plus(pause(self.setbacks));
    }
}

/// After so many failures in a row: 1, 2, 4 s and so on.
pub(super) fn pause(setbacks: u32) -> Duration {
    Duration::from_secs(1_u64 << setbacks.saturating_sub(1).min(6)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|setbacks| pause(setbacks).as_secs()).to_vec();
        assert_eq!(pauses, [1, 1, 2, 4, 32, 60, 60, 60]);
    }
}
