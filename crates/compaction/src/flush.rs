//! Flush: a sealed memtable, or any other sorted records, becomes one run of level 0.
//!
//! Invariant: when it returns, every table is synced, its directory entry is synced, and it has
//! been opened again; on an error no file is left. Tombstones stay: a flush does not know what is
//! below it. Called by db's background work and recovery; it never sees a memtable.

use esker_base::Result;
use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::FragmentedTombstones;

use crate::executor::guarded;
use crate::job::{JobOutput, JobStats, Part, finish_tables, write_part};
use crate::job_context::{CreatedFiles, JobContext};
use crate::older_tables::OlderTables;
use crate::output::CutRules;
use crate::retention::{JobTombstones, RetentionRules};

/// Writes what `source` yields from its beginning, and `tombstones`, into tables that form one
/// run. There may be none: an empty source makes no table.
///
/// # Errors
/// I/O errors; [`Cancelled`](esker_base::ErrorKind::Cancelled); a panic inside. Every file that was
/// made is removed then.
pub fn flush<I: InternalIterator>(
    context: &JobContext,
    mut source: I,
    tombstones: FragmentedTombstones,
    rules: &RetentionRules,
) -> Result<JobOutput> {
    let _span = tracing::info_span!("flush").entered();
    let created = CreatedFiles::new(context);
    let output = guarded(|| {
        let older = OlderTables::everywhere();
        let kept = rules.retain_tombstones(&tombstones, &older);
        source.seek_to_first()?;
        let part = Part {
            level: 0,
            start: &[],
            end: &[],
            rules,
            tombstones: &JobTombstones {
                all: tombstones,
                kept,
            },
            older,
            cut: CutRules::default(),
            keeps_large: true,
            gives_way: false,
        };
        let (written, retention) = write_part(context, &created, part, source, |_| Ok(None))?;
        let stats = JobStats {
            retention,
            ..JobStats::default()
        };
        finish_tables(context, written, stats)
    })?;
    created.keep();
    tracing::info!(
        tables = output.tables.len(),
        bytes = output.stats.bytes_written,
        records = output.stats.retention.records_out,
        "flushed"
    );
    Ok(output)
}
