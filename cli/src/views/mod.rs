//! What people and programs see: stdout is data, stderr is everything else.

pub(crate) mod event_text;
pub(crate) mod foreseen;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod residue;
pub(crate) mod time;
