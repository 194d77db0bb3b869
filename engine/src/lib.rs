//! The engine: decides and drives durable runs.
//!
//! It knows no cloud, no SQL and no terminal. The outside world reaches it through five ports: [`journal::Journal`],
//! [`clock::Clock`], [`step::Step`], [`survey::Survey`] and [`plan::Resolve`].

pub mod clock;
pub mod context;
pub mod decide;
pub mod destroy;
pub mod drive;
pub mod event;
pub mod failure;
pub mod fold;
pub mod foreign;
pub mod forget;
pub mod graph;
pub mod journal;
pub mod kind;
pub mod memory;
pub mod model;
pub mod name;
pub mod plan;
pub mod preview;
pub mod retry;
pub mod scope;
pub mod secret;
pub mod state;
pub mod status;
pub mod step;
pub mod survey;
pub mod transition;
