//! Deliberate defects, and the checks that must notice each of them: a test suite is worth what it catches.
//!
//! It knows engine, store and their simulation; it builds no SDK and calls nothing outside this process.

pub mod battery;
pub mod checks;
pub mod model;
pub mod mutants;
pub mod plant;
