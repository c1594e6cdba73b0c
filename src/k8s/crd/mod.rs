//! The custom resources, from which `pullguard crds` prints the definitions that `manifests/` holds.

pub mod failure;
pub mod policy;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use failure::{PullFailure, PullFailureSpec, PullFailureStatus};
pub use policy::{NodeImagePolicy, NodeImagePolicySpec, NodeImagePolicyStatus};

/// The definitions to install.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    let mut failure = PullFailure::crd();
    for version in &mut failure.spec.versions {
        // The derive gives whatever has a status a subresource; here one record is one write.
        version.subresources = None;
    }
    [NodeImagePolicy::crd(), failure]
}
