//! Where secrets are kept: an identity that opens them, recipients, a second place on another disk, and keys of an earlier
//! Vault that would be taken for those of the new one.
//!
//! Places are tried with a file that is taken away again; nothing is sealed, and no identity is made.

use crate::settings::{Identity, Settings};
use async_trait::async_trait;
use platflow_engine::name::EnvironmentUid;
use platflow_engine::secret::SecretStore;
use platflow_state::Store;
use platflow_steps::preflight::{Check, Examiner, Family, Finding, Subject};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

static IDENTITY: Check = Check::of_request("key.identity", Family::Key, "The age identity can be read");
static EXPOSED: Check = Check::of_request("key.identity-mode", Family::Key, "Nobody else reads the age identity");
static RECIPIENTS: Check = Check::of_request("key.recipients", Family::Key, "Further recipients are age recipients");
static SECOND: Check =
    Check::of_request("key.second-store", Family::Key, "The second place for key shares can be written");
static READABLE: Check =
    Check::of_request("key.second-store-readable", Family::Key, "The second place for key shares can be read");
static SAME_DISK: Check =
    Check::of_world("key.second-store-disk", Family::Key, "The second place for key shares is on another disk");
static UNNAMED: Check = Check::of_request("key.explicit", Family::Key, "Where production's key shares go is named");
static THRESHOLD: Check = Check::of_request("key.threshold", Family::Key, "Vault's threshold is within its shares");
static ALONE: Check = Check::of_request("key.one-share", Family::Key, "No single share opens Vault");
static EARLIER: Check =
    Check::of_world("key.earlier-record", Family::Key, "No key shares of an earlier Vault are on record");

pub(super) static CHECKS: &[&Check] =
    &[&IDENTITY, &EXPOSED, &RECIPIENTS, &SECOND, &READABLE, &SAME_DISK, &UNNAMED, &THRESHOLD, &ALONE, &EARLIER];

/// Looks at the places that the settings name, and at the secrets of the environment.
pub(super) struct Keys {
    pub(super) settings: Settings,
    pub(super) store: Option<(Arc<Store>, Option<EnvironmentUid>)>,
}

#[async_trait]
impl Examiner for Keys {
    fn checks(&self) -> Vec<&'static Check> {
        CHECKS.to_vec()
    }

    async fn examine(&self, subject: &Subject) -> Vec<Finding> {
        let mut found = identity(&self.settings);
        let wrong: Vec<&str> = self
            .settings
            .recipients
            .iter()
            .map(String::as_str)
            .filter(|text| text.parse::<age::x25519::Recipient>().is_err())
            .collect();
        if !wrong.is_empty() {
            found.push(RECIPIENTS.blocker(
                format!("PLATFLOW_RECIPIENTS has {}", wrong.join(", ")),
                "nothing that keeps secrets starts",
                "give age recipients (age1…), separated by commas",
            ));
        }
        let building: Vec<_> = subject.of_kind("vault.init").collect();
        for step in &building {
            let (shares, threshold) = (step.number("/shares").unwrap_or(5), step.number("/threshold").unwrap_or(3));
            if threshold > shares || threshold < 1 {
                found.push(THRESHOLD.blocker(
                    format!("{}: {threshold} of {shares} shares", step.name),
                    "Vault refuses to be initialised when everything else is up",
                    "set a threshold between 1 and the number of shares",
                ));
            } else if threshold == 1 {
                found.push(ALONE.warning(
                    format!("{}: 1 of {shares} shares opens it", step.name),
                    "whoever finds one share has everything",
                    "set a threshold of 2 at least",
                ));
            }
        }
        if building.is_empty() && !subject.steps.is_empty() {
            return found;
        }
        for folder in self.places(subject) {
            found.extend(place(&folder, &self.settings, subject));
        }
        found.extend(self.unnamed(subject));
        found.extend(self.earlier(subject).await);
        found
    }
}

impl Keys {
    /// The second places: those that steps name, or that of the settings.
    fn places(&self, subject: &Subject) -> Vec<PathBuf> {
        let named: Vec<PathBuf> =
            subject.of_kind("vault.init").filter_map(|step| step.text("/second_store")).map(PathBuf::from).collect();
        if named.is_empty() { vec![self.settings.second_key_store.clone()] } else { named }
    }

    fn unnamed(&self, subject: &Subject) -> Option<Finding> {
        let by_step = subject.of_kind("vault.init").all(|step| step.text("/second_store").is_some());
        let missing: Vec<&str> = [
            ("PLATFLOW_SECOND_KEY_STORE", self.settings.second_key_store_named || by_step),
            ("PLATFLOW_RECIPIENTS", !self.settings.recipients.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, given)| (!given).then_some(name))
        .collect();
        if missing.is_empty() || subject.sandbox || subject.steps.is_empty() {
            return None;
        }
        let evidence = format!("{} not set", missing.join(" and "));
        let consequence = "key shares cannot be made again: their only copies and what opens them are on this disk";
        let remedy = "set them to a folder on another disk, and to age recipients of other people";
        Some(if subject.production {
            UNNAMED.blocker(evidence, consequence, remedy)
        } else {
            UNNAMED.warning(evidence, consequence, remedy)
        })
    }

    /// Shares on record, and a Vault that is not: it will be made anew, and its shares under the same names.
    async fn earlier(&self, subject: &Subject) -> Option<Finding> {
        let (store, uid) = self.store.as_ref()?;
        let uid = uid.as_ref()?;
        subject.of_kind("vault.init").find(|step| step.outputs.is_none())?;
        let secrets = store.list_secrets(uid).await.ok()?;
        let shares: Vec<&str> =
            secrets.iter().map(|one| one.name.as_str()).filter(|name| name.starts_with("vault/")).collect();
        (!shares.is_empty()).then(|| {
            EARLIER.warning(
                format!("{} secret(s) of an earlier Vault are on record, and no Vault is", shares.len()),
                "a new Vault is not initialised while they could belong to one that is alive: the step will stop and say so",
                format!("look at them: platflow secret list {}", subject.environment),
            )
        })
    }
}

fn identity(settings: &Settings) -> Vec<Finding> {
    let Identity::File(path) = &settings.identity else { return Vec::new() };
    match std::fs::metadata(path) {
        // It is made at first need.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![unreadable(path, &error.to_string())],
        Ok(file) => {
            let mode = file.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return vec![EXPOSED.blocker(
                    format!("{} has mode {mode:o}", path.display()),
                    "other users of this machine can open every secret; nothing that keeps secrets starts",
                    format!("chmod 600 {}", path.display()),
                )];
            }
            match std::fs::read_to_string(path) {
                Err(error) => vec![unreadable(path, &error.to_string())],
                Ok(text) => {
                    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                    let fine = line.is_some_and(|line| line.parse::<age::x25519::Identity>().is_ok());
                    if fine { Vec::new() } else { vec![unreadable(path, "it holds no AGE-SECRET-KEY-1…")] }
                }
            }
        }
    }
}

fn unreadable(path: &Path, why: &str) -> Finding {
    IDENTITY.blocker(
        format!("the age identity at {} cannot be used: {why}", path.display()),
        "nothing that keeps secrets starts, and what is sealed stays shut",
        "restore it from its backup, or name another with PLATFLOW_IDENTITY",
    )
}

/// The folder itself, or the nearest one above it that exists.
fn nearest(folder: &Path) -> &Path {
    let mut at = folder;
    while !at.exists() {
        let Some(parent) = at.parent() else { return at };
        at = parent;
    }
    at
}

fn place(folder: &Path, settings: &Settings, subject: &Subject) -> Vec<Finding> {
    let mut found = Vec::new();
    let there = nearest(folder);
    if let Err(error) = super::state::try_write(there) {
        found.push(SECOND.blocker(
            format!("{} cannot be written: {error}", folder.display()),
            "Vault is not initialised while its shares have only one place",
            "make the folder writable, or name another with PLATFLOW_SECOND_KEY_STORE",
        ));
        return found;
    }
    if folder.exists()
        && let Err(error) = std::fs::read_dir(folder)
    {
        found.push(READABLE.blocker(
            format!("{} cannot be read: {error}", folder.display()),
            "a share that cannot be read back is not kept: Vault is not initialised",
            "make the folder readable",
        ));
    }
    let device = |path: &Path| std::fs::metadata(nearest(path)).map(|file| file.dev()).ok();
    if !subject.sandbox && !subject.steps.is_empty() && device(folder) == device(&settings.state_directory) {
        found.push(SAME_DISK.warning(
            format!("{} is on the disk of the state file", folder.display()),
            "when that disk is lost, both copies of the key shares are",
            "name a folder on another disk with PLATFLOW_SECOND_KEY_STORE",
        ));
    }
    found
}
