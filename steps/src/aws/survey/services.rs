//! The other services' part of the search: the tagging index, EKS, load balancers, Auto Scaling, KMS, logs, IAM.

use super::super::eks_cluster;
use super::super::iam_role::{self, xml_tags};
use super::super::lists;
use super::super::oidc_provider;
use super::super::ownership::{Tags, UID};
use super::super::signed::Service;
use super::{Search, Shown, text_of};
use platflow_engine::failure::StepError;
use platflow_engine::survey::Standing;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

impl Search<'_> {
    async fn json_pages(
        &self,
        (service, action): (Service, &str),
        body: Value,
        items: &str,
        (sent, answered): (&str, &str),
    ) -> Result<Vec<Value>, StepError> {
        let (mut found, mut body) = (Vec::new(), body);
        for _ in 0..lists::PAGES {
            let answer = self.aws.signed.ask_json(service, action, &body).await?;
            found.extend(list(&answer, items).iter().cloned());
            let next = text(&answer, answered);
            if next.is_empty() {
                return Ok(found);
            }
            if let Some(fields) = body.as_object_mut() {
                fields.insert(sent.to_owned(), next.into());
            }
        }
        Err(StepError::permanent(format!("{action} does not end")))
    }

    /// The index over all services of the region. It lags: what EC2 itself was asked about is judged by EC2's answer, a key
    /// by its state.
    pub(super) async fn by_tag(&mut self) -> Result<(), StepError> {
        let uid = self.scope.environment_uid.as_str().to_owned();
        let body = json!({"TagFilters": [{"Key": UID, "Values": [uid]}]});
        let ask = (Service::Tagging, "GetResources");
        let token = ("PaginationToken", "PaginationToken");
        let found = self.json_pages(ask, body, "ResourceTagMappingList", token).await?;
        self.searched("tagging:GetResources", format!("tag {UID}={uid}"), found.len());
        for one in &found {
            let arn = text(one, "ResourceARN");
            let service = arn.split(':').nth(2).unwrap_or_default();
            if service == "ec2" {
                continue;
            }
            let tags: Tags = list(one, "Tags")
                .iter()
                .map(|tag| (text(tag, "Key").to_owned(), text(tag, "Value").to_owned()))
                .collect();
            if service == "kms" {
                self.key(arn, &tags).await?;
            } else {
                self.tagged(service, arn, &tags);
            }
        }
        self.clusters().await
    }

    /// `KeyState` and deletion date decide about a key. True if there is one.
    async fn key(&mut self, id: &str, tags: &Tags) -> Result<bool, StepError> {
        let answer = match self.aws.signed.ask_json(Service::Kms, "DescribeKey", &json!({"KeyId": id})).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_not_found() => return Ok(false),
            Err(failure) => return Err(failure.into()),
        };
        let metadata = answer.get("KeyMetadata").cloned().unwrap_or_default();
        let name = text(&metadata, "KeyId").to_owned();
        if !text(&metadata, "KeyState").starts_with("Pending") {
            self.tagged("kms:key", &name, tags);
            return Ok(true);
        }
        let date = metadata.get("DeletionDate").and_then(Value::as_f64);
        #[expect(clippy::cast_possible_truncation, reason = "a date in seconds")]
        let date = date.and_then(|seconds| jiff::Timestamp::from_second(seconds as i64).ok());
        let on = date.map_or_else(|| "a date that KMS does not tell".to_owned(), |date| date.to_string());
        let step = tags.get(super::STEP).map_or("unknown", String::as_str);
        self.found("kms:key", &name, format!("step {step}"), Standing::Expiring { on });
        Ok(true)
    }

    async fn clusters(&mut self) -> Result<(), StepError> {
        let clusters: Vec<_> =
            self.gone("aws.eks_cluster", "name").map(|(step, name)| (step.clone(), name.to_owned())).collect();
        for (step, name) in clusters {
            let found = eks_cluster::get(self.aws, &name).await?;
            self.searched("eks:DescribeCluster", format!("named {name}"), usize::from(found.is_some()));
            if let Some(cluster) = found {
                let tags = cluster.tags().cloned().unwrap_or_default().into_iter().collect();
                self.named("eks:cluster", &name, &step, &tags);
            }
        }
        Ok(())
    }

    pub(super) async fn balancers(&mut self) -> Result<(), StepError> {
        let vpcs: BTreeSet<String> = self.gone("aws.vpc", "vpc_id").map(|(_, id)| id.to_owned()).collect();
        if vpcs.is_empty() {
            return Ok(());
        }
        let within = vpcs.iter().cloned().collect::<Vec<_>>().join(", ");
        let all = lists::balancers(self.aws).await?;
        let mut shown: Vec<Shown> = Vec::new();
        let show = |resource, id, name: &str, vpc: &str| Shown {
            resource,
            id,
            tags: Tags::new(),
            created_at: None,
            note: format!("in {vpc}, named {name}"),
        };
        let here = all.into_iter().filter(|one| vpcs.contains(&one.vpc));
        shown.extend(here.map(|one| show("elbv2:load-balancer", one.arn, &one.name, &one.vpc)));
        self.searched("elasticloadbalancing:DescribeLoadBalancers", format!("in {within}"), shown.len());
        let before = shown.len();
        let all = lists::target_groups(self.aws).await?;
        let here = all.into_iter().filter(|one| vpcs.contains(&one.vpc));
        shown.extend(here.map(|one| show("elbv2:target-group", one.arn, &one.name, &one.vpc)));
        self.searched("elasticloadbalancing:DescribeTargetGroups", format!("in {within}"), shown.len() - before);
        for one in &shown {
            self.hanging(one);
        }
        Ok(())
    }

    pub(super) async fn scaling_groups(&mut self) -> Result<(), StepError> {
        let clusters: BTreeSet<String> = self.gone("aws.eks_cluster", "name").map(|(_, id)| id.to_owned()).collect();
        if clusters.is_empty() {
            return Ok(());
        }
        let all = lists::scaling_groups(self.aws).await?;
        let mut shown = Vec::new();
        for group in all {
            let tags = xml_tags(group.tags);
            let cluster = tags.get("eks:cluster-name").filter(|cluster| clusters.contains(*cluster)).cloned();
            if let Some(cluster) = cluster {
                let created_at = group.created_at.and_then(|text| text.parse().ok());
                let note = format!("machines of cluster {cluster}");
                shown.push(Shown { resource: "autoscaling:group", id: group.name, tags, created_at, note });
            }
        }
        let within = clusters.into_iter().collect::<Vec<_>>().join(", ");
        self.searched("autoscaling:DescribeAutoScalingGroups", format!("tag eks:cluster-name={within}"), shown.len());
        for one in &shown {
            self.hanging(one);
        }
        Ok(())
    }

    /// Keys by their ids on record, and aliases by name: an alias may outlive the key's schedule.
    pub(super) async fn keys(&mut self) -> Result<(), StepError> {
        let steps: Vec<_> = self.scope.of_kind("aws.kms_key").filter(|step| step.stays.is_none()).cloned().collect();
        if steps.is_empty() {
            return Ok(());
        }
        let ask = (Service::Kms, "ListAliases");
        let aliases = self.json_pages(ask, json!({}), "Aliases", ("Marker", "NextMarker")).await?;
        for step in steps {
            let id = text_of(&step, "key_id").unwrap_or_default().to_owned();
            if !id.is_empty() {
                let tags = Tags::from([(super::STEP.to_owned(), step.name.to_string())]);
                let found = self.key(&id, &tags).await?;
                self.searched("kms:DescribeKey", format!("key {id}"), usize::from(found));
            }
            let Some(alias) = text_of(&step, "alias").map(str::to_owned) else { continue };
            let alias = if alias.starts_with("alias/") { alias } else { format!("alias/{alias}") };
            let holder = aliases.iter().find(|one| text(one, "AliasName") == alias);
            self.searched("kms:ListAliases", format!("named {alias}"), usize::from(holder.is_some()));
            if let Some(holder) = holder {
                let target = text(holder, "TargetKeyId").to_owned();
                let standing = if !id.is_empty() && target == id {
                    Standing::Left
                } else {
                    Standing::Foreign { owner: format!("whoever owns key {target}") }
                };
                self.found("kms:alias", &alias, format!("step {}", step.name), standing);
            }
        }
        Ok(())
    }

    /// Groups by the names of our steps, the hold, and what EKS makes for a cluster.
    pub(super) async fn log_groups(&mut self) -> Result<(), StepError> {
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for (step, name) in self.gone("aws.log_group", "name") {
            names.insert((name.to_owned(), step.name.to_string()));
        }
        for step in self.scope.of_kind("aws.environment_hold").filter(|step| step.stays.is_none()) {
            names.insert((format!("/platflow/environments/{}", self.scope.environment), step.name.to_string()));
        }
        let clusters: Vec<(String, String)> = self
            .gone("aws.eks_cluster", "name")
            .map(|(step, name)| (format!("/aws/eks/{name}/"), step.name.to_string()))
            .collect();
        for (prefix, step) in names.into_iter().chain(clusters.iter().cloned()) {
            let of_cluster = clusters.iter().any(|(known, _)| prefix.starts_with(known.as_str()));
            let ask = (Service::Logs, "DescribeLogGroups");
            let body = json!({"logGroupNamePrefix": prefix});
            let found = self.json_pages(ask, body, "logGroups", ("nextToken", "nextToken")).await?;
            let found: Vec<&Value> =
                found.iter().filter(|group| text(group, "logGroupName") == prefix || prefix.ends_with('/')).collect();
            self.searched("logs:DescribeLogGroups", format!("prefix {prefix}"), found.len());
            for group in found {
                let name = text(group, "logGroupName").to_owned();
                let arn = text(group, "arn").trim_end_matches(":*").to_owned();
                let body = json!({"resourceArn": arn});
                let tags = match self.aws.signed.ask_json(Service::Logs, "ListTagsForResource", &body).await {
                    Ok(answer) => answer.get("tags").and_then(|tags| Tags::deserialize(tags).ok()).unwrap_or_default(),
                    Err(failure) if failure.is_not_found() => continue,
                    Err(failure) => return Err(failure.into()),
                };
                self.log_group(&name, &tags, &step, of_cluster && tags.is_empty());
            }
        }
        Ok(())
    }

    fn log_group(&mut self, name: &str, tags: &Tags, step: &str, made_by_eks: bool) {
        if self.ours(tags) {
            self.tagged("logs:log-group", name, tags);
        } else if made_by_eks {
            self.found("logs:log-group", name, format!("step {step}"), Standing::Left);
        } else {
            let owner = super::owner_text(tags);
            self.found("logs:log-group", name, format!("has the name of step {step}"), Standing::Foreign { owner });
        }
    }

    /// Roles by name (the tagging index does not hold them), identity providers by issuer.
    pub(super) async fn identities(&mut self) -> Result<(), StepError> {
        let roles: Vec<_> =
            self.gone("aws.iam_role", "name").map(|(step, name)| (step.clone(), name.to_owned())).collect();
        for (step, name) in roles {
            let role = iam_role::get_role(self.aws, &name).await?;
            self.searched("iam:GetRole", format!("named {name}"), usize::from(role.is_some()));
            if let Some(role) = role {
                self.named("iam:role", &name, &step, &xml_tags(role.tags));
            }
        }
        let providers: Vec<_> =
            self.gone("aws.oidc_provider", "issuer").map(|(step, issuer)| (step.clone(), issuer.to_owned())).collect();
        for (step, issuer) in providers {
            let arn = oidc_provider::arn(self.aws, &issuer);
            let provider = oidc_provider::tags(self.aws, &arn).await?;
            self.searched("iam:GetOpenIDConnectProvider", format!("issuer {issuer}"), usize::from(provider.is_some()));
            if let Some(tags) = provider {
                self.named("iam:oidc-provider", &arn, &step, &tags);
            }
        }
        Ok(())
    }
}
