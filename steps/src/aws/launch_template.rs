//! `aws.launch_template`: what nodes of a group look like: encrypted disk, IMDSv2, tags.
//!
//! EKS tags do not reach instances, volumes and interfaces: the template carries them. Changed data become a new
//! version; which version a group uses is the group's.

use super::clients::AwsClients;
use super::ec2::{
    Filters, Found, Resource, SHORT, by_id, find, finished, required, restore_tags, sdk_filters, sdk_tags, tag_map,
    tag_specification,
};
use super::failure::{AwsFailure, change, look};
use super::ownership::{
    self, Differences, Start, Tags, absent, compare_tags, creation_tags, going, lasting_tags, not_ours, noted,
    nothing_left, start, touches,
};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use aws_sdk_ec2::types::{
    LaunchTemplate, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMetadataEndpointState,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateTagSpecificationRequest, LaunchTemplateVersion,
    RequestLaunchTemplateData, ResourceType, ResponseLaunchTemplateData, Tag, VolumeType,
};
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// A launch template.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchTemplateSpec {
    /// Unique in account and region. Cannot be changed in place.
    pub name: String,
    /// Size of the root disk (gp3, encrypted).
    pub disk_gib: i32,
    /// Further tags for instances, volumes and interfaces.
    #[serde(default)]
    pub tags_for_instances: Tags,
    /// The cluster the nodes belong to.
    pub cluster_name: String,
    /// Instance metadata only with a session token (IMDSv2).
    #[serde(default = "yes")]
    pub http_tokens_required: bool,
    /// How many hops metadata answers travel; 1 keeps them from pods.
    #[serde(default = "one")]
    pub hop_limit: i32,
    /// The key that encrypts the disk; without one, the account's default EBS key.
    #[serde(default)]
    pub kms_key_arn: Option<String>,
    /// An image other than the one EKS chooses.
    #[serde(default)]
    pub image: Option<String>,
    /// Further tags of the template itself.
    #[serde(default)]
    pub tags: Tags,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

/// A launch template that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LaunchTemplateOutputs {
    /// `lt-…`.
    pub launch_template_id: String,
    /// Its newest version.
    pub version: String,
}

/// See the file.
pub(super) struct LaunchTemplateKind(pub(super) Arc<AwsClients>);

impl Resource for LaunchTemplate {
    const WHAT: &'static str = "launch template";
    const ID_FILTER: &'static str = "launch-template-id";

    fn id(&self) -> &str {
        self.launch_template_id().unwrap_or_default()
    }

    fn tags(&self) -> &[Tag] {
        self.tags()
    }

    /// There is no filter by id: an id goes as a parameter, and one that does not exist is an error of its own.
    async fn describe(aws: &AwsClients, filters: Filters) -> Result<Vec<Self>, AwsFailure> {
        let (ids, others): (Filters, Filters) = filters.into_iter().partition(|(name, _)| name == Self::ID_FILTER);
        let ids: Vec<String> = ids.into_iter().flat_map(|(_, values)| values).collect();
        let mut request = aws.ec2.describe_launch_templates();
        if !ids.is_empty() {
            request = request.set_launch_template_ids(Some(ids));
        }
        if !others.is_empty() {
            request = request.set_filters(sdk_filters(others));
        }
        match look("DescribeLaunchTemplates", request.send()).await {
            Ok(answer) => Ok(answer.launch_templates.unwrap_or_default()),
            Err(failure) if failure.is_not_found() => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }
}

const ROOT_DEVICE: &str = "/dev/xvda";
const TAGGED: [ResourceType; 3] = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];

/// Tags of what is launched. Nothing in them changes from run to run: they are part of the version.
fn launched_tags(spec: &LaunchTemplateSpec, context: &Context) -> Tags {
    let mut tags = spec.tags_for_instances.clone();
    tags.insert(format!("kubernetes.io/cluster/{}", spec.cluster_name), "owned".to_owned());
    lasting_tags(context, &spec.name, &tags)
}

fn data(spec: &LaunchTemplateSpec, context: &Context) -> RequestLaunchTemplateData {
    let disk = LaunchTemplateEbsBlockDeviceRequest::builder()
        .encrypted(true)
        .delete_on_termination(true)
        .volume_size(spec.disk_gib)
        .volume_type(VolumeType::Gp3)
        .set_kms_key_id(spec.kms_key_arn.clone())
        .build();
    let disk = LaunchTemplateBlockDeviceMappingRequest::builder().device_name(ROOT_DEVICE).ebs(disk).build();
    let tokens = if spec.http_tokens_required {
        LaunchTemplateHttpTokensState::Required
    } else {
        LaunchTemplateHttpTokensState::Optional
    };
    let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
        .http_tokens(tokens)
        .http_put_response_hop_limit(spec.hop_limit)
        .build();
    let tags = sdk_tags(&launched_tags(spec, context));
    let specifications = TAGGED
        .iter()
        .map(|resource| {
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(resource.clone())
                .set_tags(Some(tags.clone()))
                .build()
        })
        .collect();
    RequestLaunchTemplateData::builder()
        .block_device_mappings(disk)
        .metadata_options(metadata)
        .set_tag_specifications(Some(specifications))
        .set_image_id(spec.image.clone())
        .build()
}

fn compare(spec: &LaunchTemplateSpec, found: &ResponseLaunchTemplateData, context: &Context) -> Differences {
    let mut differences = Differences::default();
    let disk = found.block_device_mappings().iter().find(|disk| disk.device_name() == Some(ROOT_DEVICE));
    let disk = disk.and_then(|disk| disk.ebs());
    differences.field("/disk_gib", Some(spec.disk_gib), disk.and_then(|disk| disk.volume_size()));
    differences.field("/disk_encrypted", true, disk.and_then(|disk| disk.encrypted()).unwrap_or(false));
    let kind = disk.and_then(|disk| disk.volume_type()).map(VolumeType::as_str);
    differences.field("/disk_type", Some("gp3"), kind);
    differences.field("/kms_key_arn", &spec.kms_key_arn, disk.and_then(|disk| disk.kms_key_id()));
    let metadata = found.metadata_options();
    let tokens = metadata.and_then(|metadata| metadata.http_tokens());
    let required = tokens == Some(&LaunchTemplateHttpTokensState::Required);
    differences.field("/http_tokens_required", spec.http_tokens_required, required);
    let hops = metadata.and_then(|metadata| metadata.http_put_response_hop_limit());
    differences.field("/hop_limit", Some(spec.hop_limit), hops);
    differences.field("/image", &spec.image, found.image_id());
    let wanted = launched_tags(spec, context);
    for resource in &TAGGED {
        let specification = found.tag_specifications().iter().find(|one| one.resource_type() == Some(resource));
        let tags = specification.map(|one| tag_map(one.tags())).unwrap_or_default();
        differences.field(&format!("/launched_tags/{}", resource.as_str()), &wanted, &tags);
    }
    differences
}

impl LaunchTemplateKind {
    fn known(record: &Record<LaunchTemplateOutputs>) -> Option<String> {
        noted(record, "launch_template_id")
            .or_else(|| record.outputs.as_ref().map(|outputs| outputs.launch_template_id.clone()))
    }

    /// The version that is in force. Not the newest one: a rollback puts an older one in force again.
    async fn current(&self, id: &str) -> Result<Option<LaunchTemplateVersion>, StepError> {
        let sending = self.0.ec2.describe_launch_template_versions().launch_template_id(id).versions("$Default").send();
        let answer = look("DescribeLaunchTemplateVersions", sending).await?;
        Ok(answer.launch_template_versions.unwrap_or_default().into_iter().next())
    }

    /// The newest of all versions that is as the spec wants it.
    async fn fitting(
        &self,
        spec: &LaunchTemplateSpec,
        id: &str,
        context: &Context,
    ) -> Result<Option<String>, StepError> {
        let (mut newest, mut next): (Option<i64>, Option<String>) = (None, None);
        loop {
            let request = self.0.ec2.describe_launch_template_versions().launch_template_id(id);
            let answer = look("DescribeLaunchTemplateVersions", request.set_next_token(next.take()).send()).await?;
            let fits = answer.launch_template_versions().iter().filter(|version| {
                version.launch_template_data().is_some_and(|data| compare(spec, data, context).0.is_empty())
            });
            newest = fits.filter_map(|version| version.version_number()).max().max(newest);
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(newest.map(|number| number.to_string()));
            }
        }
    }

    async fn same_name(&self, spec: &LaunchTemplateSpec) -> Result<Option<Found<LaunchTemplate>>, StepError> {
        let filters = vec![super::ec2::filter("launch-template-name", &spec.name)];
        let template = LaunchTemplate::describe(&self.0, filters).await?.into_iter().next();
        Ok(template.map(|it| {
            let tags = tag_map(it.tags());
            Found { it, ownership: Ownership::Foreign(ownership::owner_text(&tags)), tags }
        }))
    }

    async fn see(
        &self,
        spec: &LaunchTemplateSpec,
        record: &Record<LaunchTemplateOutputs>,
        context: &Context,
        known: Option<String>,
    ) -> Result<Seen<LaunchTemplateOutputs>, StepError> {
        let template = match find::<LaunchTemplate>(&self.0, context, known.as_deref()).await? {
            None if known.is_none() => self.same_name(spec).await?,
            template => template,
        };
        let Some(Found { it, ownership, tags }) = template else {
            return Ok(absent(record, known.as_ref(), context));
        };
        let id = required("launch template id", it.launch_template_id())?;
        let Some(current) = self.current(id).await? else {
            return Ok(super::ec2::soon(format!("{id} shows no version yet")));
        };
        let data = required("launch template data", current.launch_template_data())?;
        let mut differences = compare(spec, data, context);
        differences.fixed("/name", &spec.name, it.launch_template_name());
        compare_tags(&mut differences, &lasting_tags(context, &spec.name, &spec.tags), &tags);
        let version = required("launch template version", current.version_number())?.to_string();
        let outputs = LaunchTemplateOutputs { launch_template_id: id.to_owned(), version };
        Ok(Seen::Present { outputs, ownership, differences: differences.0 })
    }

    async fn create(&self, spec: &LaunchTemplateSpec, context: &Context) -> Result<String, StepError> {
        let permit = context.begin("CreateLaunchTemplate")?;
        let tags = creation_tags(context, &spec.name, &spec.tags, &permit.token);
        let request = self.0.ec2.create_launch_template().client_token(&permit.token).launch_template_name(&spec.name);
        let sending = request
            .launch_template_data(data(spec, context))
            .tag_specifications(tag_specification(ResourceType::LaunchTemplate, &tags))
            .send();
        let answer = change("CreateLaunchTemplate", &permit, sending).await?;
        let id = answer.launch_template.and_then(|template| template.launch_template_id);
        let id = required("launch template id", id)?;
        context.note("launch_template_id", id.clone().into()).await?;
        Ok(id)
    }

    /// Puts a version in force that is as the spec wants it: one that is there, or else a new one. Versions are never taken
    /// away, so that a rollback comes back to the very version that groups of nodes were built from.
    async fn put_in_force(
        &self,
        spec: &LaunchTemplateSpec,
        found: &LaunchTemplateOutputs,
        content: serde_json::Value,
        context: &Context,
    ) -> Result<(), StepError> {
        let id = &found.launch_template_id;
        let version = match self.fitting(spec, id, context).await? {
            Some(version) => version,
            None => self.add_version(spec, found, content, context).await?,
        };
        let permit = context.begin("ModifyLaunchTemplate")?;
        let sending = self.0.ec2.modify_launch_template().launch_template_id(id).default_version(version).send();
        change("ModifyLaunchTemplate", &permit, sending).await?;
        Ok(())
    }

    async fn add_version(
        &self,
        spec: &LaunchTemplateSpec,
        found: &LaunchTemplateOutputs,
        content: serde_json::Value,
        context: &Context,
    ) -> Result<String, StepError> {
        let call = super::eks_cluster::update_call(context, "CreateLaunchTemplateVersion", &content);
        let permit = context.begin(&call)?;
        let id = &found.launch_template_id;
        let request = self.0.ec2.create_launch_template_version().client_token(&permit.token).launch_template_id(id);
        let sending = request.launch_template_data(data(spec, context)).send();
        let answer = change("CreateLaunchTemplateVersion", &permit, sending).await?;
        let version = answer.launch_template_version.and_then(|version| version.version_number);
        Ok(required("launch template version", version)?.to_string())
    }
}

#[async_trait]
impl StepKind for LaunchTemplateKind {
    type Spec = LaunchTemplateSpec;
    type Outputs = LaunchTemplateOutputs;

    const NAME: &'static str = "aws.launch_template";
    const SUMMARY: &'static str = "A launch template for nodes: encrypted disk, IMDSv2, tags.";

    async fn observe(
        &self,
        spec: &LaunchTemplateSpec,
        record: &Record<LaunchTemplateOutputs>,
        context: &Context,
    ) -> Result<Seen<LaunchTemplateOutputs>, StepError> {
        self.see(spec, record, context, Self::known(record)).await
    }

    async fn apply(
        &self,
        spec: &LaunchTemplateSpec,
        seen: &Seen<LaunchTemplateOutputs>,
        record: &Record<LaunchTemplateOutputs>,
        context: &Context,
    ) -> Result<Made<LaunchTemplateOutputs>, StepError> {
        let id = match start(&format!("launch template {}", spec.name), seen)? {
            Start::Create => self.create(spec, context).await?,
            Start::Change(outputs, differences) => {
                let id = outputs.launch_template_id.clone();
                let data: Vec<_> = differences
                    .iter()
                    .filter(|difference| !touches(std::slice::from_ref(difference), "/tags"))
                    .collect();
                if !data.is_empty() {
                    self.put_in_force(spec, outputs, json!([outputs.version, data]), context).await?;
                }
                let tags = lasting_tags(context, &spec.name, &spec.tags);
                restore_tags(&self.0, context, &id, differences, &tags).await?;
                id
            }
        };
        Ok(finished(self.see(spec, record, context, Some(id)).await?, SHORT))
    }

    async fn undo(
        &self,
        _spec: &LaunchTemplateSpec,
        record: &Record<LaunchTemplateOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let known = Self::known(record);
        let Some(found) = find::<LaunchTemplate>(&self.0, context, known.as_deref()).await? else {
            return Ok(nothing_left(record, context, "DescribeLaunchTemplates by tag and id shows none of this step"));
        };
        let id = found.it.id();
        if let Ownership::Foreign(owner) = &found.ownership {
            return Ok(not_ours(record, context, id, owner));
        }
        let permit = context.begin("DeleteLaunchTemplate")?;
        let sending = self.0.ec2.delete_launch_template().launch_template_id(id).send();
        match change("DeleteLaunchTemplate", &permit, sending).await {
            Ok(_) => {}
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure.into()),
        }
        Ok(match by_id::<LaunchTemplate>(&self.0, id).await? {
            Some(_) => going(format!("{id} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!("DeleteLaunchTemplate {id}; DescribeLaunchTemplates shows it no more"),
            },
        })
    }
}
