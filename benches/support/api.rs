//! A made-up API server: lists in pages, watches that stream, a lease, and a yes to every write.
//!
//! Enters: how many pods there are. Leaves: a port on loopback that `pullguard run` takes for a cluster. It is a mock, and
//! enough here: what is measured is our own memory on the real path from the socket to the ledger. Objects are made when
//! they are asked for, so that a cluster of 150,000 pods takes no room.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::Lots;
use super::cluster::{NAMES, NODES, POLICIES, namespace_labels, node};
use super::objects::{self, Size};

const NAMESPACES: usize = 500;
/// Events of the watch of pods in one piece of its body.
const AT_ONCE: usize = 50;

pub struct Cluster {
    pods: usize,
    /// How many changes of pods are told once `stirred` is set.
    changes: usize,
    pub stirred: AtomicBool,
    /// Changes of pods that were told.
    pub told: AtomicUsize,
    /// The pods were listed to the end.
    pub watched: AtomicBool,
    nodes: Vec<Bytes>,
    pod: String,
    /// Leases, and whatever else was written and is read again.
    written: Mutex<BTreeMap<String, Value>>,
}

impl Cluster {
    pub fn new(pods: usize, changes: usize) -> Self {
        let mut lots = Lots(7);
        let nodes = (0..NODES).map(|index| objects::node(&node(index, NAMES, &mut lots)).to_string().into()).collect();
        let containers = [
            ("main", "registry-1.example.com/team-1/service-1:v1.1"),
            ("side", "registry-2.example.com/team-2/service-2:v1.1"),
        ];
        let mut pod = objects::pod(0, &containers, "IfNotPresent", Size::SMALL);
        pod["spec"]["nodeName"] = json!("node-0");
        pod["status"] = objects::running_status(&containers);
        pod["metadata"]["resourceVersion"] = json!("RESOURCE-VERSION");
        Self {
            pods,
            changes,
            stirred: AtomicBool::new(false),
            told: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            nodes,
            pod: pod.to_string(),
            written: Mutex::default(),
        }
    }

    /// Of one pod, as JSON.
    pub fn pod_bytes(&self) -> usize {
        self.pod.len()
    }

    fn pod(&self, number: usize, version: usize) -> String {
        self.pod
            .replace("00000000-", &format!("{number:08x}-"))
            .replace("job-0", &format!("job-{number}"))
            .replace("task-0", &format!("task-{number}"))
            .replace("node-0", &format!("node-{}", number % NODES))
            .replace("RESOURCE-VERSION", &version.to_string())
    }

    fn count(&self, what: &str) -> usize {
        match what {
            "nodes" => NODES,
            "pods" => self.pods,
            "namespaces" => NAMESPACES,
            "nodeimagepolicies" => POLICIES,
            _ => 0,
        }
    }

    fn item(&self, what: &str, number: usize) -> Bytes {
        match what {
            "nodes" => self.nodes[number].clone(),
            "pods" => self.pod(number, 1).into(),
            "namespaces" => json!({"metadata": {"name": format!("namespace-{number}"), "resourceVersion": "1",
                "uid": format!("uid-{number}"), "labels": namespace_labels()}})
            .to_string()
            .into(),
            _ => policy(number).to_string().into(),
        }
    }

    fn list(&self, what: &str, query: &BTreeMap<String, String>) -> Response {
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(500));
        let until = (from + limit).min(self.count(what));
        let next = if until < self.count(what) { until.to_string() } else { String::new() };
        let mut text = format!(
            r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":["#
        );
        for number in from..until {
            let comma = if number == from { "" } else { "," };
            let item = self.item(what, number);
            write!(text, "{comma}{}", String::from_utf8_lossy(&item)).expect("a string takes all");
        }
        text.push_str("]}");
        answer(StatusCode::OK, text)
    }

    /// Changes of healthy pods: a status that is written anew, pods that come, pods that go.
    fn changes_from(&self, first: usize) -> Bytes {
        let mut text = String::new();
        for number in first..(first + AT_ONCE).min(self.changes) {
            let (kind, pod) = match number % 4 {
                0 | 1 => ("MODIFIED", number % self.pods.max(1)),
                2 => ("ADDED", self.pods + number),
                _ => ("DELETED", self.pods + number - 1),
            };
            writeln!(text, r#"{{"type":"{kind}","object":{}}}"#, self.pod(pod, 2 + number))
                .expect("a string takes all");
        }
        text.into()
    }
}

fn policy(number: usize) -> Value {
    json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
        "metadata": {"name": format!("policy-{number}"), "uid": format!("uid-{number}"), "generation": 1, "resourceVersion": "1"},
        "spec": {"match": {"namespaceSelector": {"matchLabels": {"team": format!("team-{number}")}}},
            "allowedImages": ["registry-0.example.com/**", "registry-1.example.com/**", "nginx", format!("team-{number}/*")],
            "runtime": {"enforcement": "Enforce", "taskLabel": "task"}}})
}

fn answer(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

fn not_found() -> Response {
    let text = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"not found"}"#;
    answer(StatusCode::NOT_FOUND, text)
}

fn watch(cluster: &Arc<Cluster>, what: &str) -> Response {
    if what != "pods" {
        return answer(StatusCode::OK, Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()));
    }
    cluster.watched.store(true, Ordering::Release);
    let changes = futures::stream::unfold((Arc::clone(cluster), 0), |(cluster, first)| async move {
        while !cluster.stirred.load(Ordering::Acquire) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        if first >= cluster.changes {
            return None;
        }
        let text = cluster.changes_from(first);
        cluster.told.fetch_add(AT_ONCE, Ordering::AcqRel);
        Some((Ok::<_, Infallible>(text), (cluster, first + AT_ONCE)))
    });
    answer(StatusCode::OK, Body::from_stream(changes.chain(futures::stream::pending())))
}

async fn serve(State(cluster): State<Arc<Cluster>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let what = path.rsplit('/').next().unwrap_or_default();
    match *request.method() {
        Method::GET if path == "/version" => answer(
            StatusCode::OK,
            r#"{"major":"1","minor":"37","gitVersion":"v1.37.2","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#,
        ),
        Method::GET if query.contains_key("watch") => watch(&cluster, what),
        Method::GET
            if matches!(
                what,
                "nodes" | "pods" | "namespaces" | "nodeimagepolicies" | "pullfailures" | "events" | "jobs"
            ) =>
        {
            cluster.list(what, &query)
        }
        Method::GET => match cluster.written.lock().expect("what was written").get(&path) {
            Some(object) => answer(StatusCode::OK, object.to_string()),
            None => not_found(),
        },
        Method::PATCH => answer(StatusCode::OK, policy(0).to_string()),
        _ => {
            let created = request.method() == Method::POST;
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
            let mut object: Value = serde_json::from_slice(&body).expect("an object");
            object["metadata"]["resourceVersion"] = json!("1");
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let place = if created { format!("{path}/{name}") } else { path };
            cluster.written.lock().expect("what is written").insert(place, object.clone());
            answer(if created { StatusCode::CREATED } else { StatusCode::OK }, object.to_string())
        }
    }
}

/// Serves until the runtime ends.
pub async fn listen(cluster: Arc<Cluster>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(serve).with_state(cluster);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
