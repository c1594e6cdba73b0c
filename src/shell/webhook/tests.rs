//! What each caller gets, without a socket; what needs one is tested in `door`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;
use crate::core::inventory::InventorySettings;
use crate::core::node::{NodeFacts, Readiness, Runtime};
use crate::core::refusal::NoRefusals;
use crate::k8s::crd::NodeImagePolicy;
use crate::k8s::policy::compile;

/// Remembers what was decided; panics at a pod of the name `bug`.
#[derive(Debug, Default)]
struct Log {
    reviewed: AtomicUsize,
    decided: Mutex<Vec<Decision>>,
    rescued: Mutex<Vec<(Rescued, Vec<Arc<str>>)>>,
}

impl Sink for Arc<Log> {
    fn reviewed(&self, _: &Verdict, _: Duration) {
        self.reviewed.fetch_add(1, Ordering::Relaxed);
    }

    fn decided(&self, decision: Decision) {
        assert_ne!(decision.inquiry.name, "bug", "a defect");
        self.decided.lock().expect("a log").push(decision);
    }

    fn rescued(&self, rescue: Rescue<'_>) {
        self.rescued.lock().expect("a log").push((rescue.rescued.clone(), rescue.policies.to_vec()));
    }
}

enum Namespaces {
    Unlabelled,
    Hanging,
}

impl NamespaceLookup for Namespaces {
    fn labels<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Labels>> {
        match self {
            Self::Unlabelled => Box::pin(async { Some(Labels::new()) }),
            Self::Hanging => Box::pin(std::future::pending()),
        }
    }
}

struct Bench {
    router: Router,
    log: Arc<Log>,
}

/// One node without the image, and one policy.
fn bench(spec: Value, lookup: Namespaces) -> Bench {
    let world: World<NoRefusals> = World::new(InventorySettings::default());
    world.change_inventory(|inventory| {
        let node = NodeFacts {
            name: "node-a".into(),
            labels: [("kubernetes.io/hostname".to_owned(), "node-a".to_owned())].into(),
            taints: Vec::new(),
            unschedulable: false,
            readiness: Readiness::Ready,
            created: Timestamp::UNIX_EPOCH,
            runtime: Runtime::Containerd,
            images: vec![vec!["docker.io/library/pause:3".to_owned()]],
        };
        inventory.apply(node, Timestamp::now());
        inventory.set_synced(true);
    });
    let policy = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
        "metadata": {"name": "agents", "generation": 1}, "spec": spec});
    let policy: NodeImagePolicy = serde_json::from_value(policy).expect("a policy");
    world.change_policies(|policies| policies.apply(compile(&policy).expect("compiled")));
    let log = Arc::new(Log::default());
    let webhook = Webhook {
        world: Arc::new(world),
        own_namespace: "pullguard".into(),
        lookup: Box::new(lookup),
        sink: Box::new(Arc::clone(&log)),
    };
    Bench { router: router(Arc::new(webhook)), log }
}

fn enforcing() -> Bench {
    bench(json!({}), Namespaces::Unlabelled)
}

impl Bench {
    async fn send(&self, request: axum::http::Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        self.send(request(path, body)).await
    }

    async fn validate(&self, review: &Value) -> Value {
        let (status, text) = self.post("/validate?timeout=5s", review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("an answer")
    }

    /// The replica is none the worse for what was sent before.
    async fn still_answers(&self) {
        let answer = self.validate(&review(&pod("nginx:1", "IfNotPresent"))).await;
        assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)));
    }
}

fn request(path: &str, body: impl Into<Body>) -> axum::http::Request<Body> {
    let request = axum::http::Request::post(path).header("content-type", "application/json");
    request.body(body.into()).expect("a request")
}

fn pod(image: &str, pull_policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "app", "image": image, "imagePullPolicy": pull_policy}]}})
}

fn review(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "namespace": "team", "name": "p", "object": object, "oldObject": null, "dryRun": false}})
}

#[tokio::test]
async fn a_pod_that_no_node_can_run_is_denied_and_told_of() {
    let bench = enforcing();
    let answer = bench.validate(&review(&pod("optio-node:latest", "Never"))).await;
    assert_eq!(answer.pointer("/response/uid"), Some(&json!("u-1")));
    assert_eq!(answer.pointer("/response/allowed"), Some(&json!(false)));
    assert_eq!(answer.pointer("/response/status/code"), Some(&json!(403)));
    assert_eq!(answer.pointer("/response/status/reason"), Some(&json!("ImageAbsent")));
    let decided = bench.log.decided.lock().expect("a log");
    assert_eq!(decided.len(), 1);
}

#[tokio::test]
async fn a_dry_run_gets_the_same_answer_and_nobody_hears_of_it() {
    let bench = enforcing();
    let mut review = review(&pod("optio-node:latest", "Never"));
    *review.pointer_mut("/request/dryRun").expect("a field") = json!(true);
    let answer = bench.validate(&review).await;
    assert_eq!(answer.pointer("/response/status/code"), Some(&json!(403)));
    assert!(bench.log.decided.lock().expect("a log").is_empty());
}

#[tokio::test]
async fn a_healthy_pod_passes_in_silence() {
    let bench = enforcing();
    let answer = bench.validate(&review(&pod("pause:3", "Never"))).await;
    assert_eq!(answer.pointer("/response"), Some(&json!({"uid": "u-1", "allowed": true})));
    assert_eq!(bench.log.reviewed.load(Ordering::Relaxed), 1);
    assert!(bench.log.decided.lock().expect("a log").is_empty());
}

#[tokio::test]
async fn what_is_exempt_passes_before_anything_is_judged() {
    let bench = enforcing();
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Never"}]}});
    let absent = pod("optio-node:latest", "Never");
    for (pointer, value, object) in [
        ("/request/namespace", json!("kube-system"), &absent),
        ("/request/namespace", json!("pullguard"), &absent),
        ("/request/operation", json!("DELETE"), &Value::Null),
        ("/request/operation", json!("CONNECT"), &absent),
        ("/request/name", json!("mirror"), &mirror),
    ] {
        let mut review = review(object);
        *review.pointer_mut(pointer).expect("a field") = value;
        let answer = bench.validate(&review).await;
        assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)), "{pointer}");
    }
    assert_eq!(bench.log.reviewed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_rescue_is_a_patch_that_is_told_of_unless_it_is_a_rehearsal() {
    let spec = json!({"rescue": "PullIfNotPresent", "allowedImages": ["optio-*"]});
    let bench = bench(spec, Namespaces::Unlabelled);
    let mut review = review(&pod("optio-node:latest", "Never"));
    for (dry_run, told) in [(true, 0), (false, 1)] {
        *review.pointer_mut("/request/dryRun").expect("a field") = json!(dry_run);
        let (status, text) = bench.post("/mutate?timeout=5s", review.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        let answer: Value = serde_json::from_str(&text).expect("an answer");
        assert_eq!(answer.pointer("/response/patchType"), Some(&json!("JSONPatch")));
        let warning = answer.pointer("/response/warnings/0").and_then(Value::as_str).expect("a warning");
        assert!(warning.contains("(policy agents)") && warning.ends_with(": app"), "{warning}");
        assert_eq!(bench.log.rescued.lock().expect("a log").len(), told);
    }
    let rescued = bench.log.rescued.lock().expect("a log");
    assert_eq!(rescued[..], [(Rescued::Pull(vec![0]), vec!["agents".into()])]);
    assert!(bench.log.decided.lock().expect("a log").is_empty());
}

#[tokio::test]
async fn whatever_is_sent_is_answered_with_a_sentence() {
    let bench = enforcing();
    let review_of = |request: &str| {
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#)
    };
    let deep = format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000));
    for (body, part) in [
        (String::new(), "body is empty"),
        ("no json".into(), "cannot be read"),
        (deep.clone(), "cannot be read"),
        (r#"{"kind":"Pod"}"#.into(), "kind `Pod`"),
        (r#"{"kind":"AdmissionReview","apiVersion":"v3"}"#.into(), "version `v3`"),
        (review_of("{}"), "request.uid"),
    ] {
        let (status, text) = bench.post("/validate", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains(part) && text.len() < 600, "{text}");
        bench.still_answers().await;
    }
    let with_uid = [
        (review_of(r#"{"uid":"u-1","object": tru"#), "cannot be read"),
        (review(&pod("a", "Never")).to_string().replace("io/v1\"", "io/v1beta1\""), "admissionReviewVersions"),
        (review_of(r#"{"uid":"u-1","kind":{"kind":"Pod"},"operation":"CREATE"}"#), "no `request.object`"),
        (review(&json!({"spec": {"containers": 7}})).to_string(), "cannot be read as a Pod"),
        (review(&json!({"spec": {"containers": [{"name": ["a"]}]}})).to_string(), "cannot be read as a Pod"),
        (review(&json!([])).to_string(), "cannot be read as a Pod"),
        (
            review_of(&format!(r#"{{"uid":"u-1","kind":{{"kind":"Pod"}},"operation":"CREATE","object":{deep}}}"#)),
            "as a Pod",
        ),
    ];
    for (body, part) in with_uid {
        let (status, text) = bench.post("/validate", body).await;
        let answer: Value = serde_json::from_str(&text).expect("a review");
        assert_eq!((status, answer.pointer("/response/uid")), (StatusCode::OK, Some(&json!("u-1"))), "{text}");
        assert_eq!(answer.pointer("/response/status/code"), Some(&json!(400)), "{text}");
        let message = answer.pointer("/response/status/message").and_then(Value::as_str).expect("a message");
        assert!(message.contains(part) && message.len() < 600, "{message}");
        bench.still_answers().await;
    }
}

#[tokio::test]
async fn depth_where_nobody_looks_is_no_hindrance() {
    let bench = enforcing();
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let body = review(&json!({"spec": {"x": "DEEP", "containers": [{"name": "a", "image": "pause:3"}]}}))
        .to_string()
        .replace("\"DEEP\"", &deep);
    let (status, text) = bench.post("/validate", body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("\"allowed\":true"), "{text}");
}

#[tokio::test]
async fn a_kind_that_is_not_judged_passes_with_a_warning() {
    let bench = enforcing();
    let mut review = review(&json!({"kind": "Widget", "spec": {"containers": 7}}));
    *review.pointer_mut("/request/kind").expect("a field") =
        json!({"group": "x.io", "version": "v2", "kind": "Widget"});
    let answer = bench.validate(&review).await;
    assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)));
    let warning = answer.pointer("/response/warnings/0").and_then(Value::as_str).expect("a warning");
    assert!(warning.contains("x.io/v2 Widget"), "{warning}");
}

#[tokio::test]
async fn a_thousand_broken_containers_make_a_small_answer() {
    let bench = enforcing();
    let containers: Vec<Value> =
        (0..1_000).map(|n| json!({"name": format!("c{n}"), "image": format!("Broken Image {n}!")})).collect();
    let answer = bench.validate(&review(&json!({"spec": {"containers": containers}}))).await;
    assert_eq!(answer.pointer("/response/status/reason"), Some(&json!("InvalidImageReference")));
    assert!(answer.to_string().len() < 64 << 10, "{}", answer.to_string().len());
}

#[tokio::test]
async fn seven_mebibytes_are_judged_and_eight_are_refused() {
    let bench = enforcing();
    let of_size = |size: usize| {
        let mut object = pod("pause:3", "Never");
        object["metadata"]["annotations"] = json!({"fill": ""});
        let length = review(&object).to_string().len();
        object["metadata"]["annotations"]["fill"] = json!("x".repeat(size - length));
        review(&object).to_string()
    };
    let (status, text) = bench.post("/validate", of_size(LIMIT)).await;
    assert!(status == StatusCode::OK && text.contains("\"allowed\":true"), "{text}");
    let large = of_size(8 << 20);
    let announced = request("/validate", large.clone());
    let pieces =
        large.into_bytes().chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
    let unannounced = request("/validate", Body::from_stream(futures::stream::iter(pieces)));
    for request in [announced, unannounced] {
        let (status, text) = bench.send(request).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(text.contains("7 MiB"), "{text}");
        bench.still_answers().await;
    }
}

/// A body of these pieces, which then never goes on.
fn stalling(pieces: &[&'static str]) -> Body {
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
    Body::from_stream(futures::StreamExt::chain(futures::stream::iter(pieces), futures::stream::pending()))
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_in_the_callers_own_time() {
    let bench = enforcing();
    for body in [stalling(&[]), stalling(&["{\"kind\":"])] {
        let start = Instant::now();
        let (status, text) = bench.post("/validate?timeout=100ms", body).await;
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
        assert!(text.contains("did not arrive within 0.1 s"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(2));
        bench.still_answers().await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told_of() {
    let bench = enforcing();
    let pieces = [Ok(Bytes::from_static(b"{\"kind\":")), Err(std::io::Error::other("gone"))];
    let (status, text) = bench.post("/validate", Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("broke off"), "{text}");
}

#[tokio::test]
async fn all_bodies_together_stay_within_the_budget_and_wait_for_each_other() {
    let bodies = Bodies::default();
    let headers = axum::http::HeaderMap::new();
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let body = || {
        Body::from_stream(futures::stream::iter((0..3).map({
            let piece = piece.clone();
            move |_| Ok::<_, std::io::Error>(piece.clone())
        })))
    };
    // Unannounced, each may become 7 MiB: four fit, the others wait until one is done.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(bodies.read(&headers, body(), BODY_TIME).await.expect("room"));
    }
    let refused = bodies.read(&headers, body(), Duration::from_millis(50)).await.expect_err("no room");
    assert!(matches!(refused.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT));
    held.pop();
    assert_eq!(bodies.read(&headers, body(), BODY_TIME).await.expect("room").len(), 3 << 20);
}

#[tokio::test]
async fn a_wrong_path_method_or_type_is_told_what_is_right() {
    let bench = enforcing();
    let get = axum::http::Request::get("/validate").body(Body::empty()).expect("a request");
    let form = axum::http::Request::post("/validate")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("a=b"))
        .expect("a request");
    for (request, expected, part) in [
        (get, StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview"),
        (form, StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json"),
        (request("/", "{}"), StatusCode::NOT_FOUND, "/validate or /mutate"),
        (request("/validate/", "{}"), StatusCode::NOT_FOUND, "/validate or /mutate"),
    ] {
        let (status, text) = bench.send(request).await;
        assert_eq!(status, expected);
        assert!(text.contains(part), "{text}");
    }
    bench.still_answers().await;
}

#[tokio::test]
async fn a_namespace_that_cannot_be_looked_up_in_time_is_unknown_and_denies_nothing() {
    let spec = json!({"match": {"namespaceSelector": {"matchLabels": {"team": "a"}}}});
    let bench = bench(spec, Namespaces::Hanging);
    let start = Instant::now();
    let (status, text) =
        bench.post("/validate?timeout=1s", review(&pod("optio-node:latest", "Never")).to_string()).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&text).expect("an answer");
    assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)));
    assert_eq!(answer.pointer("/response/auditAnnotations/detail"), Some(&json!("NamespaceUnknown")));
}

#[tokio::test]
async fn a_defect_is_an_error_of_one_request() {
    let bench = enforcing();
    let mut object = pod("optio-node:latest", "Never");
    object["metadata"]["name"] = json!("bug");
    let (status, text) = bench.post("/validate", review(&object).to_string()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("defect"), "{text}");
    bench.still_answers().await;
}
