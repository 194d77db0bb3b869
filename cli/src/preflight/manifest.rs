//! Manifests that are installed and files that are handed over: named once, pinned, there, and what they are said to be.
//! Files of this machine are read; no address is asked.

use platflow_steps::preflight::{Check, Family, Finding, Subject, SubjectStep};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

static SOURCE: Check = Check::of_request("manifest.source", Family::Manifest, "A manifest has one source");
static PINNED: Check =
    Check::of_request("manifest.pinned", Family::Manifest, "A manifest from an address is pinned by its digest");
static SCHEME: Check = Check::of_request("manifest.address", Family::Manifest, "Manifests come from https addresses");
static FORM: Check = Check::of_request("manifest.digest-form", Family::Manifest, "Digests are SHA-256 in hexadecimal");
static FILE: Check = Check::of_request("manifest.file", Family::Manifest, "Files of manifests can be read");
static DIGEST: Check = Check::of_request(
    "manifest.digest",
    Family::Manifest,
    "Files of manifests have the digest that they are pinned by",
);
static EMBEDDED: Check = Check::of_request(
    "manifest.embedded",
    Family::Manifest,
    "Bundles of this program are installed in the sandbox only",
);
static LARGE: Check = Check::of_request(
    "manifest.large-definitions",
    Family::Manifest,
    "Definitions of custom resources are small enough for any client",
);
static CREDENTIALS: Check = Check::of_request(
    "manifest.git-credentials",
    Family::Manifest,
    "Files with credentials of the repository can be read",
);
static EXPOSED: Check =
    Check::of_request("manifest.git-credentials-mode", Family::Manifest, "Nobody else reads files with credentials");

pub(super) static CHECKS: &[&Check] =
    &[&SOURCE, &PINNED, &SCHEME, &FORM, &FILE, &DIGEST, &EMBEDDED, &LARGE, &CREDENTIALS, &EXPOSED];

/// Kinds whose spec has a `source`.
const INSTALLING: [&str; 2] = ["argocd.install", "external_secrets.install"];
/// What an annotation holds: client-side apply keeps the whole object in one.
const ANNOTATION_LIMIT: usize = 262_144;

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
    let installing = subject.steps.iter().filter(|step| INSTALLING.contains(&step.kind.as_str()));
    let mut found: Vec<Finding> = installing.flat_map(|step| of_source(subject, step)).collect();
    found.extend(subject.of_kind("argocd.repository").flat_map(of_credentials));
    found
}

fn of_source(subject: &Subject, step: &SubjectStep) -> Vec<Finding> {
    let mut found = Vec::new();
    let (url, file, sha256) = (step.text("/source/url"), step.text("/source/file"), step.text("/source/sha256"));
    let embedded = step.is("/source/embedded");
    let sources = usize::from(url.is_some()) + usize::from(file.is_some()) + usize::from(embedded);
    if sources != 1 {
        found.push(SOURCE.blocker(
            format!("{} has {sources} sources", step.name),
            "the step would fail when the cluster is up",
            "name one of url, file and embedded",
        ));
        return found;
    }
    if let Some(url) = url {
        if sha256.is_none() {
            found.push(PINNED.blocker(
                format!("{}: {url} has no sha256", step.name),
                "the step refuses it: whoever changes that file would run in the cluster",
                format!("curl -sSL {url} | sha256sum, and set sha256"),
            ));
        }
        if !url.starts_with("https://") {
            found.push(SCHEME.blocker(
                format!("{}: {url}", step.name),
                "the step takes https only",
                "name an https address",
            ));
        }
    }
    if let Some(sha256) = sha256.filter(|text| text.len() != 64 || !text.chars().all(|c| c.is_ascii_hexdigit())) {
        found.push(FORM.blocker(
            format!("{}: {sha256:?} is no SHA-256", step.name),
            "no content has that digest: the step would fail when the cluster is up",
            "give the 64 hexadecimal digits that sha256sum prints",
        ));
    }
    if embedded && !subject.sandbox {
        found.push(EMBEDDED.warning(
            format!("{} installs the bundle that ships with platflow", step.name),
            "it is cut down for the sandbox: its workloads are not the project's",
            "set the source to {url, sha256} of the project's own manifest",
        ));
    }
    if let Some(path) = file {
        found.extend(of_file(step, Path::new(path), sha256));
    }
    found
}

fn of_file(step: &SubjectStep, path: &Path, sha256: Option<&str>) -> Vec<Finding> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return vec![FILE.blocker(
                format!("{}: {} cannot be read: {error}", step.name, path.display()),
                "the step would fail when the cluster is up",
                "name a file that this user can read",
            )];
        }
    };
    let mut found = Vec::new();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256.is_some_and(|wanted| wanted.len() == 64 && !digest.eq_ignore_ascii_case(wanted)) {
        found.push(DIGEST.blocker(
            format!("{}: {} has digest {digest}", step.name, path.display()),
            "the step refuses it when the cluster is up",
            "find out why it changed; then pin the new digest or the old file",
        ));
    }
    let text = String::from_utf8_lossy(&bytes);
    let large = text
        .split("\n---")
        .filter(|document| document.contains("kind: CustomResourceDefinition") && document.len() > ANNOTATION_LIMIT)
        .count();
    if large > 0 {
        found.push(LARGE.note(
            format!("{}: {large} definition(s) of custom resources beyond 256 KiB", step.name),
            "platflow applies on the server's side and is not concerned; kubectl apply without --server-side fails on them",
            "tell whoever applies them by hand",
        ));
    }
    found
}

fn of_credentials(step: &SubjectStep) -> Vec<Finding> {
    let Some(Value::Object(credentials)) = step.spec.get("credentials") else { return Vec::new() };
    let files = credentials.iter().filter(|(name, _)| name.ends_with("_file")).filter_map(|(_, value)| value.as_str());
    let mut found = Vec::new();
    for path in files {
        match std::fs::metadata(path)
            .and_then(|file| std::fs::File::open(path).map(|_| file.permissions().mode() & 0o777))
        {
            Err(error) => found.push(CREDENTIALS.blocker(
                format!("{}: {path} cannot be read: {error}", step.name),
                "the step would fail when Argo CD is up",
                "name a file that this user can read, by its absolute path",
            )),
            Ok(mode) if mode & 0o077 != 0 => found.push(EXPOSED.warning(
                format!("{path} has mode {mode:o}"),
                "other users of this machine can read the repository's credentials",
                format!("chmod 600 {path}"),
            )),
            Ok(_) => {}
        }
    }
    found
}
