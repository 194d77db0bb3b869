//! A model of the outside world in which any plan can be driven, killed at any point, and driven on.
//!
//! For tests and rehearsals: fake resources with the habits that make real ones hard (client tokens, read lag, slow
//! creation and deletion, lost replies, secrets told once), a clock that jumps, and the crash sweep over them.

pub mod clock;
pub mod combined;
pub mod generate;
pub mod kinds;
pub mod remains;
pub mod sweep;
pub mod trial;
pub mod world;
