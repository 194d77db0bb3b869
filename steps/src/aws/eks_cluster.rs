//! `aws.eks_cluster`: an EKS control plane.
//!
//! What differs is changed by one update at a time, the version one minor at a time. Reaching the API server, access
//! entries, add-ons and nodes are steps of their own.

use super::clients::AwsClients;
use super::cluster_remains::{self, Former};
use super::ec2::{SHORT, by_id, filter, finished, patient, required};
use super::failure::{AwsFailure, change, look};
use super::leftovers;
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, going, lasting_tags, not_ours, noted, nothing_left,
    ownership, proven, start, terminal, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::SecurityGroup;
use aws_sdk_eks::types::{
    AuthenticationMode, Cluster, ClusterStatus, CreateAccessConfigRequest, EncryptionConfig,
    KubernetesNetworkConfigRequest, LogSetup, LogType, Logging, Provider, SupportType, UpgradePolicyRequest,
    VpcConfigRequest,
};
use platflow_engine::context::Context;
use platflow_engine::failure::{Residue, StepError};
use platflow_engine::step::{Difference, Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// An EKS control plane.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EksClusterSpec {
    /// Unique in account and region. Cannot be changed in place.
    pub name: String,
    /// Kubernetes minor version, for example `1.35`. Raised one minor at a time; never lowered.
    pub version: String,
    /// The control plane's role. Cannot be changed in place.
    pub role_arn: String,
    /// Where the control plane puts its interfaces: at least two zones.
    pub subnet_ids: BTreeSet<String>,
    /// Further security groups of the control plane's interfaces.
    #[serde(default)]
    pub security_group_ids: BTreeSet<String>,
    /// The API server answers on the internet, to `public_access_cidrs` only.
    pub public_access: bool,
    /// The API server answers inside the VPC.
    pub private_access: bool,
    /// Who may reach the public endpoint.
    #[serde(default)]
    pub public_access_cidrs: BTreeSet<String>,
    /// The key that encrypts secrets. Once set it can never be changed.
    #[serde(default)]
    pub kms_key_arn: Option<String>,
    /// Control plane logs: api, audit, authenticator, controllerManager, scheduler.
    #[serde(default)]
    pub log_types: BTreeSet<String>,
    /// Refuses deletion until switched off.
    #[serde(default)]
    pub deletion_protection: bool,
    /// Range of service addresses. Cannot be changed in place.
    #[serde(default)]
    pub service_cidr: Option<String>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

/// How steps inside the cluster reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EksAccess {
    /// The cluster's name: bearer tokens are minted for it.
    pub name: String,
    /// Where the API server answers.
    pub endpoint: String,
    /// The cluster's CA, base64 of PEM.
    pub certificate_authority_data: String,
    /// The cluster's region.
    #[serde(default)]
    pub region: Option<String>,
}

/// A control plane that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EksClusterOutputs {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Where the API server answers.
    pub endpoint: String,
    /// The cluster's CA, base64 of PEM.
    pub certificate_authority_data: String,
    /// Issuer of service account tokens.
    pub oidc_issuer: String,
    /// The security group that EKS made for control plane and nodes.
    pub cluster_security_group_id: String,
    /// Kubernetes minor version.
    pub version: String,
    /// EKS platform version.
    pub platform_version: Option<String>,
    /// What steps inside the cluster need to reach it.
    pub access: EksAccess,
}

/// See the file.
pub(super) struct EksClusterKind(pub(super) Arc<AwsClients>);

const BUDGET: Duration = Duration::from_secs(30 * 60);
const UPDATE_BUDGET: Duration = Duration::from_secs(60 * 60);

/// The cluster of that name, if it exists.
pub(super) async fn get(aws: &AwsClients, name: &str) -> Result<Option<Cluster>, AwsFailure> {
    match look("DescribeCluster", aws.eks.describe_cluster().name(name).send()).await {
        Ok(answer) => Ok(answer.cluster),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// EKS tags by key.
pub(super) fn eks_tags(tags: Option<&std::collections::HashMap<String, String>>) -> Tags {
    tags.map(|tags| tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect()).unwrap_or_default()
}

/// A name for one update of this run: the same for every attempt, another for other content or another run.
pub(super) fn update_call(context: &Context, action: &str, content: &serde_json::Value) -> String {
    format!("{action}/{}/{content}", context.run)
}

fn health(cluster: &Cluster) -> String {
    let issues: Vec<String> = cluster
        .health()
        .map(|health| health.issues())
        .unwrap_or_default()
        .iter()
        .map(|issue| {
            let code = issue.code().map_or("unknown", |code| code.as_str());
            format!("{code}: {}", issue.message().unwrap_or("no message"))
        })
        .collect();
    if issues.is_empty() { "no health issue is reported".to_owned() } else { issues.join("; ") }
}

fn enabled_logs(cluster: &Cluster) -> BTreeSet<String> {
    let setups = cluster.logging().map(Logging::cluster_logging).unwrap_or_default();
    let enabled = setups.iter().filter(|setup| setup.enabled() == Some(true));
    enabled.flat_map(LogSetup::types).map(|log| log.as_str().to_owned()).collect()
}

fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.parse().ok()
}

fn set(values: &[String]) -> BTreeSet<String> {
    values.iter().cloned().collect()
}

fn compare(spec: &EksClusterSpec, cluster: &Cluster) -> Differences {
    let mut differences = Differences::default();
    let version = cluster.version().unwrap_or_default();
    match (minor(&spec.version), minor(version)) {
        (Some(wanted), Some(found)) if wanted < found => differences.fixed("/version", &spec.version, version),
        _ => differences.field("/version", &spec.version, version),
    }
    differences.fixed("/role_arn", &spec.role_arn, cluster.role_arn());
    if let Some(vpc) = cluster.resources_vpc_config() {
        differences.field("/subnet_ids", &spec.subnet_ids, set(vpc.subnet_ids()));
        differences.field("/security_group_ids", &spec.security_group_ids, set(vpc.security_group_ids()));
        differences.field("/public_access", spec.public_access, vpc.endpoint_public_access());
        differences.field("/private_access", spec.private_access, vpc.endpoint_private_access());
        if spec.public_access {
            differences.field("/public_access_cidrs", &spec.public_access_cidrs, set(vpc.public_access_cidrs()));
        }
    }
    differences.field("/log_types", &spec.log_types, enabled_logs(cluster));
    differences.field("/deletion_protection", spec.deletion_protection, cluster.deletion_protection().unwrap_or(false));
    let key = cluster.encryption_config().iter().find_map(|one| one.provider()?.key_arn());
    match key {
        None => differences.field("/kms_key_arn", &spec.kms_key_arn, key),
        Some(_) => differences.fixed("/kms_key_arn", &spec.kms_key_arn, key),
    }
    if let Some(range) = &spec.service_cidr {
        let found = cluster.kubernetes_network_config().and_then(|network| network.service_ipv4_cidr());
        differences.fixed("/service_cidr", range, found);
    }
    let mode = cluster.access_config().and_then(|access| access.authentication_mode());
    if mode == Some(&AuthenticationMode::ConfigMap) {
        differences.fixed("/authentication_mode", "API", "CONFIG_MAP");
    }
    let support = cluster.upgrade_policy().and_then(|policy| policy.support_type());
    differences.field("/support_type", Some("STANDARD"), support.map(SupportType::as_str));
    differences
}

impl EksClusterKind {
    fn outputs(&self, cluster: &Cluster) -> Result<EksClusterOutputs, StepError> {
        let text = |what: &str, value: Option<&str>| required(what, value).map(str::to_owned);
        let name = text("cluster name", cluster.name())?;
        let endpoint = text("endpoint", cluster.endpoint())?;
        let authority = text("CA", cluster.certificate_authority().and_then(|authority| authority.data()))?;
        let issuer = cluster.identity().and_then(|identity| identity.oidc()).and_then(|oidc| oidc.issuer());
        let group = cluster.resources_vpc_config().and_then(|vpc| vpc.cluster_security_group_id());
        Ok(EksClusterOutputs {
            arn: text("cluster ARN", cluster.arn())?,
            oidc_issuer: text("OIDC issuer", issuer)?,
            cluster_security_group_id: text("cluster security group", group)?,
            version: text("version", cluster.version())?,
            platform_version: cluster.platform_version().map(str::to_owned),
            access: EksAccess {
                name: name.clone(),
                endpoint: endpoint.clone(),
                certificate_authority_data: authority.clone(),
                region: Some(self.0.region.clone()),
            },
            name,
            endpoint,
            certificate_authority_data: authority,
        })
    }

    async fn create(&self, spec: &EksClusterSpec, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("CreateCluster")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let access = CreateAccessConfigRequest::builder()
            .authentication_mode(AuthenticationMode::Api)
            .bootstrap_cluster_creator_admin_permissions(false)
            .build();
        let encryption = spec.kms_key_arn.as_deref().map(|key| vec![encryption(key)]);
        let network = spec
            .service_cidr
            .as_ref()
            .map(|range| KubernetesNetworkConfigRequest::builder().service_ipv4_cidr(range).build());
        let sending = self
            .0
            .eks
            .create_cluster()
            .client_request_token(&permit.token)
            .name(&spec.name)
            .version(&spec.version)
            .role_arn(&spec.role_arn)
            .resources_vpc_config(vpc_config(spec, true))
            .set_kubernetes_network_config(network)
            .logging(logging(spec))
            .set_encryption_config(encryption)
            .access_config(access)
            .upgrade_policy(UpgradePolicyRequest::builder().support_type(SupportType::Standard).build())
            .deletion_protection(spec.deletion_protection)
            .bootstrap_self_managed_addons(false)
            .set_tags(Some(tags.into_iter().collect()))
            .send();
        change("CreateCluster", &permit, sending).await?;
        Ok(())
    }

    /// The first update that is due; the rest follows when the cluster is active again.
    async fn update(
        &self,
        spec: &EksClusterSpec,
        found: &EksClusterOutputs,
        differences: &[Difference],
        context: &Context,
    ) -> Result<(), StepError> {
        let due = |fields: &[&str]| fields.iter().any(|field| touches(differences, field));
        if due(&["/tags"]) {
            let permit = context.begin("TagResource")?;
            let tags = lasting_tags(context, &spec.name, &spec.tags).into_iter().collect();
            let sending = self.0.eks.tag_resource().resource_arn(&found.arn).set_tags(Some(tags)).send();
            change("TagResource", &permit, sending).await?;
        }
        let parts = ["/public_access", "/private_access", "/public_access_cidrs"];
        let places = ["/subnet_ids", "/security_group_ids"];
        let request = || self.0.eks.update_cluster_config().name(&spec.name);
        let request = if due(&parts) {
            Some(("endpoint", request().resources_vpc_config(vpc_config(spec, false))))
        } else if due(&places) {
            Some(("placement", request().resources_vpc_config(placement(spec))))
        } else if due(&["/log_types"]) {
            Some(("logging", request().logging(logging(spec))))
        } else if due(&["/support_type"]) {
            let policy = UpgradePolicyRequest::builder().support_type(SupportType::Standard).build();
            Some(("support", request().upgrade_policy(policy)))
        } else if due(&["/deletion_protection"]) {
            Some(("protection", request().deletion_protection(spec.deletion_protection)))
        } else {
            None
        };
        if let Some((part, request)) = request {
            let content = json!([part, differences]);
            let permit = context.begin(&update_call(context, "UpdateClusterConfig", &content))?;
            change("UpdateClusterConfig", &permit, request.client_request_token(&permit.token).send()).await?;
        } else if due(&["/kms_key_arn"]) {
            self.encrypt(spec, spec.kms_key_arn.as_deref().unwrap_or_default(), context).await?;
        } else if due(&["/version"]) {
            self.raise_version(spec, &found.version, context).await?;
        }
        Ok(())
    }

    async fn encrypt(&self, spec: &EksClusterSpec, key: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin("AssociateEncryptionConfig")?;
        let request = self.0.eks.associate_encryption_config().cluster_name(&spec.name);
        let sending = request.encryption_config(encryption(key)).client_request_token(&permit.token).send();
        change("AssociateEncryptionConfig", &permit, sending).await?;
        Ok(())
    }

    async fn raise_version(&self, spec: &EksClusterSpec, from: &str, context: &Context) -> Result<(), StepError> {
        let next = match (minor(from), minor(&spec.version)) {
            (Some(from), Some(to)) => format!("1.{}", to.min(from + 1)),
            _ => spec.version.clone(),
        };
        let call = update_call(context, "UpdateClusterVersion", &json!([from, next]));
        let permit = context.begin(&call)?;
        let request = self.0.eks.update_cluster_version().name(&spec.name).version(&next);
        change("UpdateClusterVersion", &permit, request.client_request_token(&permit.token).send()).await?;
        Ok(())
    }

    async fn unprotect(&self, name: &str, context: &Context) -> Result<(), StepError> {
        let permit = context.begin(&update_call(context, "UpdateClusterConfig", &json!("unprotect")))?;
        let request = self.0.eks.update_cluster_config().name(name).deletion_protection(false);
        change("UpdateClusterConfig", &permit, request.client_request_token(&permit.token).send()).await?;
        Ok(())
    }

    /// EKS forgets its security group in about one of six deletions: look, and take it away.
    /// What controllers and EKS made for the cluster that was here, as far as its end was seen by us; what is still there.
    async fn sweep(
        &self,
        name: &str,
        record: &Record<EksClusterOutputs>,
        context: &Context,
    ) -> Result<Vec<String>, StepError> {
        let created_at = record.notes.get("created_at").and_then(serde_json::Value::as_i64);
        let created_at = created_at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        match (created_at, noted(record, "vpc_id")) {
            (Some(created_at), Some(vpc)) => {
                cluster_remains::sweep(&self.0, context, &Former { name, created_at, vpc: &vpc }).await
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn group_is_gone(&self, record: &Record<EksClusterOutputs>, context: &Context) -> Result<bool, StepError> {
        let id = record.outputs.as_ref().map(|outputs| outputs.cluster_security_group_id.clone());
        let id = id.or_else(|| noted(record, "cluster_security_group_id"));
        let Some(id) = id else { return Ok(true) };
        let Some(group) = by_id::<SecurityGroup>(&self.0, &id).await? else { return Ok(true) };
        // Interfaces that the network add-on left behind hold it, long before their subnets' turn comes.
        if let Some(vpc) = group.vpc_id() {
            leftovers::sweep_interfaces(&self.0, context, vpc, filter("group-id", &id)).await?;
        }
        leftovers::delete_group(&self.0, context, group.group_id().unwrap_or_default(), &[]).await?;
        Ok(by_id::<SecurityGroup>(&self.0, &id).await?.is_none())
    }
}

fn vpc_config(spec: &EksClusterSpec, with_places: bool) -> VpcConfigRequest {
    let mut request = VpcConfigRequest::builder()
        .endpoint_public_access(spec.public_access)
        .endpoint_private_access(spec.private_access);
    if spec.public_access {
        request = request.set_public_access_cidrs(Some(spec.public_access_cidrs.iter().cloned().collect()));
    }
    if with_places {
        request = request
            .set_subnet_ids(Some(spec.subnet_ids.iter().cloned().collect()))
            .set_security_group_ids(Some(spec.security_group_ids.iter().cloned().collect()));
    }
    request.build()
}

#[expect(deprecated, reason = "older control planes still want to be told what to encrypt")]
fn encryption(key: &str) -> EncryptionConfig {
    let provider = Provider::builder().key_arn(key).build();
    EncryptionConfig::builder().resources("secrets").provider(provider).build()
}

fn placement(spec: &EksClusterSpec) -> VpcConfigRequest {
    VpcConfigRequest::builder()
        .set_subnet_ids(Some(spec.subnet_ids.iter().cloned().collect()))
        .set_security_group_ids(Some(spec.security_group_ids.iter().cloned().collect()))
        .build()
}

fn logging(spec: &EksClusterSpec) -> Logging {
    let (on, off): (Vec<LogType>, Vec<LogType>) = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
        .into_iter()
        .map(LogType::from)
        .partition(|log| spec.log_types.contains(log.as_str()));
    let setup = |types: Vec<LogType>, enabled: bool| {
        (!types.is_empty()).then(|| LogSetup::builder().set_types(Some(types)).enabled(enabled).build())
    };
    let setups = [setup(on, true), setup(off, false)].into_iter().flatten().collect();
    Logging::builder().set_cluster_logging(Some(setups)).build()
}

#[async_trait]
impl StepKind for EksClusterKind {
    type Spec = EksClusterSpec;
    type Outputs = EksClusterOutputs;

    const NAME: &'static str = "aws.eks_cluster";
    const SUMMARY: &'static str = "An EKS control plane.";
    const EXPECTED: Duration = Duration::from_secs(600);

    async fn observe(
        &self,
        spec: &EksClusterSpec,
        record: &Record<EksClusterOutputs>,
        context: &Context,
    ) -> Result<Seen<EksClusterOutputs>, StepError> {
        let Some(cluster) = get(&self.0, &spec.name).await? else { return Ok(Seen::Absent) };
        let tags = eks_tags(cluster.tags());
        let recorded = record.outputs.as_ref().is_some_and(|outputs| Some(outputs.arn.as_str()) == cluster.arn());
        let whose = ownership(&tags, context, recorded);
        let what = format!("cluster {}", spec.name);
        match cluster.status() {
            Some(ClusterStatus::Active) => {}
            Some(ClusterStatus::Failed) if whose == Ownership::Ours => {
                return Err(terminal(&what, "FAILED", &health(&cluster)));
            }
            status if whose == Ownership::Ours => {
                let status = status.map_or("in no known state", ClusterStatus::as_str);
                let poll_in = patient(context, record.intended_at);
                return Ok(Seen::Changing { reason: format!("{what} is {status}"), poll_in });
            }
            _ => {
                let owner = super::ownership::owner_text(&tags);
                return Err(super::ownership::foreign(&what, &owner));
            }
        }
        let mut differences = compare(spec, &cluster);
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        Ok(Seen::Present { outputs: self.outputs(&cluster)?, ownership: whose, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &EksClusterSpec,
        seen: &Seen<EksClusterOutputs>,
        record: &Record<EksClusterOutputs>,
        context: &Context,
    ) -> Result<Made<EksClusterOutputs>, StepError> {
        if spec.public_access && spec.public_access_cidrs.is_empty() {
            let error =
                StepError::permanent("public_access without public_access_cidrs would admit the whole internet");
            return Err(error.leaving(Residue::None).with_remedy("list who may reach the API server"));
        }
        let budget = match start(&format!("cluster {}", spec.name), seen)? {
            Start::Create => {
                self.create(spec, context).await?;
                BUDGET
            }
            Start::Change(outputs, differences) => {
                self.update(spec, outputs, differences, context).await?;
                if differences.is_empty() { SHORT } else { UPDATE_BUDGET }
            }
        };
        Ok(finished(self.observe(spec, record, context).await?, budget))
    }

    async fn undo(
        &self,
        spec: &EksClusterSpec,
        record: &Record<EksClusterOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let name = &spec.name;
        let Some(cluster) = get(&self.0, name).await? else {
            let left = self.sweep(name, record, context).await?;
            if !left.is_empty() {
                return Ok(going(format!("what was made for cluster {name} is going: {}", left.join(", ")), 10, 25));
            }
            if !self.group_is_gone(record, context).await? {
                return Ok(going(format!("the security group of cluster {name} is still in use"), 10, 25));
            }
            return Ok(nothing_left(record, context, format!("DescribeCluster {name}: not found; its group is gone")));
        };
        let tags = eks_tags(cluster.tags());
        if let Ownership::Foreign(owner) = proven(&tags, context) {
            return Ok(not_ours(record, context, &format!("cluster {name}"), &owner));
        }
        if let Some(group) = cluster.resources_vpc_config().and_then(|vpc| vpc.cluster_security_group_id()) {
            context.note("cluster_security_group_id", group.into()).await?;
        }
        if let Some(created_at) = cluster.created_at() {
            context.note("created_at", created_at.secs().into()).await?;
        }
        if let Some(vpc) = cluster.resources_vpc_config().and_then(|vpc| vpc.vpc_id()) {
            context.note("vpc_id", vpc.into()).await?;
        }
        if cluster.status() == Some(&ClusterStatus::Deleting) {
            return Ok(going(format!("cluster {name} is being deleted"), 10, 25));
        }
        if cluster.deletion_protection() == Some(true) {
            self.unprotect(name, context).await?;
            return Ok(going(format!("cluster {name}: deletion protection is being switched off"), 5, 25));
        }
        let permit = context.begin("DeleteCluster")?;
        match change("DeleteCluster", &permit, self.0.eks.delete_cluster().name(name).send()).await {
            Ok(_) => Ok(going(format!("cluster {name} is being deleted"), 10, 25)),
            Err(failure) if failure.is_not_found() => Ok(going(format!("cluster {name} is being deleted"), 5, 25)),
            Err(failure) if failure.is(&["ResourceInUseException", "InvalidRequestException"]) => {
                Ok(going(format!("cluster {name} cannot be deleted yet: {}", failure.message), 15, 60))
            }
            Err(failure) => Err(failure.into()),
        }
    }
}
