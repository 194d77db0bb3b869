//! What a runbook says about itself, without compiling it: for lists, help and completion.

use crate::document::read;
use crate::finding::Findings;
use crate::parameters::type_name;
use crate::source::Source;
use serde::Serialize;
use serde_json::Value;

/// A runbook at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it builds by default.
    pub environment: Option<String>,
    /// Its own words.
    pub description: Option<String>,
    /// Its parameters, in the order of the file.
    pub parameters: Vec<Parameter>,
}

/// A parameter at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type, as written in runbooks.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// True when it must be given.
    pub required: bool,
    /// Its default.
    pub default: Option<Value>,
    /// Its own words.
    pub description: Option<String>,
}

/// Describes a runbook.
///
/// # Errors
/// When it cannot be read at all.
pub fn describe(source: &Source) -> Result<Description, Findings> {
    let mut findings = Findings::default();
    let Some(document) = read(source, &mut findings) else { return Err(findings.sorted()) };
    Ok(Description {
        name: document.name.text.clone(),
        environment: document.environment.as_ref().map(|word| word.text.clone()),
        description: document.description.clone(),
        parameters: document
            .parameters
            .iter()
            .map(|declared| Parameter {
                name: declared.name.text.clone(),
                type_: type_name(declared.type_),
                required: declared.default.is_none(),
                default: declared.default.as_ref().map(crate::yaml::Node::to_json),
                description: declared.description.clone(),
            })
            .collect(),
    })
}
