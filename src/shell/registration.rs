//! Keeps the webhook configurations and the Secret of the certificates as they should be.
//!
//! Enters: the keyring, and whether a policy asks for a rescue. Leaves: patches, only where something differs. Every
//! replica does it: the writes are fenced, and the same from all of them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::certificates::{CertificateError, Keyring, Renewal, SECRET, first_valid, with_former};
use super::tls::{Serving, TlsError};

/// The name of both webhook configurations.
pub const CONFIGURATION: &str = "pullguard";
/// The webhook whose exemptions the mutating one shares.
const PODS_WEBHOOK: &str = "pods.pullguard.dev";

#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the secret {SECRET} holds no certificate yet: cert-manager writes it")]
    NoCertificate,
    #[error("the secret {SECRET} was written by somebody else (it holds no key of its CA): rotate it there")]
    Foreign,
    #[error("the secret {SECRET} was changed by others each time: try again")]
    Raced,
}

/// Until every API server has seen a new `caBundle`: they watch it, so mostly it takes milliseconds.
const SETTLE: Duration = Duration::from_secs(10);

/// Whether there is a webhook configuration to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Yes,
    NotYet,
}

/// What became of the `caBundle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// There is no configuration that could hold one.
    Nowhere,
    /// It was as it should be.
    Kept,
    /// There was none: nobody could be asked before.
    First,
    /// Others were trusted before.
    Changed,
}

impl From<Trust> for Registered {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::Nowhere => Self::NotYet,
            Trust::Kept | Trust::First | Trust::Changed => Self::Yes,
        }
    }
}

/// Whether a certificate has to wait before it is served, so that whoever asks trusts it by then.
///
/// `another`: one is served already, and by the overlap it is trusted still.
const fn must_settle(trust: Trust, another: bool) -> bool {
    match trust {
        Trust::Changed => true,
        // Another replica may have written it a moment ago.
        Trust::Kept => another,
        Trust::First | Trust::Nowhere => false,
    }
}

/// Who makes the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CertificateSource {
    /// Pullguard itself.
    Managed,
    /// Somebody else, such as cert-manager: Pullguard reads the Secret.
    External,
}

pub struct Registration {
    pub client: Client,
    pub namespace: String,
    pub source: CertificateSource,
    pub serving: Arc<Serving>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("namespace", &self.namespace).field("source", &self.source).finish()
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// How often a write is tried that another's came before.
const TRIES: usize = 3;

/// What a Secret holds; without one, nothing.
pub fn contents(secret: Option<&Secret>) -> Keyring {
    let data = secret.iter().flat_map(|secret| secret.data.iter().flatten());
    Keyring::from_secret(&data.map(|(key, value)| (key.clone(), value.0.clone())).collect())
}

/// False: somebody else was faster.
async fn write(secrets: &Api<Secret>, found: Option<Secret>, keyring: &Keyring) -> Result<bool, kube::Error> {
    let secret = secret(found.as_ref().map(|secret| secret.metadata.clone()).unwrap_or_else(metadata), keyring);
    let written = match found {
        Some(_) => secrets.replace(SECRET, &PostParams::default(), &secret).await,
        None => secrets.create(&PostParams::default(), &secret).await,
    };
    match written {
        Ok(_) => Ok(true),
        Err(error) if is(&error, 409) => Ok(false),
        Err(error) => Err(error),
    }
}

fn metadata() -> ObjectMeta {
    ObjectMeta {
        name: Some(SECRET.to_owned()),
        labels: Some([("app.kubernetes.io/name".to_owned(), "pullguard".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn secret(metadata: ObjectMeta, keyring: &Keyring) -> Secret {
    Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(keyring.to_secret()),
        ..Secret::default()
    }
}

/// The Secret of a new installation, to be applied before it.
pub fn manifest(keyring: &Keyring, namespace: &str) -> Secret {
    secret(ObjectMeta { namespace: Some(namespace.to_owned()), ..metadata() }, keyring)
}

impl Registration {
    /// One round: certificate, `caBundle`, the mutating webhook where a policy asks for a rescue, and what is served. `None`: it
    /// is not known whether one asks.
    ///
    /// Trust comes first: a certificate that is served before the API servers trust its CA fails every review until they do.
    ///
    /// # Errors
    /// What could not be done; the next round tries again.
    pub async fn round(&self, rescue_wanted: Option<bool>) -> Result<Registered, RegistrationError> {
        let now = Timestamp::now();
        let keyring = self.keyring(now).await?;
        let trust = self.trust(&keyring, rescue_wanted, now).await;
        let another = self.serving.is_set();
        if !self.serving.serves(&keyring.certificate) {
            match &trust {
                Ok(trust) if must_settle(*trust, another) => {
                    tracing::info!(seconds = SETTLE.as_secs(), "certificate waits until it is trusted everywhere");
                    tokio::time::sleep(SETTLE).await;
                }
                Ok(_) => {}
                // What is served is trusted still. A replica that serves nothing yet can only hope.
                Err(_) if another => return trust.map(Registered::from),
                Err(_) => {}
            }
        }
        self.serving.set(&keyring.certificate, &keyring.key)?;
        trust.map(Registered::from)
    }

    /// A new CA and a new certificate in the Secret, the old CA beside them. The replicas follow by their own rounds.
    ///
    /// # Errors
    /// The Secret cannot be written, or is not ours.
    pub async fn rotate(&self, now: Timestamp) -> Result<Keyring, RegistrationError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for _ in 0..TRIES {
            let found = secrets.get_opt(SECRET).await?;
            let keyring = contents(found.as_ref());
            if !keyring.is_ours() {
                return Err(RegistrationError::Foreign);
            }
            let renewed = keyring.renewed(Renewal::Authority, &self.namespace, now)?;
            if write(&secrets, found, &renewed).await? {
                return Ok(renewed);
            }
        }
        Err(RegistrationError::Raced)
    }

    async fn keyring(&self, now: Timestamp) -> Result<Keyring, RegistrationError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        // A second round settles a race of two replicas: the one that lost reads what the other has written.
        for _ in 0..TRIES {
            let found = secrets.get_opt(SECRET).await?;
            let mut keyring = contents(found.as_ref());
            if self.source == CertificateSource::External {
                let complete = !keyring.certificate.is_empty() && !keyring.key.is_empty();
                return if complete { Ok(keyring) } else { Err(RegistrationError::NoCertificate) };
            }
            let renewal = keyring.renewal(now);
            if renewal == Renewal::Keep {
                return Ok(keyring);
            }
            // Somebody has deleted the Secret: what it held is served still, and the next CA comes beside the old one.
            if keyring.ca.is_empty() {
                keyring.ca = self.trusted(now).await?.unwrap_or_default();
            }
            let renewed = keyring.renewed(renewal, &self.namespace, now)?;
            tracing::info!(renewal = ?renewal, "certificate renewed");
            if write(&secrets, found, &renewed).await? {
                return Ok(renewed);
            }
        }
        Err(RegistrationError::Raced)
    }

    /// The CA that API servers trust by the webhook configuration.
    async fn trusted(&self, now: Timestamp) -> Result<Option<String>, RegistrationError> {
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let Some(found) = configurations.get_opt(CONFIGURATION).await? else { return Ok(None) };
        let bundle = found.webhooks.iter().flatten().find_map(|webhook| webhook.client_config.ca_bundle.as_ref());
        Ok(bundle.and_then(|bundle| first_valid(&bundle.0, now)))
    }

    async fn trust(
        &self,
        keyring: &Keyring,
        rescue_wanted: Option<bool>,
        now: Timestamp,
    ) -> Result<Trust, RegistrationError> {
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let Some(found) = configurations.get_opt(CONFIGURATION).await? else { return Ok(Trust::Nowhere) };
        let present = |webhook: &ValidatingWebhook| webhook.client_config.ca_bundle.clone().unwrap_or_default();
        let webhooks = || found.webhooks.iter().flatten();
        let bundle = match self.source {
            CertificateSource::Managed => keyring.bundle(now),
            // Without a CA the API server's own roots are meant: nothing may stand beside them.
            CertificateSource::External if keyring.ca.is_empty() => String::new(),
            // Whoever writes it keeps no CA but the last.
            CertificateSource::External => {
                webhooks().fold(keyring.bundle(now), |bundle, webhook| with_former(&bundle, &present(webhook).0, now))
            }
        };
        let bundle = ByteString(bundle.into_bytes());
        let stale = || webhooks().filter(|webhook| present(webhook) != bundle);
        let trust = match (stale().next().is_some(), stale().all(|webhook| present(webhook).0.is_empty())) {
            (false, _) => Trust::Kept,
            (true, true) => Trust::First,
            (true, false) => Trust::Changed,
        };
        let patches: Vec<_> =
            stale().map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
        let found = if patches.is_empty() {
            found
        } else {
            let count = patches.len();
            let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": patches});
            let patched =
                configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            tracing::info!(webhooks = count, "caBundle written");
            patched
        };
        self.mutating(&found, bundle, rescue_wanted).await?;
        Ok(trust)
    }

    async fn mutating(
        &self,
        validating: &ValidatingWebhookConfiguration,
        bundle: ByteString,
        wanted: Option<bool>,
    ) -> Result<(), RegistrationError> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = configurations.get_opt(CONFIGURATION).await?;
        match mutating(found.as_ref(), validating, bundle, wanted) {
            Step::Leave => {}
            Step::Remove => {
                configurations.delete(CONFIGURATION, &DeleteParams::default()).await?;
                tracing::info!("mutating webhook removed");
            }
            Step::Change(patch) => {
                configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::Merge(patch)).await?;
                tracing::info!("mutating webhook changed");
            }
            Step::Create(configuration) => {
                match configurations.create(&PostParams::default(), &configuration).await {
                    Err(error) if !is(&error, 409) => return Err(error.into()),
                    Ok(_) | Err(_) => {}
                }
                tracing::info!("mutating webhook registered");
            }
        }
        Ok(())
    }
}

/// What is to be done with the mutating configuration.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Leave,
    Remove,
    /// By a merge patch.
    Change(Value),
    Create(Box<MutatingWebhookConfiguration>),
}

/// The mutating webhook has the exemptions of the validating one, whatever an operator made of them, and goes with it.
/// While it is not known whether it is `wanted`, it only keeps being trusted.
fn mutating(
    found: Option<&MutatingWebhookConfiguration>,
    validating: &ValidatingWebhookConfiguration,
    bundle: ByteString,
    wanted: Option<bool>,
) -> Step {
    let source = validating.webhooks.iter().flatten().find(|webhook| webhook.name == PODS_WEBHOOK);
    let webhooks = match (wanted, found, source) {
        (None, None, _) | (Some(false), None, _) | (Some(true), None, None) => return Step::Leave,
        (Some(false), Some(_), _) | (Some(true), Some(_), None) => return Step::Remove,
        (None, Some(found), _) => {
            let trusting = found.webhooks.iter().flatten().cloned().map(|mut webhook| {
                webhook.client_config.ca_bundle = Some(bundle.clone());
                webhook
            });
            trusting.collect()
        }
        (Some(true), _, Some(source)) => vec![rescuing(source, bundle)],
    };
    match found {
        Some(found) if found.webhooks.as_deref().unwrap_or_default() == webhooks => Step::Leave,
        // Fenced: a list is replaced as a whole.
        Some(found) => Step::Change(json!({
            "metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": webhooks
        })),
        None => Step::Create(Box::new(configuration(validating, webhooks))),
    }
}

fn rescuing(source: &ValidatingWebhook, bundle: ByteString) -> MutatingWebhook {
    let mut client_config = source.client_config.clone();
    client_config.ca_bundle = Some(bundle);
    if let Some(service) = &mut client_config.service {
        service.path = Some("/mutate".to_owned());
    }
    let mut rules = source.rules.clone().unwrap_or_default();
    for rule in &mut rules {
        // Where a pod goes can be said at its creation only.
        rule.operations = Some(vec!["CREATE".to_owned()]);
    }
    rules.retain(|rule| rule.resources.iter().flatten().any(|resource| resource == "pods"));
    MutatingWebhook {
        name: "rescue.pullguard.dev".to_owned(),
        admission_review_versions: source.admission_review_versions.clone(),
        client_config,
        failure_policy: Some("Ignore".to_owned()),
        match_conditions: source.match_conditions.clone(),
        match_policy: source.match_policy.clone(),
        namespace_selector: source.namespace_selector.clone(),
        object_selector: source.object_selector.clone(),
        reinvocation_policy: Some("IfNeeded".to_owned()),
        rules: Some(rules),
        // A rescue is told of in an Event.
        side_effects: "NoneOnDryRun".to_owned(),
        timeout_seconds: source.timeout_seconds,
    }
}

fn configuration(
    validating: &ValidatingWebhookConfiguration,
    webhooks: Vec<MutatingWebhook>,
) -> MutatingWebhookConfiguration {
    let owner = OwnerReference {
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: "ValidatingWebhookConfiguration".to_owned(),
        name: CONFIGURATION.to_owned(),
        uid: validating.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(CONFIGURATION.to_owned()),
        labels: Some([("app.kubernetes.io/name".to_owned(), "pullguard".to_owned())].into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    MutatingWebhookConfiguration { metadata, webhooks: Some(webhooks) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validating() -> ValidatingWebhookConfiguration {
        serde_json::from_value(json!({"metadata": {"name": CONFIGURATION, "uid": "v"}, "webhooks": [{
            "name": PODS_WEBHOOK, "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
            "clientConfig": {"service": {"name": "pullguard", "namespace": "pullguard", "path": "/validate"}},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["pods"]},
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"]},
            ],
        }]}))
        .expect("a configuration")
    }

    fn bundle(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    fn registered() -> MutatingWebhookConfiguration {
        match mutating(None, &validating(), bundle("old"), Some(true)) {
            Step::Create(configuration) => *configuration,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_there_while_a_policy_asks_for_it() {
        let found = registered();
        let webhook = found.webhooks.as_ref().expect("webhooks").first().expect("one");
        assert_eq!(webhook.client_config.service.as_ref().and_then(|service| service.path.as_deref()), Some("/mutate"));
        assert_eq!(webhook.rules.as_ref().map(Vec::len), Some(1), "ephemeral containers go nowhere");
        assert_eq!(mutating(Some(&found), &validating(), bundle("old"), Some(true)), Step::Leave);
        assert_eq!(mutating(Some(&found), &validating(), bundle("old"), Some(false)), Step::Remove);
        assert_eq!(mutating(None, &validating(), bundle("old"), Some(false)), Step::Leave);
    }

    #[test]
    fn a_replica_that_has_not_listed_the_policies_takes_nothing_away_and_adds_nothing() {
        let found = registered();
        assert_eq!(mutating(Some(&found), &validating(), bundle("old"), None), Step::Leave);
        assert_eq!(mutating(None, &validating(), bundle("old"), None), Step::Leave);
    }

    #[test]
    fn but_it_keeps_the_api_servers_trust() {
        let Step::Change(patch) = mutating(Some(&registered()), &validating(), bundle("new"), None) else {
            panic!("no change")
        };
        assert_eq!(patch.pointer("/webhooks/0/clientConfig/caBundle"), Some(&json!(bundle("new"))));
        assert_eq!(patch.pointer("/webhooks/0/name"), Some(&json!("rescue.pullguard.dev")));
    }

    #[test]
    fn a_certificate_waits_until_whoever_asks_trusts_it() {
        assert!(must_settle(Trust::Changed, true), "a rotation that this replica sees first");
        assert!(must_settle(Trust::Kept, true), "one that another replica saw first");
        assert!(must_settle(Trust::Changed, false), "a replica that starts in the middle of one");
        assert!(!must_settle(Trust::Kept, false), "any other start");
        assert!(!must_settle(Trust::First, false), "an installation");
    }
}
