//! `aws.oidc_provider`: lets IAM trust the service account tokens of a cluster.
//!
//! No thumbprint is pinned: IAM checks the issuer's certificate against its own authorities. A rebuilt cluster has
//! another issuer, so its provider is another one.

use super::clients::AwsClients;
use super::ec2::{SHORT, finished};
use super::iam_role::{tag_parameters, xml_tags};
use super::ownership::{
    Differences, Start, Tags, compare_tags, creation_tags, going, lasting_tags, not_ours, nothing_left, ownership,
    proven, start, touches,
};
use super::signed::{Members, Parameters, Service, XmlTag, parameter};
use crate::contract::{Made, Record, Seen, StepKind};
use async_trait::async_trait;
use platflow_engine::context::Context;
use platflow_engine::failure::StepError;
use platflow_engine::step::{Ownership, UndoProgress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An OIDC provider in IAM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcProviderSpec {
    /// The issuer's URL, as the cluster gives it. Cannot be changed in place.
    pub issuer: String,
    /// Who tokens may be meant for.
    #[serde(default = "sts")]
    pub audiences: BTreeSet<String>,
    /// Further tags.
    #[serde(default)]
    pub tags: Tags,
}

fn sts() -> BTreeSet<String> {
    BTreeSet::from(["sts.amazonaws.com".to_owned()])
}

/// An OIDC provider that exists.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OidcProviderOutputs {
    /// Its ARN.
    pub arn: String,
    /// The issuer's URL.
    pub issuer: String,
}

/// See the file.
pub(super) struct OidcProviderKind(pub(super) Arc<AwsClients>);

#[derive(Deserialize)]
struct GetProvider {
    #[serde(rename = "GetOpenIDConnectProviderResult")]
    result: Provider,
}

#[derive(Deserialize)]
struct Provider {
    #[serde(rename = "ClientIDList", default)]
    audiences: Members<String>,
    #[serde(rename = "Tags", default)]
    tags: Members<XmlTag>,
}

#[derive(Deserialize)]
struct ListProviders {
    #[serde(rename = "ListOpenIDConnectProvidersResult")]
    result: Providers,
}

#[derive(Deserialize)]
struct Providers {
    #[serde(rename = "OpenIDConnectProviderList", default)]
    providers: Members<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Arn")]
    arn: String,
}

fn host_path(issuer: &str) -> &str {
    issuer.strip_prefix("https://").unwrap_or(issuer)
}

/// The ARN of the provider of an issuer.
pub(super) fn arn(aws: &AwsClients, issuer: &str) -> String {
    let identity = &aws.identity;
    format!("arn:{}:iam::{}:oidc-provider/{}", identity.partition, identity.account, host_path(issuer))
}

/// The tags of a provider, if it exists.
pub(super) async fn tags(aws: &AwsClients, arn: &str) -> Result<Option<Tags>, StepError> {
    Ok(get(aws, arn).await?.map(|provider| xml_tags(provider.tags)))
}

async fn get(aws: &AwsClients, arn: &str) -> Result<Option<Provider>, StepError> {
    let parameters = [parameter("OpenIDConnectProviderArn", arn)];
    match aws.signed.ask::<GetProvider>(Service::Iam, "GetOpenIDConnectProvider", &parameters).await {
        Ok(answer) => Ok(Some(answer.result)),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

impl OidcProviderKind {
    fn arn(&self, spec: &OidcProviderSpec) -> String {
        arn(&self.0, &spec.issuer)
    }

    fn outputs(&self, spec: &OidcProviderSpec) -> OidcProviderOutputs {
        OidcProviderOutputs { arn: self.arn(spec), issuer: spec.issuer.clone() }
    }

    fn name(spec: &OidcProviderSpec) -> &str {
        host_path(&spec.issuer)
    }

    async fn get(&self, arn: &str) -> Result<Option<Provider>, StepError> {
        get(&self.0, arn).await
    }

    async fn tell(&self, context: &Context, call: &str, action: &str, parameters: Parameters) -> Result<(), StepError> {
        let permit = context.begin(call)?;
        Ok(self.0.signed.tell(Service::Iam, action, &parameters, &permit).await?)
    }

    async fn create(&self, spec: &OidcProviderSpec, context: &Context) -> Result<(), StepError> {
        let token = context.token("CreateOpenIDConnectProvider");
        let tags = creation_tags(context, Self::name(spec), &spec.tags, &token);
        let mut parameters = vec![parameter("Url", &spec.issuer)];
        for (index, audience) in spec.audiences.iter().enumerate() {
            parameters.push(parameter(&format!("ClientIDList.member.{}", index + 1), audience));
        }
        parameters.extend(tag_parameters(&tags));
        self.tell(context, "CreateOpenIDConnectProvider", "CreateOpenIDConnectProvider", parameters).await
    }

    /// Providers of earlier clusters of this step: their issuers are dead, nothing trusts them any more. Ours by both tags.
    async fn delete_former(&self, current: &str, context: &Context) -> Result<(), StepError> {
        let list: ListProviders = self.0.signed.ask(Service::Iam, "ListOpenIDConnectProviders", &[]).await?;
        for Entry { arn } in list.result.providers.member {
            // Whoever has many clusters has many providers: only those of EKS are asked for their tags.
            if arn == current || !arn.contains("/oidc.eks.") {
                continue;
            }
            let Some(tags) = tags(&self.0, &arn).await? else { continue };
            if proven(&tags, context) == Ownership::Ours {
                let call = format!("DeleteOpenIDConnectProvider/{arn}");
                let named = vec![parameter("OpenIDConnectProviderArn", &arn)];
                self.tell(context, &call, "DeleteOpenIDConnectProvider", named).await?;
            }
        }
        Ok(())
    }

    async fn set_audiences(&self, spec: &OidcProviderSpec, arn: &str, context: &Context) -> Result<(), StepError> {
        let present = self.get(arn).await?.map(|provider| provider.audiences.member).unwrap_or_default();
        let present: BTreeSet<String> = present.into_iter().collect();
        for (action, audiences) in [
            ("AddClientIDToOpenIDConnectProvider", spec.audiences.difference(&present)),
            ("RemoveClientIDFromOpenIDConnectProvider", present.difference(&spec.audiences)),
        ] {
            for audience in audiences {
                let parameters = vec![parameter("OpenIDConnectProviderArn", arn), parameter("ClientID", audience)];
                self.tell(context, &format!("{action}/{audience}"), action, parameters).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl StepKind for OidcProviderKind {
    type Spec = OidcProviderSpec;
    type Outputs = OidcProviderOutputs;

    const NAME: &'static str = "aws.oidc_provider";
    const SUMMARY: &'static str = "Lets IAM trust the service account tokens of a cluster.";

    async fn observe(
        &self,
        spec: &OidcProviderSpec,
        record: &Record<OidcProviderOutputs>,
        context: &Context,
    ) -> Result<Seen<OidcProviderOutputs>, StepError> {
        let Some(provider) = self.get(&self.arn(spec)).await? else { return Ok(Seen::Absent) };
        let tags = xml_tags(provider.tags);
        let mut differences = Differences::default();
        let audiences: BTreeSet<String> = provider.audiences.member.into_iter().collect();
        differences.field("/audiences", &spec.audiences, audiences);
        compare_tags(&mut differences, &lasting_tags(context, Self::name(spec), &spec.tags), &tags);
        let recorded = record.outputs.as_ref().is_some_and(|outputs| outputs.issuer == spec.issuer);
        let ownership = ownership(&tags, context, recorded);
        Ok(Seen::Present { outputs: self.outputs(spec), ownership, differences: differences.0 })
    }

    async fn apply(
        &self,
        spec: &OidcProviderSpec,
        seen: &Seen<OidcProviderOutputs>,
        record: &Record<OidcProviderOutputs>,
        context: &Context,
    ) -> Result<Made<OidcProviderOutputs>, StepError> {
        match start(&format!("OIDC provider {}", Self::name(spec)), seen)? {
            Start::Create => self.create(spec, context).await?,
            Start::Change(outputs, differences) => {
                if touches(differences, "/audiences") {
                    self.set_audiences(spec, &outputs.arn, context).await?;
                }
                if touches(differences, "/tags") {
                    let mut parameters = vec![parameter("OpenIDConnectProviderArn", &outputs.arn)];
                    parameters.extend(tag_parameters(&lasting_tags(context, Self::name(spec), &spec.tags)));
                    self.tell(context, "TagOpenIDConnectProvider", "TagOpenIDConnectProvider", parameters).await?;
                }
            }
        }
        Ok(finished(self.observe(spec, record, context).await?, SHORT))
    }

    async fn undo(
        &self,
        spec: &OidcProviderSpec,
        record: &Record<OidcProviderOutputs>,
        context: &Context,
    ) -> Result<UndoProgress, StepError> {
        let arn = self.arn(spec);
        self.delete_former(&arn, context).await?;
        let Some(provider) = self.get(&arn).await? else {
            return Ok(nothing_left(record, context, format!("GetOpenIDConnectProvider {arn}: NoSuchEntity")));
        };
        if let Ownership::Foreign(owner) = proven(&xml_tags(provider.tags), context) {
            return Ok(not_ours(record, context, &arn, &owner));
        }
        let permit = context.begin("DeleteOpenIDConnectProvider")?;
        let parameters = [parameter("OpenIDConnectProviderArn", &arn)];
        match self.0.signed.tell(Service::Iam, "DeleteOpenIDConnectProvider", &parameters, &permit).await {
            Err(failure) if !failure.is_not_found() => return Err(failure.into()),
            _ => {}
        }
        Ok(match self.get(&arn).await? {
            Some(_) => going(format!("{arn} is being deleted"), 2, 5),
            None => UndoProgress::Gone {
                evidence: format!("DeleteOpenIDConnectProvider {arn}; GetOpenIDConnectProvider: NoSuchEntity"),
            },
        })
    }
}
