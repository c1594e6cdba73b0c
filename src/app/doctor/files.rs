//! Manifests as an installation, with no cluster: what `kubectl kustomize` prints.
//!
//! Enters: files. Leaves: the site that they would make. What is not in them proves nothing.

use std::process::ExitCode;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::ResourceExt;

use super::hook::{Hook, hooks};
use super::line::{Gap, Seen};
use super::rights::{self, Grants};
use super::site::{Site, namespaces, ours, service_account};
use super::{print, structure};
use crate::app::cli::DoctorArgs;
use crate::app::manifests::{Manifests, Object, Refused};
use crate::app::output;

/// # Errors
/// The files cannot be read, or hold no webhook of ours.
pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut manifests = Manifests::new(args.validate);
    let declared = read(&mut manifests, &args.files);
    for warning in &manifests.warnings {
        eprintln!("pullguard: warning: {}", output::plain(&warning.to_string()));
    }
    let site = declared?.site(&args.installed.namespace);
    if site.hooks.is_empty() {
        anyhow::bail!(
            "{}: no webhook configuration of Pullguard in it: there is nothing to judge",
            args.files.join(", ")
        );
    }
    let mut lines = Vec::new();
    structure(&site, &mut lines);
    print(&lines, args.installed.output)
}

fn read(manifests: &mut Manifests, files: &[String]) -> Result<Declared, Refused> {
    let mut declared = Declared::default();
    let mut problems = Vec::new();
    for object in manifests.objects(files)? {
        if let Err(Refused(more)) = declared.add(manifests, &object) {
            problems.extend(more);
        }
    }
    if problems.is_empty() { Ok(declared) } else { Err(Refused(problems)) }
}

/// All of the files that is of interest.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    validating: Vec<ValidatingWebhookConfiguration>,
    mutating: Vec<MutatingWebhookConfiguration>,
    deployments: Vec<Deployment>,
    daemon_sets: Vec<DaemonSet>,
    services: Vec<Service>,
    budgets: Vec<PodDisruptionBudget>,
    namespaces: Vec<Namespace>,
    cluster_roles: Vec<ClusterRole>,
    roles: Vec<Role>,
    cluster_bindings: Vec<ClusterRoleBinding>,
    bindings: Vec<RoleBinding>,
}

const MORE: &str = "Give the whole of what is applied: kubectl kustomize FOLDER | pullguard doctor -f -";

impl Declared {
    /// # Errors
    /// What is wrong with an object of a kind that is of interest.
    pub fn add(&mut self, manifests: &mut Manifests, object: &Object) -> Result<(), Refused> {
        match (object.group.as_str(), object.kind.as_str()) {
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
                self.validating.push(manifests.typed(object)?);
            }
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
                self.mutating.push(manifests.typed(object)?);
            }
            ("apps", "Deployment") => self.deployments.push(manifests.typed(object)?),
            ("apps", "DaemonSet") => self.daemon_sets.push(manifests.typed(object)?),
            ("", "Service") => self.services.push(manifests.typed(object)?),
            ("", "Namespace") => self.namespaces.push(manifests.typed(object)?),
            ("policy", "PodDisruptionBudget") => self.budgets.push(manifests.typed(object)?),
            ("rbac.authorization.k8s.io", "ClusterRole") => self.cluster_roles.push(manifests.typed(object)?),
            ("rbac.authorization.k8s.io", "Role") => self.roles.push(manifests.typed(object)?),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding") => self.cluster_bindings.push(manifests.typed(object)?),
            ("rbac.authorization.k8s.io", "RoleBinding") => self.bindings.push(manifests.typed(object)?),
            _ => {}
        }
        Ok(())
    }

    /// `namespace`: of what names none.
    pub fn site(self, namespace: &str) -> Site {
        let hooks = hooks(&self.validating, &self.mutating);
        let closed = hooks.iter().any(Hook::fails_closed);
        // A proof that lacks a part is none; where nothing fails closed, nothing is claimed.
        let missing = |kind: &str| {
            let what = format!("no {kind} of Pullguard is in these files");
            if closed { Gap::absent(what, MORE) } else { Gap::Unread { why: what, remedy: MORE } }
        };
        let called = hooks.iter().find_map(Hook::service);
        let own = called.map_or(namespace, |service| service.namespace.as_str()).to_owned();
        let name = called.map_or(namespace, |service| service.name.as_str()).to_owned();
        let is_own = |found: Option<String>| found.unwrap_or_else(|| namespace.to_owned()) == own;
        let service =
            self.services.into_iter().find(|service| is_own(service.namespace()) && service.name_any() == name);
        let deployments: Vec<Deployment> = self.deployments.into_iter().filter(|one| is_own(one.namespace())).collect();
        let deployment = ours(&deployments, service.as_ref(), &name).cloned();
        let known = self.namespaces.into_iter().map(|one| (one.name_any(), one.labels().clone()));
        let grants = Grants {
            cluster_roles: self.cluster_roles,
            roles: self.roles,
            cluster_bindings: self.cluster_bindings,
            bindings: self.bindings,
            default_namespace: namespace.to_owned(),
        };
        let rights: Seen<_> = match &deployment {
            _ if grants.is_empty() => Err(missing("role")),
            None => Err(missing("Deployment, hence no service account,")),
            Some(deployment) => {
                let account = service_account(deployment);
                let granted = |right: rights::Right| {
                    let granted = grants.allow(&right, &own, account);
                    (right, granted)
                };
                Ok(rights::needed().into_iter().map(granted).collect())
            }
        };
        Site {
            namespaces: namespaces(known, &own),
            budgets: Ok(self.budgets.into_iter().filter(|one| is_own(one.namespace())).collect()),
            deployment: deployment.ok_or_else(|| missing("Deployment")),
            service: service.ok_or_else(|| missing("Service")),
            daemon_sets: Ok(self.daemon_sets),
            rights,
            namespace: own,
            hooks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::fixtures::declared;
    use crate::app::doctor::line::{Line, Status};

    fn lines(change: impl FnOnce(&mut Declared), closed: bool) -> Vec<Line> {
        let mut declared = declared();
        for webhook in declared.validating.iter_mut().flat_map(|one| one.webhooks.iter_mut().flatten()) {
            webhook.failure_policy = Some(if closed { "Fail" } else { "Ignore" }.to_owned());
        }
        change(&mut declared);
        let mut lines = Vec::new();
        structure(&declared.site("pullguard"), &mut lines);
        lines
    }

    fn worst(lines: &[Line]) -> (Status, bool) {
        let status = lines.iter().map(|line| line.status).max().expect("lines");
        (status, lines.iter().all(|line| line.looked))
    }

    #[test]
    fn what_is_shipped_is_proven_without_a_cluster() {
        assert_eq!(worst(&lines(|_| {}, false)), (Status::Ok, true));
        assert_eq!(worst(&lines(|_| {}, true)), (Status::Ok, true));
    }

    #[test]
    fn what_is_not_in_the_files_is_proven_by_nobody() {
        let changes: [fn(&mut Declared); 4] = [
            |declared| declared.deployments.clear(),
            |declared| declared.services.clear(),
            |declared| {
                declared.roles.clear();
                declared.cluster_roles.clear();
            },
            |declared| declared.bindings.clear(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(worst(&lines(change, true)).0, Status::Fail, "closed, {index}");
        }
        let (status, looked) = worst(&lines(|declared| declared.deployments.clear(), false));
        assert!(status == Status::Warn && !looked, "open: told, and not success");
    }

    #[test]
    fn another_namespace_is_taken_from_the_webhooks() {
        let moved = |declared: &mut Declared| {
            for webhook in declared.validating.iter_mut().flat_map(|one| one.webhooks.iter_mut().flatten()) {
                webhook.client_config.service.as_mut().expect("a Service").namespace = "guard".to_owned();
            }
        };
        let lines = lines(moved, true);
        let exempt = lines.iter().find(|line| line.check == "exempt namespaces").expect("a line");
        assert_eq!(exempt.status, Status::Fail);
        assert!(exempt.message.contains("called for guard"), "{}", exempt.message);
    }
}
