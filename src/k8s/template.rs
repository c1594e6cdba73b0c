//! The kinds that hold pod templates.
//!
//! Enters: the JSON of a Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or CronJob. Leaves: the template in it, as
//! a pod that does not exist yet.

use serde::{Deserialize, Deserializer};

use super::pod::{Meta, PodObject, nullable, read_object};

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
    pub template: PodObject,
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
        let template = match kind {
            TemplateKind::CronJob => spec.job_template.spec.template,
            TemplateKind::Deployment
            | TemplateKind::ReplicaSet
            | TemplateKind::StatefulSet
            | TemplateKind::DaemonSet
            | TemplateKind::Job => spec.template,
        };
        Self { metadata, template }
    }
}
