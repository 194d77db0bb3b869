//! The sandbox's server inside this process, on a port of its own, with a world that goes with the test.

use platflow_sandbox::server::{Endpoints, ServeOptions, endpoints_file, serve};
use serde_json::Value;
use tempfile::TempDir;

/// A server that runs until the test's runtime ends.
pub(crate) struct Running {
    pub(crate) endpoint: String,
    pub(crate) control: String,
    http: reqwest::Client,
    _directory: TempDir,
}

/// Starts an empty world at a speed.
pub(crate) async fn start(speed: f64) -> Running {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_owned();
    let options = ServeOptions { directory: path.clone(), seed: 1, speed: Some(speed), version: "test".to_owned() };
    let server = tokio::spawn(serve(options));
    let endpoints: Endpoints = loop {
        assert!(!server.is_finished(), "the sandbox ended: {:?}", server.await);
        match std::fs::read(endpoints_file(&path)).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(endpoints) => break endpoints,
            None => tokio::task::yield_now().await,
        }
    };
    let http = reqwest::Client::new();
    Running { endpoint: endpoints.aws_url, control: endpoints.control_url, http, _directory: directory }
}

impl Running {
    /// Asks the control endpoint to change something.
    pub(crate) async fn control(&self, path: &str, body: &Value) -> Value {
        let answer = self.http.post(format!("{}/{path}", self.control)).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// What the control endpoint shows.
    pub(crate) async fn shown(&self, path: &str) -> Value {
        self.http.get(format!("{}/{path}", self.control)).send().await.unwrap().json().await.unwrap()
    }
}
