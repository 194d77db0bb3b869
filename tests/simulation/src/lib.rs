//! The real engine and the real store on a disk that can lose power, tear, fill up and fail.
//!
//! Nothing here is simulated but the disk, the clock and the world: SQLite, the store and the engine are the shipped ones.
//! It builds no step kind and no SDK.

pub mod disk;
pub mod journal;
pub mod scale;
pub mod shipped;
pub mod takeover;
pub mod workers;
