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
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
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
        Self::of_x509(&pem.parse_x509().ok()?)
    }

    /// Of a certificate in DER.
    pub fn of_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Self::of_x509(&certificate)
    }

    fn of_x509(certificate: &X509Certificate<'_>) -> Option<Self> {
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

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Particulars {
    pub subject: String,
    pub issuer: String,
    /// The DNS names that it is for; a CA has none.
    pub names: Vec<String>,
    pub validity: Validity,
    /// SHA-256, as `openssl x509 -fingerprint -sha256` has it, in lower case and without colons.
    pub fingerprint: String,
}

impl Particulars {
    /// Of the first certificate in a PEM text.
    pub fn of(pem: &str) -> Option<Self> {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: names.collect(),
            validity: Validity::of_x509(&certificate)?,
            fingerprint: Sha256::digest(&pem.contents).iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// A CA that changes more often than this within its own life is not one that we overlap.
const MOST_FORMER: usize = 4;

/// A bundle, and what was trusted before it as long as that holds: a CA that somebody else exchanges is followed by the
/// replicas one after the other, and until then each is asked by an API server that must trust both.
pub fn with_former(bundle: &str, former: &[u8], now: Timestamp) -> String {
    let former = String::from_utf8_lossy(former);
    let mut all = bundle.to_owned();
    for piece in valid(&former, now).filter(|piece| !bundle.contains(piece)).take(MOST_FORMER) {
        if !all.contains(piece) {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            all.push_str(piece);
            all.push('\n');
        }
    }
    all
}

/// The first certificate of a bundle that has not ended.
pub fn first_valid(bundle: &[u8], now: Timestamp) -> Option<String> {
    valid(&String::from_utf8_lossy(bundle), now).next().map(|piece| format!("{piece}\n"))
}

/// The certificates of a bundle that have not ended.
fn valid(bundle: &str, now: Timestamp) -> impl Iterator<Item = &str> {
    let pieces = bundle.split_inclusive(END).filter_map(|piece| piece.get(piece.find(BEGIN)?..));
    pieces.filter(move |piece| Validity::of(piece).is_some_and(|validity| validity.until > now))
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

    /// Whether we made these: somebody else's Secret holds no key of its CA.
    pub fn is_ours(&self) -> bool {
        !self.ca_key.is_empty() || self.certificate.is_empty()
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
    fn of_a_bundle_the_first_that_holds_is_the_one_that_is_trusted_now() {
        let (old, new) =
            (fresh(), Keyring::default().renewed(Renewal::Authority, "pullguard", later(500)).expect("a CA"));
        let bundle = format!("# by hand\n{}{}", old.ca, new.ca);
        let first = |days| first_valid(bundle.as_bytes(), later(days));
        assert_eq!(first(1).as_deref().map(Validity::of), Some(Validity::of(&old.ca)));
        assert_eq!(first(800).as_deref().map(Validity::of), Some(Validity::of(&new.ca)));
        assert_eq!(first(5000), None);
        // And it stands beside the next one.
        let lost = Keyring { ca: first(1).expect("a CA"), ..Keyring::default() };
        assert_eq!(lost.renewal(later(1)), Renewal::Authority);
        let next = lost.renewed(Renewal::Authority, "pullguard", later(1)).expect("a renewal");
        assert!(next.bundle(later(1)).contains(old.ca.trim()) && next.bundle(later(1)).contains(&next.ca));
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
    fn a_certificate_says_whose_it_is_for_which_names_and_until_when() {
        let keyring = fresh();
        let leaf = Particulars::of(&keyring.certificate).expect("a certificate");
        assert_eq!(leaf.subject, "CN=pullguard.pullguard.svc");
        assert_eq!(leaf.names, ["pullguard.pullguard.svc", "pullguard.pullguard.svc.cluster.local"]);
        assert_eq!(leaf.validity.until, later(90));
        let ca = Particulars::of(&keyring.ca).expect("a CA");
        assert_eq!((leaf.issuer, ca.names.len(), ca.fingerprint.len()), (ca.subject, 0, 64));
        assert_ne!(ca.fingerprint, leaf.fingerprint);
        assert_eq!(Particulars::of("no certificate"), None);
    }

    #[test]
    fn whoever_was_trusted_before_is_trusted_until_its_end() {
        let (old, new) = (fresh(), fresh());
        let both = with_former(&new.ca, old.ca.as_bytes(), later(1));
        assert!(both.starts_with(&new.ca) && both.contains(old.ca.trim_end()), "{both}");
        assert_eq!(with_former(&new.ca, both.as_bytes(), later(1)), both, "once more changes nothing");
        assert_eq!(with_former(&new.ca, old.ca.as_bytes(), later(731)), new.ca, "it has ended");
        assert_eq!(with_former(&new.ca, b"garbage", later(1)), new.ca);
        let many: String = (0..9).map(|_| fresh().ca).collect();
        assert_eq!(with_former(&new.ca, many.as_bytes(), later(1)).matches(BEGIN).count(), 1 + MOST_FORMER);
    }

    #[test]
    fn a_secret_without_the_key_of_its_ca_is_somebody_elses() {
        assert!(fresh().is_ours() && Keyring::default().is_ours());
        assert!(!Keyring { ca_key: String::new(), ..fresh() }.is_ours());
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
