//! Evaluates expressions with CEL. Pure: everything an expression can see is handed in as JSON.

use crate::template::{Piece, TokenKind, pieces};
use cel::objects::{Key, Map};
use cel::{Context, Env, Value as Cel};
use serde_json::{Map as JsonMap, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// Longest expression, after module inputs and outputs were put into it.
pub(crate) const MAX_EXPRESSION: usize = 32 * 1024;

/// Longest expression as written.
const MAX_WRITTEN: usize = 4 * 1024;

/// Most operators and brackets in an expression as written.
const MAX_WRITTEN_MARKS: usize = 250;

/// The parser recurses for every operator and bracket, some 7 KiB of stack each: above this many it gets a stack of its own.
const ORDINARY_MARKS: usize = 60;

/// Enough for 32 KiB of operators; only what is used is ever backed by memory.
const ROOMY_STACK: usize = 256 << 20;

/// What expressions can see, by variable name.
pub(crate) type Scope = BTreeMap<&'static str, Value>;

fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Env::stdlib();
        for extension in [cel::extensions::strings, cel::extensions::lists, cel::extensions::math] {
            if let Err(error) = env.add_extension(extension) {
                tracing::error!(%error, "a CEL extension was refused");
            }
        }
        Arc::new(env)
    })
}

/// A syntax error: message and byte offset within the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// What is wrong.
    pub(crate) message: String,
    /// Where, in bytes from the start of the expression.
    pub(crate) at: usize,
}

/// Checks that an expression is CEL.
///
/// # Errors
/// The first syntax error.
pub(crate) fn check(expression: &str) -> Result<(), SyntaxError> {
    if expression.len() > MAX_WRITTEN {
        return Err(SyntaxError { message: "it is longer than 4 KiB".to_owned(), at: 0 });
    }
    if marks(expression) > MAX_WRITTEN_MARKS {
        return Err(SyntaxError {
            message: format!("it has more than {MAX_WRITTEN_MARKS} operators and brackets"),
            at: 0,
        });
    }
    if expression.trim().is_empty() {
        return Err(SyntaxError { message: "the expression is empty".to_owned(), at: 0 });
    }
    let parsed = with_room(expression, || match environment().compile(expression) {
        Ok(_) => Ok(()),
        Err(errors) => Err(syntax_error(expression, &errors)),
    });
    parsed.unwrap_or_else(|message| Err(SyntaxError { message, at: 0 }))
}

fn syntax_error(expression: &str, errors: &cel::ParseErrors) -> SyntaxError {
    let first = errors.errors.first();
    let (line, column) = first.map_or((1, 1), |error| error.pos);
    let message = first.map_or_else(|| "not a CEL expression".to_owned(), |error| first_line(&error.msg));
    SyntaxError { message, at: offset(expression, line, column) }
}

fn marks(expression: &str) -> usize {
    crate::template::tokens(expression)
        .iter()
        .filter(|token| matches!(token.kind, TokenKind::Mark(mark) if !matches!(mark, ',' | ':' | ')' | ']' | '}')))
        .count()
}

/// Does the work on a stack that is deep enough for the expression.
fn with_room<T: Send>(expression: &str, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    if marks(expression) <= ORDINARY_MARKS {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(ROOMY_STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("no thread for a long expression: {error}"))?;
        thread.join().map_err(|_| "the expression could not be evaluated".to_owned())
    })
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("not a CEL expression");
    let line = line.strip_prefix("Syntax error: ").unwrap_or(line);
    // The parser lists every token it could have taken; that helps nobody.
    let line = line.split(" expecting ").next().unwrap_or(line);
    line.replace("'<EOF>'", "the end of the expression")
}

fn offset(text: &str, line: isize, column: isize) -> usize {
    let lines = usize::try_from(line - 1).unwrap_or(0);
    let before: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let characters = usize::try_from(column - 1).unwrap_or(0);
    let rest = text.get(before..).unwrap_or("");
    before + rest.char_indices().nth(characters).map_or(rest.len(), |(at, _)| at)
}

/// Evaluates one expression.
///
/// # Errors
/// What CEL says, in one line.
pub(crate) fn expression(text: &str, scope: &Scope) -> Result<Value, String> {
    if text.len() > MAX_EXPRESSION {
        return Err("the expression is longer than 32 KiB".to_owned());
    }
    with_room(text, || run(text, scope))?
}

fn run(text: &str, scope: &Scope) -> Result<Value, String> {
    let program = environment().compile(text).map_err(|errors| first_line(&errors.to_string()))?;
    let mut context = Context::with_env(Arc::clone(environment()));
    for (name, value) in scope {
        context.add_variable_from_value(*name, to_cel(value));
    }
    let value = program.execute(&context).map_err(|error| first_line(&error.to_string()))?;
    value.json().map_err(|error| first_line(&error.to_string()))
}

/// Evaluates a text: a whole-text expression keeps its type, anything else becomes text.
///
/// # Errors
/// What CEL says, with the expression.
pub(crate) fn text(template: &str, scope: &Scope) -> Result<Value, String> {
    let pieces = pieces(template).map_err(|_| format!("{template:?} opens an expression and never ends it"))?;
    if let [Piece::Expression(only, _)] = pieces.as_slice() {
        return expression(only, scope).map_err(|message| format!("${{{only}}}: {message}"));
    }
    let mut whole = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(plain) => whole.push_str(&plain),
            Piece::Expression(inner, _) => {
                let value = expression(&inner, scope).map_err(|message| format!("${{{inner}}}: {message}"))?;
                whole
                    .push_str(&embedded(&value).ok_or_else(|| format!("${{{inner}}} is null and cannot become text"))?);
            }
        }
    }
    Ok(Value::String(whole))
}

/// How a value reads inside a text; null does not.
#[must_use]
pub(crate) fn embedded(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Evaluates every text of a template, keys included.
///
/// # Errors
/// JSON pointer of the field, and what CEL says.
pub(crate) fn template(value: &Value, scope: &Scope, pointer: &str) -> Result<Value, (String, String)> {
    Ok(match value {
        Value::String(inner) if inner.contains("${") => {
            text(inner, scope).map_err(|message| (pointer.to_owned(), message))?
        }
        Value::Array(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(at, item)| template(item, scope, &format!("{pointer}/{at}")))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => {
            let mut evaluated = JsonMap::new();
            for (key, field) in fields {
                let here = format!("{pointer}/{key}");
                let name = match text(key, scope) {
                    Ok(value) => embedded(&value).ok_or_else(|| (here.clone(), "the key is null".to_owned()))?,
                    Err(message) => return Err((here, message)),
                };
                evaluated.insert(name, template(field, scope, &here)?);
            }
            Value::Object(evaluated)
        }
        other => other.clone(),
    })
}

fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Cel::Int(integer),
            (None, Some(integer)) => Cel::UInt(integer),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let map: HashMap<Key, Cel> =
                fields.iter().map(|(key, value)| (Key::from(key.clone()), to_cel(value))).collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// A value as CEL source text.
#[must_use]
pub(crate) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => {
            let text = number.to_string();
            if text.starts_with('-') { format!("({text})") } else { text }
        }
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{}: {}", quote(key), literal(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// A text as a CEL string. JSON's escapes are all CEL's.
#[must_use]
pub(crate) fn quote(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        Scope::from([("params", json!({"n": 3, "name": "x", "list": [1, 2], "url": "https://a/b"}))])
    }

    /// Proves that a whole expression keeps its type, an embedded one becomes text, and integers stay integers.
    #[test]
    fn types_are_kept() {
        let s = scope();
        assert_eq!(text("${params.n + 1}", &s), Ok(json!(4)));
        assert_eq!(text("a-${params.n}", &s), Ok(json!("a-3")));
        assert_eq!(text("${params.list}", &s), Ok(json!([1, 2])));
        assert_eq!(text("$${params.n}", &s), Ok(json!("${params.n}")));
        assert_eq!(text("${params.url.replace('https://', '')}", &s), Ok(json!("a/b")));
        assert_eq!(text("${params.n > 2 ? ['yes'] : []}", &s), Ok(json!(["yes"])));
        assert!(text("${params.absent}", &s).is_err());
    }

    /// Proves that any JSON value written as CEL text evaluates to itself.
    #[test]
    fn literals_come_back() {
        let value = json!({"a": [1, -2, 2.5, "q\"\\\n'ü$", null, true, {}], "b-c": {"d": []}});
        assert_eq!(expression(&literal(&value), &Scope::new()), Ok(value));
    }
}
