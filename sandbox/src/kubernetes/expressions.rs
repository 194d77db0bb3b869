//! CEL, as the API server evaluates it in the rules of schemas and in admission policies.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value as Cel};
use serde_json::Value;

/// Longer ones are not evaluated: the parser recurses for every operator, on the stack of whoever asks.
const LONGEST: usize = 2_048;

/// How many expressions a thread remembers; a cluster with more reads some of them again.
const REMEMBERED: usize = 512;

thread_local! {
    /// Expressions that were read: the same few are asked at every write, and reading takes longer than answering.
    static READ: RefCell<HashMap<String, Rc<Program>>> = RefCell::new(HashMap::new());
}

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

fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
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

fn program(expression: &str) -> Result<Rc<Program>, String> {
    if let Some(known) = READ.with_borrow(|read| read.get(expression).cloned()) {
        return Ok(known);
    }
    let program = Rc::new(environment().compile(expression).map_err(|errors| errors.to_string())?);
    READ.with_borrow_mut(|read| {
        if read.len() >= REMEMBERED {
            read.clear();
        }
        read.insert(expression.to_owned(), Rc::clone(&program));
    });
    Ok(program)
}

/// Whether an expression is true of what the names stand for.
///
/// # Errors
/// What CEL says: also where it uses a function that only a real API server has.
pub(crate) fn holds(expression: &str, names: &[(&str, &Value)]) -> Result<bool, String> {
    if expression.len() > LONGEST {
        return Err(format!("the expression is longer than {LONGEST} bytes"));
    }
    let program = program(expression)?;
    let mut context = Context::with_env(Arc::clone(environment()));
    for (name, value) in names {
        context.add_variable_from_value(*name, to_cel(value));
    }
    match program.execute(&context) {
        Ok(Cel::Bool(flag)) => Ok(flag),
        Ok(_) => Err("the expression is not a condition".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a text matches a pattern; a pattern that nobody can read refuses nothing.
pub(crate) fn matches(text: &str, pattern: &str) -> bool {
    let names = [("text", &Value::String(text.to_owned())), ("pattern", &Value::String(pattern.to_owned()))];
    holds("text.matches(pattern)", &names).unwrap_or(true)
}
