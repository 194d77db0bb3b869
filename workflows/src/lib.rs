//! The runbook language: parse, check, compile to a plan, resolve; and the runbooks and modules themselves.
//!
//! Nothing here runs anything or looks at the world, except that `library` reads files of the operator's directories.

mod compile;
mod describe;
mod document;
mod editor;
mod evaluate;
mod expand;
mod finding;
mod graph;
mod library;
mod parameters;
mod reference;
mod resolve;
mod rewrite;
mod shape;
mod source;
mod template;
mod yaml;

pub use compile::{CompileOptions, Compiled, compile};
pub use describe::{Description, Parameter, describe};
pub use editor::schema;
pub use finding::{Finding, Findings, Severity};
pub use library::{Library, LibraryError};
pub use parameters::ParameterValues;
pub use reference::{kinds, reference};
pub use resolve::Resolver;
pub use source::{Source, Span};
