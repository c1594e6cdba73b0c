//! Watches: what the API server tells, translated at the door and handed on. No object is kept.
//!
//! Enters: lists and changes. Leaves: small values, to whoever heeds them. Lists come in pages of bounded size and not as
//! streaming lists: the oldest cluster served (1.33) has those switched off, and refuses the request that asks. A watch
//! that is cut goes on where it was; one that is too old (410 Gone) begins with a new list, and whoever heeds it must find
//! out what has vanished meanwhile: that is [`Roll`].

mod shared;
pub mod trouble;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::metrics::Metrics;

pub use self::shared::{namespaces, nodes, policies, records};

/// What takes the changes of one watch. It may wait, and the watch then waits with it.
pub trait Heed<K>: Send {
    fn heed(&mut self, event: Event<K>) -> impl Future<Output = ()> + Send;
}

/// An error is said when it begins, and then this seldom.
const SAID_AGAIN: Duration = Duration::from_secs(300);

/// Watches for ever. Errors are followed by a new try, after a growing while with jitter.
pub async fn follow<K>(what: &'static str, api: Api<K>, config: Config, metrics: Arc<Metrics>, mut heed: impl Heed<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut changes = std::pin::pin!(watcher(api, config).default_backoff());
    let mut said: Option<Instant> = None;
    while let Some(change) = changes.next().await {
        match change {
            // The beginning of a list says nothing of its success.
            Ok(Event::Init) => heed.heed(Event::Init).await,
            Ok(change) => {
                if said.take().is_some() {
                    tracing::info!(watch = what, "watch goes on");
                }
                heed.heed(change).await;
            }
            Err(error) => {
                metrics.watch_failed(what);
                if said.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                    tracing::warn!(watch = what, %error, "watch failed, trying again");
                    said = Some(Instant::now());
                }
            }
        }
    }
}

/// Who is there: so that after a new list it is known who is not.
#[derive(Debug)]
pub struct Roll<T> {
    present: BTreeSet<T>,
    missing: BTreeSet<T>,
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self { present: BTreeSet::new(), missing: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Roll<T> {
    /// A new list begins.
    pub fn begin(&mut self) {
        self.missing.clone_from(&self.present);
    }

    /// It is on the list, whether it was known or not.
    pub fn answer(&mut self, who: &T) {
        self.missing.remove(who);
    }

    pub fn enter(&mut self, who: T) {
        self.missing.remove(&who);
        self.present.insert(who);
    }

    /// Whether it was there.
    pub fn leave(&mut self, who: &T) -> bool {
        self.missing.remove(who);
        self.present.remove(who)
    }

    /// The list is at its end: those that were there before and are not on it.
    pub fn vanished(&mut self) -> BTreeSet<T> {
        let vanished = std::mem::take(&mut self.missing);
        self.present.retain(|who| !vanished.contains(who));
        vanished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_tells_who_has_vanished() {
        let mut roll = Roll::default();
        for who in ["a", "b", "c"] {
            roll.enter(who);
        }
        assert!(roll.leave(&"c"));
        roll.begin();
        roll.answer(&"a");
        roll.enter("d");
        assert_eq!(roll.vanished(), BTreeSet::from(["b"]));
        roll.begin();
        assert_eq!(roll.vanished(), BTreeSet::from(["a", "d"]));
    }

    #[test]
    fn a_list_that_breaks_off_and_begins_again_loses_nobody() {
        let mut roll = Roll::default();
        roll.enter("a");
        roll.begin();
        roll.enter("b");
        roll.begin();
        roll.answer(&"b");
        assert_eq!(roll.vanished(), BTreeSet::from(["a"]));
    }
}
