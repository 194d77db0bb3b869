//! What can be set about a store. The defaults are those of the design; tests use shorter leases.

use std::time::Duration;

/// Settings of a [`crate::Store`].
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// How long a lease lasts without renewal.
    pub lease_ms: u64,
    /// How often it is renewed; clearly less than a third of the lease.
    pub renew_ms: u64,
    /// How long the writer keeps asking a file that other processes are writing before it gives up with a typed error.
    pub busy_ms: u64,
    /// The most appends that share one transaction.
    pub group: usize,
    /// How many reads may run at once, one at least; each has a connection and a thread of its own.
    pub readers: usize,
    /// Open the file even on a network file system, where SQLite's locks cannot be trusted.
    pub accept_network_file_system: bool,
    /// Use the space that was kept back beside the file if the disk is full: for what stops or takes away, see
    /// [`crate::Store::spend_reserve`].
    pub spend_reserve: bool,
    /// The registered virtual file system of SQLite that holds the file; the operating system's when none is named.
    /// Simulated disks are opened this way; the locks of owners stay files of the operating system.
    pub vfs: Option<String>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            lease_ms: 10_000,
            renew_ms: 3_000,
            busy_ms: 30_000,
            group: 512,
            readers: 2,
            accept_network_file_system: false,
            spend_reserve: false,
            vfs: None,
        }
    }
}

impl StoreSettings {
    /// The defaults with another lease, renewed four times while it lasts.
    #[must_use]
    pub fn with_lease(lease_ms: u64) -> Self {
        Self { lease_ms, renew_ms: (lease_ms / 4).max(1), ..Self::default() }
    }

    pub(crate) fn lease(&self) -> i64 {
        i64::try_from(self.lease_ms).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
    }

    pub(crate) fn renew(&self) -> Duration {
        Duration::from_millis(self.renew_ms.clamp(1, (self.lease_ms / 3).max(1)))
    }
}
