//! Every kind of bad request, over TLS: the answer that its caller can use, and the next request served.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fuzz::ground;
use super::stage::{Stage, pod, post, receive, review, review_of_size, send};

/// The answer to a body, which is text.
fn refused(stage: &Stage, body: &str, part: &str) {
    let answer = stage.send(&post("/validate", body)).expect("an answer");
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains(part) && answer.body.len() < 1_000, "{}", answer.body);
    stage.serves_the_next();
}

/// The answer to a body, which is a review with the request's uid.
fn told(stage: &Stage, body: &str, code: u16, part: &str) {
    let answer = stage.send(&post("/validate", body)).expect("an answer");
    let told = answer.json();
    let response = &told["response"];
    assert_eq!((answer.status, response["uid"].as_str()), (200, Some("u-1")), "{}", answer.body);
    assert_eq!((&response["allowed"], response["status"]["code"].as_u64()), (&json!(false), Some(code.into())));
    assert!(response["status"]["message"].as_str().is_some_and(|text| text.contains(part)), "{}", answer.body);
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
    stage.serves_the_next();
}

fn with_request(request: &str) -> String {
    format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#)
}

#[test]
fn a_body_that_is_no_review_is_told_what_is_expected() {
    let stage = Stage::open(ground::webhook());
    refused(&stage, "", "the body is empty");
    refused(&stage, "no json", "cannot be read");
    refused(&stage, "{\"kind\": \"Pod\"}", "kind `Pod`");
    refused(&stage, r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v7"}"#, "admissionReviewVersions");
    refused(&stage, &with_request("{}"), "request.uid");
    refused(&stage, &with_request("null"), "no `request`");
    refused(&stage, &"[".repeat(1_000_000), "cannot be read");
    refused(&stage, &"{\"kind\":".repeat(500_000), "cannot be read");
}

#[test]
fn a_review_that_cannot_be_judged_is_answered_with_its_uid() {
    let stage = Stage::open(ground::webhook());
    let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    told(&stage, &with_request(r#"{"uid":"u-1","object": tru"#), 400, "cannot be read");
    told(&stage, &review(&pod("a", "Never")).to_string().replace("io/v1\"", "io/v1beta1\""), 400, "v1beta1");
    told(&stage, &with_request(r#"{"uid":"u-1","kind":{"kind":"Pod"},"operation":"CREATE"}"#), 400, "request.object");
    told(&stage, &review(&json!({"spec": {"containers": 7}})).to_string(), 400, "as a Pod");
    let object = format!(r#"{{"uid":"u-1","kind":{{"kind":"Pod"}},"operation":"CREATE","object":{deep}}}"#);
    told(&stage, &with_request(&object), 400, "as a Pod");
    let object = object.replace(&deep, &format!(r#"{{"spec":{{"containers":{deep}}}}}"#));
    told(&stage, &with_request(&object), 400, "as a Pod");
    let containers = vec![json!({}); 10_001];
    told(&stage, &review(&json!({"spec": {"containers": containers}})).to_string(), 400, "more than 10000");
}

#[test]
fn a_thousand_containers_are_judged_in_time_and_told_of_in_short() {
    let stage = Stage::open(ground::webhook());
    let of = |image: &dyn Fn(usize) -> String| {
        let container = |n| json!({"name": format!("c{n}"), "image": image(n), "imagePullPolicy": "Never"});
        review(&json!({"spec": {"containers": (0..1_000).map(container).collect::<Vec<_>>()}})).to_string()
    };
    let start = Instant::now();
    told(&stage, &of(&|n| format!("Broken Image {n}!")), 403, "no image reference");
    told(&stage, &of(&|n| format!("registry.local/agent-{n}:1")), 403, "agent-0:1");
    told(&stage, &of(&|_| "registry.local/agent:7".to_owned()), 403, "agent:7");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_broken_reference_is_denied_with_the_reason_and_an_unknown_kind_passes_with_a_warning() {
    let stage = Stage::open(ground::webhook());
    for image in ["", "team/UPPER", "a:b:c", "https://nginx", "nginx@sha256:12", "é", "a\u{0}b", &"x".repeat(5_000)] {
        told(&stage, &review(&pod(image, "Never")).to_string(), 403, "no image reference");
    }
    let mut unknown = review(&json!({"kind": "Widget", "spec": {"containers": 7}}));
    unknown["request"]["kind"] = json!({"group": "x.io", "version": "v2", "kind": "Widget"});
    let answer = stage.send(&post("/validate", &unknown.to_string())).expect("an answer").json();
    assert_eq!(answer["response"]["allowed"], json!(true));
    assert!(answer["response"]["warnings"][0].as_str().is_some_and(|text| text.contains("x.io/v2 Widget")));
    stage.serves_the_next();
}

#[test]
fn seven_mebibytes_are_judged_and_eight_are_told_the_limit() {
    let stage = Stage::open(ground::webhook());
    let answer = stage.send(&post("/validate", &review_of_size(7 << 20))).expect("an answer");
    assert_eq!((answer.status, &answer.json()["response"]["allowed"]), (200, &json!(true)));
    stage.serves_the_next();
    let large = review_of_size(8 << 20);
    let chunked = format!(
        "POST /validate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for bytes in [post("/validate", &large), chunked.into_bytes()] {
        let answer = stage.send(&bytes).expect("the sentence, though all was sent");
        assert!(answer.status == 413 && answer.body.contains("7 MiB"), "{} {}", answer.status, answer.body);
        stage.serves_the_next();
    }
}

#[test]
fn a_wrong_path_method_type_or_protocol_is_told_what_is_right() {
    let stage = Stage::open(ground::webhook());
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nhost: x\r\n{more}\r\n").into_bytes();
    for (bytes, status, part) in [
        (head("POST /", "content-length: 0\r\n"), 404, "/validate or /mutate"),
        (head("POST /validate/x", "content-length: 0\r\n"), 404, "/validate or /mutate"),
        (head("GET /validate", ""), 405, "POST an AdmissionReview"),
        (head("POST /validate", "content-type: text/yaml\r\ncontent-length: 0\r\n"), 415, "application/json"),
        (head("POST /validate", "content-length: 1\r\ncontent-length: 2\r\n"), 400, ""),
        (b"GET /\r\n\r\n\r\n".to_vec(), 400, ""),
        (vec![0; 64], 400, ""),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = stage.send(&bytes).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(answer.status, status, "{shown}");
        assert!(answer.body.contains(part), "{shown}: {}", answer.body);
        stage.serves_the_next();
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let stage = Stage::open(ground::webhook());
    let mut client = stage.connect().expect("connected");
    let head = format!("POST /validate HTTP/1.1\r\nx-long: {}", "x".repeat(10 << 20));
    assert!(client.write_all(head.as_bytes()).is_err(), "10 MiB of a head were taken");
    stage.serves_the_next();
}

#[test]
fn who_offers_http2_and_http1_is_served_by_http1_as_the_api_server_asks() {
    let stage = Stage::open(ground::webhook());
    let mut client = stage.connect_speaking(&[b"h2", b"http/1.1"]).expect("connected");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let bytes = post("/validate", &review(&pod("agent:1", "Never")).to_string());
    assert_eq!(send(&mut client, &bytes).expect("an answer").status, 200);
    assert!(stage.connect_speaking(&[b"h2"]).is_err(), "HTTP/2 alone is refused in the handshake");
    stage.serves_the_next();
    // Prior knowledge, without asking.
    let mut client = stage.connect().expect("connected");
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut told = Vec::new();
    let _ = client.read_to_end(&mut told);
    assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&told));
    stage.serves_the_next();
}

#[test]
fn who_speaks_no_tls_is_told_in_plain_text() {
    let stage = Stage::open(ground::webhook());
    let mut stream = stage.plain().expect("connected");
    stream.write_all(&post("/validate", &review(&pod("a", "Never")).to_string())).expect("sent");
    let answer = receive(&mut stream).expect("an answer");
    assert!(answer.status == 400 && answer.body.contains("TLS only"), "{}", answer.body);
    stage.serves_the_next();
}

#[test]
fn one_connection_survives_all_that_was_wrong_on_it() {
    let stage = Stage::open(ground::webhook());
    let mut client = stage.connect().expect("connected");
    let bad: [(String, u16); 4] = [
        ("no json".into(), 400),
        (with_request(r#"{"uid":"u-1""#), 200),
        ("x".repeat(7 << 20), 400),
        ("x".repeat(8 << 20), 413),
    ];
    for (body, status) in bad {
        assert_eq!(send(&mut client, &post("/validate", &body)).expect("an answer").status, status);
        let good = review(&pod("agent:1", "Never")).to_string();
        let answer: Value = send(&mut client, &post("/validate", &good)).expect("the next").json();
        assert_eq!(answer["response"]["uid"], json!("u-1"));
    }
}
