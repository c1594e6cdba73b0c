//! Whether the API server really asks our webhooks, seen without a policy and without a trace.
//!
//! Enters: a namespace. Leaves: dry runs to send, one a webhook, and what the API server's answers mean. A dry run is
//! stored by nobody; by its name the webhook knows it and answers with a warning, which the API server hands on. Nothing
//! else proves the whole way at once: rules, selectors, Service, endpoints, network, trust.

use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};

use super::hook::NAMES;
use super::line::{Gap, Line};
use crate::k8s::answer::{PROBE, PROBE_ANSWER};

const CHECK: &str = "webhook answers";

/// One dry run.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub webhook: &'static str,
    path: String,
    object: Value,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// By our webhook, of this version.
    Given(String),
    /// The object would have been created, and nobody of ours was heard.
    None,
    /// The API server says why it got no answer: it does where the webhook fails closed.
    Failed(String),
    /// It did not come so far: the caller may not, or something else said no.
    Refused(String),
}

/// One for each webhook that validates.
pub(super) fn probes(namespace: &str) -> Vec<Probe> {
    // What the strictest Pod Security profile asks, so that nothing says no before we are asked.
    let pod = json!({
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "probe",
            "image": "pullguard.dev/doctor/probe:never",
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
        }],
    });
    let template = json!({"metadata": {"labels": {"app": PROBE}}, "spec": pod});
    let metadata = json!({"name": PROBE, "namespace": namespace});
    let core = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod});
    // A Deployment restarts its pods always.
    let mut lasting = template.clone();
    if let Some(spec) = lasting.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.remove("restartPolicy");
    }
    let apps = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": PROBE}}, "template": lasting}});
    let batch = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
        "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": template}}}});
    let paths = ["/api/v1", "/apis/apps/v1", "/apis/batch/v1"];
    let resources = ["pods", "deployments", "cronjobs"];
    NAMES
        .into_iter()
        .zip(paths.into_iter().zip(resources))
        .zip([core, apps, batch])
        .map(|((webhook, (path, resource)), object)| Probe {
            webhook,
            path: format!("{path}/namespaces/{namespace}/{resource}"),
            object,
        })
        .collect()
}

impl Probe {
    /// # Errors
    /// The path is none.
    pub fn request(&self) -> Result<axum::http::Request<Vec<u8>>, String> {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let body = self.object.to_string().into_bytes();
        Request::new(self.path.as_str()).create(&dry, body).map_err(|error| error.to_string())
    }
}

/// What the API server's answer means. `message`: of its Status, where it refused.
pub(super) fn interpret(accepted: bool, warnings: &[String], message: &str) -> Answer {
    let ours = warnings.iter().find_map(|warning| warning.split_once(PROBE_ANSWER));
    if let Some((_, version)) = ours {
        let end =
            version.find(|character: char| character == '"' || character.is_whitespace()).unwrap_or(version.len());
        return Answer::Given(version.get(..end).unwrap_or_default().to_owned());
    }
    if accepted {
        return Answer::None;
    }
    let of_ours = NAMES.iter().any(|name| message.contains(name));
    if of_ours && message.contains("failed calling webhook") {
        Answer::Failed(message.to_owned())
    } else {
        Answer::Refused(message.to_owned())
    }
}

pub(super) fn judge(webhook: &str, answer: &Answer) -> Line {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let why = "The lines on service, endpoints and trust say why; where they are well, see whether a NetworkPolicy or a firewall keeps the API server from port 8443 of the replicas.";
    match answer {
        Answer::Given(version) if version == VERSION => {
            Line::ok(CHECK, format!("the API server asks {webhook} and gets an answer (version {version})"))
        }
        Answer::Given(version) => Line::warn(
            CHECK,
            format!("the API server asks {webhook} and gets an answer, of version {version}: this doctor is {VERSION}"),
            "Use the doctor of the installed version.",
        ),
        Answer::None => {
            let message = format!(
                "a dry run passed that {webhook} has not answered: the API server does not reach it, and lets all pass unjudged"
            );
            Line::fail(CHECK, message, why)
        }
        Answer::Failed(words) => {
            Line::fail(CHECK, format!("the API server gets no answer from {webhook}: {words}"), why)
        }
        Answer::Refused(words) => Gap::Unread {
            why: format!("the dry run for {webhook} was refused: {words}"),
            remedy: "Run the doctor as somebody who may create pods, deployments and cronjobs; nothing is created.",
        }
        .line(CHECK),
    }
}

/// There is no namespace that the webhooks are called for.
pub(super) fn nowhere() -> Line {
    let message = "no namespace is judged: the webhooks' namespaceSelector excludes all that there are";
    Line::fail(CHECK, message, "Mend the namespaceSelector of the webhooks.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::line::Status;

    #[test]
    fn a_probe_is_a_dry_run_for_each_webhook() {
        let probes = probes("team");
        let targets: Vec<String> =
            probes.iter().map(|probe| probe.request().expect("a request").uri().to_string()).collect();
        assert_eq!(
            targets,
            [
                "/api/v1/namespaces/team/pods?&dryRun=All",
                "/apis/apps/v1/namespaces/team/deployments?&dryRun=All",
                "/apis/batch/v1/namespaces/team/cronjobs?&dryRun=All",
            ]
        );
        assert!(probes.iter().all(|probe| probe.object["metadata"]["name"] == PROBE));
    }

    #[test]
    fn only_our_own_warning_proves_that_we_were_asked() {
        let version = env!("CARGO_PKG_VERSION");
        let ours = format!("299 - \"{PROBE_ANSWER}{version}\"");
        let other = "299 - \"would violate PodSecurity\"".to_owned();
        let failed =
            "Internal error occurred: failed calling webhook \"pods.pullguard.dev\": failed to call webhook: EOF";
        let foreign = "Internal error occurred: failed calling webhook \"other.example.com\": EOF";
        for (accepted, warnings, message, status, looked) in [
            (true, vec![other.clone(), ours.clone()], "", Status::Ok, true),
            (false, vec![ours], "exceeded quota", Status::Ok, true),
            (true, vec![format!("299 - \"{PROBE_ANSWER}0.0.1\"")], "", Status::Warn, true),
            (true, vec![other], "", Status::Fail, true),
            (false, vec![], failed, Status::Fail, true),
            (false, vec![], foreign, Status::Warn, false),
            (false, vec![], "pods is forbidden: User \"eve\" cannot create resource", Status::Warn, false),
        ] {
            let line = judge("pods.pullguard.dev", &interpret(accepted, &warnings, message));
            assert_eq!((line.status, line.looked), (status, looked), "{line:?}");
        }
    }
}
