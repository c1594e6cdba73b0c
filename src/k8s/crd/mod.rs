//! The custom resources, from which `pullguard crds` prints the definitions that `manifests/` holds.

pub mod failure;
mod pattern;
pub mod policy;
mod span;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
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
    let mut definitions = [NodeImagePolicy::crd(), failure];
    for definition in &mut definitions {
        for version in &mut definition.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                use_known_formats(schema);
            }
        }
    }
    definitions
}

/// The API server warns of formats that only Rust has; the minimum of 0 stays.
fn use_known_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("uint32") {
        schema.format = Some("int64".to_owned());
    }
    schema.properties.iter_mut().flatten().for_each(|(_, property)| use_known_formats(property));
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => use_known_formats(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(use_known_formats),
        None => {}
    }
}
