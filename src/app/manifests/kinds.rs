//! Which kinds there are: a kind that is misspelt would otherwise be one that is not judged.
//!
//! Enters: group, version and kind of an object. Leaves: an error, if that cannot be what was meant.

use super::near::nearest;

/// The kinds of the API groups in which those are that are judged or read, with their version.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "",
        "v1",
        &[
            "Binding",
            "ComponentStatus",
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
    ("apps", "v1", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("batch", "v1", &["CronJob", "Job"]),
    ("pullguard.dev", "v1alpha1", &["NodeImagePolicy", "PullFailure"]),
];

/// Groups that no longer hold the kinds that they once held.
const FORMER_GROUPS: &[&str] = &["extensions"];

/// # Errors
/// The field that is wrong, and how.
pub(super) fn check(group: &str, version: &str, kind: &str) -> Result<(), (&'static str, String)> {
    let item = kind.strip_suffix("List").unwrap_or(kind);
    let home = KINDS.iter().find(|(_, _, kinds)| kinds.contains(&item));
    let Some((_, served, kinds)) = KINDS.iter().find(|(name, _, _)| *name == group) else {
        return match home {
            Some((home, served, _)) if FORMER_GROUPS.contains(&group) => {
                Err(("apiVersion", format!("no longer served: {kind} is {}", api_version(home, served))))
            }
            Some(_) | None => Ok(()),
        };
    };
    if item.is_empty() && group.is_empty() && version == "v1" {
        return Ok(());
    }
    if !kinds.contains(&item) {
        let meant = match home {
            Some((home, served, _)) => format!("; did you mean apiVersion {}?", api_version(home, served)),
            None => {
                nearest(kind, kinds.iter().copied()).map_or(String::new(), |near| format!("; did you mean {near}?"))
            }
        };
        return Err(("kind", format!("unknown kind {kind} in {}{meant}", api_version(group, version))));
    }
    if version != *served {
        let right = api_version(group, served);
        return Err(("apiVersion", format!("unknown version {}: {kind} is {right}", api_version(group, version))));
    }
    Ok(())
}

/// Whether `<item>List` is a list of objects, and `List` itself.
pub(super) fn is_list(group: &str, item: &str) -> bool {
    if item.is_empty() {
        return group.is_empty();
    }
    KINDS.iter().any(|(name, _, kinds)| *name == group && kinds.contains(&item))
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
