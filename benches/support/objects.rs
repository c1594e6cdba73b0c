//! Objects and reviews as the API server writes them.
//!
//! Enters: names and images. Leaves: JSON, with the fields in the order in which Go writes them and with all that nobody
//! asks for and every real object has: `managedFields`, environments, probes, projected volumes, `userInfo`.

use std::fmt::Write as _;

use pullguard::core::node::{NodeFacts, Readiness, TaintEffect};
use serde_json::{Value, json};

/// One entry of `managedFields`, some 1.5 kB for a small pod: which field is whose.
fn managed_fields(containers: &[(&str, &str)], variables: usize) -> Value {
    let mut of_containers = serde_json::Map::new();
    for (name, _) in containers {
        let mut env = serde_json::Map::new();
        env.insert(".".to_owned(), json!({}));
        for index in 0..variables {
            let key = format!("k:{{\"name\":\"SERVICE_SETTING_{index}\"}}");
            env.insert(key, json!({".": {}, "f:name": {}, "f:value": {}}));
        }
        let fields = json!({".": {}, "f:env": env, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
            "f:livenessProbe": {".": {}, "f:failureThreshold": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}, "f:scheme": {}},
                "f:periodSeconds": {}, "f:successThreshold": {}, "f:timeoutSeconds": {}},
            "f:resources": {".": {}, "f:limits": {".": {}, "f:memory": {}}, "f:requests": {".": {}, "f:cpu": {}, "f:memory": {}}},
            "f:securityContext": {".": {}, "f:allowPrivilegeEscalation": {}, "f:readOnlyRootFilesystem": {}},
            "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}});
        of_containers.insert(format!("k:{{\"name\":\"{name}\"}}"), fields);
    }
    json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-11-25T12:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:task": {},
                "f:batch.kubernetes.io/controller-uid": {}, "f:batch.kubernetes.io/job-name": {}},
                "f:ownerReferences": {".": {}, "k:{\"uid\":\"7d4cbd31-0b0a-4f5e-9d4e-3c8f0e2b6a11\"}": {}}},
            "f:spec": {"f:containers": of_containers, "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {},
                "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}}}])
}

fn container(name: &str, image: &str, pull_policy: &str, variables: usize) -> Value {
    let env: Vec<Value> = (0..variables)
        .map(|index| {
            let value =
                format!("https://service-{index}.apps.svc.cluster.local:8443/v1/endpoint?retries=3&deadline={index}s");
            json!({"name": format!("SERVICE_SETTING_{index}"), "value": value})
        })
        .collect();
    json!({"name": name, "image": image, "imagePullPolicy": pull_policy, "args": ["--config=/etc/app/config.yaml", "--verbose"],
        "env": env,
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "kube-api-access-x7x2k", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "livenessProbe": {"httpGet": {"path": "/livez", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true}})
}

/// The spec of a pod as the API server has defaulted it.
pub fn spec(containers: &[(&str, &str)], pull_policy: &str, variables: usize) -> Value {
    let containers: Vec<Value> =
        containers.iter().map(|(name, image)| container(name, image, pull_policy, variables)).collect();
    json!({
        "volumes": [{"name": "kube-api-access-x7x2k", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
        "containers": containers, "restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "serviceAccountName": "default", "serviceAccount": "default", "securityContext": {}, "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority"})
}

/// How large an object is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub variables: usize,
    /// Of an annotation, such as the configuration that `kubectl apply` remembers.
    pub annotation: usize,
}

impl Size {
    pub const SMALL: Self = Self { variables: 2, annotation: 0 };
    /// With seven containers some 300 kB.
    pub const LARGE: Self = Self { variables: 100, annotation: 138_000 };
}

fn metadata(number: usize, containers: &[(&str, &str)], size: Size) -> Value {
    let mut annotations =
        json!({"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu request for container main"});
    if size.annotation > 0 {
        let text = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":{}}} ";
        annotations["kubectl.kubernetes.io/last-applied-configuration"] =
            Value::from(text.repeat(size.annotation / text.len()));
    }
    json!({"name": format!("job-{number}-x7x2k"), "generateName": format!("job-{number}-"), "namespace": "apps",
        "uid": format!("{number:08x}-4b43-4d0c-8f5e-2f9a3c1d7e00"), "creationTimestamp": "2026-11-25T12:00:00Z",
        "labels": {"app.kubernetes.io/name": "service", "batch.kubernetes.io/controller-uid": "7d4cbd31-0b0a-4f5e-9d4e-3c8f0e2b6a11",
            "batch.kubernetes.io/job-name": format!("job-{number}"), "task": format!("task-{number}")},
        "annotations": annotations,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": format!("job-{number}"),
            "uid": format!("{number:08x}-0b0a-4f5e-9d4e-3c8f0e2b6a11"), "controller": true, "blockOwnerDeletion": true}],
        "finalizers": ["batch.kubernetes.io/job-tracking"],
        "managedFields": managed_fields(containers, size.variables)})
}

pub fn pod(number: usize, containers: &[(&str, &str)], pull_policy: &str, size: Size) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata(number, containers, size),
        "spec": spec(containers, pull_policy, size.variables), "status": {"phase": "Pending", "qosClass": "Burstable"}})
}

pub fn deployment(number: usize, containers: &[(&str, &str)], pull_policy: &str, size: Size) -> Value {
    let mut metadata = metadata(number, containers, size);
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("ownerReferences");
        fields.remove("generateName");
    }
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": metadata, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app.kubernetes.io/name": "service"}},
        "template": {"metadata": {"creationTimestamp": null, "labels": {"app.kubernetes.io/name": "service"}},
            "spec": spec(containers, pull_policy, size.variables)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}, "status": {}})
}

/// A review of a creation, or of an update where there is an old object.
pub fn review(number: usize, object: &Value, old_object: Option<&Value>) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, resource) = if kind == "Pod" { ("", "pods") } else { ("apps", "deployments") };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let operation = if old_object.is_some() { "UPDATE" } else { "CREATE" };
    let old = old_object.map_or_else(|| "null".to_owned(), Value::to_string);
    let mut text = String::with_capacity(4096);
    write!(
        text,
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{number:08x}-705f-4bd4-b15b-c8a2d8c5b8e2","#
    )
    .expect("a string takes all");
    for (prefix, capital) in [("", "k"), ("request", "K")] {
        let r = if prefix.is_empty() { "resource" } else { "Resource" };
        write!(
            text,
            r#""{prefix}{capital}ind":{{"group":"{group}","version":"v1","kind":"{kind}"}},"{prefix}{r}":{{"group":"{group}","version":"v1","resource":"{resource}"}},"#
        )
        .expect("a string takes all");
    }
    write!(
        text,
        concat!(
            r#""name":"{name}","namespace":"apps","operation":"{operation}","#,
            r#""userInfo":{{"username":"system:serviceaccount:kube-system:job-controller","uid":"5b8c5a5e-31a8-4a0c-a3e2-1f1f3f0b8a77","#,
            r#""groups":["system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated"],"#,
            r#""extra":{{"authentication.kubernetes.io/credential-id":["JTI=0ed5cbf6-b0f2-43a4-a1a4-6ae5d6d40bd5"]}}}},"#,
            r#""object":{object},"oldObject":{old},"dryRun":false,"options":{{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}}}}"#
        ),
        name = name,
        operation = operation,
        object = object,
        old = old
    )
    .expect("a string takes all");
    text
}

/// A node as the API server lists it.
pub fn node(facts: &NodeFacts) -> Value {
    let taints: Vec<Value> = facts
        .taints
        .iter()
        .map(|taint| {
            let effect = match taint.effect {
                TaintEffect::NoSchedule => "NoSchedule",
                TaintEffect::PreferNoSchedule => "PreferNoSchedule",
                TaintEffect::NoExecute => "NoExecute",
            };
            json!({"key": taint.key, "value": taint.value, "effect": effect})
        })
        .collect();
    let ready = match facts.readiness {
        Readiness::Ready => "True",
        Readiness::NotReady => "False",
        Readiness::Unknown => "Unknown",
    };
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "lastHeartbeatTime": "2026-11-25T12:00:00Z",
            "lastTransitionTime": "2026-11-20T12:00:00Z", "reason": "KubeletHas", "message": "kubelet has what it needs"})
    };
    let images: Vec<Value> =
        facts.images.iter().map(|names| json!({"names": names, "sizeBytes": 123_456_789})).collect();
    let resources = json!({"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "200Gi"});
    json!({
        "metadata": {"name": facts.name, "uid": format!("uid-{}", facts.name), "resourceVersion": "1",
            "creationTimestamp": facts.created.to_string(), "labels": facts.labels,
            "annotations": {"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": format!("cloud:///{}", facts.name), "taints": taints,
            "unschedulable": facts.unschedulable},
        "status": {"capacity": resources, "allocatable": resources,
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("Ready", ready)],
            "nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6.12", "osImage": "Linux",
                "containerRuntimeVersion": "containerd://2.4.2", "kubeletVersion": "v1.37.2", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64"},
            "images": images}})
}

/// The status of a pod that is well.
pub fn running_status(containers: &[(&str, &str)]) -> Value {
    let statuses: Vec<Value> = containers
        .iter()
        .map(|(name, image)| {
            json!({"name": name, "state": {"running": {"startedAt": "2026-11-25T12:00:05Z"}}, "lastState": {}, "ready": true,
                "restartCount": 0, "image": image, "imageID": format!("{image}@sha256:{}", "0".repeat(64)),
                "containerID": format!("containerd://{}", "1".repeat(64)), "started": true})
        })
        .collect();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-25T12:00:05Z"});
    let conditions =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({"phase": "Running", "conditions": conditions, "hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
        "startTime": "2026-11-25T12:00:00Z", "containerStatuses": statuses, "qosClass": "Burstable"})
}
