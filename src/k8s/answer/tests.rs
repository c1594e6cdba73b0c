use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::core::reason::Detail;
use crate::core::verdict::Found;

fn body(kind: &str, object: &Value) -> Vec<u8> {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": if kind == "Pod" { "" } else { "batch" }, "version": "v1", "kind": kind},
        "operation": "CREATE", "namespace": "team", "object": object}})
    .to_string()
    .into_bytes()
}

fn pod() -> Value {
    json!({"metadata": {"generateName": "worker-"}, "spec": {
        "initContainers": [{"name": "setup", "image": "a:1"}],
        "containers": [{"name": "app", "image": "optio-node:latest"}]}})
}

fn finding(action: Action, policy: &str) -> Finding {
    let found = Found {
        containers: Arc::from(["app".to_owned()]),
        image: "optio-node:latest".into(),
        reason: Reason::ImageAbsent,
        detail: Some(Detail::NoNodeHoldsAll),
        action,
        would_be: Action::Deny,
        unaudited: Action::Deny,
        explanation: "image \"optio-node:latest\" is on none of 2 nodes.".into(),
        remedy: Some("Run ./images/build.sh node to build it.".into()),
    };
    Finding { policy: policy.into(), hint: None, found: Arc::new(found) }
}

fn changed(finding: Finding, change: impl FnOnce(&mut Found)) -> Finding {
    let mut found = Arc::unwrap_or_clone(finding.found);
    change(&mut found);
    Finding { found: Arc::new(found), ..finding }
}

fn verdict(findings: Vec<Finding>) -> Verdict {
    Verdict { findings, omitted: 0, matched_policies: vec!["agents".into()] }
}

fn answered(kind: &str, object: &Value, verdict: &Verdict) -> Value {
    let body = body(kind, object);
    let review = Envelope::parse(&body).expect("a review");
    let inquiry = review.submitted().inquire("pullguard").expect("an object").expect("judged");
    serde_json::to_value(Answer::judged(&review, &inquiry, verdict)).expect("json")
}

#[test]
fn a_denial_is_for_people_and_for_programs() {
    let verdict = verdict(vec![finding(Action::Deny, "agents")]);
    let answer = answered("Pod", &pod(), &verdict);
    assert_eq!(
        answer,
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
            "uid": "u-1",
            "allowed": false,
            "status": {
                "status": "Failure",
                "code": 403,
                "reason": "ImageAbsent",
                "message": denial(&verdict),
                "details": {"name": "worker-", "group": "", "kind": "Pod", "retryAfterSeconds": 45, "causes": [{
                    "reason": "ImageAbsent",
                    "message": verdict.first().expect("a finding").message(),
                    "field": "spec.containers{app}.image",
                }]},
            },
            "auditAnnotations": {"decision": "Deny", "would-be": "Deny", "reason": "ImageAbsent", "detail": "NoNodeHoldsAll",
                "policies": "agents"},
        }})
    );
}

#[test]
fn only_what_waiting_can_mend_is_worth_another_try() {
    let not_allowed = changed(finding(Action::Deny, "agents"), |found| found.reason = Reason::ImageNotAllowed);
    let answer = answered("Pod", &pod(), &verdict(vec![not_allowed, finding(Action::Deny, "agents")]));
    assert_eq!(answer.pointer("/response/status/reason"), Some(&json!("ImageNotAllowed")));
    assert_eq!(answer.pointer("/response/status/details/retryAfterSeconds"), None);
}

#[test]
fn a_warning_lets_the_object_pass() {
    let answer = answered("Pod", &pod(), &verdict(vec![finding(Action::Warn, "agents")]));
    assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)));
    let warning = answer.pointer("/response/warnings/0").and_then(Value::as_str).expect("a warning");
    assert!(warning.contains("optio-node:latest") && warning.len() <= 256, "{warning}");
}

#[test]
fn audit_is_silence_for_the_client_and_a_word_for_the_audit_log() {
    let answer = answered("Pod", &pod(), &verdict(vec![finding(Action::Allow, "agents")]));
    let response = answer.get("response").expect("response");
    assert_eq!(response.get("allowed"), Some(&json!(true)));
    assert!(response.get("warnings").is_none() && response.get("status").is_none());
    assert_eq!(answer.pointer("/response/auditAnnotations/decision"), Some(&json!("Allow")));
    assert_eq!(answer.pointer("/response/auditAnnotations/would-be"), Some(&json!("Deny")));
}

#[test]
fn the_fields_of_a_template_are_named_from_its_root() {
    let cron = json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": pod()}}}});
    let answer = answered("CronJob", &cron, &verdict(vec![finding(Action::Deny, "agents")]));
    let field = answer.pointer("/response/status/details/causes/0/field");
    assert_eq!(field, Some(&json!("spec.jobTemplate.spec.template.spec.containers{app}.image")));
}

#[test]
fn an_answer_stays_small_for_a_thousand_findings() {
    let long: Arc<str> = "x".repeat(5_000).into();
    let findings = (0..1_000).map(|n| {
        changed(finding(Action::Deny, "p"), |found| {
            found.explanation = format!("{n}{long}").into();
            found.remedy = Some(long.to_string().into());
        })
    });
    let verdict = Verdict { findings: findings.collect(), omitted: 7, matched_policies: vec!["p".into(); 1_000] };
    let answer = answered("Pod", &pod(), &verdict);
    assert!(answer.to_string().len() < 64 * 1024);
}

#[test]
fn a_bad_object_is_answered_with_its_uid() {
    for (object, part) in [
        (json!({"spec": {"containers": "none"}}), "cannot be read as a Pod"),
        (json!(7), "cannot be read as a Pod"),
        (Value::Null, "no `request.object`"),
    ] {
        let body = body("Pod", &object);
        let review = Envelope::parse(&body).expect("a review");
        let error = review.submitted().inquire("pullguard").expect_err("a bad object");
        let answer = serde_json::to_value(Answer::bad_object(&review, &error)).expect("json");
        assert_eq!(answer.pointer("/response/uid"), Some(&json!("u-1")));
        assert_eq!(answer.pointer("/response/allowed"), Some(&json!(false)));
        assert_eq!(answer.pointer("/response/status/code"), Some(&json!(400)));
        let message = answer.pointer("/response/status/message").and_then(Value::as_str).expect("message");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_kind_without_pods_passes_with_a_warning() {
    let body = body("ConfigMap", &json!({}));
    let review = Envelope::parse(&body).expect("a review");
    let answer = serde_json::to_value(Answer::unknown_kind(&review)).expect("json");
    assert_eq!(answer.pointer("/response/allowed"), Some(&json!(true)));
    let warning = answer.pointer("/response/warnings/0").and_then(Value::as_str).expect("a warning");
    assert!(warning.contains("batch/v1 ConfigMap") && warning.len() <= 256, "{warning}");
}

#[test]
fn a_patch_travels_in_base64() {
    let body = body("Pod", &pod());
    let review = Envelope::parse(&body).expect("a review");
    let inquiry = review.submitted().inquire("pullguard").expect("an object").expect("judged");
    let answer = Answer::rescued(&review, &inquiry, &Rescued::Pull(vec![0]), &["agents".into()], b"[]".to_vec());
    let answer = serde_json::to_value(answer).expect("json");
    assert_eq!(answer.pointer("/response/patch"), Some(&json!("W10=")));
    assert_eq!(answer.pointer("/response/patchType"), Some(&json!("JSONPatch")));
    assert_eq!(answer.pointer("/response/auditAnnotations/rescue"), Some(&json!("PullIfNotPresent")));
    let warning = answer.pointer("/response/warnings/0").and_then(Value::as_str).expect("a warning");
    assert!(warning.starts_with("Rescued (policy agents): ") && warning.ends_with(": setup"), "{warning}");
}
