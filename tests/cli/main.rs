//! The program as people and pipelines call it: standard output, standard error and exit status of the built binary.
//! No cluster is there: the kubeconfig that the tests name does not exist, but for one that names a closed port.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test may stop where it stands"
)]

mod proxy;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/check").join(name)
}

struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    /// `name: verdict` of each entry, and the reasons of its findings.
    fn verdicts(&self) -> Vec<String> {
        let entries = self.json();
        let entries = entries.as_array().expect("an array");
        entries
            .iter()
            .map(|entry| {
                let findings = entry["findings"].as_array().expect("findings");
                let reasons: Vec<&str> = findings.iter().filter_map(|finding| finding["reason"].as_str()).collect();
                let text = |field: &str| entry[field].as_str().expect("a text").to_owned();
                format!("{}/{} {} {}", text("namespace"), text("name"), text("verdict"), reasons.join(","))
                    .trim()
                    .to_owned()
            })
            .collect()
    }
}

fn pullguard_with(arguments: &[&str], input: &str, kubeconfig: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullguard"));
    for variable in ["PULLGUARD_YOUNG_NODE", "PULLGUARD_TRANSIENT_TAINTS", "POD_NAMESPACE", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(variable);
    }
    command.args(arguments).env("KUBECONFIG", kubeconfig).current_dir(data(""));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input closes it.
    let _ = child.stdin.take().expect("an input").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    Run {
        status: output.status.code().expect("an exit status"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn pullguard(arguments: &[&str]) -> Run {
    pullguard_with(arguments, "", "/nonexistent/kubeconfig")
}

/// A check against the policies, nodes and namespaces of the fixtures.
fn check(arguments: &[&str]) -> Run {
    let world = [
        "check",
        "--policies",
        "policies.yaml",
        "--inventory",
        "nodes.yaml",
        "--namespaces",
        "namespaces.yaml",
        "-o",
        "json",
    ];
    pullguard(&[&world, arguments].concat())
}

#[test]
fn an_image_on_a_node_is_allowed_and_an_absent_one_denied() {
    let run = check(&["-f", "allowed.yaml"]);
    assert_eq!((run.status, run.verdicts()), (0, vec!["default/agent-1 Allow".to_owned()]), "{}", run.err);
    let run = check(&["-f", "absent.yaml"]);
    assert_eq!((run.status, run.verdicts()), (1, vec!["default/agent-2 Deny ImageAbsent".to_owned()]));
    assert_eq!(run.err, "");
}

#[test]
fn the_json_of_check_has_its_documented_shape() {
    let run = check(&["-f", "absent.yaml"]).json();
    let entry = &run[0];
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(entry), ["findings", "kind", "name", "namespace", "verdict"]);
    let finding = &entry["findings"][0];
    assert_eq!(
        keys(finding),
        ["action", "container", "detail", "image", "message", "policy", "reason", "remedy", "wouldBe"]
    );
    assert_eq!(entry["kind"], "Pod");
    for (field, value) in
        [("policy", "agents"), ("container", "main"), ("image", "optio-gpu"), ("action", "Deny"), ("wouldBe", "Deny")]
    {
        assert_eq!(finding[field], value, "{field}");
    }
    assert_eq!(finding["remedy"], "Run ./images/build.sh node to build it.");
    let message = finding["message"].as_str().expect("a message");
    assert!(message.contains("gpu=true:NoSchedule") && message.contains("agents"), "{message}");
}

#[test]
fn several_documents_kinds_and_namespaces_are_judged_in_order() {
    let run = check(&["-f", "mixed.yaml"]);
    assert_eq!(
        run.verdicts(),
        [
            "red/refused Deny ImageNotAllowed",
            "red/allowed Allow",
            "default/trial Allow ImageAbsent",
            "kube-system/system Allow",
            "red/controlled Allow",
        ]
    );
    assert_eq!(run.status, 1);
    assert_eq!(run.json()[2]["findings"][0]["wouldBe"], "Deny");
}

#[test]
fn json_lists_and_generated_names_are_read_and_a_broken_reference_is_denied() {
    let run = check(&["-f", "pods.json"]);
    assert_eq!(run.verdicts(), ["default/agent- Allow", "default/odd Deny InvalidImageReference"]);
}

#[test]
fn standard_input_is_a_file_but_only_once() {
    let pod = std::fs::read_to_string(data("absent.yaml")).expect("a fixture");
    let world = ["check", "--policies", "policies.yaml", "--inventory", "nodes.yaml", "-o", "json"];
    let run = pullguard_with(&[&world[..], &["-f", "allowed.yaml", "-"]].concat(), &pod, "/nonexistent/kubeconfig");
    // Without --namespaces a policy that selects by other labels is unknown: a warning.
    assert_eq!(
        run.verdicts(),
        ["default/agent-1 Warn ImagePresenceUnknown", "default/agent-2 Deny ImageAbsent,ImagePresenceUnknown"]
    );
    let run = pullguard_with(
        &["check", "-f", "-", "--policies", "-", "--inventory", "nodes.yaml"],
        &pod,
        "/nonexistent/kubeconfig",
    );
    assert_eq!(run.status, 2);
    assert!(run.err.contains("standard input: - may be given only once"), "{}", run.err);
}

#[test]
fn the_namespace_flag_is_for_manifests_that_name_none() {
    let run = check(&["-f", "allowed.yaml", "-n", "red"]);
    assert_eq!(run.verdicts(), ["red/agent-1 Allow"]);
    let run = check(&["-f", "allowed.yaml", "-n", "pullguard"]);
    assert_eq!(run.verdicts(), ["pullguard/agent-1 Allow"]);
}

#[test]
fn people_get_a_table_with_the_message_below_each_object() {
    let world =
        ["check", "--policies", "policies.yaml", "--inventory", "nodes.yaml", "--namespaces", "namespaces.yaml"];
    let run = pullguard(&[&world[..], &["-f", "absent.yaml"]].concat());
    assert_eq!(run.status, 1);
    assert!(
        run.out.starts_with(
            "VERDICT   KIND   NAMESPACE   NAME\nDeny      Pod    default     agent-2\n    Deny ImageAbsent"
        ),
        "{}",
        run.out
    );
}

#[test]
fn a_misspelt_field_is_an_error_that_names_file_document_and_field() {
    let run = check(&["-f", "misspelt.yaml"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert_eq!(
        run.err,
        "pullguard: misspelt.yaml: document 2: spec.containers[0].imagePulPolicy: unknown field; did you mean imagePullPolicy?\n"
    );
    let run = check(&["-f", "misspelt.yaml", "--validate", "warn"]);
    assert_eq!(run.status, 0);
    assert!(run.err.starts_with("pullguard: warning: misspelt.yaml: document 2: "), "{}", run.err);
}

#[test]
fn a_policy_that_cannot_be_compiled_is_named_and_nothing_is_judged() {
    let run = pullguard(&[
        "check",
        "-f",
        "allowed.yaml",
        "--policies",
        "broken-policy.yaml",
        "--inventory",
        "nodes.yaml",
        "-o",
        "json",
    ]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert!(run.err.starts_with("pullguard: broken-policy.yaml: document 1: NodeImagePolicy broken cannot be compiled: spec.allowedImages[1]"), "{}", run.err);
}

#[test]
fn a_wrong_kind_in_an_input_is_an_error() {
    let run = pullguard(&[
        "check",
        "-f",
        "allowed.yaml",
        "--policies",
        "nodes.yaml",
        "--inventory",
        "policies.yaml",
        "-o",
        "json",
    ]);
    assert_eq!(run.status, 2);
    assert!(
        run.err.contains("pullguard: nodes.yaml: document 1: items[0].kind: expected NodeImagePolicy, found Node\n"),
        "{}",
        run.err
    );
    assert!(
        run.err.contains("pullguard: policies.yaml: document 3: kind: expected Node, found NodeImagePolicy\n"),
        "{}",
        run.err
    );
}

#[test]
fn a_file_that_is_not_there_cannot_be_judged() {
    let run = check(&["-f", "none.yaml"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert!(run.err.starts_with("pullguard: none.yaml: "), "{}", run.err);
}

#[test]
fn without_a_cluster_there_is_one_sentence_and_exit_status_2() {
    let run = pullguard(&["check", "-f", "allowed.yaml", "--policies", "policies.yaml"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    let closed = std::env::temp_dir().join(format!("pullguard-closed-{}.yaml", std::process::id()));
    let config = "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: c, user: {}}], contexts: [{name: c, context: {cluster: c, user: c}}]}";
    std::fs::write(&closed, config).expect("a kubeconfig");
    let run = pullguard_with(&["check", "-f", "allowed.yaml"], "", &closed.to_string_lossy());
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(run.err.contains("http://127.0.0.1:9"), "{}", run.err);
}

#[test]
fn words_are_explained_without_a_cluster() {
    let message = "Container image \"agent:1\" is not present with pull policy of Never";
    let run = pullguard(&[
        "explain",
        "--reason",
        "ErrImageNeverPull",
        "--message",
        message,
        "--image",
        "agent:1",
        "-o",
        "json",
    ]);
    assert_eq!(run.status, 0, "{}", run.err);
    let told = run.json();
    for (field, value) in [("class", "NeverPull"), ("permanence", "Permanent"), ("image", "agent:1")] {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["pullFailure"], true);
    assert!(told["remedy"].is_string() && told["summary"].is_string());
    let run = pullguard(&["explain", "--reason", "CrashLoopBackOff", "--message", "back-off 10s", "-o", "json"]);
    assert_eq!((run.status, &run.json()["pullFailure"], &run.json()["class"]), (0, &Value::Bool(false), &Value::Null));
}

#[test]
fn a_pod_cannot_be_explained_without_a_cluster() {
    let run = pullguard(&["explain", "pod/agent-1", "-n", "red"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert_eq!(pullguard(&["explain", "job/agent"]).status, 2);
}

/// What `kubectl kustomize manifests/overlays/fail-closed` prints; the test on the real cluster has it from kubectl itself.
fn fail_closed() -> Vec<Value> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let read = |path: &str| -> Vec<Value> {
        serde_saphyr::from_multiple(&fs::read_to_string(manifests.join(path)).expect("a file")).expect("YAML")
    };
    let base = read("base/kustomization.yaml").remove(0);
    let files = base["resources"].as_array().expect("files").iter().map(|file| file.as_str().expect("a name"));
    let mut items: Vec<Value> = files.flat_map(|file| read(&format!("base/{file}"))).collect();
    let namespaced = ["ServiceAccount", "Role", "RoleBinding", "Service", "Deployment", "PodDisruptionBudget"];
    for item in items.iter_mut().filter(|item| namespaced.contains(&item["kind"].as_str().expect("a kind"))) {
        item["metadata"]["namespace"] = base["namespace"].clone();
    }
    for patch in read("overlays/fail-closed/kustomization.yaml").remove(0)["patches"].as_array().expect("patches") {
        let operations: Value = serde_saphyr::from_str(patch["patch"].as_str().expect("a text")).expect("YAML");
        let operations: json_patch::Patch = serde_json::from_value(operations).expect("a JSON Patch");
        json_patch::patch(of_kind(&mut items, patch["target"]["kind"].as_str().expect("a kind")), &operations)
            .expect("applies");
    }
    items
}

fn of_kind<'a>(items: &'a mut [Value], kind: &str) -> &'a mut Value {
    items.iter_mut().find(|item| item["kind"] == kind).expect("one of this kind")
}

fn webhooks(items: &mut [Value], change: impl FnMut(&mut Value)) {
    let webhooks = of_kind(items, "ValidatingWebhookConfiguration")["webhooks"].as_array_mut();
    webhooks.expect("webhooks").iter_mut().for_each(change);
}

fn remove(object: &mut Value, field: &str) {
    object.as_object_mut().expect("an object").remove(field).expect("the field is there");
}

/// The doctor's exit status, and the status of each check.
fn lint(items: &[Value]) -> (i32, Vec<(String, String)>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let run = pullguard_with(&["doctor", "-f", "-", "-o", "json"], &list, "/nonexistent/kubeconfig");
    let lines = run.json();
    let text = |line: &Value, field: &str| line[field].as_str().expect("a text").to_owned();
    let lines = lines.as_array().expect("an array").iter();
    (run.status, lines.map(|line| (text(line, "check"), text(line, "status"))).collect())
}

#[test]
fn the_fail_closed_overlay_is_proven_to_lock_nobody_out() {
    let (status, lines) = lint(&fail_closed());
    assert_eq!(status, 0, "{lines:?}");
    assert!(lines.iter().all(|(_, status)| status == "OK"), "{lines:?}");
    assert!(lines.iter().any(|(check, _)| check == "lock-out"));
}

#[test]
fn each_safeguard_that_is_taken_away_is_missed() {
    type Removal = fn(&mut Vec<Value>);
    fn pod(items: &mut [Value]) -> &mut Value {
        &mut of_kind(items, "Deployment")["spec"]["template"]["spec"]
    }
    let removals: [(&str, &str, Removal); 24] = [
        ("exempt namespaces", "FAIL", |items| webhooks(items, |hook| remove(hook, "namespaceSelector"))),
        ("exempt namespaces", "FAIL", |items| {
            // Its own namespace alone.
            webhooks(items, |hook| {
                let values = hook["namespaceSelector"]["matchExpressions"][0]["values"].as_array_mut();
                values.expect("values").retain(|value| value != "pullguard");
            });
        }),
        ("exempt namespaces", "FAIL", |items| {
            let last = |hook: &mut Value| {
                if hook["name"] == "cronjobs.pullguard.dev" {
                    hook["namespaceSelector"] = json!({});
                }
            };
            webhooks(items, last);
        }),
        ("rules", "FAIL", |items| webhooks(items, |hook| hook["rules"][0]["resources"] = json!(["*"]))),
        ("rules", "FAIL", |items| webhooks(items, |hook| hook["rules"][0]["operations"] = json!(["*"]))),
        ("rules", "FAIL", |items| webhooks(items, |hook| remove(&mut hook["rules"][0], "scope"))),
        ("match conditions", "FAIL", |items| webhooks(items, |hook| remove(hook, "matchConditions"))),
        ("match conditions", "FAIL", |items| {
            webhooks(items, |hook| drop(hook["matchConditions"].as_array_mut().expect("a list").remove(0)));
        }),
        ("match conditions", "FAIL", |items| {
            webhooks(items, |hook| hook["matchConditions"][1]["expression"] = json!("true"));
        }),
        ("timeout", "WARN", |items| webhooks(items, |hook| remove(hook, "timeoutSeconds"))),
        ("replicas", "FAIL", |items| remove(&mut of_kind(items, "Deployment")["spec"], "replicas")),
        ("replicas", "FAIL", |items| of_kind(items, "Deployment")["spec"]["replicas"] = json!(1)),
        ("spread", "WARN", |items| items.retain(|item| item["kind"] != "PodDisruptionBudget")),
        ("spread", "WARN", |items| remove(pod(items), "affinity")),
        ("spread", "FAIL", |items| {
            remove(pod(items), "affinity");
            items.retain(|item| item["kind"] != "PodDisruptionBudget");
        }),
        ("rollout", "FAIL", |items| of_kind(items, "Deployment")["spec"]["strategy"] = json!({"type": "Recreate"})),
        ("readiness", "FAIL", |items| remove(&mut pod(items)["containers"][0], "readinessProbe")),
        ("priority", "WARN", |items| remove(pod(items), "priorityClassName")),
        ("service", "FAIL", |items| items.retain(|item| item["kind"] != "Service")),
        ("service", "FAIL", |items| of_kind(items, "Service")["spec"]["selector"] = json!({"app": "other"})),
        ("service", "FAIL", |items| webhooks(items, |hook| remove(&mut hook["clientConfig"]["service"], "path"))),
        ("replicas", "FAIL", |items| items.retain(|item| item["kind"] != "Deployment")),
        ("rights", "FAIL", |items| items.retain(|item| item["kind"] != "RoleBinding")),
        ("rights", "FAIL", |items| of_kind(items, "ClusterRole")["rules"] = json!([])),
    ];
    for (index, (check, expected, removal)) in removals.into_iter().enumerate() {
        let mut items = fail_closed();
        removal(&mut items);
        let (status, lines) = lint(&items);
        let found = |name: &str| lines.iter().find(|(check, _)| check == name).map(|(_, status)| status.as_str());
        assert_eq!(found(check), Some(expected), "{index}: {lines:?}");
        assert_eq!(found("lock-out"), Some(expected), "the proof does not stand: {index}: {lines:?}");
        assert_eq!(status, i32::from(expected == "FAIL"), "{index}: {lines:?}");
    }
}

#[test]
fn without_a_cluster_and_without_manifests_the_doctor_says_so_in_one_line() {
    let run = pullguard(&["doctor"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    let run = pullguard(&["doctor", "-f", "absent.yaml"]);
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert!(run.err.contains("absent.yaml: no webhook configuration of Pullguard"), "{}", run.err);
}

#[test]
fn the_table_of_the_doctor_says_what_to_do() {
    let mut items = fail_closed();
    of_kind(&mut items, "Deployment")["spec"]["replicas"] = json!(1);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let run = pullguard_with(&["doctor", "-f", "-"], &list, "/nonexistent/kubeconfig");
    assert_eq!(run.status, 1, "{}", run.err);
    for part in ["FAIL     replicas\n", "-> Scale the Deployment to two replicas or more.\n", " 2 FAIL\n"] {
        assert!(run.out.contains(part), "no {part:?} in {}", run.out);
    }
}

#[test]
fn certificates_are_made_without_a_cluster_as_a_secret_or_as_files() {
    let run = pullguard(&["certs", "make", "-n", "guard"]);
    assert_eq!(run.status, 0, "{}", run.err);
    let secret: Value = serde_saphyr::from_str(&run.out).expect("YAML");
    assert_eq!((&secret["kind"], &secret["metadata"]["namespace"]), (&json!("Secret"), &json!("guard")));
    assert_eq!(
        (&secret["metadata"]["name"], &secret["type"]),
        (&json!("pullguard-webhook-tls"), &json!("kubernetes.io/tls"))
    );
    for key in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
        assert!(secret["stringData"][key].as_str().is_some_and(|text| text.starts_with("-----BEGIN ")), "{key}");
    }
    let folder = std::env::temp_dir().join(format!("pullguard-certs-{}", std::process::id()));
    let folder_text = folder.to_string_lossy().into_owned();
    let run = pullguard(&["certs", "make", "--out", &folder_text]);
    assert_eq!((run.status, run.out.lines().count()), (0, 4), "{}", run.err);
    let mode = |name: &str| fs::metadata(folder.join(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("tls.key")), (0o600, 0o600));
    let again = pullguard(&["certs", "make", "--out", &folder_text]);
    fs::remove_dir_all(&folder).expect("removable");
    assert!(again.status == 2 && again.err.contains("ca.crt"), "nothing is overwritten: {}", again.err);
    assert_eq!(pullguard(&["certs"]).status, 2);
}
