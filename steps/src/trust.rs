//! Whom HTTPS clients trust: the certificates of this machine, read once, and only when a handshake needs them.
//!
//! Reading them takes longer than everything else a small command does, and most commands on the sandbox never do TLS
//! with anybody whom they vouch for. Servers with a CA of their own (Kubernetes, Vault) are not for this file.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, OnceLock};

/// A client configuration with TLS 1.2 and 1.3 by ring, HTTP/2 and HTTP/1.1.
#[must_use]
pub(crate) fn client_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        // Never: ring has suites for both. What was installed for the process is the same.
        .unwrap_or_else(|_| ClientConfig::builder())
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MachineTrust { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The verifier of webpki over the machine's certificates, made at the first handshake.
#[derive(Debug)]
struct MachineTrust {
    provider: Arc<CryptoProvider>,
}

static VERIFIER: OnceLock<Result<Arc<WebPkiServerVerifier>, String>> = OnceLock::new();

impl MachineTrust {
    fn verifier(&self) -> Result<&WebPkiServerVerifier, Error> {
        let made = VERIFIER.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            let (usable, _) = roots.add_parsable_certificates(found.certs);
            if usable == 0 {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!(
                    "this machine has no CA certificates{why}; install them (ca-certificates) or name a file with SSL_CERT_FILE"
                ));
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| error.to_string())
        });
        made.as_deref().map_err(|why| Error::General(why.clone()))
    }
}

impl ServerCertVerifier for MachineTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that a certificate which no CA of this machine vouches for is refused, as is one for another name.
    #[test]
    fn a_stranger_is_refused() {
        let stranger = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
        let trust = MachineTrust { provider: Arc::new(rustls::crypto::ring::default_provider()) };
        for name in ["example.com", "elsewhere.org"] {
            let name = ServerName::try_from(name).unwrap();
            let refused = trust.verify_server_cert(stranger.cert.der(), &[], &name, &[], UnixTime::now());
            assert!(refused.is_err(), "{name:?}");
        }
    }
}
