//! Where runbooks and modules come from: those in the binary, the operator's directories, plain paths.

use crate::finding::near;
use crate::source::Source;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

macro_rules! embedded {
    ($($folder:literal: [$($name:literal),* $(,)?]);* $(;)?) => {
        &[$($(($folder, $name, include_str!(concat!("../", $folder, "/", $name, ".yaml")))),*),*]
    };
}

/// Folder, name, text.
const EMBEDDED: &[(&str, &str, &str)] = embedded! {
    "runbooks": ["deploy-aws-dev", "deploy-aws-staging", "deploy-aws-production"];
    "modules": [
        "aws/network", "aws/eks-cluster", "aws/node-pool", "kubernetes/namespaces", "argocd", "vault",
        "external-secrets", "smoke",
    ];
};

/// A runbook or module that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// No such name.
    #[error("there is no {what} '{name}'{}", if hint.is_empty() { String::new() } else { format!("; {hint}") })]
    Unknown {
        /// `workflow` or `module`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Near matches.
        hint: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// Runbooks and modules by name.
#[derive(Debug, Clone, Default)]
pub struct Library {
    directories: Vec<PathBuf>,
    extra: BTreeMap<(&'static str, String), Source>,
    bare: bool,
}

impl Library {
    /// The runbooks and modules in the binary.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A library without those in the binary.
    #[must_use]
    pub fn empty() -> Self {
        Self { bare: true, ..Self::default() }
    }

    /// Adds a directory with `runbooks/*.yaml` and `modules/**/*.yaml`; it comes before the binary's own.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }

    /// Adds a module by its text; it comes before everything else.
    #[must_use]
    pub fn with_module(mut self, name: &str, text: &str) -> Self {
        self.extra.insert(("modules", name.to_owned()), Source::new(format!("modules/{name}.yaml"), text));
        self
    }

    /// A workflow by name, or by the path of a file. What looks like a path is one.
    ///
    /// # Errors
    /// Unknown names with near matches; unreadable files.
    pub fn find(&self, name_or_path: &str) -> Result<Source, LibraryError> {
        let path = Path::new(name_or_path);
        let looks_like_path = name_or_path.contains('/')
            || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if looks_like_path {
            return read(path);
        }
        self.named("runbooks", "workflow", name_or_path)
    }

    /// A module by name; names that begin with `./` or `../` are files beside `from`.
    ///
    /// # Errors
    /// Unknown names with near matches; unreadable files.
    pub fn module(&self, name: &str, from: &Source) -> Result<Source, LibraryError> {
        if name.starts_with("./") || name.starts_with("../") {
            let beside = Path::new(from.name()).parent().unwrap_or_else(|| Path::new("."));
            let mut path = beside.join(name);
            if path.extension().is_none() {
                path.set_extension("yaml");
            }
            return read(&path);
        }
        self.named("modules", "module", name)
    }

    /// The names of all workflows.
    #[must_use]
    pub fn workflows(&self) -> Vec<String> {
        self.names("runbooks")
    }

    /// The names of all modules.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        self.names("modules")
    }

    fn named(&self, folder: &'static str, what: &'static str, name: &str) -> Result<Source, LibraryError> {
        if let Some(source) = self.extra.get(&(folder, name.to_owned())) {
            return Ok(source.clone());
        }
        let plain = !name.is_empty() && !name.contains("..") && !name.starts_with('/');
        if plain {
            for directory in &self.directories {
                let path = directory.join(folder).join(format!("{name}.yaml"));
                if path.is_file() {
                    return read(&path);
                }
            }
        }
        if !self.bare
            && let Some((_, _, text)) = EMBEDDED.iter().find(|(f, n, _)| *f == folder && *n == name)
        {
            return Ok(Source::new(format!("{folder}/{name}.yaml"), text));
        }
        let names = self.names(folder);
        let hint = near(name, names.iter().map(String::as_str));
        Err(LibraryError::Unknown { what, name: name.to_owned(), hint })
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.extra.keys().filter(|(f, _)| *f == folder).map(|(_, name)| name.clone()).collect();
        for directory in &self.directories {
            collect(&directory.join(folder), "", 3, &mut names);
        }
        if !self.bare {
            names.extend(EMBEDDED.iter().filter(|(f, _, _)| *f == folder).map(|(_, name, _)| (*name).to_owned()));
        }
        names.sort();
        names.dedup();
        names
    }
}

fn collect(directory: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.is_dir() && depth > 0 {
            collect(&path, &format!("{prefix}{stem}/"), depth - 1, names);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            names.push(format!("{prefix}{stem}"));
        }
    }
}

fn read(path: &Path) -> Result<Source, LibraryError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => Err(LibraryError::Unreadable { path: name, reason: error.to_string() }),
    }
}
