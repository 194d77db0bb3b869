//! Sealing secrets with age before they touch anything durable, and keeping them in two places.
//!
//! Plaintext lives only in types that wipe themselves and cannot be printed. This file decides neither when a secret
//! may be shown nor who asked: that is the caller's, who journals it.

mod keystore;

pub use keystore::{Keystore, KeystoreError, Place};

use secrecy::{ExposeSecret, SecretString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Where the age identity comes from.
#[derive(Debug, Clone)]
pub enum IdentitySource {
    /// A file of its own, created (mode 0600) when it does not exist.
    File(PathBuf),
    /// A command whose standard output is the identity (a password manager, a hardware token's tool).
    Command(Vec<String>),
}

/// Why nothing could be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The identity could not be read or created.
    #[error("the age identity at {path} cannot be used")]
    IdentityFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could read the identity.
    #[error("the age identity at {path} is readable by others (mode {mode:o}); chmod 600 it")]
    IdentityExposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The command did not give one.
    #[error("the identity command failed: {0}")]
    IdentityCommand(String),
    /// What was read is no age identity.
    #[error("no age identity (AGE-SECRET-KEY-1…) in {0}")]
    NoIdentity(String),
    /// A further recipient is malformed.
    #[error("{0:?} is not an age recipient")]
    Recipient(String),
    /// age refused to encrypt.
    #[error("sealing failed: {0}")]
    Encrypt(String),
    /// age refused to decrypt: other identity, or damaged ciphertext.
    #[error("opening failed: {0}")]
    Decrypt(String),
}

/// Seals and opens secrets.
pub struct Sealer {
    identity: age::x25519::Identity,
    recipients: Vec<age::x25519::Recipient>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sealer").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

/// A sealer that is ready, and whether its identity is new.
#[derive(Debug)]
pub struct Opened {
    /// Ready to use.
    pub sealer: Sealer,
    /// The file that was created for it just now: announce it, with the advice to back it up.
    pub created: Option<PathBuf>,
}

impl Sealer {
    /// Reads the identity, or creates the file at first need. `further` recipients can open what is sealed, too.
    ///
    /// # Errors
    /// [`SealingError`]; nothing secret-bearing may start then.
    pub async fn open(source: &IdentitySource, further: &[String]) -> Result<Opened, SealingError> {
        let (text, created) = match source {
            IdentitySource::File(path) => {
                let created = create_identity(path)?;
                (read_identity(path)?, created.then(|| path.clone()))
            }
            IdentitySource::Command(command) => (run_command(command).await?, None),
        };
        let origin = match source {
            IdentitySource::File(path) => path.display().to_string(),
            IdentitySource::Command(_) => "the output of the identity command".into(),
        };
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let identity =
            line.and_then(|line| age::x25519::Identity::from_str(line).ok()).ok_or(SealingError::NoIdentity(origin))?;
        let sealer = Self::new(identity, further)?;
        Ok(Opened { sealer, created })
    }

    /// From an identity at hand.
    ///
    /// # Errors
    /// When a further recipient is malformed.
    pub fn new(identity: age::x25519::Identity, further: &[String]) -> Result<Self, SealingError> {
        let mut recipients = vec![identity.to_public()];
        for text in further {
            let recipient =
                age::x25519::Recipient::from_str(text).map_err(|_| SealingError::Recipient(text.clone()))?;
            recipients.push(recipient);
        }
        Ok(Self { identity, recipients })
    }

    /// Who can open what this sealer seals: the identity's own recipient first.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.recipients.iter().map(ToString::to_string).collect()
    }

    /// The ciphertext of a secret.
    ///
    /// # Errors
    /// When age refuses.
    pub fn seal(&self, secret: &SecretString) -> Result<Vec<u8>, SealingError> {
        let failed = |error: &dyn std::fmt::Display| SealingError::Encrypt(error.to_string());
        let recipients = self.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
        let mut ciphertext = Vec::new();
        let mut writer = encryptor.wrap_output(&mut ciphertext).map_err(|error| failed(&error))?;
        writer.write_all(secret.expose_secret().as_bytes()).map_err(|error| failed(&error))?;
        writer.finish().map_err(|error| failed(&error))?;
        Ok(ciphertext)
    }

    /// The secret in a ciphertext.
    ///
    /// # Errors
    /// When the identity does not fit, or the ciphertext is damaged.
    pub fn open_sealed(&self, ciphertext: &[u8]) -> Result<SecretString, SealingError> {
        let failed = |error: &dyn std::fmt::Display| SealingError::Decrypt(error.to_string());
        let decryptor = age::Decryptor::new(ciphertext).map_err(|error| failed(&error))?;
        let identity: &dyn age::Identity = &self.identity;
        let mut reader = decryptor.decrypt(std::iter::once(identity)).map_err(|error| failed(&error))?;
        let mut plain = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
        reader.read_to_end(&mut plain).map_err(|error| failed(&error))?;
        let text = std::str::from_utf8(&plain).map_err(|error| failed(&error))?;
        Ok(SecretString::from(text.to_owned()))
    }
}

/// Writes a new identity unless the file exists. True when it was created.
fn create_identity(path: &Path) -> Result<bool, SealingError> {
    let failed = |source: std::io::Error| SealingError::IdentityFile { path: path.to_owned(), source };
    if path.try_exists().map_err(failed)? {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    private_folder(folder).map_err(failed)?;
    let identity = age::x25519::Identity::generate();
    let secret = identity.to_string();
    let text = Zeroizing::new(format!(
        "# platflow's age identity. Without it no sealed secret can be opened: back it up.\n# public key: {}\n{}\n",
        identity.to_public(),
        secret.expose_secret()
    ));
    match write_new(path, text.as_bytes()) {
        Ok(()) => Ok(true),
        // Another process was faster: its identity counts.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn read_identity(path: &Path) -> Result<Zeroizing<String>, SealingError> {
    let failed = |source: std::io::Error| SealingError::IdentityFile { path: path.to_owned(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealingError::IdentityExposed { path: path.to_owned(), mode });
        }
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

#[expect(clippy::disallowed_methods, reason = "this file owns the identity command")]
async fn run_command(command: &[String]) -> Result<Zeroizing<String>, SealingError> {
    let failed = |text: String| SealingError::IdentityCommand(text);
    let Some((program, arguments)) = command.split_first() else { return Err(failed("it is empty".into())) };
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(format!("{program:?}: {error}")))?;
    let stdout = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(format!("{program:?} ended with {}", output.status)));
    }
    let text = std::str::from_utf8(&stdout).map_err(|_| failed("its output is not text".into()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Makes a folder (and its parents) that only this user enters.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

/// Creates a file (mode 0600) that must not exist, whole or not at all: written aside, synced, then linked into place.
fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    write_synced(&aside, content)?;
    let linked = std::fs::hard_link(&aside, path);
    let removed = std::fs::remove_file(&aside);
    linked?;
    removed?;
    sync_folder(path)
}

/// Replaces a file whole or not at all.
fn write_over(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    write_synced(&aside, content)?;
    std::fs::rename(&aside, path)?;
    sync_folder(path)
}

fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;
