//! The doctor and the certificates of a real installation: well, broken in one way after another, and rotated.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::without_proxy;
use serde_json::{Value, json};

use crate::stage::{repository, until};
use crate::world::{Scene, pod};

crate::scenarios! {
    ControlPlane: the_fail_closed_overlay_is_proven_to_lock_nobody_out_and_the_open_one_claims_nothing;
    Nodes: whoever_may_not_look_is_told_so_and_gets_no_all_clear;
    NodesAlone:
        an_installation_that_is_well_is_called_well,
        a_broken_trust_is_named,
        a_service_that_leads_nowhere_is_named,
        a_node_list_that_proves_nothing_is_named,
        failing_closed_with_no_replica_left_the_cluster_repairs_itself,
        a_rotation_lets_no_review_fail_and_no_pod_slip_by;
}

/// A replica looks at its Secret each minute, and then waits 10 s.
const FOLLOWED: u64 = 100;
/// Pods that one call of kubectl creates.
const TOGETHER: usize = 25;

fn pullguard(kubeconfig: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullguard"));
    without_proxy(&mut command).env_remove("POD_NAMESPACE").env("KUBECONFIG", kubeconfig);
    command
}

/// Exit status and lines of the doctor.
#[derive(Debug)]
struct Told {
    status: i32,
    lines: Vec<Value>,
}

impl Told {
    fn of(command: &mut Command) -> Result<Self> {
        let output = command.output()?;
        let status = output.status.code().context("the doctor was ended")?;
        let lines = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("exit status {status}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Self { status, lines })
    }

    fn with(&self, status: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["status"] == status).collect()
    }

    /// This check failed, with these words.
    fn fails(&self, check: &str, words: &[&str]) -> bool {
        let says =
            |line: &&Value| line["message"].as_str().is_some_and(|told| words.iter().all(|word| told.contains(word)));
        self.status == 1 && self.with("FAIL").iter().any(|line| line["check"] == check && says(line))
    }
}

fn doctor(scene: &Scene<'_>) -> Result<Told> {
    Told::of(pullguard(&scene.cluster.kubeconfig().display().to_string()).args(["doctor", "-o", "json"]))
}

/// Waits until it says that all is well.
fn well(scene: &Scene<'_>) -> Result<Told> {
    let mut last = String::new();
    let well = until("the doctor says that all is well", FOLLOWED, || {
        let told = doctor(scene)?;
        let amiss: Vec<&Value> = told.lines.iter().filter(|line| line["status"] != "OK").collect();
        last = format!("exit status {}: {amiss:?}", told.status);
        Ok((told.status == 0 && amiss.is_empty()).then_some(told))
    });
    well.with_context(|| last.clone())
}

fn an_installation_that_is_well_is_called_well(scene: &Scene<'_>) -> Result<()> {
    // Without a policy too.
    let told = well(scene)?;
    let count = |told: &Told, check: &str| told.lines.iter().filter(|line| line["check"] == check).count();
    ensure!(count(&told, "webhook answers") == 3, "{told:?}");
    ensure!(count(&told, "certificate served") == 1 && count(&told, "rights") == 1, "{told:?}");
    scene.policy(json!({"nodeImageLimit": -1, "rescue": "PinToHolders"}))?;
    let told = until("the mutating webhook is looked at too", 60, || {
        let told = well(scene)?;
        Ok((count(&told, "certificate trust") == 4).then_some(told))
    })?;
    // One for each policy, and that of another scenario may still be going.
    ensure!(count(&told, "node lists") >= 1, "{told:?}");
    // Nothing was made by looking.
    let left = scene.cluster.kubectl_ok(&["get", "pods,deployments,cronjobs", "--all-namespaces", "-o", "name"])?;
    ensure!(!left.contains("probe"), "{left}");
    Ok(())
}

fn a_broken_trust_is_named(scene: &Scene<'_>) -> Result<()> {
    well(scene)?;
    let made = pullguard("/nonexistent").args(["certs", "make"]).output()?;
    let secret: Value = serde_saphyr::from_slice(&made.stdout).context("a Secret")?;
    let stranger = base64(secret["stringData"]["ca.crt"].as_str().context("a CA")?.as_bytes());
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": stranger}]).to_string();
    // A replica may mend it at any moment.
    let told = until("the doctor finds the caBundle of a stranger", 60, || {
        let configuration = ["patch", "validatingwebhookconfiguration", "pullguard", "--type=json", "-p", &patch];
        scene.cluster.kubectl_ok(&configuration)?;
        sleep(Duration::from_secs(1));
        let told = doctor(scene)?;
        let found = told.fails("certificate trust", &["pods.pullguard.dev"])
            && told.fails("webhook answers", &["pods.pullguard.dev"]);
        Ok(found.then_some(told))
    })?;
    ensure!(!told.fails("certificate trust", &["templates.pullguard.dev"]), "{told:?}");
    // It mends itself.
    well(scene).map(drop)
}

fn base64(bytes: &[u8]) -> String {
    let value = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn a_service_that_leads_nowhere_is_named(scene: &Scene<'_>) -> Result<()> {
    let lead = |value: &Value| {
        let patch = json!([{"op": "replace", "path": "/spec/selector", "value": value}]).to_string();
        scene.cluster.kubectl_ok(&[
            "patch",
            "service",
            "pullguard",
            "--namespace=pullguard",
            "--type=json",
            "-p",
            &patch,
        ])
    };
    lead(&json!({"app": "nobody"}))?;
    let found = until("the doctor finds that the Service leads nowhere", 60, || {
        let told = doctor(scene)?;
        // The API server may keep a connection that it has, so a dry run may still be answered.
        let found = told.fails("service", &["app=nobody"]) && told.fails("endpoints", &["no replica is ready"]);
        Ok(found.then_some(()))
    });
    lead(&json!({"app.kubernetes.io/name": "pullguard"}))?;
    found?;
    well(scene).map(drop)
}

fn a_node_list_that_proves_nothing_is_named(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"nodeImageLimit": 1}))?;
    let told = doctor(scene)?;
    ensure!(told.fails("node lists", &[&scene.namespace, "2 of 2 nodes", "node-a, node-b"]), "{told:?}");
    scene.policy(json!({"nodeImageLimit": -1}))?;
    well(scene).map(drop)
}

fn failing_closed_with_no_replica_left_the_cluster_repairs_itself(scene: &Scene<'_>) -> Result<()> {
    let fails = |policy: &str| {
        let operation =
            |hook: usize| json!({"op": "replace", "path": format!("/webhooks/{hook}/failurePolicy"), "value": policy});
        let patch = json!([operation(0), operation(1), operation(2)]).to_string();
        scene.cluster.kubectl_ok(&["patch", "validatingwebhookconfiguration", "pullguard", "--type=json", "-p", &patch])
    };
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        scene.cluster.kubectl_ok(&["scale", "deployment/pullguard", "--namespace=pullguard", &replicas])
    };
    fails("Fail")?;
    let played = (|| {
        let told = well(scene)?;
        let proof = told.lines.iter().find(|line| line["check"] == "lock-out").context("no word on a lock-out")?;
        let proven = proof["message"].as_str().is_some_and(|message| message.contains("cannot lock the cluster out"));
        ensure!(proven, "{proof}");
        scale("0")?;
        until("the doctor finds that nobody is there to answer", 60, || {
            // A replica that is ending still answers on the connections that it has, and the other one may be gone already.
            let selector = "--selector=app.kubernetes.io/name=pullguard";
            let pods =
                scene.cluster.kubectl_ok(&["get", "pods", "--namespace=pullguard", selector, "--output=name"])?;
            if !pods.is_empty() {
                return Ok(None);
            }
            let told = doctor(scene)?;
            let found = told.fails("replicas", &["no pod can be created"])
                && told.fails("endpoints", &["nothing that they judge can be created"])
                && told.fails("webhook answers", &["pods.pullguard.dev", "failed calling webhook"])
                && told.fails("lock-out", &["not proven"]);
            Ok(found.then_some(()))
        })?;
        let pod = pod("any", "good:1", "IfNotPresent");
        scene.try_create(&pod)?.refused_with(&["failed calling webhook"])?;
        for namespace in ["kube-system", "pullguard"] {
            let mut there = pod.clone();
            there["spec"]["securityContext"] =
                json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
            there["spec"]["containers"][0]["securityContext"] =
                json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
            let namespace = format!("--namespace={namespace}");
            let create = ["create", "--dry-run=server", &namespace, "-f", "-"];
            let created = scene.cluster.kubectl_stdin(&create, &there.to_string())?;
            ensure!(created.status.success(), "{namespace}: {}", String::from_utf8_lossy(&created.stderr));
        }
        Ok(())
    })();
    // The replicas come by themselves, though nobody is there to judge them.
    let back = scale("2").and_then(|_| crate::stage::wait_installed(scene.cluster));
    let open = fails("Ignore");
    played?;
    back?;
    open?;
    well(scene).map(drop)
}

fn a_rotation_lets_no_review_fail_and_no_pod_slip_by(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"nodeImageLimit": -1}))?;
    // Many in one call: kubectl takes longer to start than the API server to ask.
    let names = (0..TOGETHER).map(|number| pod(&format!("absent-{number}"), &scene.image("node"), "Never"));
    let absent = json!({"apiVersion": "v1", "kind": "List", "items": names.collect::<Vec<_>>()});
    let other = pod("other", "good:1", "IfNotPresent");
    let kubeconfig = scene.cluster.kubeconfig().display().to_string();
    let before = certificates(&kubeconfig)?;
    let done = AtomicBool::new(false);
    let create = || -> Result<usize> {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let denied = scene.try_create(&absent)?;
            let refusals = denied.err.matches("Error from server (ImageAbsent)").count();
            let all = refusals == TOGETHER && denied.out.is_empty();
            ensure!(all, "let through, or failed, during the rotation: {} {}", denied.out, denied.err);
            let created = scene.try_create(&other)?;
            created.accepted_in_silence().context("a pod that nothing speaks against")?;
            count += TOGETHER + 1;
        }
        Ok(count)
    };
    let (reviews, rotated, took) = scope(|threads| {
        let loops: Vec<_> = (0..2).map(|_| threads.spawn(create)).collect();
        let start = Instant::now();
        let rotated = pullguard(&kubeconfig).args(["certs", "rotate"]).stdin(Stdio::null()).output();
        let took = start.elapsed();
        // Connections that are made anew after it, too.
        sleep(Duration::from_secs(5));
        done.store(true, Ordering::Relaxed);
        let reviews: Result<Vec<usize>> =
            loops.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a loop of creations ended"))).collect();
        (reviews, rotated, took)
    });
    let rotated = rotated?;
    ensure!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let reviews: usize = reviews?.into_iter().sum();
    eprintln!("rotated in {:.0} s while {reviews} creations were judged, each right", took.as_secs_f64());
    ensure!(reviews >= 4 * TOGETHER, "only {reviews} creations were tried");

    let after = certificates(&kubeconfig)?;
    let of = |all: &Value, role: &str| {
        let found = all["certificates"].as_array().into_iter().flatten().find(|one| one["role"] == role);
        found.map(|one| one["sha256"].clone()).unwrap_or_default()
    };
    ensure!(
        of(&after, "previous-ca") == of(&before, "ca") && of(&after, "ca") != of(&before, "ca"),
        "{before} {after}"
    );
    ensure!(of(&after, "serving") != of(&before, "serving"), "{before} {after}");
    let told = well(scene)?;
    let overlap = told
        .lines
        .iter()
        .any(|line| line["message"].as_str().is_some_and(|told| told.ends_with("and the CA before it")));
    ensure!(overlap, "{told:?}");
    Ok(())
}

fn certificates(kubeconfig: &str) -> Result<Value> {
    let output = pullguard(kubeconfig).args(["certs", "-o", "json"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn the_fail_closed_overlay_is_proven_to_lock_nobody_out_and_the_open_one_claims_nothing(
    scene: &Scene<'_>,
) -> Result<()> {
    for (overlay, words) in [("fail-closed", "cannot lock the cluster out"), ("dev", "fail open")] {
        let folder = repository().join("manifests/overlays").join(overlay).display().to_string();
        let manifests = scene.cluster.kubectl_ok(&["kustomize", &folder])?;
        let path = std::env::temp_dir().join(format!("{}-{overlay}.yaml", scene.namespace));
        std::fs::write(&path, manifests)?;
        let told = Told::of(pullguard("/nonexistent").args(["doctor", "-o", "json", "-f"]).arg(&path));
        std::fs::remove_file(&path)?;
        let told = told?;
        let proof = told.lines.iter().find(|line| line["check"] == "lock-out").context("no word on a lock-out")?;
        ensure!(proof["message"].as_str().is_some_and(|message| message.contains(words)), "{proof}");
        ensure!(told.status == 0 && told.with("OK").len() == told.lines.len(), "{overlay}: {told:?}");
    }
    Ok(())
}

fn whoever_may_not_look_is_told_so_and_gets_no_all_clear(scene: &Scene<'_>) -> Result<()> {
    let token = scene.ok(&["create", "token", "default"])?;
    let config = scene.cluster.kubectl_ok(&["config", "view", "--raw", "-o", "json"])?;
    let mut config: Value = serde_json::from_str(&config)?;
    for user in config["users"].as_array_mut().context("users")? {
        user["user"] = json!({"token": token.trim()});
    }
    let path = std::env::temp_dir().join(format!("{}.kubeconfig", scene.namespace));
    std::fs::write(&path, config.to_string())?;
    let told = Told::of(pullguard(&path.display().to_string()).args(["doctor", "-o", "json"]));
    std::fs::remove_file(&path)?;
    let told = told?;
    ensure!(told.status == 2 && told.with("OK").is_empty() && told.with("FAIL").is_empty(), "{told:?}");
    let plain = |line: &Value| line["message"].as_str().is_some_and(|message| message.starts_with("not looked at: "));
    ensure!(told.lines.iter().all(plain), "{told:?}");
    Ok(())
}
