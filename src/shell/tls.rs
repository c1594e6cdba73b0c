//! TLS for the webhook: one certificate that can be exchanged while connections go on.
//!
//! Enters: PEM. Leaves: a server configuration that asks for the certificate at each handshake.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificates::Validity;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate is not PEM: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    #[error("the key is not PEM: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("certificate and key do not fit together: {0}")]
    Mismatch(rustls::Error),
}

/// The certificate in force; none before the first one is had.
#[derive(Debug, Default)]
pub struct Serving(ArcSwapOption<CertifiedKey>);

impl Serving {
    /// # Errors
    /// The PEM cannot be used; what was served before is served still.
    pub fn set(&self, certificate: &str, key: &str) -> Result<(), TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Mismatch)?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    pub fn is_set(&self) -> bool {
        self.0.load().is_some()
    }

    /// Whether this very chain is served.
    pub fn serves(&self, certificate: &str) -> bool {
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).filter_map(Result::ok).collect();
        self.0.load().as_ref().is_some_and(|served| served.cert == chain)
    }

    /// The end of what is served.
    pub fn until(&self) -> Option<Timestamp> {
        let served = self.0.load();
        Some(Validity::of_der(served.as_ref()?.cert.first()?)?.until)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// A server's configuration around a certificate that may change; connections that are open go on with the one they have.
pub fn server_config(serving: Arc<Serving>) -> Arc<rustls::ServerConfig> {
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::certificates::{Keyring, Renewal};

    #[test]
    fn what_is_served_is_known_by_its_bytes_and_its_end() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let make = || Keyring::default().renewed(Renewal::Authority, "pullguard", now).expect("certificates");
        let (mine, other) = (make(), make());
        let serving = Serving::default();
        assert!(!serving.serves(&mine.certificate) && serving.until().is_none());
        serving.set(&mine.certificate, &mine.key).expect("a pair");
        assert!(serving.serves(&mine.certificate) && !serving.serves(&other.certificate));
        assert_eq!(serving.until(), Validity::of(&mine.certificate).map(|validity| validity.until));
        assert!(serving.set(&mine.certificate, &other.key).is_err() && serving.serves(&mine.certificate));
    }
}
