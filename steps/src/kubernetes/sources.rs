//! Where manifests come from: a URL pinned by digest, a file, or what ships with the binary. Each is read once. What the
//! objects mean is not known here.

use super::documents;
use super::download::Download;
use platflow_engine::failure::{Residue, StepError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a manifest comes from: exactly one of `url`, `file` and `embedded`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// An https URL; wants `sha256`.
    #[serde(default)]
    pub url: Option<String>,
    /// A path on this machine.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The bundle that ships with platflow.
    #[serde(default)]
    pub embedded: bool,
    /// The digest of the bytes, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// Manifests read so far, by source.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    read: Mutex<HashMap<Source, Arc<Vec<Value>>>>,
    download: Download,
}

/// A text that ships with the binary, and its objects.
type Shipped = (&'static str, Arc<Vec<Value>>);

/// What ships with the binary is the same for everybody in it: parsed once, however many catalogs are made.
static SHIPPED: Mutex<Vec<Shipped>> = Mutex::new(Vec::new());

fn shipped(text: &'static str) -> Result<Arc<Vec<Value>>, StepError> {
    let mut known = SHIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, objects)) = known.iter().find(|(other, _)| std::ptr::eq(*other, text)) {
        return Ok(Arc::clone(objects));
    }
    let objects = Arc::new(documents::objects(text)?);
    known.push((text, Arc::clone(&objects)));
    Ok(objects)
}

fn refused(what: impl Into<String>) -> StepError {
    StepError::permanent(what).leaving(Residue::None)
}

impl Sources {
    /// The objects of a source; `embedded` is the text that ships for the kind that asks, if one does.
    pub(crate) async fn objects(
        &self,
        source: &Source,
        embedded: Option<&'static str>,
    ) -> Result<Arc<Vec<Value>>, StepError> {
        if let Some(known) = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(source) {
            return Ok(Arc::clone(known));
        }
        let bytes = match (&source.url, &source.file, source.embedded) {
            (Some(url), None, false) if source.sha256.is_none() => {
                return Err(refused(format!("{url} is not pinned: name the sha256 of its content")));
            }
            (Some(url), None, false) => self.download.bytes(url).await?,
            (None, Some(path), false) => {
                let read = tokio::fs::read(path).await;
                read.map_err(|error| refused(format!("{} cannot be read: {error}", path.display())))?
            }
            (None, None, true) => match embedded {
                Some(text) => {
                    check(source, text.as_bytes())?;
                    return shipped(text);
                }
                None => return Err(refused("no manifest ships for this kind: name a url or a file")),
            },
            _ => return Err(refused("a source is exactly one of url, file and embedded")),
        };
        check(source, &bytes)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|error| refused(format!("the manifest is not text: {error}")))?;
        let objects = Arc::new(documents::objects(text)?);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(source.clone(), Arc::clone(&objects));
        Ok(objects)
    }

    /// The objects of a source for whoever takes them away: what can be had of them. With a list of them on record an
    /// address is not even asked, and where nothing is on record nothing was applied; so a source that has vanished or
    /// changed keeps nobody from a rollback.
    pub(crate) async fn for_undo(
        &self,
        source: &Source,
        embedded: Option<&'static str>,
        on_record: bool,
    ) -> Vec<Value> {
        if on_record && source.url.is_some() {
            return Vec::new();
        }
        match self.objects(source, embedded).await {
            Ok(objects) => objects.to_vec(),
            Err(error) => {
                tracing::info!(%error, "what is on record is taken away without its source");
                Vec::new()
            }
        }
    }

    /// Trusts one more CA: that of a test's server.
    #[cfg(test)]
    pub(super) fn trusting(certificate: &[u8]) -> Self {
        Self { download: Download::trusting(certificate), ..Self::default() }
    }
}

fn check(source: &Source, bytes: &[u8]) -> Result<(), StepError> {
    let Some(wanted) = &source.sha256 else { return Ok(()) };
    let found = hex::encode(Sha256::digest(bytes));
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(refused(format!("the manifest has digest {found}, not {wanted} as pinned"))
        .with_code("DigestMismatch")
        .with_remedy("find out why it changed; then pin the new digest or the old address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that an unpinned or plain-text address, two sources at once, none, and a wrong digest are refused, and
    /// that a file with the right digest is read.
    #[tokio::test]
    async fn sources_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.yaml");
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        std::fs::write(&path, yaml).unwrap();
        let base = Source { url: None, file: None, embedded: false, sha256: None };
        let digest = hex::encode(Sha256::digest(yaml));
        let url = |url: &str, sha256: Option<&str>| Source {
            url: Some(url.to_owned()),
            sha256: sha256.map(str::to_owned),
            ..base.clone()
        };
        let bad = [
            url("https://example.invalid/m.yaml", None),
            url("http://example.invalid/m.yaml", Some(&digest)),
            Source { file: Some(path.clone()), embedded: true, ..base.clone() },
            base.clone(),
            Source { embedded: true, ..base.clone() },
            Source { file: Some(path.clone()), sha256: Some("00".to_owned()), ..base.clone() },
        ];
        let sources = Sources::default();
        for source in bad {
            let error = sources.objects(&source, None).await.unwrap_err();
            assert_eq!(error.residue, Residue::None, "{source:?}");
        }
        let good = Source { file: Some(path), sha256: Some(digest), ..base };
        assert_eq!(sources.objects(&good, None).await.unwrap().len(), 1);
    }
}
