//! From a request to its answer: authentication, authorisation, routing to the verb. Each verb has a file of its own.

mod checks;
pub(crate) mod delete;
pub(crate) mod read;
pub(crate) mod reviews;
pub(crate) mod subresources;
pub(crate) mod write;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::auth::{self, User, Wish};
use super::cluster::Cluster;
use super::discovery;
use super::model::{KubeReply, KubeRequest, Outside};
use super::object;
use super::resources::Resource;
use super::route::{Place, Route, route};
use super::status::Refusal;
use super::table;

/// One request while it is handled.
pub(crate) struct Call<'a> {
    /// The cluster.
    pub(crate) cluster: &'a mut Cluster,
    /// The world around it.
    pub(crate) outside: &'a mut dyn Outside,
    /// The request.
    pub(crate) request: &'a KubeRequest,
    /// Simulated time.
    pub(crate) now: Timestamp,
    /// Who asks.
    pub(crate) user: User,
    /// Texts for Warning headers.
    pub(crate) warnings: Vec<String>,
}

/// What a verb answers when it succeeds.
pub(crate) enum Answer {
    /// A document.
    Object(u16, Value),
    /// Anything else, complete.
    Reply(KubeReply),
}

/// Handles one request.
pub(crate) fn handle(
    cluster: &mut Cluster,
    request: &KubeRequest,
    now: Timestamp,
    outside: &mut dyn Outside,
) -> KubeReply {
    let user = match auth::authenticate(cluster, request, now, outside) {
        Ok(user) => user,
        Err(refusal) => return refusal.reply(),
    };
    let mut call = Call { cluster, outside, request, now, user, warnings: Vec::new() };
    let answer = call.dispatch();
    let warnings: Vec<(String, String)> = call
        .warnings
        .iter()
        .map(|text| ("warning".to_owned(), format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))))
        .collect();
    let mut reply = match answer {
        Ok(Answer::Object(status, body)) => match call.as_yaml(status, &body) {
            Some(yaml) => yaml,
            None => KubeReply::Json { status, headers: Vec::new(), body },
        },
        Ok(Answer::Reply(reply)) => reply,
        Err(refusal) => refusal.reply(),
    };
    if let KubeReply::Json { headers, .. } | KubeReply::Text { headers, .. } = &mut reply {
        headers.extend(warnings);
    }
    reply
}

/// Whether objects of a resource count generations.
pub(crate) fn has_generation(group: &str, resource: &str) -> bool {
    !matches!((group, resource), ("", other) if other != "pods")
        && !matches!(
            group,
            "rbac.authorization.k8s.io"
                | "storage.k8s.io"
                | "coordination.k8s.io"
                | "discovery.k8s.io"
                | "scheduling.k8s.io"
                | "apiregistration.k8s.io"
        )
        && resource != "controllerrevisions"
}

impl Call<'_> {
    fn dispatch(&mut self) -> Result<Answer, Refusal> {
        let path = self.request.path.clone();
        let place = match route(&path) {
            Route::Object(place) => place,
            other => {
                let wish = Wish { verb: self.request.method.to_lowercase(), path: Some(path), ..Wish::default() };
                if auth::allowed(self.cluster, &self.user, &wish).is_none() {
                    return Err(auth::refuse(&self.user, &wish));
                }
                return discovery::answer(self, &other);
            }
        };
        let verb = self.verb_of(&place);
        let wish = Wish {
            verb: verb.to_owned(),
            group: place.group.clone(),
            resource: place
                .sub
                .as_ref()
                .map_or_else(|| place.resource.clone(), |sub| format!("{}/{sub}", place.resource)),
            namespace: if place.group.is_empty() && place.resource == "namespaces" {
                place.name.clone().unwrap_or_default()
            } else {
                place.namespace.clone().unwrap_or_default()
            },
            name: place.name.clone().unwrap_or_default(),
            path: None,
        };
        if auth::allowed(self.cluster, &self.user, &wish).is_none() {
            return Err(auth::refuse(&self.user, &wish));
        }
        self.check_accept()?;
        self.check_timeout()?;
        let resource = self.find(&place)?;
        if self.request.body.len() > 3_145_728 {
            return Err(Refusal::new(413, Some("RequestEntityTooLarge"), "Request entity too large: limit is 3145728"));
        }
        self.object(&resource, &place, verb)
    }

    fn verb_of(&self, place: &Place) -> &'static str {
        let named = place.name.is_some();
        match self.request.method.as_str() {
            "GET" | "HEAD" if self.request.flag("watch") && !named => "watch",
            "GET" | "HEAD" if named => "get",
            "GET" | "HEAD" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if named => "delete",
            "DELETE" => "deletecollection",
            _ => "unknown",
        }
    }

    fn find(&self, place: &Place) -> Result<Arc<Resource>, Refusal> {
        if let Some(resource) = self.cluster.resource(&place.group, &place.version, &place.resource) {
            if place.namespace.is_some() && !resource.namespaced {
                return Err(Refusal::no_such_resource());
            }
            return Ok(resource);
        }
        if discovery::api_service_is_down(self.cluster, &place.group, &place.version) {
            return Err(Refusal::text(503, "service unavailable\n"));
        }
        let served = self.cluster.resources().any(|each| each.group == place.group && each.version == place.version);
        let custom_group = self.cluster.custom.iter().any(|each| each.group == place.group);
        let inside = served && !custom_group || place.group.is_empty();
        Err(if inside { Refusal::no_such_resource() } else { Refusal::page_not_found() })
    }

    fn check_accept(&self) -> Result<(), Refusal> {
        const SERVED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        let accept = self.request.accept.as_deref().unwrap_or("*/*");
        let known = |clause: &&str| {
            matches!(
                clause.split(';').next().unwrap_or_default().trim(),
                "" | "*/*"
                    | "application/*"
                    | "application/json"
                    | "application/yaml"
                    | "application/vnd.kubernetes.protobuf"
            )
        };
        if !accept.split(',').any(|clause| known(&clause)) {
            let text = format!(
                "406: Not Acceptable\n\nAvailable representations: {SERVED}, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
            );
            let mut refusal = Refusal::new(406, Some("NotAcceptable"), text);
            refusal.details = Some(json!({}));
            return Err(refusal);
        }
        // Another shape is asked for by name, group and version; of those only the first version is there.
        let shaped = |clause: &str| {
            let compact = clause.replace(' ', "");
            !compact.contains("as=")
                || compact.split(';').any(|part| matches!(part, "v=v1" | "v=v1beta1" | "v=v2" | "v=v2beta1"))
        };
        if accept.split(',').filter(known).any(shaped) {
            Ok(())
        } else {
            Err(Refusal::new(
                406,
                Some("NotAcceptable"),
                format!("only the following media types are accepted: {SERVED}"),
            ))
        }
    }

    fn check_timeout(&self) -> Result<(), Refusal> {
        let Some(text) = self.request.query("timeout").filter(|text| !text.is_empty()) else { return Ok(()) };
        if is_duration(text) {
            return Ok(());
        }
        let why = format!("invalid timeout specified in the request URL - time: invalid duration \"{text}\"");
        Err(Refusal::bad_request(why))
    }

    /// An answer as YAML, where that is what the request wants most.
    fn as_yaml(&self, status: u16, body: &Value) -> Option<KubeReply> {
        let first = self.request.accept.as_deref()?.split([',', ';']).next()?.trim();
        (first == "application/yaml").then(|| KubeReply::Text {
            status,
            content_type: first.to_owned(),
            headers: Vec::new(),
            body: super::yaml::encode(body),
        })
    }

    fn object(&mut self, resource: &Arc<Resource>, place: &Place, verb: &'static str) -> Result<Answer, Refusal> {
        if let Some(sub) = &place.sub {
            let known = resource.sub(sub).ok_or_else(Refusal::no_such_resource)?;
            if !known.verbs.contains(&verb) {
                return Err(method_not_allowed());
            }
            return subresources::answer(self, resource, place, sub, verb);
        }
        if !resource.verbs.contains(&verb)
            || verb == "create" && place.name.is_some()
            || matches!(verb, "update" | "patch") && place.name.is_none()
            || resource.namespaced
                && place.namespace.is_none()
                && !matches!(verb, "list" | "watch")
                && resource.verbs.len() > 1
        {
            return Err(method_not_allowed());
        }
        if resource.verbs == ["create"] {
            return reviews::answer(self, resource, place);
        }
        let answer = match verb {
            "get" => read::get(self, resource, place),
            "list" => read::list(self, resource, place),
            "watch" => super::watch::open(self, resource, place),
            "create" => write::create(self, resource, place),
            "update" => write::update(self, resource, place, ""),
            "patch" => write::patch(self, resource, place, ""),
            "delete" => delete::delete(self, resource, place),
            "deletecollection" => delete::delete_collection(self, resource, place),
            _ => Err(method_not_allowed()),
        }?;
        Ok(match answer {
            Answer::Object(status, body) => Answer::Object(
                status,
                table::transform(
                    self.request.accept.as_deref(),
                    resource,
                    body,
                    self.request.query("includeObject"),
                    self.now,
                ),
            ),
            other => other,
        })
    }

    /// The body as JSON (or YAML, where the content type says so).
    pub(crate) fn body(&self) -> Result<Value, Refusal> {
        let kind = self.request.content_type.as_deref().unwrap_or("application/json");
        if kind.contains("yaml") {
            return super::yaml::decode(&self.request.body);
        }
        if kind.contains("protobuf") || super::protobuf::is(&self.request.body) {
            return super::protobuf::decode(&self.request.body);
        }
        serde_json::from_slice(&self.request.body)
            .map_err(|error| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
    }

    /// The field manager: the parameter, or the first part of the User-Agent.
    pub(crate) fn manager(&self) -> String {
        match self.request.query("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => self
                .request
                .user_agent
                .as_deref()
                .unwrap_or("unknown")
                .split('/')
                .next()
                .unwrap_or("unknown")
                .to_owned(),
        }
    }

    /// Whether nothing is to be stored.
    pub(crate) fn dry_run(&self) -> Result<bool, Refusal> {
        let values: Vec<&str> =
            self.request.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str()).collect();
        match values.as_slice() {
            [] => Ok(false),
            ["All"] => Ok(true),
            [other, ..] => {
                let options = match self.request.method.as_str() {
                    "POST" => "CreateOptions",
                    "PUT" => "UpdateOptions",
                    "DELETE" => "DeleteOptions",
                    _ => "PatchOptions",
                };
                Err(Refusal::invalid(
                    "meta.k8s.io",
                    options,
                    "",
                    &[super::status::Cause::unsupported("dryRun", &json!([other]), &["All"])],
                ))
            }
        }
    }
}

/// Marks the fields of a spec that is answered but never stored as its sender's.
pub(crate) fn own_fields(call: &Call<'_>, resource: &Resource, spec: Option<&Value>, sub: &str, body: &mut Value) {
    let Some(spec) = spec.filter(|spec| spec.as_object().is_some_and(|fields| !fields.is_empty())) else { return };
    let (now, manager) = (object::stamp(call.now), call.manager());
    let version = text_of(body, "/apiVersion", &resource.api_version());
    let who = super::apply::Writer { manager: &manager, api_version: &version, subresource: sub, now: &now };
    let mut marked = json!({"spec": spec});
    let bare = json!({"spec": {}});
    super::apply::record_update(Some(&bare), &mut marked, who, &super::lists::Place::root(None, false));
    if let Some(entries) = marked.pointer("/metadata/managedFields") {
        object::set(body, &["metadata", "managedFields"], entries.clone());
    }
}

fn text_of(value: &Value, pointer: &str, otherwise: &str) -> String {
    let found = object::text(value, pointer);
    if found.is_empty() { otherwise.to_owned() } else { found.to_owned() }
}

/// 405.
pub(crate) fn method_not_allowed() -> Refusal {
    let mut refusal =
        Refusal::new(405, Some("MethodNotAllowed"), "the server does not allow this method on the requested resource");
    refusal.details = Some(json!({}));
    refusal
}

/// An object as it goes over the wire under a resource's version.
pub(crate) fn shown(resource: &Resource, object: &Value) -> Value {
    let mut copy = object.clone();
    object::set(&mut copy, &["apiVersion"], json!(resource.api_version()));
    object::set(&mut copy, &["kind"], json!(resource.kind));
    super::versions::to_served(resource, &mut copy);
    copy
}

/// Whether Go reads it as a duration: numbers with units one after another, as in `1m30s`, or a bare zero.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let number = rest.strip_suffix(unit).unwrap_or_default();
        let after = unit.trim_start_matches(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let unit = unit.strip_suffix(after).unwrap_or_default();
        if number.parse::<f64>().is_err() || !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return false;
        }
        (rest, parts) = (after, parts + 1);
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::is_duration;

    /// Proves that what clients send as a timeout is read as Go reads it: `kubectl --request-timeout=60s` sends `1m0s`.
    #[test]
    fn durations_are_those_of_go() {
        for good in ["0", "30s", "1m0s", "1h15m30.5s", "1.5h", "-2s", "+3ms", "7µs", ".5s"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "-", "10", "s", "1x", "1m0", "1 s", "m1", "1..5s", "."] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
