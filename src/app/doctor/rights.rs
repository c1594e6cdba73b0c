//! What the service account must be granted.
//!
//! Enters: the rules of the manifest that installs us, which is part of this program, and what the API server says of each.
//! Leaves: a line. One list is enough: a second one here would be wrong some day.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde::de::DeserializeOwned;

use super::scene::Scene;
use super::Line;

const MANIFEST: &str = include_str!("../../../manifests/base/rbac.yaml");
const CHECK: &str = "rbac";
/// Of the ClusterRole and the Role.
const NAME: &str = "pullguard";

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub group: String,
    pub resource: String,
    pub subresource: Option<String>,
    pub verb: String,
    /// `None`: objects of any name.
    pub name: Option<String>,
    /// Only in Pullguard's own namespace.
    pub own_namespace: bool,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, resource, subresource, verb, name, own_namespace } = self;
        write!(f, "{verb} {resource}")?;
        if let Some(subresource) = subresource {
            write!(f, "/{subresource}")?;
        }
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        if *own_namespace { f.write_str(" in its own namespace") } else { Ok(()) }
    }
}

/// All that the manifest grants, verb by verb.
pub(super) fn needed() -> Vec<Right> {
    let cluster = documents::<ClusterRole>().find(|role| role.metadata.name.as_deref() == Some(NAME));
    let own = documents::<Role>().find(|role| role.metadata.name.as_deref() == Some(NAME));
    let cluster = cluster.and_then(|role| role.rules).unwrap_or_default();
    let own = own.and_then(|role| role.rules).unwrap_or_default();
    let mut rights: Vec<Right> = cluster.iter().flat_map(|rule| of_rule(rule, false)).collect();
    rights.extend(own.iter().flat_map(|rule| of_rule(rule, true)));
    rights
}

/// The documents of one kind: the others do not decode as it.
fn documents<T: DeserializeOwned>() -> impl Iterator<Item = T> {
    let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(MANIFEST).unwrap_or_default();
    all.into_iter().filter_map(|document| serde_json::from_value(document).ok())
}

fn of_rule(rule: &PolicyRule, own_namespace: bool) -> Vec<Right> {
    let names: Vec<Option<String>> = match rule.resource_names.as_deref() {
        None | Some([]) => vec![None],
        Some(names) => names.iter().cloned().map(Some).collect(),
    };
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for path in rule.resources.iter().flatten() {
            let (resource, subresource) = match path.split_once('/') {
                Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
                None => (path.as_str(), None),
            };
            for (verb, name) in rule.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name))) {
                rights.push(Right {
                    group: group.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                    own_namespace,
                });
            }
        }
    }
    rights
}

pub(super) fn examine(scene: &Scene, lines: &mut Vec<Line>) {
    lines.push(match &scene.rights {
        Err(why) => Line::unread(CHECK, why),
        Ok(rights) => judge(rights),
    });
}

fn judge(rights: &[(Right, bool)]) -> Line {
    let denied: Vec<String> =
        rights.iter().filter(|(_, granted)| !granted).map(|(right, _)| right.to_string()).collect();
    if denied.is_empty() {
        Line::ok(CHECK, format!("the service account has all {} rights that it needs", rights.len()))
    } else {
        let message = format!("the service account may not: {}", denied.join("; "));
        Line::fail(CHECK, message, "Apply manifests/base/rbac.yaml of this version.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Status;

    #[test]
    fn the_manifest_names_every_right_in_one_way_or_another() {
        let needed: Vec<String> = needed().iter().map(ToString::to_string).collect();
        for right in [
            "watch nodes",
            "delete pods",
            "patch jobs/status.batch",
            "create events.events.k8s.io",
            "get secrets pullguard-webhook-tls in its own namespace",
            "patch validatingwebhookconfigurations.admissionregistration.k8s.io pullguard",
        ] {
            assert!(needed.iter().any(|named| named == right), "{right} is not among {needed:#?}");
        }
    }

    #[test]
    fn what_is_denied_is_named() {
        let rights: Vec<(Right, bool)> = needed().into_iter().map(|right| { let granted = right.verb != "delete"; (right, granted) }).collect();
        let line = judge(&rights);
        assert_eq!(line.status, Status::Fail);
        assert!(line.message.contains("delete pods") && !line.message.contains("watch nodes"), "{}", line.message);
        let all: Vec<(Right, bool)> = needed().into_iter().map(|right| (right, true)).collect();
        assert_eq!(judge(&all).status, Status::Ok);
    }
}
