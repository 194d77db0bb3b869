//! EBS volumes that the volume driver made for a cluster, whether or not the cluster still knows them. Reads only.

use super::clients::AwsClients;
use super::ec2::{filter, sdk_filters, tag_map};
use super::failure::look;
use platflow_engine::failure::StepError;

/// A volume that was made for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterVolume {
    /// Its id.
    pub id: String,
    /// How big it is.
    pub gib: i32,
    /// Namespace and claim that it was made for, as far as its tags say.
    pub claim: Option<String>,
}

/// The EBS volumes with the tag of the cluster's name.
///
/// # Errors
/// When the account does not answer, or does not let us look.
pub async fn cluster_volumes(aws: &AwsClients, cluster: &str) -> Result<Vec<ClusterVolume>, StepError> {
    let named = vec![filter("tag-key", format!("kubernetes.io/cluster/{cluster}"))];
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let request = aws.ec2.describe_volumes().set_filters(sdk_filters(named.clone()));
        let answer = look("DescribeVolumes", request.set_next_token(next.take()).send()).await?;
        for one in answer.volumes() {
            let tags = tag_map(one.tags());
            // A node's own disk goes and comes with the node: it is the driver's volumes that hold somebody's data.
            let Some(name) = tags.get("kubernetes.io/created-for/pvc/name") else { continue };
            let namespace = tags.get("kubernetes.io/created-for/pvc/namespace").map_or("?", String::as_str);
            found.push(ClusterVolume {
                id: one.volume_id().unwrap_or_default().to_owned(),
                gib: one.size().unwrap_or_default(),
                claim: Some(format!("{namespace}/{name}")),
            });
        }
        next = answer.next_token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}
