//! Defects of the store: durability, owners, holds, the record, the chain of hashes, secrets.
//!
//! The texts are those of the sources; see the module above for how they are read.

use super::{Edit, Mutant};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "synchronous is NORMAL",
        edits: &[Edit {
            file: "state/src/file.rs",
            find: r#"[("synchronous", 2),"#,
            replace: r#"[("synchronous", if @on@ { 1 } else { 2 }),"#,
        }],
    },
    Mutant {
        name: "synchronous is OFF",
        edits: &[Edit {
            file: "state/src/file.rs",
            find: r#"("synchronous", if"#,
            replace: r#"("synchronous", if @on@ { 0 } else if"#,
        }],
    },
    Mutant {
        name: "a pragma that was not understood is accepted",
        edits: &[
            Edit {
                file: "state/src/file.rs",
                find: "            .pragma_update_and_check(None, pragma, value, |_| Ok(()))",
                replace: r#"            .pragma_update_and_check(None, pragma, if @on@ { "fulll".to_owned() } else { value.to_string() }, |_| Ok(()))"#,
            },
            Edit {
                file: "state/src/file.rs",
                find: "        if found != value {",
                replace: "        if found != value && !@on@ {",
            },
        ],
    },
    Mutant {
        name: "overwriting of deleted bytes is off",
        edits: &[Edit {
            file: "state/src/file.rs",
            find: r#"("secure_delete", 1), ("#,
            replace: r#"("secure_delete", i64::from(!@on@)), ("#,
        }],
    },
    Mutant {
        name: "a newer file is taken",
        edits: &[Edit {
            file: "state/src/file.rs",
            find: "    if found > newest_schema() {",
            replace: "    if found > newest_schema() && !@on@ {",
        }],
    },
    Mutant {
        name: "another application's database is taken",
        edits: &[Edit {
            file: "state/src/file.rs",
            find: "    if found == APPLICATION_ID ||",
            replace: "    if @on@ || found == APPLICATION_ID ||",
        }],
    },
    Mutant {
        name: "an acknowledgement comes before the commit",
        edits: &[
            Edit {
                file: "state/src/writer.rs",
                find: r#"    Patience::new(settings).ask(|| connection.prepare_cached("BEGIN IMMEDIATE")"#,
                replace: r#"    if @on@ && !connection.is_autocommit() {
        connection.execute_batch("COMMIT")?;
    }
    Patience::new(settings).ask(|| connection.prepare_cached("BEGIN IMMEDIATE")"#,
            },
            Edit {
                file: "state/src/writer.rs",
                find: r#"    connection.prepare_cached("COMMIT")?"#,
                replace: r#"    if @on@ {
        return Ok(());
    }
    connection.prepare_cached("COMMIT")?"#,
            },
        ],
    },
    Mutant {
        name: "a refused write leaves its traces",
        edits: &[Edit {
            file: "state/src/writer.rs",
            find: r#"            connection.prepare_cached("ROLLBACK TO job")?.execute([])?;"#,
            replace: r#"            if !@on@ {
                connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
            }"#,
        }],
    },
    Mutant {
        name: "a commit is split in two: events, then what follows from them",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    for row in &batch.steps {",
            replace: r#"    if @on@ {
        let _ = connection.execute_batch("COMMIT; BEGIN IMMEDIATE; SAVEPOINT job");
    }
    for row in &batch.steps {"#,
        }],
    },
    Mutant {
        name: "an append of an earlier epoch is taken",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    if current != lease.epoch ||",
            replace: "    if (current != lease.epoch && !@on@) ||",
        }],
    },
    Mutant {
        name: "an append after another sequence is taken",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "|| head != integer(expected)? {",
            replace: "|| (head != integer(expected)? && !@on@) {",
        }],
    },
    Mutant {
        name: "an append under a released lease is taken",
        edits: &[Edit { file: "state/src/write.rs", find: "|| !owned ||", replace: "|| (!owned && !@on@) ||" }],
    },
    Mutant {
        name: "a takeover does not raise the epoch",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    let epoch = ownership.epoch + 1;",
            replace: "    let epoch = ownership.epoch + u64::from(!@on@);",
        }],
    },
    Mutant {
        name: "an earlier owner gives back the lease of the present one",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: r#"         WHERE id = ?1 AND epoch = ?2",
        params![lease.run.as_str(), integer(lease.epoch)?],"#,
            replace: r#"         WHERE id = ?1 AND (epoch = ?2 OR ?3)",
        params![lease.run.as_str(), integer(lease.epoch)?, @on@],"#,
        }],
    },
    Mutant {
        name: "a second run does not find the environment held",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    if let Some(holder) = held_by {",
            replace: "    if let Some(holder) = held_by.filter(|_| !@on@) {",
        }],
    },
    Mutant {
        name: "an ended run keeps its hold in the file",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    if batch.releases_environment {",
            replace: "    if batch.releases_environment && !@on@ {",
        }],
    },
    Mutant {
        name: "a run that is taken up again does not hold its environment",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    take_hold(connection, &crate::read::name(&environment, EnvironmentName::new)?, run, held_by)?;",
            replace: "    if !@on@ {
        take_hold(connection, &crate::read::name(&environment, EnvironmentName::new)?, run, held_by)?;
    }",
        }],
    },
    Mutant {
        name: "another uid of an environment is taken",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    if uid != new.environment_uid.as_str() {",
            replace: "    if uid != new.environment_uid.as_str() && !@on@ {",
        }],
    },
    Mutant {
        name: "another target of an environment is taken",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "    if recorded != new.target {",
            replace: "    if recorded != new.target && !@on@ {",
        }],
    },
    Mutant {
        name: "the rows of steps are not replaced",
        edits: &[
            Edit {
                file: "state/src/write.rs",
                find: "outcome = excluded.outcome, payload = excluded.payload, sum = excluded.sum",
                replace: "outcome = excluded.outcome, payload = excluded.payload, sum = excluded.sum WHERE NOT ?8",
            },
            Edit {
                file: "state/src/write.rs",
                find: "told.over(row.payload.as_deref()),]",
                replace: "told.over(row.payload.as_deref()), @on@]",
            },
        ],
    },
    Mutant {
        name: "the status of a run is not written",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: "batch.status.map(RunStatus::as_str), number]",
            replace: "batch.status.filter(|_| !@on@).map(RunStatus::as_str), number]",
        }],
    },
    Mutant {
        name: "what is gone stays on record in the file",
        edits: &[Edit {
            file: "state/src/write.rs",
            find: r#""DELETE FROM recorded_steps WHERE environment = ?1 AND step = ?2","#,
            replace: r#"if @on@ { "DELETE FROM recorded_steps WHERE environment = ?1 AND step = ?2 AND 0" } else { "DELETE FROM recorded_steps WHERE environment = ?1 AND step = ?2" },"#,
        }],
    },
    Mutant {
        name: "a lease is renewed after its end",
        edits: &[
            Edit {
                file: "state/src/lease.rs",
                find: r#"AND owner IS NOT NULL AND lease_until_ms > ?4""#,
                replace: r#"AND owner IS NOT NULL AND (lease_until_ms > ?4 OR ?5)""#,
            },
            Edit {
                file: "state/src/lease.rs",
                find: "                time::boot_now_ms()
            ])",
                replace: "                time::boot_now_ms(),
                @on@
            ])",
            },
        ],
    },
    Mutant {
        name: "a lease does not end by itself",
        edits: &[Edit {
            file: "state/src/lease.rs",
            find: "            Ok(left) if left > 0 => Ok(Duration::from_millis(left)),",
            replace: "            Ok(left) if left > 0 => Ok(Duration::from_millis(left)),
            _ if @on@ => Ok(Duration::from_millis(1)),",
        }],
    },
    Mutant {
        name: "a refused append is not taken for the loss of the lease",
        edits: &[Edit {
            file: "state/src/store.rs",
            find: "            self.held.lost(&run, epoch, *current);",
            replace: "            if !@on@ {
                self.held.lost(&run, epoch, *current);
            }",
        }],
    },
    Mutant {
        name: "leases run on the wall clock",
        edits: &[Edit {
            file: "state/src/time.rs",
            find: "    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);",
            replace: "    let now = rustix::time::clock_gettime(if @on@ { rustix::time::ClockId::Realtime } else { rustix::time::ClockId::Boottime });",
        }],
    },
    Mutant {
        name: "the lock of a dead owner proves nothing",
        edits: &[Edit {
            file: "state/src/lease.rs",
            find: "            Ok(()) => Some(false),",
            replace: "            Ok(()) => Some(@on@),",
        }],
    },
    Mutant {
        name: "a live owner is taken for dead",
        edits: &[Edit {
            file: "state/src/lease.rs",
            find: "            Err(TryLockError::WouldBlock) => Some(true),",
            replace: "            Err(TryLockError::WouldBlock) => Some(!@on@),",
        }],
    },
    Mutant {
        name: "the chain of hashes is not checked",
        edits: &[Edit {
            file: "state/src/read/journaled.rs",
            find: "        if stored.is_some_and(|stored| stored != *hash) {",
            replace: "        if let (Some(stored), true) = (stored, @on@) {
            *hash = stored;
        }
        if stored.is_some_and(|stored| stored != *hash) {",
        }],
    },
    Mutant {
        name: "payloads are not in the chain",
        edits: &[Edit {
            file: "state/src/chain.rs",
            find: "    field(&mut hash, link.payload);",
            replace: "    if !@on@ {
        field(&mut hash, link.payload);
    }",
        }],
    },
    Mutant {
        name: "times are not in the chain",
        edits: &[Edit {
            file: "state/src/chain.rs",
            find: "    hash.update(link.recorded_at.to_le_bytes());",
            replace: "    if !@on@ {
        hash.update(link.recorded_at.to_le_bytes());
    }",
        }],
    },
    Mutant {
        name: "a chain is not bound to its plan",
        edits: &[Edit {
            file: "state/src/chain.rs",
            find: "    field(&mut hash, plan_sha256);",
            replace: "    if !@on@ {
        field(&mut hash, plan_sha256);
    }",
        }],
    },
    Mutant {
        name: "a cut end of a journal passes",
        edits: &[
            Edit {
                file: "state/src/read/journaled.rs",
                find: "        if hash != Some(self.head_hash) {",
                replace: "        if hash != Some(self.head_hash) && !@on@ {",
            },
            Edit {
                file: "state/src/read/journaled.rs",
                find: "        if (at == self.head && hash != self.head_hash) ||",
                replace: "        if (at == self.head && hash != self.head_hash && !@on@) ||",
            },
        ],
    },
    Mutant {
        name: "an altered plan passes",
        edits: &[Edit {
            file: "state/src/read.rs",
            find: "    if chain::digest(&body) != sha256 {",
            replace: "    if chain::digest(&body) != sha256 && !@on@ {",
        }],
    },
    Mutant {
        name: "a removed secret stays in the log",
        edits: &[Edit {
            file: "state/src/secrets.rs",
            find:
                "        // `secure_delete` overwrote the page; the WAL still has its older image until it is emptied.
        writer.checkpoint().await;",
            replace: "        if !@on@ {
            writer.checkpoint().await;
        }",
        }],
    },
    Mutant {
        name: "another secret of the same name replaces the first",
        edits: &[Edit {
            file: "state/src/secrets.rs",
            find: "        Some(_) if !overwrite => return Ok(false),",
            replace: "        Some(_) if !overwrite && !@on@ => return Ok(false),",
        }],
    },
];
