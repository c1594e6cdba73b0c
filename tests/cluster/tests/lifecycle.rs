//! The cluster itself, on trial: what the product's tests stand on.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, Component, Node, Options, TestImage, nodes_possible};

/// Removes a test's cluster however the test ends.
struct Gone(&'static str);

impl Drop for Gone {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(self.0) {
            eprintln!("{error:#}");
        }
    }
}

fn nodes_or_skip(test: &str) -> bool {
    if !nodes_possible() {
        eprintln!("SKIPPED: {test} (it takes root)");
    }
    nodes_possible()
}

/// Asks until the answer holds `wanted`.
fn until(wanted: &str, limit: u64, ask: impl Fn() -> Result<String>) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(limit);
    loop {
        let answer = ask()?;
        if answer.contains(wanted) {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "no {wanted:?} within {limit} s, but: {answer}");
        sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_cluster_runs_pods_pulls_images_serves_services_and_leaves_nothing_behind() -> Result<()> {
    let name = "self-whole";
    if !nodes_or_skip("a whole cluster") {
        return Ok(());
    }
    Cluster::down(name)?;
    let _gone = Gone(name);
    let cluster = Cluster::up(&Options::named(name))?;
    let pod = |pod: &str, path: &str| cluster.kubectl_ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    let waiting =
        "{.status.containerStatuses[*].state.waiting.reason} {.status.containerStatuses[*].state.waiting.message}";

    // An image that is nowhere, and comes.
    cluster.kubectl_ok(&["run", "never", "--image=optio-node:latest", "--image-pull-policy=Never"])?;
    until("ErrImageNeverPull", 20, || pod("never", waiting))?;
    cluster.import(Node::A, "optio-node:latest")?;
    cluster.import(Node::B, "optio-node:latest")?;
    ensure!(cluster.list_images(Node::A)?.contains(&"docker.io/library/optio-node:latest".to_owned()));
    until("Running", 40, || pod("never", "{.status.phase}"))?;

    // Out of both registries, and not.
    let pulled = cluster.push("team/web:1")?;
    let server = "echo served > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let run = ["run", "web", &format!("--image={pulled}"), "--port=80", "--expose", "--", "sh", "-c", server];
    cluster.kubectl_ok(&run)?;
    let foreign = cluster.push_index(&TestImage::new("team/foreign:1").platform("windows/amd64"))?;
    cluster.kubectl_ok(&["run", "foreign", &format!("--image={foreign}")])?;
    let guarded = cluster.push_with_password(&TestImage::new("team/guarded:1"))?;
    cluster.kubectl_ok(&["run", "guarded", &format!("--image={guarded}")])?;
    cluster.kubectl_ok(&["run", "nowhere", "--image=registry.local/team/nowhere:1"])?;
    until("Running", 40, || pod("web", "{.status.phase}"))?;
    until("no match for platform", 40, || pod("foreign", waiting))?;
    until("no basic auth credentials", 40, || pod("guarded", waiting))?;
    until("not found", 40, || pod("nowhere", waiting))?;

    // Services, from where the API server is, and from pods.
    let address = cluster.kubectl_ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let url = format!("http://{address}/");
    until("served", 20, || {
        let output = cluster.inside("busybox").args(["wget", "-q", "-O-", &url]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    })?;
    ensure!(cluster.kubectl_ok(&["exec", "never", "--", "wget", "-q", "-O-", &url])?.contains("served"));
    let reach = ["exec", "never", "--", "sh", "-c", "nc $KUBERNETES_SERVICE_HOST 443 </dev/null && echo reached"];
    ensure!(cluster.kubectl_ok(&reach)?.contains("reached"));

    // Parts come and go, and pods outlive their node's daemons.
    for component in [Component::Kubelet(Node::A), Component::Containerd(Node::A), Component::ApiServer] {
        cluster.kill(component)?;
        ensure!(!cluster.is_running(component));
        cluster.start(component)?;
    }
    cluster.stop(Component::Etcd)?;
    // A second `up` repairs it.
    Cluster::up(&Options::named(name))?;
    until("served", 30, || {
        let output = cluster.kubectl(&["exec", "never", "--", "wget", "-q", "-O-", &url])?;
        Ok(String::from_utf8(output.stdout)?)
    })?;

    cluster.remove_image(Node::B, "optio-node:latest")?;
    ensure!(!cluster.list_images(Node::B)?.iter().any(|image| image.contains("optio-node")));
    until("optio-node", 60, || {
        cluster.kubectl_ok(&["get", "node", "node-a", "-o", "jsonpath={.status.images[*].names}"])
    })?;

    Cluster::down(name)?;
    ensure!(Cluster::leftovers(name)?.is_empty());
    Cluster::down(name)
}

#[test]
fn a_cluster_killed_half_way_is_cleaned_by_the_next_up_and_by_down() -> Result<()> {
    let name = "self-wreck";
    Cluster::down(name)?;
    let _gone = Gone(name);
    // Into the middle of each of its steps.
    for after in [300, 1500, 4000] {
        let mut up = Command::new(env!("CARGO_BIN_EXE_cluster"))
            .args(["up", "--name", name])
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run the command line")?;
        sleep(Duration::from_millis(after));
        up.kill()?;
        up.wait()?;
        if after == 1500 {
            Cluster::down(name)?;
            ensure!(Cluster::leftovers(name)?.is_empty());
        }
    }
    let cluster = Cluster::up(&Options::named(name))?;
    ensure!(cluster.kubectl_ok(&["get", "--raw=/readyz"])? == "ok");
    Cluster::down(name)?;
    ensure!(Cluster::leftovers(name)?.is_empty());
    Ok(())
}
