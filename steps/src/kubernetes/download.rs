//! One https download that is pinned by a digest: what came, or a clear message why nothing did.
//!
//! The pin decides what is accepted; https keeps others from choosing what we download and read, redirects included.

use platflow_engine::failure::{Residue, StepError};
use reqwest::StatusCode;
use reqwest::redirect::{Attempt, Policy};
use std::error::Error;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest manifest that is read: Argo CD's has 2 MB.
pub(super) const MAX_BYTES: usize = 32 << 20;
const MAX_REDIRECTS: usize = 5;

/// How manifests are downloaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Download {
    /// Trusted besides the CAs of this machine. Only tests have one.
    authorities: Vec<reqwest::Certificate>,
}

/// Refused for good: another try would end alike.
fn refused(what: impl Into<String>) -> StepError {
    StepError::permanent(what).leaving(Residue::None)
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.url().scheme() != "https" {
        let text = format!("it redirects to {}, which is not an https address", attempt.url());
        return attempt.error(text);
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("it redirects more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether the other side's certificate was the reason. TLS errors come wrapped in those of I/O, whose source is not what
/// they wrap but the source of that.
fn distrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// What a failed request means.
fn failed(url: &str, error: &reqwest::Error) -> StepError {
    let text = format!("{url} cannot be fetched: {}", innermost(error));
    if error.is_redirect() {
        refused(text).with_remedy("name the address where it is now")
    } else if distrusted(error) {
        refused(text).with_remedy("is it the right address? Then add its CA to those that this machine trusts")
    } else {
        StepError::transient(text).leaving(Residue::None)
    }
}

fn unexpected(url: &str, status: StatusCode) -> StepError {
    let text = format!("{url} cannot be fetched: it answers {status}");
    if status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
        return StepError::transient(text).leaving(Residue::None).with_code(status.as_str());
    }
    refused(text).with_code(status.as_str()).with_remedy("name the address where it is now, or a file")
}

fn too_large(url: &str) -> StepError {
    refused(format!("{url} has more than {MAX_BYTES} bytes"))
}

impl Download {
    /// Trusts one more CA: that of a test's server.
    #[cfg(test)]
    pub(super) fn trusting(certificate: &[u8]) -> Self {
        Self { authorities: reqwest::Certificate::from_pem_bundle(certificate).unwrap() }
    }

    /// The bytes at an https address.
    pub(super) async fn bytes(&self, url: &str) -> Result<Vec<u8>, StepError> {
        if !url.starts_with("https://") {
            return Err(refused(format!("{url} is not an https address")));
        }
        // A second installation is refused, which is what is wanted: the first provider stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut client =
            reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::custom(follow)).retry(reqwest::retry::never());
        if !self.authorities.is_empty() {
            client = client.tls_certs_merge(self.authorities.iter().cloned());
        }
        let client = client.build().map_err(|error| failed(url, &error))?;
        let mut answer = client.get(url).send().await.map_err(|error| failed(url, &error))?;
        if answer.status() != StatusCode::OK {
            return Err(unexpected(url, answer.status()));
        }
        let announced = answer.content_length().and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > MAX_BYTES) {
            return Err(too_large(url));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failed(url, &error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(too_large(url));
            }
        }
        Ok(bytes)
    }
}
