//! The certificate of the Vault servers: signed by a CA whose key is thrown away at once.
//!
//! Nothing else can ever be signed by that CA, so trusting it is trusting these servers. Renewal means a new CA, and
//! the new certificate reaches clients as an output.

use std::time::{Duration, SystemTime};

use platflow_engine::failure::{Residue, StepError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use zeroize::Zeroizing;

/// Valid from so long ago: the servers and their clients are other machines, and their clocks may be behind.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// Valid for so long, ten years.
const VALID: Duration = Duration::from_secs(10 * 8_766 * 60 * 60);

/// PEM texts.
pub(super) struct ServerCertificate {
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// Every name a server is called by: its own, the services', and this machine's end of a port-forward.
pub(super) fn names(name: &str, namespace: &str, replicas: u32) -> Vec<String> {
    let internal = format!("{name}-internal");
    let mut names = Vec::new();
    for host in (0..replicas).map(|ordinal| format!("{name}-{ordinal}.{internal}")).chain([
        format!("*.{internal}"),
        name.to_owned(),
        format!("{name}-active"),
    ]) {
        names.push(format!("{host}.{namespace}.svc"));
        names.push(format!("{host}.{namespace}.svc.cluster.local"));
        names.push(format!("{host}.{namespace}"));
    }
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    names
}

/// Whoever checks a certificate does so by the time of day, as whoever checks a signature; the engine's clock, which may be
/// at another speed or jump, is for waits and budgets.
#[expect(clippy::disallowed_methods, reason = "every peer of a TLS handshake checks certificates by the real time")]
fn time_of_day() -> SystemTime {
    SystemTime::now()
}

pub(super) fn make(name: &str, namespace: &str, replicas: u32) -> Result<ServerCertificate, StepError> {
    let failed = |error: rcgen::Error| {
        StepError::permanent(format!("no certificate could be made for Vault: {error}")).leaving(Residue::None)
    };
    let now = time_of_day();
    let not_before = now.checked_sub(EARLIER).unwrap_or(now).into();
    let not_after = now.checked_add(VALID).unwrap_or(now).into();

    let ca_key = KeyPair::generate().map_err(failed)?;
    let mut ca = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, format!("platflow CA of {name} in {namespace}"));
    (ca.not_before, ca.not_after) = (not_before, not_after);
    let ca_certificate = ca.self_signed(&ca_key).map_err(failed)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().map_err(failed)?;
    let mut server = CertificateParams::new(names(name, namespace, replicas)).map_err(failed)?;
    server.distinguished_name.push(DnType::CommonName, format!("{name}.{namespace}.svc"));
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (not_before, not_after);
    let certificate = server.signed_by(&key, &issuer).map_err(failed)?;
    Ok(ServerCertificate {
        ca: ca_certificate.pem(),
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}
