//! Keeps secrets in memory out of core dumps, before the first of them is there.
//!
//! Key shares and tokens are in clear in this process for moments; a crash in such a moment must not write them to a disk.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Forbids core dumps of this process. Its children inherit the limit, which they may lift again, and not the rest.
///
/// Two ways, because each has a hole: a limit of 0 does not hold for a handler that the kernel pipes dumps to
/// (`core_pattern` with a `|`), and a kernel set to dump set-user-id programs dumps those that are not dumpable. That
/// other users, and a debugger of this one, may no longer look into the process is welcome; what proves an owner alive
/// (`/proc/<pid>/stat`) stays readable.
pub(crate) fn forbid_core_dumps() {
    let limit = Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::debug!(%error, "the limit for core dumps stays as it is");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::debug!(%error, "the process stays dumpable");
    }
}
