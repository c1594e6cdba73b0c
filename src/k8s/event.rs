//! Events of our own, as `events.k8s.io/v1` has them.
//!
//! Enters: a [`Notice`], of either half. Leaves: the body to create. What is longer than the API server takes is cut, at a
//! character's boundary.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use sha2::{Digest, Sha256};

use super::question::Inquiry;
use crate::core::answer::{note, rescue_note};
use crate::core::policies::Policies;
use crate::core::policy::Action;
use crate::core::reason::Reason;
use crate::core::rescue::Rescued;
use crate::core::runtime::effect::{EventDraft, EventType, ObjectRef};
use crate::core::verdict::{Finding, Verdict};

const NOTE_LIMIT: usize = 1024;
const NAME_LIMIT: usize = 253;
const INSTANCE_LIMIT: usize = 128;

/// Which half speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Webhook,
    Controller,
}

impl Reporter {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "pullguard.dev/webhook",
            Self::Controller => "pullguard.dev/controller",
        }
    }
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub reporter: Reporter,
    /// Where the Event is created.
    pub namespace: String,
    pub event_type: EventType,
    pub reason: Reason,
    pub action: &'static str,
    pub regarding: ObjectRef,
    pub related: Option<ObjectRef>,
    pub note: String,
    /// What it is about beside the object: the image of a finding. Empty where the note says it all.
    pub image: String,
    /// `Some`: the Event is named by it, so that telling it again creates no twin.
    pub key: Option<String>,
}

impl From<EventDraft> for Notice {
    fn from(draft: EventDraft) -> Self {
        Self {
            reporter: Reporter::Controller,
            namespace: draft.namespace,
            event_type: draft.event_type,
            reason: draft.reason,
            action: draft.action.as_str(),
            regarding: draft.regarding,
            related: draft.related,
            note: draft.note,
            image: String::new(),
            key: Some(draft.key),
        }
    }
}

impl Notice {
    /// The Event of one finding of a verdict at admission; which are told of is the verdict's to say.
    ///
    /// It regards the controlling owner: a person looks there, and the pod never comes to be. `api_version` and `kind` are
    /// those of the object under review.
    pub fn decision(
        inquiry: &Inquiry,
        api_version: &str,
        kind: &str,
        verdict: &Verdict,
        finding: &Finding,
        policies: &Policies,
    ) -> Self {
        let (event_type, action) = match (finding.action, finding.unaudited) {
            (Action::Deny, _) => (EventType::Warning, "Deny"),
            (Action::Warn, _) => (EventType::Warning, "Warn"),
            (Action::Allow, Action::Deny) => (EventType::Warning, "WouldDeny"),
            (Action::Allow, Action::Warn) => (EventType::Normal, "WouldWarn"),
            (Action::Allow, Action::Allow) => (EventType::Normal, "Allow"),
        };
        Self {
            reporter: Reporter::Webhook,
            namespace: inquiry.pod.namespace.clone(),
            event_type,
            reason: finding.reason,
            action,
            regarding: regarding(inquiry, api_version, kind),
            related: related(policies, &finding.policy),
            note: note(finding, verdict.more_like(finding)),
            image: finding.image.to_string(),
            key: None,
        }
    }

    /// The Event of a pod that the mutating half has changed, as these policies ask.
    pub fn rescue(
        inquiry: &Inquiry,
        api_version: &str,
        kind: &str,
        rescued: &Rescued,
        asking: &[Arc<str>],
        policies: &Policies,
    ) -> Self {
        Self {
            reporter: Reporter::Webhook,
            namespace: inquiry.pod.namespace.clone(),
            event_type: EventType::Normal,
            reason: Reason::Rescued,
            action: rescued.name(),
            regarding: regarding(inquiry, api_version, kind),
            related: asking.first().and_then(|policy| related(policies, policy)),
            note: rescue_note(rescued, &inquiry.pod, asking),
            image: String::new(),
            key: None,
        }
    }
}

fn related(policies: &Policies, policy: &str) -> Option<ObjectRef> {
    policies.get(policy).map(|policy| ObjectRef {
        api_version: "pullguard.dev/v1alpha1".to_owned(),
        kind: "NodeImagePolicy".to_owned(),
        namespace: String::new(),
        name: policy.name.clone(),
        uid: policy.uid.clone(),
    })
}

fn regarding(inquiry: &Inquiry, api_version: &str, kind: &str) -> ObjectRef {
    let namespace = inquiry.pod.namespace.clone();
    match &inquiry.pod.owner {
        Some(owner) => ObjectRef {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace,
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        },
        None => {
            // The API server makes the name up after admission: all that is known of it is how it begins.
            let name = if inquiry.name.is_empty() { &inquiry.generate_name } else { &inquiry.name };
            ObjectRef {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                namespace,
                name: name.clone(),
                uid: String::new(),
            }
        }
    }
}

/// The body to create. `instance` is the name of this replica's pod.
pub fn body(notice: &Notice, instance: &str, now: Timestamp) -> Event {
    let instance = if instance.is_empty() { "pullguard" } else { instance };
    // What has a key is one Event, whatever it regards: of a task that is no object two leaders may take different pods.
    let (subject, suffix) = match &notice.key {
        Some(key) => ("pullguard", short_hash(&[key])),
        None => {
            let parts = [notice.action, notice.reason.as_str(), &notice.note, instance, &now.to_string()];
            (notice.regarding.name.as_str(), short_hash(&parts))
        }
    };
    // A name is at least one character before the suffix.
    let room = NAME_LIMIT.saturating_sub(suffix.len() + 1);
    let subject = valid_name(subject);
    let subject = cut(&subject, room).trim_end_matches(['-', '.']);
    let subject = if subject.is_empty() { "pullguard" } else { subject };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{subject}.{suffix}")),
            namespace: Some(notice.namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(
            match notice.event_type {
                EventType::Normal => "Normal",
                EventType::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(notice.reason.as_str().to_owned()),
        action: Some(notice.action.to_owned()),
        note: Some(cut(&notice.note, NOTE_LIMIT).to_owned()),
        regarding: Some(reference(&notice.regarding)),
        related: notice.related.as_ref().map(reference),
        reporting_controller: Some(notice.reporter.as_str().to_owned()),
        reporting_instance: Some(cut(instance, INSTANCE_LIMIT).to_owned()),
        ..Event::default()
    }
}

fn reference(object: &ObjectRef) -> ObjectReference {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ObjectReference {
        api_version: given(&object.api_version),
        kind: given(&object.kind),
        namespace: given(&object.namespace),
        name: given(&object.name),
        uid: given(&object.uid),
        ..ObjectReference::default()
    }
}

/// At most so many bytes.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

/// An Event's name is a DNS subdomain; a label's value, which may be what it regards, is not.
fn valid_name(text: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    let parts = text.split('.').map(|part| {
        let part: String = part.chars().map(valid).collect();
        part.trim_matches('-').to_owned()
    });
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::answer::AUDIT_MARK;
    use crate::core::cause::FailureClass;
    use crate::core::decide::decide;
    use crate::core::fixtures;
    use crate::core::namespace::NamespaceFacts;
    use crate::core::pod::PodFacts;
    use crate::core::policy::{Enforcement, Policy, RuntimeEnforcement};
    use crate::core::refusal::{NoRefusals, Refusal, Refusals};
    use crate::k8s::question::{Operation, Submitted};

    fn notice(name: &str, note: &str, key: Option<&str>) -> Notice {
        let regarding = ObjectRef {
            api_version: "batch/v1".into(),
            kind: "Job".into(),
            namespace: "default".into(),
            name: name.into(),
            uid: "u".into(),
        };
        Notice {
            reporter: Reporter::Controller,
            namespace: "default".into(),
            event_type: EventType::Warning,
            reason: Reason::PullPermanentlyFailed,
            action: "FailOwner",
            regarding,
            related: None,
            note: note.into(),
            image: String::new(),
            key: key.map(str::to_owned),
        }
    }

    fn name(event: &Event) -> &str {
        event.metadata.name.as_deref().unwrap_or_default()
    }

    /// What is told of an object that is being created, in a cluster whose one node holds nothing of it.
    fn told(
        group: &str,
        kind: &str,
        object: &serde_json::Value,
        all: Vec<Policy>,
        refusals: &impl Refusals,
    ) -> Vec<Notice> {
        let (policies, json) = (fixtures::policies(all), object.to_string());
        let submitted = Submitted {
            group,
            kind,
            subresource: "",
            operation: Operation::Create,
            namespace: "apps",
            object: &json,
            old_object: None,
            admitted: true,
        };
        let inquiry = submitted.inquire("pullguard").expect("json").expect("judged");
        let namespace = NamespaceFacts { name: "apps".into(), labels: Some(Arc::default()) };
        let inventory = fixtures::inventory([fixtures::node("a")]);
        let verdict = decide(&inquiry.question(&namespace), &policies, &inventory, refusals, fixtures::now());
        verdict.told().map(|finding| Notice::decision(&inquiry, "v1", kind, &verdict, finding, &policies)).collect()
    }

    fn spec() -> serde_json::Value {
        json!({"containers": [{"name": "main", "image": "agent:1", "imagePullPolicy": "Never"}]})
    }

    fn of_pod(all: Vec<Policy>) -> Vec<Notice> {
        told("", "Pod", &json!({"metadata": {"name": "p"}, "spec": spec()}), all, &NoRefusals)
    }

    fn of_deployment(all: Vec<Policy>) -> Vec<Notice> {
        let object = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": spec()}}});
        told("apps", "Deployment", &object, all, &NoRefusals)
    }

    fn actions(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| notice.action).collect()
    }

    fn auditing(templates: Action) -> Policy {
        Policy { templates, ..fixtures::policy("audits").enforcing(Enforcement::Audit) }
    }

    #[test]
    fn audit_tells_what_would_have_been_done_and_not_more() {
        let notices = of_pod(vec![auditing(Action::Warn)]);
        assert_eq!(actions(&notices), ["WouldDeny"]);
        assert!(notices.iter().all(|notice| notice.note.starts_with(AUDIT_MARK)));
        assert_eq!(actions(&of_deployment(vec![auditing(Action::Deny)])), ["WouldDeny"]);
        assert_eq!(actions(&of_deployment(vec![auditing(Action::Warn)])), ["WouldWarn"]);
        assert_eq!(actions(&of_deployment(vec![auditing(Action::Allow)])), [""; 0]);
    }

    #[test]
    fn a_policy_on_trial_is_not_silenced_by_one_that_denies() {
        let mut all = vec![fixtures::policy("enforces")];
        all.extend((0..7).map(|n| Policy { name: format!("trial-{n}"), ..auditing(Action::Warn) }));
        let notices = of_pod(all);
        assert_eq!(actions(&notices), ["Deny", "WouldDeny", "WouldDeny", "WouldDeny", "WouldDeny"]);
        let related = |notice: &Notice| notice.related.as_ref().map(|policy| policy.name.clone()).unwrap_or_default();
        assert_eq!(
            notices.iter().map(related).collect::<Vec<_>>(),
            ["enforces", "trial-0", "trial-1", "trial-2", "trial-3"]
        );
        assert!(notices.iter().all(|notice| !notice.note.contains("more)")), "each stands for itself alone");
    }

    /// Every pod is one more of a failed task.
    struct AllFailed;

    impl Refusals for AllFailed {
        fn refusal(&self, _: &PodFacts, _: &[&Policy], _: Timestamp) -> Option<Refusal> {
            Some(Refusal {
                class: FailureClass::NeverPull,
                image: "agent:1".into(),
                message: "it is not there".into(),
                remedy: "Build it.".into(),
                record: "r".into(),
            })
        }
    }

    #[test]
    fn what_runtime_audit_spares_a_pod_is_told_too() {
        let mut policy = fixtures::policy("agents").preloading(&["agent"]);
        let pod = json!({"metadata": {"name": "p"}, "spec": spec()});
        let notices = told("", "Pod", &pod, vec![policy.clone()], &AllFailed);
        assert_eq!(actions(&notices), ["WouldDeny"]);
        assert!(notices.iter().all(|notice| notice.reason == Reason::TaskPermanentlyFailed));
        policy.runtime.enforcement = RuntimeEnforcement::Enforce;
        assert_eq!(actions(&told("", "Pod", &pod, vec![policy], &AllFailed)), ["Deny"]);
    }

    #[test]
    fn the_same_key_is_the_same_event_whenever_and_of_whatever_pod_it_is_told() {
        let first = body(&notice("pod-1", "x", Some("ns/task/failed")), "a", Timestamp::UNIX_EPOCH);
        let again = body(&notice("pod-2", "y", Some("ns/task/failed")), "b", Timestamp::MAX);
        let other = body(&notice("pod-1", "x", Some("ns/task/resolved")), "a", Timestamp::UNIX_EPOCH);
        assert_eq!(name(&first), name(&again));
        assert_ne!(name(&first), name(&other));
    }

    #[test]
    fn whatever_it_regards_the_name_is_valid_and_the_note_fits() {
        for subject in ["Task_1/ÄÖ.-", "", "...", &"x.".repeat(300), "generated-"] {
            let event = body(&notice(subject, &"ä".repeat(2000), None), "", Timestamp::UNIX_EPOCH);
            let name = name(&event);
            assert!(name.len() <= NAME_LIMIT, "{name}");
            let valid = |part: &str| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            };
            assert!(name.split('.').all(valid), "{name}");
            assert!(event.note.as_ref().is_some_and(|note| note.len() <= NOTE_LIMIT));
            assert_eq!(event.reporting_instance.as_deref(), Some("pullguard"));
        }
    }
}
