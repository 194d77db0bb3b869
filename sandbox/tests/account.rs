//! The simulated account as clients meet it: raw requests in, answers out, time moved by hand. No network.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test by panicking"
)]

use std::collections::BTreeMap;

use platflow_sandbox::aws::{AwsResponse, RawRequest, parse};
use platflow_sandbox::world::World;
use serde_json::{Value, json};

struct Client {
    world: World,
    now_ms: i64,
}

impl Client {
    fn new() -> Self {
        Self { world: World::new(7), now_ms: 1_795_000_000_000 }
    }

    fn send(&mut self, service: &str, mut raw: RawRequest) -> AwsResponse {
        let credential = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDSANDBOX/20261122/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=00"
        );
        raw.headers.insert("authorization".to_owned(), credential);
        let request = parse(&raw, self.world.aws.account());
        self.world.call(&request, self.now_ms).response
    }

    fn query(&mut self, service: &str, action: &str, parameters: &[(&str, &str)]) -> AwsResponse {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action).extend_pairs(parameters);
        let raw = RawRequest {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            body: form.finish().into_bytes(),
            ..RawRequest::default()
        };
        self.send(service, raw)
    }

    fn rest(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let raw = RawRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            body,
            headers: BTreeMap::new(),
            query: String::new(),
        };
        let answer = self.send("eks", raw);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    fn pass(&mut self, seconds: i64) {
        self.now_ms += seconds * 1000;
        self.world.advance(self.now_ms);
    }

    fn make(&mut self, action: &str, parameters: &[(&str, &str)], field: &str) -> String {
        let answer = self.query("ec2", action, parameters);
        assert_eq!(answer.status, 200, "{action}: {}", answer.body);
        between(&answer.body, field)
    }

    fn left(&self) -> Vec<Value> {
        let listing = self.world.listing(self.now_ms);
        listing["resources"].as_array().unwrap().iter().filter(|one| one.get("system").is_none()).cloned().collect()
    }
}

fn between(body: &str, field: &str) -> String {
    let (_, rest) = body.split_once(&format!("<{field}>")).unwrap_or_else(|| panic!("no {field} in {body}"));
    rest.split_once('<').unwrap().0.to_owned()
}

fn network(client: &mut Client) -> (String, [String; 2], [String; 3]) {
    let vpc = client.make("CreateVpc", &[("CidrBlock", "10.0.0.0/16")], "vpcId");
    let a = client.make(
        "CreateSubnet",
        &[("VpcId", &vpc), ("CidrBlock", "10.0.0.0/20"), ("AvailabilityZoneId", "use1-az1")],
        "subnetId",
    );
    let b = client.make(
        "CreateSubnet",
        &[("VpcId", &vpc), ("CidrBlock", "10.0.16.0/20"), ("AvailabilityZoneId", "use1-az2")],
        "subnetId",
    );
    let gateway = client.make("CreateInternetGateway", &[], "internetGatewayId");
    client.make("AttachInternetGateway", &[("InternetGatewayId", &gateway), ("VpcId", &vpc)], "return");
    let table = client.make("CreateRouteTable", &[("VpcId", &vpc), ("ClientToken", "t")], "routeTableId");
    client.make(
        "CreateRoute",
        &[("RouteTableId", &table), ("DestinationCidrBlock", "0.0.0.0/0"), ("GatewayId", &gateway)],
        "return",
    );
    let mut associations = Vec::new();
    for subnet in [&a, &b] {
        associations.push(client.make(
            "AssociateRouteTable",
            &[("RouteTableId", &table), ("SubnetId", subnet)],
            "associationId",
        ));
    }
    (vpc, [a, b], [gateway, table, associations.join(" ")])
}

fn role(client: &mut Client, name: &str, service: &str) -> String {
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}).to_string();
    let answer = client.query("iam", "CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", &trust)]);
    between(&answer.body, "Arn")
}

/// The same token and body give the same gateway again; the same token with another body is refused.
#[test]
fn client_tokens_are_honoured() {
    let mut client = Client::new();
    let (_, [a, b], _) = network(&mut client);
    let address = client.make("AllocateAddress", &[("Domain", "vpc")], "allocationId");
    let wanted = [("SubnetId", a.as_str()), ("AllocationId", address.as_str()), ("ClientToken", "once")];
    let first = client.make("CreateNatGateway", &wanted, "natGatewayId");
    assert_eq!(client.make("CreateNatGateway", &wanted, "natGatewayId"), first);
    let other = client.query(
        "ec2",
        "CreateNatGateway",
        &[("SubnetId", b.as_str()), ("AllocationId", address.as_str()), ("ClientToken", "once")],
    );
    assert_eq!(other.code.as_deref(), Some("IdempotentParameterMismatch"));
    client.pass(100);
    let shown =
        client.query("ec2", "DescribeNatGateways", &[("Filter.1.Name", "state"), ("Filter.1.Value.1", "available")]);
    assert_eq!(between(&shown.body, "natGatewayId"), first);
    let unknown = client.query("ec2", "DescribeVpcs", &[("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")]);
    assert_eq!(unknown.code.as_deref(), Some("InvalidParameterValue"));
    assert_eq!(client.query("ec2", "CreateVpc", &[("CidrBlock", "10.9.0.0/16"), ("DryRun", "true")]).status, 412);
}

/// Machines and nodes of the group `apps` follow its wanted size, up and down; it has three at the beginning and the end.
fn scales(client: &mut Client) {
    for (desired, max) in [(5, 5), (2, 4), (3, 4)] {
        let scaling = json!({"scalingConfig": {"minSize": 1, "desiredSize": desired, "maxSize": max}});
        assert_eq!(client.rest("POST", "/clusters/c/node-groups/apps/update-config", &scaling).0, 200);
        client.pass(90);
        let (_, scaled) = client.rest("GET", "/clusters/c/node-groups/apps", &Value::Null);
        assert_eq!(scaled["nodegroup"]["status"], "ACTIVE", "{scaled}");
        let nodes = client.world.kubernetes.resources().iter().filter(|one| one.kind == "Node").count();
        let machines = client.world.aws.records().filter(|record| record.kind == "ec2:instance").count();
        assert_eq!((nodes, machines), (desired, desired), "machines and nodes follow the wanted size");
    }
}

/// A whole cluster with machines comes up in simulated minutes, its Kubernetes side hears of it, what is in use cannot be
/// deleted, and deleting all of it in order leaves nothing.
#[test]
fn a_cluster_comes_and_goes_without_residue() {
    let mut client = Client::new();
    let (vpc, [a, b], [gateway, table, associations]) = network(&mut client);
    let (control, machines) =
        (role(&mut client, "control", "eks.amazonaws.com"), role(&mut client, "machines", "ec2.amazonaws.com"));
    let wanted = json!({"name": "c", "version": "1.35", "roleArn": control, "resourcesVpcConfig": {"subnetIds": [a, b]}, "accessConfig": {"authenticationMode": "API"}, "clientRequestToken": "x"});
    let (status, early) = client.rest("POST", "/clusters", &wanted);
    assert_eq!(
        (status, early["__type"].as_str()),
        (400, Some("InvalidParameterException")),
        "a new role is not known everywhere at once"
    );
    client.pass(10);
    assert_eq!(client.rest("POST", "/clusters", &wanted).0, 200);
    client.pass(540);
    let (_, cluster) = client.rest("GET", "/clusters/c", &Value::Null);
    assert_eq!(cluster["cluster"]["status"], "ACTIVE");
    assert!(cluster["cluster"]["certificateAuthority"]["data"].as_str().is_some_and(|data| !data.is_empty()));
    assert_eq!(client.rest("POST", "/clusters/c/addons", &json!({"addonName": "vpc-cni"})).0, 200);
    let group = json!({"nodegroupName": "apps", "nodeRole": machines, "subnets": [a, b], "instanceTypes": ["t3.large"], "scalingConfig": {"minSize": 1, "desiredSize": 3, "maxSize": 4}});
    assert_eq!(client.rest("POST", "/clusters/c/node-groups", &group).0, 200);
    client.pass(200);
    let (_, made) = client.rest("GET", "/clusters/c/node-groups/apps", &Value::Null);
    assert_eq!(made["nodegroup"]["status"], "ACTIVE", "{made}");
    let nodes = client.world.kubernetes.resources().iter().filter(|one| one.kind == "Node").count();
    assert_eq!(nodes, 3);
    scales(&mut client);
    assert_eq!(client.rest("DELETE", "/clusters/c", &Value::Null).1["__type"], "ResourceInUseException");
    assert_eq!(client.query("ec2", "DeleteSubnet", &[("SubnetId", &a)]).code.as_deref(), Some("DependencyViolation"));
    client.rest("DELETE", "/clusters/c/node-groups/apps", &Value::Null);
    client.pass(200);
    assert_eq!(client.rest("DELETE", "/clusters/c", &Value::Null).0, 200);
    client.pass(200);
    assert_eq!(client.query("ec2", "DeleteVpc", &[("VpcId", &vpc)]).code.as_deref(), Some("DependencyViolation"));
    for association in associations.split(' ') {
        client.make("DisassociateRouteTable", &[("AssociationId", association)], "return");
    }
    client.make("DeleteRouteTable", &[("RouteTableId", &table)], "return");
    // What the network add-on attached outlives its machine, and keeps subnet and security group.
    let available: Vec<String> = client
        .world
        .aws
        .records()
        .filter(|record| record.kind == "ec2:network-interface" && record.text("/status") == "available")
        .map(|record| record.id.clone())
        .collect();
    assert_eq!(available.len(), 6);
    assert_eq!(client.query("ec2", "DeleteSubnet", &[("SubnetId", &a)]).code.as_deref(), Some("DependencyViolation"));
    for eni in &available {
        client.make("DeleteNetworkInterface", &[("NetworkInterfaceId", eni)], "return");
    }
    let groups: Vec<String> = client
        .world
        .aws
        .records()
        .filter(|record| record.text("/groupName").starts_with("eks-cluster-sg-"))
        .map(|record| record.id.clone())
        .collect();
    for group in groups {
        client.make("DeleteSecurityGroup", &[("GroupId", &group)], "return");
    }
    client.make("DeleteSubnet", &[("SubnetId", &a)], "return");
    client.make("DeleteSubnet", &[("SubnetId", &b)], "return");
    client.make("DetachInternetGateway", &[("InternetGatewayId", &gateway), ("VpcId", &vpc)], "return");
    client.make("DeleteInternetGateway", &[("InternetGatewayId", &gateway)], "return");
    client.make("DeleteVpc", &[("VpcId", &vpc)], "return");
    for name in ["control", "machines"] {
        assert_eq!(client.query("iam", "DeleteRole", &[("RoleName", name)]).status, 200);
    }
    assert_eq!(client.left(), Vec::<Value>::new());
}

/// What a world writes, a new process reads back: the same resources, and it goes on with the same ids as if it had never ended.
#[test]
fn a_world_survives_and_seeds_repeat() {
    let (mut client, mut twin) = (Client::new(), Client::new());
    network(&mut client);
    network(&mut twin);
    assert_eq!(client.left(), twin.left());
    let documents = client.world.take_dirty().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    client.world = World::restore(documents, client.now_ms).unwrap();
    assert_eq!(client.left(), twin.left());
    let wanted = [("CidrBlock", "10.1.0.0/16")];
    assert_eq!(client.make("CreateVpc", &wanted, "vpcId"), twin.make("CreateVpc", &wanted, "vpcId"));
}

/// A refused key is refused in the words of each protocol, and a rule refuses exactly the calls it names.
#[test]
fn refusals_speak_the_protocol() {
    let mut client = Client::new();
    client.world.faults.add("ec2:CreateVpc=error:VpcLimitExceeded*1".parse().unwrap());
    assert_eq!(
        client.query("ec2", "CreateVpc", &[("CidrBlock", "10.0.0.0/16")]).code.as_deref(),
        Some("VpcLimitExceeded")
    );
    assert_eq!(client.query("ec2", "CreateVpc", &[("CidrBlock", "10.0.0.0/16")]).status, 200);
    client.world.aws.refuse_key("AKIDSANDBOX", Some("expired"));
    assert_eq!(client.query("ec2", "DescribeVpcs", &[]).code.as_deref(), Some("RequestExpired"));
    assert_eq!(client.rest("GET", "/clusters", &Value::Null).1["__type"], "ExpiredTokenException");
    assert_eq!(client.query("sts", "GetCallerIdentity", &[]).code.as_deref(), Some("ExpiredToken"));
}
