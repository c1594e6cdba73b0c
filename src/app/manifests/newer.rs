//! What later versions of Kubernetes have beyond the one that our types are made of.
//!
//! The types are those of Kubernetes 1.33, the oldest cluster served, but manifests and `kubectl get -o yaml` come from
//! any: these fields are known though not read. Made by comparing the types of k8s-openapi for 1.33 with those for 1.34 to
//! 1.37; to be made again when the feature in `Cargo.toml` is raised or a new version is to be served.

/// Fields by the name of their type.
const NEWER_FIELDS: &[(&str, &[&str])] = &[
    ("ClusterTrustBundleProjection", &["user"]),
    ("ConfigMapVolumeSource", &["defaultUser"]),
    ("Container", &["restartPolicyRules"]),
    ("DownwardAPIVolumeFile", &["user"]),
    ("DownwardAPIVolumeSource", &["defaultUser"]),
    ("EmptyDirVolumeSource", &["mode"]),
    ("EnvVarSource", &["fileKeyRef"]),
    ("EphemeralContainer", &["restartPolicyRules"]),
    ("GRPCAction", &["mode"]),
    ("HTTPGetAction", &["protocol"]),
    ("JobSpec", &["scheduling"]),
    ("KeyToPath", &["user"]),
    ("ListMeta", &["shardInfo"]),
    ("NodeSpec", &["podPreemptionPolicy"]),
    ("NodeStatus", &["declaredFeatures"]),
    ("NodeSystemInfo", &["runningInUserNamespace"]),
    ("PersistentVolumeClaimStatus", &["healthStatus"]),
    ("PodSpec", &["evictionResponders", "hostnameOverride", "schedulingGroup", "workloadRef"]),
    (
        "PodStatus",
        &[
            "allocatedResources",
            "extendedResourceClaimStatus",
            "nodeAllocatableResourceClaimStatuses",
            "resources",
            "volumeHealth",
        ],
    ),
    ("ProjectedVolumeSource", &["defaultUser"]),
    ("ResourceHealth", &["message"]),
    ("SecretVolumeSource", &["defaultUser"]),
    ("ServiceAccountTokenProjection", &["user"]),
    ("VolumeMount", &["bindMountOptions"]),
    ("VolumeMountStatus", &["volumeStatus"]),
    ("VolumeProjection", &["podCertificate"]),
];

pub(super) fn is_newer(type_name: &str, field: &str) -> bool {
    NEWER_FIELDS.iter().any(|(name, fields)| *name == type_name && fields.contains(&field))
}
