//! A `NodeImagePolicy` compiled: one generation, all of it or nothing.
//!
//! Enters: the custom resource. Leaves: the core's `Policy`, or an error that names the field and the mend. The schema
//! has refused most of what is wrong already; what was written past it (an older schema, a file) ends here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::crd::NodeImagePolicy;
use super::crd::policy as crd;
use crate::core::image::{ImagePattern, PatternError, PatternSet};
use crate::core::policy as core;
use crate::core::selector::{Operator, Requirement, Selector};

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompileError {
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
