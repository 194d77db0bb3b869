//! Who this process is, and whether another process of this host still lives.
//!
//! Everything comes from the kernel (`/proc`, `uname`), nothing from the environment, so it cannot be spoofed by accident.

use platflow_engine::journal::Owner;
use std::fs;
use std::io;
use std::sync::OnceLock;

/// The kernel's boot id: tells one boot of one kernel from every other.
pub(crate) fn boot_id() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT.get() {
        return Ok(known);
    }
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| text.trim().to_owned()))
}

/// Start time of a process in clock ticks since boot; `None` when there is no such process (or it is a zombie: dead,
/// only not yet reaped).
pub(crate) fn process_started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses: fields count from the last ')'.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // `state` is field 3, the start time field 22.
    fields.nth(18)?.parse().ok()
}

/// This host's name.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named = fs::read_to_string("/etc/passwd").ok().and_then(|table| {
        table.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
        })
    });
    named.unwrap_or_else(|| format!("uid-{uid}"))
}

/// This process as the owner of a run: host, pid, start time, boot id, user.
///
/// # Errors
/// When `/proc` cannot be read: then no other process could prove this one dead, so it must not own anything.
pub fn this_process() -> io::Result<Owner> {
    let pid = std::process::id();
    let process_started = process_started(pid).ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the start time of this process cannot be read from /proc")
    })?;
    Ok(Owner { host: host(), pid, process_started, boot_id: boot_id()?.to_owned(), user: user() })
}

/// True when the process that `owner` names (on this boot) certainly no longer runs.
pub(crate) fn is_gone(owner: &Owner) -> bool {
    process_started(owner.pid) != Some(owner.process_started)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves that this process recognises itself as alive, and a reused pid (other start time) as gone.
    #[test]
    fn a_reused_pid_is_told_apart() {
        let mut owner = this_process().unwrap();
        assert!(!is_gone(&owner));
        assert!(!owner.host.is_empty() && !owner.user.is_empty() && owner.boot_id.len() >= 32);
        owner.process_started += 1;
        assert!(is_gone(&owner));
    }
}
