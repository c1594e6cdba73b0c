//! How long an image of a task has failed, over all its pods.
//!
//! Enters: the troubles of its pods, starts of containers, what a record remembers. Leaves: since when, and since when
//! with nothing but a "no". It survives a maker that deletes its pods and makes them again.

use std::time::Duration;

use jiff::Timestamp;

use super::moment::Moment;
use super::pods::Trouble;

/// By how much the clocks of two machines may differ: what started a little before it began to fail started after.
const SKEW: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct ImageClock {
    /// The first failure, over all pods.
    since: Moment,
    /// Nothing before this counts: a container of the image started, a brake was released, a person deleted the record.
    floor: Moment,
    firm_since: Option<Moment>,
    not_found: Option<(Moment, Moment)>,
    last_start: Option<Timestamp>,
    pub last: Moment,
    /// A pod waits for it now.
    pub open: bool,
}

impl ImageClock {
    pub fn new(since: Moment, now: Moment) -> Self {
        Self { since, floor: since, firm_since: None, not_found: None, last_start: None, last: now, open: false }
    }

    pub fn since(&self) -> Moment {
        self.since.max(self.floor)
    }

    /// How long one pod has waited, of the time that counts.
    pub fn waited_by(&self, trouble: &Trouble, now: Moment) -> Duration {
        now.since(trouble.since.max(self.floor))
    }

    pub fn waited(&self, now: Moment) -> Duration {
        now.since(self.since())
    }

    /// What a record remembers from before this process: never later than what was seen, never before a floor that was
    /// set since.
    pub fn remember(&mut self, first: Moment, firm: Option<Moment>) {
        if self.floor == self.since {
            self.floor = self.floor.min(first);
        }
        self.since = self.since.min(first);
        if let Some(firm) = firm {
            self.firm_since = Some(self.firm_since.map_or(firm, |known| known.min(firm)));
        }
    }

    /// A container of the image has started: the clock begins anew from there. The same start is told again and again, and
    /// counts once. True: it was news.
    pub fn start(&mut self, wall: Timestamp, at: Moment) -> bool {
        let news = self.last_start.is_none_or(|last| wall > last) && at.plus(SKEW) >= self.since();
        if news {
            self.last_start = Some(wall);
            // Not from now on: a ledger that learns of it late must come to the same time as one that saw it.
            self.restart(at.max(self.floor));
        }
        news
    }

    pub fn restart(&mut self, now: Moment) {
        self.floor = now;
        self.firm_since = None;
        self.not_found = None;
    }

    /// Takes over what a pod's status tells.
    pub fn see(&mut self, trouble: &Trouble, now: Moment) {
        self.since = self.since.min(trouble.since);
        self.last = now;
        self.open = true;
        match (trouble.firm_since, &trouble.cause) {
            (Some(firm), _) => {
                let firm = firm.max(self.floor);
                self.firm_since = Some(self.firm_since.map_or(firm, |known| known.min(firm)));
            }
            // Told otherwise: what others said before is no longer beyond doubt.
            (None, Some(_)) => self.firm_since = None,
            (None, None) => {}
        }
        if let Some((first, last)) = trouble.not_found {
            let (first, last) = (first.max(self.floor), last.max(self.floor));
            let (known_first, known_last) = self.not_found.unwrap_or((first, last));
            self.not_found = Some((known_first.min(first), known_last.max(last)));
        }
    }

    /// For how long nothing but a "no" has been told, to this pod or to all.
    pub fn firm_for(&self, trouble: &Trouble, now: Moment) -> Duration {
        let own = trouble.firm_since.map(|firm| firm.max(self.floor));
        let earliest = [own, self.firm_since].into_iter().flatten().min();
        earliest.map_or(Duration::ZERO, |firm| now.since(firm))
    }

    /// When the pulls will have failed, or have, so far apart.
    pub fn apart_by(&self, trouble: &Trouble, distance: Duration, now: Moment) -> Apart {
        let Some((first, last)) = self.not_found else { return Apart::Never };
        if last.since(first) >= distance {
            return Apart::Seen;
        }
        // The kubelet tries again 10, 30, 70, 150 s after the first time and so on, later every 300 s, as long as the
        // pod waits. A watch may miss the moment; the words that stand there now are of the latest try. Its clock begins
        // with the pod's own first failure.
        let own = trouble.not_found.map_or(trouble.since, |(first, _)| first).max(self.floor);
        let mut tried = own;
        for step in RETRIES.iter().chain(std::iter::repeat(&LONGEST_BACKOFF)).take(64) {
            tried = tried.plus(*step);
            if tried.since(first) >= distance {
                let surely = tried.plus(RETRY_SLACK);
                return if surely <= now { Apart::Presumed } else { Apart::Expected(surely) };
            }
        }
        Apart::Never
    }
}

/// Two failed pulls, so far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    Seen,
    /// The kubelet must have tried again since.
    Presumed,
    Expected(Moment),
    Never,
}

const RETRIES: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
    Duration::from_secs(160),
];
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Pods are synced every 10 to 15 s, and a try takes a while, more where the registry is slow.
const RETRY_SLACK: Duration = Duration::from_secs(60);
