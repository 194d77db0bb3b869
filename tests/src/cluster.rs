//! A client of an environment's API server that is not platflow's: the kubeconfig that the operator gets, and plain HTTP.

use crate::TestEnvironment;
use serde_json::{Value, json};

/// The way into a cluster, as `platflow kubeconfig` tells it.
#[derive(Debug)]
pub struct Cluster {
    server: String,
    token: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

impl Cluster {
    /// Into the cluster of an environment.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn of(place: &TestEnvironment, environment: &str) -> Self {
        // Another test of this process may have been first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = place.run(&["kubeconfig", environment]).expect_code(0).json();
        let credential = place.run(&["k8s-token", "--environment", environment]).expect_code(0).json();
        let authority = text(&config, "/clusters/0/cluster/certificate-authority-data");
        let pem = data_encoding::BASE64.decode(authority.as_bytes()).expect("base64");
        let authority = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let http = reqwest::Client::builder().tls_certs_only([authority]).build().expect("a client");
        Self {
            server: text(&config, "/clusters/0/cluster/server").to_owned(),
            token: text(&credential, "/status/token").to_owned(),
            http,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Value {
        self.runtime.block_on(async {
            let answer = request.bearer_auth(&self.token).send().await.expect("an answer");
            let status = answer.status();
            let text = answer.text().await.expect("a body");
            assert!(status.is_success(), "{status}: {text}");
            serde_json::from_str(&text).expect("JSON")
        })
    }

    /// What lies under a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.answer(self.http.get(format!("{}{path}", self.server)))
    }

    /// Makes something.
    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.answer(self.http.post(format!("{}{path}", self.server)).json(object))
    }

    /// Takes something away.
    pub fn delete(&self, path: &str) -> Value {
        self.answer(self.http.delete(format!("{}{path}", self.server)))
    }

    /// Changes something by a merge patch.
    pub fn change(&self, path: &str, change: &Value) -> Value {
        let request = self.http.patch(format!("{}{path}", self.server)).body(change.to_string());
        self.answer(request.header("content-type", "application/merge-patch+json"))
    }

    /// Claims a volume, as a database operator would, and does not wait for it.
    pub fn claim(&self, namespace: &str, name: &str, size: &str) {
        // The scheduler's word, so that no pod is needed to have the volume made.
        let node = json!({"volume.kubernetes.io/selected-node": "any"});
        self.create(
            &format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"),
            &json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "annotations": node},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
            }),
        );
    }

    /// The name of the volume behind a claim; nothing until there is one.
    #[must_use]
    pub fn volume_of(&self, namespace: &str, claim: &str) -> Option<String> {
        let claim = self.get(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"));
        claim.pointer("/spec/volumeName").and_then(Value::as_str).map(str::to_owned)
    }
}
