//! Removing what has expired: when somebody asks for it, and on an interval in the background.
//!
//! Invariants: no newer value is ever removed: a key goes only if the commit leader finds that it has
//! not changed since it was seen expired. The timer holds the engine by a weak reference and does no
//! more than queue a job; the job never waits for a lock that its own thread may hold, ends soon after
//! the database is closed, and is waited for before the closing thread takes the writer lock. What is
//! known of tables and memtables (their earliest and latest expiry) says where to look, so that a
//! database in which nothing has expired since the last time is not read at all.

use crate::batch::WriteBatch;
use crate::commit;
use crate::cursor::Source;
use crate::db::Db;
use crate::engine::{Engine, EngineHandle, Mode};
use crate::index::definition::is_reserved_name;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::read;
use crate::read_set::{READ_SET_BYTES, ReadSet};
use crate::snapshot::Snapshot;
use crate::super_version::SuperVersion;
use crate::validation::Validation;
use esker_base::internal_key::SequenceNumber;
use esker_base::iterator::InternalIterator;
use esker_base::merging_iterator::MergingIterator;
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::{KeyspaceId, split_expiry};
use esker_base::{ErrorKind, Result, ValueKind};
use esker_compaction::Lane;
use esker_compaction::executor::guarded;
use esker_manifest::VersionEdit;
use esker_sstable::{FillCache, LevelIter, SkipBlocks};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that one batch removes: what the commit leader checks at once.
const KEYS_PER_BATCH: usize = 128;

/// What the clean-ups of one engine remember.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    /// Timers of an earlier number do nothing.
    timer: AtomicU64,
    /// Up to when each keyspace has been cleaned up, milliseconds since 1970.
    done_until: Mutex<HashMap<KeyspaceId, u64>>,
}

/// Which expiries a clean-up is after: later than `after`, not later than `until`.
#[derive(Clone, Copy)]
struct Span {
    after: u64,
    until: u64,
    /// Tables in which everything has expired are left to compaction, which drops them unread.
    in_background: bool,
}

impl Span {
    fn holds_any(&self, earliest: u64, latest: u64) -> bool {
        earliest <= self.until && latest > self.after
    }

    fn concerns(&self, meta: &TableMeta) -> bool {
        if meta.expiring_entries == 0 || (self.in_background && meta.is_wholly_expired(self.until))
        {
            return false;
        }
        // A table that was written since may hold again what had expired before.
        let after = if meta.created_millis >= self.after {
            0
        } else {
            self.after
        };
        Span { after, ..*self }.holds_any(meta.earliest_expiry_millis, meta.latest_expiry_millis)
    }
}

impl Engine {
    /// Sets the timer of the next clean-up, as often as the options say; earlier timers are void.
    pub(crate) fn arm_cleanup(self: &Arc<Self>) {
        let timer = self.cleanup.timer.fetch_add(1, Ordering::AcqRel) + 1;
        let interval = self.settings.ttl_cleanup_interval();
        let Some(interval) = interval.filter(|_| self.mode != Mode::ReadOnly) else {
            return;
        };
        let weak = Arc::downgrade(self);
        let call = move || {
            if let Some(engine) = weak.upgrade() {
                engine.start_cleanup(timer);
            }
        };
        self.clock.call_after(interval, Box::new(call));
    }

    /// Queues the job, unless one is under way or the timer is void.
    fn start_cleanup(self: &Arc<Self>, timer: u64) {
        if self.is_closed() || self.cleanup.timer.load(Ordering::Acquire) != timer {
            return;
        }
        {
            let mut state = self.background.state.lock();
            if state.stopping || state.cleaning {
                return;
            }
            state.cleaning = true;
        }
        let engine = Arc::clone(self);
        let job = Box::new(move || engine.cleanup_job());
        self.executor.spawn(Lane::Compaction, job);
    }

    fn cleanup_job(self: &Arc<Self>) {
        let may_wait = self.executor.has_threads() || self.commit_queue.is_free();
        // Else it is tried again at the next interval.
        if may_wait && let Err(error) = guarded(|| self.clean_up()) {
            tracing::warn!(%error, "a clean-up of expired keys failed");
        }
        {
            let mut state = self.background.state.lock();
            state.cleaning = false;
            self.background.changed.notify_all();
        }
        if !self.is_closed() {
            self.arm_cleanup();
        }
    }

    fn clean_up(self: &Arc<Self>) -> Result<()> {
        let until = self.clock.now_millis();
        let handle = Arc::new(EngineHandle {
            engine: Arc::clone(self),
            closes: false,
        });
        for state in self.all_keyspaces() {
            let after = self.cleanup.done_until.lock().get(&state.id).copied();
            let span = Span {
                after: after.unwrap_or(0),
                until,
                in_background: true,
            };
            if self.is_closed() {
                return Ok(());
            }
            if !has_expired(&state, span) {
                continue;
            }
            let keyspace = Keyspace::new(Arc::clone(&handle), Arc::clone(&state));
            match keyspace.remove_expired(span) {
                Err(_) if state.is_dropped() || self.is_closed() => continue,
                removed => removed?,
            };
            self.cleanup.done_until.lock().insert(state.id, until);
            self.schedule_compactions(Some(state.id));
        }
        self.persist_time();
        Ok(())
    }

    /// Waits until no clean-up runs or is queued. The database is closed already, so that none begins.
    pub(crate) fn wait_for_cleanup(&self) {
        loop {
            if !self.background.state.lock().cleaning {
                return;
            }
            if !self.executor.assist() {
                let mut state = self.background.state.lock();
                if state.cleaning {
                    self.background.changed.wait(&mut state);
                }
            }
        }
    }

    /// Makes the wall time durable where somebody may have seen a record expire after the time that the
    /// manifest remembers: a clock that is turned back while the database is closed does not bring it
    /// back.
    pub(crate) fn persist_time(&self) {
        if self.mode != Mode::Disk {
            return;
        }
        let now = self.clock.now_millis();
        let span = Span {
            after: self.versions.state().latest_millis,
            until: now,
            in_background: false,
        };
        let keyspaces = self.all_keyspaces();
        let seen = keyspaces.iter().any(|state| {
            let view = state.load();
            let mut tables = view.version.tables();
            tables.any(|(_, _, meta)| {
                let (earliest, latest) = (meta.earliest_expiry_millis, meta.latest_expiry_millis);
                meta.expiring_entries > 0 && span.holds_any(earliest, latest)
            })
        });
        if seen {
            self.versions.note_time(now);
            if let Err(error) = self.versions.log_and_apply(VersionEdit::default()) {
                tracing::warn!(%error, "could not note the time");
            }
        }
    }
}

/// Whether a table or memtable may hold a record that expired in `span`; also where all that is there
/// are tables for compaction to drop.
fn has_expired(state: &KeyspaceState, span: Span) -> bool {
    let view = state.load();
    let mut memtables = view.memtables();
    let mut tables = view.version.tables();
    memtables.any(|memtable| {
        let expiries = memtable.expiries();
        expiries.is_some_and(|(earliest, latest)| span.holds_any(earliest, latest))
    }) || tables.any(|(_, _, meta)| span.concerns(meta) || meta.is_wholly_expired(span.until))
}

impl Db {
    /// Removes every expired key of every keyspace and says how many there were. They are invisible
    /// anyhow, and leave with compaction; this frees their space sooner. What a clean-up in the
    /// background ([`Options::ttl_cleanup_interval`](crate::Options::ttl_cleanup_interval)) or a
    /// compaction has removed before is not counted.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.engine().check_writable()?;
        let mut removed = 0;
        for state in self.engine().all_keyspaces() {
            let keyspace = Keyspace::new(Arc::clone(self.handle()), state);
            removed += match keyspace.cleanup_expired() {
                Err(error) if keyspace.state().is_dropped() => {
                    tracing::debug!(%error, "dropped while it was cleaned up");
                    0
                }
                removed => removed?,
            };
        }
        Ok(removed)
    }
}

impl Keyspace {
    /// Removes every expired key and says how many there were.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.engine().check_writable()?;
        self.remove_expired(Span {
            after: 0,
            until: self.engine().clock().now_millis(),
            in_background: false,
        })
    }

    fn remove_expired(&self, span: Span) -> Result<u64> {
        let snapshot = self.snapshot();
        let mut removed = 0;
        for_expired_keys(self, snapshot.sequence(), span, &mut |keys| {
            self.engine().check_open()?;
            removed += match self.remove_unchanged(keys, &snapshot) {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.remove_one_by_one(keys, &snapshot)?
                }
                removed => removed?,
            };
            Ok(())
        })?;
        if is_reserved_name(self.name()) {
            // Entries of an index go with their records, which are what is counted.
            return Ok(0);
        }
        let counter = &self.engine().counters.expired_removed;
        counter.fetch_add(removed, Ordering::Relaxed);
        Ok(removed)
    }

    /// Removes `keys` if none of them has changed since `snapshot`.
    fn remove_unchanged(&self, keys: &[Vec<u8>], snapshot: &Snapshot) -> Result<u64> {
        let engine = self.engine();
        let mut batch = WriteBatch::new();
        let mut reads = ReadSet::new(snapshot.clone(), READ_SET_BYTES);
        for key in keys {
            batch.delete_in(self, key);
            reads.add_key(self, key);
        }
        let durability = engine.settings.default_durability();
        let validation = Validation::new(vec![reads]);
        commit::write_batch(engine, batch, durability, Some(&validation))?;
        Ok(keys.len() as u64)
    }

    /// As [`Keyspace::remove_unchanged`], leaving out those that have changed.
    fn remove_one_by_one(&self, keys: &[Vec<u8>], snapshot: &Snapshot) -> Result<u64> {
        let mut removed = 0;
        for key in keys {
            removed += match self.remove_unchanged(std::slice::from_ref(key), snapshot) {
                Err(error) if error.kind() == ErrorKind::Conflict => 0,
                removed => removed?,
            };
        }
        Ok(removed)
    }
}

/// Hands out the keys whose newest value at `sequence` has expired, a batch at a time. Of the tables
/// only those are scanned that may hold a record that expired in `span`.
fn for_expired_keys(
    keyspace: &Keyspace,
    sequence: SequenceNumber,
    span: Span,
    found: &mut dyn FnMut(&[Vec<u8>]) -> Result<()>,
) -> Result<()> {
    let view = keyspace.super_version(Some(sequence));
    let mut merge = MergingIterator::new(sources_with_expired(&view, span));
    let mut expired: Vec<Vec<u8>> = Vec::new();
    merge.seek_to_first()?;
    while merge.valid() {
        let (key, trailer) = (merge.user_key(), merge.trailer());
        let seen = expired.last().is_some_and(|last| last == key);
        let has_expired = trailer.kind().is_some_and(ValueKind::expires)
            && split_expiry(merge.value()).is_some_and(|(expiry, _)| expiry <= span.until);
        if !seen && has_expired && trailer.sequence() <= sequence {
            let newest = read::find_stored(&view, key, sequence)?;
            if newest.is_some_and(|found| found.trailer() == trailer) {
                expired.push(key.to_vec());
            }
        }
        merge.next()?;
        if expired.len() > KEYS_PER_BATCH {
            // The last one stays, so that its older versions are told from new keys.
            let last = expired.split_off(KEYS_PER_BATCH);
            found(&expired)?;
            expired = last;
        }
    }
    if expired.is_empty() {
        return Ok(());
    }
    found(&expired)
}

fn sources_with_expired(view: &SuperVersion, span: Span) -> Vec<Source> {
    let memtables = view.memtables().filter(|memtable| {
        let expiries = memtable.expiries();
        expiries.is_some_and(|(earliest, latest)| span.holds_any(earliest, latest))
    });
    let memtables = memtables.map(|memtable| Source::Memtable(memtable.iter()));
    let runs = view.runs.iter().filter_map(|run| {
        let tables = run
            .tables
            .iter()
            .filter(|table| span.concerns(table.meta()));
        let tables: Arc<[_]> = tables.cloned().collect();
        if tables.is_empty() {
            return None;
        }
        let skip = SkipBlocks::NothingExpired { until: span.until };
        let walk = LevelIter::new(tables, FillCache::No).skipping(skip);
        Some(Source::Run(walk))
    });
    memtables.chain(runs).collect()
}
