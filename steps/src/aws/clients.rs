//! The AWS clients of one account and region, built once and shared by all kinds.
//!
//! SDK retries are off: the engine alone retries. In the sandbox all services answer at one endpoint, credentials are
//! fixed dummies, and neither profiles nor instance metadata are read. What the answers mean is `failure`.

use super::failure::{AwsFailure, Reach};
use super::signed::{Endpoints, Signed};
use super::token::TokenSource;
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use aws_types::sdk_config::StalledStreamProtectionConfig;
use platflow_engine::failure::ErrorClass;
use std::sync::Arc;
use std::time::Duration;

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// The usual chain: environment, profile, SSO, container and instance roles.
    Chain {
        /// A profile other than the default one.
        profile: Option<String>,
    },
    /// Fixed dummies, for the sandbox: no chain is consulted.
    Fixed {
        /// Access key id.
        access_key_id: String,
        /// Secret access key.
        secret_access_key: String,
    },
}

/// What the clients are built from.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The region; without one, the chain's.
    pub region: Option<String>,
    /// One endpoint for all services: the sandbox. Without it AWS's own, or `AWS_ENDPOINT_URL*`.
    pub endpoint_url: Option<String>,
    /// Where credentials come from.
    pub credentials: CredentialSource,
    /// Refuse any other account than this one.
    pub expected_account: Option<String>,
    /// Where this machine's public address is asked for, instead of `https://checkip.amazonaws.com`.
    pub address_url: Option<String>,
}

impl AwsSettings {
    /// Settings for a sandbox at `endpoint_url`: dummy credentials, nothing ambient.
    #[must_use]
    pub fn sandbox(endpoint_url: &str, region: &str) -> Self {
        Self {
            region: Some(region.to_owned()),
            endpoint_url: Some(endpoint_url.to_owned()),
            credentials: CredentialSource::Fixed {
                access_key_id: "AKIAPLATFLOWSANDBOX0".to_owned(),
                secret_access_key: "sandbox".to_owned(),
            },
            expected_account: None,
            address_url: None,
        }
    }
}

/// Why the clients could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No region in the settings, the environment or the profile.
    #[error("no AWS region is set; name one with --region")]
    NoRegion,
    /// The chain found no credentials, or they cannot be refreshed.
    #[error("no usable AWS credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID, or sign in (aws sso login)")]
    NoCredentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// AWS refused the credentials.
    #[error("AWS refused the credentials ({code}: {message}); renew them and try again")]
    Refused {
        /// AWS's code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// Nothing answered.
    #[error("the AWS endpoint {endpoint} cannot be reached: {message}")]
    Unreachable {
        /// Which one.
        endpoint: String,
        /// The transport's message.
        message: String,
    },
    /// The credentials belong to another account than the one named.
    #[error("the credentials belong to account {found}, not {expected}")]
    OtherAccount {
        /// The account asked for.
        expected: String,
        /// The account of the credentials.
        found: String,
    },
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be built")]
    Http(#[source] reqwest::Error),
    /// An answer or an address that cannot be understood.
    #[error("{0}")]
    Malformed(String),
}

/// Who we are in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerIdentity {
    /// Account id.
    pub account: String,
    /// The caller's ARN, of a session if it is one.
    pub arn: String,
    /// `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
}

/// The clients.
#[derive(Debug)]
pub struct AwsClients {
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) eks: aws_sdk_eks::Client,
    pub(super) signed: Signed,
    pub(super) http: reqwest::Client,
    pub(super) region: String,
    pub(super) identity: CallerIdentity,
    pub(super) address_url: Option<String>,
    tokens: Arc<TokenSource>,
}

impl AwsClients {
    /// Builds the clients and asks AWS who we are: the first call, before anything else happens.
    ///
    /// # Errors
    /// [`AwsError`]: no region, no or refused credentials, an unreachable endpoint, another account.
    pub async fn connect(settings: AwsSettings) -> Result<Arc<Self>, AwsError> {
        // TLS of every client is ring's; a second installation is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::trust::client_config())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(AwsError::Http)?;
        let sdk = sdk_config(&settings).await?;
        let region = sdk.region().ok_or(AwsError::NoRegion)?.as_ref().to_owned();
        let credentials =
            sdk.credentials_provider().ok_or_else(|| AwsError::NoCredentials("the chain has no provider".into()))?;
        credentials.provide_credentials().await.map_err(|error| AwsError::NoCredentials(error.into()))?;
        let endpoints = Endpoints::new(&sdk, &region, settings.endpoint_url.as_deref())?;
        let sts = endpoints.sts().to_owned();
        let signed = Signed::new(http.clone(), credentials.clone(), endpoints);
        let identity = caller_identity(&signed, &sts).await?;
        if let Some(expected) = settings.expected_account.filter(|expected| *expected != identity.account) {
            return Err(AwsError::OtherAccount { expected, found: identity.account });
        }
        let tokens = Arc::new(TokenSource::new(credentials, region.clone(), sts));
        Ok(Arc::new(Self {
            ec2: aws_sdk_ec2::Client::new(&sdk),
            eks: aws_sdk_eks::Client::new(&sdk),
            signed,
            http,
            region,
            identity,
            address_url: settings.address_url,
            tokens,
        }))
    }

    /// Clients that reach nothing and have asked nobody: enough to describe the kinds when a runbook is only checked.
    ///
    /// # Errors
    /// [`AwsError`] when the HTTP client cannot be built.
    pub async fn offline() -> Result<Arc<Self>, AwsError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Port 9 (discard) of this machine: a call by mistake is refused at once and leaves it nowhere.
        let settings = AwsSettings::sandbox("http://127.0.0.1:9", "us-east-1");
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::trust::client_config())
            .build()
            .map_err(AwsError::Http)?;
        let sdk = sdk_config(&settings).await?;
        let credentials =
            sdk.credentials_provider().ok_or_else(|| AwsError::NoCredentials("the chain has no provider".into()))?;
        let endpoints = Endpoints::new(&sdk, "us-east-1", settings.endpoint_url.as_deref())?;
        let sts = endpoints.sts().to_owned();
        let signed = Signed::new(http.clone(), credentials.clone(), endpoints);
        let identity = CallerIdentity { account: String::new(), arn: String::new(), partition: "aws".to_owned() };
        let tokens = Arc::new(TokenSource::new(credentials, "us-east-1".to_owned(), sts));
        Ok(Arc::new(Self {
            ec2: aws_sdk_ec2::Client::new(&sdk),
            eks: aws_sdk_eks::Client::new(&sdk),
            signed,
            http,
            region: "us-east-1".to_owned(),
            identity,
            address_url: None,
            tokens,
        }))
    }

    /// Who we are, as answered when the clients were built.
    #[must_use]
    pub fn caller_identity(&self) -> &CallerIdentity {
        &self.identity
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Mints bearer tokens for EKS API servers with these credentials.
    #[must_use]
    pub fn tokens(&self) -> Arc<TokenSource> {
        Arc::clone(&self.tokens)
    }

    /// `arn:<partition>:<service>:<region>:<account>:<resource>`.
    pub(super) fn arn(&self, service: &str, resource: &str) -> String {
        let CallerIdentity { account, partition, .. } = &self.identity;
        format!("arn:{partition}:{service}:{}:{account}:{resource}", self.region)
    }
}

/// A client for one endpoint that is named and in clear needs no TLS, and none of the machine's certificates.
fn connector(endpoint: Option<&str>) -> SharedHttpClient {
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        return aws_smithy_http_client::Builder::new().build_http();
    }
    aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(60))
        .operation_timeout(Duration::from_secs(60))
        .build()
}

async fn sdk_config(settings: &AwsSettings) -> Result<SdkConfig, AwsError> {
    let region = settings.region.clone().map(Region::new);
    match &settings.credentials {
        CredentialSource::Fixed { access_key_id, secret_access_key } => {
            let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "platflow");
            let mut builder = SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(region.ok_or(AwsError::NoRegion)?)
                .credentials_provider(SharedCredentialsProvider::new(credentials))
                .http_client(connector(settings.endpoint_url.as_deref()))
                .retry_config(RetryConfig::disabled())
                .timeout_config(timeouts())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            builder.set_endpoint_url(settings.endpoint_url.clone());
            Ok(builder.build())
        }
        CredentialSource::Chain { profile } => {
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .http_client(connector(None))
                .retry_config(RetryConfig::disabled())
                .timeout_config(timeouts())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            if let Some(region) = region {
                loader = loader.region(region);
            }
            if let Some(profile) = profile {
                loader = loader.profile_name(profile);
            }
            if let Some(endpoint) = &settings.endpoint_url {
                loader = loader.endpoint_url(endpoint);
            }
            Ok(loader.load().await)
        }
    }
}

/// How often the caller's identity is asked again at once.
const IDENTITY_RETRIES: usize = 4;

async fn caller_identity(signed: &Signed, endpoint: &str) -> Result<CallerIdentity, AwsError> {
    let mut answer = signed.caller_identity().await;
    // Asked before there is a run whose engine could try again: a passing failure must not end the command.
    for _ in 0..IDENTITY_RETRIES {
        if !answer
            .as_ref()
            .is_err_and(|failure| failure.classify().0 == ErrorClass::Transient && failure.reach != Reach::NotSent)
        {
            break;
        }
        answer = signed.caller_identity().await;
    }
    let identity = answer.map_err(|failure| unusable(failure, endpoint))?;
    let partition = identity.arn.split(':').nth(1).unwrap_or("aws").to_owned();
    Ok(CallerIdentity { account: identity.account, arn: identity.arn, partition })
}

fn unusable(failure: AwsFailure, endpoint: &str) -> AwsError {
    if failure.code.is_empty() {
        AwsError::Unreachable { endpoint: endpoint.to_owned(), message: failure.message }
    } else {
        AwsError::Refused { code: failure.code, message: failure.message }
    }
}
