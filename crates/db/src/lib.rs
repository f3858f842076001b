//! esker: an embedded, ordered, persistent key-value store.
//!
//! Keys and values are bytes; keys order bytewise. A [`Db`] is a cheap handle to clone into every
//! thread. Writes are atomic, as durable as each asks for ([`Durability`]), and visible in one order;
//! reads take no lock. See the repository's `ARCHITECTURE.md` for how it works.
//!
//! ```
//! # fn main() -> esker::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("db");
//! let db = esker::Db::open(&path)?;
//! db.put("user:1", "Ada")?;
//! db.put("user:2", "Grace")?;
//!
//! let mut batch = esker::WriteBatch::new();
//! batch.put("user:3", "Barbara");
//! batch.delete("user:2");
//! db.write(batch)?;
//!
//! for entry in db.prefix("user:") {
//!     let (key, value) = entry?;
//!     println!("{key:?} {value:?}");
//! }
//! db.close()
//! # }
//! ```
#![forbid(unsafe_code)]

mod archive;
mod archive_check;
mod archive_retention;
mod archived_segment;
mod atomic_update;
mod background;
mod background_error;
mod backpressure;
pub mod backup;
mod backup_metadata;
mod backup_name;
mod backup_retention;
mod backup_store;
mod batch;
mod capture;
mod changes;
mod checkpoint;
mod cleanup;
mod commit;
mod compaction_job;
mod cure;
mod cursor;
mod database_directory;
mod db;
mod disk_usage;
mod engine;
mod file_handles;
mod flush_job;
mod flushed_tables;
mod full_disk;
mod given_up;
mod hooks;
mod index;
mod ingest;
mod interleaved;
mod key_range_set;
mod keyspace;
mod keyspace_options;
mod keyspaces;
mod live_values;
mod lock_table;
mod log;
mod log_history;
mod log_mark;
mod memory_limit;
mod merge;
pub mod merge_operators;
mod merged;
mod next_segment;
mod obsolete_files;
mod open;
mod operator_slot;
mod option_text;
mod option_word;
mod options;
mod origins;
mod query;
mod range_spec;
mod read;
mod read_set;
mod read_toll;
mod reader_waits;
mod recent_writes;
mod recovery;
mod recovery_point;
mod repair;
mod replaceable;
mod replaced;
mod restore;
mod restore_plan;
mod restore_point;
mod restored_base;
mod salvage;
mod scan;
mod scan_reads;
mod segments;
mod settings;
mod snapshot;
mod space_reserve;
mod spent_segments;
mod stats;
mod stray_order;
mod strays;
mod super_version;
mod table_files;
mod table_references;
mod transaction;
mod transaction_options;
mod ttl;
mod typed;
mod untold_removals;
mod validate;
mod validation;
mod value;
mod visible;
mod wal_control;
mod warm_up;
mod watchers;
mod work_progress;
mod writer_line;

pub mod inspect;

pub use archived_segment::ArchivedSegment;
pub use backup_metadata::BackupInfo;
pub use backup_retention::Retention;
pub use batch::WriteBatch;
pub use changes::batch::{Change, ChangeBatch, Operation};
pub use changes::cursor::{ChangeCursor, ChangeCursorInfo};
pub use changes::keyspace_change::KeyspaceChange;
pub use changes::{ChangeGap, Changes};
pub use cursor::Cursor;
pub use db::Db;
pub use disk_usage::DiskUsage;
pub use engine::RecoveryState;
pub use esker_base::clock::{Clock, ManualClock, SystemClock};
pub use esker_base::merge_operator::MergeOperator;
pub use esker_base::{Error, ErrorKind, Result};
#[doc(hidden)]
pub use esker_compaction::executor;
pub use esker_compaction::{CompactionFilter, CompactionShape, FilterDecision};
pub use esker_memtable::MemtableKind;
pub use esker_sstable::{Compression, FilterKind};
pub use esker_tuple as tuple;
pub use esker_vfs as vfs;
pub use index::{IndexDefinition, IndexInfo, IndexKeys, IndexProgress, IndexStatus};
pub use keyspace::Keyspace;
pub use keyspace_options::{KeyspaceOptions, KeyspaceSettings};
pub use options::{Durability, Options, RecoveryPolicy, WriteOptions};
pub use query::{Continuation, Explanation, MAX_SORTED_ROWS, Query, QueryPlan, Row, Rows};
pub use repair::RepairReport;
pub use restore_point::{RestorePoint, RestoreSource, Restored};
pub use salvage::Loss;
pub use scan::Entries;
pub use settings::{RuntimeOptions, Settings};
pub use snapshot::Snapshot;
pub use stats::{KeyspaceStats, LevelStats, Stats};
pub use transaction::{Savepoint, Transaction};
pub use transaction_options::{Concurrency, Isolation, TransactionOptions};
pub use typed::{TypedBatch, TypedEntries, TypedKeyspace, TypedSnapshot, TypedTransaction};
pub use validate::{Issue, Severity, ValidationProgress, ValidationReport};
pub use value::Value;
pub use wal_control::Wal;
pub use work_progress::WorkProgress;

/// Keeps the programs in the guides true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/transactions.md")]
struct TransactionsGuide;

/// Keeps the program in the README true.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Keeps the guide to merging true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/merge.md")]
struct MergeGuide;

/// Keeps the guide to the feed of changes true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/changes.md")]
struct ChangesGuide;

/// Keeps the guide to backups true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/backups.md")]
struct BackupsGuide;

/// Keeps the guide to options true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/options.md")]
struct OptionsGuide;
