//! The replicas that answer the webhooks, and the Service that leads to them.
//!
//! Enters: Deployment, Service and PodDisruptionBudgets as they are declared. Leaves: a line a safeguard: whether somebody
//! is always there to answer, and whether the way to them fits together.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodAffinityTerm, Service, ServicePort};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::hook::{Hook, selects};
use super::line::{Line, Status};
use super::site::{Site, containers, pod_labels, pod_spec, replicas};
use crate::core::selector::Labels;

const DEPLOYMENT: &str = "Apply manifests/base/deployment.yaml of this version.";
const SERVICE: &str = "Apply manifests/base/service.yaml and manifests/base/webhook.yaml of this version.";
const HOSTNAME: &str = "kubernetes.io/hostname";

pub(super) fn examine(site: &Site, lines: &mut Vec<Line>) {
    let closed = site.fails_closed();
    match &site.deployment {
        Err(gap) => lines.push(gap.line("replicas")),
        Ok(deployment) => {
            lines.push(enough(deployment, closed));
            match &site.budgets {
                Err(gap) => lines.push(gap.line("spread")),
                Ok(budgets) => lines.push(spread(deployment, budgets, closed)),
            }
            lines.push(rollout(deployment, closed));
            lines.push(readiness(deployment, closed));
            lines.extend(closed.then(|| priority(deployment)));
        }
    }
    match &site.service {
        Err(gap) => lines.push(gap.line("service")),
        Ok(service) => lines.push(way(&site.hooks, service, site.deployment.as_ref().ok(), &site.namespace)),
    }
}

/// What may stop creations where webhooks fail closed, and only lets them pass unjudged where not.
const fn severity(closed: bool) -> Status {
    if closed { Status::Fail } else { Status::Warn }
}

const fn consequence(closed: bool) -> &'static str {
    if closed { "no pod can be created" } else { "nothing is judged" }
}

fn enough(deployment: &Deployment, closed: bool) -> Line {
    const CHECK: &str = "replicas";
    let remedy = "Scale the Deployment to two replicas or more.";
    match replicas(deployment) {
        ..=0 => Line::fail(CHECK, format!("no replica is wanted, so {}", consequence(closed)), remedy),
        1 => {
            let message = format!("one replica is wanted: while it is exchanged {}", consequence(closed));
            Line::new(CHECK, severity(closed), message, remedy)
        }
        wanted => Line::ok(CHECK, format!("{wanted} replicas are wanted")),
    }
}

/// One node that fails or is drained must not take all replicas with it.
fn spread(deployment: &Deployment, budgets: &[PodDisruptionBudget], closed: bool) -> Line {
    const CHECK: &str = "spread";
    let labels = pod_labels(deployment);
    let of_ours =
        |budget: &&PodDisruptionBudget| selects(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()), &labels);
    let budget = budgets.iter().find(of_ours);
    let apart = are_kept_apart(deployment, &labels);
    if let Some(budget) = budget.filter(|budget| blocks_drains(budget, replicas(deployment))) {
        let message = format!(
            "PodDisruptionBudget {} allows no disruption: no node with a replica can be drained",
            budget.name_any()
        );
        return Line::warn(CHECK, message, "Let it allow one: maxUnavailable: 1.");
    }
    match (apart, budget) {
        (true, Some(_)) => Line::ok(
            CHECK,
            "the replicas prefer different nodes, and a PodDisruptionBudget keeps drains from taking all",
        ),
        (false, Some(_)) => {
            let message = format!(
                "nothing keeps the replicas on different nodes: when the one node fails {}",
                consequence(closed)
            );
            Line::warn(CHECK, message, DEPLOYMENT)
        }
        (true, None) => {
            let message = format!(
                "no PodDisruptionBudget guards the replicas: drains may take all at a time, and {}",
                consequence(closed)
            );
            Line::warn(CHECK, message, DEPLOYMENT)
        }
        (false, None) => {
            let message = format!(
                "neither anti-affinity nor a PodDisruptionBudget guards the replicas: one drain takes all, and {}",
                consequence(closed)
            );
            Line::new(CHECK, severity(closed), message, DEPLOYMENT)
        }
    }
}

fn are_kept_apart(deployment: &Deployment, labels: &Labels) -> bool {
    let Some(pod) = pod_spec(deployment) else { return false };
    let anti = pod.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let preferred =
        anti.iter().flat_map(|anti| anti.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let required =
        anti.iter().flat_map(|anti| anti.required_during_scheduling_ignored_during_execution.iter().flatten());
    let fits = |term: &PodAffinityTerm| term.topology_key == HOSTNAME && selects(term.label_selector.as_ref(), labels);
    let spread = pod.topology_spread_constraints.iter().flatten();
    preferred.map(|term| &term.pod_affinity_term).chain(required).any(fits)
        || spread
            .into_iter()
            .any(|spread| spread.topology_key == HOSTNAME && selects(spread.label_selector.as_ref(), labels))
}

fn blocks_drains(budget: &PodDisruptionBudget, replicas: i32) -> bool {
    let Some(spec) = &budget.spec else { return false };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => number(most, replicas, Rounding::Up) <= 0,
        (None, Some(least)) => number(least, replicas, Rounding::Up) >= replicas,
        (None, None) => false,
    }
}

#[derive(Clone, Copy)]
enum Rounding {
    Up,
    Down,
}

/// A count, or a share of the replicas.
fn number(value: &IntOrString, replicas: i32, rounding: Rounding) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let share: i32 = text.trim_end_matches('%').parse().unwrap_or_default();
            let hundredths = share.saturating_mul(replicas);
            match rounding {
                Rounding::Up => hundredths.saturating_add(99) / 100,
                Rounding::Down => hundredths / 100,
            }
        }
    }
}

/// An upgrade must not take all replicas away at a time.
fn rollout(deployment: &Deployment, closed: bool) -> Line {
    const CHECK: &str = "rollout";
    let remedy = "Set strategy.rollingUpdate.maxUnavailable to 0.";
    let wanted = replicas(deployment);
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let recreates = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
    let most = strategy
        .and_then(|strategy| strategy.rolling_update.as_ref())
        .and_then(|rolling| rolling.max_unavailable.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let at_once = if recreates { wanted } else { number(most.unwrap_or(&quarter), wanted, Rounding::Down) };
    if wanted > 0 && at_once >= wanted {
        let message = format!("an upgrade takes all replicas away at a time: meanwhile {}", consequence(closed));
        return Line::new(CHECK, severity(closed), message, remedy);
    }
    Line::ok(CHECK, format!("an upgrade leaves {} replicas at work", wanted - at_once))
}

/// A replica without a certificate or an inventory is asked only if nothing says that it is not ready.
fn readiness(deployment: &Deployment, closed: bool) -> Line {
    const CHECK: &str = "readiness";
    let asked = containers(deployment).any(|container| {
        let probe = container.readiness_probe.as_ref();
        probe.and_then(|probe| probe.http_get.as_ref()).is_some_and(|get| get.path.as_deref() == Some("/readyz"))
    });
    if asked {
        return Line::ok(CHECK, "a replica is asked only once it can answer");
    }
    let message = format!(
        "nothing asks the replicas for /readyz: until a new one has its certificate, the reviews that it gets fail, and {}",
        consequence(closed)
    );
    Line::new(CHECK, severity(closed), message, DEPLOYMENT)
}

fn priority(deployment: &Deployment) -> Line {
    const CHECK: &str = "priority";
    let class = pod_spec(deployment).and_then(|pod| pod.priority_class_name.as_deref()).unwrap_or_default();
    if class.starts_with("system-") {
        return Line::ok(CHECK, format!("the replicas have the priority {class}"));
    }
    Line::warn(
        CHECK,
        "the webhooks fail closed and the replicas have no system priority: on full nodes others take their place",
        "Set priorityClassName: system-cluster-critical.",
    )
}

/// From the webhooks' configuration by the Service to a port of the replicas.
fn way(hooks: &[Hook], service: &Service, deployment: Option<&Deployment>, own: &str) -> Line {
    const CHECK: &str = "service";
    let name = service.name_any();
    let mut amiss = Vec::new();
    for hook in hooks {
        match hook.service() {
            None => amiss.push(format!("{} calls no Service", hook.name())),
            Some(called) if called.name != name || called.namespace != own => {
                amiss.push(format!(
                    "{} calls the Service {}/{}, not {own}/{name}",
                    hook.name(),
                    called.namespace,
                    called.name
                ));
            }
            Some(called) if called.path.as_deref() != Some(hook.right_path()) => {
                let path = called.path.as_deref().unwrap_or("/");
                amiss.push(format!("{} calls the path {path}, but {} answers", hook.name(), hook.right_path()));
            }
            Some(_) => match ports(service).find(|port| port.port == hook.port()) {
                None => {
                    amiss.push(format!("{} calls port {}, which the Service does not have", hook.name(), hook.port()))
                }
                Some(port) => amiss.extend(deployment.and_then(|deployment| unanswered(port, deployment))),
            },
        }
    }
    let chosen = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    match (chosen, deployment) {
        (None, _) => amiss.push("the Service selects no pods".to_owned()),
        (Some(selector), Some(deployment)) => {
            let labels = pod_labels(deployment);
            let unlike = selector.iter().filter(|(key, value)| labels.get(*key) != Some(value));
            let unlike: Vec<String> = unlike.map(|(key, value)| format!("{key}={value}")).collect();
            if !unlike.is_empty() {
                amiss.push(format!("the Service selects {}, which the replicas do not have", unlike.join(",")));
            }
        }
        (Some(_), None) => {}
    }
    amiss.dedup();
    if amiss.is_empty() {
        return Line::ok(CHECK, format!("the webhooks lead by the Service {own}/{name} to the replicas"));
    }
    Line::fail(CHECK, amiss.join("; "), SERVICE)
}

fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// What is wrong with the port that a Service's port leads to.
fn unanswered(port: &ServicePort, deployment: &Deployment) -> Option<String> {
    let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
    let mut open = containers(deployment).flat_map(|container| container.ports.iter().flatten());
    let (found, target) = match target {
        IntOrString::Int(number) => (open.any(|port| port.container_port == number), number.to_string()),
        IntOrString::String(name) => (open.any(|port| port.name.as_deref() == Some(&name)), name),
    };
    (!found).then(|| format!("the Service leads to port {target}, which no container of the replicas names"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::fixtures::site;

    type Change = fn(&mut Site);

    fn status(look: fn(&Site) -> Line, change: Change, closed: bool) -> Status {
        let mut site = site(closed);
        assert_eq!(look(&site).status, Status::Ok, "{:?}", look(&site));
        change(&mut site);
        look(&site).status
    }

    fn deployment(site: &mut Site) -> &mut k8s_openapi::api::apps::v1::DeploymentSpec {
        site.deployment.as_mut().expect("a Deployment").spec.as_mut().expect("a spec")
    }

    fn pod(site: &mut Site) -> &mut k8s_openapi::api::core::v1::PodSpec {
        deployment(site).template.spec.as_mut().expect("a spec")
    }

    #[test]
    fn what_is_shipped_is_well_open_and_closed() {
        for closed in [false, true] {
            let mut lines = Vec::new();
            examine(&site(closed), &mut lines);
            assert!(lines.iter().all(|line| line.status == Status::Ok), "{lines:#?}");
            assert_eq!(lines.len(), if closed { 6 } else { 5 });
        }
    }

    #[test]
    fn fewer_than_two_replicas_are_told() {
        let look = |site: &Site| enough(site.deployment.as_ref().expect("a Deployment"), site.fails_closed());
        let changes: [(Change, Status, Status); 3] = [
            (|site| deployment(site).replicas = Some(1), Status::Warn, Status::Fail),
            (|site| deployment(site).replicas = None, Status::Warn, Status::Fail),
            (|site| deployment(site).replicas = Some(0), Status::Fail, Status::Fail),
        ];
        for (change, open, closed) in changes {
            assert_eq!((status(look, change, false), status(look, change, true)), (open, closed));
        }
    }

    #[test]
    fn replicas_that_one_drain_may_take_are_told() {
        let look = |site: &Site| {
            let budgets = site.budgets.as_ref().expect("budgets");
            spread(site.deployment.as_ref().expect("a Deployment"), budgets, site.fails_closed())
        };
        let no_budget: Change = |site| site.budgets = Ok(Vec::new());
        let together: Change = |site| pod(site).affinity = None;
        let neither: Change = |site| {
            site.budgets = Ok(Vec::new());
            pod(site).affinity = None;
        };
        let stubborn: Change = |site| {
            let budget = site.budgets.as_mut().expect("budgets").first_mut().expect("a budget");
            budget.spec.as_mut().expect("a spec").max_unavailable = Some(IntOrString::String("0%".into()));
        };
        for (change, open, closed) in [
            (no_budget, Status::Warn, Status::Warn),
            (together, Status::Warn, Status::Warn),
            (neither, Status::Warn, Status::Fail),
            (stubborn, Status::Warn, Status::Warn),
        ] {
            assert_eq!((status(look, change, false), status(look, change, true)), (open, closed));
        }
    }

    #[test]
    fn an_upgrade_that_takes_all_replicas_is_told() {
        let look = |site: &Site| rollout(site.deployment.as_ref().expect("a Deployment"), site.fails_closed());
        let recreate: Change = |site| {
            let strategy = deployment(site).strategy.get_or_insert_default();
            (strategy.type_, strategy.rolling_update) = (Some("Recreate".into()), None);
        };
        let all: Change = |site| {
            let rolling = deployment(site).strategy.get_or_insert_default().rolling_update.get_or_insert_default();
            rolling.max_unavailable = Some(IntOrString::String("100%".into()));
        };
        for change in [recreate, all] {
            assert_eq!((status(look, change, false), status(look, change, true)), (Status::Warn, Status::Fail));
        }
        // The API's own default leaves one of two.
        assert_eq!(status(look, |site| deployment(site).strategy = None, true), Status::Ok);
    }

    #[test]
    fn replicas_that_are_asked_too_early_or_pushed_aside_are_told() {
        let look = |site: &Site| readiness(site.deployment.as_ref().expect("a Deployment"), site.fails_closed());
        let change: Change = |site| pod(site).containers.iter_mut().for_each(|one| one.readiness_probe = None);
        assert_eq!((status(look, change, false), status(look, change, true)), (Status::Warn, Status::Fail));
        let look = |site: &Site| priority(site.deployment.as_ref().expect("a Deployment"));
        assert_eq!(status(look, |site| pod(site).priority_class_name = None, true), Status::Warn);
    }

    #[test]
    fn each_break_of_the_way_from_the_webhook_to_a_replica_is_found() {
        let look = |site: &Site| {
            way(&site.hooks, site.service.as_ref().expect("a Service"), site.deployment.as_ref().ok(), &site.namespace)
        };
        fn called(site: &mut Site) -> &mut k8s_openapi::api::admissionregistration::v1::ServiceReference {
            let hook = site.hooks.first_mut().expect("a webhook");
            hook.webhook.client_config.service.as_mut().expect("a Service")
        }
        fn spec(site: &mut Site) -> &mut k8s_openapi::api::core::v1::ServiceSpec {
            site.service.as_mut().expect("a Service").spec.as_mut().expect("a spec")
        }
        let changes: [Change; 9] = [
            |site| called(site).name = "other".into(),
            |site| called(site).namespace = "other".into(),
            |site| called(site).path = None,
            |site| called(site).port = Some(8443),
            |site| site.hooks.iter_mut().for_each(|hook| hook.webhook.client_config.service = None),
            |site| spec(site).selector = None,
            |site| spec(site).selector = Some([("app".to_owned(), "other".to_owned())].into()),
            |site| spec(site).ports.iter_mut().flatten().for_each(|port| port.target_port = Some(IntOrString::Int(9))),
            |site| pod(site).containers.iter_mut().for_each(|container| container.ports = None),
        ];
        for change in changes {
            assert_eq!(status(look, change, false), Status::Fail);
        }
    }
}
