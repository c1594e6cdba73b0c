//! What it costs when replicas end, begin, or lose what they hold: nothing that is asked meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::stage::{until, wait_installed};
use crate::world::{Scene, condition, pod};

crate::scenarios! {
    NodesAlone:
        replicas_are_exchanged_without_a_lost_review_and_the_lease_goes_on,
        a_deleted_secret_is_made_anew_without_a_lost_review,
        an_emptied_allowlist_is_warned_of_by_replicas_that_never_knew_another;
}

/// So many at once: without the five seconds for which a replica lingers, two runs lose a review in one of them.
const ASKING: usize = 3;

/// Asks again and again for what must be refused, while something is done. A review that fails lets it pass.
fn refused_throughout(scene: &Scene<'_>, denied: &Value, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    let ask = || {
        let mut asked = 0;
        while !over.load(Ordering::Acquire) {
            let answer = scene.try_create(denied)?;
            answer.refused_with(&["ImageNotAllowed"]).with_context(|| format!("after {asked} reviews"))?;
            asked += 1;
        }
        anyhow::Ok(asked)
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..ASKING).map(|_| scope.spawn(ask)).collect();
        let acted = act();
        over.store(true, Ordering::Release);
        let asked: Vec<Result<usize>> = asking.into_iter().map(|asking| asking.join().expect("no panic")).collect();
        acted?;
        let asked = asked.into_iter().sum::<Result<usize>>()?;
        ensure!(asked >= 50, "{asked} reviews prove nothing");
        Ok(())
    })
}

const OWN: &str = "--namespace=pullguard";

fn restart(scene: &Scene<'_>) -> Result<()> {
    scene.cluster.kubectl_ok(&["rollout", "restart", "deployment/pullguard", OWN]).context("a restart")?;
    wait_installed(scene.cluster)?;
    until("the old replicas are gone", 60, || Ok((pods(scene)?.len() == 2).then_some(())))
}

fn pods(scene: &Scene<'_>) -> Result<Vec<String>> {
    let names = scene.cluster.kubectl_ok(&["get", "pods", OWN, "-o", "jsonpath={.items[*].metadata.name}"])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn leader(scene: &Scene<'_>) -> Result<String> {
    scene.cluster.kubectl_ok(&["get", "lease", "pullguard", OWN, "-o", "jsonpath={.spec.holderIdentity}"])
}

fn replicas_are_exchanged_without_a_lost_review_and_the_lease_goes_on(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["registry.local/**"]}))?;
    until("a replica leads", 30, || Ok(pods(scene)?.contains(&leader(scene)?).then_some(())))?;
    refused_throughout(scene, &pod("task", "evil", "IfNotPresent"), || restart(scene))?;
    // A lease that nobody gives up is free after 15 s; the old leader had it until a moment before it was gone.
    let gone = Instant::now();
    until("a new replica leads", 20, || Ok(pods(scene)?.contains(&leader(scene)?).then_some(())))?;
    ensure!(gone.elapsed() < Duration::from_secs(6), "nobody led for {:?}", gone.elapsed());
    Ok(())
}

fn a_deleted_secret_is_made_anew_without_a_lost_review(scene: &Scene<'_>) -> Result<()> {
    const SECRET: &str = "secret/pullguard-webhook-tls";
    scene.policy(json!({"allowedImages": ["registry.local/**"]}))?;
    let uid =
        || scene.cluster.kubectl_ok(&["get", SECRET, OWN, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"]);
    let (before, served_before) = (uid()?, ends_of_served(scene)?);
    refused_throughout(scene, &pod("task", "evil", "IfNotPresent"), || {
        scene.cluster.kubectl_ok(&["delete", SECRET, OWN])?;
        let made = |uid: &String| !uid.is_empty() && *uid != before;
        until("it is made anew", 90, || Ok(Some(uid()?).filter(made)))?;
        // Each replica looks once a minute, and waits ten seconds until the new CA is trusted.
        until("each replica serves it", 100, || {
            let served = ends_of_served(scene)?;
            Ok((served.len() == 1 && served.is_disjoint(&served_before)).then_some(()))
        })
    })
}

/// When the certificates end that the replicas serve: one time where all serve the same.
fn ends_of_served(scene: &Scene<'_>) -> Result<BTreeSet<String>> {
    let mut ends = BTreeSet::new();
    for pod in pods(scene)? {
        let path = format!("/api/v1/namespaces/pullguard/pods/{pod}:8080/proxy/metrics");
        let metrics = scene.cluster.kubectl_ok(&["get", "--raw", &path])?;
        let line = metrics.lines().find(|line| line.starts_with("pullguard_certificate_expiry_timestamp_seconds "));
        ends.insert(line.map(str::to_owned).context("a metric")?);
    }
    Ok(ends)
}

fn an_emptied_allowlist_is_warned_of_by_replicas_that_never_knew_another(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["registry.local/**"]}))?;
    let bad = pod("task", "evil", "IfNotPresent");
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])?;
    // Without `--server-side` kubectl makes a removal of the null.
    let emptied = scene.apply_policy(&[&scene.namespace], json!({"allowedImages": Value::Null}))?;
    ensure!(emptied.accepted, "{}", emptied.err);
    let says = |part: &'static str| {
        until(&format!("the policy says: {part}"), 90, || {
            let policy = scene.get("nodeimagepolicy", &scene.namespace)?;
            let ready = condition(&policy, "Ready").filter(|ready| ready["status"] == "False");
            Ok(ready.and_then(|ready| ready["message"].as_str()?.contains(part).then_some(())))
        })
    };
    says("The last generation that could be compiled stays in force.")?;
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])?;
    restart(scene)?;
    says("No earlier generation is known since Pullguard started: every image is warned of, and none is refused.")?;
    let warned = scene.try_create(&bad)?;
    ensure!(warned.accepted, "{}", warned.err);
    warned.says(&["Warning: ImageNotAllowed"])?;
    // Mended, it is in force again.
    scene.policy(json!({"allowedImages": ["registry.local/**"]}))?;
    scene.try_create(&bad)?.refused_with(&["ImageNotAllowed"])
}
