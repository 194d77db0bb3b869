//! Things put into a world by hand, for tests: what controllers and half-done deletions leave behind, and resources of
//! somebody else that are in the way. What is made here looks as it does in life.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::aws::balancers::{self, NewBalancer};
use crate::aws::{Record, volume_body};
use crate::clock::timestamp;
use crate::world::World;

/// The kinds of leftovers.
pub(crate) const LEAKS: [&str; 14] = [
    "service_load_balancer",
    "ingress_load_balancer",
    "target_group",
    "controller_security_group",
    "cni_interface",
    "cluster_security_group",
    "remote_access_security_group",
    "csi_volume",
    "csi_snapshot",
    "log_group",
    "oidc_provider",
    "elastic_ip",
    "node_group_remains",
    "kms_alias",
];

/// The kinds of resources of somebody else.
pub(crate) const FOREIGN: [&str; 11] = [
    "vpc",
    "security_group",
    "network_interface",
    "load_balancer",
    "volume",
    "iam_role",
    "kms_alias",
    "eks_cluster",
    "log_group",
    "namespace",
    "elastic_ip",
];

/// Why something could not be put into the world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotPlant {
    /// No such kind.
    #[error("{0:?} is not among {list}", list = .1.join(", "))]
    Unknown(String, &'static [&'static str]),
    /// It hangs on something that is not there.
    #[error("there is no {0} to hang it on")]
    Nothing(&'static str),
}

/// Where leftovers are made: the cluster, its VPC and a subnet.
struct Place {
    cluster: Record,
    vpc: String,
    subnet: Record,
    tags: BTreeMap<String, String>,
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl World {
    fn place(&self) -> Result<Place, CannotPlant> {
        let mut clusters = self.aws.records().filter(|record| record.kind == "eks:cluster").peekable();
        clusters.peek().ok_or(CannotPlant::Nothing("cluster"))?;
        let subnet_of = |cluster: &Record| {
            let subnet = cluster.text("/resourcesVpcConfig/subnetIds/0");
            self.aws.get("ec2:subnet", &cluster.region, subnet).cloned()
        };
        // A stranger's cluster has no subnet of this world.
        let standing = clusters.find_map(|cluster| Some((cluster.clone(), subnet_of(cluster)?)));
        let (cluster, subnet) = standing.ok_or(CannotPlant::Nothing("subnet"))?;
        let owner = format!("kubernetes.io/cluster/{}", cluster.id);
        Ok(Place {
            vpc: cluster.text("/resourcesVpcConfig/vpcId").to_owned(),
            subnet,
            tags: tags(&[(&owner, "owned")]),
            cluster,
        })
    }

    fn keep(
        &mut self,
        kind: &str,
        id: &str,
        region: &str,
        body: Value,
        tags: BTreeMap<String, String>,
        now_ms: i64,
    ) -> String {
        self.aws.put(Record {
            kind: kind.to_owned(),
            id: id.to_owned(),
            region: region.to_owned(),
            created_ms: now_ms,
            body,
            tags,
            system: false,
            due_ms: None,
            next: String::new(),
        });
        id.to_owned()
    }

    fn fresh(&mut self, prefix: &str) -> String {
        format!("{prefix}-{}", self.aws.hex(17))
    }

    /// Makes one kind of leftover; answers the ids.
    pub(crate) fn leak(&mut self, kind: &str, now_ms: i64) -> Result<Vec<String>, CannotPlant> {
        if !LEAKS.contains(&kind) {
            return Err(CannotPlant::Unknown(kind.to_owned(), &LEAKS));
        }
        let place = self.place()?;
        let region = place.cluster.region.clone();
        let name = place.cluster.id.clone();
        let balancer = |kind: &'static str, name: &str, tags: BTreeMap<String, String>| NewBalancer {
            region: region.clone(),
            vpc: place.vpc.clone(),
            kind,
            name: name.to_owned(),
            tags,
        };
        let mut of_service = place.tags.clone();
        of_service.insert("kubernetes.io/service-name".to_owned(), "platform-apps/shop".to_owned());
        Ok(match kind {
            "service_load_balancer" => {
                let mut made = balancers::raise(&mut self.aws, now_ms, &balancer("network", "", of_service.clone())).1;
                made.extend(balancers::raise(&mut self.aws, now_ms, &balancer("classic", "", of_service)).1);
                made
            }
            "ingress_load_balancer" => {
                let tags = tags(&[("elbv2.k8s.aws/cluster", &name), ("ingress.k8s.aws/stack", "platform-apps/shop")]);
                balancers::raise(&mut self.aws, now_ms, &balancer("application", "k8s-platform-shop-0b7c6e", tags)).1
            }
            "target_group" => {
                let tags = tags(&[("elbv2.k8s.aws/cluster", &name)]);
                vec![balancers::lone_targets(&mut self.aws, now_ms, &balancer("", "k8s-platform-shop-1f2e3d", tags))]
            }
            "controller_security_group" => self.controller_groups(&place, now_ms),
            "cni_interface" => vec![self.interface(&place, "available", "aws-K8S-i-0123456789abcdef0", now_ms)],
            "cluster_security_group" => {
                if let Some(record) = self.aws.get_mut("eks:cluster", &region, &name) {
                    record.set("_forgets_group", true);
                }
                vec![place.cluster.text("/resourcesVpcConfig/clusterSecurityGroupId").to_owned()]
            }
            "remote_access_security_group" => {
                let tags = tags(&[("eks", "remote-access"), ("eks:nodegroup-name", "system")]);
                vec![self.group(&place, "eks-remoteAccess-1ac2f8d2-0b1e", tags, now_ms)]
            }
            "csi_volume" => {
                let id = self.fresh("vol");
                let body = volume_body(&id, 8, place.subnet.text("/availabilityZone"), now_ms);
                let mut tags = place.tags.clone();
                tags.insert("ebs.csi.aws.com/cluster".to_owned(), "true".to_owned());
                tags.insert("kubernetes.io/created-for/pvc/name".to_owned(), "data-shop-0".to_owned());
                vec![self.keep("ec2:volume", &id, &region, body, tags, now_ms)]
            }
            "csi_snapshot" => {
                let id = self.fresh("snap");
                let mut tags = place.tags.clone();
                tags.insert("ebs.csi.aws.com/cluster".to_owned(), "true".to_owned());
                let started = timestamp(now_ms).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
                let body = json!({"snapshotId": id, "volumeId": "vol-0", "status": "completed", "startTime": started, "volumeSize": 8, "ownerId": self.aws.account()});
                vec![self.keep("ec2:snapshot", &id, &region, body, tags, now_ms)]
            }
            // Made again by the last events of every cluster with control plane logs: nothing has to be added.
            "log_group" => vec![format!("/aws/eks/{name}/cluster")],
            "oidc_provider" => self.dead_provider(&place, now_ms)?,
            "elastic_ip" => self.second_address(&region, now_ms)?,
            "node_group_remains" => self.half_deleted_group(&place, now_ms),
            _ => self.second_alias(&region, now_ms)?,
        })
    }

    fn group(&mut self, place: &Place, name: &str, tags: BTreeMap<String, String>, now_ms: i64) -> String {
        let id = self.fresh("sg");
        let body = json!({
            "groupId": id, "groupName": name, "groupDescription": "made by a controller", "vpcId": place.vpc, "ownerId": self.aws.account(), "ipPermissions": [],
            "ipPermissionsEgress": [{"ipProtocol": "-1", "groups": [], "ipRanges": [{"cidrIp": "0.0.0.0/0"}], "ipv6Ranges": [], "prefixListIds": []}],
        });
        self.keep("ec2:security-group", &id, &place.cluster.region, body, tags, now_ms)
    }

    /// Two groups of the load balancer controller, and rules that tie them to each other and to the cluster's group.
    fn controller_groups(&mut self, place: &Place, now_ms: i64) -> Vec<String> {
        let owned = tags(&[("elbv2.k8s.aws/cluster", &place.cluster.id)]);
        let shared = self.group(place, "k8s-traffic-platform-5d41", owned.clone(), now_ms);
        let own = self.group(place, "k8s-platform-shop-77c1", owned, now_ms);
        let cluster_group = place.cluster.text("/resourcesVpcConfig/clusterSecurityGroupId").to_owned();
        let account = self.aws.account().to_owned();
        for (holder, other) in [(&own, &shared), (&cluster_group, &shared)] {
            let rule = json!({"ipProtocol": "tcp", "fromPort": 8080, "toPort": 8080, "groups": [{"groupId": other, "userId": account}], "ipRanges": [], "ipv6Ranges": [], "prefixListIds": []});
            let record = self.aws.get_mut("ec2:security-group", &place.cluster.region, holder);
            if let Some(rules) = record.and_then(|record| record.body.get_mut("ipPermissions")?.as_array_mut()) {
                rules.push(rule);
            }
        }
        vec![shared, own]
    }

    fn interface(&mut self, place: &Place, status: &str, description: &str, now_ms: i64) -> String {
        let id = self.fresh("eni");
        let group = place.cluster.text("/resourcesVpcConfig/clusterSecurityGroupId").to_owned();
        let mut body = json!({
            "networkInterfaceId": id, "subnetId": place.subnet.id, "vpcId": place.vpc, "availabilityZone": place.subnet.text("/availabilityZone"), "description": description,
            "ownerId": self.aws.account(), "requesterId": self.aws.account(), "requesterManaged": false, "status": status, "interfaceType": "interface",
            "privateIpAddress": "10.0.255.9", "groupSet": [{"groupId": group, "groupName": ""}], "privateIpAddressesSet": [{"privateIpAddress": "10.0.255.9", "primary": true}],
        });
        if status == "in-use" {
            if let Some(fields) = body.as_object_mut() {
                fields.insert("attachment".to_owned(), json!({"attachmentId": "eni-attach-0", "status": "attached", "deviceIndex": 0, "instanceId": "i-0fedcba9876543210", "instanceOwnerId": self.aws.account()}));
                fields.insert("groupSet".to_owned(), json!([]));
            }
            return self.keep("ec2:network-interface", &id, &place.cluster.region, body, BTreeMap::new(), now_ms);
        }
        let tags = tags(&[("node.k8s.amazonaws.com/instance_id", "i-0123456789abcdef0")]);
        self.keep("ec2:network-interface", &id, &place.cluster.region, body, tags, now_ms)
    }

    /// The provider of an earlier cluster of the same step: its issuer is dead.
    fn dead_provider(&mut self, place: &Place, now_ms: i64) -> Result<Vec<String>, CannotPlant> {
        let living = self.aws.records().find(|record| record.kind == "iam:oidc-provider").cloned();
        let living = living.ok_or(CannotPlant::Nothing("OIDC provider"))?;
        let bare = format!("oidc.eks.{}.amazonaws.com/id/{}", place.cluster.region, self.aws.hex(32).to_uppercase());
        let arn = format!("arn:aws:iam::{}:oidc-provider/{bare}", self.aws.account());
        let mut body = living.body;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("Url".to_owned(), json!(bare));
        }
        Ok(vec![self.keep("iam:oidc-provider", &arn, "global", body, living.tags, now_ms)])
    }

    /// The address that an earlier, failed NAT gateway of the same step had.
    fn second_address(&mut self, region: &str, now_ms: i64) -> Result<Vec<String>, CannotPlant> {
        let ours = |record: &&Record| record.kind == "ec2:elastic-ip" && record.tags.contains_key("platflow:step");
        let first = self.aws.records().find(ours).cloned().ok_or(CannotPlant::Nothing("elastic address"))?;
        let id = self.fresh("eipalloc");
        let body = json!({"allocationId": id, "publicIp": "198.19.255.1", "domain": "vpc", "networkBorderGroup": region, "publicIpv4Pool": "amazon"});
        Ok(vec![self.keep("ec2:elastic-ip", &id, region, body, first.tags, now_ms)])
    }

    /// The group of machines and the launch template that EKS made for a node group, after half a deletion.
    fn half_deleted_group(&mut self, place: &Place, now_ms: i64) -> Vec<String> {
        let region = place.cluster.region.clone();
        let eks = tags(&[("eks:cluster-name", &place.cluster.id), ("eks:nodegroup-name", "data")]);
        let eni = self.interface(place, "in-use", "", now_ms);
        let machine = self.fresh("i");
        let created = timestamp(now_ms).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
        let body = json!({
            "instanceId": machine, "instanceType": "r6g.large", "imageId": "ami-00000000000000001", "instanceState": {"code": 16, "name": "running"}, "subnetId": place.subnet.id,
            "vpcId": place.vpc, "placement": {"availabilityZone": place.subnet.text("/availabilityZone")}, "launchTime": created, "groupSet": [], "_eni": eni, "_volume": "",
        });
        self.keep("ec2:instance", &machine, &region, body, eks.clone(), now_ms);
        if let Some(record) = self.aws.get_mut("ec2:network-interface", &region, &eni) {
            record.set(
                "attachment",
                json!({"attachmentId": "eni-attach-1", "status": "attached", "deviceIndex": 0, "instanceId": machine}),
            );
        }
        let suffix = self.aws.uuid();
        let group = format!("eks-data-{suffix}");
        let body = json!({
            "AutoScalingGroupName": group, "AutoScalingGroupARN": format!("arn:aws:autoscaling:{region}:{}:autoScalingGroup:{suffix}:autoScalingGroupName/{group}", self.aws.account()),
            "MinSize": 1, "MaxSize": 1, "DesiredCapacity": 1, "CreatedTime": created, "VPCZoneIdentifier": place.subnet.id,
            "Instances": [{"InstanceId": machine, "AvailabilityZone": place.subnet.text("/availabilityZone"), "LifecycleState": "InService", "HealthStatus": "Healthy", "ProtectedFromScaleIn": false}],
        });
        self.keep("autoscaling:group", &group, &region, body, eks.clone(), now_ms);
        let template = self.fresh("lt");
        let body = json!({"launchTemplateId": template, "launchTemplateName": format!("eks-{suffix}"), "createTime": created, "createdBy": "AWSServiceRoleForAmazonEKSNodegroup", "defaultVersionNumber": 1, "latestVersionNumber": 1, "_versions": []});
        self.keep("ec2:launch-template", &template, &region, body, eks, now_ms);
        vec![group, template, machine, eni]
    }

    /// An alias that still points to a key of the same step which waits for its deletion.
    fn second_alias(&mut self, region: &str, now_ms: i64) -> Result<Vec<String>, CannotPlant> {
        let ours = |record: &&Record| record.kind == "kms:key" && record.tags.contains_key("platflow:step");
        let key = self.aws.records().find(ours).cloned().ok_or(CannotPlant::Nothing("key"))?;
        let id = self.aws.uuid();
        let mut body = key.body;
        let due_ms = now_ms + 7 * 86_400_000;
        if let Some(fields) = body.as_object_mut() {
            let arn = format!("arn:aws:kms:{region}:{}:key/{id}", self.aws.account());
            let date = json!(due_ms / 1_000);
            for (name, value) in [
                ("KeyId", json!(id)),
                ("Arn", json!(arn)),
                ("KeyState", json!("PendingDeletion")),
                ("Enabled", json!(false)),
                ("DeletionDate", date),
            ] {
                fields.insert(name.to_owned(), value);
            }
        }
        self.keep("kms:key", &id, region, body, key.tags, now_ms);
        if let Some(record) = self.aws.get_mut("kms:key", region, &id) {
            record.then(due_ms, "gone");
        }
        let alias = "alias/platflow/former".to_owned();
        let arn = format!("arn:aws:kms:{region}:{}:{alias}", self.aws.account());
        let body = json!({"AliasName": alias, "AliasArn": arn, "TargetKeyId": id, "CreationDate": now_ms / 1_000});
        Ok(vec![self.keep("kms:alias", &alias, region, body, BTreeMap::new(), now_ms)])
    }

    /// Makes a resource of somebody else; answers the ids.
    pub(crate) fn plant_foreign(&mut self, given: &Value, now_ms: i64) -> Result<Vec<String>, CannotPlant> {
        let word = |name: &str, usual: &str| {
            given.get(name).and_then(Value::as_str).filter(|word| !word.is_empty()).unwrap_or(usual).to_owned()
        };
        let kind = word("type", "");
        let known = FOREIGN.iter().find(|known| **known == kind);
        let Some(kind) = known else { return Err(CannotPlant::Unknown(kind, &FOREIGN)) };
        let (region, name) = (word("region", "us-east-1"), word("name", "somebody-elses"));
        let theirs = tags(&[("Name", &name), ("owner", "team-blue")]);
        let account = self.aws.account().to_owned();
        let iso = timestamp(now_ms).strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
        Ok(vec![match *kind {
            "vpc" => {
                let id = self.fresh("vpc");
                let cidr = word("cidr", "10.0.0.0/16");
                let body = json!({"vpcId": id, "ownerId": account, "cidrBlock": cidr, "state": "available", "isDefault": false, "_dns": {"enableDnsSupport": true, "enableDnsHostnames": false}});
                self.keep("ec2:vpc", &id, &region, body, theirs, now_ms)
            }
            "iam_role" => {
                let arn = format!("arn:aws:iam::{account}:role/{name}");
                let body = json!({"Path": "/", "RoleName": name, "RoleId": "AROASOMEBODYELSE", "Arn": arn, "CreateDate": iso, "AssumeRolePolicyDocument": "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%5D%7D", "Description": "", "MaxSessionDuration": 3600, "_attached": [], "_inline": {}});
                self.keep("iam:role", &name, "global", body, theirs, now_ms)
            }
            "log_group" => {
                let arn = format!("arn:aws:logs:{region}:{account}:log-group:{name}");
                let body = json!({"logGroupName": name, "creationTime": now_ms, "arn": format!("{arn}:*"), "logGroupArn": arn, "storedBytes": 1_024});
                self.keep("logs:log-group", &name, &region, body, theirs, now_ms)
            }
            "kms_alias" => {
                let id = self.aws.uuid();
                let body = json!({"KeyId": id, "Arn": format!("arn:aws:kms:{region}:{account}:key/{id}"), "AWSAccountId": account, "Description": "", "Enabled": true, "KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT", "KeyManager": "CUSTOMER", "Origin": "AWS_KMS", "MultiRegion": false, "CreationDate": now_ms / 1_000, "_rotation": false});
                self.keep("kms:key", &id, &region, body, theirs, now_ms);
                let body = json!({"AliasName": name, "AliasArn": format!("arn:aws:kms:{region}:{account}:{name}"), "TargetKeyId": id, "CreationDate": now_ms / 1_000});
                self.keep("kms:alias", &name, &region, body, BTreeMap::new(), now_ms)
            }
            "eks_cluster" => {
                let body = json!({"name": name, "arn": format!("arn:aws:eks:{region}:{account}:cluster/{name}"), "createdAt": now_ms / 1_000, "version": "1.35", "platformVersion": "eks.1", "roleArn": format!("arn:aws:iam::{account}:role/team-blue"), "resourcesVpcConfig": {"subnetIds": [], "securityGroupIds": [], "vpcId": "vpc-0", "endpointPublicAccess": true, "endpointPrivateAccess": false, "publicAccessCidrs": ["0.0.0.0/0"]}, "logging": {"clusterLogging": []}, "encryptionConfig": [], "accessConfig": {"authenticationMode": "API"}, "upgradePolicy": {"supportType": "STANDARD"}, "deletionProtection": false, "health": {"issues": []}, "status": "ACTIVE"});
                self.keep("eks:cluster", &name, &region, body, theirs, now_ms)
            }
            "elastic_ip" => {
                let id = self.fresh("eipalloc");
                let body = json!({"allocationId": id, "publicIp": "198.19.255.2", "domain": "vpc", "networkBorderGroup": region, "publicIpv4Pool": "amazon"});
                self.keep("ec2:elastic-ip", &id, &region, body, theirs, now_ms)
            }
            inside => return self.plant_inside(inside, &name, theirs, now_ms),
        }])
    }

    /// Resources of somebody else inside of our VPC or cluster.
    fn plant_inside(
        &mut self,
        kind: &str,
        name: &str,
        theirs: BTreeMap<String, String>,
        now_ms: i64,
    ) -> Result<Vec<String>, CannotPlant> {
        let place = self.place()?;
        let region = place.cluster.region.clone();
        Ok(match kind {
            "security_group" => vec![self.group(&place, name, theirs, now_ms)],
            "network_interface" => {
                let id = self.interface(&place, "in-use", &format!("of {name}"), now_ms);
                if let Some(record) = self.aws.get_mut("ec2:network-interface", &region, &id) {
                    record.tags = theirs;
                }
                vec![id]
            }
            "load_balancer" => {
                let new = NewBalancer {
                    region,
                    vpc: place.vpc.clone(),
                    kind: "network",
                    name: name.to_owned(),
                    tags: theirs,
                };
                balancers::raise(&mut self.aws, now_ms, &new).1
            }
            "volume" => {
                let id = self.fresh("vol");
                let body = volume_body(&id, 8, place.subnet.text("/availabilityZone"), now_ms - 30 * 86_400_000);
                // It carries the cluster's name, which alone proves nothing: it is older than the cluster.
                let mut tags = theirs;
                tags.extend(place.tags);
                vec![self.keep("ec2:volume", &id, &region, body, tags, now_ms)]
            }
            _ => {
                self.kubernetes.plant_namespace(&place.cluster.id, name, timestamp(now_ms));
                vec![name.to_owned()]
            }
        })
    }
}
