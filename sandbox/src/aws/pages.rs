//! Lists in pages, as each service names the parts: an answer holds so many at most, and a token for the rest.

use serde_json::{Value, json};

use super::front::AwsRequest;
use super::inputs::{Pages, pages};
use super::wire::{Refusal, number, page, text};

/// An answer cut to the page that was asked for. A service that was asked for none answers its first, of its usual size.
pub(super) fn turned(request: &AwsRequest, mut answer: Value) -> Result<Value, Refusal> {
    let Some(names) = pages(&request.service, &request.operation, &request.input) else { return Ok(answer) };
    let Some(fields) = answer.as_object_mut() else { return Ok(answer) };
    let Some(Value::Array(all)) = fields.get_mut(names.list) else { return Ok(answer) };
    let Pages { token, next, size, list, more } = names;
    let asked = text(&request.input, &format!("/{token}"));
    if !asked.is_empty() && asked.parse::<usize>().is_err() {
        return Err(strange(&request.service, token));
    }
    let size = number(&request.input, &format!("/{size}")).and_then(|size| usize::try_from(size).ok());
    let (items, following) = page(std::mem::take(all), Some(size.unwrap_or_else(|| usual(&request.service))), asked);
    fields.insert((*list).to_owned(), Value::Array(items));
    if let Some(more) = more {
        fields.insert((*more).to_owned(), json!(following.is_some()));
    }
    match following {
        Some(following) => fields.insert((*next).to_owned(), json!(following)),
        // Only this service says that there is no more by an empty text.
        None if request.service == "tagging" => fields.insert((*next).to_owned(), json!("")),
        None => None,
    };
    Ok(answer)
}

/// How many a page holds when nobody says.
fn usual(service: &str) -> usize {
    match service {
        "logs" | "autoscaling" => 50,
        "elasticloadbalancing" => 400,
        _ => 100,
    }
}

/// A token that was never given out.
fn strange(service: &str, token: &str) -> Refusal {
    let code = match service {
        "autoscaling" => "InvalidNextToken",
        "kms" => "InvalidMarkerException",
        "eks" | "logs" | "tagging" => "InvalidParameterException",
        _ => "ValidationError",
    };
    Refusal::bad(code, format!("The {token} is not valid."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(service: &str, operation: &str, input: Value) -> AwsRequest {
        AwsRequest {
            service: service.to_owned(),
            operation: operation.to_owned(),
            input,
            region: String::new(),
            access_key: String::new(),
            principal: String::new(),
        }
    }

    /// Pages follow one another by the names of the service, the last says that it is, and a strange token is refused.
    #[test]
    fn pages_follow_one_another() {
        let answer = || json!({"Roles": ["a", "b", "c"], "IsTruncated": false});
        let first = turned(&asked("iam", "ListRoles", json!({"MaxItems": "2"})), answer()).ok();
        assert_eq!(first, Some(json!({"Roles": ["a", "b"], "IsTruncated": true, "Marker": "2"})));
        let last = turned(&asked("iam", "ListRoles", json!({"MaxItems": "2", "Marker": "2"})), answer()).ok();
        assert_eq!(last, Some(json!({"Roles": ["c"], "IsTruncated": false})));
        let strange = turned(&asked("iam", "ListRoles", json!({"Marker": "x"})), answer()).err();
        assert_eq!(strange.map(|no| no.code).as_deref(), Some("ValidationError"));
        let none = turned(&asked("iam", "GetRole", json!({})), json!({"Role": {}})).ok();
        assert_eq!(none, Some(json!({"Role": {}})));
    }
}
