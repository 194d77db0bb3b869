//! Asks the sandbox as another client would, apart from every step: the API server with the certificate and the token that
//! `kubeconfig` and its credential plugin give, EKS over its plain protocol.

use crate::TestEnvironment;
use serde_json::Value;
use std::process::Command;

/// The API server of an environment's cluster.
#[derive(Debug)]
pub struct Kubernetes {
    client: reqwest::Client,
    server: String,
    token: String,
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn builder() -> reqwest::ClientBuilder {
    // The first one of the process stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

async fn answer(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("an answer").error_for_status().expect("a good one");
    answer.json().await.expect("JSON")
}

impl Kubernetes {
    /// With what `platflow kubeconfig` prints, and what the plugin that it names prints.
    ///
    /// # Panics
    /// When either is not what kubectl wants.
    #[must_use]
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "the plugin is started as kubectl would")]
    pub fn of(place: &TestEnvironment, environment: &str) -> Self {
        let config = place.run(&["kubeconfig", environment]).expect_code(0).json();
        let cluster = &config["clusters"][0]["cluster"];
        let plugin = &config["users"][0]["user"]["exec"];
        let arguments: Vec<&str> =
            plugin["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect();
        let mut command = Command::new(plugin["command"].as_str().expect("a program"));
        command.args(arguments).env_clear().env("HOME", place.path()).env("PATH", "/usr/bin:/bin");
        let credential = place.finish(command, &["k8s-token", "as kubectl starts it"]).expect_code(0).json();
        assert_eq!(credential["kind"], "ExecCredential");
        assert_eq!(credential["apiVersion"], plugin["apiVersion"]);
        let authority = decoded(cluster["certificate-authority-data"].as_str().expect("a certificate"));
        let authority = reqwest::Certificate::from_pem(&authority).expect("a certificate");
        let client = builder().tls_certs_only([authority]).build().expect("a client");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        Self { client, server: text(&cluster["server"]), token: text(&credential["status"]["token"]) }
    }

    /// What is at a path.
    ///
    /// # Panics
    /// When the server does not answer, or not well.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        block_on(answer(self.client.get(format!("{}{path}", self.server)).bearer_auth(&self.token)))
    }

    /// The items of a list.
    ///
    /// # Panics
    /// When it is no list.
    #[must_use]
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.get(path)["items"].as_array().expect("a list").clone()
    }
}

/// Base64, as Kubernetes writes certificates.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(((bits >> held) & 0xff) as u8);
        }
    }
    bytes
}

/// What EKS of the sandbox answers at a path, such as `/cluster-versions`.
///
/// # Panics
/// When it does not answer, or not well.
#[must_use]
#[track_caller]
pub fn eks(place: &TestEnvironment, path: &str) -> Value {
    let sandbox = place.run(&["sandbox", "status", "--output", "json"]).expect_code(0).json();
    let url = format!("{}{path}", sandbox["aws_url"].as_str().expect("an address"));
    // The sandbox reads whose a request is, and for which service; it does not verify the signature.
    let credential = "AWS4-HMAC-SHA256 Credential=AKIAPLATFLOWSANDBOX0/20261122/us-east-1/eks/aws4_request, SignedHeaders=host, Signature=00";
    let client = builder().build().expect("a client");
    block_on(answer(client.get(url).header("authorization", credential)))
}
