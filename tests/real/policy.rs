//! The policy as an API: what is refused at apply, what kubectl shows of it, and what becomes of one that is no good.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::check::check;
use crate::stage::until;
use crate::world::{Answer, Scene, condition, list, pod};

crate::scenarios! {
    ControlPlane:
        each_field_of_a_policy_once_wrong_is_refused_with_what_is_right,
        a_policys_columns_and_its_fields_are_explained;
    NodesAlone: an_edit_that_cannot_be_compiled_leaves_the_last_good_generation_in_force;
}

/// A spec that has one thing wrong, the field that the answer names, and what it says is right.
fn wrong_specs() -> Vec<(Value, &'static str, &'static str)> {
    let text = |length: usize| "a".repeat(length);
    let remedy = |image: &str, text: &str| json!({"remedies": [{"image": image, "text": text}]});
    let runtime = |field: &str, value: Value| json!({"runtime": {field: value}});
    let grace = |field: &str, value: &str| json!({"runtime": {"grace": {field: value}}});
    let expression = |expression: Value| json!({"nodes": {"matchExpressions": [expression]}});
    let duration = "a duration is a whole number with a unit";
    let pods_label = |key: &str, value: &str| json!({"match": {"podSelector": {"matchLabels": {key: value}}}});
    let kinds = |group: &str, kind: &str| runtime("taskKinds", json!([{"group": group, "kind": kind}]));
    vec![
        (
            json!({"match": {"namespaceSelector": {"matchLabels": {"a b": "c"}}}}),
            "spec.match.namespaceSelector.matchLabels",
            "a label key is an optional DNS prefix",
        ),
        (pods_label("a", "b c"), "spec.match.podSelector.matchLabels", "should match"),
        (
            json!({"match": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}}),
            "spec.match.podSelector.matchExpressions[0]",
            "Exists and DoesNotExist take none",
        ),
        (
            expression(json!({"key": "a b", "operator": "Exists"})),
            "spec.nodes.matchExpressions[0].key",
            "a label key is an optional DNS prefix",
        ),
        (
            expression(json!({"key": "a", "operator": "Is", "values": ["b"]})),
            "spec.nodes.matchExpressions[0].operator",
            "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            expression(json!({"key": "a", "operator": "NotIn", "values": []})),
            "spec.nodes.matchExpressions[0]",
            "In and NotIn need values",
        ),
        (json!({"allowedImages": ["a b"]}), "spec.allowedImages", "no blanks"),
        (json!({"allowedImages": ["nginx@sha256:12"]}), "spec.allowedImages", "64 lower-case hexadecimal digits"),
        (json!({"allowedImages": ["registry.local//a"]}), "spec.allowedImages", "no empty path segment"),
        (json!({"allowedImages": vec!["a"; 129]}), "spec.allowedImages", "128"),
        (json!({"allowedImages": [text(513)]}), "spec.allowedImages[0]", "512"),
        (json!({"allowedImages": "optio-*"}), "spec.allowedImages", "must be of type array"),
        (json!({"preloadedImages": ["https://registry.local/a"]}), "spec.preloadedImages", "no scheme"),
        (json!({"preloadedImages": ["*.local/a"]}), "spec.preloadedImages", "no * in its registry host"),
        (json!({"nodeImageLimit": -2}), "spec.nodeImageLimit", "greater than or equal to -1"),
        (json!({"nodeImageLimit": 0}), "spec.nodeImageLimit", "1 or more, or -1 for unlimited"),
        (json!({"enforcement": "Dryrun"}), "spec.enforcement", "supported values: \"Enforce\", \"Warn\", \"Audit\""),
        (json!({"presence": {"scope": "Some"}}), "spec.presence.scope", "supported values: \"NeverOnly\", \"All\""),
        (
            json!({"presence": {"onAbsent": "deny"}}),
            "spec.presence.onAbsent",
            "supported values: \"Deny\", \"Warn\", \"Allow\"",
        ),
        (
            json!({"presence": {"onUnknown": "Ignore"}}),
            "spec.presence.onUnknown",
            "supported values: \"Deny\", \"Warn\", \"Allow\"",
        ),
        (json!({"presence": {"elastic": "yes"}}), "spec.presence.elastic", "must be of type boolean"),
        (json!({"rescue": "Pin"}), "spec.rescue", "supported values: \"None\", \"PinToHolders\", \"PullIfNotPresent\""),
        (json!({"rescue": "PullIfNotPresent"}), "spec", "it needs allowedImages"),
        (json!({"templates": "Allow"}), "spec.templates", "supported values: \"Deny\", \"Warn\", \"Ignore\""),
        (runtime("enforcement", json!("Warn")), "spec.runtime.enforcement", "supported values: \"Enforce\", \"Audit\""),
        (runtime("taskLabel", json!("a b")), "spec.runtime.taskLabel", "taskLabel is a label key"),
        (kinds("batch", "CronJob"), "spec.runtime.taskKinds[0]", "kinds that can end by themselves"),
        (kinds("argoproj.io", "workflow"), "spec.runtime.taskKinds[0].kind", "as in a manifest: Workflow, TaskRun"),
        (grace("neverPull", "60"), "spec.runtime.grace.neverPull", duration),
        (grace("notFound", "-5s"), "spec.runtime.grace.notFound", duration),
        (grace("unauthorized", ""), "spec.runtime.grace.unauthorized", duration),
        (grace("other", "1d"), "spec.runtime.grace.other", duration),
        (runtime("maxAttempts", json!(0)), "spec.runtime.maxAttempts", "greater than or equal to 1"),
        (
            runtime("failOwner", json!("Deployment")),
            "spec.runtime.failOwner",
            "supported values: \"None\", \"Pod\", \"Job\"",
        ),
        (runtime("failDeniedAfter", json!("0s")), "spec.runtime.failDeniedAfter", "above zero"),
        (runtime("keepPods", json!(101)), "spec.runtime.keepPods", "less than or equal to 100"),
        (runtime("denyRecreation", json!("no")), "spec.runtime.denyRecreation", "must be of type boolean"),
        (runtime("expiry", json!("9000h")), "spec.runtime.expiry", "at most 8760h"),
        (remedy("registry.*/b", "Do this."), "spec.remedies[0].image", "no * in its registry host"),
        (remedy("a", ""), "spec.remedies[0].text", "at least 1"),
        (remedy("a", &text(257)), "spec.remedies[0].text", "256"),
        (json!({"enforcment": "Warn"}), "spec.enforcment", "unknown field"),
    ]
}

/// As documents: of a list kubectl itself would look at the fields, and the API server is to do that.
fn try_create(scene: &Scene<'_>, policies: impl Iterator<Item = Value>) -> Result<Answer> {
    let documents: Vec<String> = policies.map(|policy| policy.to_string()).collect();
    scene.kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &documents.join("\n---\n"))
}

fn each_field_of_a_policy_once_wrong_is_refused_with_what_is_right(scene: &Scene<'_>) -> Result<()> {
    let wrong = wrong_specs();
    let name = |number: usize| format!("{}-{number}.wrong", scene.namespace);
    let policies = wrong.iter().enumerate().map(|(number, (spec, _, _))| {
        json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy", "metadata": {"name": name(number)},
            "spec": spec})
    });
    let refused = try_create(scene, policies)?;
    ensure!(!refused.accepted && refused.out.is_empty(), "some were accepted: {}", refused.out);
    // kubectl begins a new line for each object, and one more for each of several causes.
    let answers: Vec<&str> = refused.err.split("\nThe ").flat_map(|part| part.split("\nError from server")).collect();
    for (number, (spec, field, right)) in wrong.iter().enumerate() {
        let own = format!("\"{}\"", name(number));
        let strict = *right == "unknown field";
        let answer = answers.iter().find(|answer| answer.contains(if strict { *right } else { &own }));
        let answer = answer.with_context(|| format!("nothing about {spec}: {}", refused.err))?;
        ensure!(answer.contains(field) && answer.contains(right), "{spec}: no {field} or no {right:?} in: {answer}");
    }
    // The values that are the defaults, and the extremes, are right.
    let right = [
        json!({}),
        json!({"allowedImages": ["**"], "nodeImageLimit": -1, "rescue": "PullIfNotPresent"}),
        json!({"runtime": {"keepPods": 0, "maxAttempts": 1, "expiry": "8760h", "grace": {"other": "1h30m"}}}),
    ];
    let policies = right.iter().enumerate().map(|(number, spec)| {
        json!({"apiVersion": "pullguard.dev/v1alpha1", "kind": "NodeImagePolicy",
            "metadata": {"name": format!("{}-{number}.right", scene.namespace)}, "spec": spec})
    });
    try_create(scene, policies)?.accepted_in_silence()
}

/// Fields without a word about them, below a schema.
fn unexplained(schema: &Value, path: &str, into: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            into.push(path.clone());
        }
        unexplained(field, &path, into);
        unexplained(&field["items"], &path, into);
    }
}

fn a_policys_columns_and_its_fields_are_explained(scene: &Scene<'_>) -> Result<()> {
    let applied =
        scene.apply_policy(&["nobody"], json!({"enforcement": "Warn", "runtime": {"enforcement": "Audit"}}))?;
    ensure!(applied.accepted, "{}", applied.err);
    let shown = scene.ok(&["get", "nip", &scene.namespace])?;
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let [head, row] = lines.as_slice() else { anyhow::bail!("{shown}") };
    ensure!(*head == ["NAME", "ENFORCEMENT", "RUNTIME", "READY", "NODES", "IMAGES", "AGE"], "{shown}");
    ensure!(row.starts_with(&[scene.namespace.as_str(), "Warn", "Audit"]), "{shown}");
    // In the category, with the records.
    ensure!(scene.ok(&["get", "pullguard", "-o", "name"])?.contains(&scene.namespace), "not in its category");

    let explained = scene.ok(&["explain", "nip.spec.presence"])?;
    for part in ["onAbsent", "proven absent", "enum: Deny, Warn, Allow", "onUnknown", "neither presence nor absence"] {
        ensure!(explained.contains(part), "no {part:?} in: {explained}");
    }
    for kind in ["nodeimagepolicies", "pullfailures"] {
        let definition = scene.get("customresourcedefinition", &format!("{kind}.pullguard.dev"))?;
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut silent = Vec::new();
        unexplained(&schema["properties"]["spec"], "spec", &mut silent);
        unexplained(&schema["properties"]["status"], "status", &mut silent);
        ensure!(silent.is_empty(), "kubectl explain has no word about these fields of {kind}: {silent:?}");
    }
    Ok(())
}

/// The rules on allowed images, taken out of the definition: as in an older schema. They return when this is dropped.
struct Lenient<'a> {
    scene: &'a Scene<'a>,
    rules: Vec<Value>,
}

const DEFINITION: [&str; 2] = ["customresourcedefinition", "nodeimagepolicies.pullguard.dev"];

impl<'a> Lenient<'a> {
    fn new(scene: &'a Scene<'a>) -> Result<Self> {
        let [kind, name] = DEFINITION;
        let definition = scene.get(kind, name)?;
        let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/allowedImages";
        // On the list as a whole, or on each of its items.
        let places = ["", "/items"].map(|part| format!("{field}{part}/x-kubernetes-validations"));
        let found = places.into_iter().filter_map(|path| Some((definition.pointer(&path)?, path)));
        let rules: Vec<Value> = found.map(|(rules, path)| json!({"op": "add", "path": path, "value": rules})).collect();
        ensure!(!rules.is_empty(), "the definition has no rules on allowed images");
        let without: Vec<Value> = rules.iter().map(|rule| json!({"op": "remove", "path": rule["path"]})).collect();
        scene.ok(&["patch", kind, name, "--type=json", "-p", &json!(without).to_string()])?;
        Ok(Self { scene, rules })
    }
}

impl Drop for Lenient<'_> {
    fn drop(&mut self) {
        let [kind, name] = DEFINITION;
        let rules = json!(self.rules).to_string();
        if let Err(error) = self.scene.ok(&["patch", kind, name, "--type=json", "-p", &rules]) {
            eprintln!("the rules of the definition are not back: {error:#}");
        }
    }
}

fn an_edit_that_cannot_be_compiled_leaves_the_last_good_generation_in_force(scene: &Scene<'_>) -> Result<()> {
    scene.policy(json!({"allowedImages": ["optio-*"]}))?;
    let image = |image: &str| pod("task", image, "IfNotPresent");
    let lenient = Lenient::new(scene)?;
    // Its first pattern alone would allow everything.
    let bad = json!({"allowedImages": ["**", "registry.local/team/-app"]});
    until("the definition takes it", 90, || {
        Ok(scene.apply_policy(&[&scene.namespace], bad.clone())?.accepted.then_some(()))
    })?;
    drop(lenient);
    let policy = until("the policy is not Ready", 90, || {
        let policy = scene.get("nodeimagepolicy", &scene.namespace)?;
        let unready = condition(&policy, "Ready").is_some_and(|ready| ready["status"] == "False");
        Ok(unready.then_some(policy))
    })?;
    let ready = condition(&policy, "Ready").context("a condition")?;
    ensure!(ready["reason"] == "CompileError" && policy["status"]["observedGeneration"] == 2, "{}", policy["status"]);
    let message = ready["message"].as_str().context("a message")?;
    for part in ["spec.allowedImages[1]", "`-app`", "The last generation that could be compiled stays in force."] {
        ensure!(message.contains(part), "no {part:?} in: {message}");
    }
    ensure!(scene.ok(&["get", "nip", &scene.namespace])?.contains("False"), "the column does not show it");
    scene.try_create(&image("nginx:1"))?.refused_with(&["ImageNotAllowed"])?;
    scene.try_create(&image("optio-x:1"))?.accepted_in_silence()?;
    let (code, _, said) = check(scene, &list([image("optio-x:1")]))?;
    ensure!(code == Some(2) && said.contains(&scene.namespace) && said.contains("`-app`"), "{code:?} {said}");

    scene.policy(json!({"allowedImages": ["**"]}))?;
    scene.try_create(&image("nginx:1"))?.accepted_in_silence()
}
