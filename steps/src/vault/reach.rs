//! The way into a cluster: a client of its API server, and a byte stream to a pod's port.

use crate::kubernetes::{Clients, ClusterAccess};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// How the Vault kinds reach a cluster and its pods.
#[async_trait]
pub trait Reach: Send + Sync + 'static {
    /// A client of the cluster's API server.
    ///
    /// # Errors
    /// When endpoint or CA are malformed; nothing was sent.
    fn client(&self, cluster: &ClusterAccess) -> Result<kube::Client, StepError>;

    /// A stream to a port of a pod, by the API server's port-forward.
    ///
    /// # Errors
    /// When the API server refuses, or the pod is not there.
    async fn dial(
        &self,
        cluster: &ClusterAccess,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, StepError> {
        let pods: Api<Pod> = Api::namespaced(self.client(cluster)?, namespace);
        let mut forwarder =
            pods.portforward(pod, &[port]).await.map_err(|error| kube_failure("port-forward", pod, &error))?;
        match forwarder.take_stream(port) {
            Some(stream) => Ok(Box::new(stream)),
            None => {
                Err(StepError::transient(format!("the port-forward to {pod} gave no stream")).leaving(Residue::None))
            }
        }
    }
}

impl Reach for Clients {
    fn client(&self, cluster: &ClusterAccess) -> Result<kube::Client, StepError> {
        self.connect(cluster)
    }
}

/// A failed call to the API server, by class. The residue is unknown unless the server refused.
pub(super) fn kube_failure(what: &str, object: &str, error: &kube::Error) -> StepError {
    let kube::Error::Api(status) = error else {
        return StepError::transient(format!("{what} of {object} got no answer: {error}"));
    };
    let waits = status.message.contains("being terminated") || status.message.contains("service account");
    let class = match status.code {
        401 => ErrorClass::Permission,
        // A quota, an object in a terminating namespace, a default account not made yet: bounded waits, not refusals.
        403 if status.message.contains("exceeded quota") => ErrorClass::Quota,
        403 if waits => ErrorClass::Propagation,
        403 => ErrorClass::Permission,
        409 => ErrorClass::Conflict,
        429 => ErrorClass::Throttled,
        // A 500 without a reason is how an API server words a malformed apply.
        500 if status.reason.is_empty() => ErrorClass::Permanent,
        500..=599 => ErrorClass::Transient,
        _ => ErrorClass::Permanent,
    };
    let residue = if status.code < 500 { Residue::None } else { Residue::Unknown };
    let code = if status.reason.is_empty() { status.code.to_string() } else { status.reason.clone() };
    StepError::new(class, format!("{what} of {object} was refused: {}", status.message))
        .with_code(code)
        .leaving(residue)
}
