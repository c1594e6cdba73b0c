//! Which objects are judged, and which are not: each kind of template, container and volume, and each exemption.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::stage::until;
use crate::wire;
use crate::world::{ON_A, ON_B, ON_BOTH, Scene, list, pod};

crate::scenarios! {
    Nodes:
        each_kind_of_template_is_judged_and_a_daemon_set_only_by_the_allowlist,
        what_the_controller_of_a_judged_template_makes_is_not_judged_again,
        every_kind_of_container_and_every_image_volume_is_judged,
        a_pod_that_names_its_node_is_judged_on_that_node,
        a_daemon_sets_pod_is_judged_on_the_node_that_it_is_for,
        the_mirror_of_a_static_pod_is_exempt,
        the_systems_namespaces_and_pullguards_own_are_exempt;
}

const KINDS: [(&str, &str); 6] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

/// An object of a kind that makes pods.
fn template(api_version: &str, kind: &str, image: &str, pull_policy: &str) -> Value {
    let mut spec = pod("x", image, pull_policy)["spec"].clone();
    let name = kind.to_lowercase();
    let labels = json!({"app": name, "judged": "yes"});
    if api_version == "batch/v1" {
        spec["restartPolicy"] = json!("Never");
    }
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let spec = match kind {
        "Job" => json!({"template": template}),
        "CronJob" => json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"selector": {"matchLabels": {"app": name}}, "template": template}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn templates(pull_policy: &str, image: impl Fn(&str) -> String) -> Value {
    list(KINDS.iter().map(|(version, kind)| template(version, kind, &image(&kind.to_lowercase()), pull_policy)))
}

fn each_kind_of_template_is_judged_and_a_daemon_set_only_by_the_allowlist(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"templates": "Deny", "allowedImages": ["optio-*"],
        "match": {"podSelector": {"matchLabels": {"judged": "yes"}},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}}}))?;
    let forbidden = scene.try_create(&templates("IfNotPresent", |kind| format!("bad-{kind}:1")))?;
    for (_, kind) in KINDS {
        forbidden.refused_with(&["ImageNotAllowed", &format!("image \"bad-{}:1\"", kind.to_lowercase())])?;
    }
    ensure!(!forbidden.out.contains("created"), "{}", forbidden.out);

    let absent = scene.try_create(&templates("Never", |kind| scene.image(kind)))?;
    for (_, kind) in KINDS {
        let (kind, image) = (kind.to_lowercase(), scene.image(&kind.to_lowercase()));
        if kind == "daemonset" {
            ensure!(absent.out.contains("daemonset.apps/daemonset created"), "{} {}", absent.out, absent.err);
            ensure!(!absent.err.contains(&image), "its presence was judged: {}", absent.err);
        } else {
            absent.refused_with(&["ImageAbsent", &image, "nodes that its pods could run on"])?;
        }
    }
    // Images that are filled in later; of a pod, `auto` is an image like any other.
    scene.try_create(&templates("IfNotPresent", |_| " ".to_owned()))?.accepted_in_silence()?;
    scene.try_create(&templates("IfNotPresent", |_| "auto".to_owned()))?.accepted_in_silence()?;
    let mut auto = pod("auto", "auto", "IfNotPresent");
    auto["metadata"]["labels"] = json!({"judged": "yes"});
    scene.try_create(&auto)?.refused_with(&["ImageNotAllowed", "\"auto\""])?;
    // The selector looks at the labels of the template.
    let mut unlabelled = template("apps/v1", "Deployment", "bad:1", "IfNotPresent");
    unlabelled["metadata"]["labels"] = json!({"judged": "yes"});
    unlabelled["spec"]["template"]["metadata"]["labels"] = json!({"app": "deployment"});
    scene.try_create(&unlabelled)?.accepted_in_silence()?;

    scene.policy(json!({"templates": "Ignore", "allowedImages": ["optio-*"]}))?;
    scene.try_create(&templates("IfNotPresent", |kind| format!("bad-{kind}:1")))?.accepted_in_silence()
}

fn what_the_controller_of_a_judged_template_makes_is_not_judged_again(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"templates": "Deny", "allowedImages": ["optio-*"]}))?;
    let owned = |kind: &str, by: &str, controller: bool| {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let mut object = template(version, kind, &format!("bad-{}:1", kind.to_lowercase()), "IfNotPresent");
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": version, "kind": by, "name": "owner",
            "uid": "8d1a1e5c-0000-4000-8000-000000000000", "controller": controller}]);
        object
    };
    let of_controllers = list([owned("ReplicaSet", "Deployment", true), owned("Job", "CronJob", true)]);
    scene.try_create(&of_controllers)?.accepted_in_silence()?;
    // An owner that controls nothing was judged by nobody.
    let of_others = list([owned("ReplicaSet", "Deployment", false), owned("Job", "CronJob", false)]);
    scene.try_create(&of_others)?.refused_with(&["\"bad-replicaset:1\"", "\"bad-job:1\""])
}

/// A pod with an image of each kind.
fn of_all_kinds(init: &str, sidecar: &str, main: &str, volume: &str) -> Value {
    let mut pod = pod("mixed", main, "Never");
    pod["spec"]["initContainers"] = json!([
        {"name": "first", "image": init, "imagePullPolicy": "Never", "command": ["/bin/true"]},
        {"name": "beside", "image": sidecar, "imagePullPolicy": "Never", "restartPolicy": "Always"},
    ]);
    pod["spec"]["volumes"] = json!([{"name": "data", "image": {"reference": volume, "pullPolicy": "Never"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod
}

fn every_kind_of_container_and_every_image_volume_is_judged(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["optio-*"]}))?;
    let status = wire::refusal(scene, &of_all_kinds("bad-init:1", "bad-sidecar:1", "bad-main:1", "bad-volume:1"))?;
    ensure!(status["reason"] == "ImageNotAllowed", "{status}");
    let causes = status["details"]["causes"].as_array().context("causes")?;
    let fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
    let expected = [
        "spec.initContainers{first}.image",
        "spec.initContainers{beside}.image",
        "spec.containers{main}.image",
        "spec.volumes{data}.image.reference",
    ];
    ensure!(fields == expected, "{fields:?}");

    // Where the images are: each kind alone keeps the pod from running.
    let absent = scene.image("nowhere");
    let places: [[&str; 4]; 4] = [
        [&absent, ON_BOTH, ON_BOTH, ON_BOTH],
        [ON_BOTH, &absent, ON_BOTH, ON_BOTH],
        [ON_BOTH, ON_BOTH, &absent, ON_BOTH],
        [ON_BOTH, ON_BOTH, ON_BOTH, &absent],
    ];
    for [init, sidecar, main, volume] in places {
        let denied = scene.try_create(&of_all_kinds(init, sidecar, main, volume))?;
        denied.refused_with(&["ImageAbsent", &absent]).with_context(|| format!("{init} {sidecar} {main} {volume}"))?;
    }
    // Each on some node, and no node has both.
    let apart = of_all_kinds(ON_A, ON_BOTH, ON_BOTH, ON_B);
    until("the nodes list the images of the scenarios", 90, || {
        Ok(scene.try_create(&apart)?.err.contains("beside the other images on none of the 2 nodes").then_some(()))
    })?;
    scene.try_create(&apart)?.refused_with(&["ImageAbsent", ON_A, ON_B, "one and the same node"])?;
    scene.try_create(&of_all_kinds(ON_B, ON_BOTH, ON_BOTH, ON_B))?.accepted_in_silence()?;
    // And it runs, the image volume included.
    scene.created(&of_all_kinds(ON_BOTH, ON_BOTH, ON_BOTH, ON_BOTH))?;
    scene.until_running("mixed").map(drop)
}

fn a_pod_that_names_its_node_is_judged_on_that_node(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    let on = |node: &str| {
        let mut pod = pod("named", ON_B, "Never");
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    until("node-b lists its image", 90, || Ok(scene.try_create(&on("node-b"))?.accepted.then_some(())))?;
    scene.try_create(&on("node-b"))?.accepted_in_silence()?;
    scene.try_create(&on("node-a"))?.refused_with(&["ImageAbsent", "is not on node node-a", "node node-b holds it"])?;
    let nowhere = scene.try_create(&on("node-z"))?;
    ensure!(nowhere.accepted, "{}", nowhere.err);
    nowhere.says(&["Warning: ImagePresenceUnknown"])
}

fn a_daemon_sets_pod_is_judged_on_the_node_that_it_is_for(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    // Its controller says by affinity which node each pod is for.
    let everywhere = template("apps/v1", "DaemonSet", ON_B, "Never");
    scene.create(&everywhere)?.accepted_in_silence()?;
    let mut tries = 0;
    let pods = until("its pod on node-b runs", 120, || {
        // The controller tries one of the nodes first, any of them, ends this round at the first refusal, and waits longer
        // each time. A change of the set brings the next round at once.
        tries += 1;
        scene.cluster.kubectl_ok(&[
            "annotate",
            "daemonset/daemonset",
            "--overwrite",
            &format!("try={tries}"),
            &format!("--namespace={}", scene.namespace),
        ])?;
        let pods = scene.list("pods")?;
        Ok(pods.iter().any(|pod| pod["status"]["phase"] == "Running").then_some(pods))
    })?;
    ensure!(pods.iter().all(|pod| pod["spec"]["nodeName"] == "node-b"), "{pods:?}");
    let event = scene.event("webhook", "ImageAbsent", "DaemonSet")?;
    ensure!(event["action"] == "Deny" && event["regarding"]["name"] == "daemonset", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.contains("is not on node node-a")), "{event}");
    Ok(())
}

/// A file in the folder where a kubelet looks for static pods; it goes when this is dropped.
struct StaticPod(PathBuf);

impl Drop for StaticPod {
    fn drop(&mut self) {
        let _gone_with_the_cluster = fs::remove_file(&self.0);
    }
}

fn the_mirror_of_a_static_pod_is_exempt(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["optio-*"]}))?;
    let mut object = pod("static", "local/pause:1", "Never");
    scene.try_create(&object)?.refused_with(&["ImageNotAllowed"])?;
    object["metadata"]["namespace"] = json!(scene.namespace);
    let folder = scene.cluster.static_pods(Node::A);
    let file = StaticPod(folder.join(format!("{}.json", scene.namespace)));
    fs::write(&file.0, object.to_string()).with_context(|| format!("cannot write {}", file.0.display()))?;
    let mirror = until("the mirror of the static pod is there", 90, || scene.get("pod", "static-node-a").map(Some))?;
    ensure!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string(), "{}", mirror["metadata"]);
    until("the static pod runs, and is told of", 60, || {
        Ok((scene.get("pod", "static-node-a")?["status"]["phase"] == "Running").then_some(()))
    })
}

fn the_systems_namespaces_and_pullguards_own_are_exempt(scene: &Scene<'_>) -> Result<()> {
    let exempt = ["pullguard", "kube-public", "kube-node-lease", "kube-system"];
    let mut namespaces = exempt.to_vec();
    namespaces.push(&scene.namespace);
    scene.policy_for(&namespaces, json!({"allowedImages": ["optio-*"]}))?;
    let mut bad = pod("bad", "bad:1", "IfNotPresent");
    // As the Pod Security profile of Pullguard's own namespace wants it.
    bad["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    bad["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])?;
    for namespace in exempt {
        let namespace_flag = format!("--namespace={namespace}");
        let create = ["create", "--dry-run=server", &namespace_flag, "-f", "-"];
        let output = scene.cluster.kubectl_stdin(&create, &bad.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("Image"), "{namespace}: {said}");
    }
    Ok(())
}
