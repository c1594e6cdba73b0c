//! A `NodeImagePolicy` compiled: one generation, all of it or nothing.
//!
//! Enters: the custom resource. Leaves: the core's `Policy`, or an error that names the field and the mend. The schema
//! has refused most of what is wrong already; what was written past it (an older schema, a file) ends here.

use std::borrow::Cow;
use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::Deserialize;
use serde_json::Value;

use super::crd::policy as crd;
use super::crd::{NodeImagePolicy, NodeImagePolicyStatus};
use crate::core::image::{ImagePattern, PatternError, PatternSet};
use crate::core::policy as core;
use crate::core::selector::{Operator, Requirement, Selector};

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompileError {
    /// A field or a value of a later version.
    #[error("spec: this version of Pullguard cannot read it: {0}")]
    Unreadable(String),
    #[error("{field}[{index}]: {source}")]
    Pattern { field: &'static str, index: usize, source: PatternError },
    #[error("{field}: operator {operator} needs values; Exists and DoesNotExist take none")]
    Values { field: String, operator: &'static str },
    #[error(
        "spec.allowedImages: it is there and lists nothing; list what is allowed, or leave the field out to judge presence alone"
    )]
    NothingAllowed,
    #[error(
        "spec.allowedImages: kubectl apply was given it with nothing in it; list what is allowed, or leave the field out to judge presence alone"
    )]
    Emptied,
    #[error("spec.nodeImageLimit: {0} is not a kubelet's nodeStatusMaxImages; give 1 or more, or -1 for unlimited")]
    ImageLimit(i64),
    #[error("spec.{field}: a duration is above zero, such as 90s or 10m")]
    Duration { field: &'static str },
    #[error("spec.rescue: PullIfNotPresent needs spec.allowedImages: list what may be pulled, or use PinToHolders")]
    PullWithoutAllowlist,
}

/// A policy as the watch brings it: one that cannot be read must not keep the others from being read.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedPolicy {
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    pub status: Option<NodeImagePolicyStatus>,
}

impl WatchedPolicy {
    /// # Errors
    /// The spec is of a schema that this version does not know.
    pub fn read(self) -> Result<NodeImagePolicy, CompileError> {
        let spec = serde_json::from_value(self.spec).map_err(|error| CompileError::Unreadable(error.to_string()))?;
        Ok(NodeImagePolicy { metadata: self.metadata, spec, status: self.status })
    }
}

impl Resource for WatchedPolicy {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        NodeImagePolicy::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        NodeImagePolicy::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        NodeImagePolicy::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        NodeImagePolicy::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is in force where an allowlist was emptied and no generation before that is known, as after a start: every image is
/// warned of, none is refused, and nothing is done to pods that fail. `None`: it is not the allowlist.
pub fn stand_in(policy: &NodeImagePolicy) -> Option<core::Policy> {
    if !matches!(compile(policy), Err(CompileError::Emptied | CompileError::NothingAllowed)) {
        return None;
    }
    let mut rest = policy.clone();
    rest.metadata.annotations = None;
    rest.spec.allowed_images = None;
    rest.spec.rescue = crd::Rescue::None;
    let rest = compile(&rest).ok()?;
    Some(core::Policy {
        allowed_images: Some(PatternSet::default()),
        enforcement: rest.enforcement.min(core::Enforcement::Warn),
        runtime: core::RuntimeRules { enforcement: core::RuntimeEnforcement::Audit, ..rest.runtime.clone() },
        ..rest
    })
}

/// # Errors
/// A field that cannot be compiled; the last compiled generation stays in force then.
pub fn compile(policy: &NodeImagePolicy) -> Result<core::Policy, CompileError> {
    let spec = &policy.spec;
    let allowed_images = match &spec.allowed_images {
        None if was_emptied(policy) => return Err(CompileError::Emptied),
        None => None,
        Some(list) => match list.as_deref().unwrap_or_default() {
            [] => return Err(CompileError::NothingAllowed),
            list => Some(patterns("spec.allowedImages", list)?),
        },
    };
    let rescue = match spec.rescue {
        crd::Rescue::None => core::Rescue::None,
        crd::Rescue::PinToHolders => core::Rescue::PinToHolders,
        crd::Rescue::PullIfNotPresent if allowed_images.is_none() => return Err(CompileError::PullWithoutAllowlist),
        crd::Rescue::PullIfNotPresent => core::Rescue::PullIfNotPresent,
    };
    let remedies = spec.remedies.iter().enumerate().map(|(index, remedy)| {
        let image = ImagePattern::parse(&remedy.image).map_err(|source| CompileError::Pattern {
            field: "spec.remedies",
            index,
            source,
        })?;
        Ok(core::Remedy { image, text: remedy.text.clone() })
    });
    Ok(core::Policy {
        name: policy.metadata.name.clone().unwrap_or_default(),
        uid: policy.metadata.uid.clone().unwrap_or_default(),
        generation: policy.metadata.generation.unwrap_or_default(),
        namespace_selector: selector("spec.match.namespaceSelector", &spec.match_.namespace_selector)?,
        pod_selector: selector("spec.match.podSelector", &spec.match_.pod_selector)?,
        nodes: selector("spec.nodes", &spec.nodes)?,
        allowed_images,
        preloaded_images: patterns("spec.preloadedImages", &spec.preloaded_images)?,
        node_image_limit: image_limit(spec.node_image_limit)?,
        enforcement: match spec.enforcement {
            crd::Enforcement::Enforce => core::Enforcement::Enforce,
            crd::Enforcement::Warn => core::Enforcement::Warn,
            crd::Enforcement::Audit => core::Enforcement::Audit,
        },
        presence: core::PresenceRules {
            scope: match spec.presence.scope {
                crd::PresenceScope::NeverOnly => core::PresenceScope::NeverOnly,
                crd::PresenceScope::All => core::PresenceScope::All,
            },
            on_absent: action(spec.presence.on_absent),
            on_unknown: action(spec.presence.on_unknown),
            elastic: spec.presence.elastic,
        },
        rescue,
        templates: match spec.templates {
            crd::Templates::Deny => core::Action::Deny,
            crd::Templates::Warn => core::Action::Warn,
            crd::Templates::Ignore => core::Action::Allow,
        },
        runtime: spec.runtime.as_ref().map_or_else(|| Ok(core::RuntimeRules::observe_only()), runtime)?,
        remedies: remedies.collect::<Result<_, _>>()?,
    })
}

/// What `kubectl apply` was given last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether the allowlist is absent because every item of it was commented out: `kubectl apply` without `--server-side` makes
/// a removal of a null, so that the API server, which refuses the null, never sees it.
pub fn was_emptied(policy: &NodeImagePolicy) -> bool {
    let applied = policy.metadata.annotations.as_ref().and_then(|annotations| annotations.get(LAST_APPLIED));
    policy.spec.allowed_images.is_none()
        && applied
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
            .is_some_and(|given| given.pointer("/spec/allowedImages").is_some_and(Value::is_null))
}

fn patterns(field: &'static str, list: &[String]) -> Result<PatternSet, CompileError> {
    let parse = |(index, text): (usize, &String)| {
        ImagePattern::parse(text).map_err(|source| CompileError::Pattern { field, index, source })
    };
    Ok(PatternSet::new(list.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?))
}

fn image_limit(limit: i64) -> Result<core::ImageLimit, CompileError> {
    match limit {
        -1 => Ok(core::ImageLimit::Unlimited),
        1.. => Ok(core::ImageLimit::AtMost(u32::try_from(limit).unwrap_or(u32::MAX))),
        _ => Err(CompileError::ImageLimit(limit)),
    }
}

const fn action(action: crd::PresenceAction) -> core::Action {
    match action {
        crd::PresenceAction::Deny => core::Action::Deny,
        crd::PresenceAction::Warn => core::Action::Warn,
        crd::PresenceAction::Allow => core::Action::Allow,
    }
}

fn runtime(runtime: &crd::Runtime) -> Result<core::RuntimeRules, CompileError> {
    Ok(core::RuntimeRules {
        enforcement: match runtime.enforcement {
            crd::RuntimeEnforcement::Enforce => core::RuntimeEnforcement::Enforce,
            crd::RuntimeEnforcement::Audit => core::RuntimeEnforcement::Audit,
        },
        task_label: runtime.task_label.clone(),
        task_kinds: runtime
            .task_kinds
            .iter()
            .map(|kind| core::TaskKind { group: kind.group.clone(), kind: kind.kind.clone() })
            .collect(),
        grace: core::Grace {
            never_pull: duration("runtime.grace.neverPull", &runtime.grace.never_pull)?,
            not_found: duration("runtime.grace.notFound", &runtime.grace.not_found)?,
            unauthorized: duration("runtime.grace.unauthorized", &runtime.grace.unauthorized)?,
            other: duration("runtime.grace.other", &runtime.grace.other)?,
        },
        max_attempts: runtime.max_attempts,
        fail_owner: match runtime.fail_owner {
            crd::FailOwner::None => core::FailOwner::None,
            crd::FailOwner::Pod => core::FailOwner::Pod,
            crd::FailOwner::Job => core::FailOwner::Job,
        },
        fail_denied_after: runtime
            .fail_denied_after
            .as_ref()
            .map(|after| duration("runtime.failDeniedAfter", after))
            .transpose()?,
        keep_pods: runtime.keep_pods,
        deny_recreation: runtime.deny_recreation,
        expiry: duration("runtime.expiry", &runtime.expiry)?,
    })
}

fn duration(field: &'static str, duration: &kube::core::Duration) -> Result<std::time::Duration, CompileError> {
    let positive = !duration.is_negative() && *duration != std::time::Duration::ZERO;
    if positive { Ok((*duration).into()) } else { Err(CompileError::Duration { field }) }
}

fn selector(field: &str, selector: &crd::LabelSelector) -> Result<Selector, CompileError> {
    let labels = selector.match_labels.iter().map(|(key, value)| {
        let operator = Operator::In(BTreeSet::from([value.clone()]));
        Ok(Requirement { key: key.clone(), operator })
    });
    let expressions = selector.match_expressions.iter().enumerate().map(|(index, expression)| {
        let values: BTreeSet<String> = expression.values.iter().cloned().collect();
        let wrong = |operator| CompileError::Values { field: format!("{field}.matchExpressions[{index}]"), operator };
        let operator = match (expression.operator, values.is_empty()) {
            (crd::SelectorOperator::In, false) => Operator::In(values),
            (crd::SelectorOperator::NotIn, false) => Operator::NotIn(values),
            (crd::SelectorOperator::Exists, true) => Operator::Exists,
            (crd::SelectorOperator::DoesNotExist, true) => Operator::DoesNotExist,
            (crd::SelectorOperator::In, true) => return Err(wrong("In")),
            (crd::SelectorOperator::NotIn, true) => return Err(wrong("NotIn")),
            (crd::SelectorOperator::Exists, false) => return Err(wrong("Exists")),
            (crd::SelectorOperator::DoesNotExist, false) => return Err(wrong("DoesNotExist")),
        };
        Ok(Requirement { key: expression.key.clone(), operator })
    });
    Ok(Selector::new(labels.chain(expressions).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(spec: serde_json::Value) -> Result<core::Policy, CompileError> {
        let policy = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
            "metadata": {"name": "p"}, "spec": spec});
        compile(&serde_json::from_value(policy).expect("the watch must be able to read it"))
    }

    #[test]
    fn an_allowlist_of_which_every_item_was_commented_out_is_refused_and_none_at_all_is_not() {
        for nothing in [json!(null), json!([])] {
            let error = compiled(json!({"allowedImages": nothing})).expect_err("it would open everything");
            assert!(error.to_string().contains("lists nothing"), "{error}");
        }
        assert!(compiled(json!({})).expect("compiled").allowed_images.is_none());
    }

    #[test]
    fn what_a_later_version_added_keeps_no_policy_from_being_read() {
        let read = |spec: serde_json::Value| {
            let policy = json!({"metadata": {"name": "p", "generation": 3}, "spec": spec});
            serde_json::from_value::<WatchedPolicy>(policy).expect("the list goes on").read()
        };
        let known = read(json!({"enforcement": "Warn", "newer": {"a": 1}, "presence": {"newer": true}}));
        assert_eq!(known.expect("a policy").spec.enforcement, crd::Enforcement::Warn);
        for newer in [json!({"enforcement": "Quarantine"}), json!({"runtime": {"expiry": {"after": "1h"}}})] {
            let error = read(newer).expect_err("it cannot be known what is meant").to_string();
            assert!(error.contains("this version of Pullguard cannot read it"), "{error}");
        }
    }

    #[test]
    fn what_stands_in_for_an_emptied_allowlist_warns_and_ends_nothing() {
        let policy = |spec: serde_json::Value| {
            serde_json::from_value::<NodeImagePolicy>(json!({"apiVersion": "pullguard.dev/v1alpha1",
                "kind": "NodeImagePolicy", "metadata": {"name": "p"}, "spec": spec}))
            .expect("a policy")
        };
        let emptied = json!({"allowedImages": null, "rescue": "PullIfNotPresent", "preloadedImages": ["nginx"],
            "runtime": {"enforcement": "Enforce", "taskLabel": "task"}});
        let stands_in = stand_in(&policy(emptied)).expect("something stands in");
        assert_eq!(stands_in.enforcement, core::Enforcement::Warn);
        assert_eq!(stands_in.runtime.enforcement, core::RuntimeEnforcement::Audit);
        assert_eq!(stands_in.runtime.task_label.as_deref(), Some("task"));
        assert_eq!(stands_in.rescue, core::Rescue::None);
        assert!(
            stands_in.allowed_images.is_some_and(|allowed| allowed.is_empty())
                && !stands_in.preloaded_images.is_empty()
        );
        let audited = stand_in(&policy(json!({"allowedImages": [], "enforcement": "Audit"}))).expect("something");
        assert_eq!(audited.enforcement, core::Enforcement::Audit, "never stricter than was asked for");
        // What cannot be compiled for another reason has none, and what can be needs none.
        for spec in [json!({"allowedImages": ["a b"]}), json!({"allowedImages": ["a"]}), json!({})] {
            assert!(stand_in(&policy(spec)).is_none());
        }
    }

    #[test]
    fn what_kubectl_made_a_removal_of_is_no_removal() {
        let compiled = |spec: serde_json::Value, given: serde_json::Value| {
            let given = json!({"spec": given}).to_string();
            let policy = json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "spec": spec,
                "metadata": {"name": "p", "annotations": {LAST_APPLIED: given}}});
            compile(&serde_json::from_value(policy).expect("a policy"))
        };
        let error = compiled(json!({}), json!({"allowedImages": null})).expect_err("it would open everything");
        assert!(error.to_string().contains("kubectl apply"), "{error}");
        assert!(compiled(json!({}), json!({})).is_ok(), "left out on purpose");
        assert!(
            compiled(json!({"allowedImages": ["a"]}), json!({"allowedImages": null})).is_ok(),
            "given by others since"
        );
    }
}
