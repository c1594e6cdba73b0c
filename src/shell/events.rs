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
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::metrics::{Metrics, Telling};
use crate::k8s::event::{Notice, Reporter, body};

/// Some 2 KiB each. More at once than the API server writes in a minute is nobody's reading.
const QUEUE: usize = 1024;
/// Enough to tell of 500 tasks within seconds, and few enough to leave the API server to others.
const WRITERS: usize = 4;
/// The same notice within this time is told once.
const SAME: Duration = Duration::from_secs(60);
/// How many notices are remembered to know the same again; beyond, the oldest half is forgotten and may be told twice.
const REMEMBERED: usize = 4096;
/// What the webhook tells of one namespace at once, and one more after each [`DRIP`]: whoever has a Deployment of ten
/// thousand pods refused reads the first few, and the numbers are in the metrics.
const BURST: u32 = 25;
const DRIP: Duration = Duration::from_secs(1);
/// Namespaces of which something was told of late; beyond, nothing is told of another until some are quiet.
const NAMESPACES: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between the tries of a notice that names its Event: some 2 min, in which an API server has started again.
const PAUSES: [Duration; 8] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(60),
];
/// Notices between two tries, as many as the queue holds: beyond, one is lost as if it had not been tried again.
const PAUSING: usize = QUEUE;

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
        let desks = &Desks { writing: Semaphore::new(WRITERS), pausing: Semaphore::new(PAUSING) };
        // Whoever pauses keeps its place here, so there is one more for each writer.
        let places = WRITERS + PAUSING;
        fresh.for_each_concurrent(places, |notice| write(client, notice, instance, metrics, desks)).await;
    }
}

/// How many write at once, and how many wait to write again: those who wait are in nobody's way.
#[derive(Debug)]
struct Desks {
    writing: Semaphore,
    pausing: Semaphore,
}

/// Why an Event was not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("not written within {} s", TIMEOUT.as_secs())]
    Late,
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl Unwritten {
    /// Whether the API server could not, rather than would not.
    fn passes(&self) -> bool {
        match self {
            Self::Late => true,
            Self::Kube(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
            Self::Kube(kube::Error::Service(_) | kube::Error::HyperError(_)) => true,
            Self::Kube(_) => false,
        }
    }
}

/// Writes an Event, once. What tells of a decision of the runtime half is tried again while the API server is away: its
/// ledger has ticked it off. It names its Event, so that a second try creates no twin; others, which do not, have one try.
async fn write(client: &Client, notice: Notice, instance: &str, metrics: &Metrics, desks: &Desks) {
    let api: Api<Event> = Api::namespaced(client.clone(), &notice.namespace);
    let event = body(&notice, instance, Timestamp::now());
    let mut pauses = PAUSES.iter().filter(|_| notice.key.is_some());
    loop {
        let unwritten = {
            let _turn = desks.writing.acquire().await;
            match create(&api, &event).await {
                Ok(telling) => return metrics.told(telling),
                Err(unwritten) => unwritten,
            }
        };
        let pause = pauses.next().filter(|_| unwritten.passes());
        let Some((pause, _place)) = pause.zip(desks.pausing.try_acquire().ok()) else {
            tracing::warn!(ns = notice.namespace, reason = %notice.reason, error = %unwritten, "event not written");
            return metrics.told(Telling::Refused);
        };
        tracing::debug!(ns = notice.namespace, reason = %notice.reason, error = %unwritten, "event not written yet");
        tokio::time::sleep(*pause).await;
    }
}

async fn create(api: &Api<Event>, event: &Event) -> Result<Telling, Unwritten> {
    match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), event)).await {
        Ok(Ok(_)) => Ok(Telling::Created),
        // Named by what it tells: a restart, the other leader, or a try whose answer was lost, was first.
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(Telling::Coalesced),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Unwritten::Late),
    }
}

/// What was told of late.
#[derive(Debug, Default)]
struct Told {
    notices: BTreeMap<[u8; 16], Instant>,
    /// Until when a namespace has spent what drips.
    spent: BTreeMap<String, Instant>,
    /// When those that are full again were last forgotten: a look at all of them is not for each notice.
    swept: Option<Instant>,
}

impl Told {
    fn is_new(&mut self, notice: &Notice, now: Instant) -> bool {
        let digest = digest(notice);
        if self.notices.get(&digest).is_some_and(|at| now.duration_since(*at) < SAME) {
            return false;
        }
        match notice.reporter {
            // A person who has a thousand pods refused must not fill the cluster's store of Events.
            Reporter::Webhook if !self.may_spend(&notice.namespace, now) => return false,
            // Its acts have caps of their own, and each of them is told.
            Reporter::Webhook | Reporter::Controller => {}
        }
        self.remember(digest, now);
        true
    }

    /// A bucket of [`BURST`] for each namespace, kept as the time at which it is full again.
    fn may_spend(&mut self, namespace: &str, now: Instant) -> bool {
        if self.spent.len() >= NAMESPACES && !self.spent.contains_key(namespace) {
            if self.swept.is_none_or(|at| now.duration_since(at) >= DRIP) {
                self.spent.retain(|_, full| *full > now);
                self.swept = Some(now);
            }
            if self.spent.len() >= NAMESPACES {
                return false;
            }
        }
        let full = self.spent.get(namespace).map_or(now, |full| (*full).max(now));
        if full.duration_since(now) > DRIP * (BURST - 1) {
            return false;
        }
        self.spent.insert(namespace.to_owned(), full + DRIP);
        true
    }

    fn remember(&mut self, digest: [u8; 16], now: Instant) {
        if self.notices.len() >= REMEMBERED {
            self.notices.retain(|_, at| now.duration_since(*at) < SAME);
        }
        if self.notices.len() >= REMEMBERED {
            let mut times: Vec<Instant> = self.notices.values().copied().collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.notices.retain(|_, at| *at > median);
        }
        self.notices.insert(digest, now);
    }
}

/// What makes two notices the same. Of the webhook's not the note: the pods of a DaemonSet differ in their only candidate
/// node, and are one trouble.
fn digest(notice: &Notice) -> [u8; 16] {
    let mut hash = Sha256::new();
    let regarding = &notice.regarding;
    let subject = match notice.reporter {
        Reporter::Webhook => {
            [notice.image.as_str(), notice.related.as_ref().map_or("", |related| related.name.as_str())]
        }
        Reporter::Controller => [notice.note.as_str(), notice.key.as_deref().unwrap_or_default()],
    };
    let parts = [
        notice.reporter.as_str(),
        &notice.namespace,
        &regarding.kind,
        &regarding.name,
        &regarding.uid,
        notice.reason.as_str(),
        notice.action,
    ];
    for part in parts.into_iter().chain(subject) {
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
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::body::Body;
    use axum::http::{Request, Response};
    use kube::client::Body as Sent;

    use super::*;
    use crate::core::reason::Reason;
    use crate::core::runtime::effect::{EventType, ObjectRef};
    use crate::k8s::event::Reporter;

    fn notice(name: &str, note: &str) -> Notice {
        let regarding = ObjectRef {
            api_version: "apps/v1".into(),
            kind: "DaemonSet".into(),
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
            image: "agent:1".into(),
            key: None,
        }
    }

    fn of_controller(note: &str) -> Notice {
        Notice { reporter: Reporter::Controller, ..notice("a", note) }
    }

    #[test]
    fn the_pods_of_a_daemonset_are_told_of_once_a_minute_whichever_nodes_they_are_for() {
        let (mut told, start) = (Told::default(), Instant::now());
        let new = (0..5_000).filter(|node| told.is_new(&notice("a", &format!("node-{node}")), start)).count();
        assert_eq!(new, 1);
        let another_image = Notice { image: "agent:2".into(), ..notice("a", "node-1") };
        assert!(told.is_new(&another_image, start));
        assert!(!told.is_new(&notice("a", "node-1"), start + Duration::from_secs(59)));
        assert!(told.is_new(&notice("a", "node-1"), start + SAME));
    }

    #[test]
    fn two_notes_of_the_controller_are_two() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_new(&of_controller("x"), start));
        assert!(told.is_new(&of_controller("y"), start));
        assert!(!told.is_new(&of_controller("x"), start));
    }

    #[test]
    fn of_one_namespace_twenty_five_are_told_at_once_and_then_one_a_second() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut tell = |from: usize, at: Instant| {
            (from..from + 1_000).filter(|number| told.is_new(&notice(&number.to_string(), "x"), at)).count()
        };
        assert_eq!(tell(0, start), 25);
        assert_eq!(tell(1_000, start), 0);
        assert_eq!(tell(2_000, start + Duration::from_secs(3)), 3);
        assert_eq!(tell(3_000, start + Duration::from_secs(3_600)), 25);
        let elsewhere = Notice { namespace: "other".into(), ..notice("a", "x") };
        assert!(told.is_new(&elsewhere, start), "another namespace has its own");
    }

    #[test]
    fn what_was_not_told_for_want_of_room_is_told_when_there_is_some() {
        let (mut told, start) = (Told::default(), Instant::now());
        for number in 0..30 {
            told.is_new(&notice(&number.to_string(), "x"), start);
        }
        assert!(told.is_new(&notice("29", "x"), start + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut told, start) = (Told::default(), Instant::now());
        for number in 0..20_000_u64 {
            let at = start + Duration::from_micros(number);
            told.is_new(&of_controller(&number.to_string()), at);
            told.is_new(&Notice { namespace: number.to_string(), ..notice("a", "x") }, at);
            assert!(told.notices.len() <= REMEMBERED && told.spent.len() <= NAMESPACES);
        }
    }

    #[test]
    fn a_full_queue_drops_and_never_blocks() {
        let (events, _writer) = channel(Arc::default());
        let taken = (0..QUEUE + 10).filter(|number| events.tell(notice(&number.to_string(), "x"))).count();
        assert_eq!(taken, QUEUE);
        assert!(events.metrics.encode().contains("pullguard_events_total{result=\"Dropped\"} 10"));
    }

    /// An API server that gives these answers, one after the other, the last for ever. Gives the texts of the metrics.
    async fn tell_to(answers: &'static [u16], notices: Vec<Notice>) -> (String, usize) {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Sent>| {
            let mut asked = count.lock().expect("nobody panics");
            let code = answers[(*asked).min(answers.len() - 1)];
            *asked += 1;
            let answer = if code < 300 {
                serde_json::json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}, "eventTime": null })
            } else {
                serde_json::json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                    "message": "no", "reason": if code == 409 { "AlreadyExists" } else { "" } })
            };
            let response = Response::builder().status(code).body(Body::from(answer.to_string()));
            async move { Ok::<_, Infallible>(response.expect("a response")) }
        });
        let (events, writer) = channel(Arc::default());
        notices.into_iter().for_each(|notice| assert!(events.tell(notice)));
        let metrics = Arc::clone(&events.metrics);
        drop(events);
        writer.run(Client::new(service, "default"), "i".to_owned()).await;
        let asked = *asked.lock().expect("nobody panics");
        (metrics.encode(), asked)
    }

    fn named(name: &str) -> Notice {
        Notice { key: Some(name.to_owned()), reporter: Reporter::Controller, ..notice(name, "x") }
    }

    #[tokio::test]
    async fn what_the_runtime_half_tells_is_tried_again_while_the_api_server_cannot() {
        let (metrics, asked) = tell_to(&[503, 429, 201], vec![named("a")]).await;
        assert_eq!(asked, 3);
        assert!(metrics.contains("pullguard_events_total{result=\"Created\"} 1"), "{metrics}");
        let (metrics, asked) = tell_to(&[504, 409], vec![named("a")]).await;
        assert_eq!(asked, 2);
        assert!(metrics.contains("pullguard_events_total{result=\"Coalesced\"} 1"), "the first try had come through");
    }

    #[tokio::test]
    async fn what_is_refused_and_what_has_no_name_is_tried_once() {
        let (metrics, asked) = tell_to(&[403], vec![named("a"), named("b")]).await;
        assert_eq!(asked, 2);
        assert!(metrics.contains("pullguard_events_total{result=\"Refused\"} 2"), "{metrics}");
        let (_, asked) = tell_to(&[503, 201], vec![notice("a", "x")]).await;
        assert_eq!(asked, 1);
    }

    #[tokio::test]
    async fn those_that_wait_to_be_tried_again_are_in_nobodys_way() {
        const TROUBLED: usize = WRITERS * 12;
        let troubled = (0..TROUBLED).map(|number| named(&number.to_string()));
        let answers: Vec<u16> = [503; TROUBLED].into_iter().chain([201]).collect();
        let last = named("last");
        let begun = Instant::now();
        let (metrics, asked) = tell_to(answers.leak(), troubled.chain([last]).collect()).await;
        assert_eq!(asked, TROUBLED * 2 + 1);
        assert!(metrics.contains("pullguard_events_total{result=\"Created\"} 49"), "{metrics}");
        assert!(begun.elapsed() < PAUSES[0] * 6, "all paused at once: {:?}", begun.elapsed());
    }

    #[test]
    fn the_tries_take_some_two_minutes() {
        let all: Duration = PAUSES.iter().sum();
        assert!(all > Duration::from_secs(100) && all < Duration::from_secs(150), "{all:?}");
    }
}
