//! The deliberate defects: where each is planted, and what it breaks. Nothing of them is in the product's source.
//!
//! An edit replaces a text that occurs exactly once in its file. In the replacement, `@on@` is true while the defect is
//! switched on. A text that is no longer there fails the tests of this crate: the defect must follow the code.

mod driving;
mod rules;
mod store;

/// One replacement.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// Path below the root of the repository.
    pub file: &'static str,
    /// What is replaced.
    pub find: &'static str,
    /// What stands there instead.
    pub replace: &'static str,
}

/// One deliberate defect.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// What it does wrong.
    pub name: &'static str,
    /// Where it is planted.
    pub edits: &'static [Edit],
}

/// Every defect; their numbers, by which they are switched on, begin with 1.
#[must_use]
pub fn all() -> Vec<Mutant> {
    driving::MUTANTS.iter().chain(rules::MUTANTS).chain(store::MUTANTS).copied().collect()
}
