//! Certificates of a cluster: its authority (what DescribeCluster returns) and the serving certificate of its listener.

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::cluster::Identity;
use super::model::NewCluster;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of a simulated cluster could not be made")]
pub struct CertificateFailed(#[from] rcgen::Error);

impl CertificateFailed {
    /// A certificate or key that was just made does not parse.
    pub(crate) fn unreadable() -> Self {
        Self(rcgen::Error::CouldNotParseKeyPair)
    }
}

fn authority_parameters() -> Result<CertificateParams, CertificateFailed> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, "kubernetes");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

/// A fresh identity.
pub(crate) fn new(info: NewCluster) -> Result<Identity, CertificateFailed> {
    let key = KeyPair::generate()?;
    let certificate = authority_parameters()?.self_signed(&key)?;
    Ok(Identity {
        info,
        ca_certificate: certificate.pem(),
        ca_key: key.serialize_pem(),
        access: Vec::new(),
        addons: BTreeMap::new(),
        version: 0,
        counter: 0,
    })
}

/// An identity that only holds a place until the real one is restored.
pub(crate) fn placeholder(name: &str) -> Identity {
    let info = NewCluster {
        name: name.to_owned(),
        arn: String::new(),
        version: String::new(),
        oidc_issuer: String::new(),
        account: String::new(),
        region: String::new(),
        control_plane: Vec::new(),
    };
    Identity {
        info,
        ca_certificate: String::new(),
        ca_key: String::new(),
        access: Vec::new(),
        addons: BTreeMap::new(),
        version: 0,
        counter: 0,
    }
}

/// A serving certificate for some names, signed by an authority: certificate and key as PEM.
pub(crate) fn serving(ca_key: &str, names: &[String]) -> Result<(String, String), CertificateFailed> {
    let issuer = Issuer::new(authority_parameters()?, KeyPair::from_pem(ca_key)?);
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&key, &issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
