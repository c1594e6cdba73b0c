//! Telling: Events of both halves, written behind the backs of those who decide.
//!
//! Enters: notices, from the webhook and the controller, which never wait for this. Leaves: `events.k8s.io/v1` Events. The
//! queue is bounded and what does not fit is counted and dropped: an Event is a courtesy, an admission is not. kube's own
//! `Recorder` is not used because it takes two notes about one object for one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::metrics::{Metrics, Telling};
use crate::k8s::event::{Notice, body};

/// Some 2 KiB each. More at once than the API server writes in a minute is nobody's reading.
const QUEUE: usize = 1024;
/// Enough to tell of 500 tasks within seconds, and few enough to leave the API server to others.
const WRITERS: usize = 4;
/// The same notice within this time is told once.
const SAME: Duration = Duration::from_secs(60);
/// How many notices are remembered to know the same again; beyond, the oldest half is forgotten and may be told twice.
const REMEMBERED: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);

/// The door: cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

/// The other end, to be run.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Notice>,
    metrics: Arc<Metrics>,
}

pub fn channel(metrics: Arc<Metrics>) -> (Events, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Events { queue: sender, metrics: Arc::clone(&metrics) }, Writer { queue: receiver, metrics })
}

impl Events {
    /// Takes a notice; `false`: the queue is full, and nobody will hear of it.
    pub fn tell(&self, notice: Notice) -> bool {
        let taken = self.queue.try_send(notice).is_ok();
        if !taken {
            self.metrics.told(Telling::Dropped);
        }
        taken
    }
}

impl Writer {
    /// Writes until all doors are gone, then what is left. `instance` is the name of this replica's pod.
    pub async fn run(mut self, client: Client, instance: String) {
        let metrics = Arc::clone(&self.metrics);
        let mut told = Told::default();
        let (metrics, client, instance) = (&metrics, &client, &instance);
        let fresh = futures::stream::poll_fn(move |context| self.queue.poll_recv(context)).filter(move |notice| {
            let fresh = told.is_new(notice, Instant::now());
            if !fresh {
                metrics.told(Telling::Coalesced);
            }
            futures::future::ready(fresh)
        });
        fresh.for_each_concurrent(WRITERS, |notice| write(client, notice, instance, metrics)).await;
    }
}

async fn write(client: &Client, notice: Notice, instance: &str, metrics: &Metrics) {
    let api: Api<Event> = Api::namespaced(client.clone(), &notice.namespace);
    let event = body(&notice, instance, Timestamp::now());
    let telling = match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => Telling::Created,
        // Named by what it tells: a restart, or the other leader, was first.
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Telling::Coalesced,
        Ok(Err(error)) => {
            tracing::warn!(ns = notice.namespace, reason = %notice.reason, %error, "event not written");
            Telling::Refused
        }
        Err(_) => {
            tracing::warn!(ns = notice.namespace, reason = %notice.reason, "event not written in time");
            Telling::Refused
        }
    };
    metrics.told(telling);
}

/// What was told of late.
#[derive(Debug, Default)]
struct Told(BTreeMap<[u8; 16], Instant>);

impl Told {
    fn is_new(&mut self, notice: &Notice, now: Instant) -> bool {
        let digest = digest(notice);
        if self.0.get(&digest).is_some_and(|at| now.duration_since(*at) < SAME) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.duration_since(*at) < SAME);
        }
        if self.0.len() >= REMEMBERED {
            let mut times: Vec<Instant> = self.0.values().copied().collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.0.retain(|_, at| *at > median);
        }
        self.0.insert(digest, now);
        true
    }
}

fn digest(notice: &Notice) -> [u8; 16] {
    let mut hash = Sha256::new();
    let regarding = &notice.regarding;
    let parts = [
        notice.reporter.as_str(),
        &notice.namespace,
        &regarding.kind,
        &regarding.name,
        &regarding.uid,
        notice.reason.as_str(),
        notice.action,
        &notice.note,
        notice.key.as_deref().unwrap_or_default(),
    ];
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::reason::Reason;
    use crate::core::runtime::effect::{EventType, ObjectRef};
    use crate::k8s::event::Reporter;

    fn notice(name: &str, note: &str) -> Notice {
        let regarding = ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "default".into(),
            name: name.into(),
            uid: String::new(),
        };
        Notice {
            reporter: Reporter::Webhook,
            namespace: "default".into(),
            event_type: EventType::Warning,
            reason: Reason::ImageAbsent,
            action: "Deny",
            regarding,
            related: None,
            note: note.into(),
            key: None,
        }
    }

    #[test]
    fn the_same_is_told_once_a_minute_and_another_note_at_once() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_new(&notice("a", "x"), start));
        assert!(!told.is_new(&notice("a", "x"), start + Duration::from_secs(59)));
        assert!(told.is_new(&notice("a", "y"), start));
        assert!(told.is_new(&notice("a", "x"), start + SAME));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut told, start) = (Told::default(), Instant::now());
        for number in 0..20_000_u64 {
            told.is_new(&notice(&number.to_string(), "x"), start + Duration::from_micros(number));
            assert!(told.0.len() <= REMEMBERED);
        }
    }

    #[test]
    fn a_full_queue_drops_and_never_blocks() {
        let (events, _writer) = channel(Arc::default());
        let taken = (0..QUEUE + 10).filter(|number| events.tell(notice(&number.to_string(), "x"))).count();
        assert_eq!(taken, QUEUE);
        assert!(events.metrics.encode().contains("pullguard_events_total{result=\"Dropped\"} 10"));
    }
}
