//! The brakes that a small cluster of real kubelets cannot show: a registry of which half of the pulls fail, and a node that
//! loses its store. With the product's own bounds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use pullguard::core::inventory::Inventory;
use pullguard::k8s::crd::{NodeImagePolicy, PullFailure};
use pullguard::shell::world::Clock;
use serde_json::{Value, json};

use crate::puppet::Puppet;
use crate::replica::Replica;
use crate::stage::{NODES, Scene, Stage, spec, state_of, until};
use crate::wire::Wire;

const GRACE: Duration = Duration::from_secs(3);

fn pulled(image: &str, policy: &str) -> Value {
    let mut spec = spec(image);
    spec["containers"][0]["imagePullPolicy"] = json!(policy);
    spec
}

fn on(node: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec
}

/// What the runtime says of a pull that failed.
fn words(image: &str, cause: &str) -> String {
    format!("failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {cause}")
}

async fn until_running(scene: &Scene<'_>, count: usize) -> Result<()> {
    let runs = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    scene.until_count("pods run", count, 90, runs).await
}

/// The brakes that a policy's status tells of.
async fn told_by(policies: Api<NodeImagePolicy>, name: String) -> Result<Vec<String>> {
    let status = policies.get(&name).await?.status;
    Ok(status.map(|status| status.brakes).unwrap_or_default())
}

async fn until_brakes(scene: &Scene<'_>, wanted: &[&str]) -> Result<()> {
    let policies: Api<NodeImagePolicy> = Api::all(scene.stage.client.clone());
    until(&format!("the policy's status tells of the brakes {wanted:?}"), 60, || {
        let told = told_by(policies.clone(), scene.namespace.clone());
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        Box::pin(async move { Ok((told.await? == wanted).then_some(())) })
    })
    .await
}

async fn assert_brakes(scene: &Scene<'_>, wanted: &[&str]) -> Result<()> {
    let told = told_by(Api::all(scene.stage.client.clone()), scene.namespace.clone()).await?;
    ensure!(told == wanted, "{told:?}");
    Ok(())
}

/// What was told of a node, by the reasons.
async fn told_of_node(stage: &Stage, node: &'static str, reason: &'static str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(stage.client.clone(), "default");
    until(&format!("{reason} is told of {node}"), 60, || {
        let events = events.clone();
        Box::pin(async move {
            let all = events.list(&ListParams::default()).await?.items;
            Ok(all.into_iter().find(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().is_some_and(|about| {
                        about.kind.as_deref() == Some("Node") && about.name.as_deref() == Some(node)
                    })
            }))
        })
    })
    .await
}

async fn until_retrying(scene: &Scene<'_>, tasks: &[&str]) -> Result<()> {
    let records = scene.api::<PullFailure>();
    until(&format!("records say that {tasks:?} retry"), 60, || {
        let records = records.clone();
        let wanted: Vec<_> = tasks.iter().map(|task| ((*task).to_owned(), "Retrying".to_owned())).collect();
        Box::pin(async move {
            let states: Vec<_> = records.list(&ListParams::default()).await?.items.iter().map(state_of).collect();
            Ok(wanted.iter().all(|task| states.contains(task)).then_some(()))
        })
    })
    .await
}

pub async fn while_a_registry_is_suspect_a_clear_no_is_concluded_from_and_what_is_unclear_waits(
    stage: &Stage,
) -> Result<()> {
    let scene = stage.open("suspect", "3s").await?;
    let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let replica = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
    let image = |name: &str| format!("suspect.example/team/{name}:1");
    // Only a pull tells that a registry is well.
    for number in 0..6 {
        let name = format!("good-{number}");
        puppet.load(&image(&name));
        scene.job_of(&name, pulled(&image(&name), "Always")).await?;
    }
    until_running(&scene, 6).await?;
    // Five images of eleven fail: enough to suspect the registry, too few for an outage.
    let unavailable = "unexpected status from HEAD request to https://suspect.example/v2/: 503 Service Unavailable";
    let causes = [
        ("away-0", unavailable),
        ("away-1", unavailable),
        ("away-2", unavailable),
        ("unclear", "pull access denied, repository does not exist or may require authorization"),
        (
            "refused",
            "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://suspect.example/token: 401 Unauthorized",
        ),
    ];
    for (name, cause) in causes {
        puppet.fail(&image(name), &words(&image(name), cause));
        scene.job_of(name, pulled(&image(name), "Always")).await?;
    }
    until_brakes(&scene, &["registry suspect.example: Suspect"]).await?;
    scene.assert_failed_by_us("refused", 60).await?;
    tokio::time::sleep(GRACE).await;
    until_retrying(&scene, &["unclear", "away-0"]).await?;
    scene.assert_untouched("unclear").await?;
    assert_brakes(&scene, &["registry suspect.example: Suspect"]).await?;

    // Two of them come: the registry is well, and its "denied" is to be believed.
    puppet.load(&image("away-0"));
    puppet.load(&image("away-1"));
    until_brakes(&scene, &[]).await?;
    scene.assert_failed_by_us("unclear", 60).await?;
    scene.assert_untouched("away-2").await?;
    replica.kill().await;
    scene.close().await
}

pub async fn a_node_that_loses_its_store_holds_what_it_may_be_to_blame_for_and_nothing_else(
    stage: &Stage,
) -> Result<()> {
    const LOST: &str = "docker.io/library/lost:1";
    let [node, _] = NODES;
    let scene = stage.open("store", "3s").await?;
    let puppet = Puppet::play(stage.client.clone(), &scene.namespace);
    let replica = Replica::start(stage.config().await?, Wire::default(), Clock::default())?;
    stage.list_images(&[LOST]).await?;
    until("the replica knows what the nodes list", 60, || {
        let world = Arc::clone(&replica.world);
        Box::pin(async move { Ok((world.read_inventory(Inventory::known_names) == 2).then_some(())) })
    })
    .await?;
    stage.list_images(&[]).await?;
    // The disk is full for four images, each of another registry; and the image that the node has lost is missed.
    let image = |number: usize| format!("registry-{number}.example/team/full:1");
    for number in 0..4 {
        puppet.fail(
            &image(number),
            &format!(
                "failed to pull and unpack image \"{0}\": failed to copy: write /var/lib/containerd/ingest: no space left on device",
                image(number)
            ),
        );
        scene.job_of(&format!("full-{number}"), on(node, pulled(&image(number), "Always"))).await?;
    }
    scene.job_of("lost", on(node, spec(LOST))).await?;
    let outage = format!("node {node}: Outage");
    until_brakes(&scene, &[&outage]).await?;
    told_of_node(stage, node, "BrakeEngaged").await?;
    // What nobody ever loaded is the task's own trouble.
    scene.job_of("never-loaded", on(node, spec("absent:1"))).await?;
    scene.assert_failed_by_us("never-loaded", 60).await?;
    tokio::time::sleep(GRACE).await;
    scene.assert_untouched("lost").await?;
    assert_brakes(&scene, &[&outage]).await?;

    // There is room again. What was lost is still not there, and has its whole grace once more.
    let healed = Timestamp::now();
    (0..4).for_each(|number| puppet.load(&image(number)));
    until_running(&scene, 4).await?;
    until_brakes(&scene, &[]).await?;
    told_of_node(stage, node, "BrakeReleased").await?;
    let failed: Job = scene.assert_failed_by_us("lost", 60).await?;
    let conditions = failed.status.and_then(|status| status.conditions).unwrap_or_default();
    let at = conditions.iter().find(|condition| condition.type_ == "FailureTarget");
    let at = at.and_then(|condition| condition.last_transition_time.as_ref()).map(|at| at.0);
    // Conditions bear whole seconds.
    let early = at.is_none_or(|at| at.duration_since(healed) < SignedDuration::from_secs(2));
    ensure!(!early, "failed at {at:?}, and the node was well at {healed}");
    replica.kill().await;
    scene.close().await
}
