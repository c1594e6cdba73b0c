//! What the service account must be granted.
//!
//! Enters: the rules of the manifest that installs us, which is part of this program, and who grants them. Leaves: a line.
//! One list is enough: a second one here would be wrong some day.

use std::fmt;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use kube::ResourceExt;
use serde::de::DeserializeOwned;

use super::line::Line;
use super::site::Site;

const MANIFEST: &str = include_str!("../../../manifests/base/rbac.yaml");
const CHECK: &str = "rights";
/// Of the ClusterRole and the Role.
const NAME: &str = "pullguard";

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub group: String,
    pub resource: String,
    /// Empty: the resource itself.
    pub subresource: String,
    pub verb: String,
    /// `None`: objects of any name.
    pub name: Option<String>,
    /// Only in Pullguard's own namespace.
    pub own_namespace: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.path())?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if self.own_namespace { f.write_str(" in its own namespace") } else { Ok(()) }
    }
}

impl Right {
    fn path(&self) -> String {
        let Self { resource, subresource, .. } = self;
        if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") }
    }

    fn is_granted_by(&self, rule: &PolicyRule) -> bool {
        let holds = |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|one| one == "*" || one == word);
        let names = rule.resource_names.as_deref().unwrap_or_default();
        holds(&rule.api_groups, &self.group)
            && holds(&rule.resources, &self.path())
            && rule.verbs.iter().any(|verb| verb == "*" || *verb == self.verb)
            && (names.is_empty() || self.name.as_ref().is_some_and(|name| names.contains(name)))
    }
}

/// All that the manifest grants, verb by verb.
pub(super) fn needed() -> Vec<Right> {
    let cluster = documents::<ClusterRole>("ClusterRole").into_iter().find(|role| role.name_any() == NAME);
    let own = documents::<Role>("Role").into_iter().find(|role| role.name_any() == NAME);
    let cluster = cluster.and_then(|role| role.rules).unwrap_or_default();
    let own = own.and_then(|role| role.rules).unwrap_or_default();
    let mut rights: Vec<Right> = cluster.iter().flat_map(|rule| of_rule(rule, false)).collect();
    rights.extend(own.iter().flat_map(|rule| of_rule(rule, true)));
    rights
}

fn documents<T: DeserializeOwned>(kind: &str) -> Vec<T> {
    let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(MANIFEST).unwrap_or_default();
    let of_kind = all.into_iter().filter(|document| document.get("kind").is_some_and(|found| found == kind));
    of_kind.filter_map(|document| serde_json::from_value(document).ok()).collect()
}

fn of_rule(rule: &PolicyRule, own_namespace: bool) -> Vec<Right> {
    let names: Vec<Option<String>> = match rule.resource_names.as_deref() {
        None | Some([]) => vec![None],
        Some(names) => names.iter().cloned().map(Some).collect(),
    };
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for path in rule.resources.iter().flatten() {
            let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
            for (verb, name) in rule.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name))) {
                rights.push(Right {
                    group: group.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    verb: verb.clone(),
                    name: name.clone(),
                    own_namespace,
                });
            }
        }
    }
    rights
}

/// What manifests grant.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    pub cluster_roles: Vec<ClusterRole>,
    pub roles: Vec<Role>,
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    pub bindings: Vec<RoleBinding>,
    /// Of what names none.
    pub default_namespace: String,
}

impl Grants {
    pub fn is_empty(&self) -> bool {
        self.cluster_roles.is_empty() && self.roles.is_empty()
    }

    /// Whether they let a service account.
    pub fn allow(&self, right: &Right, namespace: &str, account: &str) -> bool {
        let is_ours = |subject: &Subject| {
            subject.kind == "ServiceAccount"
                && subject.name == account
                && subject.namespace.as_deref().unwrap_or(&self.default_namespace) == namespace
        };
        let here = |found: Option<String>| found.unwrap_or_else(|| self.default_namespace.clone()) == namespace;
        let cluster_rules = |name: &str| {
            let role = self.cluster_roles.iter().find(|role| role.name_any() == name);
            role.and_then(|role| role.rules.clone()).unwrap_or_default()
        };
        let everywhere = self
            .cluster_bindings
            .iter()
            .filter(|binding| binding.subjects.iter().flatten().any(is_ours))
            .flat_map(|binding| cluster_rules(&binding.role_ref.name));
        let own = self
            .bindings
            .iter()
            .filter(|binding| here(binding.namespace()) && binding.subjects.iter().flatten().any(is_ours))
            .flat_map(|binding| {
                let name = &binding.role_ref.name;
                if binding.role_ref.kind == "ClusterRole" {
                    return cluster_rules(name);
                }
                let role = self.roles.iter().find(|role| here(role.namespace()) && role.name_any() == *name);
                role.and_then(|role| role.rules.clone()).unwrap_or_default()
            })
            .filter(|_| right.own_namespace);
        everywhere.chain(own).any(|rule| right.is_granted_by(&rule))
    }
}

pub(super) fn examine(site: &Site) -> Line {
    match &site.rights {
        Err(gap) => gap.line(CHECK),
        Ok(rights) => judge(rights),
    }
}

fn judge(rights: &[(Right, bool)]) -> Line {
    let denied: Vec<String> =
        rights.iter().filter(|(_, granted)| !granted).map(|(right, _)| right.to_string()).collect();
    if denied.is_empty() {
        return Line::ok(CHECK, format!("the service account has all {} rights that it needs", rights.len()));
    }
    let message = format!("the service account may not: {}", denied.join("; "));
    Line::fail(CHECK, message, "Apply manifests/base/rbac.yaml of this version.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::fixtures::site;
    use crate::app::doctor::line::Status;
    use serde_json::json;

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
    fn the_manifests_grant_all_that_they_name() {
        let site = site(true);
        let rights = site.rights.as_ref().expect("rights");
        assert_eq!(examine(&site).status, Status::Ok, "{:?}", examine(&site));
        assert_eq!(rights.len(), needed().len());
    }

    #[test]
    fn what_is_denied_is_named() {
        let rights: Vec<(Right, bool)> = needed()
            .into_iter()
            .map(|right| {
                let granted = right.verb != "delete";
                (right, granted)
            })
            .collect();
        let line = judge(&rights);
        assert_eq!(line.status, Status::Fail);
        assert!(line.message.contains("delete pods") && !line.message.contains("watch nodes"), "{}", line.message);
    }

    #[test]
    fn a_rule_grants_what_it_names_to_whom_it_is_bound() {
        let rule = |value| -> PolicyRule { serde_json::from_value(value).expect("a rule") };
        let of = |resource: &str, name: Option<&str>| Right {
            group: "apps".to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            verb: "get".to_owned(),
            name: name.map(str::to_owned),
            own_namespace: false,
        };
        let all = rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        let named = rule(
            json!({"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["a"], "verbs": ["get"]}),
        );
        assert!(of("deployments", None).is_granted_by(&all));
        assert!(of("deployments", Some("a")).is_granted_by(&named));
        assert!(!of("deployments", None).is_granted_by(&named), "of any name");
        assert!(!of("daemonsets", Some("a")).is_granted_by(&named));
        let grants = Grants {
            cluster_roles: vec![
                serde_json::from_value(json!({"metadata": {"name": "r"}, "rules": [all]})).expect("a role"),
            ],
            roles: Vec::new(),
            cluster_bindings: Vec::new(),
            bindings: vec![
                serde_json::from_value(json!({"metadata": {"name": "b", "namespace": "pullguard"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
                    "subjects": [{"kind": "ServiceAccount", "name": "pullguard", "namespace": "pullguard"}]}))
                .expect("a binding"),
            ],
            default_namespace: "pullguard".to_owned(),
        };
        let own = Right { own_namespace: true, ..of("deployments", None) };
        assert!(grants.allow(&own, "pullguard", "pullguard"));
        assert!(!grants.allow(&own, "pullguard", "default"), "another account");
        assert!(!grants.allow(&of("deployments", None), "pullguard", "pullguard"), "a RoleBinding is of its namespace");
    }
}
