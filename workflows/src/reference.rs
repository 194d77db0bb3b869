//! The reference of step kinds in Markdown, from their schemas alone.

use crate::shape::Shape;
use platflow_engine::kind::{Catalog, KindDescription, UndoDefault};
use serde_json::{Value, json};
use std::fmt::Write;

/// One page on all kinds of the catalog.
#[must_use]
pub fn reference(catalog: &Catalog) -> String {
    let mut text = String::from(
        "# Step kinds\n\nGenerated from the schemas of the steps; `kind:` takes the name, `spec:` the fields, and other steps \
         see the outputs as `${steps.<name>.outputs.<field>}`.\n",
    );
    let mut family = "";
    for description in catalog.descriptions() {
        let name = description.name.as_str();
        let own = name.split('.').next().unwrap_or(name);
        if own != family {
            let _ = write!(text, "\n## {own}\n");
            family = own;
        }
        kind(&mut text, description);
    }
    text
}

/// All kinds of the catalog by name: `{"undo": "own" | "impossible", "holds_data", "spec", "outputs"}`, the latter two as
/// JSON Schemas.
#[must_use]
pub fn kinds(catalog: &Catalog) -> Value {
    let described = catalog.descriptions().map(|kind| {
        let undo = if kind.undo == UndoDefault::Own { "own" } else { "impossible" };
        let described = json!({
            "undo": undo, "holds_data": kind.holds_data, "spec": kind.spec_schema, "outputs": kind.outputs_schema,
        });
        (kind.name.to_string(), described)
    });
    Value::Object(described.collect())
}

fn kind(text: &mut String, description: &KindDescription) {
    let _ = write!(text, "\n### {}\n\n{}\n", description.name, description.summary);
    let mut notes = vec![format!("takes about {}", seconds(description.expected.as_secs()))];
    if description.undo == UndoDefault::Impossible {
        notes.push("cannot be undone: a rollback stops there".to_owned());
    }
    if description.holds_data {
        notes.push("holds data: undoing it wants `--confirm`".to_owned());
    }
    let _ = write!(text, "\nIt {}.\n", notes.join("; "));
    table(text, "spec", &description.spec_schema, true);
    table(text, "output", &description.outputs_schema, false);
}

fn seconds(seconds: u64) -> String {
    if seconds >= 120 { format!("{} min", seconds.div_ceil(60)) } else { format!("{seconds} s") }
}

fn table(text: &mut String, title: &str, schema: &Value, with_required: bool) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty()) else {
        let _ = write!(text, "\nNo {title} fields of its own.\n");
        return;
    };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = write!(text, "\n| {title} | type | |\n| --- | --- | --- |\n");
    let shape = Shape::new(schema);
    for (name, property) in properties {
        let words = shape.member(name).ok().flatten().map(|inner| inner.words()).unwrap_or_default();
        let mut about = property.get("description").and_then(Value::as_str).unwrap_or("").replace('\n', " ");
        if let Some(default) = property.get("default").filter(|default| !default.is_null()) {
            let _ = write!(about, " Default `{default}`.");
        }
        if with_required && required.contains(&name.as_str()) {
            about = format!("**required** {about}");
        }
        let _ = writeln!(text, "| `{name}` | {words} | {} |", about.replace('|', "\\|").trim());
    }
}
