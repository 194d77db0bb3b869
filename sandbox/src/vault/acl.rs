//! Vault policies: parsed from HCL or JSON, and asked what a set of them allows on a path.
//!
//! Understood: `path` blocks with `capabilities`; exact paths, a trailing `*`, and `+` for one segment. Anything else
//! in a policy is refused, never ignored: a policy that means more than is enforced would be a lie.

use serde_json::Value;
use std::collections::BTreeSet;

const CAPABILITIES: [&str; 9] = ["create", "read", "update", "patch", "delete", "list", "sudo", "deny", "root"];

/// One `path` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pattern: String,
    capabilities: BTreeSet<String>,
}

/// Parses a policy text.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let rules = if text.trim_start().starts_with('{') { parse_json(text)? } else { parse_hcl(text)? };
    for rule in &rules {
        if let Some(unknown) = rule.capabilities.iter().find(|name| !CAPABILITIES.contains(&name.as_str())) {
            return Err(format!("path {0:?}: path {0:?}: invalid capability {unknown:?}", rule.pattern));
        }
    }
    Ok(rules)
}

fn parse_json(text: &str) -> Result<Vec<Rule>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Some(paths) = value.get("path").and_then(Value::as_object) else {
        return Err("a policy needs a \"path\" object".into());
    };
    let mut rules = Vec::new();
    for (pattern, block) in paths {
        let capabilities = block
            .get("capabilities")
            .and_then(Value::as_array)
            .ok_or_else(|| format!("path {pattern:?} has no capabilities"))?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        rules.push(Rule { pattern: normal(pattern), capabilities });
    }
    Ok(rules)
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line.chars().peekable();
        while let Some(next) = rest.next() {
            match next {
                '#' => break,
                '/' if rest.peek() == Some(&'/') => break,
                '"' => {
                    let mut content = String::new();
                    loop {
                        match rest.next() {
                            Some('"') => break,
                            Some(inner) => content.push(inner),
                            None => return Err(format!("a string does not end: {line:?}")),
                        }
                    }
                    found.push(Token::Text(content));
                }
                '{' | '}' | '[' | ']' | '=' | ',' => found.push(Token::Sign(next)),
                space if space.is_whitespace() => {}
                letter if letter.is_alphanumeric() || letter == '_' => {
                    let mut word = String::from(letter);
                    while let Some(more) = rest.peek().copied().filter(|c| c.is_alphanumeric() || *c == '_') {
                        word.push(more);
                        rest.next();
                    }
                    found.push(Token::Word(word));
                }
                other => return Err(format!("unexpected character {other:?}")),
            }
        }
    }
    Ok(found)
}

fn parse_hcl(text: &str) -> Result<Vec<Rule>, String> {
    let mut stream = tokens(text)?.into_iter();
    let mut rules = Vec::new();
    while let Some(token) = stream.next() {
        if token != Token::Word("path".into()) {
            return Err(format!("expected \"path\", found {token:?}"));
        }
        let Some(Token::Text(pattern)) = stream.next() else { return Err("path wants a quoted pattern".into()) };
        expect(stream.next(), '{')?;
        let mut capabilities = BTreeSet::new();
        loop {
            match stream.next() {
                Some(Token::Sign('}')) => break,
                Some(Token::Word(word)) if word == "capabilities" => {
                    expect(stream.next(), '=')?;
                    expect(stream.next(), '[')?;
                    loop {
                        match stream.next() {
                            Some(Token::Text(name)) => {
                                capabilities.insert(name);
                            }
                            Some(Token::Sign(',')) => {}
                            Some(Token::Sign(']')) => break,
                            other => return Err(format!("path {pattern:?}: unexpected {other:?} in capabilities")),
                        }
                    }
                }
                other => return Err(format!("path {pattern:?}: unsupported {other:?}")),
            }
        }
        rules.push(Rule { pattern: normal(&pattern), capabilities });
    }
    Ok(rules)
}

fn expect(token: Option<Token>, sign: char) -> Result<(), String> {
    match token {
        Some(Token::Sign(found)) if found == sign => Ok(()),
        other => Err(format!("expected {sign:?}, found {other:?}")),
    }
}

fn normal(pattern: &str) -> String {
    pattern.trim_start_matches('/').to_owned()
}

fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (pattern, false),
    };
    let mut wanted = pattern.split('/').peekable();
    let mut given = path.split('/');
    while let Some(want) = wanted.next() {
        let last = wanted.peek().is_none();
        let Some(have) = given.next() else { return false };
        let fits = want == "+" || want == have || (open && last && have.starts_with(want));
        if !fits {
            return false;
        }
        if open && last {
            return true;
        }
    }
    given.next().is_none()
}

/// Vault's order of precedence: the later the first wildcard, the longer, the fewer `+`, the more it counts.
fn weight(pattern: &str) -> (usize, bool, usize, usize) {
    let first_wildcard = pattern.find(['+', '*']).unwrap_or(usize::MAX);
    let pluses = pattern.split('/').filter(|part| *part == "+").count();
    (first_wildcard, !pattern.ends_with('*'), usize::MAX - pluses, pattern.len())
}

/// The capabilities that these rules give on a path: those of the most specific pattern, united over the policies that
/// share it; `deny` beats all.
pub(super) fn capabilities<'a>(rules: impl Iterator<Item = &'a Rule>, path: &str) -> BTreeSet<String> {
    let fitting: Vec<&Rule> = rules.filter(|rule| matches(&rule.pattern, path)).collect();
    let Some(best) = fitting.iter().map(|rule| weight(&rule.pattern)).max() else { return BTreeSet::new() };
    let united: BTreeSet<String> = fitting
        .iter()
        .filter(|rule| weight(&rule.pattern) == best)
        .flat_map(|rule| rule.capabilities.iter().cloned())
        .collect();
    if united.contains("deny") { BTreeSet::from(["deny".to_owned()]) } else { united }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves which of several patterns decides, that deny wins, and that `+` and `*` match what they should.
    #[test]
    fn the_most_specific_pattern_decides() {
        let rules = parse(
            r#"
            # comment
            path "secret/data/*" { capabilities = ["read"] }
            path "secret/data/app/*" { capabilities = ["create", "update"] }
            path "secret/data/app/locked" { capabilities = ["deny"] }
            path "sys/+/raft" { capabilities = ["list",] }
            "#,
        )
        .expect("parses");
        let on = |path: &str| capabilities(rules.iter(), path).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(on("secret/data/other"), "read");
        assert_eq!(on("secret/data/app/one/two"), "create update");
        assert_eq!(on("secret/data/app/locked"), "deny");
        assert_eq!(on("sys/storage/raft"), "list");
        assert_eq!(on("sys/a/b/raft"), "");
        assert_eq!(on("secret/dat"), "");
    }

    /// Proves that what would not be enforced is refused.
    #[test]
    fn what_is_not_enforced_is_refused() {
        for bad in [
            "path \"a\" { capabilities = [\"fly\"] }",
            "path \"a\" { required_parameters = [\"x\"] }",
            "rule \"a\" { }",
            "path \"a\" { capabilities = [\"read\"]",
            "{\"path\": 1}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("{\"path\":{\"a/*\":{\"capabilities\":[\"read\"]}}}").expect("json").len(), 1);
    }
}
