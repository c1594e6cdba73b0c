//! The Secret, its expiry, and whether the API server trusts what is served.
//!
//! Enters: the Secret and the webhooks' `caBundle`s. Leaves: lines. Trust is tried as the API server does it: by a
//! verification of the chain for the Service's name at this time, not by a comparison of texts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::scene::Scene;
use super::webhooks::hooks;
use super::Line;
use crate::shell::certificates::{Keyring, SECRET, SERVICE, Validity};
use crate::shell::tls::Serving;

const CERTIFICATE: &str = "certificate";
const EXPIRY: &str = "certificate expiry";
const TRUST: &str = "certificate trust";
const ROTATE: &str = "Run pullguard certs --rotate, or see cert-manager's Certificate where that writes it.";
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) fn examine(scene: &Scene, lines: &mut Vec<Line>) {
    let secret = match &scene.secret {
        Err(why) => return lines.push(Line::unread(CERTIFICATE, why)),
        Ok(None) => {
            let message = format!("there is no Secret {SECRET} in namespace {}", scene.namespace);
            return lines.push(Line::fail(CERTIFICATE, message, "A running replica makes it: see its log. Or run pullguard certs."));
        }
        Ok(Some(secret)) => secret,
    };
    let data: BTreeMap<String, Vec<u8>> =
        secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    let keyring = Keyring::from_secret(&data);
    lines.push(usable(&keyring));
    expiry("the serving certificate", &keyring.certificate, scene.now, lines);
    if !keyring.ca.is_empty() {
        expiry("the CA", &keyring.ca, scene.now, lines);
    }
    let (validating, mutating) = (scene.validating.as_ref().ok(), scene.mutating.as_ref().ok());
    for hook in hooks(validating.and_then(Option::as_ref), mutating.and_then(Option::as_ref)) {
        lines.push(trusted(&hook.name, &hook.ca_bundle, &keyring, &scene.namespace, scene.now));
    }
}

fn usable(keyring: &Keyring) -> Line {
    match Serving::default().set(&keyring.certificate, &keyring.key) {
        Ok(()) => Line::ok(CERTIFICATE, format!("the Secret {SECRET} holds a certificate with its key")),
        Err(error) => Line::fail(CERTIFICATE, format!("the Secret {SECRET} cannot be served: {error}"), ROTATE),
    }
}

fn expiry(what: &str, pem: &str, now: Timestamp, lines: &mut Vec<Line>) {
    let Some(validity) = Validity::of(pem) else {
        return lines.push(Line::fail(EXPIRY, format!("{what} cannot be read"), ROTATE));
    };
    let left = validity.until.duration_since(now);
    let days = left.as_hours() / 24;
    lines.push(if left <= SignedDuration::ZERO {
        Line::fail(EXPIRY, format!("{what} ended at {}", validity.until), ROTATE)
    } else if validity.from > now {
        Line::fail(EXPIRY, format!("{what} begins only at {}", validity.from), "Set the clocks of the nodes right.")
    } else if left < SOON {
        Line::warn(EXPIRY, format!("{what} ends in {days} days, at {}: it should have been renewed", validity.until), ROTATE)
    } else {
        Line::ok(EXPIRY, format!("{what} holds for {days} days more, until {}", validity.until))
    });
}

fn trusted(hook: &str, bundle: &[u8], keyring: &Keyring, namespace: &str, now: Timestamp) -> Line {
    let remedy = "A running replica writes the caBundle within a minute: see its log for why it does not.";
    if bundle.is_empty() {
        return Line::fail(TRUST, format!("webhook {hook} has no caBundle: the API server trusts nobody to answer it"), remedy);
    }
    match verify(bundle, &keyring.certificate, namespace, now) {
        Ok(()) if !keyring.ca.is_empty() && !contains(bundle, &keyring.ca) => Line::warn(
            TRUST,
            format!("webhook {hook} trusts the certificate, but not the CA of the Secret: it will not trust the next certificate"),
            remedy,
        ),
        Ok(()) => Line::ok(TRUST, format!("webhook {hook} trusts the certificate")),
        Err(why) => Line::fail(TRUST, format!("webhook {hook} does not trust the certificate: {why}"), remedy),
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

fn contains(bundle: &[u8], ca: &str) -> bool {
    let trusted = certificates(bundle);
    certificates(ca.as_bytes()).iter().all(|ca| trusted.contains(ca))
}

fn verify(bundle: &[u8], chain: &str, namespace: &str, now: Timestamp) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(bundle));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| error.to_string())?;
    let chain = certificates(chain.as_bytes());
    let (leaf, intermediates) = chain.split_first().ok_or("there is none")?;
    let name = ServerName::try_from(format!("{SERVICE}.{namespace}.svc")).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_server_cert(leaf, intermediates, &name, &[], now).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::doctor::Status;
    use crate::shell::certificates::Renewal;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    fn after(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 24 * 3600).expect("a time")
    }

    fn keyring() -> Keyring {
        Keyring::default().renewed(Renewal::Authority, "pullguard", now()).expect("certificates")
    }

    fn status(bundle: &str, keyring: &Keyring, namespace: &str, now: Timestamp) -> Status {
        trusted("pods.pullguard.dev", bundle.as_bytes(), keyring, namespace, now).status
    }

    #[test]
    fn trust_is_a_verified_chain_for_the_services_name_at_this_time() {
        let (mine, other) = (keyring(), keyring());
        assert_eq!(status(&mine.ca, &mine, "pullguard", now()), Status::Ok);
        assert_eq!(status(&other.ca, &mine, "pullguard", now()), Status::Fail);
        assert_eq!(status("", &mine, "pullguard", now()), Status::Fail);
        assert_eq!(status(&mine.ca, &mine, "elsewhere", now()), Status::Fail);
        assert_eq!(status(&mine.ca, &mine, "pullguard", after(1000)), Status::Fail);
    }

    #[test]
    fn during_a_rotation_old_and_new_are_trusted() {
        let old = keyring();
        let new = old.renewed(Renewal::Authority, "pullguard", now()).expect("certificates");
        assert_eq!(status(&new.bundle(now()), &new, "pullguard", now()), Status::Ok);
        assert_eq!(status(&new.bundle(now()), &old, "pullguard", now()), Status::Ok);
        let stale = Keyring { certificate: old.certificate.clone(), key: old.key.clone(), ..new };
        assert_eq!(status(&old.ca, &stale, "pullguard", now()), Status::Warn);
    }

    #[test]
    fn a_key_of_another_certificate_cannot_be_served() {
        assert_eq!(usable(&keyring()).status, Status::Ok);
        assert_eq!(usable(&Keyring { key: keyring().key, ..keyring() }).status, Status::Fail);
        assert_eq!(usable(&Keyring::default()).status, Status::Fail);
    }

    #[test]
    fn an_end_that_is_near_warns_and_one_that_is_past_fails() {
        let keyring = keyring();
        for (days, status) in [(0, Status::Ok), (85, Status::Warn), (91, Status::Fail), (-1, Status::Fail)] {
            let mut lines = Vec::new();
            expiry("it", &keyring.certificate, after(days), &mut lines);
            assert_eq!(lines.first().map(|line| line.status), Some(status), "after {days} days");
        }
    }
}
