//! An outage: so much fails at one registry that the cause is not in the tasks. It plays alone, with the product's bounds.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::props::{acting, metric};
use crate::proxy::{Fault, Proxy};
use crate::stage::{until, wait_installed};
use crate::world::{Scene, condition, job};

crate::scenarios! {
    NodesAlone: five_images_that_fail_at_one_registry_are_an_outage_and_nothing_is_permanent_until_it_is_over;
}

/// How many images at once are an outage, for the controller.
const BRAKE_IMAGES: &str = "PULLGUARD_BRAKE_IMAGES";
/// As the world has it for all the others: each has bad images of its own, which together would be an outage.
const NO_BRAKE: &str = "500";

/// The product's own bound, as long as the scenario plays.
struct Bound<'a>(&'a Scene<'a>);

impl<'a> Bound<'a> {
    fn of_the_product(scene: &'a Scene<'a>) -> Result<Self> {
        let this = Self(scene);
        this.set(&format!("{BRAKE_IMAGES}-"))?;
        Ok(this)
    }

    fn set(&self, word: &str) -> Result<()> {
        let cluster = self.0.cluster;
        cluster.kubectl_ok(&["set", "env", "deployment/pullguard", "--namespace=pullguard", word])?;
        wait_installed(cluster)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.set(&format!("{BRAKE_IMAGES}={NO_BRAKE}")) {
            eprintln!("the brake's bound was not restored: {error:#}");
        }
    }
}

fn five_images_that_fail_at_one_registry_are_an_outage_and_nothing_is_permanent_until_it_is_over(
    scene: &Scene<'_>,
) -> Result<()> {
    let _bound = Bound::of_the_product(scene)?;
    scene.policy(acting("15s", json!({})))?;
    let proxy = Proxy::open(scene.cluster)?;
    let repository = format!("team/{}", scene.namespace);
    proxy.fail_only("/good-", Fault::Status(503));
    let image = |name: &str| format!("{}/{repository}/{name}:1", proxy.address());
    let good: Vec<String> = (0..6).map(|number| format!("good-{number}")).collect();
    for name in &good {
        scene.cluster.push(&format!("{repository}/{name}:1"))?;
    }
    // Only a pull tells that the registry is well, so these always pull. Of the last one the registry says that it does not
    // exist, and would be believed if it were well.
    let mut jobs: Vec<Value> = good.iter().map(|name| job(name, &image(name), "Always")).collect();
    jobs.push(job("missing", &image("missing"), "IfNotPresent"));
    scene.created(&json!({"apiVersion": "v1", "kind": "List", "items": jobs}))?;
    let brake = format!("registry {}: Outage", proxy.address());
    let brakes =
        || -> Result<String> { Ok(scene.get("nodeimagepolicy", &scene.namespace)?["status"]["brakes"].to_string()) };
    until("the policy's status says Outage", 60, || Ok(brakes()?.contains(&brake).then_some(())))?;
    ensure!(
        metric(scene.cluster, "pullguard_brakes", "place=\"Registry\",state=\"Outage\"")? >= 1.0,
        "no metric of it"
    );
    let about = |reason: &str| -> Result<Value> {
        until(&format!("{reason} is told"), 60, || {
            let events =
                scene.cluster.kubectl_ok(&["get", "events.events.k8s.io", "--namespace=default", "-o", "json"])?;
            let events: Value = serde_json::from_str(&events)?;
            let mut all = events["items"].as_array().cloned().unwrap_or_default().into_iter();
            let of_host = |event: &Value| event["note"].as_str().is_some_and(|note| note.contains(proxy.address()));
            Ok(all.find(|event| event["reason"] == reason && of_host(event)))
        })
    };
    ensure!(about("BrakeEngaged")?["type"] == "Warning", "it is no warning");
    // Past their graces, and nothing is concluded of anybody, nor counted against them.
    std::thread::sleep(std::time::Duration::from_secs(25));
    ensure!(brakes()?.contains(&brake), "the brake is off: {}", brakes()?);
    for name in good.iter().map(String::as_str).chain(["missing"]) {
        scene.still_retrying(name)?;
        let record = scene.any_record(name)?.context("a record")?;
        ensure!(record["status"]["attempts"] == 0, "{name}: {}", record["status"]);
    }
    let before = scene.uids()?;

    proxy.heal();
    let healed = jiff::Timestamp::now();
    until("what the registry has runs", 120, || {
        let running = scene.list("pods")?.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        Ok((running == good.len()).then_some(()))
    })?;
    until("the brake is released", 60, || Ok((!brakes()?.contains(proxy.address())).then_some(())))?;
    about("BrakeReleased")?;
    ensure!(
        metric(scene.cluster, "pullguard_brakes", "place=\"Registry\",state=\"Outage\"")? < 1.0,
        "the metric stays"
    );
    // What does not exist has its whole grace once more, and then it is permanent.
    scene.until_failed("missing", 120)?;
    let missing = scene.get("job", "missing")?;
    let target = condition(&missing, "FailureTarget").context("a condition")?;
    ensure!(target["reason"] == "PullPermanentlyFailed", "{target}");
    let failed: jiff::Timestamp = target["lastTransitionTime"].as_str().context("a time")?.parse()?;
    let waited = failed.duration_since(healed).as_secs();
    ensure!(waited >= 15, "failed {waited} s after the registry was well again");
    for name in &good {
        scene.unmarked("job", name)?;
    }
    let left = scene.uids()?;
    ensure!(
        left.len() == good.len() && left.iter().all(|uid| before.contains(uid)),
        "other pods than those that waited"
    );
    Ok(())
}
