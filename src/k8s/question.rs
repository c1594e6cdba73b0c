//! From an object under review to the question that the core answers.
//!
//! Enters: the kind, the operation and the JSON of the new and the old object. Leaves: an inquiry, or why none is needed.
//! The exemptions stand here a second time: the first is in the webhook's configuration, so that the API server does not
//! even call.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::pod::{PodObject, read_object};
use super::template::{TemplateKind, Templated};
use crate::core::namespace::{NamespaceFacts, SYSTEM_NAMESPACES};
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
    /// The API server's own plugins have seen it, as before every webhook; not so what is in a file.
    pub admitted: bool,
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

impl Submitted<'_> {
    /// Why it need not be judged, as far as that can be told without the object.
    pub fn exemption(&self, own_namespace: &str) -> Option<Exemption> {
        let kind = || ImageKind::of(self.group, self.kind, self.subresource).err();
        self.is_update(own_namespace).err().or_else(kind)
    }

    /// # Errors
    /// The JSON is not an object of its kind.
    pub fn inquire(&self, own_namespace: &str) -> Result<Result<Inquiry, Exemption>, serde_json::Error> {
        let updated = match self.is_update(own_namespace) {
            Ok(updated) => updated,
            Err(exemption) => return Ok(Err(exemption)),
        };
        let kind = match ImageKind::of(self.group, self.kind, self.subresource) {
            Ok(kind) => kind,
            Err(exemption) => return Ok(Err(exemption)),
        };
        let object = kind.read(self.object)?;
        if let Some(exemption) = object.exemption() {
            return Ok(Err(exemption));
        }
        let old = self.old_object.filter(|_| updated).map(|old| kind.read(old)).transpose()?;
        Ok(self.ask(object, old, updated))
    }

    /// The same of an object that was decoded on the way, and not as JSON.
    ///
    /// # Errors
    /// Why it need not be judged.
    pub fn inquire_decoded(&self, own_namespace: &str, decoded: Decoded) -> Result<Inquiry, Exemption> {
        let updated = self.is_update(own_namespace)?;
        ImageKind::of(self.group, self.kind, self.subresource)?;
        let Decoded { object, old_object } = decoded;
        match object.exemption() {
            Some(exemption) => Err(exemption),
            None => self.ask(object, old_object.filter(|_| updated), updated),
        }
    }

    fn is_update(&self, own_namespace: &str) -> Result<bool, Exemption> {
        if self.namespace == own_namespace || SYSTEM_NAMESPACES.contains(&self.namespace) {
            return Err(Exemption::Namespace);
        }
        match self.operation {
            Operation::Create => Ok(false),
            Operation::Update => Ok(true),
            Operation::Delete | Operation::Connect => Err(Exemption::Operation),
        }
    }

    fn ask(&self, object: ImageObject, old: Option<ImageObject>, updated: bool) -> Result<Inquiry, Exemption> {
        let of_pod = |pod: PodObject| {
            if self.admitted { pod.facts(self.namespace) } else { pod.facts_of_draft(self.namespace) }
        };
        let old = old.map(|old| match old {
            ImageObject::Pod(pod) => of_pod(*pod),
            ImageObject::Template(_, templated) => templated.facts(self.namespace),
        });
        let (template, name, generate_name, pod) = match object {
            ImageObject::Pod(pod) => {
                let (name, generate_name) = (pod.metadata.name.clone(), pod.metadata.generate_name.clone());
                (None, name, generate_name, of_pod(*pod))
            }
            ImageObject::Template(kind, templated) => {
                let (name, generate_name) = (templated.metadata.name.clone(), templated.metadata.generate_name.clone());
                // A template has no owner of its own kind of trouble: its pods will have one.
                let pod = PodFacts { owner: None, ..templated.facts(self.namespace) };
                (Some(kind), name, generate_name, pod)
            }
        };
        let judged = judged(old.as_ref(), &pod).ok_or(Exemption::ImagesUnchanged)?;
        let subject = match template {
            // On CREATE a nodeName is a wish that the kubelet still checks; later it is where the pod is.
            None if updated && pod.placement.node_name.is_some() => Subject::BoundPod,
            None => Subject::Pod,
            Some(TemplateKind::DaemonSet) => Subject::DaemonSetTemplate,
            Some(
                TemplateKind::Deployment
                | TemplateKind::ReplicaSet
                | TemplateKind::StatefulSet
                | TemplateKind::Job
                | TemplateKind::CronJob,
            ) => Subject::Template,
        };
        Ok(Inquiry { subject, template, pod, judged, name, generate_name })
    }
}

/// A kind of object that has images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    Pod,
    Template(TemplateKind),
}

impl ImageKind {
    /// # Errors
    /// The kind, or this subresource of it, has none.
    pub fn of(group: &str, kind: &str, subresource: &str) -> Result<Self, Exemption> {
        match (group, kind, subresource) {
            ("", "Pod", "" | "ephemeralcontainers") => Ok(Self::Pod),
            ("", "Pod", _) => Err(Exemption::Operation),
            (group, kind, subresource) => match TemplateKind::of(group, kind) {
                Some(kind) if subresource.is_empty() => Ok(Self::Template(kind)),
                Some(_) => Err(Exemption::Operation),
                None => Err(Exemption::OtherKind),
            },
        }
    }

    fn read(self, json: &str) -> Result<ImageObject, serde_json::Error> {
        match self {
            Self::Pod => read_object(json).map(Box::new).map(ImageObject::Pod),
            Self::Template(kind) => {
                Templated::parse(kind, json).map(Box::new).map(|templated| ImageObject::Template(kind, templated))
            }
        }
    }
}

/// An object that has images, decoded.
#[derive(Clone, Debug)]
pub enum ImageObject {
    Pod(Box<PodObject>),
    Template(TemplateKind, Box<Templated>),
}

impl ImageObject {
    fn exemption(&self) -> Option<Exemption> {
        match self {
            Self::Pod(pod) => pod.metadata.is_mirror().then_some(Exemption::Mirror),
            Self::Template(_, templated) => templated.metadata.has_controller().then_some(Exemption::Controlled),
        }
    }
}

/// Decodes an object where it stands in a larger text. NB: as [`read_object`], it takes no list for an object.
impl<'de> DeserializeSeed<'de> for ImageKind {
    type Value = ImageObject;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<ImageObject, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ImageKind {
    type Value = ImageObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<ImageObject, M::Error> {
        let map = MapAccessDeserializer::new(map);
        match self {
            Self::Pod => PodObject::deserialize(map).map(Box::new).map(ImageObject::Pod),
            Self::Template(kind) => {
                Templated::read(kind, map).map(Box::new).map(|templated| ImageObject::Template(kind, templated))
            }
        }
    }
}

/// The objects of a review, decoded on the way.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub object: ImageObject,
    pub old_object: Option<ImageObject>,
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
        Submitted {
            group: "",
            kind: "Pod",
            subresource: "",
            operation,
            namespace: "default",
            object,
            old_object,
            admitted: true,
        }
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
