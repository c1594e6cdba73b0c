//! Whether the cluster's definitions are those of this version.
//!
//! Enters: what the types generate, and what is installed. Leaves: a line for each. An older schema does not refuse a newer
//! field, it drops it in silence: a policy would be weaker than its author thinks.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::ResourceExt;
use serde_json::Value;

use super::line::{Line, Seen};

const CHECK: &str = "definitions";
const APPLY: &str = "Apply what pullguard crds prints: pullguard crds | kubectl apply --server-side -f -";

pub(super) fn examine(found: &Seen<Vec<CustomResourceDefinition>>, lines: &mut Vec<Line>) {
    match found {
        Err(gap) => lines.push(gap.line(CHECK)),
        Ok(found) => {
            let installed = |name: &str| found.iter().find(|definition| definition.name_any() == name);
            let generated = crate::k8s::crd::definitions();
            lines.extend(generated.iter().map(|definition| judge(definition, installed(&definition.name_any()))));
        }
    }
}

fn judge(generated: &CustomResourceDefinition, found: Option<&CustomResourceDefinition>) -> Line {
    let kind = &generated.spec.names.kind;
    let Some(found) = found else {
        return Line::fail(CHECK, format!("{kind} is not installed"), APPLY);
    };
    let established = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if !established.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
        return Line::fail(
            CHECK,
            format!("{kind} is installed, but not served"),
            "See the conditions of the definition.",
        );
    }
    for version in &generated.spec.versions {
        let Some(installed) = found.spec.versions.iter().find(|one| one.name == version.name && one.served) else {
            return Line::fail(CHECK, format!("{kind} is not served as {}", version.name), APPLY);
        };
        if plain(version) != plain(installed) {
            let message = format!(
                "{kind} is installed as another version of Pullguard has it: fields that it lacks are dropped in silence"
            );
            return Line::warn(CHECK, message, APPLY);
        }
    }
    Line::ok(CHECK, format!("{kind} is installed as in this version"))
}

/// Without what the API server adds or leaves out.
fn plain(version: &CustomResourceDefinitionVersion) -> Value {
    let mut value = serde_json::to_value(version).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::line::Status;
    use crate::k8s::crd::definitions;
    use serde_json::json;

    fn installed() -> CustomResourceDefinition {
        let [mut definition, _] = definitions();
        let status = json!({"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1alpha1"]});
        definition.status = serde_json::from_value(status).expect("a status");
        definition
    }

    #[test]
    fn an_installed_definition_is_compared_with_the_generated_one() {
        let [generated, _] = definitions();
        assert_eq!(judge(&generated, Some(&installed())).status, Status::Ok);
        assert_eq!(judge(&generated, None).status, Status::Fail);
        assert_eq!(judge(&generated, Some(&generated)).status, Status::Fail, "not established");
        let mut older = installed();
        for version in &mut older.spec.versions {
            version.additional_printer_columns = None;
        }
        assert_eq!(judge(&generated, Some(&older)).status, Status::Warn);
        let mut unserved = installed();
        unserved.spec.versions.iter_mut().for_each(|version| version.served = false);
        assert_eq!(judge(&generated, Some(&unserved)).status, Status::Fail);
    }

    #[test]
    fn a_definition_that_went_through_an_api_server_is_the_same() {
        // As the API server gives it back: what is empty is left out, and a default is filled in.
        let [generated, _] = definitions();
        let mut value = serde_json::to_value(installed()).expect("json");
        value["spec"]["conversion"] = json!({"strategy": "None"});
        prune(&mut value);
        let found: CustomResourceDefinition = serde_json::from_value(value).expect("a definition");
        assert_eq!(judge(&generated, Some(&found)).status, Status::Ok);
    }
}
