//! What controllers, drivers and EKS made for a cluster and left behind when it went: load balancers, target groups,
//! machines with their group and launch template, volumes and snapshots.
//!
//! Taken away is only what carries the cluster's name and was made after the cluster was or lives in the cluster's own
//! VPC. Everything else is left alone, and named by the survey. Interfaces and security groups are `leftovers`'.

use super::clients::AwsClients;
use super::ec2::{filter, sdk_filters, tag_map};
use super::failure::{change, look};
use super::iam_role::xml_tags;
use super::leftovers::is_our_vpc;
use super::lists;
use super::ownership::{Tags, UID};
use super::signed::{Parameters, Service, parameter};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{InstanceStateName, VolumeState};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;

/// A cluster that is gone, as it was noted before it was deleted.
pub(super) struct Former<'a> {
    /// Its name, on the tags of what was made for it.
    pub(super) name: &'a str,
    /// When it was made; what is older was made for another cluster of that name.
    pub(super) created_at: jiff::Timestamp,
    /// Its VPC.
    pub(super) vpc: &'a str,
}

struct Sweep<'a> {
    aws: &'a AwsClients,
    context: &'a Context,
    former: &'a Former<'a>,
    /// What was found: it was told to go, or is going.
    found: Vec<String>,
}

/// Tells everything to go; answers what was still there, empty when nothing is left.
///
/// # Errors
/// When a list cannot be read or a deletion is refused for another reason than that something is still in use.
pub(super) async fn sweep(aws: &AwsClients, context: &Context, former: &Former<'_>) -> Result<Vec<String>, StepError> {
    let mut sweep = Sweep { aws, context, former, found: Vec::new() };
    sweep.scaling_groups().await?;
    sweep.machines().await?;
    sweep.launch_templates().await?;
    if is_our_vpc(aws, context, former.vpc).await? {
        sweep.balancers().await?;
        sweep.classic_balancers().await?;
        sweep.target_groups().await?;
    }
    sweep.volumes().await?;
    sweep.snapshots().await?;
    Ok(sweep.found)
}

impl Sweep<'_> {
    /// True for what a controller or driver of the cluster made; what carries our uid has a step of its own.
    fn of_cluster(&self, tags: &Tags) -> bool {
        let name = self.former.name;
        let named = tags.contains_key(&format!("kubernetes.io/cluster/{name}"))
            || ["elbv2.k8s.aws/cluster", "eks:cluster-name", "aws:eks:cluster-name"]
                .iter()
                .any(|key| tags.get(*key).map(String::as_str) == Some(name));
        named && !tags.contains_key(UID)
    }

    /// Only a known and later date proves that it was this cluster's.
    fn younger(&self, made_at: Option<&DateTime>) -> bool {
        let made_at = made_at.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok());
        made_at.is_some_and(|at| at >= self.former.created_at)
    }

    async fn tell(&mut self, service: Service, action: &str, id: &str, named: Parameters) -> Result<(), StepError> {
        let permit = self.context.begin(&format!("{action}/{id}"))?;
        self.found.push(id.to_owned());
        match self.aws.signed.tell(service, action, &named, &permit).await {
            Err(failure) if !failure.is_not_found() && !failure.is(&["ResourceInUse", "ScalingActivityInProgress"]) => {
                Err(failure.into())
            }
            _ => Ok(()),
        }
    }

    async fn balancers(&mut self) -> Result<(), StepError> {
        let here = lists::balancers(self.aws).await?.into_iter().filter(|one| one.vpc == self.former.vpc);
        let ids = here.map(|one| one.arn).collect();
        self.balanced((Service::Elb, "DeleteLoadBalancer", "LoadBalancerArn"), ids).await
    }

    async fn classic_balancers(&mut self) -> Result<(), StepError> {
        let here = lists::classic_balancers(self.aws).await?.into_iter().filter(|one| one.vpc == self.former.vpc);
        let ids = here.map(|one| one.name).collect();
        self.balanced((Service::ClassicElb, "DeleteLoadBalancer", "LoadBalancerName"), ids).await
    }

    /// One that its load balancer still uses is asked for again when that is gone.
    async fn target_groups(&mut self) -> Result<(), StepError> {
        let here = lists::target_groups(self.aws).await?.into_iter().filter(|one| one.vpc == self.former.vpc);
        let ids = here.map(|one| one.arn).collect();
        self.balanced((Service::Elb, "DeleteTargetGroup", "TargetGroupArn"), ids).await
    }

    /// Tells those of the cluster to go.
    async fn balanced(
        &mut self,
        (service, action, named): (Service, &str, &str),
        ids: Vec<String>,
    ) -> Result<(), StepError> {
        for (id, tags) in lists::balancer_tags(self.aws, service, &ids).await? {
            if self.of_cluster(&tags) {
                self.tell(service, action, &id, vec![parameter(named, &id)]).await?;
            }
        }
        Ok(())
    }

    async fn scaling_groups(&mut self) -> Result<(), StepError> {
        for group in lists::scaling_groups(self.aws).await? {
            let made_at: Option<jiff::Timestamp> = group.created_at.as_ref().and_then(|text| text.parse().ok());
            let younger = made_at.is_some_and(|at| at >= self.former.created_at);
            if younger && self.of_cluster(&xml_tags(group.tags)) {
                let named = vec![parameter("AutoScalingGroupName", &group.name), parameter("ForceDelete", "true")];
                self.tell(Service::AutoScaling, "DeleteAutoScalingGroup", &group.name, named).await?;
            }
        }
        Ok(())
    }

    /// Machines go with their group; only what is still there is told.
    async fn machines(&mut self) -> Result<(), StepError> {
        let named = vec![filter("tag:eks:cluster-name", self.former.name)];
        let mut pages = self.aws.ec2.describe_instances().set_filters(sdk_filters(named)).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| super::failure::AwsFailure::from_sdk("DescribeInstances", &error))?;
            for one in page.reservations().iter().flat_map(|reservation| reservation.instances()) {
                let gone = one.state().and_then(|state| state.name()) == Some(&InstanceStateName::Terminated);
                if !gone && self.younger(one.launch_time()) {
                    self.found.push(one.instance_id().unwrap_or_default().to_owned());
                }
            }
        }
        Ok(())
    }

    async fn launch_templates(&mut self) -> Result<(), StepError> {
        let named = vec![filter("tag:eks:cluster-name", self.former.name)];
        let sending = self.aws.ec2.describe_launch_templates().set_filters(sdk_filters(named)).send();
        let found = look("DescribeLaunchTemplates", sending).await?;
        for one in found.launch_templates() {
            let id = one.launch_template_id().unwrap_or_default();
            if !self.of_cluster(&tag_map(one.tags())) || !self.younger(one.create_time()) {
                continue;
            }
            let permit = self.context.begin(&format!("DeleteLaunchTemplate/{id}"))?;
            let sending = self.aws.ec2.delete_launch_template().launch_template_id(id).send();
            match change("DeleteLaunchTemplate", &permit, sending).await {
                Err(failure) if !failure.is_not_found() => return Err(failure.into()),
                _ => self.found.push(id.to_owned()),
            }
        }
        Ok(())
    }

    /// One that is still attached goes when its machine has let go of it.
    async fn volumes(&mut self) -> Result<(), StepError> {
        let named = vec![filter("tag-key", format!("kubernetes.io/cluster/{}", self.former.name))];
        let sending = self.aws.ec2.describe_volumes().set_filters(sdk_filters(named)).send();
        let found = look("DescribeVolumes", sending).await?;
        for one in found.volumes() {
            let id = one.volume_id().unwrap_or_default();
            if !self.of_cluster(&tag_map(one.tags())) || !self.younger(one.create_time()) {
                continue;
            }
            self.found.push(id.to_owned());
            if one.state() != Some(&VolumeState::Available) {
                continue;
            }
            let permit = self.context.begin(&format!("DeleteVolume/{id}"))?;
            match change("DeleteVolume", &permit, self.aws.ec2.delete_volume().volume_id(id).send()).await {
                Err(failure) if !failure.is_not_found() && !failure.is(&["VolumeInUse"]) => return Err(failure.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn snapshots(&mut self) -> Result<(), StepError> {
        let named = vec![filter("tag-key", format!("kubernetes.io/cluster/{}", self.former.name))];
        let sending = self.aws.ec2.describe_snapshots().owner_ids("self").set_filters(sdk_filters(named)).send();
        let found = look("DescribeSnapshots", sending).await?;
        for one in found.snapshots() {
            let id = one.snapshot_id().unwrap_or_default();
            if !self.of_cluster(&tag_map(one.tags())) || !self.younger(one.start_time()) {
                continue;
            }
            let permit = self.context.begin(&format!("DeleteSnapshot/{id}"))?;
            match change("DeleteSnapshot", &permit, self.aws.ec2.delete_snapshot().snapshot_id(id).send()).await {
                Err(failure) if !failure.is_not_found() => return Err(failure.into()),
                _ => self.found.push(id.to_owned()),
            }
        }
        Ok(())
    }
}
