//! Splits request paths into the parts of the Kubernetes API: group, version, namespace, resource, name, subresource.

use percent_encoding::percent_decode_str;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/version`.
    Version,
    /// `/readyz`, `/livez`, `/healthz`, with the name of one check.
    Health(String, Option<String>),
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    Resources(String, String),
    /// `/openapi/v3` and below.
    OpenApi(String),
    /// Objects.
    Object(Place),
    /// Nothing.
    Unknown,
}

/// The parts of an object path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Group.
    pub(crate) group: String,
    /// Version.
    pub(crate) version: String,
    /// Namespace, if the path names one.
    pub(crate) namespace: Option<String>,
    /// Plural resource name.
    pub(crate) resource: String,
    /// Name.
    pub(crate) name: Option<String>,
    /// Subresource (with what follows it).
    pub(crate) sub: Option<String>,
}

/// Reads a path.
pub(crate) fn route(path: &str) -> Route {
    if path.contains("//") {
        return Route::Unknown;
    }
    let parts: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["version"] => Route::Version,
        [kind @ ("readyz" | "livez" | "healthz")] => Route::Health((*kind).to_owned(), None),
        [kind @ ("readyz" | "livez" | "healthz"), check @ ..] => {
            Route::Health((*kind).to_owned(), Some(check.join("/")))
        }
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["api", version] => Route::Resources(String::new(), (*version).to_owned()),
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => Route::Resources((*group).to_owned(), (*version).to_owned()),
        ["api", version, rest @ ..] => Route::Object(place("", version, rest)),
        ["apis", group, version, rest @ ..] => Route::Object(place(group, version, rest)),
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        ["openapi", "v2"] => Route::OpenApi("v2".to_owned()),
        _ => Route::Unknown,
    }
}

fn place(group: &str, version: &str, rest: &[&str]) -> Place {
    let own = |text: &&str| (*text).to_owned();
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (Some((*namespace).to_owned()), inner),
        _ => (None, rest),
    };
    let sub = rest.get(2..).filter(|tail| !tail.is_empty()).map(|tail| tail.join("/"));
    Place {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        resource: rest.first().map(own).unwrap_or_default(),
        name: rest.get(1).map(own),
        sub,
    }
}
