//! From a verdict to the `AdmissionReview` that answers.
//!
//! Enters: a review and what was found, or why nothing could be. Leaves: JSON, of some kilobytes at most whatever was
//! asked. Every answer carries the request's uid: without it the API server drops the answer. The sentences themselves are
//! the core's; here they are put where people (`message`, `warnings`), programs (`reason`, `details`) and the audit log
//! (`auditAnnotations`) look for them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde::Serialize;

use super::envelope::{BadReview, Envelope, VERSION, excerpt};
use super::question::Inquiry;
use super::template::TemplateKind;
use crate::core::answer::{denial, rescue_warning, warnings};
use crate::core::pod::ContainerKind;
use crate::core::policy::Action;
use crate::core::reason::Reason;
use crate::core::rescue::Rescued;
use crate::core::verdict::{Finding, Verdict};

/// A just-loaded image takes up to 40 s to be seen: by then a retry can go through.
const RETRY_AFTER_SECONDS: u32 = 45;
const MAX_CAUSES: usize = 32;
/// So that an annotation stays readable; the matching policies may be hundreds.
const NAMED_POLICIES: usize = 20;

/// An AdmissionReview that answers one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: Cow<'a, str>,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
}

/// The part of a `meta/v1` Status that the API server hands on to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Status<'a> {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    name: &'a str,
    group: &'a str,
    kind: &'a str,
    causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl<'a> Answer<'a> {
    /// Lets the object pass, in silence.
    pub fn allowed(envelope: &'a Envelope<'_>) -> Self {
        Self::of(VERSION, Response { uid: Cow::Borrowed(&envelope.uid), allowed: true, ..Response::default() })
    }

    /// A kind that holds no images, under rules that somebody has widened. It is not ours to block.
    pub fn unknown_kind(envelope: &'a Envelope<'_>) -> Self {
        let mut answer = Self::allowed(envelope);
        answer.response.warnings.push(format!(
            "Pullguard: {} is not judged, it holds no pod: narrow the rules of the webhook configuration",
            excerpt(&format!("{} {}", envelope.api_version(), envelope.kind), 120)
        ));
        answer
    }

    /// The answer of the validating half.
    pub fn judged(envelope: &'a Envelope<'_>, inquiry: &'a Inquiry, verdict: &Verdict) -> Self {
        let status = (verdict.action() == Action::Deny).then(|| status(envelope, inquiry, verdict));
        let response = Response {
            uid: Cow::Borrowed(&envelope.uid),
            allowed: status.is_none(),
            status,
            warnings: warnings(verdict),
            audit_annotations: annotations(verdict),
            ..Response::default()
        };
        Self::of(VERSION, response)
    }

    /// The answer of the mutating half: lets the object pass, changed by a JSON Patch, and says so.
    pub fn rescued(
        envelope: &'a Envelope<'_>,
        inquiry: &Inquiry,
        rescued: &Rescued,
        policies: &[Arc<str>],
        patch: Vec<u8>,
    ) -> Self {
        let mut answer = Self::allowed(envelope);
        answer.response.warnings.push(rescue_warning(rescued, &inquiry.pod, policies));
        answer.response.audit_annotations.insert("rescue", Cow::Borrowed(rescued.name()));
        answer.response.patch_type = Some("JSONPatch");
        answer.response.patch = Some(ByteString(patch));
        answer
    }

    /// The review could be opened, but not the object in it.
    pub fn bad_object(envelope: &'a Envelope<'_>, error: &serde_json::Error) -> Self {
        let message = match envelope.object {
            Some(_) => {
                let (kind, cause) = (excerpt(&envelope.kind, 120), excerpt(&error.to_string(), 240));
                format!("the object of the review cannot be read as a {kind}: {cause}")
            }
            None => "the review has no `request.object`: there is nothing to judge".to_owned(),
        };
        Self::bad(VERSION, Cow::Borrowed(&envelope.uid), message)
    }

    /// `None`: the review has no uid, so that no answer to it would be taken.
    pub fn bad_review(bad: &'a BadReview) -> Option<Self> {
        let uid = bad.uid.as_deref()?;
        Some(Self::bad(bad.version, Cow::Borrowed(uid), bad.to_string()))
    }

    /// No real API server sends such a thing. Whoever does is told, in a form that no `failurePolicy` hides.
    fn bad(version: &'static str, uid: Cow<'a, str>, message: String) -> Self {
        let status = Status { status: "Failure", code: 400, reason: "BadRequest", message, details: None };
        Self::of(version, Response { uid, status: Some(status), ..Response::default() })
    }

    fn of(api_version: &'static str, response: Response<'a>) -> Self {
        Self { api_version, kind: "AdmissionReview", response }
    }
}

fn status<'a>(envelope: &'a Envelope<'_>, inquiry: &'a Inquiry, verdict: &Verdict) -> Status<'a> {
    let causes = verdict.with_action(Action::Deny).flat_map(|finding| causes(finding, inquiry)).take(MAX_CAUSES);
    let reason = verdict.first().map_or(Reason::ImagePresenceUnknown, |finding| finding.reason);
    let name = if inquiry.name.is_empty() { &inquiry.generate_name } else { &inquiry.name };
    let details = Details {
        name,
        group: &envelope.group,
        kind: &envelope.kind,
        causes: causes.collect(),
        retry_after_seconds: (reason == Reason::ImageAbsent).then_some(RETRY_AFTER_SECONDS),
    };
    Status { status: "Failure", code: 403, reason: reason.as_str(), message: denial(verdict), details: Some(details) }
}

/// One for each container that the finding is about, so that a program can mark the field.
fn causes(finding: &Finding, inquiry: &Inquiry) -> Vec<Cause> {
    let message = excerpt(&finding.message(), 1_000);
    let cause = |field| Cause { reason: finding.reason.as_str(), message: message.clone(), field };
    if finding.containers.is_empty() {
        return vec![cause(None)];
    }
    finding.containers.iter().take(MAX_CAUSES).map(|name| cause(field(inquiry, name))).collect()
}

/// Where the image stands, in the form in which the kubelet names containers in Events: `spec.containers{app}.image`.
fn field(inquiry: &Inquiry, name: &str) -> Option<String> {
    let spec = inquiry.template.map_or("spec", TemplateKind::spec_path);
    let container = inquiry.pod.containers.iter().find(|container| container.name == name)?;
    Some(match container.kind {
        ContainerKind::Init | ContainerKind::Sidecar => format!("{spec}.initContainers{{{name}}}.image"),
        ContainerKind::Main => format!("{spec}.containers{{{name}}}.image"),
        ContainerKind::Ephemeral => format!("{spec}.ephemeralContainers{{{name}}}.image"),
        ContainerKind::ImageVolume => format!("{spec}.volumes{{{name}}}.image.reference"),
    })
}

/// The API server puts the webhook's name before these keys.
fn annotations<'a>(verdict: &Verdict) -> BTreeMap<&'static str, Cow<'a, str>> {
    let mut annotations = BTreeMap::new();
    let Some(first) = verdict.first() else { return annotations };
    annotations.insert("decision", Cow::Borrowed(verdict.action().as_str()));
    annotations.insert("would-be", Cow::Borrowed(verdict.would_be().as_str()));
    annotations.insert("reason", Cow::Borrowed(first.reason.as_str()));
    if let Some(detail) = first.detail {
        annotations.insert("detail", Cow::Borrowed(detail.as_str()));
    }
    let policies: Vec<&str> = verdict.matched_policies.iter().take(NAMED_POLICIES).map(|name| &**name).collect();
    annotations.insert("policies", Cow::Owned(policies.join(",")));
    annotations
}

#[cfg(test)]
mod tests;
