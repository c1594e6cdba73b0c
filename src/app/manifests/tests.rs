use super::*;

/// Reads one text as if it were a file of that name.
fn objects(text: &str) -> Result<Vec<Object>, Refused> {
    let folder = std::env::temp_dir().join(format!("pullguard-manifests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    // Tests run at once: each text has a file of its own.
    let path = folder.join(format!("{:?}.yaml", std::thread::current().id()));
    std::fs::write(&path, text).expect("a file");
    let path = path.to_string_lossy().into_owned();
    let shorten = |Problem(text)| Problem(text.replace(&path, "pod.yaml"));
    Manifests::new(Validate::Strict)
        .objects(std::slice::from_ref(&path))
        .map_err(|Refused(problems)| Refused(problems.into_iter().map(shorten).collect()))
}

fn kinds(text: &str) -> Vec<String> {
    objects(text)
        .expect("readable")
        .into_iter()
        .map(|object| format!("{}{}", object.place.items, object.kind))
        .collect()
}

fn refused(text: &str) -> String {
    objects(text).expect_err("refused").to_string()
}

#[test]
fn lists_are_taken_apart_and_items_of_a_typed_list_have_its_kind() {
    assert_eq!(
        kinds(
            "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod}, {apiVersion: apps/v1, kind: Deployment}]}"
        ),
        ["items[0]Pod", "items[1]Deployment"]
    );
    assert_eq!(
        kinds("{apiVersion: v1, kind: PodList, metadata: {resourceVersion: '1'}, items: [{metadata: {name: a}}]}"),
        ["items[0]Pod"]
    );
    assert_eq!(
        kinds("{apiVersion: pullguard.dev/v1alpha1, kind: NodeImagePolicyList, items: []}"),
        Vec::<String>::new()
    );
    assert_eq!(
        kinds("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: PodList, items: [{}]}]}"),
        ["items[0].items[0]Pod"]
    );
    assert_eq!(kinds("{apiVersion: example.com/v1, kind: AllowList, spec: {}}"), ["AllowList"]);
}

#[test]
fn what_is_no_object_is_refused_with_its_place() {
    assert_eq!(refused("a: 1"), "pod.yaml: document 1: apiVersion: missing");
    assert_eq!(refused("[1]"), "pod.yaml: document 1: expected an object with apiVersion and kind");
    assert_eq!(
        refused("{apiVersion: v1, kind: List, items: [{kind: Pod}]}"),
        "pod.yaml: document 1: items[0].apiVersion: missing"
    );
    assert_eq!(refused("{apiVersion: v1, kind: List, items: {}}"), "pod.yaml: document 1: items: expected a list");
    assert_eq!(
        refused("{apiVersion: v1, kind: List, itmes: []}"),
        "pod.yaml: document 1: itmes: unknown field; did you mean items?"
    );
    assert_eq!(refused("# nothing\n"), "pod.yaml: no objects in it");
    assert_eq!(
        refused("{apiVersion: v1, kind: Pod}\n---\n{apiVersion: 1, kind: Pod}"),
        "pod.yaml: document 2: apiVersion: expected a string"
    );
}

#[test]
fn a_kind_that_was_misspelt_is_not_one_that_is_not_judged() {
    assert_eq!(
        refused("{apiVersion: v1, kind: pod}"),
        "pod.yaml: document 1: kind: unknown kind pod in v1; did you mean Pod?"
    );
    assert_eq!(
        refused("{apiVersion: v1, kind: Deployment}"),
        "pod.yaml: document 1: kind: unknown kind Deployment in v1; did you mean apiVersion apps/v1?"
    );
    assert_eq!(
        refused("{apiVersion: batch/v1beta1, kind: CronJob}"),
        "pod.yaml: document 1: apiVersion: unknown version batch/v1beta1: CronJob is batch/v1"
    );
    assert_eq!(
        refused("{apiVersion: extensions/v1beta1, kind: Deployment}"),
        "pod.yaml: document 1: apiVersion: no longer served: Deployment is apps/v1"
    );
    assert_eq!(kinds("{apiVersion: example.com/v1, kind: Deployment}"), ["Deployment"]);
    assert_eq!(kinds("{apiVersion: v1, kind: ConfigMap}"), ["ConfigMap"]);
}

#[test]
fn a_misspelt_field_is_named_with_file_document_and_field() {
    let text = "{apiVersion: v1, kind: Pod}\n---\n{apiVersion: v1, kind: Pod, spec: {containers: [{name: m, imagePulPolicy: Never}]}}";
    let objects = objects(text).expect("readable");
    let mut manifests = Manifests::new(Validate::Strict);
    let error = manifests.check(objects.last().expect("two")).expect_err("refused").to_string();
    assert!(
        error
            .ends_with(": document 2: spec.containers[0].imagePulPolicy: unknown field; did you mean imagePullPolicy?"),
        "{error}"
    );
    let mut manifests = Manifests::new(Validate::Warn);
    assert_eq!(manifests.check(objects.last().expect("two")), Ok(Checked::Pod));
    assert_eq!(manifests.warnings.len(), 1);
}
