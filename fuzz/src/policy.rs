//! The spec of a policy, as JSON or YAML, and what comes of it for some pods.

use std::sync::Arc;

use jiff::Timestamp;
use pullguard::core::namespace::NamespaceFacts;
use pullguard::core::policy::{Action, Enforcement};
use pullguard::core::verdict::Question;
use pullguard::k8s::crd::NodeImagePolicy;
use pullguard::k8s::crd::policy::NodeImagePolicySpec;
use pullguard::k8s::policy::compile;
use pullguard::k8s::question::{Operation, Submitted};

use super::ground;

const PODS: [&str; 3] = [
    r#"{"metadata":{"labels":{"app":"agent"}},"spec":{"containers":[{"name":"a","image":"agent:1","imagePullPolicy":"Never"}]}}"#,
    r#"{"spec":{"containers":[{"name":"a","image":"Broken!"},{"name":"b","image":"registry.local/team/agent"}]}}"#,
    r#"{"spec":{"nodeName":"b","initContainers":[{"name":"a","image":"pause:3","imagePullPolicy":"IfNotPresent"}]}}"#,
];

/// # Panics
/// A policy is neither compiled nor refused with a sentence, or does what its enforcement forbids.
pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let json: Option<NodeImagePolicySpec> = serde_json::from_str(text).ok();
    let Some(spec) = json.or_else(|| serde_saphyr::from_str(text).ok()) else { return };
    let written = serde_json::to_string(&spec).expect("a spec can be written");
    let read: NodeImagePolicySpec = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(read, spec, "writing and reading it makes another policy of it");
    let policy = match compile(&NodeImagePolicy::new("p", spec)) {
        Ok(policy) => policy,
        Err(error) => {
            let told = error.to_string();
            assert!(told.starts_with("spec") || told.starts_with("runtime"), "an error names its field: {told}");
            return;
        }
    };
    let (enforcement, mut audited) = (policy.enforcement, policy.clone());
    audited.enforcement = Enforcement::Audit;
    let actions = [policy, audited].map(|policy| {
        let world = ground::world();
        world.change_policies(|policies| policies.apply(policy));
        PODS.map(|object| {
            let submitted = Submitted {
                group: "",
                kind: "Pod",
                subresource: "",
                operation: Operation::Create,
                namespace: "team",
                object,
                old_object: None,
                admitted: true,
            };
            let inquiry = submitted.inquire("pullguard").expect("a pod").expect("judged");
            let namespace = NamespaceFacts { name: "team".into(), labels: Some(Arc::default()) };
            let question: Question<'_> = inquiry.question(&namespace);
            let verdict = world.decide(&question, Timestamp::UNIX_EPOCH);
            let _ = world.rescue(&question, "", Timestamp::UNIX_EPOCH);
            verdict.action()
        })
    });
    assert_eq!(actions[1], [Action::Allow; 3], "Audit never denies and never warns");
    if enforcement == Enforcement::Warn {
        assert!(actions[0].iter().all(|action| *action <= Action::Warn), "Warn never denies");
    }
}
