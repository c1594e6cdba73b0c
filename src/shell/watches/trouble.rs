//! The watches of the runtime half: pods, Events, and the records once more.
//!
//! Enters: changes. Leaves: kubelets' words for the inventory, on every replica; and on the leader the inputs of its
//! ledger, on a bounded queue that makes the watch wait. A healthy pod leaves no trace here: what is remembered are the
//! uids of pods in trouble, to tell after a new list which of them have vanished.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Event as CoreEvent;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

use super::{Heed, Roll, follow};
use crate::core::cause::{Diagnosis, FailureClass, Words, classify};
use crate::core::image::ImageName;
use crate::core::inventory::{Access, Inventory};
use crate::core::refusal::Refusals;
use crate::core::runtime::sight::{ContainerState, PodSight, RecordSight};
use crate::k8s::crd::PullFailure;
use crate::k8s::record;
use crate::k8s::sight::{self, Evidence, NEVER_PULL_REASON};
use crate::k8s::watched::WatchedPod;
use crate::shell::metrics::Metrics;
use crate::shell::world::World;

/// Pods of a page are held decoded, some 5 KiB each.
const PAGE: u32 = 500;

/// What the ledger is told.
#[derive(Clone, Debug)]
pub enum Input {
    Pod(Box<PodSight>),
    PodGone {
        uid: String,
    },
    /// The first list is complete, or a later one.
    PodsListed,
    Evidence(Evidence),
    Record(Box<RecordSight>),
    RecordGone {
        namespace: String,
        name: String,
    },
    RecordsListed,
}

/// One watch of Events: the API server selects by one reason at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventReason {
    PullFailed,
    PullSecretMissing,
    InspectFailed,
    /// Of Jobs: their pods were denied.
    CreateFailed,
}

impl EventReason {
    pub const ALL: [Self; 4] = [Self::PullFailed, Self::PullSecretMissing, Self::InspectFailed, Self::CreateFailed];

    const fn name(self) -> &'static str {
        match self {
            Self::PullFailed => "events/Failed",
            Self::PullSecretMissing => "events/FailedToRetrieveImagePullSecret",
            Self::InspectFailed => "events/InspectFailed",
            Self::CreateFailed => "events/FailedCreate",
        }
    }

    const fn selector(self) -> &'static str {
        match self {
            Self::PullFailed => "reason=Failed,involvedObject.kind=Pod",
            Self::PullSecretMissing => "reason=FailedToRetrieveImagePullSecret,involvedObject.kind=Pod",
            Self::InspectFailed => "reason=InspectFailed,involvedObject.kind=Pod",
            Self::CreateFailed => "reason=FailedCreate,involvedObject.kind=Job",
        }
    }
}

/// Watches pods of every phase. `inputs`: where this replica leads.
pub async fn watch_pods<R>(
    client: Client,
    world: Arc<World<R>>,
    metrics: Arc<Metrics>,
    inputs: Option<mpsc::Sender<Input>>,
) where
    R: Refusals + Default + Send + Sync + 'static,
{
    let api: Api<WatchedPod> = Api::all(client);
    let heed = Pods { world, inputs, troubled: Roll::default() };
    follow("pods", api, Config::default().page_size(PAGE), metrics, heed).await;
}

pub async fn watch_events(client: Client, metrics: Arc<Metrics>, reason: EventReason, inputs: mpsc::Sender<Input>) {
    let api: Api<CoreEvent> = Api::all(client);
    let config = Config::default().page_size(PAGE).fields(reason.selector());
    follow(reason.name(), api, config, metrics, Events { inputs }).await;
}

pub async fn watch_records(client: Client, metrics: Arc<Metrics>, inputs: mpsc::Sender<Input>) {
    let api: Api<PullFailure> = Api::all(client);
    follow(
        "records/leader",
        api,
        Config::default().page_size(PAGE),
        metrics,
        Records { inputs, roll: Roll::default() },
    )
    .await;
}

/// Hands an input on. An error is the end of this replica's lead, and the watch is about to be dropped.
async fn hand_on(inputs: &mpsc::Sender<Input>, input: Input) {
    if inputs.send(input).await.is_err() {
        tracing::debug!("no longer leading");
    }
}

struct Pods<R> {
    world: Arc<World<R>>,
    inputs: Option<mpsc::Sender<Input>>,
    troubled: Roll<String>,
}

impl<R: Refusals + Default + Send + Sync + 'static> Pods<R> {
    async fn seen(&mut self, pod: WatchedPod) {
        let pod = sight::pod(pod);
        self.hear(&pod);
        let Some(inputs) = &self.inputs else { return };
        if sight::is_troubled(&pod) {
            self.troubled.enter(pod.uid.clone());
        } else {
            self.troubled.answer(&pod.uid);
        }
        hand_on(inputs, Input::Pod(Box::new(pod))).await;
    }

    /// `ErrImageNeverPull`: the kubelet has looked, and looks again every few seconds while the status stands.
    fn hear(&self, pod: &PodSight) {
        let Some(node) = &pod.node else { return };
        self.hear_starts(pod, node);
        for container in &pod.containers {
            let ContainerState::Waiting { reason, message } = &container.state else { continue };
            if reason != NEVER_PULL_REASON {
                continue;
            }
            // The image in the message: of an image volume it is not the container's.
            let image = pod.spec_of(container).map(|spec| spec.image.as_str());
            let Diagnosis::PullFailure(cause) = classify(&Words { reason, message, image }) else { continue };
            let name = cause.image.filter(|_| cause.class == FailureClass::NeverPull);
            let Some(Ok(ImageName::Reference(image))) = name.as_deref().map(ImageName::parse) else { continue };
            let now = self.world.now();
            let heard = self
                .world
                .change_inventory(|inventory| inventory.kubelet_denies(node, &image, Access::of(&pod.facts), now));
            tracing::debug!(node, image = %image, ?heard, "kubelet denies image");
        }
    }

    /// A container that has started has its image, whatever its kubelet said before.
    fn hear_starts(&self, pod: &PodSight, node: &str) {
        // Nearly always nothing was said, and pods change all the time.
        if self.world.read_inventory(Inventory::nothing_denied) {
            return;
        }
        let access = Access::of(&pod.facts);
        for container in &pod.containers {
            let image = pod.spec_of(container).and_then(|spec| spec.parsed.as_ref().ok()?.reference());
            let (Some(image), Some(started)) = (image, container.last_started) else { continue };
            let now = self.world.now();
            if self.world.read_inventory(|inventory| inventory.heard(node, image, &access, now).is_some()) {
                self.world.change_inventory(|inventory| inventory.container_started(node, image, &access, started));
                tracing::debug!(node, image = %image, "a container of a denied image has started");
            }
        }
    }

    async fn gone(&mut self, uid: String) {
        self.troubled.leave(&uid);
        if let Some(inputs) = &self.inputs {
            hand_on(inputs, Input::PodGone { uid }).await;
        }
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Heed<WatchedPod> for Pods<R> {
    async fn heed(&mut self, event: Event<WatchedPod>) {
        match event {
            Event::Init => self.troubled.begin(),
            Event::InitApply(pod) | Event::Apply(pod) => self.seen(pod).await,
            Event::InitDone => {
                for uid in self.troubled.vanished() {
                    self.gone(uid).await;
                }
                if let Some(inputs) = &self.inputs {
                    hand_on(inputs, Input::PodsListed).await;
                }
            }
            Event::Delete(pod) => self.gone(pod.uid().unwrap_or_default()).await,
        }
    }
}

struct Events {
    inputs: mpsc::Sender<Input>,
}

impl Heed<CoreEvent> for Events {
    async fn heed(&mut self, event: Event<CoreEvent>) {
        match event {
            Event::InitApply(event) | Event::Apply(event) => {
                if let Some(evidence) = sight::event(event) {
                    hand_on(&self.inputs, Input::Evidence(evidence)).await;
                }
            }
            // That an Event is forgotten unsays nothing.
            Event::Init | Event::InitDone | Event::Delete(_) => {}
        }
    }
}

struct Records {
    inputs: mpsc::Sender<Input>,
    roll: Roll<(String, String)>,
}

impl Records {
    async fn gone(&mut self, (namespace, name): (String, String)) {
        hand_on(&self.inputs, Input::RecordGone { namespace, name }).await;
    }
}

impl Heed<PullFailure> for Records {
    async fn heed(&mut self, event: Event<PullFailure>) {
        let key = |failure: &PullFailure| (failure.namespace().unwrap_or_default(), failure.name_any());
        match event {
            Event::Init => self.roll.begin(),
            Event::InitApply(failure) | Event::Apply(failure) => {
                let key = key(&failure);
                match record::sight(failure) {
                    Some(sight) => {
                        self.roll.enter(key);
                        hand_on(&self.inputs, Input::Record(Box::new(sight))).await;
                    }
                    None if self.roll.leave(&key) => self.gone(key).await,
                    None => {}
                }
            }
            Event::InitDone => {
                for key in self.roll.vanished() {
                    self.gone(key).await;
                }
                hand_on(&self.inputs, Input::RecordsListed).await;
            }
            Event::Delete(failure) => {
                let key = key(&failure);
                self.roll.leave(&key);
                self.gone(key).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::fixtures;
    use crate::core::runtime::recreation::Recreation;

    fn pod(name: &str, state: &serde_json::Value) -> WatchedPod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "apps", "uid": name},
            "spec": {"nodeName": "a", "containers": [{"name": "main", "image": "tool:1", "imagePullPolicy": "Never"}]},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]},
        }))
        .expect("a pod")
    }

    #[tokio::test]
    async fn what_a_kubelet_denied_is_there_once_a_container_of_it_has_started() {
        let world = Arc::new(World::<Recreation>::new(crate::core::inventory::InventorySettings::default()));
        world.change_inventory(|inventory| drop(inventory.apply(fixtures::node("a"), fixtures::now())));
        let mut pods = Pods { world: Arc::clone(&world), inputs: None, troubled: Roll::default() };
        let denied = || !world.read_inventory(Inventory::nothing_denied);
        let words = "Container image \"tool:1\" is not present with pull policy of Never";
        pods.seen(pod("first", &json!({"waiting": {"reason": NEVER_PULL_REASON, "message": words}}))).await;
        assert!(denied());
        let started = |at: &str| json!({"running": {"startedAt": at}});
        pods.seen(pod("older", &started("2020-01-01T00:00:00Z"))).await;
        assert!(denied(), "it had the image before it was removed");
        pods.seen(pod("first", &started("2100-01-01T00:00:00Z"))).await;
        assert!(!denied());
    }
}
