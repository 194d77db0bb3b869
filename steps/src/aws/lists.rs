//! Whole lists of the services behind the signed client: load balancers of both kinds, target groups, Auto Scaling groups,
//! and their tags. Reads only; what an entry means is its readers'.

use super::clients::AwsClients;
use super::failure::AwsFailure;
use super::iam_role::xml_tags;
use super::ownership::Tags;
use super::signed::{Members, Service, XmlTag, parameter};
use platflow_engine::failure::StepError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Pages of any list are at most so many: an answer that never ends is no answer.
pub(super) const PAGES: usize = 500;
/// `DescribeTags` of load balancers takes so many at once.
const TAGGED_AT_ONCE: usize = 20;

/// One page of a Query list: its members and where the next page begins.
trait Page: DeserializeOwned + Send {
    type Item;
    fn split(self) -> (Vec<Self::Item>, Option<String>);
}

macro_rules! page {
    ($answer:ident, $body:ident, $result:literal, $members:literal, $marker:literal, $item:ident) => {
        #[derive(Deserialize)]
        struct $answer {
            #[serde(rename = $result)]
            result: $body,
        }
        #[derive(Deserialize)]
        struct $body {
            #[serde(rename = $members, default)]
            items: Members<$item>,
            #[serde(rename = $marker, default)]
            marker: Option<String>,
        }
        impl Page for $answer {
            type Item = $item;
            fn split(self) -> (Vec<$item>, Option<String>) {
                (self.result.items.member, self.result.marker.filter(|marker| !marker.is_empty()))
            }
        }
    };
}

/// An application or network load balancer.
#[derive(Deserialize)]
pub(super) struct Balancer {
    #[serde(rename = "LoadBalancerArn")]
    pub(super) arn: String,
    #[serde(rename = "LoadBalancerName", default)]
    pub(super) name: String,
    #[serde(rename = "VpcId", default)]
    pub(super) vpc: String,
}
page!(Balancers, BalancersBody, "DescribeLoadBalancersResult", "LoadBalancers", "NextMarker", Balancer);

/// A classic load balancer, known by its name.
#[derive(Deserialize)]
pub(super) struct ClassicBalancer {
    #[serde(rename = "LoadBalancerName")]
    pub(super) name: String,
    #[serde(rename = "VPCId", default)]
    pub(super) vpc: String,
}
page!(
    ClassicBalancers,
    ClassicBalancersBody,
    "DescribeLoadBalancersResult",
    "LoadBalancerDescriptions",
    "NextMarker",
    ClassicBalancer
);

/// A target group.
#[derive(Deserialize)]
pub(super) struct TargetGroup {
    #[serde(rename = "TargetGroupArn")]
    pub(super) arn: String,
    #[serde(rename = "TargetGroupName", default)]
    pub(super) name: String,
    #[serde(rename = "VpcId", default)]
    pub(super) vpc: String,
}
page!(TargetGroups, TargetGroupsBody, "DescribeTargetGroupsResult", "TargetGroups", "NextMarker", TargetGroup);

/// An Auto Scaling group.
#[derive(Deserialize)]
pub(super) struct ScalingGroup {
    #[serde(rename = "AutoScalingGroupName")]
    pub(super) name: String,
    #[serde(rename = "CreatedTime", default)]
    pub(super) created_at: Option<String>,
    #[serde(rename = "Tags", default)]
    pub(super) tags: Members<XmlTag>,
}
page!(
    ScalingGroups,
    ScalingGroupsBody,
    "DescribeAutoScalingGroupsResult",
    "AutoScalingGroups",
    "NextToken",
    ScalingGroup
);

async fn pages<P: Page>(
    aws: &AwsClients,
    service: Service,
    action: &str,
    marker: &str,
) -> Result<Vec<P::Item>, StepError> {
    let (mut found, mut from) = (Vec::new(), None);
    for _ in 0..PAGES {
        let parameters: Vec<_> = from.iter().map(|from: &String| parameter(marker, from)).collect();
        let answer: P = aws.signed.ask(service, action, &parameters).await?;
        let (items, next) = answer.split();
        found.extend(items);
        from = next;
        if from.is_none() {
            return Ok(found);
        }
    }
    Err(StepError::permanent(format!("{action} does not end")))
}

/// All application and network load balancers of the region.
pub(super) async fn balancers(aws: &AwsClients) -> Result<Vec<Balancer>, StepError> {
    pages::<Balancers>(aws, Service::Elb, "DescribeLoadBalancers", "Marker").await
}

/// All classic load balancers of the region.
pub(super) async fn classic_balancers(aws: &AwsClients) -> Result<Vec<ClassicBalancer>, StepError> {
    pages::<ClassicBalancers>(aws, Service::ClassicElb, "DescribeLoadBalancers", "Marker").await
}

/// All target groups of the region.
pub(super) async fn target_groups(aws: &AwsClients) -> Result<Vec<TargetGroup>, StepError> {
    pages::<TargetGroups>(aws, Service::Elb, "DescribeTargetGroups", "Marker").await
}

/// All Auto Scaling groups of the region.
pub(super) async fn scaling_groups(aws: &AwsClients) -> Result<Vec<ScalingGroup>, StepError> {
    pages::<ScalingGroups>(aws, Service::AutoScaling, "DescribeAutoScalingGroups", "NextToken").await
}

#[derive(Deserialize)]
struct TagAnswer {
    #[serde(rename = "DescribeTagsResult")]
    result: TagBody,
}

#[derive(Deserialize)]
struct TagBody {
    #[serde(rename = "TagDescriptions", default)]
    found: Members<Tagged>,
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = "ResourceArn", alias = "LoadBalancerName")]
    id: String,
    #[serde(rename = "Tags", default)]
    tags: Members<XmlTag>,
}

/// The tags of load balancers and target groups (by ARN), or of classic load balancers (by name). What is gone by now has
/// no entry.
pub(super) async fn balancer_tags(
    aws: &AwsClients,
    service: Service,
    ids: &[String],
) -> Result<BTreeMap<String, Tags>, StepError> {
    let mut tags = BTreeMap::new();
    for some in ids.chunks(TAGGED_AT_ONCE) {
        match some_tags(aws, service, some).await {
            Ok(found) => tags.extend(found),
            // One that is gone spoils the answer for all.
            Err(failure) if failure.is_not_found() => {
                for one in some.chunks(1) {
                    match some_tags(aws, service, one).await {
                        Ok(found) => tags.extend(found),
                        Err(failure) if failure.is_not_found() => {}
                        Err(failure) => return Err(failure.into()),
                    }
                }
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(tags)
}

async fn some_tags(aws: &AwsClients, service: Service, ids: &[String]) -> Result<BTreeMap<String, Tags>, AwsFailure> {
    let member = if service == Service::ClassicElb { "LoadBalancerNames" } else { "ResourceArns" };
    let parameters: Vec<_> =
        ids.iter().enumerate().map(|(index, id)| parameter(&format!("{member}.member.{}", index + 1), id)).collect();
    let answer: TagAnswer = aws.signed.ask(service, "DescribeTags", &parameters).await?;
    Ok(answer.result.found.member.into_iter().map(|one| (one.id, xml_tags(one.tags))).collect())
}
