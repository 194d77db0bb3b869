//! The runbook language: parse, check, compile to a plan, resolve; and the runbooks and modules themselves.
//!
//! Nothing here runs anything or looks at the world, except that `library` reads files of the operator's directories.

mod compile;
mod document;
mod evaluate;
mod expand;
mod finding;
mod graph;
mod library;
mod parameters;
mod resolve;
mod rewrite;
mod shape;
mod source;
mod template;
mod yaml;

pub use compile::{CompileOptions, Compiled, compile};
pub use finding::{Finding, Findings, Severity};
pub use library::{Library, LibraryError};
pub use parameters::ParameterValues;
pub use resolve::Resolver;
pub use source::{Source, Span};
