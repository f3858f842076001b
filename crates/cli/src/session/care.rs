//! Verbs on the database as a whole: how it is, whether it is well, and what keeps it so.
//!
//! Invariant: `validate` succeeds only if every check passed, and repairs nothing; nothing here loses
//! anything, so that nothing here asks.

use esker::{Db, Severity, ValidationReport};
use serde_json::{Value, json};

use super::Session;
use crate::display::{self, counted, size};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::reply::Reply;

impl Session {
    pub(super) fn status(&mut self) -> Result<Reply> {
        let transaction = self.transaction.as_ref().map(|open| open.writes);
        let db = self.db()?;
        let connection = self.connected()?;
        let stats = db.stats();
        let mode = match (connection.is_memory, connection.is_read_only) {
            (true, _) => "in memory",
            (_, true) => "on disk, for reading only",
            (_, false) => "on disk",
        };
        let tables: usize = stats.levels().iter().map(|level| level.tables).sum();
        let errors: Vec<String> = db
            .background_errors()
            .iter()
            .map(ToString::to_string)
            .collect();
        let sequence = db.snapshot().sequence();
        let names = db.keyspace_names()?;
        let mut lines = vec![
            ("database", connection.place()),
            ("open", mode.to_owned()),
            ("keyspaces", names.join(", ")),
            ("last sequence", display::count(sequence)),
            ("tables", format!("{tables} in the default keyspace")),
            ("memtables", size(stats.memtable_bytes())),
            ("block cache", size(stats.block_cache_bytes())),
            ("snapshots", stats.snapshots().to_string()),
            (
                "transaction",
                match transaction {
                    Some(writes) => format!("open, {}", counted(writes, "write", "writes")),
                    None => "none".to_owned(),
                },
            ),
        ];
        lines.extend(
            errors
                .iter()
                .map(|error| ("background error", error.clone())),
        );
        let reply = Reply::text(display::pairs(&lines))
            .field("database", connection.place())
            .field("memory", connection.is_memory)
            .field("read_only", connection.is_read_only)
            .field("keyspaces", names)
            .field("last_sequence", sequence)
            .field("tables", tables)
            .field("memtable_bytes", stats.memtable_bytes())
            .field("block_cache_bytes", stats.block_cache_bytes())
            .field("snapshots", stats.snapshots())
            .field("transaction_writes", transaction);
        Ok(reply.field("background_errors", errors))
    }

    /// Prints what the database is made of.
    pub(super) fn stats(&mut self) -> Result<Reply> {
        let db = self.db()?;
        let stats = db.stats();
        let mut reply = Reply::text(stats_table(&db)?).field("keyspaces", db.keyspace_names()?);
        let levels = stats.levels().iter().map(|level| {
            json!({
                "runs": level.runs,
                "tables": level.tables,
                "bytes": level.bytes,
                "entries": level.entries,
            })
        });
        reply = reply.field("levels", levels.collect::<Vec<Value>>());
        for (name, bytes) in sizes(&db)? {
            reply = reply.field(name, bytes);
        }
        Ok(reply)
    }

    pub(super) fn recovery_state(&mut self) -> Result<Reply> {
        let db = self.db()?;
        let state = db.recovery_state();
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let text = display::pairs(&[
            ("created the database", yes_no(state.created())),
            ("log segments read", state.wal_segments_read().to_string()),
            (
                "log records replayed",
                display::count(state.wal_records_replayed()),
            ),
            ("lost what was never synced", yes_no(state.wal_was_torn())),
            ("strays removed", state.strays_removed().to_string()),
        ]);
        Ok(Reply::text(text)
            .field("created", state.created())
            .field("wal_segments_read", state.wal_segments_read())
            .field("wal_records_replayed", state.wal_records_replayed())
            .field("wal_was_torn", state.wal_was_torn())
            .field("strays_removed", state.strays_removed()))
    }

    pub(super) fn disk_usage(&mut self) -> Result<Reply> {
        let usage = self.db()?.disk_usage()?;
        let parts = [
            ("total", usage.total_bytes()),
            ("live", usage.live_bytes()),
            ("values", usage.value_bytes()),
            ("value_garbage", usage.value_garbage_bytes()),
            ("garbage", usage.garbage_bytes()),
            ("wal", usage.wal_bytes()),
            ("manifest", usage.manifest_bytes()),
            ("backup", usage.backup_bytes()),
            ("archived", usage.archived_bytes()),
            ("pinned", usage.pinned_bytes()),
        ];
        let mut lines: Vec<(String, String)> = parts
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), size(*bytes)))
            .collect();
        let mut pinned = serde_json::Map::new();
        for (name, bytes) in usage.pinned_by() {
            lines.push((format!("  by {name}"), size(*bytes)));
            pinned.insert(name.clone(), (*bytes).into());
        }
        let mut kept = serde_json::Map::new();
        for (name, bytes) in usage.pinned_by_cursors() {
            lines.push((format!("  archived, by cursor {name}"), size(*bytes)));
            kept.insert(name.clone(), (*bytes).into());
        }
        let mut reply = Reply::text(display::pairs(&lines));
        for (name, bytes) in parts {
            reply = reply.field(&format!("{name}_bytes"), bytes);
        }
        Ok(reply
            .field("pinned_by", pinned)
            .field("pinned_by_cursors", kept))
    }

    /// Checks every byte of the database.
    pub(super) fn validate(&mut self) -> Result<Reply> {
        // What is too damaged to be opened has been found not to be well.
        let db = self.db().map_err(|failure| match failure {
            Failure::Damage(message) => Failure::Refused(message),
            other => other,
        })?;
        let progress = Progress::bytes();
        let interrupt = self.interrupt.clone();
        let report = db.validate_with(&|so_far| {
            progress.advance(so_far.done_bytes, so_far.total_bytes);
            !interrupt.is_pressed()
        })?;
        drop(progress);
        judged(&report, "the database")
    }

    /// Merges all tables.
    pub(super) fn compact(&mut self) -> Result<Reply> {
        let db = self.db()?;
        let table_bytes = || -> u64 { db.stats().levels().iter().map(|level| level.bytes).sum() };
        let before = table_bytes();
        let progress = Progress::of_work(&db, "compact");
        db.compact()?;
        drop(progress);
        let after = table_bytes();
        let note = format!(
            "compacted: tables took {}, and take {}",
            size(before),
            size(after)
        );
        Ok(Reply::done(note)
            .field("bytes_before", before)
            .field("bytes_after", after))
    }

    pub(super) fn wal_status(&mut self) -> Result<Reply> {
        let db = self.db()?;
        let wal = db.wal();
        if !wal.is_enabled() {
            return Ok(Reply::text("there is no write-ahead log\n").field("enabled", false));
        }
        let (bytes, limit) = (wal.size_bytes()?, wal.size_limit_bytes());
        let archived = wal.archived()?;
        let archived_bytes: u64 = archived.iter().map(|segment| segment.bytes()).sum();
        let mut lines = vec![("size", size(bytes)), ("limit", size(limit))];
        if wal.is_archived() || !archived.is_empty() {
            let segments = counted(archived.len() as u64, "segment", "segments");
            let is_on = if wal.is_archived() {
                ""
            } else {
                ", not archived now"
            };
            lines.push((
                "archive",
                format!("{} in {segments}{is_on}", size(archived_bytes)),
            ));
        }
        let first = archived.first().map(esker::ArchivedSegment::first_sequence);
        let last = archived.last().map(esker::ArchivedSegment::last_sequence);
        let text = display::pairs(&lines);
        Ok(Reply::text(text)
            .field("is_archived", wal.is_archived())
            .field("archived_segments", archived.len())
            .field("archived_bytes", archived_bytes)
            .field("archived_from", first)
            .field("archived_to", last)
            .field("enabled", true)
            .field("size_bytes", bytes)
            .field("size_limit_bytes", limit))
    }

    pub(super) fn wal_rotate(&mut self) -> Result<Reply> {
        self.db()?.wal().rotate()?;
        Ok(Reply::done("the log goes on in a new segment"))
    }

    pub(super) fn wal_clear(&mut self) -> Result<Reply> {
        let db = self.db()?;
        let before = db.wal().size_bytes()?;
        db.wal().clear()?;
        let note = format!("{} of log are in tables now; nothing is lost", size(before));
        Ok(Reply::done(note).field("cleared_bytes", before))
    }
}

/// Says what a check found; a failure where anything is damaged.
pub(super) fn judged(report: &ValidationReport, what: &str) -> Result<Reply> {
    let issues: Vec<Value> = report
        .issues()
        .iter()
        .map(|issue| {
            json!({
                "severity": format!("{:?}", issue.severity()).to_lowercase(),
                "file": issue.file().map(|file| file.display().to_string()),
                "offset": issue.offset(),
                "message": issue.message(),
                "advice": issue.advice(),
            })
        })
        .collect();
    let mut text: String = report
        .issues()
        .iter()
        .map(|issue| format!("{issue}\n"))
        .collect();
    let (is_ok, worst) = (report.is_ok(), report.worst());
    let is_well = worst < Some(Severity::Warning);
    if is_well {
        text += "all is well\n";
    }
    let read = format!(
        "{} read in {}\n",
        size(report.bytes()),
        counted(report.tables(), "table", "tables")
    );
    let reply = Reply::text(text + &read)
        .field("is_ok", is_ok)
        .field(
            "worst",
            worst.map(|worst| format!("{worst:?}").to_lowercase()),
        )
        .field("tables", report.tables())
        .field("bytes", report.bytes())
        .field("issues", issues);
    if is_well {
        return Ok(reply);
    }
    let of_note = report
        .issues()
        .iter()
        .filter(|issue| issue.severity() > Severity::Note);
    let count = counted(of_note.count() as u64, "finding", "findings");
    let sentence = if is_ok {
        format!("{what} itself is whole, but not what is beside it: {count}, listed above")
    } else {
        format!("{what} is not well: {count}, listed above")
    };
    Err(Failure::Found(Box::new(reply), sentence))
}

/// What takes how many bytes, with the names that both forms use.
fn sizes(db: &Db) -> Result<[(&'static str, u64); 6]> {
    let usage = db.disk_usage()?;
    Ok([
        ("total_bytes", usage.total_bytes()),
        ("live_bytes", usage.live_bytes()),
        ("garbage_bytes", usage.garbage_bytes()),
        ("wal_bytes", usage.wal_bytes()),
        ("manifest_bytes", usage.manifest_bytes()),
        ("memtable_bytes", db.stats().memtable_bytes()),
    ])
}

fn stats_table(db: &Db) -> Result<String> {
    let stats = db.stats();
    let mut text = String::from("level   runs   tables            bytes        entries\n");
    for (number, level) in stats.levels().iter().enumerate() {
        let (runs, tables, bytes, entries) = (level.runs, level.tables, level.bytes, level.entries);
        text += &format!("{number:<5} {runs:>6} {tables:>8} {bytes:>16} {entries:>14}\n");
    }
    text += "(of the default keyspace)\n\n";
    for (name, bytes) in sizes(db)? {
        text += &format!("{name:<21} {bytes:>16}\n");
    }
    text += &format!("\nkeyspaces: {}\n", db.keyspace_names()?.join(", "));
    Ok(text)
}
