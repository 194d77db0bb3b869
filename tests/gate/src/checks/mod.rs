//! What must hold, in cases that any defect may break. None of them knows of a defect.

pub mod files;
pub mod invisible;
pub mod leases;
pub mod permits;
pub mod power;
pub mod promises;
pub mod stories;
pub mod sweeps;

/// The runs, plans and promises of the store's own tests.
#[path = "../../../../state/tests/fixture/mod.rs"]
mod fixture;

fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(said)?.block_on(future)
}

/// A failure with its causes.
fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
