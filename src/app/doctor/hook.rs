//! A webhook of ours, validating or mutating, as the API server is told of it.
//!
//! Enters: webhook configurations. Leaves: what the checks ask of each webhook.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::core::selector::{Labels, Operator, Requirement, Selector};

/// As we install them.
pub(super) const NAMES: [&str; 3] = ["pods.pullguard.dev", "templates.pullguard.dev", "cronjobs.pullguard.dev"];
/// What ends the name of every webhook of ours.
const DOMAIN: &str = ".pullguard.dev";
/// The API's own default.
const DEFAULT_TIMEOUT: i32 = 10;
const DEFAULT_PORT: i32 = 443;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hook {
    pub webhook: ValidatingWebhook,
    pub mutating: bool,
}

impl Hook {
    pub fn name(&self) -> &str {
        &self.webhook.name
    }

    /// If nobody answers, the request fails. The API's own default.
    pub fn fails_closed(&self) -> bool {
        self.webhook.failure_policy.as_deref() != Some("Ignore")
    }

    pub fn timeout(&self) -> i32 {
        self.webhook.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT)
    }

    pub fn rules(&self) -> impl Iterator<Item = &RuleWithOperations> {
        self.webhook.rules.iter().flatten()
    }

    /// Whether it is called for what is in a namespace with these labels; a selector that cannot be read matches.
    pub fn is_called_in(&self, labels: &Labels) -> bool {
        let namespaces = self.webhook.namespace_selector.as_ref();
        namespaces.is_none_or(|namespaces| selector(namespaces).is_none_or(|selector| selector.matches(labels)))
    }

    pub fn ca_bundle(&self) -> &[u8] {
        self.webhook.client_config.ca_bundle.as_ref().map_or(&[], |bundle| &bundle.0)
    }

    pub fn service(&self) -> Option<&ServiceReference> {
        self.webhook.client_config.service.as_ref()
    }

    pub fn port(&self) -> i32 {
        self.service().and_then(|service| service.port).unwrap_or(DEFAULT_PORT)
    }

    /// Where our server answers it.
    pub fn right_path(&self) -> &'static str {
        if self.mutating { "/mutate" } else { "/validate" }
    }
}

/// Our webhooks among those of some configurations.
pub(super) fn hooks<'a>(
    validating: impl IntoIterator<Item = &'a ValidatingWebhookConfiguration>,
    mutating: impl IntoIterator<Item = &'a MutatingWebhookConfiguration>,
) -> Vec<Hook> {
    let validating = validating.into_iter().flat_map(|configuration| configuration.webhooks.iter().flatten());
    let mutating = mutating.into_iter().flat_map(|configuration| configuration.webhooks.iter().flatten());
    let validating = validating.map(|webhook| Hook { webhook: webhook.clone(), mutating: false });
    let mutating = mutating.map(|webhook| Hook { webhook: common(webhook), mutating: true });
    validating.chain(mutating).filter(|hook| hook.name().ends_with(DOMAIN)).collect()
}

/// What both kinds have.
fn common(webhook: &MutatingWebhook) -> ValidatingWebhook {
    let webhook = webhook.clone();
    ValidatingWebhook {
        admission_review_versions: webhook.admission_review_versions,
        client_config: webhook.client_config,
        failure_policy: webhook.failure_policy,
        match_conditions: webhook.match_conditions,
        match_policy: webhook.match_policy,
        name: webhook.name,
        namespace_selector: webhook.namespace_selector,
        object_selector: webhook.object_selector,
        rules: webhook.rules,
        side_effects: webhook.side_effects,
        timeout_seconds: webhook.timeout_seconds,
    }
}

/// The names of some of them, for a sentence.
pub(super) fn names<'a>(hooks: impl IntoIterator<Item = &'a Hook>) -> String {
    let names: Vec<&str> = hooks.into_iter().map(Hook::name).collect();
    names.join(", ")
}

/// A selector of the API; `None`: it cannot be read.
pub(super) fn selector(selector: &LabelSelector) -> Option<Selector> {
    let labels = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| Some(Requirement { key: key.clone(), operator: Operator::In([value.clone()].into()) }));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.iter().flatten().cloned().collect();
        let operator = match expression.operator.as_str() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        Some(Requirement { key: expression.key.clone(), operator })
    });
    Some(Selector::new(labels.chain(expressions).collect::<Option<Vec<_>>>()?))
}

/// Whether a selector of pods selects these labels: one that is empty selects nothing here, as with a Service.
pub(super) fn selects(chosen: Option<&LabelSelector>, labels: &Labels) -> bool {
    chosen.and_then(selector).is_some_and(|selector| !selector.is_empty() && selector.matches(labels))
}
