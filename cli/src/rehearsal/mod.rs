//! Rehearsal: the real engine, the real steps and the real store against a private sandbox in virtual time, one case per
//! crash point, failing step and fault profile, each compared with an undisturbed run.
//!
//! Nothing here reaches any account or the operator's state file: every case lives in a folder of its own.

pub(crate) mod case;
mod clock;
pub(crate) mod coverage;
mod doubles;
mod draw;
pub(crate) mod folder;
mod journal;
mod judge;
mod kinds;
mod moment;
mod picture;
mod recorder;
pub(crate) mod schedule;
pub(crate) mod stage;
pub(crate) mod trial;
pub(crate) mod workers;
