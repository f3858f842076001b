//! The engine behind every handle: what a database is made of, and how it closes.
//!
//! Invariants: jobs hold the [`Engine`], users hold an [`EngineHandle`]; when the last handle is
//! dropped the engine closes, so that no job keeps a database open. Locks are taken in this order
//! and never the other way: writer, keyspace edit, keyspace install, background state.

use crate::archive::Archive;
use crate::background::Background;
use crate::background_error::Health;
use crate::backup::BackupPlace;
use crate::cleanup::Cleanup;
use crate::commit::CommitQueue;
use crate::cursor::IdleCursors;
use crate::given_up::GivenUp;
use crate::hooks::RegisteredHooks;
use crate::index::definition::IndexDefinitions;
use crate::keyspace::KeyspaceState;
use crate::lock_table::LockTable;
use crate::memory_limit::MemoryUse;
use crate::next_segment::NextSegment;
use crate::obsolete_files::LiveTables;
use crate::reader_waits::ReaderWaits;
use crate::recovery_point::RecoveryPoints;
use crate::replaced::Replaced;
use crate::salvage::Loss;
use crate::segments::SegmentTable;
use crate::settings::LiveSettings;
use crate::snapshot::SnapshotList;
use crate::space_reserve::SpaceReserve;
use crate::stats::Counters;
use crate::super_version::{SuperVersion, WriteBuffer};
use crate::visible::Visible;
use crate::work_progress::WorkGauge;
use esker_base::clock::Clock;
use esker_base::filename::FileNumber;
use esker_base::own_lines::OwnLines;
use esker_base::sync::{Mutex, RwLock};
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_compaction::{Executor, JobContext};
use esker_manifest::{Version, VersionSet};
use esker_memtable::{ArenaPool, Memtable};
use esker_sstable::BlockCache;
use esker_vfs::{FileLock, FileSystem};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the last open found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryState {
    pub(crate) wal_records_replayed: u64,
    pub(crate) wal_segments_read: u64,
    pub(crate) wal_bytes_discarded: u64,
    pub(crate) strays_removed: u64,
    pub(crate) created: bool,
    pub(crate) losses: Vec<Loss>,
}

impl RecoveryState {
    /// What was damaged or missing and was given up or left out, as the
    /// [`RecoveryPolicy`](crate::RecoveryPolicy) says. Always empty with `Strict`.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Batches that were read back from the log because no table held them yet.
    #[must_use]
    pub fn wal_records_replayed(&self) -> u64 {
        self.wal_records_replayed
    }

    /// Log segments that were read.
    #[must_use]
    pub fn wal_segments_read(&self) -> u64 {
        self.wal_segments_read
    }

    /// Whether records that were never synced had been lost with the last life.
    #[must_use]
    pub fn wal_was_torn(&self) -> bool {
        self.wal_bytes_discarded > 0
    }

    /// Files that nothing named and that were removed.
    #[must_use]
    pub fn strays_removed(&self) -> u64 {
        self.strays_removed
    }

    /// Whether this open created the database.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }
}

/// How the engine was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Disk,
    Memory,
    ReadOnly,
}

/// All keyspaces that are not dropped.
#[derive(Debug, Default)]
pub(crate) struct KeyspaceTable {
    pub(crate) by_name: BTreeMap<String, Arc<KeyspaceState>>,
    pub(crate) by_id: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
}

impl KeyspaceTable {
    pub(crate) fn insert(&mut self, state: &Arc<KeyspaceState>) {
        self.by_name.insert(state.name.clone(), Arc::clone(state));
        self.by_id.insert(state.id, Arc::clone(state));
    }

    pub(crate) fn remove(&mut self, state: &KeyspaceState) {
        self.by_name.remove(&state.name);
        self.by_id.remove(&state.id);
    }
}

/// One open database. What every write changes lies apart from what every read looks at.
pub(crate) struct Engine {
    pub(crate) mode: Mode,
    pub(crate) settings: LiveSettings,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) directory: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) blocks: Arc<BlockCache>,
    pub(crate) tables: LiveTables,
    pub(crate) given_up: GivenUp,
    pub(crate) jobs: JobContext,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) keyspaces: RwLock<KeyspaceTable>,
    pub(crate) default_keyspace: Arc<KeyspaceState>,
    /// The last sequence number that readers may see (I5).
    pub(crate) visible: OwnLines<Visible>,
    pub(crate) snapshots: SnapshotList,
    /// Keyspaces with states that only snapshots from before a restore read.
    pub(crate) replaced: Replaced,
    /// What pessimistic transactions hold.
    pub(crate) locks: Arc<LockTable>,
    pub(crate) backups: BackupPlace,
    /// How far backups, restores and requested compactions are.
    pub(crate) work: WorkGauge,
    pub(crate) archive: Archive,
    /// Held while a cursor of the feed of changes comes, moves or goes.
    pub(crate) cursor_edit: Mutex<()>,
    pub(crate) points: RecoveryPoints,
    pub(crate) commit_queue: OwnLines<CommitQueue>,
    pub(crate) segments: SegmentTable,
    pub(crate) next_segment: NextSegment,
    pub(crate) reserve: SpaceReserve,
    pub(crate) health: Health,
    pub(crate) background: Background,
    pub(crate) reader_waits: ReaderWaits,
    pub(crate) counters: OwnLines<Counters>,
    pub(crate) recovery: RecoveryState,
    /// The indexes that were declared at open.
    pub(crate) indexes: IndexDefinitions,
    pub(crate) closed: AtomicBool,
    pub(crate) cleanup: Cleanup,
    pub(crate) memory: MemoryUse,
    pub(crate) lock: Mutex<Option<Box<dyn FileLock>>>,
    /// What is registered for keyspaces, those to come included.
    pub(crate) hooks: RegisteredHooks,
    /// What dropped cursors have left for the next ones.
    pub(crate) idle_cursors: Arc<IdleCursors>,
}

impl Engine {
    #[inline]
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    #[inline]
    pub(crate) fn visible_sequence(&self) -> SequenceNumber {
        self.visible.get()
    }

    /// The last write that readers see, as far as there is anything of it. Until something is written in this life, the
    /// numbers of writes that were lost with the power lie behind it: who said that tables hold those would have
    /// the next life take them for writes that were let go of.
    pub(crate) fn held_sequence(&self) -> SequenceNumber {
        let (visible, void) = (self.visible_sequence(), self.segments.void_from());
        match visible == void.last_given {
            true => visible.min(void.sequence.saturating_sub(1)),
            false => visible,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether committed batches go to a log.
    #[inline]
    pub(crate) fn logs_writes(&self) -> bool {
        self.mode == Mode::Disk
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.mode == Mode::ReadOnly {
            Err(read_only())
        } else {
            Ok(())
        }
    }

    /// Fails where the operation needs a disk.
    pub(crate) fn check_on_disk(&self, what: &str) -> Result<()> {
        self.check_writable()?;
        if self.mode == Mode::Disk {
            return Ok(());
        }
        let sentence = format!("an in-memory database has no {what}");
        Err(Error::new(ErrorKind::Unsupported, sentence))
    }

    /// A memtable for new writes.
    pub(crate) fn new_buffer(&self) -> Arc<WriteBuffer> {
        let arenas = Arc::clone(&self.arenas);
        WriteBuffer::new(Arc::new(Memtable::with_pool(
            self.settings.memtable(),
            arenas,
        )))
    }

    /// The state of a keyspace whose tables are those of `version`.
    pub(crate) fn first_super_version(&self, version: Arc<Version>) -> SuperVersion {
        SuperVersion::new(self.new_buffer(), Vec::new(), version, &self.tables)
    }

    /// Every keyspace, by its number.
    pub(crate) fn all_keyspaces(&self) -> Vec<Arc<KeyspaceState>> {
        self.keyspaces.read().by_id.values().cloned().collect()
    }

    /// Makes everything durable in tables, waits for the background and gives the directory back.
    ///
    /// # Errors
    /// Of the last flush. The database is closed all the same: what the flush could not bring into
    /// tables is still in the log, which the next open reads.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.locks.close();
        // It commits, and must not wait for the lock that is taken next.
        self.wait_for_cleanup();
        // No commit is under way once the lock was held: the next leader sees `closed` first.
        let mut writer = self.commit_queue.lock();
        let flushed = if self.mode == Mode::Disk {
            self.flush_and_cure(&mut writer)
        } else {
            Ok(())
        };
        self.background.stop(self);
        self.next_segment.discard(self);
        self.drop_reserve();
        if flushed.is_ok() && self.mode == Mode::Disk {
            self.persist_time();
            let next = writer.next_sequence;
            if let Err(error) = writer.log.write_marks(self, next) {
                tracing::warn!(%error, "the archive may not say what became of keyspaces");
            }
            if let Err(error) = self.forget_log(&mut writer.log) {
                // The next open reads it and finds that every record is in a table.
                tracing::warn!(%error, "could not release the log at close");
            }
        } else if self.mode == Mode::Disk {
            // The log is what is left of the writes: bring it to stable storage if that still works.
            let _ = writer.log.sync(self);
        }
        drop(writer);
        self.idle_cursors.close();
        self.remove_unneeded_files();
        // A handle of the closed database may live on, and should not keep files open.
        while self.jobs.tables.close_one() {}
        self.lock.lock().take();
        flushed
    }

    /// Releases every segment: nothing in them is needed once all memtables are in tables.
    ///
    /// # Errors
    /// Of the manifest. Its edit may be durable or not, so that no record may go into the log, old
    /// or new, before another call has succeeded.
    pub(crate) fn forget_log(&self, log: &mut crate::log::Log) -> Result<()> {
        log.abandon(self);
        let segments = self.segments.below(u64::MAX);
        self.archive_segments(&segments, self.visible_sequence() + 1)?;
        if !segments.is_empty() || self.health.has_failed() {
            // Of every keyspace: what the log held last may have been of one that was dropped.
            let flushed_sequence = Some(self.held_sequence());
            let keyspaces = self.all_keyspaces().into_iter();
            let keyspaces = keyspaces.map(|state| esker_manifest::KeyspaceEdit {
                id: state.id,
                flushed_sequence,
                ..Default::default()
            });
            let edit = esker_manifest::VersionEdit {
                keyspaces: keyspaces.collect(),
                removed_segments: segments.clone(),
                last_sequence: Some(self.visible_sequence()),
                ..Default::default()
            };
            self.versions.log_and_apply(edit)?;
        }
        self.let_log_go(&segments);
        Ok(())
    }

    /// After the manifest has let go of `segments`, which were all there were, their files go too.
    pub(crate) fn let_log_go(&self, segments: &[FileNumber]) {
        // Those that were released before are older: a crash must not leave them alone.
        self.segments.drop_recyclable(self);
        self.segments.release(self, segments);
        self.segments.drop_recyclable(self);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("directory", &self.directory)
            .field("mode", &self.mode)
            .finish()
    }
}

/// What users hold: closes the engine with the last of them.
pub(crate) struct EngineHandle {
    pub(crate) engine: Arc<Engine>,
    /// Not so where a job of the engine's own uses what is made for users.
    pub(crate) closes: bool,
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        if !self.closes {
            return;
        }
        if let Err(error) = self.engine.close() {
            tracing::error!(%error, "closing the database failed");
        }
    }
}

#[cold]
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}

#[cold]
fn read_only() -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        "the database was opened for reading only",
    )
}
