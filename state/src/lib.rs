//! The durable store: SQLite behind the engine's journal and secret ports.
//!
//! It keeps sequence, kind and payload of facts and interprets none of them. What it does guarantee: an acknowledged
//! append survives a power cut (WAL, `synchronous=FULL`, read back), events are gap-free and hash-chained, only the
//! owner of the present epoch appends, and a dead owner on this host is known to be dead at once.

mod adopt;
mod chain;
mod copy;
mod failure;
mod file;
mod forget;
mod identity;
mod lease;
mod pack;
mod place;
mod read;
mod reader;
mod renewal;
mod reserve;
mod seal;
mod secrets;
mod settings;
mod store;
mod time;
mod write;
mod writer;

pub use copy::Copier;
pub use failure::RunIdTaken;
pub use identity::this_process;
pub use secrets::SecretAccess;
pub use settings::StoreSettings;
pub use store::Store;
