//! Bearer tokens for EKS API servers: a presigned `GetCallerIdentity` URL that names the cluster in a signed header.
//!
//! The format is that of `aws eks get-token` and aws-iam-authenticator (`k8s-aws-v1.` + unpadded base64url). Tokens are
//! minted when asked for and never stored.

use super::signed::signing_time;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use secrecy::SecretString;
use std::time::{Duration, SystemTime};

/// The URL itself is good for a minute; the API server accepts the token for 15 minutes from its signature.
const URL_EXPIRY: Duration = Duration::from_secs(60);
const TOKEN_LIFE: Duration = Duration::from_secs(14 * 60);

/// Mints bearer tokens.
#[derive(Debug, Clone)]
pub struct TokenSource {
    credentials: SharedCredentialsProvider,
    region: String,
    sts: String,
}

impl TokenSource {
    /// A source that signs for the STS at `sts`.
    #[must_use]
    pub fn new(credentials: SharedCredentialsProvider, region: String, sts: String) -> Self {
        Self { credentials, region, sts }
    }

    /// A token for `cluster` and the moment (of real time) from which it should not be used any more.
    ///
    /// # Errors
    /// When there are no credentials to sign with; nothing was sent anywhere.
    pub async fn token(&self, cluster: &str) -> Result<(SecretString, Timestamp), StepError> {
        let now = signing_time();
        let credentials = self.credentials.provide_credentials().await.map_err(|error| unsigned(&error))?;
        let url = presign(&credentials.into(), &self.region, &self.sts, cluster, now)?;
        let token = format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url));
        let expiry = Timestamp::try_from(now + TOKEN_LIFE).map_err(|error| unsigned(&error))?;
        Ok((SecretString::from(token), expiry))
    }
}

fn unsigned(error: &dyn std::error::Error) -> StepError {
    StepError::new(ErrorClass::Permission, format!("no cluster token could be signed: {error}"))
        .leaving(Residue::None)
        .with_remedy("renew the AWS credentials, then resume")
}

fn presign(identity: &Identity, region: &str, sts: &str, cluster: &str, time: SystemTime) -> Result<String, StepError> {
    let mut url = url::Url::parse(sts).map_err(|error| unsigned(&error))?;
    url.set_query(Some("Action=GetCallerIdentity&Version=2011-06-15"));
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(URL_EXPIRY);
    let parameters = v4::SigningParams::builder()
        .identity(identity)
        .region(region)
        .name("sts")
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| unsigned(&error))?
        .into();
    let headers = [("x-k8s-aws-id", cluster)];
    let request = SignableRequest::new("GET", url.as_str(), headers.into_iter(), SignableBody::Bytes(b""))
        .map_err(|error| unsigned(&error))?;
    let (instructions, _) = sign(request, &parameters).map_err(|error| unsigned(&error))?.into_parts();
    url.query_pairs_mut().extend_pairs(instructions.params().iter().map(|(name, value)| (*name, value.as_ref())));
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;
    use secrecy::ExposeSecret;
    use std::collections::BTreeMap;

    /// Proves the shape that API servers check: prefix, no padding, the cluster's header among the signed ones, a
    /// minute's validity, the session token carried along, and an expiry before the server's 15 minutes.
    #[tokio::test]
    async fn a_token_is_a_presigned_url() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session/+=".into()), None, "test");
        let source = TokenSource::new(
            SharedCredentialsProvider::new(credentials),
            "eu-west-1".into(),
            "https://sts.eu-west-1.amazonaws.com/".into(),
        );
        let (token, expiry) = source.token("demo").await.unwrap();
        let encoded = token.expose_secret().strip_prefix("k8s-aws-v1.").unwrap();
        assert!(!encoded.contains('='));
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
        let url = url::Url::parse(&url).unwrap();
        assert_eq!(url.host_str(), Some("sts.eu-west-1.amazonaws.com"));
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["Action"], "GetCallerIdentity");
        assert_eq!(query["Version"], "2011-06-15");
        assert_eq!(query["X-Amz-SignedHeaders"], "host;x-k8s-aws-id");
        assert_eq!(query["X-Amz-Expires"], "60");
        assert_eq!(query["X-Amz-Security-Token"], "session/+=");
        assert!(query["X-Amz-Credential"].ends_with("/eu-west-1/sts/aws4_request"));
        assert_eq!(query["X-Amz-Signature"].len(), 64);
        let life = expiry.duration_since(Timestamp::try_from(signing_time()).unwrap()).as_secs();
        assert!((800..=840).contains(&life), "{life}");
    }
}
