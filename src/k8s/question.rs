//! From an object under review to the question that the core answers.
//!
//! Enters: the kind, the operation and the JSON of the new and the old object. Leaves: an inquiry, or why none is needed.
//! The exemptions stand here a second time: the first is in the webhook's configuration, so that the API server does not
//! even call.

use super::pod::{PodObject, read_object};
use super::template::{TemplateKind, Templated};
use crate::core::namespace::NamespaceFacts;
use crate::core::pod::PodFacts;
use crate::core::verdict::{Judged, Question, Subject};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// An object as it is under review.
#[derive(Clone, Copy, Debug)]
pub struct Submitted<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    /// Empty, or the subresource: `ephemeralcontainers`, `status`.
    pub subresource: &'a str,
    pub operation: Operation,
    pub namespace: &'a str,
    pub object: &'a str,
    pub old_object: Option<&'a str>,
}

/// Why an object is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exemption {
    /// Not a kind that has images.
    OtherKind,
    /// A system namespace, or Pullguard's own.
    Namespace,
    /// Neither CREATE nor UPDATE, or a subresource that holds no images.
    Operation,
    /// The mirror of a static pod.
    Mirror,
    /// A template whose controlling owner was judged.
    Controlled,
    /// No image is new.
    ImagesUnchanged,
}

/// What is to be judged.
#[derive(Clone, Debug)]
pub struct Inquiry {
    pub subject: Subject,
    /// `None`: a pod.
    pub template: Option<TemplateKind>,
    pub pod: PodFacts,
    pub judged: Judged,
    /// The object's own name; empty where the API server has yet to generate it.
    pub name: String,
    pub generate_name: String,
}

impl Inquiry {
    pub fn question<'a>(&'a self, namespace: &'a NamespaceFacts) -> Question<'a> {
        Question { subject: self.subject, pod: &self.pod, namespace, judged: &self.judged }
    }
}

/// What kind of object is to be decoded.
enum Target {
    Pod,
    Template(TemplateKind),
}

impl Submitted<'_> {
    /// Why it need not be judged, as far as that can be told without the object.
    pub fn exemption(&self, own_namespace: &str) -> Option<Exemption> {
        self.target(own_namespace).err()
    }

    /// # Errors
    /// The JSON is not an object of its kind.
    pub fn inquire(&self, own_namespace: &str) -> Result<Result<Inquiry, Exemption>, serde_json::Error> {
        let updated = self.operation == Operation::Update;
        match self.target(own_namespace) {
            Ok(Target::Pod) => self.pod(updated),
            Ok(Target::Template(kind)) => self.template(kind, updated),
            Err(exemption) => Ok(Err(exemption)),
        }
    }

    fn target(&self, own_namespace: &str) -> Result<Target, Exemption> {
        if self.namespace == own_namespace || NamespaceFacts::unlabelled(self.namespace).is_system() {
            return Err(Exemption::Namespace);
        }
        match self.operation {
            Operation::Create | Operation::Update => {}
            Operation::Delete | Operation::Connect => return Err(Exemption::Operation),
        }
        match (self.group, self.kind, self.subresource) {
            ("", "Pod", "" | "ephemeralcontainers") => Ok(Target::Pod),
            ("", "Pod", _) => Err(Exemption::Operation),
            (group, kind, subresource) => match TemplateKind::of(group, kind) {
                Some(kind) if subresource.is_empty() => Ok(Target::Template(kind)),
                Some(_) => Err(Exemption::Operation),
                None => Err(Exemption::OtherKind),
            },
        }
    }

    fn pod(&self, updated: bool) -> Result<Result<Inquiry, Exemption>, serde_json::Error> {
        let object: PodObject = read_object(self.object)?;
        if object.metadata.is_mirror() {
            return Ok(Err(Exemption::Mirror));
        }
        let (name, generate_name) = (object.metadata.name.clone(), object.metadata.generate_name.clone());
        let pod = object.facts(self.namespace);
        let old = if updated { self.old_pod()? } else { None };
        let Some(judged) = judged(old.as_ref(), &pod) else { return Ok(Err(Exemption::ImagesUnchanged)) };
        // On CREATE a nodeName is a wish that the kubelet still checks; later it is where the pod is.
        let subject = if updated && pod.placement.node_name.is_some() { Subject::BoundPod } else { Subject::Pod };
        Ok(Ok(Inquiry { subject, template: None, pod, judged, name, generate_name }))
    }

    fn old_pod(&self) -> Result<Option<PodFacts>, serde_json::Error> {
        let Some(old) = self.old_object else { return Ok(None) };
        Ok(Some(read_object::<PodObject>(old)?.facts(self.namespace)))
    }

    fn template(&self, kind: TemplateKind, updated: bool) -> Result<Result<Inquiry, Exemption>, serde_json::Error> {
        let Templated { metadata, template } = Templated::parse(kind, self.object)?;
        if metadata.controller().is_some() {
            return Ok(Err(Exemption::Controlled));
        }
        let mut pod = template.facts(self.namespace);
        // A template has no owner of its own kind of trouble: its pods will have one.
        pod.owner = None;
        let old = match self.old_object.filter(|_| updated) {
            Some(old) => Some(Templated::parse(kind, old)?.template.facts(self.namespace)),
            None => None,
        };
        let Some(judged) = judged(old.as_ref(), &pod) else { return Ok(Err(Exemption::ImagesUnchanged)) };
        let subject = match kind {
            TemplateKind::DaemonSet => Subject::DaemonSetTemplate,
            TemplateKind::Deployment
            | TemplateKind::ReplicaSet
            | TemplateKind::StatefulSet
            | TemplateKind::Job
            | TemplateKind::CronJob => Subject::Template,
        };
        let (name, generate_name) = (metadata.name, metadata.generate_name);
        Ok(Ok(Inquiry { subject, template: Some(kind), pod, judged, name, generate_name }))
    }
}

/// `None`: nothing is new.
fn judged(old: Option<&PodFacts>, new: &PodFacts) -> Option<Judged> {
    match old {
        None => Some(Judged::Every),
        Some(old) => match Judged::new_against(old, new) {
            Judged::Only(places) if places.is_empty() => None,
            judged @ (Judged::Only(_) | Judged::Every) => Some(judged),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: &str) -> String {
        serde_json::json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a", "containers": [{"name": "m", "image": image}]}})
            .to_string()
    }

    fn submitted<'a>(operation: Operation, object: &'a str, old_object: Option<&'a str>) -> Submitted<'a> {
        Submitted { group: "", kind: "Pod", subresource: "", operation, namespace: "default", object, old_object }
    }

    #[test]
    fn an_update_that_changes_no_image_is_exempt() {
        let (old, new) = (pod("nginx"), pod("docker.io/library/nginx:latest"));
        let asked = submitted(Operation::Update, &new, Some(&old)).inquire("pullguard").expect("json");
        assert_eq!(asked.err(), Some(Exemption::ImagesUnchanged));
    }

    #[test]
    fn a_changed_image_of_a_bound_pod_is_judged_on_its_node() {
        let (old, new) = (pod("nginx:1"), pod("nginx:2"));
        let asked = submitted(Operation::Update, &new, Some(&old)).inquire("pullguard").expect("json").expect("judged");
        assert_eq!(asked.subject, Subject::BoundPod);
    }

    #[test]
    fn system_namespaces_our_own_and_status_are_exempt() {
        let object = pod("nginx");
        for (namespace, subresource, exemption) in [
            ("kube-system", "", Exemption::Namespace),
            ("pullguard", "", Exemption::Namespace),
            ("default", "status", Exemption::Operation),
        ] {
            let asked = Submitted { namespace, subresource, ..submitted(Operation::Create, &object, None) };
            assert_eq!(asked.inquire("pullguard").expect("json").err(), Some(exemption));
        }
    }

    #[test]
    fn a_template_with_a_controlling_owner_is_exempt() {
        let job = serde_json::json!({
            "metadata": {"ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u", "controller": true}]},
            "spec": {"template": {"spec": {"containers": [{"name": "m", "image": "m:1"}]}}},
        })
        .to_string();
        let asked = Submitted { group: "batch", kind: "Job", ..submitted(Operation::Create, &job, None) };
        assert_eq!(asked.inquire("pullguard").expect("json").err(), Some(Exemption::Controlled));
    }
}
