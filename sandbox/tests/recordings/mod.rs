//! Replays recorded requests of a real API server against the simulated one. How to compare is fixed by the recordings themselves:
//! `known` holds what stands for what, `compare` the documents, `watching` the streams, `world` the cluster, `play` one scenario.

pub(crate) mod bodies;
pub(crate) mod compare;
pub(crate) mod known;
pub(crate) mod play;
pub(crate) mod watching;
pub(crate) mod world;
