//! What a second reading of the admission half found, each as a sentence that was not true.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pullguard::core::image::ImagePattern;
use serde_json::{Value, json};

use crate::stage::{until, wait_installed};
use crate::world::{Scene, condition, pod};

crate::scenarios! {
    ControlPlane:
        the_api_server_refuses_exactly_the_patterns_that_cannot_be_compiled,
        an_allowlist_that_lists_nothing_is_refused;
    Nodes:
        an_allowlist_that_kubectl_empties_stays_as_it_was_and_the_policy_says_so,
        the_refused_pods_of_a_daemonset_are_one_event_of_a_replica,
        a_policy_on_trial_is_heard_beside_one_that_denies,
        templates_that_are_ignored_are_no_would_have,
        a_rescue_is_told_to_the_client_and_in_an_event_but_not_of_a_rehearsal,
        what_to_do_is_said_in_whole_where_a_warning_is_too_short,
        rights_that_nothing_uses_are_not_held;
    NodesAlone: a_restart_leaves_the_mutating_webhook_where_it_is;
}

/// As many as one list may hold.
const BATCH: usize = 128;
const REMEDIES: usize = 64;

/// Patterns of all kinds, good and bad: those that people write, and what chance makes of their pieces.
fn patterns() -> Vec<String> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let long = "a".repeat(260);
    let written = [
        "**",
        "*",
        "***",
        "optio-*",
        "Optio-*",
        "docker.io/MyOrg/app",
        "registry.local/Agents/**",
        "nginx:1:2",
        "-foo",
        "foo-",
        "foo..bar",
        "nginx:-x",
        "reg:abc/x",
        "sha256:abcdef",
        "sha384:abc",
        "nginx:1.*",
        "nginx:**",
        "*/app",
        "**/app",
        "**:1",
        "docker.io/**:latest",
        "registry.local/**:v*",
        "registry.*/x",
        "*:5000/x",
        "team**",
        "[::1]:5000/x",
        "[::1]:5000/x/**",
        "[abc]/x",
        "[abc]:1/x",
        "[A]/x",
        "MyOrg/x",
        "my_registry.local/x",
        "registry.local:5000",
        "https://r.io/a",
        "r.io//a",
        "/a",
        "a/",
        "a:",
        "a@",
        "a b",
        "a?",
        "a{b}",
        "a+b",
        "ä",
    ];
    let mut all: Vec<String> = written.map(str::to_owned).to_vec();
    all.extend([
        digest.clone(),
        digest.replace("sha256:", ""),
        format!("**@{digest}"),
        format!("r.io/**@{digest}"),
        format!("nginx:1@{digest}"),
        format!("nginx@{}", digest.replace('0', "A")),
        long[..247].to_owned(),
        long[..248].to_owned(),
        format!("docker.io/{}", &long[..248]),
        format!("r.io/{}", &long[..255]),
        format!("r.io/{}", &long[..256]),
        format!("my_r.io/{}", &long[..247]),
        format!("my_r.io/{}", &long[..248]),
        format!("r.io/{}/*/{}*", &long[..100], &long[..153]),
        format!("nginx:{}*", &long[..128]),
        format!("nginx:{}", &long[..129]),
    ]);
    let pieces = [
        "a",
        "b1",
        "A",
        "*",
        "**",
        ".",
        "-",
        "_",
        "__",
        "/",
        "/",
        ":",
        "@",
        "localhost",
        "registry.local",
        "docker.io",
        "[::1]",
        "[",
        "]",
        "5000",
        "library",
        "sha256",
        &format!("@{digest}"),
        &digest[7..],
    ]
    .map(str::to_owned);
    // Chance, but the same in every run.
    let mut seed = 20_261_125_u64;
    let mut draw = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or(0) % below
    };
    while all.len() < 4 * BATCH {
        let length = 1 + draw(6);
        let text: String = (0..length).map(|_| pieces[draw(pieces.len())].as_str()).collect();
        if text.len() <= 512 {
            all.push(text);
        }
    }
    all
}

/// The places that an answer names: `spec.remedies[3].image`.
fn places(answer: &str, field: &str) -> BTreeSet<usize> {
    let begin = format!("spec.{field}[");
    let numbers = answer.split(&begin).skip(1).filter_map(|rest| rest.split(']').next()?.parse().ok());
    numbers.collect()
}

fn the_api_server_refuses_exactly_the_patterns_that_cannot_be_compiled(scene: &Scene<'_>) -> Result<()> {
    let remedy = |image: &String| json!({"image": image, "text": "x"});
    for (field, most) in [("allowedImages", BATCH), ("preloadedImages", BATCH), ("remedies", REMEDIES)] {
        for batch in patterns().chunks(most) {
            let list = match field {
                "remedies" => batch.iter().map(remedy).collect(),
                _ => json!(batch),
            };
            let answer = scene.apply_policy(&["nobody"], json!({field: list}))?;
            let refused = places(&answer.err, field);
            ensure!(answer.accepted == refused.is_empty(), "{}", answer.err);
            for (place, text) in batch.iter().enumerate() {
                let parsed = ImagePattern::parse(text);
                ensure!(
                    parsed.is_ok() != refused.contains(&place),
                    "{field}: {text:?} is {parsed:?}, and the API server says: {}",
                    answer.err
                );
            }
        }
    }
    Ok(())
}

/// A policy for nobody, with this allowlist.
fn allowing(name: &str, allowed: &Value) -> String {
    json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": name},
        "spec": {"match": {"podSelector": {"matchLabels": {"nobody": "x"}}}, "allowedImages": allowed}})
    .to_string()
}

fn an_allowlist_that_lists_nothing_is_refused(scene: &Scene<'_>) -> Result<()> {
    let name = &scene.namespace;
    for (nothing, message) in [(Value::Null, "lists nothing"), (json!([]), "spec.allowedImages")] {
        scene.kubectl_stdin(&["create", "-f", "-"], &allowing(name, &nothing))?.refused_with(&[message])?;
    }
    // And one that is there cannot be emptied.
    let apply = ["apply", "--server-side", "-f", "-"];
    let full = scene.kubectl_stdin(&apply, &allowing(name, &json!(["registry.local/**"])))?;
    ensure!(full.accepted, "{}", full.err);
    scene.kubectl_stdin(&apply, &allowing(name, &Value::Null))?.refused_with(&["lists nothing"])?;
    let kept = scene.get("nodeimagepolicy", name)?;
    ensure!(kept["spec"]["allowedImages"] == json!(["registry.local/**"]), "{}", kept["spec"]);
    Ok(())
}

/// Without `--server-side` kubectl makes a removal of a null: the API server never sees it.
fn an_allowlist_that_kubectl_empties_stays_as_it_was_and_the_policy_says_so(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["registry.local/**"]}))?;
    let bad = pod("task", "evil", "IfNotPresent");
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])?;
    let emptied = scene.apply_policy(&[&scene.namespace], json!({"allowedImages": Value::Null}))?;
    ensure!(emptied.accepted, "{}", emptied.err);
    until("the policy says what is wrong", 90, || {
        let policy = scene.get("nodeimagepolicy", &scene.namespace)?;
        let message = condition(&policy, "Ready")
            .filter(|ready| ready["status"] == "False")
            .map(|ready| ready["message"].to_string());
        Ok(message.filter(|message| message.contains("nothing in it")))
    })?;
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])?;
    // Left out on purpose, it is gone.
    scene.policy(json!({}))?;
    scene.try_create(&bad)?.accepted_in_silence()
}

fn the_refused_pods_of_a_daemonset_are_one_event_of_a_replica(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"templates": "Ignore"}))?;
    let spec = pod("x", &scene.image("node"), "Never")["spec"].clone();
    scene.created(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agents"}, "spec": {
        "selector": {"matchLabels": {"app": "agents"}},
        "template": {"metadata": {"labels": {"app": "agents"}}, "spec": spec}}}))?;
    let event = scene.event("webhook", "ImageAbsent", "DaemonSet")?;
    ensure!(event["action"] == "Deny", "{event}");
    // Each node's pod is refused, and tried again at once.
    sleep(Duration::from_secs(6));
    let events = scene.events("webhook")?;
    let replicas: BTreeSet<String> = events.iter().map(|event| event["reportingInstance"].to_string()).collect();
    ensure!(events.len() == replicas.len(), "{} Events of {replicas:?}", events.len());
    Ok(())
}

/// A policy beside the scene's own, which goes with this value.
struct Second<'s, 'c>(&'s Scene<'c>, String);

impl<'s, 'c> Second<'s, 'c> {
    fn apply(scene: &'s Scene<'c>, mut spec: Value) -> Result<Self> {
        let name = format!("{}-b", scene.namespace);
        spec["match"] = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}});
        let policy = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": name},
            "spec": spec});
        let applied = scene.kubectl_stdin(&["apply", "-f", "-"], &policy.to_string())?;
        ensure!(applied.accepted, "{}", applied.err);
        let second = Self(scene, name);
        scene.until_in_force(&second.1)?;
        Ok(second)
    }
}

impl Drop for Second<'_, '_> {
    fn drop(&mut self) {
        let _gone_with_the_cluster = self.0.kubectl(&["delete", "nodeimagepolicy", &self.1, "--wait=false"]);
    }
}

fn a_policy_on_trial_is_heard_beside_one_that_denies(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({}))?;
    let trial = Second::apply(scene, json!({"enforcement": "Audit", "allowedImages": ["registry.local/**"]}))?;
    scene.create(&pod("task", &scene.image("node"), "Never"))?.refused_with(&["ImageAbsent"])?;
    let denied = scene.event("webhook", "ImageAbsent", "Pod")?;
    ensure!(denied["action"] == "Deny" && denied["related"]["name"] == scene.namespace.as_str(), "{denied}");
    let would = scene.event("webhook", "ImageNotAllowed", "Pod")?;
    ensure!(would["action"] == "WouldDeny" && would["related"]["name"] == trial.1.as_str(), "{would}");
    ensure!(would["note"].as_str().is_some_and(|note| note.starts_with("(audit) ")), "{would}");
    Ok(())
}

fn templates_that_are_ignored_are_no_would_have(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"enforcement": "Audit", "templates": "Ignore"}))?;
    let mut job = crate::world::job("batch", &scene.image("node"), "Never");
    job["spec"]["suspend"] = json!(true);
    scene.created(&job)?;
    // A pod after it: when its Event is there, that of the template would be too.
    scene.create(&pod("task", &scene.image("node"), "Never"))?.accepted_in_silence()?;
    scene.event("webhook", "ImageAbsent", "Pod")?;
    sleep(Duration::from_secs(2));
    let about: Vec<Value> = scene.events("webhook")?.iter().map(|event| event["regarding"]["kind"].clone()).collect();
    ensure!(about == ["Pod"], "Events about {about:?}");
    Ok(())
}

fn a_rescue_is_told_to_the_client_and_in_an_event_but_not_of_a_rehearsal(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"rescue": "PullIfNotPresent", "allowedImages": ["**"]}))?;
    let task = pod("task", &scene.image("node"), "Never");
    let warning = format!("Warning: Rescued (policy {}", &scene.namespace[..40]);
    until("the mutating webhook is heeded", 90, || Ok(scene.try_create(&task)?.err.contains(&warning).then_some(())))?;
    sleep(Duration::from_secs(2));
    ensure!(scene.events("webhook")?.is_empty(), "a rehearsal was told of");
    let created = scene.create(&task)?;
    ensure!(created.accepted, "{}", created.err);
    created.says(&[&warning, "IfNotPresent instead of Never for: main"])?;
    let event = scene.event("webhook", "Rescued", "Pod")?;
    ensure!(event["action"] == "PullIfNotPresent" && event["type"] == "Normal", "{event}");
    ensure!(event["related"]["name"] == scene.namespace.as_str(), "{event}");
    let configuration = scene.get("mutatingwebhookconfiguration", "pullguard")?;
    ensure!(configuration["webhooks"][0]["sideEffects"] == "NoneOnDryRun", "{configuration}");
    Ok(())
}

fn what_to_do_is_said_in_whole_where_a_warning_is_too_short(scene: &Scene<'_>) -> Result<()> {
    let remedy = "Ask the build team. ".repeat(12).trim_end().to_owned();
    scene.policy(json!({"enforcement": "Warn", "remedies": [{"image": "optio-*", "text": remedy}]}))?;
    let warned = scene.try_create(&pod("task", &scene.image("node"), "Never"))?;
    ensure!(warned.accepted, "{}", warned.err);
    let lines = warned.err.lines().filter_map(|line| line.strip_prefix("Warning: ImageAbsent: "));
    let said: Vec<&str> = lines.collect();
    ensure!(said.join(" ") == remedy, "{}", warned.err);
    Ok(())
}

fn rights_that_nothing_uses_are_not_held(scene: &Scene<'_>) -> Result<()> {
    let may = |verb: &str, what: &str| {
        let account = "--as=system:serviceaccount:pullguard:pullguard";
        let args = ["auth", "can-i", verb, what, account, "--namespace=pullguard"];
        let output = scene.cluster.kubectl(&args)?;
        anyhow::Ok(String::from_utf8(output.stdout)?.trim() == "yes")
    };
    for (verb, what, held) in [
        ("update", "secrets/pullguard-webhook-tls", true),
        ("patch", "secrets/pullguard-webhook-tls", false),
        ("update", "leases.coordination.k8s.io/pullguard", true),
        ("patch", "leases.coordination.k8s.io/pullguard", false),
        ("list", "nodeimagepolicies.pullguard.dev", true),
        ("get", "nodeimagepolicies.pullguard.dev", false),
        ("update", "pullfailures.pullguard.dev", true),
        ("get", "pullfailures.pullguard.dev", false),
    ] {
        ensure!(may(verb, what)? == held, "{verb} {what}: {}", !held);
    }
    Ok(())
}

fn a_restart_leaves_the_mutating_webhook_where_it_is(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"rescue": "PinToHolders"}))?;
    let uid = || {
        let found =
            scene.kubectl(&["get", "mutatingwebhookconfiguration", "pullguard", "-o", "jsonpath={.metadata.uid}"])?;
        Ok(found.accepted.then_some(found.out))
    };
    let before = until("the mutating webhook is there", 30, uid)?;
    let rollout = ["rollout", "restart", "deployment/pullguard", "--namespace=pullguard"];
    scene.cluster.kubectl_ok(&rollout).context("a restart")?;
    wait_installed(scene.cluster)?;
    // A replica that begins looks at the configurations within its first second or two.
    sleep(Duration::from_secs(5));
    ensure!(uid()?.as_deref() == Some(before.as_str()), "it was taken away and made anew");
    Ok(())
}
