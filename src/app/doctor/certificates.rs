//! The Secret, its expiry, what the API server trusts, and what the replicas serve.
//!
//! Enters: the Secret's contents, the webhooks' `caBundle`s, and the end of the certificate that each replica serves.
//! Leaves: lines. Trust is tried as the API server does it: by a verification of the chain for the Service's name at this
//! time, not by a comparison of texts.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::hook::Hook;
use super::line::{Gap, Line, Seen};
use crate::app::replicas::Replica;
use crate::shell::certificates::{Keyring, SECRET, SERVICE, Validity};
use crate::shell::tls::Serving;

const CERTIFICATE: &str = "certificate";
const EXPIRY: &str = "certificate expiry";
const TRUST: &str = "certificate trust";
const SERVED: &str = "certificate served";
const ROTATE: &str = "Run pullguard certs rotate; where cert-manager writes the Secret, see its Certificate.";
const FOLLOW: &str = "A running replica writes the caBundle within a minute: see its log for why it does not.";
const DAY: i64 = 24;
/// Both are renewed in their last third, which is longer.
const SOON: SignedDuration = SignedDuration::from_hours(7 * DAY);

pub(super) fn examine(
    secret: &Seen<Keyring>,
    hooks: &[Hook],
    replicas: &Seen<Vec<Replica>>,
    namespace: &str,
    now: Timestamp,
    lines: &mut Vec<Line>,
) {
    let keyring = match secret {
        Err(gap) => return lines.push(gap.line(CERTIFICATE)),
        Ok(keyring) => keyring,
    };
    lines.push(usable(keyring));
    lines.push(expiry("serving certificate", &keyring.certificate, now));
    if !keyring.ca.is_empty() {
        lines.push(expiry("CA", &keyring.ca, now));
    }
    lines.extend(hooks.iter().map(|hook| trusted(hook.name(), hook.ca_bundle(), keyring, namespace, now)));
    lines.push(match replicas {
        Err(gap) => gap.line(SERVED),
        Ok(replicas) => served(replicas, keyring, now),
    });
}

fn usable(keyring: &Keyring) -> Line {
    match Serving::default().set(&keyring.certificate, &keyring.key) {
        Ok(()) => Line::ok(CERTIFICATE, format!("the Secret {SECRET} holds a certificate with its key")),
        Err(error) => Line::fail(CERTIFICATE, format!("the Secret {SECRET} cannot be served: {error}"), ROTATE),
    }
}

fn expiry(what: &str, pem: &str, now: Timestamp) -> Line {
    let Some(validity) = Validity::of(pem) else {
        return Line::fail(EXPIRY, format!("the {what} cannot be read"), ROTATE);
    };
    let left = validity.until.duration_since(now);
    let days = left.as_hours() / DAY;
    let until = validity.until;
    if left <= SignedDuration::ZERO {
        Line::fail(EXPIRY, format!("the {what} ended at {until}"), ROTATE)
    } else if validity.from > now {
        Line::fail(EXPIRY, format!("the {what} begins only at {}", validity.from), "Set the clocks right.")
    } else if left < SOON {
        let message = format!("the {what} ends in {days} days, at {until}: it should have been renewed");
        Line::warn(EXPIRY, message, ROTATE)
    } else {
        Line::ok(EXPIRY, format!("the {what} holds for {days} days more, until {until}"))
    }
}

fn trusted(hook: &str, bundle: &[u8], keyring: &Keyring, namespace: &str, now: Timestamp) -> Line {
    if bundle.is_empty() && !keyring.ca.is_empty() {
        return Line::fail(TRUST, format!("{hook} has no caBundle: the API server trusts nobody to answer it"), FOLLOW);
    }
    if bundle.is_empty() {
        return Line::ok(
            TRUST,
            format!("{hook} has no caBundle, nor the Secret a CA: the API server's own roots decide"),
        );
    }
    if let Err(why) = verify(bundle, &keyring.certificate, namespace, now) {
        let message = format!("the caBundle of {hook} does not trust the Secret's certificate: {why}");
        return Line::fail(TRUST, message, FOLLOW);
    }
    if !contains(bundle, &keyring.ca) {
        let message = format!(
            "the caBundle of {hook} trusts the certificate, but lacks the Secret's CA: the next certificate will not be trusted"
        );
        return Line::warn(TRUST, message, FOLLOW);
    }
    let overlaps = Validity::of(&keyring.previous_ca).is_some_and(|former| former.until > now);
    if overlaps && !contains(bundle, &keyring.previous_ca) {
        let message = format!(
            "the caBundle of {hook} lacks the CA before the last rotation: a replica that serves its certificate still is not trusted"
        );
        return Line::warn(TRUST, message, FOLLOW);
    }
    let and = if overlaps { ", and the CA before it" } else { "" };
    Line::ok(TRUST, format!("the caBundle of {hook} trusts the Secret's certificate{and}"))
}

/// By its end a certificate is known here: no two have the same.
fn served(replicas: &[Replica], keyring: &Keyring, now: Timestamp) -> Line {
    let Some(newest) = Validity::of(&keyring.certificate).map(|validity| validity.until) else {
        return Line::fail(SERVED, "the Secret's certificate cannot be read, so no replica can serve it", ROTATE);
    };
    if replicas.is_empty() {
        return Line::fail(SERVED, "no replica runs, so no certificate is served", "See the replicas' log.");
    }
    let (mut ended, mut other, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for replica in replicas {
        match replica.until {
            None => none.push(replica.pod.as_str()),
            Some(until) if until <= now => ended.push(replica.pod.as_str()),
            Some(until) if until != newest => other.push(replica.pod.as_str()),
            Some(_) => {}
        }
    }
    let remedy = "A replica takes the Secret's certificate up within 70 s: see its log for why it does not.";
    if !ended.is_empty() {
        return Line::fail(SERVED, format!("serving a certificate that has ended: {}", ended.join(", ")), remedy);
    }
    if !none.is_empty() {
        return Line::warn(SERVED, format!("serving no certificate: {}", none.join(", ")), remedy);
    }
    if !other.is_empty() {
        return Line::warn(
            SERVED,
            format!("serving another certificate than the Secret's: {}", other.join(", ")),
            remedy,
        );
    }
    Line::ok(SERVED, format!("the Secret's certificate is what all {} replicas serve", replicas.len()))
}

/// There is no Secret.
pub(super) fn no_secret(namespace: &str) -> Gap {
    Gap::absent(
        format!("there is no Secret {SECRET} in namespace {namespace}"),
        "A running replica makes it: see its log; or apply what pullguard certs make prints.",
    )
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
    let (added, _) = roots.add_parsable_certificates(certificates(bundle));
    if added == 0 {
        return Err("it holds no certificate".to_owned());
    }
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
    use crate::app::doctor::line::Status;
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
        assert_eq!(status("garbage", &mine, "pullguard", now()), Status::Fail);
        assert_eq!(status(&mine.ca, &mine, "elsewhere", now()), Status::Fail);
        assert_eq!(status(&mine.ca, &mine, "pullguard", after(1000)), Status::Fail);
        let public = Keyring { ca: String::new(), ..mine };
        assert_eq!(status("", &public, "pullguard", now()), Status::Ok, "the API server's own roots");
    }

    #[test]
    fn during_a_rotation_old_and_new_must_be_trusted() {
        let old = keyring();
        let new = old.renewed(Renewal::Authority, "pullguard", now()).expect("certificates");
        assert_eq!(status(&new.bundle(now()), &new, "pullguard", now()), Status::Ok);
        assert_eq!(status(&new.bundle(now()), &old, "pullguard", now()), Status::Ok);
        assert_eq!(status(&old.ca, &new, "pullguard", now()), Status::Fail, "the replicas will not be trusted");
        assert_eq!(status(&new.ca, &new, "pullguard", now()), Status::Warn, "the others are not trusted any more");
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
            assert_eq!(expiry("it", &keyring.certificate, after(days)).status, status, "after {days} days");
        }
        assert_eq!(expiry("it", "no certificate", now()).status, Status::Fail);
    }

    #[test]
    fn a_replica_that_serves_another_certificate_than_the_secrets_is_named() {
        let keyring = keyring();
        let until = Validity::of(&keyring.certificate).map(|validity| validity.until);
        let replica = |pod: &str, until| Replica { pod: pod.to_owned(), until };
        for (replicas, status) in [
            (vec![replica("a", until), replica("b", until)], Status::Ok),
            (vec![replica("a", until), replica("b", Some(after(3)))], Status::Warn),
            (vec![replica("a", until), replica("b", None)], Status::Warn),
            (vec![replica("a", until), replica("b", Some(after(-3)))], Status::Fail),
            (vec![], Status::Fail),
        ] {
            let line = served(&replicas, &keyring, now());
            assert_eq!(line.status, status, "{line:?}");
            assert!(status == Status::Ok || replicas.is_empty() || line.message.ends_with(": b"), "{}", line.message);
        }
    }
}
