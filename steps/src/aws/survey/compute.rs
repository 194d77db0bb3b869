//! EC2's part of the search: by our tag, in VPCs that are gone, and by the tag that clusters put on what they make.

use super::super::ec2::{Filters, filter, sdk_filters, tag_map};
use super::super::failure::AwsFailure;
use super::super::ownership::UID;
use super::{Search, Shown};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{InstanceStateName, NatGatewayState, NetworkInterface, VpcEndpoint};
use platflow_engine::failure::StepError;

fn moment(at: Option<&DateTime>) -> Option<jiff::Timestamp> {
    at.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok())
}

fn shown(resource: &'static str, id: Option<&str>, tags: &[aws_sdk_ec2::types::Tag], note: String) -> Shown {
    Shown { resource, id: id.unwrap_or_default().to_owned(), tags: tag_map(tags), created_at: None, note }
}

fn place(vpc: Option<&str>) -> String {
    vpc.map_or_else(String::new, |vpc| format!("in {vpc}"))
}

/// Every item of a paged describe call, as [`Shown`].
macro_rules! every {
    ($call:literal, $request:expr, $show:expr) => {{
        let mut found: Vec<Shown> = Vec::new();
        let mut pages = $request.into_paginator().items().send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| AwsFailure::from_sdk($call, &error))?;
            found.extend($show(&item));
        }
        found
    }};
}

fn interface(one: &NetworkInterface) -> Option<Shown> {
    let part = |value: Option<&str>| value.filter(|text| !text.is_empty()).unwrap_or("none").to_owned();
    let instance = one.attachment().and_then(|attachment| attachment.instance_id());
    let note = format!(
        "{}, {}, requester {}, instance {}",
        place(one.vpc_id()),
        part(one.description()),
        part(one.requester_id()),
        part(instance)
    );
    Some(shown("ec2:network-interface", one.network_interface_id(), one.tag_set(), note))
}

fn endpoint(one: &VpcEndpoint) -> Option<Shown> {
    let dead = one.state().is_some_and(|state| state.as_str().eq_ignore_ascii_case("deleted"));
    let note = format!("{}, to {}", place(one.vpc_id()), one.service_name().unwrap_or("unknown"));
    (!dead).then(|| shown("ec2:vpc-endpoint", one.vpc_endpoint_id(), one.tags(), note))
}

impl Search<'_> {
    async fn interfaces(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_network_interfaces().set_filters(sdk_filters(filters));
        Ok(every!("DescribeNetworkInterfaces", request, interface))
    }

    pub(super) async fn groups(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_security_groups().set_filters(sdk_filters(filters));
        Ok(every!("DescribeSecurityGroups", request, |one: &aws_sdk_ec2::types::SecurityGroup| {
            let note = format!("{}, named {}", place(one.vpc_id()), one.group_name().unwrap_or("?"));
            Some(shown("ec2:security-group", one.group_id(), one.tags(), note))
        }))
    }

    pub(super) async fn subnets(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_subnets().set_filters(sdk_filters(filters));
        Ok(every!("DescribeSubnets", request, |one: &aws_sdk_ec2::types::Subnet| {
            Some(shown("ec2:subnet", one.subnet_id(), one.tags(), place(one.vpc_id())))
        }))
    }

    async fn vpcs(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_vpcs().set_filters(sdk_filters(filters));
        Ok(every!("DescribeVpcs", request, |one: &aws_sdk_ec2::types::Vpc| {
            Some(shown("ec2:vpc", one.vpc_id(), one.tags(), String::new()))
        }))
    }

    pub(super) async fn tables(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_route_tables().set_filters(sdk_filters(filters));
        Ok(every!("DescribeRouteTables", request, |one: &aws_sdk_ec2::types::RouteTable| {
            Some(shown("ec2:route-table", one.route_table_id(), one.tags(), place(one.vpc_id())))
        }))
    }

    pub(super) async fn gateways(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_internet_gateways().set_filters(sdk_filters(filters));
        Ok(every!("DescribeInternetGateways", request, |one: &aws_sdk_ec2::types::InternetGateway| {
            let vpc = one.attachments().first().and_then(|attachment| attachment.vpc_id());
            Some(shown("ec2:internet-gateway", one.internet_gateway_id(), one.tags(), place(vpc)))
        }))
    }

    pub(super) async fn nats(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_nat_gateways().set_filter(sdk_filters(filters));
        Ok(every!("DescribeNatGateways", request, |one: &aws_sdk_ec2::types::NatGateway| {
            let alive = one.state() != Some(&NatGatewayState::Deleted);
            alive.then(|| shown("ec2:natgateway", one.nat_gateway_id(), one.tags(), place(one.vpc_id())))
        }))
    }

    pub(super) async fn endpoints(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_vpc_endpoints().set_filters(sdk_filters(filters));
        Ok(every!("DescribeVpcEndpoints", request, endpoint))
    }

    async fn volumes(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_volumes().set_filters(sdk_filters(filters));
        Ok(every!("DescribeVolumes", request, |one: &aws_sdk_ec2::types::Volume| {
            let tags = tag_map(one.tags());
            let claim = ["kubernetes.io/created-for/pvc/namespace", "kubernetes.io/created-for/pvc/name"]
                .map(|key| tags.get(key).map_or("?", String::as_str));
            let note = format!("{} GiB, of the volume claim {}", one.size().unwrap_or_default(), claim.join("/"));
            let created_at = moment(one.create_time());
            Some(Shown { created_at, ..shown("ec2:volume", one.volume_id(), one.tags(), note) })
        }))
    }

    async fn snapshots(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_snapshots().owner_ids("self").set_filters(sdk_filters(filters));
        Ok(every!("DescribeSnapshots", request, |one: &aws_sdk_ec2::types::Snapshot| {
            let note = format!("of volume {}", one.volume_id().unwrap_or("unknown"));
            let created_at = moment(one.start_time());
            Some(Shown { created_at, ..shown("ec2:snapshot", one.snapshot_id(), one.tags(), note) })
        }))
    }

    async fn templates(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_launch_templates().set_filters(sdk_filters(filters));
        Ok(every!("DescribeLaunchTemplates", request, |one: &aws_sdk_ec2::types::LaunchTemplate| {
            let note = format!("named {}", one.launch_template_name().unwrap_or("?"));
            let created_at = moment(one.create_time());
            Some(Shown { created_at, ..shown("ec2:launch-template", one.launch_template_id(), one.tags(), note) })
        }))
    }

    pub(super) async fn instances(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let request = self.aws.ec2.describe_instances().set_filters(sdk_filters(filters));
        let mut found = Vec::new();
        let mut pages = request.into_paginator().items().send();
        while let Some(reservation) = pages.next().await {
            let reservation = reservation.map_err(|error| AwsFailure::from_sdk("DescribeInstances", &error))?;
            let alive = |one: &&aws_sdk_ec2::types::Instance| {
                one.state().and_then(|state| state.name()) != Some(&InstanceStateName::Terminated)
            };
            found.extend(reservation.instances().iter().filter(alive).map(|one| {
                let created_at = moment(one.launch_time());
                Shown { created_at, ..shown("ec2:instance", one.instance_id(), one.tags(), place(one.vpc_id())) }
            }));
        }
        Ok(found)
    }

    async fn addresses(&self, filters: Filters) -> Result<Vec<Shown>, StepError> {
        let sending = self.aws.ec2.describe_addresses().set_filters(sdk_filters(filters)).send();
        let answer = super::super::failure::look("DescribeAddresses", sending).await?;
        let show = |one: &aws_sdk_ec2::types::Address| {
            let note = format!("address {}", one.public_ip().unwrap_or("unknown"));
            shown("ec2:elastic-ip", one.allocation_id(), one.tags(), note)
        };
        Ok(answer.addresses().iter().map(show).collect())
    }

    /// Unlike the index of `GetResources`, these answers do not lag.
    pub(super) async fn compute_by_tag(&mut self) -> Result<(), StepError> {
        let uid = self.scope.environment_uid.as_str().to_owned();
        let by_tag = || vec![filter(&format!("tag:{UID}"), uid.clone())];
        let all = [
            ("ec2:DescribeVpcs", self.vpcs(by_tag()).await?),
            ("ec2:DescribeSubnets", self.subnets(by_tag()).await?),
            ("ec2:DescribeSecurityGroups", self.groups(by_tag()).await?),
            ("ec2:DescribeNetworkInterfaces", self.interfaces(by_tag()).await?),
            ("ec2:DescribeRouteTables", self.tables(by_tag()).await?),
            ("ec2:DescribeInternetGateways", self.gateways(by_tag()).await?),
            ("ec2:DescribeNatGateways", self.nats(by_tag()).await?),
            ("ec2:DescribeVpcEndpoints", self.endpoints(by_tag()).await?),
            ("ec2:DescribeAddresses", self.addresses(by_tag()).await?),
            ("ec2:DescribeInstances", self.instances(by_tag()).await?),
            ("ec2:DescribeVolumes", self.volumes(by_tag()).await?),
            ("ec2:DescribeSnapshots", self.snapshots(by_tag()).await?),
            ("ec2:DescribeLaunchTemplates", self.templates(by_tag()).await?),
        ];
        for (call, found) in all {
            self.searched(call, format!("tag {UID}={uid}"), found.len());
            for one in &found {
                self.tagged(one.resource, &one.id, &one.tags);
            }
        }
        Ok(())
    }

    /// A VPC that is gone can hold nothing: what is still shown in it means that it is not gone.
    pub(super) async fn in_vpcs(&mut self) -> Result<(), StepError> {
        let vpcs: Vec<String> = self.gone("aws.vpc", "vpc_id").map(|(_, id)| id.to_owned()).collect();
        for vpc in vpcs {
            let inside = || vec![filter("vpc-id", vpc.clone())];
            let all = [
                ("ec2:DescribeVpcs", self.vpcs(inside()).await?),
                ("ec2:DescribeNetworkInterfaces", self.interfaces(inside()).await?),
                ("ec2:DescribeSecurityGroups", self.groups(inside()).await?),
                ("ec2:DescribeSubnets", self.subnets(inside()).await?),
                ("ec2:DescribeRouteTables", self.tables(inside()).await?),
                ("ec2:DescribeNatGateways", self.nats(inside()).await?),
                ("ec2:DescribeVpcEndpoints", self.endpoints(inside()).await?),
                ("ec2:DescribeInstances", self.instances(inside()).await?),
                ("ec2:DescribeInternetGateways", self.gateways(vec![filter("attachment.vpc-id", vpc.clone())]).await?),
            ];
            for (call, found) in all {
                self.searched(call, format!("in {vpc}"), found.len());
                for one in &found {
                    self.hanging(one);
                }
            }
        }
        Ok(())
    }

    /// What drivers and controllers of a cluster make carries the cluster's name; older than the environment it is
    /// somebody else's.
    pub(super) async fn of_clusters(&mut self) -> Result<(), StepError> {
        let clusters: Vec<String> = self.gone("aws.eks_cluster", "name").map(|(_, name)| name.to_owned()).collect();
        for cluster in clusters {
            let key = format!("kubernetes.io/cluster/{cluster}");
            let by_key = || vec![filter("tag-key", key.clone())];
            let by_eks = || vec![filter("tag:eks:cluster-name", cluster.clone())];
            let all = [
                ("ec2:DescribeVolumes", key.clone(), self.volumes(by_key()).await?),
                ("ec2:DescribeSnapshots", key.clone(), self.snapshots(by_key()).await?),
                ("ec2:DescribeNetworkInterfaces", key.clone(), self.interfaces(by_key()).await?),
                ("ec2:DescribeSecurityGroups", key.clone(), self.groups(by_key()).await?),
                ("ec2:DescribeLaunchTemplates", format!("eks:cluster-name={cluster}"), self.templates(by_eks()).await?),
                ("ec2:DescribeInstances", format!("eks:cluster-name={cluster}"), self.instances(by_eks()).await?),
            ];
            for (call, tag, found) in all {
                self.searched(call, format!("tag {tag}"), found.len());
                for one in &found {
                    self.hanging(one);
                }
            }
        }
        Ok(())
    }
}
