//! What others put into what is ours: resources in our VPC, parts of our cluster. Reads only, and deletes nothing: a drift
//! check reports them, one by one.
//!
//! What EKS, Auto Scaling and the cluster's controllers made is theirs to keep in order, and no extra. Rules of a security
//! group, routes of a table and policies of a role are fields of their steps, not resources.

use super::super::clients::AwsClients;
use super::super::ec2::filter;
use super::super::failure::AwsFailure;
use super::super::ownership::owner_text;
use super::{Search, Shown, text_of};
use platflow_engine::failure::StepError;
use platflow_engine::survey::{Findings, Scope};
use std::collections::BTreeSet;

/// Something that is in ours and that no step on record made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// What it is, e.g. `ec2:subnet`.
    pub resource: String,
    /// Its id or name.
    pub id: String,
    /// Where it is: the VPC or cluster, and the step that made that.
    pub inside: String,
    /// Whose it is, as well as it tells.
    pub owner: String,
}

/// Tags by which AWS and the cluster's controllers mark what they made.
const MANAGED: [&str; 5] = [
    "aws:eks:cluster-name",
    "eks:cluster-name",
    "aws:autoscaling:groupName",
    "elbv2.k8s.aws/cluster",
    "service.k8s.aws/stack",
];

fn is_managed(shown: &Shown) -> bool {
    let cluster = |key: &String| key.starts_with("kubernetes.io/cluster/");
    MANAGED.iter().any(|key| shown.tags.contains_key(*key)) || shown.tags.keys().any(cluster)
}

/// Looks into every VPC and every cluster on record.
///
/// # Errors
/// When the account does not answer, or does not let us look.
pub async fn extras(aws: &AwsClients, scope: &Scope) -> Result<Vec<Extra>, StepError> {
    let search = Search { aws, scope, findings: Findings::default() };
    let mut found = search.extras_in_vpcs().await?;
    found.extend(search.extras_in_clusters().await?);
    found.sort_by(|one, other| (&one.resource, &one.id).cmp(&(&other.resource, &other.id)));
    found.dedup();
    Ok(found)
}

/// Every name of a paged list; none of a cluster that is gone, which its own step tells.
macro_rules! names {
    ($call:literal, $request:expr) => {{
        let mut found: Vec<String> = Vec::new();
        let mut pages = $request.into_paginator().items().send();
        while let Some(name) = pages.next().await {
            match name {
                Ok(name) => found.push(name),
                Err(error) => match AwsFailure::from_sdk($call, &error) {
                    failure if failure.is_not_found() => break,
                    failure => return Err(failure.into()),
                },
            }
        }
        found
    }};
}

impl Search<'_> {
    async fn extras_in_vpcs(&self) -> Result<Vec<Extra>, StepError> {
        let mut found = Vec::new();
        for step in self.scope.of_kind("aws.vpc") {
            let Some(vpc) = text_of(step, "vpc_id") else { continue };
            let inside = || vec![filter("vpc-id", vpc)];
            let mut main = inside();
            main.push(filter("association.main", "true"));
            // Every VPC has one main table, which nobody made.
            let main: BTreeSet<String> = self.tables(main).await?.into_iter().map(|table| table.id).collect();
            let tables = self.tables(inside()).await?.into_iter().filter(|table| !main.contains(&table.id));
            let groups =
                self.groups(inside()).await?.into_iter().filter(|group| !group.note.ends_with("named default"));
            let shown = tables
                .chain(groups)
                .chain(self.subnets(inside()).await?)
                .chain(self.nats(inside()).await?)
                .chain(self.endpoints(inside()).await?)
                .chain(self.instances(inside()).await?)
                .chain(self.gateways(vec![filter("attachment.vpc-id", vpc)]).await?);
            found.extend(shown.filter(|one| !self.ours(&one.tags) && !is_managed(one)).map(|one| Extra {
                resource: one.resource.to_owned(),
                owner: owner_text(&one.tags),
                id: one.id,
                inside: format!("{vpc} ({})", step.name),
            }));
        }
        Ok(found)
    }

    async fn extras_in_clusters(&self) -> Result<Vec<Extra>, StepError> {
        let mut found = Vec::new();
        for step in self.scope.of_kind("aws.eks_cluster") {
            let Some(cluster) = text_of(step, "name") else { continue };
            let groups = names!("ListNodegroups", self.aws.eks.list_nodegroups().cluster_name(cluster));
            let addons = names!("ListAddons", self.aws.eks.list_addons().cluster_name(cluster));
            let entries = names!("ListAccessEntries", self.aws.eks.list_access_entries().cluster_name(cluster));
            let parts = [
                ("eks:nodegroup", groups, self.on_record("aws.node_group", "name")),
                ("eks:addon", addons, self.on_record("aws.addon", "name")),
                ("eks:access-entry", entries, self.principals()),
            ];
            for (resource, listed, known) in parts {
                let strange = listed.iter().filter(|name| !known.contains(name.as_str()));
                // EKS makes an entry for its own role and for the role of each node group.
                found.extend(strange.filter(|name| !name.contains(":role/aws-service-role/")).map(|name| Extra {
                    resource: resource.to_owned(),
                    id: name.clone(),
                    inside: format!("{cluster} ({})", step.name),
                    owner: "on no record of this environment".to_owned(),
                }));
            }
        }
        Ok(found)
    }

    fn on_record(&self, kind: &str, key: &str) -> BTreeSet<&str> {
        self.scope.of_kind(kind).filter_map(|step| text_of(step, key)).collect()
    }

    /// The principals that the environment let in, and the roles of its nodes.
    fn principals(&self) -> BTreeSet<&str> {
        let mut known = self.on_record("aws.access_entry", "principal_arn");
        known.extend(self.on_record("aws.iam_role", "arn"));
        known
    }
}
