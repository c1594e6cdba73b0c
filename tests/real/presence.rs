//! Whether an image is on the nodes: what the policy makes of the question, and what a node's state makes of the answer.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::check::check;
use crate::simulated;
use crate::stage::until;
use crate::world::{ON_B, ON_BOTH, Scene, deployment, list, pod};

crate::scenarios! {
    Nodes:
        in_scope_all_every_container_counts_and_always_needs_a_registry,
        what_may_come_with_a_new_node_is_not_proven_absent,
        a_list_as_long_as_the_limit_proves_nothing_and_the_status_names_the_node,
        preloaded_images_count_until_a_kubelet_contradicts,
        of_several_policies_the_strictest_wins_and_the_message_names_them;
    NodesAlone:
        what_a_node_proves_depends_on_its_state,
        no_taint_is_final_where_tolerations_are_to_come;
}

fn in_scope_all_every_container_counts_and_always_needs_a_registry(scene: &Scene<'_>) -> Result<()> {
    let absent = scene.image("nowhere");
    // By default only pods that may not pull are judged.
    scene.policy(json!({}))?;
    scene.try_create(&pod("pulls", &absent, "IfNotPresent"))?.accepted_in_silence()?;

    scene.policy(json!({"presence": {"scope": "All"}, "templates": "Deny"}))?;
    scene.try_create(&pod("pulls", &absent, "IfNotPresent"))?.refused_with(&["ImageAbsent", &absent])?;
    scene.try_create(&pod("asks", ON_BOTH, "Always"))?.refused_with(&["AlwaysNeedsRegistry", "imagePullPolicy"])?;
    let mut web = deployment("web", ON_BOTH);
    web["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    scene.try_create(&web)?.refused_with(&["AlwaysNeedsRegistry"])?;
    let mut everywhere = web.clone();
    everywhere["kind"] = json!("DaemonSet");
    let spec = everywhere["spec"].as_object_mut().context("a spec")?;
    spec.remove("replicas");
    scene.try_create(&everywhere)?.accepted_in_silence()?;
    until("an image that is there is accepted", 90, || {
        Ok(scene.try_create(&pod("there", ON_BOTH, "IfNotPresent"))?.accepted.then_some(()))
    })?;
    scene.try_create(&pod("there", ON_BOTH, "IfNotPresent"))?.accepted_in_silence()
}

fn what_may_come_with_a_new_node_is_not_proven_absent(scene: &Scene<'_>) -> Result<()> {
    let absent = pod("task", &scene.image("nowhere"), "Never");
    scene.policy(json!({"presence": {"elastic": true}}))?;
    let warned = scene.try_create(&absent)?;
    ensure!(warned.accepted, "{}", warned.err);
    warned.says(&["Warning: ImagePresenceUnknown"])?;
    scene.policy(json!({"presence": {"elastic": true, "onUnknown": "Deny"}}))?;
    scene.try_create(&absent)?.refused_with(&["ImagePresenceUnknown", "A new node may come with it."])?;
    scene.policy(json!({"presence": {"elastic": true, "onUnknown": "Allow"}}))?;
    scene.try_create(&absent)?.accepted_in_silence()?;
    // What is done about proven absence is the policy's choice too.
    scene.policy(json!({"presence": {"onAbsent": "Warn"}}))?;
    let warned = scene.try_create(&absent)?;
    ensure!(warned.accepted, "{}", warned.err);
    warned.says(&["Warning: ImageAbsent"])
}

fn status(scene: &Scene<'_>) -> Result<Value> {
    Ok(scene.get("nodeimagepolicy", &scene.namespace)?["status"].clone())
}

fn a_list_as_long_as_the_limit_proves_nothing_and_the_status_names_the_node(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"nodeImageLimit": 1, "presence": {"onUnknown": "Deny"}}))?;
    let denied = scene.try_create(&pod("task", &scene.image("nowhere"), "Never"))?;
    denied.refused_with(&["ImagePresenceUnknown", "list only their largest images", "nodeStatusMaxImages"])?;
    until("the status names the nodes", 60, || {
        Ok((status(scene)?["truncatedNodes"] == json!(["node-a", "node-b"])).then_some(()))
    })?;
    // The limit mended, the list proves again.
    scene.policy(json!({"nodeImageLimit": -1}))?;
    scene.try_create(&pod("task", &scene.image("nowhere"), "Never"))?.refused_with(&["ImageAbsent"])?;
    until("the status names no node", 60, || {
        Ok(status(scene)?["truncatedNodes"].as_array().is_none_or(Vec::is_empty).then_some(()))
    })
}

fn preloaded_images_count_until_a_kubelet_contradicts(scene: &Scene<'_>) -> Result<()> {
    let image = scene.image("preloaded");
    let mut task = pod("task", &image, "Never");
    task["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-a"});
    scene.policy(json!({"preloadedImages": [image]}))?;
    scene.try_create(&pod("task", &image, "Never"))?.accepted_in_silence()?;
    scene.created(&task)?;
    scene.until_stuck("ErrImageNeverPull")?;
    // The kubelet knows better than the policy: on its node, and there alone.
    until("a pod for that node is refused", 90, || Ok((!scene.try_create(&task)?.accepted).then_some(())))?;
    let mut again = task.clone();
    again["metadata"]["name"] = json!("again");
    scene.try_create(&again)?.refused_with(&["ImageAbsent", &image, "a kubelet that says it is not there"])?;
    again["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-b"});
    scene.try_create(&again)?.accepted_in_silence()?;
    let contradicted = until("the status tells of the contradiction", 60, || {
        Ok(status(scene)?["contradictedPreloads"].as_array().filter(|all| !all.is_empty()).cloned())
    })?;
    ensure!(contradicted.len() == 1 && contradicted[0]["node"] == "node-a", "{contradicted:?}");
    ensure!(contradicted[0]["image"].as_str().is_some_and(|name| name.ends_with(&image)), "{contradicted:?}");
    Ok(())
}

fn of_several_policies_the_strictest_wins_and_the_message_names_them(scene: &Scene<'_>) -> Result<()> {
    let absent = pod("task", &scene.image("nowhere"), "Never");
    let other = format!("{}-too", scene.namespace);
    scene.policy(json!({"enforcement": "Warn"}))?;
    scene.another_policy(&other, json!({"enforcement": "Audit"}))?;
    let warned = scene.try_create(&absent)?;
    ensure!(warned.accepted, "{}", warned.err);
    warned.says(&[&format!("Warning: ImageAbsent (policy {})", scene.namespace)])?;

    scene.another_policy(&other, json!({}))?;
    let denied = scene.try_create(&absent)?;
    denied.refused_with(&["ImageAbsent", &format!("(policy {other})")])?;

    scene.policy(json!({}))?;
    let both = format!("(policies {}, {other})", scene.namespace);
    scene.try_create(&absent)?.refused_with(&["ImageAbsent", &both])?;

    // Each has its own allowlist, and each must be satisfied.
    scene.policy(json!({"allowedImages": ["optio-*"]}))?;
    scene.another_policy(&other, json!({"allowedImages": ["registry.local/**"]}))?;
    scene
        .try_create(&pod("task", "optio-x:1", "IfNotPresent"))?
        .refused_with(&["ImageNotAllowed", &format!("(policy {other})")])?;
    let neither = scene.try_create(&pod("task", "nginx:1", "IfNotPresent"))?;
    neither.refused_with(&["ImageNotAllowed", &both])
}

const IMAGE: &str = "optio-simulated:1";

/// A node in some state, what the verdict on a pod for it alone is, and what its message tells; no verdict: it is accepted.
struct Case {
    name: &'static str,
    node: Value,
    verdict: Option<&'static str>,
    tells: &'static str,
}

fn case(
    name: &'static str,
    verdict: Option<&'static str>,
    tells: &'static str,
    change: impl FnOnce(&mut Value),
) -> Case {
    let mut node = json!({"images": [[format!("docker.io/library/{IMAGE}")]]});
    change(&mut node);
    Case { name, node, verdict, tells }
}

/// Each holds the image, unless the case is that it does not.
fn cases() -> Vec<Case> {
    const UNKNOWN: Option<&str> = Some("ImagePresenceUnknown");
    let others = |count: usize| -> Value {
        (0..count).map(|number| json!([format!("docker.io/library/other-{number}:1")])).collect()
    };
    let names: Vec<String> = (0..5).map(|number| format!("docker.io/library/many:{number}")).collect();
    vec![
        case("well", None, "", |_| {}),
        case("lacks", Some("ImageAbsent"), "1 does not list it", |node| node["images"] = others(1)),
        case("full", UNKNOWN, "lists only its largest images", |node| node["images"] = others(50)),
        case("overfull", UNKNOWN, "lists only its largest images", |node| node["images"] = others(60)),
        case("named", UNKNOWN, "so many names that some are hidden", |node| node["images"] = json!([names])),
        case("empty", UNKNOWN, "lists no images at all", |node| node["images"] = json!([])),
        case("cordoned", UNKNOWN, "is cordoned", |node| node["unschedulable"] = json!(true)),
        case("unready", UNKNOWN, "is not ready", |node| node["ready"] = json!("False")),
        case("silent", UNKNOWN, "has not told whether it is ready", |node| node["ready"] = json!("Unknown")),
        case("starting", UNKNOWN, "is tainted node.cilium.io/agent-not-ready", |node| {
            node["taint"] = json!("node.cilium.io/agent-not-ready");
        }),
        case("tainted", UNKNOWN, "is tainted gpu:NoSchedule", |node| node["taint"] = json!("gpu")),
        case("crio-short", UNKNOWN, "resolves short names in its own way", |node| {
            node["runtime"] = json!("cri-o://1.35.0");
            node["images"] = others(1);
        }),
        case("crio-holds", None, "", |node| {
            node["runtime"] = json!("cri-o://1.35.0");
            node["images"] = json!([[format!("registry.example/library/{IMAGE}")]]);
        }),
        case("docker", None, "", |node| {
            node["runtime"] = json!("docker://28.0.0");
            node["images"] = json!([[IMAGE]]);
        }),
    ]
}

fn node_of(case: &Case, name: &str, set: &str) -> Value {
    let mut node = simulated::node(name, set);
    node["status"]["images"] = case.node["images"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|names| json!({"names": names, "sizeBytes": 1}))
        .collect();
    if let Some(ready) = case.node["ready"].as_str() {
        node["status"]["conditions"][0]["status"] = json!(ready);
    }
    if let Some(runtime) = case.node["runtime"].as_str() {
        node["status"]["nodeInfo"] = simulated::node_info(runtime);
    }
    if let Some(key) = case.node["taint"].as_str() {
        node["spec"]["taints"] = json!([{"key": key, "effect": "NoSchedule"}]);
    }
    node["spec"]["unschedulable"] = case.node["unschedulable"].clone();
    node
}

fn what_a_node_proves_depends_on_its_state(scene: &Scene<'_>) -> Result<()> {
    let cases = cases();
    let name = |case: &Case| format!("{}-{}", case.name, std::process::id());
    let nodes: Vec<Value> = cases.iter().map(|case| node_of(case, &name(case), &scene.namespace)).collect();
    let _nodes = simulated::make(scene.cluster, &scene.namespace, &nodes)?;
    scene.policy(json!({"nodes": simulated::selector(&scene.namespace), "presence": {"onUnknown": "Deny"}}))?;
    let pods = cases.iter().map(|case| {
        let mut pod = pod(case.name, IMAGE, "Never");
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": name(case)});
        pod
    });
    let answer = scene.try_create(&list(pods))?;
    for Case { name: short, verdict, tells, .. } in &cases {
        match verdict {
            None => ensure!(answer.out.contains(&format!("pod/{short} created")), "{short}: {}", answer.err),
            Some(reason) => {
                let own = format!("{short}-{}", std::process::id());
                let told = |line: &str| [*reason, *tells, own.as_str()].iter().all(|part| line.contains(part));
                ensure!(answer.err.lines().any(told), "{short}: no {reason} with {tells:?} in {}", answer.err);
            }
        }
    }
    // The nodes that are no kubelet's are no other policy's business here; where several hold it, one that is well suffices.
    scene.try_create(&pod("anywhere", IMAGE, "Never"))?.accepted_in_silence()?;
    until("node-b lists its image", 90, || {
        let answer = scene.try_create(&pod("elsewhere", ON_B, "Never"))?;
        answer.refused_with(&["node node-b holds it but is not among the policy's nodes"]).map(Some)
    })
}

/// A RuntimeClass whose nodes are tainted. It goes when this is dropped.
struct RuntimeClass<'a>(&'a Scene<'a>);

impl<'a> RuntimeClass<'a> {
    fn make(scene: &'a Scene<'a>, taint: &str) -> Result<Self> {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": scene.namespace},
            "handler": "runc", "scheduling": {"tolerations": [{"key": taint, "operator": "Exists"}]}});
        scene.created(&class)?;
        Ok(Self(scene))
    }
}

impl Drop for RuntimeClass<'_> {
    fn drop(&mut self) {
        let _gone_with_the_cluster = self.0.kubectl(&["delete", "runtimeclass", &self.0.namespace, "--wait=false"]);
    }
}

/// The API server adds a class's tolerations to a pod before it asks a webhook, and to no template; whoever holds a pod by a
/// scheduling gate may add some until the gate falls.
fn no_taint_is_final_where_tolerations_are_to_come(scene: &Scene<'_>) -> Result<()> {
    const TAINT: &str = "sandbox";
    let cases = [
        case("sandboxed", None, "", |node| node["taint"] = json!(TAINT)),
        case("plain", None, "", |node| node["images"] = json!([["docker.io/library/other:1"]])),
    ];
    let name = |case: &Case| format!("{}-{}", case.name, std::process::id());
    let nodes: Vec<Value> = cases.iter().map(|case| node_of(case, &name(case), &scene.namespace)).collect();
    let _nodes = simulated::make(scene.cluster, &scene.namespace, &nodes)?;
    let _class = RuntimeClass::make(scene, TAINT)?;
    scene.policy(json!({"nodes": simulated::selector(&scene.namespace), "templates": "Deny"}))?;

    let tainted = ["ImageAbsent", "holds it but is tainted sandbox:NoSchedule"];
    scene.try_create(&pod("alone", IMAGE, "Never"))?.refused_with(&tainted)?;
    scene.try_create(&deployment("alone", IMAGE))?.refused_with(&tainted)?;

    let with = |field: &str, value: Value, mut pod: Value| {
        pod["spec"][field] = value;
        pod
    };
    let of_class = |pod| with("runtimeClassName", json!(scene.namespace), pod);
    let gated = |pod| with("schedulingGates", json!([{"name": "queue.example/admission"}]), pod);
    let mut template = deployment("classed", IMAGE);
    template["spec"]["template"] = of_class(template["spec"]["template"].take());
    scene.try_create(&template)?.accepted_in_silence()?;
    scene.try_create(&of_class(pod("classed", IMAGE, "Never")))?.accepted_in_silence()?;
    scene.try_create(&gated(pod("gated", IMAGE, "Never")))?.accepted_in_silence()?;
    let mut checked = [of_class(pod("classed", IMAGE, "Never")), pod("alone", IMAGE, "Never")];
    checked.iter_mut().for_each(|pod| pod["metadata"]["namespace"] = json!(scene.namespace));
    let (_, entries, told) = check(scene, &list(checked))?;
    let verdicts: Vec<&Value> = entries.iter().map(|entry| &entry["verdict"]).collect();
    ensure!(verdicts == ["Allow", "Deny"], "check says {entries:?} {told}");

    // What is nowhere is nowhere, whatever is tolerated.
    let nowhere = scene.image("nowhere");
    scene.try_create(&gated(pod("gated", &nowhere, "Never")))?.refused_with(&["ImageAbsent", "none of the 2 nodes"])
}
