//! Places for connections, in bounded number.
//!
//! Enters: connections, and whose turn it is on each. Leaves: a place for each that may stay, and a sign to those that
//! have to go. It must not know sockets or what is asked on them.
//!
//! Whoever makes us wait gives way to whoever comes, the longest wait first: so thousands of silent, slow or idle clients
//! leave room for the API server's next call. Where it is our turn (a whole review has come, or it waits for room of ours)
//! nobody is sent away: an honest rush of reviews waits and is answered. See `docs/adr/0007`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// Whose turn it is on a connection, and since when.
#[derive(Clone, Debug)]
pub struct Turn(Arc<Mutex<TurnState>>);

#[derive(Clone, Copy, Debug)]
struct TurnState {
    since: Instant,
    /// Pieces of work on our side; none: the peer has to send something.
    ours: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(TurnState { since: Instant::now(), ours: 0 })))
    }
}

impl Turn {
    /// The peer has done its part, or we ours: the wait for the peer begins anew.
    pub fn begin(&self) {
        lock(&self.0).since = Instant::now();
    }

    /// It is our turn as long as this is held.
    pub fn ours(&self) -> Ours {
        lock(&self.0).ours += 1;
        Ours(self.clone())
    }

    /// Since when we wait for the peer.
    fn waiting_since(&self) -> Option<Instant> {
        let TurnState { since, ours } = *lock(&self.0);
        (ours == 0).then_some(since)
    }
}

/// Work of ours on a connection.
#[derive(Debug)]
pub struct Ours(Turn);

impl Drop for Ours {
    fn drop(&mut self) {
        let Self(turn) = self;
        let mut state = lock(&turn.0);
        state.ours = state.ours.saturating_sub(1);
        state.since = Instant::now();
    }
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of places.
#[derive(Clone, Debug)]
pub struct Places {
    capacity: usize,
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Sitting>,
}

#[derive(Debug)]
struct Sitting {
    turn: Turn,
    leave: oneshot::Sender<()>,
}

impl Places {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, free: Arc::new(Semaphore::new(capacity)), taken: Arc::default() }
    }

    /// A place at once; if there are too many then, whoever has waited longest has to go.
    pub fn crowd_in(&self) -> Place {
        let place = self.place(None);
        if lock(&self.taken).by.len() > self.capacity {
            self.dismiss(Duration::ZERO);
        }
        place
    }

    /// A place when one is free. Meanwhile those who have made us wait longer than `patience` have to go.
    pub async fn sit(&self, patience: Duration) -> Place {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let mut free = Arc::clone(&self.free).acquire_owned().boxed();
        loop {
            match timeout(LOOK_AGAIN, &mut free).await {
                // The semaphore is never closed.
                Ok(permit) => return self.place(permit.ok()),
                Err(_) => self.dismiss(patience),
            }
        }
    }

    fn place(&self, permit: Option<OwnedSemaphorePermit>) -> Place {
        let (leave, told) = oneshot::channel();
        let turn = Turn::default();
        let mut taken = lock(&self.taken);
        let number = taken.next;
        taken.next += 1;
        taken.by.insert(number, Sitting { turn: turn.clone(), leave });
        Place { number, turn, told, dismissed: false, taken: Arc::clone(&self.taken), _permit: permit }
    }

    fn dismiss(&self, patience: Duration) {
        let now = Instant::now();
        let mut taken = lock(&self.taken);
        let waited = taken.by.iter().filter_map(|(number, sitting)| Some((sitting.turn.waiting_since()?, *number)));
        let longest = waited.min().filter(|(since, _)| now.saturating_duration_since(*since) >= patience);
        if let Some(sitting) = longest.and_then(|(_, number)| taken.by.remove(&number)) {
            // Whoever is gone already need not be told.
            let _ = sitting.leave.send(());
        }
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    turn: Turn,
    told: oneshot::Receiver<()>,
    dismissed: bool,
    taken: Arc<Mutex<Taken>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Ready once it has to be left, and from then on.
    pub fn poll_dismissed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.dismissed {
            self.dismissed = self.told.poll_unpin(context).is_ready();
        }
        if self.dismissed { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dismissed(place: &mut Place) -> bool {
        std::future::poll_fn(|context| Poll::Ready(place.poll_dismissed(context).is_ready())).now_or_never()
            == Some(true)
    }

    const A_WHILE: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn who_has_waited_longest_goes_when_there_is_a_crowd() {
        let places = Places::new(2);
        let (mut first, mut second) = (places.crowd_in(), places.crowd_in());
        tokio::time::sleep(A_WHILE).await;
        first.turn().begin();
        let mut third = places.crowd_in();
        assert!(dismissed(&mut second), "the first has been heard of since");
        assert!(dismissed(&mut second), "and it stays so");
        assert!(!dismissed(&mut first) && !dismissed(&mut third));
    }

    #[tokio::test]
    async fn nobody_goes_while_there_is_a_place() {
        let places = Places::new(2);
        let mut first = places.sit(Duration::ZERO).await;
        tokio::time::sleep(A_WHILE).await;
        let _second = places.sit(Duration::ZERO).await;
        assert!(!dismissed(&mut first));
    }

    #[tokio::test]
    async fn a_place_is_waited_for_while_it_is_our_turn_everywhere() {
        let places = Places::new(1);
        let mut busy = places.sit(Duration::ZERO).await;
        let ours = busy.turn().ours();
        assert!(timeout(Duration::from_millis(300), places.sit(Duration::ZERO)).await.is_err());
        assert!(!dismissed(&mut busy));
        drop(ours);
        let patience = Duration::from_secs(60);
        assert!(timeout(Duration::from_millis(300), places.sit(patience)).await.is_err());
        assert!(!dismissed(&mut busy), "it has just been answered");
        assert!(timeout(Duration::from_millis(300), places.sit(A_WHILE)).await.is_err());
        assert!(dismissed(&mut busy));
        drop(busy);
        assert!(timeout(A_WHILE, places.sit(patience)).await.is_ok());
    }
}
