//! What admission says, to whoever asks the API server.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Node;
use serde_json::{Value, json};

use crate::stage::until;
use crate::wire;
use crate::world::{Answer, Scene, condition, cron_job, deployment, job, pod};

crate::scenarios! {
    ControlPlane: a_bad_policy_is_refused_at_apply_with_what_is_right;
    Nodes:
        a_never_pod_whose_image_is_nowhere_is_denied_and_the_sentence_says_what_to_do,
        a_denial_has_code_403_and_a_reason_for_programs,
        a_dry_run_is_denied_and_leaves_no_event,
        the_allowlist_compares_canonical_names,
        an_image_that_is_no_reference_is_denied,
        where_no_policy_matches_nothing_is_said,
        a_policy_follows_the_labels_of_a_namespace,
        warn_warns_and_creates,
        audit_creates_in_silence_and_leaves_an_event,
        an_ephemeral_container_is_judged_by_the_allowlist,
        templates_are_warned_of_and_denied_where_the_policy_says_so,
        a_policy_is_ready_for_the_generation_that_it_observed,
        once_the_image_is_imported_the_pod_is_admitted_and_runs,
        a_pinned_pod_lands_on_the_one_node_that_holds_its_image,
        kube_system_is_exempt;
}

const REMEDY: &str = "Run ./images/build.sh node to build it.";

fn remedies() -> Value {
    json!({"remedies": [{"image": "optio-*", "text": REMEDY}]})
}

fn a_never_pod_whose_image_is_nowhere_is_denied_and_the_sentence_says_what_to_do(scene: &Scene<'_>) -> Result<()> {
    scene.policy(remedies())?;
    let image = scene.image("node");
    let policy = format!("(policy {})", scene.namespace);
    let denied = scene.create(&pod("task", &image, "Never"))?;
    denied.refused_with(&["ImageAbsent", &image, "2 nodes", REMEDY, &policy, "up to 40 s"])?;
    ensure!(scene.list("pods")?.is_empty(), "the pod is there all the same");

    let event = scene.event("webhook", "ImageAbsent", "Pod")?;
    ensure!(event["regarding"]["name"] == "task" && event["action"] == "Deny" && event["type"] == "Warning", "{event}");
    ensure!(
        event["related"]["kind"] == "NodeImagePolicy" && event["related"]["name"] == scene.namespace.as_str(),
        "{event}"
    );
    ensure!(event["note"].as_str().is_some_and(|note| note.contains(&image) && note.contains(REMEDY)), "{event}");

    // A pod of a Job: the Event is where a person looks, on the Job.
    scene.created(&job("batch", &image, "Never"))?;
    let event = scene.event("webhook", "ImageAbsent", "Job")?;
    ensure!(event["regarding"]["name"] == "batch", "{event}");
    Ok(())
}

fn a_denial_has_code_403_and_a_reason_for_programs(scene: &Scene<'_>) -> Result<()> {
    scene.policy(remedies())?;
    let status = wire::refusal(scene, &pod("task", &scene.image("node"), "Never"))?;
    ensure!(status["code"] == 403 && status["reason"] == "ImageAbsent", "{status}");
    ensure!(status["details"]["retryAfterSeconds"] == 45, "{status}");
    ensure!(status["details"]["causes"][0]["reason"] == "ImageAbsent", "{status}");
    Ok(())
}

fn a_dry_run_is_denied_and_leaves_no_event(scene: &Scene<'_>) -> Result<()> {
    scene.policy(remedies())?;
    let image = scene.image("node");
    scene.try_create(&pod("rehearsal", &image, "Never"))?.refused_with(&["ImageAbsent"])?;
    // A real one after it: when its Event is there, that of the dry run would be too.
    scene.create(&pod("real", &image, "Never"))?.refused_with(&["ImageAbsent"])?;
    scene.event("webhook", "ImageAbsent", "Pod")?;
    sleep(Duration::from_secs(2));
    let names: Vec<Value> = scene.events("webhook")?.iter().map(|event| event["regarding"]["name"].clone()).collect();
    ensure!(names == ["real"], "Events about {names:?}");
    Ok(())
}

fn the_allowlist_compares_canonical_names(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["good-*", "registry.local/agents/**", "nginx:1.*"]}))?;
    let good = [
        "good-one",
        "docker.io/library/good-one:2",
        "index.docker.io/good-one",
        "registry.local/agents/a/b:1",
        "nginx:1.27",
    ];
    for image in good {
        scene
            .try_create(&pod("good", image, "IfNotPresent"))?
            .accepted_in_silence()
            .with_context(|| image.to_owned())?;
    }
    for image in [
        "bad",
        "docker.io/team/good-one",
        "registry.local/agentsmith/a",
        "registry-1.docker.io/library/good-one",
        "nginx",
    ] {
        let denied = scene.try_create(&pod("bad", image, "IfNotPresent"))?;
        denied.refused_with(&["ImageNotAllowed", image]).with_context(|| image.to_owned())?;
    }
    // Also an init container's.
    let mut mixed = pod("mixed", "good-one", "IfNotPresent");
    mixed["spec"]["initContainers"] = json!([{"name": "first", "image": "bad", "imagePullPolicy": "IfNotPresent"}]);
    scene.try_create(&mixed)?.refused_with(&["ImageNotAllowed", "\"bad\""])
}

fn an_image_that_is_no_reference_is_denied(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    scene
        .try_create(&pod("typo", "registry.local/Team/App:1", "IfNotPresent"))?
        .refused_with(&["InvalidImageReference"])
}

fn where_no_policy_matches_nothing_is_said(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"match": {"podSelector": {"matchLabels": {"judged": "yes"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}}}))?;
    let mut judged = pod("judged", &scene.image("node"), "Never");
    scene.try_create(&judged)?.accepted_in_silence()?;
    judged["metadata"]["labels"] = json!({"judged": "yes"});
    scene.try_create(&judged)?.refused_with(&["ImageAbsent"])?;
    // And what it matches but has no objection to.
    judged["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    scene.try_create(&judged)?.accepted_in_silence()
}

fn a_policy_follows_the_labels_of_a_namespace(scene: &Scene<'_>) -> Result<()> {
    let team = json!({"namespaceSelector": {"matchLabels": {"team": scene.namespace}}});
    scene.policy(json!({"match": team, "allowedImages": ["optio-*"]}))?;
    let bad = pod("bad", "bad:1", "IfNotPresent");
    scene.try_create(&bad)?.accepted_in_silence()?;
    let label = |label: &str| scene.ok(&["label", "namespace", &scene.namespace, label]);
    label(&format!("team={}", scene.namespace))?;
    until("the policy is for this namespace", 90, || Ok((!scene.try_create(&bad)?.accepted).then_some(())))?;
    label("team-")?;
    until("it no longer is", 90, || Ok(scene.try_create(&bad)?.accepted.then_some(())))
}

fn warn_warns_and_creates(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"enforcement": "Warn"}))?;
    let image = scene.image("node");
    let warned = scene.create(&pod("task", &image, "Never"))?;
    ensure!(warned.accepted, "{}", warned.err);
    warned.says(&["Warning: ImageAbsent", &format!("(policy {})", scene.namespace)])?;
    scene.get("pod", "task").map(drop)
}

fn audit_creates_in_silence_and_leaves_an_event(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"enforcement": "Audit"}))?;
    scene.create(&pod("task", &scene.image("node"), "Never"))?.accepted_in_silence()?;
    let event = scene.event("webhook", "ImageAbsent", "Pod")?;
    ensure!(event["action"] == "WouldDeny", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.starts_with("(audit) ")), "{event}");
    Ok(())
}

fn an_ephemeral_container_is_judged_by_the_allowlist(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["registry.local/good/**"]}))?;
    scene.created(&pod("task", "registry.local/good/app:1", "IfNotPresent"))?;
    let debug = |image: &str| {
        let image = format!("--image={image}");
        scene.kubectl(&[
            "debug",
            "pod/task",
            &image,
            "--image-pull-policy=IfNotPresent",
            "--attach=false",
            "--profile=general",
        ])
    };
    debug("registry.local/evil/shell:1")?.refused_with(&["ImageNotAllowed", "registry.local/evil/shell:1"])?;
    let debugged = debug("registry.local/good/shell:1")?;
    ensure!(debugged.accepted, "{}", debugged.err);
    Ok(())
}

fn templates_are_warned_of_and_denied_where_the_policy_says_so(scene: &Scene<'_>) -> Result<()> {
    scene.policy(remedies())?;
    let image = scene.image("node");
    let templates = [deployment("web", &image), job("batch", &image, "Never"), cron_job("nightly", &image)];
    for template in &templates {
        let warned = scene.try_create(template)?;
        ensure!(warned.accepted, "{}: {}", template["kind"], warned.err);
        warned.says(&["Warning: ImageAbsent"]).with_context(|| template["kind"].to_string())?;
    }
    let mut deny = remedies();
    deny["templates"] = json!("Deny");
    scene.policy(deny)?;
    for template in &templates {
        let denied: Answer = scene.try_create(template)?;
        denied.refused_with(&["ImageAbsent", &image, REMEDY]).with_context(|| template["kind"].to_string())?;
    }
    Ok(())
}

fn a_bad_policy_is_refused_at_apply_with_what_is_right(scene: &Scene<'_>) -> Result<()> {
    let selector = json!({"match": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}});
    let bad = [
        (json!({"allowedImages": ["https://registry.local/a"]}), "no scheme"),
        (json!({"allowedImages": ["registry.*/agents/**"]}), "no * in its registry host"),
        (json!({"allowedImages": ["team**"]}), "** stands for whole path segments"),
        (json!({"allowedImages": []}), "spec.allowedImages"),
        (json!({"rescue": "PullIfNotPresent"}), "needs allowedImages"),
        (json!({"runtime": {"grace": {"neverPull": "soon"}}}), "a duration is a whole number with a unit"),
        (json!({"runtime": {"expiry": "0s"}}), "above zero"),
        (
            json!({"runtime": {"taskKinds": [{"group": "batch", "kind": "CronJob"}]}}),
            "kinds that can end by themselves",
        ),
        (json!({"nodeImageLimit": 0}), "nodeStatusMaxImages"),
        (json!({"enforcement": "Sometimes"}), "Enforce"),
        (selector, "In and NotIn need values"),
    ];
    for (spec, message) in bad {
        scene.apply_policy(&["nobody"], spec.clone())?.refused_with(&[message]).with_context(|| spec.to_string())?;
    }
    let good = scene.apply_policy(&["nobody"], json!({"allowedImages": ["**", "registry.local/**"]}))?;
    ensure!(good.accepted, "{}", good.err);
    Ok(())
}

fn a_policy_is_ready_for_the_generation_that_it_observed(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    scene.policy(json!({"enforcement": "Warn"}))?;
    let policy = scene.get("nodeimagepolicy", &scene.namespace)?;
    ensure!(policy["metadata"]["generation"] == 2 && policy["status"]["observedGeneration"] == 2, "{policy}");
    ensure!(condition(&policy, "Ready").is_some_and(|ready| ready["status"] == "True"), "{policy}");
    ensure!(policy["status"]["matchedNodes"] == 2, "{}", policy["status"]);
    ensure!(policy["status"]["knownImages"].as_i64().is_some_and(|images| images > 0), "{}", policy["status"]);
    Ok(())
}

/// Nodes list a new image up to 40 s late; each heartbeat of theirs may be missed once.
const LISTED: u64 = 90;

fn once_the_image_is_imported_the_pod_is_admitted_and_runs(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    let image = scene.image("node");
    scene.create(&pod("task", &image, "Never"))?.refused_with(&["ImageAbsent"])?;
    scene.cluster.import(Node::A, &image)?;
    scene.cluster.import(Node::B, &image)?;
    until("the pod is admitted", LISTED, || Ok(scene.create(&pod("task", &image, "Never"))?.accepted.then_some(())))?;
    scene.until_running("task").map(drop)
}

fn a_pinned_pod_lands_on_the_one_node_that_holds_its_image(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"rescue": "PinToHolders"}))?;
    until("the mutating webhook is there", 90, || {
        Ok(scene.kubectl(&["get", "mutatingwebhookconfiguration", "pullguard"])?.accepted.then_some(()))
    })?;
    let image = scene.image("node");
    scene.cluster.import(Node::B, &image)?;
    let names = ["one", "two", "three"];
    until("the pod is admitted", LISTED, || Ok(scene.create(&pod("one", &image, "Never"))?.accepted.then_some(())))?;
    for name in names.iter().skip(1) {
        scene.created(&pod(name, &image, "Never"))?;
    }
    for name in names {
        let running = scene.until_running(name)?;
        ensure!(
            running["spec"]["nodeName"] == Node::B.to_string().as_str(),
            "{name} runs on {}",
            running["spec"]["nodeName"]
        );
        ensure!(!running["spec"]["affinity"]["nodeAffinity"].is_null(), "{name} was not pinned: it was lucky");
    }
    Ok(())
}

fn kube_system_is_exempt(scene: &Scene<'_>) -> Result<()> {
    scene.policy_for(&["kube-system", &scene.namespace], json!({}))?;
    let absent = pod("task", &scene.image("node"), "Never");
    scene.try_create(&absent)?.refused_with(&["ImageAbsent"])?;
    let create = ["create", "--dry-run=server", "--namespace=kube-system", "-f", "-"];
    let output = scene.cluster.kubectl_stdin(&create, &absent.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
