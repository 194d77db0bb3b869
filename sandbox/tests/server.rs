//! The server process as clients meet it over loopback HTTP: replies lost after their effect, and a world that outlives its server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test by panicking")]

use std::path::Path;
use std::time::Duration;

use platflow_sandbox::control::Sandbox;
use platflow_sandbox::server::{ServeError, ServeOptions, serve};
use serde_json::json;
use tokio::task::JoinHandle;

async fn start(directory: &Path) -> (Sandbox, JoinHandle<Result<(), ServeError>>) {
    let options =
        ServeOptions { directory: directory.to_owned(), seed: 3, speed: Some(0.0), version: "test".to_owned() };
    let server = tokio::spawn(serve(options));
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            tick.tick().await;
            if let Ok(sandbox) = Sandbox::find(directory).await {
                return sandbox;
            }
        }
    });
    (found.await.unwrap(), server)
}

async fn create_vpc(http: &reqwest::Client, url: &str) -> Result<u16, reqwest::Error> {
    let credential =
        "AWS4-HMAC-SHA256 Credential=AKIDSANDBOX/20261122/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=00";
    let request = http.post(url).header("authorization", credential).body("Action=CreateVpc&CidrBlock=10.0.0.0%2F16");
    Ok(request.send().await?.status().as_u16())
}

/// A lost reply is no reply, and its effect is there; what was answered is still there after the server ended.
#[tokio::test]
async fn effects_outlive_replies_and_servers() {
    let directory = tempfile::tempdir().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (sandbox, server) = start(directory.path()).await;
    sandbox.fault("ec2:CreateVpc=lose_reply*1").await.unwrap();
    assert!(create_vpc(&http, &sandbox.endpoints.aws_url).await.is_err());
    assert_eq!(create_vpc(&http, &sandbox.endpoints.aws_url).await.unwrap(), 200);
    let before = sandbox.clock().await.unwrap();
    sandbox.set_clock(None, 60_000).await.unwrap();
    assert!(sandbox.clock().await.unwrap().0 >= before.0 + 60_000);
    let world = sandbox.world().await.unwrap();
    // The process dies without a word: nothing is written after this.
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    let (again, server) = start(directory.path()).await;
    assert_eq!(again.world().await.unwrap(), world);
    let vpcs = world["resources"].as_array().unwrap().iter().filter(|one| one["type"] == json!("ec2:vpc")).count();
    assert_eq!(vpcs, 2);
    assert!(again.fault("nonsense").await.unwrap_err().to_string().contains("SERVICE:OPERATION"));
    again.stop(directory.path()).await.unwrap();
    server.await.unwrap().unwrap();
}
