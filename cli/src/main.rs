//! The `platflow` binary.
fn main() {}
