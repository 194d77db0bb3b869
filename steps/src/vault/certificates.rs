//! The certificate of the Vault servers: signed by a CA whose key is thrown away at once.
//!
//! Nothing else can ever be signed by that CA, so trusting it is trusting these servers. Renewal means a new CA, and
//! the new certificate reaches clients as an output.

use platflow_engine::failure::{Residue, StepError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use zeroize::Zeroizing;

/// The first moment of validity: fixed, because a simulated clock may run ahead of the real one that TLS checks.
const FROM: (i32, u8, u8) = (2024, 1, 1);
const YEARS: i32 = 10;

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

pub(super) fn make(name: &str, namespace: &str, replicas: u32, year: i32) -> Result<ServerCertificate, StepError> {
    let failed = |error: rcgen::Error| {
        StepError::permanent(format!("no certificate could be made for Vault: {error}")).leaving(Residue::None)
    };
    let (from_year, month, day) = FROM;
    let not_before = rcgen::date_time_ymd(from_year, month, day);
    let not_after = rcgen::date_time_ymd(year + YEARS, month, day);

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
