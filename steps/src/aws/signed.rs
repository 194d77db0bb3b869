//! One small signed client for the services that need no SDK: IAM, STS, ELBv2 and Auto Scaling (Query protocol, XML
//! answers), KMS, Logs, Service Quotas and Resource Groups Tagging (JSON 1.1); and for EC2 where only the answer to a dry
//! run counts.
//!
//! It signs, sends once and types the failure; it never retries. The meaning of actions is their callers'.

use super::clients::AwsError;
use super::failure::{AwsFailure, READ_TIMEOUT, Reach};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use jiff::Timestamp;
use platflow_engine::context::Call;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// A service reached through the signed client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Identity and access management (global).
    Iam,
    /// Security tokens.
    Sts,
    /// Application and network load balancers.
    Elb,
    /// Classic load balancers: another version of the API under the same name.
    ClassicElb,
    /// Auto Scaling groups.
    AutoScaling,
    /// Keys.
    Kms,
    /// CloudWatch Logs.
    Logs,
    /// Service Quotas.
    Quotas,
    /// Resource Groups Tagging.
    Tagging,
    /// EC2, for dry runs.
    Ec2,
}

struct Profile {
    signing_name: &'static str,
    /// Service id of `AWS_ENDPOINT_URL_<ID>` and of profile sections.
    service_id: &'static str,
    version: &'static str,
    target: &'static str,
}

impl Service {
    const ALL: [Self; 10] = [
        Self::Iam,
        Self::Sts,
        Self::Elb,
        Self::ClassicElb,
        Self::AutoScaling,
        Self::Kms,
        Self::Logs,
        Self::Quotas,
        Self::Tagging,
        Self::Ec2,
    ];

    fn profile(self) -> Profile {
        let (signing_name, service_id, version, target) = match self {
            Self::Iam => ("iam", "IAM", "2010-05-08", ""),
            Self::Sts => ("sts", "STS", "2011-06-15", ""),
            Self::Elb => ("elasticloadbalancing", "Elastic Load Balancing v2", "2015-12-01", ""),
            Self::ClassicElb => ("elasticloadbalancing", "Elastic Load Balancing", "2012-06-01", ""),
            Self::AutoScaling => ("autoscaling", "Auto Scaling", "2011-01-01", ""),
            Self::Kms => ("kms", "KMS", "", "TrentService"),
            Self::Logs => ("logs", "CloudWatch Logs", "", "Logs_20140328"),
            Self::Quotas => ("servicequotas", "Service Quotas", "", "ServiceQuotasV20190624"),
            Self::Tagging => ("tagging", "Resource Groups Tagging API", "", "ResourceGroupsTaggingAPI_20170126"),
            Self::Ec2 => ("ec2", "EC2", "2016-11-15", ""),
        };
        Profile { signing_name, service_id, version, target }
    }
}

/// Where each service answers, and the region its signatures name.
#[derive(Debug, Clone)]
pub struct Endpoints {
    region: String,
    urls: BTreeMap<Service, String>,
}

impl Endpoints {
    /// One endpoint for all if `endpoint` is given; else `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL`, AWS's own.
    ///
    /// # Errors
    /// An address that is not a URL.
    pub fn new(sdk: &SdkConfig, region: &str, endpoint: Option<&str>) -> Result<Self, AwsError> {
        let mut urls = BTreeMap::new();
        for service in Service::ALL {
            let url = match endpoint.map(str::to_owned).or_else(|| configured(sdk, service)) {
                Some(url) => url,
                None => own_address(service, region),
            };
            let parsed =
                url::Url::parse(&url).map_err(|error| AwsError::Malformed(format!("endpoint {url:?}: {error}")))?;
            urls.insert(service, parsed.to_string());
        }
        Ok(Self { region: region.to_owned(), urls })
    }

    /// The address of STS.
    #[must_use]
    pub fn sts(&self) -> &str {
        self.url(Service::Sts)
    }

    /// The address of a service.
    pub(super) fn url(&self, service: Service) -> &str {
        self.urls.get(&service).map_or("", String::as_str)
    }

    fn signing_region(&self, service: Service) -> &str {
        let china = self.region.starts_with("cn-");
        match service {
            Service::Iam if china => "cn-north-1",
            Service::Iam if self.region.starts_with("us-gov-") => "us-gov-west-1",
            Service::Iam => "us-east-1",
            _ => &self.region,
        }
    }
}

fn configured(sdk: &SdkConfig, service: Service) -> Option<String> {
    let profile = service.profile();
    let key = ServiceConfigKey::builder()
        .service_id(profile.service_id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    sdk.service_config()
        .and_then(|configuration| configuration.load_config(key))
        .or_else(|| sdk.endpoint_url().map(str::to_owned))
}

fn own_address(service: Service, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    match service {
        Service::Iam if region.starts_with("cn-") => format!("https://iam.cn-north-1.{suffix}/"),
        Service::Iam if region.starts_with("us-gov-") => format!("https://iam.us-gov.{suffix}/"),
        Service::Iam => format!("https://iam.{suffix}/"),
        _ => format!("https://{}.{region}.{suffix}/", service.profile().signing_name),
    }
}

/// The signed client.
#[derive(Debug, Clone)]
pub struct Signed {
    http: reqwest::Client,
    credentials: SharedCredentialsProvider,
    endpoints: Endpoints,
}

/// The answer of `GetCallerIdentity`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Caller {
    #[serde(rename = "Account")]
    pub(super) account: String,
    #[serde(rename = "Arn")]
    pub(super) arn: String,
}

#[derive(Deserialize)]
struct CallerAnswer {
    #[serde(rename = "GetCallerIdentityResult")]
    result: Caller,
}

#[derive(Deserialize)]
struct QueryError {
    #[serde(rename = "Error")]
    error: QueryErrorBody,
}

/// EC2 words refusals one level deeper.
#[derive(Deserialize)]
struct Ec2Error {
    #[serde(rename = "Errors")]
    errors: QueryError,
}

#[derive(Deserialize)]
struct QueryErrorBody {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

/// Parameters of a Query call, in order.
pub(super) type Parameters = Vec<(String, String)>;

impl Signed {
    /// A client over a shared HTTP client and credentials.
    #[must_use]
    pub fn new(http: reqwest::Client, credentials: SharedCredentialsProvider, endpoints: Endpoints) -> Self {
        Self { http, credentials, endpoints }
    }

    pub(super) async fn caller_identity(&self) -> Result<Caller, AwsFailure> {
        let answer: CallerAnswer = self.ask(Service::Sts, "GetCallerIdentity", &[]).await?;
        Ok(answer.result)
    }

    /// A reading Query call.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        service: Service,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<T, AwsFailure> {
        let text = self.query(service, action, parameters, READ_TIMEOUT).await?;
        read_xml(action, &text)
    }

    /// A mutating Query call whose answer is not needed.
    pub(super) async fn tell(
        &self,
        service: Service,
        action: &str,
        parameters: &[(String, String)],
        permit: &Call,
    ) -> Result<(), AwsFailure> {
        self.query(service, action, parameters, permit.timeout).await.map(drop)
    }

    async fn query(
        &self,
        service: Service,
        action: &str,
        parameters: &[(String, String)],
        timeout: Duration,
    ) -> Result<String, AwsFailure> {
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        let (status, text) = self.send(service, action, &headers, form(service, action, parameters), timeout).await?;
        if status < 300 {
            return Ok(text);
        }
        let (code, message) = refusal(text);
        Err(AwsFailure { call: action.to_owned(), code, message, status, reach: Reach::Answered })
    }

    /// Asks EC2 whether it would do what it is not to do: the refusal that answers it says whether the caller may.
    pub(super) async fn dry_run(&self, action: &str, parameters: &[(String, String)]) -> Result<(), AwsFailure> {
        let dry = parameter("DryRun", "true");
        let parameters: Vec<_> = parameters.iter().cloned().chain([dry]).collect();
        self.query(Service::Ec2, action, &parameters, READ_TIMEOUT).await.map(drop)
    }

    /// What time STS says it is.
    pub(super) async fn remote_time(&self) -> Result<Option<Timestamp>, AwsFailure> {
        let action = "GetCallerIdentity";
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        let body = form(Service::Sts, action, &[]);
        let answer = self.exchange(Service::Sts, action, &headers, body, READ_TIMEOUT).await?;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()))
    }

    /// When the credentials end, if they do.
    pub(super) async fn expiry(&self) -> Option<SystemTime> {
        self.credentials.provide_credentials().await.ok()?.expiry()
    }

    /// Where a service answers.
    pub(super) fn address(&self, service: Service) -> &str {
        self.endpoints.url(service)
    }

    /// A reading JSON call.
    pub(super) async fn ask_json(&self, service: Service, action: &str, body: &Value) -> Result<Value, AwsFailure> {
        self.json(service, action, body, READ_TIMEOUT).await
    }

    /// A mutating JSON call.
    pub(super) async fn tell_json(
        &self,
        service: Service,
        action: &str,
        body: &Value,
        permit: &Call,
    ) -> Result<Value, AwsFailure> {
        self.json(service, action, body, permit.timeout).await
    }

    async fn json(&self, service: Service, action: &str, body: &Value, timeout: Duration) -> Result<Value, AwsFailure> {
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("{}.{action}", service.profile().target)),
        ];
        let (status, text) = self.send(service, action, &headers, body.to_string(), timeout).await?;
        let answer: Option<Value> = if text.is_empty() { Some(Value::Null) } else { serde_json::from_str(&text).ok() };
        if status < 300 {
            return answer.ok_or_else(|| unreadable(action, "it is not JSON"));
        }
        let answer = answer.unwrap_or_default();
        let kind = answer.get("__type").and_then(Value::as_str).unwrap_or_default();
        let code = kind.rsplit('#').next().unwrap_or_default().to_owned();
        let message = ["message", "Message"].iter().find_map(|key| answer.get(key).and_then(Value::as_str));
        let message = message.map_or(text, str::to_owned);
        Err(AwsFailure { call: action.to_owned(), code, message, status, reach: Reach::Answered })
    }

    async fn send(
        &self,
        service: Service,
        action: &str,
        headers: &[(&'static str, String)],
        body: String,
        timeout: Duration,
    ) -> Result<(u16, String), AwsFailure> {
        let answer = self.exchange(service, action, headers, body, timeout).await?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| failed(action, &error))?;
        Ok((status, text))
    }

    async fn exchange(
        &self,
        service: Service,
        action: &str,
        headers: &[(&'static str, String)],
        body: String,
        timeout: Duration,
    ) -> Result<reqwest::Response, AwsFailure> {
        let url = self.endpoints.url(service);
        let signature = self.signature(service, action, url, headers, &body).await?;
        let mut request = self.http.post(url).timeout(timeout).body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        for (name, value) in signature {
            request = request.header(name, value);
        }
        request.send().await.map_err(|error| failed(action, &error))
    }

    async fn signature(
        &self,
        service: Service,
        action: &str,
        url: &str,
        headers: &[(&'static str, String)],
        body: &str,
    ) -> Result<Vec<(String, String)>, AwsFailure> {
        let unsigned = |error: &dyn std::error::Error| AwsFailure::not_sent(action, format!("not signed: {error}"));
        let credentials = self.credentials.provide_credentials().await.map_err(|error| unsigned(&error))?;
        let identity: Identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.endpoints.signing_region(service))
            .name(service.profile().signing_name)
            .time(signing_time())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsigned(&error))?
            .into();
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request = SignableRequest::new("POST", url, headers, SignableBody::Bytes(body.as_bytes()))
            .map_err(|error| unsigned(&error))?;
        let (instructions, _) = sign(request, &parameters).map_err(|error| unsigned(&error))?.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn failed(action: &str, error: &reqwest::Error) -> AwsFailure {
    let message = describe(error);
    if error.is_connect() || error.is_builder() {
        AwsFailure::not_sent(action, message)
    } else {
        AwsFailure::unanswered(action, message)
    }
}

/// Code and message of a refusal in XML; the text itself where it is none.
fn refusal(text: String) -> (String, String) {
    let told = quick_xml::de::from_str::<QueryError>(&text)
        .or_else(|_| quick_xml::de::from_str::<Ec2Error>(&text).map(|told| told.errors));
    match told {
        Ok(told) => (told.error.code, told.error.message),
        Err(_) => (String::new(), text),
    }
}

fn form(service: Service, action: &str, parameters: &[(String, String)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action).append_pair("Version", service.profile().version);
    form.extend_pairs(parameters).finish()
}

/// Signatures are checked against the service's clock: they stay on real time whatever the engine's clock shows.
#[expect(clippy::disallowed_methods, reason = "signatures are made of real time, in this one place")]
pub(super) fn signing_time() -> SystemTime {
    SystemTime::now()
}

fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn unreadable(action: &str, why: &str) -> AwsFailure {
    AwsFailure::unanswered(action, format!("the answer cannot be read: {why}"))
}

fn read_xml<T: DeserializeOwned>(action: &str, text: &str) -> Result<T, AwsFailure> {
    quick_xml::de::from_str(text).map_err(|error| unreadable(action, &error.to_string()))
}

/// A list as the Query protocol writes it: `<member>…</member>`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Members<T> {
    #[serde(rename = "member", default = "Vec::new")]
    pub(super) member: Vec<T>,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { member: Vec::new() }
    }
}

/// A tag as the Query protocol writes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct XmlTag {
    #[serde(rename = "Key")]
    pub(super) key: String,
    #[serde(rename = "Value", default)]
    pub(super) value: String,
}

/// `(name, value)` for Query parameters.
pub(super) fn parameter(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}
