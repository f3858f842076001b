//! Every live table, read to its last byte, in parallel.
//!
//! Invariant: memory is one piece of read-ahead and one block for each thread; what is cached is not
//! believed. The check itself is `sstable`'s.

use super::{Issue, Shared};
use crate::engine::{Engine, Mode};
use esker_base::filename::table_path;
use esker_base::sync;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads the tables, on one thread a processor, and no more than there are tables.
pub(super) fn verify(
    engine: &Engine,
    tables: &[Arc<TableMeta>],
    visible: SequenceNumber,
    shared: &Shared<'_>,
) {
    let next = AtomicUsize::new(0);
    let verify = || {
        while !shared.is_cancelled() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(meta) = tables.get(index) else { break };
            if let Err(error) = verify_table(engine, meta, visible, shared)
                && error.kind() != ErrorKind::Cancelled
            {
                let error = error
                    .with_file(&table_path(&engine.directory, meta.number))
                    .with_keys(&meta.bounds);
                shared.failed(error, Issue::damage);
            }
        }
    };
    let threads = sync::parallelism().min(tables.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(verify);
        }
        verify();
    });
}

fn verify_table(
    engine: &Engine,
    meta: &Arc<TableMeta>,
    visible: SequenceNumber,
    shared: &Shared<'_>,
) -> Result<()> {
    if engine.mode != Mode::Memory {
        // A table that is open can still be read when its name is gone: until the next open.
        check_presence(engine, meta)?;
    }
    check_sequences(engine, meta, visible)?;
    let live = engine.tables.get(meta);
    let table = live.handle.table()?;
    let mut before = 0;
    table.verify_against(meta, &mut |checked| {
        let goes_on = shared.advance(checked - before);
        before = checked;
        goes_on
    })
}

/// Whether what a table holds was written: up to `visible`, or up to what is visible now. A bulk load becomes visible
/// a moment after its tables are current, and a restore; both hold the writer lock meanwhile.
pub(super) fn check_sequences(
    engine: &Engine,
    meta: &TableMeta,
    visible: SequenceNumber,
) -> Result<()> {
    if meta.largest_sequence <= visible {
        return Ok(());
    }
    let writer = engine.commit_queue.lock();
    let visible = engine.visible_sequence();
    drop(writer);
    if meta.largest_sequence <= visible {
        return Ok(());
    }
    let sentence = format!(
        "a table holds sequence numbers up to {}, and the last write has {visible}",
        meta.largest_sequence
    );
    Err(Error::corruption(sentence))
}

fn check_presence(engine: &Engine, meta: &TableMeta) -> Result<()> {
    let path = table_path(&engine.directory, meta.number);
    let entry = engine.fs.metadata(&path).map_err(|error| {
        let kind = error.kind();
        let missing = Error::corruption("a table that the manifest names is missing");
        match kind {
            std::io::ErrorKind::NotFound => missing,
            _ => Error::io("look at a table", &path, error),
        }
    })?;
    if entry.bytes == meta.file_bytes {
        return Ok(());
    }
    let sentence = format!(
        "a table has {} bytes, and the manifest says {}",
        entry.bytes, meta.file_bytes
    );
    Err(Error::corruption(sentence))
}
