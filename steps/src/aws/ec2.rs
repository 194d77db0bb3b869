//! What all EC2 kinds share: looking for a resource by our tags, then by its noted id; tags at creation; finishing.
//!
//! Which resource, and what it should be like, is each kind's file.

use super::clients::AwsClients;
use super::failure::{AwsFailure, change};
use super::ownership::{self, STEP, Tags, UID, duplicates};
use crate::contract::{Made, Seen};
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use platflow_engine::context::Context;
use platflow_engine::failure::{ErrorClass, StepError};
use platflow_engine::step::{Difference, Ownership};
use std::future::Future;
use std::time::Duration;

/// Filters of a describe call: name and accepted values.
pub(super) type Filters = Vec<(String, Vec<String>)>;

/// A resource that EC2 describes.
pub(super) trait Resource: Sized + Send {
    /// In words, for messages.
    const WHAT: &'static str;
    /// The filter that selects by id.
    const ID_FILTER: &'static str;

    /// Its id.
    fn id(&self) -> &str;
    /// Its tags.
    fn tags(&self) -> &[Tag];
    /// False for what only lingers in answers after its deletion.
    fn exists(&self) -> bool {
        true
    }
    /// All that the filters select.
    fn describe(aws: &AwsClients, filters: Filters) -> impl Future<Output = Result<Vec<Self>, AwsFailure>> + Send;
}

/// A resource and whose it is.
pub(super) struct Found<T> {
    pub(super) it: T,
    pub(super) ownership: Ownership,
    pub(super) tags: Tags,
}

/// One filter.
pub(super) fn filter(name: &str, value: impl Into<String>) -> (String, Vec<String>) {
    (name.to_owned(), vec![value.into()])
}

/// Filters in the SDK's form.
pub(super) fn sdk_filters(filters: Filters) -> Option<Vec<Filter>> {
    Some(
        filters
            .into_iter()
            .map(|(name, values)| Filter::builder().name(name).set_values(Some(values)).build())
            .collect(),
    )
}

/// Looks by this step's tags first, then by the id on record. Two with our tags are a human's to sort out.
pub(super) async fn find<T: Resource>(
    aws: &AwsClients,
    context: &Context,
    known: Option<&str>,
) -> Result<Option<Found<T>>, StepError> {
    let mut found = of_step::<T>(aws, context).await?;
    if found.len() > 1 {
        let ids: Vec<String> = found.iter().map(|one| one.id().to_owned()).collect();
        return Err(duplicates(T::WHAT, &ids));
    }
    if let Some(it) = found.pop() {
        let tags = tag_map(it.tags());
        return Ok(Some(Found { it, ownership: Ownership::Ours, tags }));
    }
    match known {
        Some(id) => Ok(by_id::<T>(aws, id).await?.map(|it| {
            let tags = tag_map(it.tags());
            Found { ownership: ownership::ownership(&tags, context, true), it, tags }
        })),
        None => Ok(None),
    }
}

/// Every resource that carries this step's tags.
pub(super) async fn of_step<T: Resource>(aws: &AwsClients, context: &Context) -> Result<Vec<T>, StepError> {
    let ours = vec![
        filter(&format!("tag:{UID}"), context.environment_uid.as_str()),
        filter(&format!("tag:{STEP}"), context.step.as_str()),
    ];
    Ok(T::describe(aws, ours).await?.into_iter().filter(Resource::exists).collect())
}

/// The resource with this id, if it exists.
pub(super) async fn by_id<T: Resource>(aws: &AwsClients, id: &str) -> Result<Option<T>, StepError> {
    let found = T::describe(aws, vec![filter(T::ID_FILTER, id)]).await?;
    Ok(found.into_iter().find(|one| one.id() == id && one.exists()))
}

/// EC2 tags by key.
pub(super) fn tag_map(tags: &[Tag]) -> Tags {
    tags.iter()
        .map(|tag| (tag.key().unwrap_or_default().to_owned(), tag.value().unwrap_or_default().to_owned()))
        .collect()
}

/// Tags that come to be with the resource itself.
pub(super) fn tag_specification(resource: ResourceType, tags: &Tags) -> TagSpecification {
    TagSpecification::builder().resource_type(resource).set_tags(Some(sdk_tags(tags))).build()
}

pub(super) fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Puts missing tags back, if that is among the differences.
pub(super) async fn restore_tags(
    aws: &AwsClients,
    context: &Context,
    id: &str,
    differences: &[Difference],
    wanted: &Tags,
) -> Result<(), StepError> {
    if ownership::touches(differences, "/tags") {
        let permit = context.begin("CreateTags")?;
        let sending = aws.ec2.create_tags().resources(id).set_tags(Some(sdk_tags(wanted))).send();
        change("CreateTags", &permit, sending).await?;
    }
    Ok(())
}

/// What a field of an answer must hold; an answer without it is not usable.
pub(super) fn required<T>(what: &str, value: Option<T>) -> Result<T, StepError> {
    value.ok_or_else(|| StepError::new(ErrorClass::Transient, format!("AWS's answer has no {what}")))
}

/// How an apply ends: done if a look already shows the resource, else waiting for it.
pub(super) fn finished<O>(seen: Seen<O>, budget: Duration) -> Made<O> {
    match seen {
        Seen::Present { outputs, .. } => Made::Done(outputs),
        Seen::Changing { reason, poll_in } => Made::Waiting { reason, poll_in, budget },
        Seen::Absent | Seen::Unknown { .. } => Made::Waiting {
            reason: "waiting for AWS to show what it accepted".to_owned(),
            poll_in: Duration::from_secs(2),
            budget,
        },
    }
}

/// The budget of resources that appear within seconds.
pub(super) const SHORT: Duration = Duration::from_secs(120);

/// A short wait for a state that follows by itself.
pub(super) fn soon<O>(reason: impl Into<String>) -> Seen<O> {
    Seen::Changing { reason: reason.into(), poll_in: Duration::from_secs(2) }
}

/// 5 s at first, 10 s after half a minute, 15 s after two: long enough to be kind, short enough to be quick.
pub(super) fn patient(context: &Context, since: Option<jiff::Timestamp>) -> Duration {
    let waited = since.map_or(0, |since| context.now().duration_since(since).as_secs());
    Duration::from_secs(match waited {
        ..30 => 5,
        30..120 => 10,
        _ => 15,
    })
}
