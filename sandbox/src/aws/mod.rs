//! The simulated AWS: one pure function from a request and the account's state to an answer, behind the wire protocols of
//! EC2, EKS, IAM, STS, KMS, ELBv2, Auto Scaling, Logs, Service Quotas and Resource Groups Tagging.

pub(crate) mod balancers;
mod ec2;
mod eks;
mod front;
mod iam;
mod inputs;
mod instance_profiles;
mod kms;
mod pages;
pub(crate) mod remains;
mod shape;
mod small;
mod state;
mod timers;
mod wire;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use ec2::{INSTANCE_TYPES, volume_body};
pub use front::{AwsRequest, AwsResponse, RawRequest, parse, render};
pub use shape::Shape;
pub use state::{Link, Record, State};
pub use timers::fire;
pub use wire::Refusal;

use crate::faults::Effect;
use state::Token;
use wire::text;

/// What an operation answers.
type Answer = Result<Value, Refusal>;

/// One call: the account, the time, and who calls from where.
struct Call<'a> {
    state: &'a mut State,
    now_ms: i64,
    region: &'a str,
    principal: &'a str,
    operation: &'a str,
    effect: Option<&'a Effect>,
}

impl Call<'_> {
    fn account(&self) -> String {
        self.state.account().to_owned()
    }

    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{}", self.state.hex(17))
    }

    fn all(&self, kind: &str) -> impl Iterator<Item = &Record> {
        self.state.all(kind, self.region)
    }

    fn get(&self, kind: &str, id: &str) -> Option<&Record> {
        self.state.get(kind, self.region, id)
    }

    fn get_mut(&mut self, kind: &str, id: &str) -> Option<&mut Record> {
        self.state.get_mut(kind, self.region, id)
    }

    fn remove(&mut self, kind: &str, id: &str) -> Option<Record> {
        self.state.remove(kind, self.region, id)
    }

    fn record(&self, kind: &str, id: &str, body: Value, tags: BTreeMap<String, String>) -> Record {
        Record {
            kind: kind.to_owned(),
            id: id.to_owned(),
            region: self.region.to_owned(),
            created_ms: self.now_ms,
            body,
            tags,
            system: false,
            due_ms: None,
            next: String::new(),
        }
    }

    fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.state.account())
    }

    /// Runs a create once per client token; another request under the same token is refused with `mismatch`.
    fn once(&mut self, token: &str, input: &Value, mismatch: &str, create: impl FnOnce(&mut Self) -> Answer) -> Answer {
        if token.is_empty() {
            return create(self);
        }
        let mut asked = input.clone();
        if let Some(fields) = asked.as_object_mut() {
            for name in ["ClientToken", "clientRequestToken", "Action", "Version", "DryRun"] {
                fields.remove(name);
            }
        }
        let digest = hex::encode(Sha256::digest(asked.to_string().as_bytes()));
        let name = format!("{}|{}|{token}", self.region, self.operation);
        if let Some(known) = self.state.token(&name) {
            if known.digest == digest {
                return Ok(known.answer.clone());
            }
            return Err(Refusal::bad(mismatch, "The client token was used before with other parameters."));
        }
        let answer = create(self)?;
        self.state.keep_token(name, Token { digest, answer: answer.clone() });
        Ok(answer)
    }
}

/// Whether an operation changes something.
#[must_use]
pub fn mutates(operation: &str) -> bool {
    !["Describe", "List", "Get", "Check", "Simulate"].iter().any(|verb| operation.starts_with(verb))
}

/// Answers one call. `effect` is what a fault wants of it beyond an error.
pub fn call(state: &mut State, request: &AwsRequest, now_ms: i64, effect: Option<&Effect>) -> AwsResponse {
    let answer = authorized(state, request).and_then(|()| {
        inputs::check(&request.service, &request.operation, &request.input)?;
        permitted(state, request)?;
        let caller = state.shape().caller.clone();
        let mut call = Call {
            state,
            now_ms,
            region: if request.service == "iam" { "global" } else { &request.region },
            principal: caller.as_deref().unwrap_or(&request.principal),
            operation: &request.operation,
            effect,
        };
        let answer = dispatch(&mut call, request)?;
        pages::turned(request, answer)
    });
    let answer = answer.map_err(|refusal| worded(request, refusal));
    render(request, answer)
}

/// What an operation misses is refused in the words of its service.
fn worded(request: &AwsRequest, mut refusal: Refusal) -> Refusal {
    if refusal.code == "MissingParameter" && request.service != "ec2" {
        inputs::code(&request.service, &request.operation).clone_into(&mut refusal.code);
    }
    refusal
}

fn dispatch(call: &mut Call<'_>, request: &AwsRequest) -> Answer {
    let input = &request.input;
    if request.service == "ec2" && text(input, "/DryRun") == "true" {
        return Err(Refusal::new(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
    }
    match request.service.as_str() {
        "ec2" => ec2::dispatch(call, input),
        "eks" => eks::dispatch(call, input),
        "iam" => iam::dispatch(call, input),
        "kms" => kms::dispatch(call, input),
        "sts" => small::sts(call, input),
        "logs" => small::logs(call, input),
        "elasticloadbalancing" => small::load_balancing(call, input),
        "autoscaling" => small::auto_scaling(call, input),
        "servicequotas" => small::quotas(call, input),
        "tagging" => small::tagging(call, input),
        other => Err(Refusal::new(404, "UnknownService", format!("the sandbox has no service {other}"))),
    }
}

fn authorized(state: &State, request: &AwsRequest) -> Result<(), Refusal> {
    let json = matches!(request.service.as_str(), "kms" | "logs" | "eks" | "servicequotas" | "tagging");
    let refusal = match state.refused_keys.get(&request.access_key).map(String::as_str) {
        None if request.access_key.is_empty() => {
            ("MissingAuthenticationToken", "Request is missing Authentication Token")
        }
        None => return Ok(()),
        Some("expired") if json => ("ExpiredTokenException", "The security token included in the request is expired"),
        Some("expired") if request.service == "ec2" => ("RequestExpired", "Request has expired."),
        Some("expired") => ("ExpiredToken", "The security token included in the request is expired"),
        Some(_) if request.service == "ec2" => {
            ("AuthFailure", "AWS was not able to validate the provided access credentials")
        }
        Some(_) if json => ("UnrecognizedClientException", "The security token included in the request is invalid."),
        Some(_) => ("InvalidClientTokenId", "The security token included in the request is invalid."),
    };
    let status = if request.service == "ec2" && refusal.0 == "AuthFailure" { 401 } else { 403 };
    Err(Refusal::new(status, refusal.0, refusal.1))
}

/// Refuses what the caller's policies deny, in the words of the service.
fn permitted(state: &State, request: &AwsRequest) -> Result<(), Refusal> {
    let AwsRequest { service, operation, .. } = request;
    if !state.shape().denies(service, operation) {
        return Ok(());
    }
    let code = match service.as_str() {
        "ec2" => "UnauthorizedOperation",
        "iam" | "sts" | "elasticloadbalancing" | "autoscaling" => "AccessDenied",
        _ => "AccessDeniedException",
    };
    let message = format!("You are not authorized to perform: {service}:{operation}");
    Err(Refusal::new(403, code, message))
}

fn unknown(call: &Call<'_>) -> Answer {
    Err(Refusal::bad("InvalidAction", format!("The action {} is not valid for this web service.", call.operation)))
}

/// Tags of a `[{Key, Value}]` list.
fn tags_of(list: &[Value], key: &str, value: &str) -> BTreeMap<String, String> {
    list.iter()
        .map(|tag| (text(tag, &format!("/{key}")).to_owned(), text(tag, &format!("/{value}")).to_owned()))
        .collect()
}

/// A `[{Key, Value}]` list of tags.
fn tag_list(tags: &BTreeMap<String, String>, key: &str, value: &str) -> Value {
    Value::Array(tags.iter().map(|(name, content)| json!({key: name, value: content})).collect())
}
