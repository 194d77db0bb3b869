//! What people and programs see: stdout is data, stderr is everything else.

pub(crate) mod event_text;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod time;
