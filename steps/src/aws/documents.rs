//! Compares policy documents by meaning: AWS stores them with its own order, casing of lists and encoding.

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The document that IAM answers with: percent-encoded JSON.
pub(super) fn decode(document: &str) -> Value {
    let text = percent_decode_str(document).decode_utf8_lossy();
    serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
}

/// One form for all equal documents: single values where IAM allows value or list, lists sorted, statements in order.
pub(super) fn normalise(document: &Value) -> Value {
    match document {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, value)| {
                    (key.clone(), if key == "Statement" { statements(value) } else { normalise(value) })
                })
                .collect(),
        ),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(normalise).collect();
            items.sort_by_key(Value::to_string);
            items.dedup();
            match items.len() {
                1 => items.swap_remove(0),
                _ => Value::Array(items),
            }
        }
        Value::Bool(flag) => Value::String(flag.to_string()),
        other => other.clone(),
    }
}

/// The order of statements means nothing, but one statement and a list of one are the same.
fn statements(value: &Value) -> Value {
    let items = match value {
        Value::Array(items) => items.iter().map(normalise).collect(),
        single => vec![normalise(single)],
    };
    let mut items: Vec<Value> = items;
    items.sort_by_key(Value::to_string);
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Proves that documents which mean the same compare equal, and that others do not.
    #[test]
    fn documents_are_compared_by_meaning() {
        let wanted = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": ["eks.amazonaws.com"]}, "Action": ["sts:TagSession", "sts:AssumeRole"],
             "Condition": {"Bool": {"aws:SecureTransport": true}}}]});
        let stored = "%7B%22Statement%22%3A%7B%22Action%22%3A%5B%22sts%3AAssumeRole%22%2C%22sts%3ATagSession%22%5D%2C%22Effect%22%3A%22Allow%22%2C%22Condition%22%3A%7B%22Bool%22%3A%7B%22aws%3ASecureTransport%22%3A%22true%22%7D%7D%2C%22Principal%22%3A%7B%22Service%22%3A%22eks.amazonaws.com%22%7D%7D%2C%22Version%22%3A%222012-10-17%22%7D";
        assert_eq!(normalise(&wanted), normalise(&decode(stored)));
        let other = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}});
        assert_ne!(normalise(&wanted), normalise(&other));
    }
}
