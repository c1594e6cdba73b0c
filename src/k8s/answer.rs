//! From a verdict to the `AdmissionReview` that answers.
//!
//! Enters: the uid, a verdict, a patch. Leaves: JSON. Every answer carries the request's uid: without it the API server
//! drops the answer.

use serde_json::{Value, json};

use super::envelope::{BadReview, Envelope, VERSION};
use crate::core::answer::{denial, warnings};
use crate::core::policy::Action;
use crate::core::reason::Reason;
use crate::core::verdict::Verdict;

/// A just-loaded image takes up to 40 s to be seen: by then a retry can go through.
const RETRY_AFTER_SECONDS: u32 = 45;

fn review(version: &str, response: Value) -> Value {
    json!({"apiVersion": version, "kind": "AdmissionReview", "response": response})
}

/// The answer of the validating half.
pub fn verdict(envelope: &Envelope<'_>, verdict: &Verdict) -> Value {
    let decision = verdict.action();
    let mut annotations = serde_json::Map::new();
    if let Some(first) = verdict.first() {
        annotations.insert("decision".into(), json!(decision.as_str()));
        annotations.insert("would-be".into(), json!(verdict.would_be().as_str()));
        annotations.insert("reason".into(), json!(first.reason.as_str()));
        if let Some(detail) = first.detail {
            annotations.insert("detail".into(), json!(detail.as_str()));
        }
        let policies: Vec<&str> = verdict.matched_policies.iter().take(20).map(|name| &**name).collect();
        annotations.insert("policies".into(), json!(policies.join(",")));
    }
    let mut response = json!({"uid": envelope.uid, "allowed": decision != Action::Deny});
    if let Some(fields) = response.as_object_mut() {
        let warnings = warnings(verdict);
        if !warnings.is_empty() {
            fields.insert("warnings".into(), json!(warnings));
        }
        if !annotations.is_empty() {
            fields.insert("auditAnnotations".into(), Value::Object(annotations));
        }
        if decision == Action::Deny {
            fields.insert("status".into(), status(envelope, verdict));
        }
    }
    review(VERSION, response)
}

fn status(envelope: &Envelope<'_>, verdict: &Verdict) -> Value {
    let causes: Vec<Value> = verdict
        .with_action(Action::Deny)
        .take(50)
        .map(|finding| {
            let field = finding.containers.first().map_or_else(String::new, |name| format!("container {name}"));
            json!({"reason": finding.reason.as_str(), "message": finding.message(), "field": field})
        })
        .collect();
    let reason = verdict.first().map_or("", |finding| finding.reason.as_str());
    let mut details = json!({"name": envelope.name, "group": envelope.group, "kind": envelope.kind, "causes": causes});
    let absent = verdict.with_action(Action::Deny).any(|finding| finding.reason == Reason::ImageAbsent);
    if absent && let Some(fields) = details.as_object_mut() {
        fields.insert("retryAfterSeconds".into(), json!(RETRY_AFTER_SECONDS));
    }
    json!({"status": "Failure", "code": 403, "reason": reason, "message": denial(verdict), "details": details})
}

/// The answer that changes nothing and lets the object pass.
pub fn allowed(envelope: &Envelope<'_>) -> Value {
    review(VERSION, json!({"uid": envelope.uid, "allowed": true}))
}

/// The answer of the mutating half. `patch` is the base64 of a JSON Patch.
pub fn patched(envelope: &Envelope<'_>, patch: &str) -> Value {
    review(VERSION, json!({"uid": envelope.uid, "allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// A review or an object that cannot be read, but whose uid could: the caller learns why.
pub fn unreadable(version: &str, uid: &str, why: &str) -> Value {
    let status = json!({"status": "Failure", "code": 400, "reason": "BadRequest", "message": why});
    review(version, json!({"uid": uid, "allowed": false, "status": status}))
}

/// The same for a review that is broken itself; `None`: without a uid no review can be answered.
pub fn broken(bad: &BadReview) -> Option<Value> {
    bad.uid.as_deref().map(|uid| unreadable(bad.version, uid, &bad.to_string()))
}
