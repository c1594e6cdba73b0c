//! The kubelets of nodes that are objects only.
//!
//! Enters: which images are there, and what registries say of others. Leaves: the statuses that a kubelet writes of a pod
//! whose image is not: waiting, then, past its deadline, Failed; and of one whose image is: running.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const LOOK: Duration = Duration::from_millis(150);

/// What becomes of an image.
#[derive(Clone, Debug)]
enum Pull {
    Present,
    Fails(String),
}

type Pulls = BTreeMap<String, Pull>;

/// Plays the kubelets in one namespace until it is dropped. An image that it was told nothing of is on no node.
pub struct Puppet {
    pulls: Arc<Mutex<Pulls>>,
    task: JoinHandle<()>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Puppet {
    pub fn play(client: Client, namespace: &str) -> Self {
        let pulls: Arc<Mutex<Pulls>> = Arc::default();
        let (pods, known): (Api<Pod>, _) = (Api::namespaced(client, namespace), Arc::clone(&pulls));
        let task = tokio::spawn(async move {
            loop {
                // The API server may be away: a kubelet goes on when it is back.
                let _at_the_next_look = look(&pods, &known).await;
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { pulls, task }
    }

    /// From now on the image is on every node.
    pub fn load(&self, image: &str) {
        self.set(image, Pull::Present);
    }

    /// Its pulls fail, with these words of the runtime.
    pub fn fail(&self, image: &str, words: &str) {
        self.set(image, Pull::Fails(words.to_owned()));
    }

    fn set(&self, image: &str, pull: Pull) {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).insert(image.to_owned(), pull);
    }
}

async fn look(pods: &Api<Pod>, pulls: &Mutex<Pulls>) -> Result<()> {
    let pulls = pulls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for pod in pods.list(&ListParams::default()).await?.items {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let over = |phase: &str| phase == "Failed" || phase == "Succeeded";
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() && over(&phase) {
            pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
            continue;
        }
        let Some(status) = status_of(&pod, &phase, &pulls) else { continue };
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await?;
    }
    Ok(())
}

/// What the kubelet would write now; `None`: it stands there already, or the pod is on no node.
fn status_of(pod: &Pod, phase: &str, pulls: &Pulls) -> Option<Value> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_ref()?;
    let image = spec.containers.first()?.image.clone()?;
    let ended = pod.metadata.deletion_timestamp.is_some() || spec.active_deadline_seconds == Some(1);
    let waits = waiting_reason(pod).is_some();
    match phase {
        "Failed" | "Succeeded" => None,
        _ if ended => Some(json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses":
            [container(&image, json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}), false)]})),
        "Running" => None,
        _ => match pulls.get(&image) {
            Some(Pull::Present) => Some(running(&image)),
            _ if waits => None,
            Some(Pull::Fails(words)) => Some(waiting(&image, "ErrImagePull", words)),
            None if image.contains(char::is_uppercase) => Some(invalid_name(&image)),
            None => Some(never_pull(&image)),
        },
    }
}

fn waiting_reason(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn container(image: &str, state: Value, started: bool) -> Value {
    json!({"name": "main", "image": image, "imageID": "", "ready": started, "started": started, "restartCount": 0, "state": state})
}

/// The word of a kubelet on an image that is not there.
pub fn never_pull(image: &str) -> Value {
    let message = format!("Container image \"{image}\" is not present with pull policy of Never");
    waiting(image, "ErrImageNeverPull", &message)
}

/// The word of a kubelet on what is no reference, which has nothing to do with any node.
fn invalid_name(image: &str) -> Value {
    let message = format!(
        "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format: \
         repository name must be lowercase"
    );
    waiting(image, "InvalidImageName", &message)
}

fn waiting(image: &str, reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({"phase": "Pending", "startTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "containerStatuses": [container(image, state, false)]})
}

fn running(image: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"phase": "Running", "startTime": now,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(image, json!({"running": {"startedAt": now}}), true)]})
}
