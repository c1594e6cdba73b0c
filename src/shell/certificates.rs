//! The webhook's own certificates: a CA and a serving certificate, kept in a Secret and renewed in time.
//!
//! Enters: what the Secret holds, and the time. Leaves: what to do, as a value, and new contents. On a change of the CA
//! the old one stays in the bundle until it ends: whoever has read only one of the two still connects.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::pem::Pem;

/// The Secret, in Pullguard's own namespace.
pub const SECRET: &str = "pullguard-webhook-tls";
/// The Service by which the API server calls.
pub const SERVICE: &str = "pullguard";

const DAY: i64 = 24 * 3600;
const LEAF: i64 = 90 * DAY;
const CA: i64 = 2 * 365 * DAY;
/// Clocks of nodes differ: what was made now is valid a little earlier.
const BACKDATE: i64 = 3600;

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("time is out of range: {0}")]
    Time(#[from] time::error::ComponentRange),
    #[error("{field} of the secret is no certificate in PEM")]
    Unreadable { field: &'static str },
}

/// The contents of the Secret, as PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    pub ca: String,
    pub ca_key: String,
    /// The CA before this one, while it is still in the bundle; empty otherwise.
    pub previous_ca: String,
    pub certificate: String,
    pub key: String,
}

/// What to do about the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Keep,
    Leaf,
    Authority,
}

/// From and until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Validity {
    /// Of the first certificate in a PEM text.
    pub fn of(pem: &str) -> Option<Self> {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        Some(Self {
            from: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            until: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        })
    }

    /// In its last third a certificate is renewed: there is time to fail and try again.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let third = self.until.duration_since(self.from) / 3;
        now.duration_since(self.from) < SignedDuration::ZERO || self.until.duration_since(now) < third
    }
}

impl Keyring {
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Self {
        let text =
            |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        Self {
            ca: text("ca.crt"),
            ca_key: text("ca.key"),
            previous_ca: text("ca-previous.crt"),
            certificate: text("tls.crt"),
            key: text("tls.key"),
        }
    }

    pub fn to_secret(&self) -> BTreeMap<String, String> {
        [
            ("ca.crt", &self.ca),
            ("ca.key", &self.ca_key),
            ("ca-previous.crt", &self.previous_ca),
            ("tls.crt", &self.certificate),
            ("tls.key", &self.key),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text.clone()))
        .collect()
    }

    /// What the API server is to trust: this CA, and the one before while it holds.
    pub fn bundle(&self, now: Timestamp) -> String {
        let previous = Validity::of(&self.previous_ca).filter(|validity| validity.until > now);
        if previous.is_some() { format!("{}{}", self.ca, self.previous_ca) } else { self.ca.clone() }
    }

    pub fn renewal(&self, now: Timestamp) -> Renewal {
        let usable = |certificate: &str, key: &str| {
            Validity::of(certificate).filter(|validity| !validity.is_due(now) && KeyPair::from_pem(key).is_ok())
        };
        if usable(&self.ca, &self.ca_key).is_none() {
            Renewal::Authority
        } else if usable(&self.certificate, &self.key).is_none() {
            Renewal::Leaf
        } else {
            Renewal::Keep
        }
    }

    /// New contents, as far as a renewal asks for them.
    ///
    /// # Errors
    /// The CA in the Secret cannot be read, or a key cannot be made.
    pub fn renewed(&self, renewal: Renewal, namespace: &str, now: Timestamp) -> Result<Self, CertificateError> {
        match renewal {
            Renewal::Keep => Ok(self.clone()),
            Renewal::Leaf => {
                let key = KeyPair::from_pem(&self.ca_key)?;
                let issuer = Issuer::from_ca_cert_pem(&self.ca, key)?;
                let (certificate, key) = leaf(&issuer, namespace, now)?;
                Ok(Self { certificate, key, ..self.clone() })
            }
            Renewal::Authority => {
                let ca_key = KeyPair::generate()?;
                let params = authority(now)?;
                let ca = params.self_signed(&ca_key)?.pem();
                let ca_pem = ca_key.serialize_pem();
                let (certificate, key) = leaf(&Issuer::new(params, ca_key), namespace, now)?;
                Ok(Self { ca, ca_key: ca_pem, previous_ca: self.ca.clone(), certificate, key })
            }
        }
    }
}

/// How long until the Secret is looked at again; every replica does.
pub const CHECK: Duration = Duration::from_secs(60);

fn at(now: Timestamp, seconds: i64) -> Result<time::OffsetDateTime, time::error::ComponentRange> {
    time::OffsetDateTime::from_unix_timestamp(now.as_second() + seconds)
}

fn authority(now: Timestamp) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("pullguard-ca-{}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(now, -BACKDATE)?;
    params.not_after = at(now, CA)?;
    Ok(params)
}

fn leaf(issuer: &Issuer<'_, KeyPair>, namespace: &str, now: Timestamp) -> Result<(String, String), CertificateError> {
    let name = format!("{SERVICE}.{namespace}.svc");
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.clone(), format!("{name}.cluster.local")])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = at(now, -BACKDATE)?;
    params.not_after = at(now, LEAF)?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    fn later(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * DAY).expect("a time")
    }

    fn fresh() -> Keyring {
        Keyring::default().renewed(Renewal::Authority, "pullguard", start()).expect("certificates")
    }

    #[test]
    fn an_empty_secret_is_filled_and_then_kept() {
        assert_eq!(Keyring::default().renewal(start()), Renewal::Authority);
        assert_eq!(fresh().renewal(start()), Renewal::Keep);
    }

    #[test]
    fn the_leaf_is_renewed_in_its_last_third_under_the_same_authority() {
        let keyring = fresh();
        assert_eq!(keyring.renewal(later(59)), Renewal::Keep);
        assert_eq!(keyring.renewal(later(61)), Renewal::Leaf);
        let renewed = keyring.renewed(Renewal::Leaf, "pullguard", later(61)).expect("a leaf");
        assert_eq!(renewed.ca, keyring.ca);
        assert_ne!(renewed.certificate, keyring.certificate);
        assert_eq!(renewed.renewal(later(61)), Renewal::Keep);
    }

    #[test]
    fn after_a_rotation_both_authorities_are_trusted_until_the_old_one_ends() {
        let keyring = fresh();
        assert_eq!(keyring.renewal(later(500)), Renewal::Authority);
        let rotated = keyring.renewed(Renewal::Authority, "pullguard", later(500)).expect("a rotation");
        assert!(rotated.bundle(later(500)).contains(&keyring.ca) && rotated.bundle(later(500)).contains(&rotated.ca));
        assert!(!rotated.bundle(later(731)).contains(&keyring.ca));
    }

    #[test]
    fn a_broken_key_or_certificate_is_made_anew() {
        let broken = Keyring { key: "no key".into(), ..fresh() };
        assert_eq!(broken.renewal(start()), Renewal::Leaf);
        let broken = Keyring { ca: "no certificate".into(), ..fresh() };
        assert_eq!(broken.renewal(start()), Renewal::Authority);
    }

    #[test]
    fn a_secret_keeps_what_is_put_in() {
        let keyring = fresh();
        let data = keyring.to_secret().into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
        assert_eq!(Keyring::from_secret(&data), keyring);
    }
}
