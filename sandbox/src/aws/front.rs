//! From HTTP to operations and back: which service and operation a request means, and how an answer or a refusal is
//! written in that service's protocol.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::inputs;
use super::wire::{Refusal, tree, xml};

/// An HTTP request, as far as AWS protocols look at it. Header names are lower-case.
#[derive(Debug, Clone, Default)]
pub struct RawRequest {
    /// Method.
    pub method: String,
    /// Path, still encoded.
    pub path: String,
    /// Query string.
    pub query: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

/// One call of an operation.
#[derive(Debug, Clone)]
pub struct AwsRequest {
    /// Signing name of the service.
    pub service: String,
    /// Operation.
    pub operation: String,
    /// Parameters: path, query and body together.
    pub input: Value,
    /// Region of the signature.
    pub region: String,
    /// Access key id of the signature; empty when there is none.
    pub access_key: String,
    /// ARN of the caller.
    pub principal: String,
}

/// An answer to be sent.
#[derive(Debug, Clone)]
pub struct AwsResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
    /// The error code, if it is a refusal.
    pub code: Option<String>,
}

/// Reads a request. The signature itself is not verified.
#[must_use]
pub fn parse(raw: &RawRequest, account: &str) -> AwsRequest {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(raw.query.as_bytes()).into_owned().collect();
    let scope = raw
        .headers
        .get("authorization")
        .and_then(|header| header.split("Credential=").nth(1))
        .map(|rest| rest.split(',').next().unwrap_or_default().trim().to_owned())
        .or_else(|| pairs.iter().find(|(name, _)| name == "X-Amz-Credential").map(|(_, value)| value.clone()))
        .unwrap_or_default();
    let mut parts = scope.split('/');
    let access_key = parts.next().unwrap_or_default().to_owned();
    let region = parts.nth(1).unwrap_or("us-east-1").to_owned();
    let service = parts.next().unwrap_or_default().to_owned();
    let (operation, input) = if service == "eks" {
        rest_json(raw, &pairs)
    } else if let Some(target) = raw.headers.get("x-amz-target") {
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        (operation, serde_json::from_slice(&raw.body).unwrap_or_else(|_| json!({})))
    } else {
        let body: Vec<(String, String)> = url::form_urlencoded::parse(&raw.body).into_owned().collect();
        let input = tree(pairs.iter().chain(&body).map(|(name, value)| (name.as_str(), value.as_str())));
        (input.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned(), input)
    };
    AwsRequest {
        service,
        operation,
        input,
        region,
        access_key,
        principal: format!("arn:aws:iam::{account}:user/platflow"),
    }
}

fn rest_json(raw: &RawRequest, pairs: &[(String, String)]) -> (String, Value) {
    let path: Vec<String> = raw
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let mut input: Value = serde_json::from_slice(&raw.body).unwrap_or_else(|_| json!({}));
    if !input.is_object() {
        input = json!({});
    }
    let (operation, names) = route(&raw.method, &path);
    if let Some(fields) = input.as_object_mut() {
        for (name, value) in pairs {
            match fields.get_mut(name) {
                Some(Value::Array(list)) => list.push(json!(value)),
                Some(first) => *first = json!([first.clone(), value]),
                None => {
                    fields.insert(name.clone(), json!(value));
                }
            }
        }
        fields.extend(names.into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
    }
    (operation.to_owned(), input)
}

type Routed<'a> = (&'static str, Vec<(&'static str, &'a str)>);

fn route<'a>(method: &str, path: &[&'a str]) -> Routed<'a> {
    match (method, path) {
        ("POST", ["clusters"]) => ("CreateCluster", vec![]),
        ("GET", ["clusters"]) => ("ListClusters", vec![]),
        ("GET", ["clusters", name]) => ("DescribeCluster", vec![("name", name)]),
        ("DELETE", ["clusters", name]) => ("DeleteCluster", vec![("name", name)]),
        ("POST", ["clusters", name, "update-config"]) => ("UpdateClusterConfig", vec![("name", name)]),
        ("POST", ["clusters", name, "updates"]) => ("UpdateClusterVersion", vec![("name", name)]),
        ("GET", ["clusters", name, "updates"]) => ("ListUpdates", vec![("name", name)]),
        ("GET", ["clusters", name, "updates", id]) => ("DescribeUpdate", vec![("name", name), ("updateId", id)]),
        ("POST", ["clusters", name, "encryption-config", "associate"]) => {
            ("AssociateEncryptionConfig", vec![("clusterName", name)])
        }
        ("GET", ["cluster-versions"]) => ("DescribeClusterVersions", vec![]),
        ("GET", ["access-policies"]) => ("ListAccessPolicies", vec![]),
        ("GET", ["addons", "supported-versions"]) => ("DescribeAddonVersions", vec![]),
        ("GET", ["addons", "configuration-schemas"]) => ("DescribeAddonConfiguration", vec![]),
        ("GET", ["tags", arn]) => ("ListTagsForResource", vec![("resourceArn", arn)]),
        ("POST", ["tags", arn]) => ("TagResource", vec![("resourceArn", arn)]),
        ("DELETE", ["tags", arn]) => ("UntagResource", vec![("resourceArn", arn)]),
        (_, ["clusters", name, "node-groups", rest @ ..]) => node_groups(method, name, rest),
        (_, ["clusters", name, "addons", rest @ ..]) => addons(method, name, rest),
        (_, ["clusters", name, "access-entries", rest @ ..]) => access(method, name, rest),
        _ => ("Unknown", vec![]),
    }
}

fn node_groups<'a>(method: &str, cluster: &'a str, rest: &[&'a str]) -> Routed<'a> {
    let named = |group| vec![("clusterName", cluster), ("nodegroupName", group)];
    match (method, rest) {
        ("POST", []) => ("CreateNodegroup", vec![("clusterName", cluster)]),
        ("GET", []) => ("ListNodegroups", vec![("clusterName", cluster)]),
        ("GET", [group]) => ("DescribeNodegroup", named(group)),
        ("DELETE", [group]) => ("DeleteNodegroup", named(group)),
        ("POST", [group, "update-config"]) => ("UpdateNodegroupConfig", named(group)),
        ("POST", [group, "update-version"]) => ("UpdateNodegroupVersion", named(group)),
        _ => ("Unknown", vec![]),
    }
}

fn addons<'a>(method: &str, cluster: &'a str, rest: &[&'a str]) -> Routed<'a> {
    let named = |addon| vec![("clusterName", cluster), ("addonName", addon)];
    match (method, rest) {
        ("POST", []) => ("CreateAddon", vec![("clusterName", cluster)]),
        ("GET", []) => ("ListAddons", vec![("clusterName", cluster)]),
        ("GET", [addon]) => ("DescribeAddon", named(addon)),
        ("DELETE", [addon]) => ("DeleteAddon", named(addon)),
        ("POST", [addon, "update"]) => ("UpdateAddon", named(addon)),
        _ => ("Unknown", vec![]),
    }
}

fn access<'a>(method: &str, cluster: &'a str, rest: &[&'a str]) -> Routed<'a> {
    let named = |arn| vec![("clusterName", cluster), ("principalArn", arn)];
    match (method, rest) {
        ("POST", []) => ("CreateAccessEntry", vec![("clusterName", cluster)]),
        ("GET", []) => ("ListAccessEntries", vec![("clusterName", cluster)]),
        ("GET", [arn]) => ("DescribeAccessEntry", named(arn)),
        ("DELETE", [arn]) => ("DeleteAccessEntry", named(arn)),
        ("POST", [arn]) => ("UpdateAccessEntry", named(arn)),
        ("POST", [arn, "access-policies"]) => ("AssociateAccessPolicy", named(arn)),
        ("GET", [arn, "access-policies"]) => ("ListAssociatedAccessPolicies", named(arn)),
        ("DELETE", [arn, "access-policies", policy]) => {
            ("DisassociateAccessPolicy", vec![("clusterName", cluster), ("principalArn", arn), ("policyArn", policy)])
        }
        _ => ("Unknown", vec![]),
    }
}

/// Writes an answer in the protocol of its service.
#[must_use]
pub fn render(request: &AwsRequest, answer: Result<Value, Refusal>) -> AwsResponse {
    let request_id = ("x-amzn-requestid", "00000000-0000-4000-8000-000000000000".to_owned());
    match (request.service.as_str(), answer) {
        ("eks", Ok(value)) => reply(200, "application/json", value.to_string(), request_id),
        ("eks", Err(refusal)) => {
            let mut answer = reply(
                refusal.status,
                "application/json",
                json!({"__type": refusal.code, "message": refusal.message}).to_string(),
                request_id,
            );
            answer.headers.push(("x-amzn-errortype", refusal.code.clone()));
            answer.code = Some(refusal.code);
            answer
        }
        ("kms" | "logs" | "servicequotas" | "tagging", Ok(value)) => reply(
            200,
            "application/x-amz-json-1.1",
            if value.is_null() { String::new() } else { value.to_string() },
            request_id,
        ),
        ("kms" | "logs" | "servicequotas" | "tagging", Err(refusal)) => {
            let body = json!({"__type": refusal.code, "message": refusal.message}).to_string();
            AwsResponse {
                code: Some(refusal.code),
                ..reply(refusal.status, "application/x-amz-json-1.1", body, request_id)
            }
        }
        (_, Ok(value)) => {
            let body = xml_answer(request, &value, &request_id.1);
            reply(200, "text/xml;charset=UTF-8", body, request_id)
        }
        (_, Err(refusal)) => {
            let body = xml_refusal(request, &refusal, &request_id.1);
            AwsResponse {
                code: Some(refusal.code),
                ..reply(refusal.status, "text/xml;charset=UTF-8", body, request_id)
            }
        }
    }
}

/// An answer of EC2 or of the Query protocol.
fn xml_answer(request: &AwsRequest, value: &Value, request_id: &str) -> String {
    let (service, name) = (request.service.as_str(), &request.operation);
    let mut inner = String::new();
    let item = if service == "ec2" { "item" } else { "member" };
    xml(&mut inner, value.as_object().unwrap_or(&serde_json::Map::new()), item);
    let space = namespace(service, &request.input);
    if service == "ec2" {
        return format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}Response xmlns=\"{space}\"><requestId>{request_id}</requestId>{inner}</{name}Response>"
        );
    }
    let result = if inputs::is_bare(service, name, &request.input) {
        String::new()
    } else {
        format!("<{name}Result>{inner}</{name}Result>")
    };
    format!(
        "<{name}Response xmlns=\"{space}\">{result}<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
    )
}

/// A refusal of EC2 or of the Query protocol.
fn xml_refusal(request: &AwsRequest, refusal: &Refusal, request_id: &str) -> String {
    let (code, message) =
        (quick_xml::escape::escape(refusal.code.as_str()), quick_xml::escape::escape(refusal.message.as_str()));
    if request.service == "ec2" {
        return format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
        );
    }
    let space = namespace(&request.service, &request.input);
    format!(
        "<ErrorResponse xmlns=\"{space}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
}

/// The XML namespace of a service's documents.
fn namespace(service: &str, input: &Value) -> &'static str {
    match service {
        "ec2" => "http://ec2.amazonaws.com/doc/2016-11-15/",
        "iam" => "https://iam.amazonaws.com/doc/2010-05-08/",
        "autoscaling" => "http://autoscaling.amazonaws.com/doc/2011-01-01/",
        "elasticloadbalancing" if super::balancers::is_classic(input) => {
            "http://elasticloadbalancing.amazonaws.com/doc/2012-06-01/"
        }
        "elasticloadbalancing" => "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
        _ => "https://sts.amazonaws.com/doc/2011-06-15/",
    }
}

fn reply(status: u16, content_type: &str, body: String, request_id: (&'static str, String)) -> AwsResponse {
    AwsResponse { status, headers: vec![("content-type", content_type.to_owned()), request_id], body, code: None }
}
