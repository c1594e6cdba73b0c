//! The kinds that hold pod templates.
//!
//! Enters: the JSON of a Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or CronJob. Leaves: the template in it, as
//! a pod that does not exist yet.

use serde::{Deserialize, Deserializer};

use super::pod::{Meta, PodObject, nullable, read_object};
use crate::core::pod::PodFacts;

/// A kind whose template is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TemplateKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

impl TemplateKind {
    /// By API group and kind.
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("apps", "Deployment") => Some(Self::Deployment),
            ("apps", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps", "StatefulSet") => Some(Self::StatefulSet),
            ("apps", "DaemonSet") => Some(Self::DaemonSet),
            ("batch", "Job") => Some(Self::Job),
            ("batch", "CronJob") => Some(Self::CronJob),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// Where the containers of the template are, for `details.causes[].field`.
    pub const fn spec_path(self) -> &'static str {
        match self {
            Self::CronJob => "spec.jobTemplate.spec.template.spec",
            Self::Deployment | Self::ReplicaSet | Self::StatefulSet | Self::DaemonSet | Self::Job => {
                "spec.template.spec"
            }
        }
    }
}

/// An object with a template in it.
#[derive(Clone, Debug)]
pub struct Templated {
    pub metadata: Meta,
    template: PodObject,
    /// A Job that is not to start yet: whoever queues it (Kueue) says where its pods may go before it does.
    suspended: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WithTemplate {
    #[serde(deserialize_with = "nullable")]
    metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    spec: TemplateSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TemplateSpec {
    #[serde(deserialize_with = "nullable")]
    template: PodObject,
    /// Of a CronJob: that it makes no Jobs.
    #[serde(deserialize_with = "nullable")]
    suspend: bool,
    #[serde(deserialize_with = "nullable")]
    job_template: JobTemplate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    #[serde(deserialize_with = "nullable")]
    spec: JobSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    #[serde(deserialize_with = "nullable")]
    template: PodObject,
    #[serde(deserialize_with = "nullable")]
    suspend: bool,
}

impl Templated {
    /// # Errors
    /// The JSON is not an object of such a kind.
    pub fn parse(kind: TemplateKind, json: &str) -> Result<Self, serde_json::Error> {
        read_object(json).map(|with| Self::of(kind, with))
    }

    /// The same from another format, or from the middle of a text.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn read<'de, D: Deserializer<'de>>(kind: TemplateKind, input: D) -> Result<Self, D::Error> {
        WithTemplate::deserialize(input).map(|with| Self::of(kind, with))
    }

    fn of(kind: TemplateKind, WithTemplate { metadata, spec }: WithTemplate) -> Self {
        let of_job = spec.job_template.spec;
        let (template, suspended) = match kind {
            TemplateKind::CronJob => (of_job.template, of_job.suspend),
            TemplateKind::Job => (spec.template, spec.suspend),
            TemplateKind::Deployment
            | TemplateKind::ReplicaSet
            | TemplateKind::StatefulSet
            | TemplateKind::DaemonSet => (spec.template, false),
        };
        Self { metadata, template, suspended }
    }

    /// The facts of the pods that it would make.
    pub fn facts(self, namespace: &str) -> PodFacts {
        let mut facts = self.template.facts_of_draft(namespace);
        facts.placement.tolerations_to_come |= self.suspended;
        facts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_suspended_job_tolerations_are_to_come() {
        let template = json!({"spec": {"containers": [{"name": "m", "image": "m:1"}]}});
        let to_come = |kind: TemplateKind, spec: serde_json::Value| {
            let json = json!({"metadata": {"name": "x"}, "spec": spec}).to_string();
            Templated::parse(kind, &json).expect("a template").facts("default").placement.tolerations_to_come
        };
        for suspend in [json!(null), json!(false), json!(true)] {
            let is_held = suspend == json!(true);
            assert_eq!(to_come(TemplateKind::Job, json!({"suspend": suspend, "template": template})), is_held);
            let job = json!({"spec": {"suspend": suspend, "template": template}});
            assert_eq!(to_come(TemplateKind::CronJob, json!({"jobTemplate": job})), is_held);
        }
        // A CronJob that makes no Jobs says nothing of those that it will make.
        let job = json!({"spec": {"template": template}});
        assert!(!to_come(TemplateKind::CronJob, json!({"suspend": true, "jobTemplate": job})));
    }
}
