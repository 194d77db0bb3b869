//! What people and programs see: stdout is data, stderr is everything else.

pub mod event_text;
pub mod output;
pub mod progress;
pub mod time;
