//! Filling an index with the records that were there before it, while writers go on.
//!
//! Invariants: a step holds the writer lock, adds the entries of the next few records as they are at
//! that moment, and stores how far it is in the same batch; whatever is written later, before or
//! behind that place, is maintained by its own batch. So an index is complete when the last step is,
//! and a build that a crash cut short goes on where it was. Steps may come from the background and
//! from callers at once.

use crate::commit::{Member, Writer};
use crate::db::Db;
use crate::engine::Engine;
use crate::index::catalog::{Index, push_record};
use crate::index::index_record::IndexState;
use crate::index::maintain::Derivation;
use crate::index::pending::Layer;
use crate::index::stored_record;
use crate::keyspace::{Keyspace, KeyspaceState, dropped};
use crate::options::Durability;
use crate::range_spec::KeyRange;
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::executor::{Lane, guarded};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Records of one step: writers wait that long.
const RECORDS_PER_STEP: usize = 128;
/// Bytes of records after which a step ends early.
const BYTES_PER_STEP: usize = 1 << 20;
/// Steps of one background job, so that compactions get their turn.
const STEPS_PER_JOB: usize = 32;
/// How long a background step waits where writers are busy.
const PAUSE: Duration = Duration::from_micros(200);

/// How far the filling of an index is: [`Db::build_indexes_with`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexProgress {
    /// The keyspace.
    pub keyspace: String,
    /// The index.
    pub index: String,
    /// Records that it was filled with since the database was opened.
    pub done_records: u64,
    /// Records of the keyspace, about: every version that has not been merged away counts.
    pub estimated_records: u64,
}

impl Engine {
    /// Adds the next few records. Says whether the index is ready.
    fn build_step(
        self: &Arc<Self>,
        writer: &mut Writer,
        owner: &Arc<KeyspaceState>,
        index: &Arc<Index>,
    ) -> Result<bool> {
        self.check_writable()?;
        if index.is_ready() {
            return Ok(true);
        }
        if owner.is_dropped() || index.entries.is_dropped() {
            return Err(dropped(&owner.name));
        }
        self.make_room_in(writer, &index.entries, &[])?;
        let (view, visible) = (owner.load_full(), self.visible_sequence());
        let start = Bound::Excluded(index.build.lock().done_to.clone());
        let range = KeyRange::new(&(start, Bound::Unbounded));
        let group = Layer::default();
        let mut derivation = Derivation::new(self, &group);
        let (mut count, mut bytes, mut last) = (0, 0, None);
        stored_record::for_each_key(&view, &range, |key| {
            if count == RECORDS_PER_STEP || bytes >= BYTES_PER_STEP {
                return Ok(false);
            }
            count += 1;
            bytes += key.len();
            last = Some(key.to_vec());
            if let Some(record) = stored_record::find(&view, key, visible)? {
                bytes += record.value.len();
                for index_key in index.definition.keys_of(key, &record.value)? {
                    derivation.add_entry(index, &index_key, key, record.expiry_millis)?;
                }
            }
            Ok(true)
        })?;
        derivation.check_uniqueness()?;
        let is_last = count < RECORDS_PER_STEP && bytes < BYTES_PER_STEP;
        let mut batch = derivation.into_changes().records;
        let catalog = self.catalog()?;
        let state = match &last {
            _ if is_last => IndexState::Ready,
            Some(key) => IndexState::Building {
                done_to: key.clone(),
            },
            None => return Ok(false),
        };
        let record = index.record(state);
        let name = index.definition.name();
        push_record(&mut batch, &catalog, &owner.name, name, Some(&record));
        let keyspaces = [Arc::clone(&index.entries), catalog];
        let durability = if is_last {
            Durability::Sync
        } else {
            Durability::Buffered
        };
        self.commit_now(
            writer,
            Member::new(&mut batch, &keyspaces, durability, None),
        )?;
        let mut build = index.build.lock();
        build.done_records += count as u64;
        build.done_to = last.unwrap_or_default();
        build.failure = None;
        if is_last {
            index.set_ready(self.visible_sequence());
        }
        Ok(is_last)
    }

    /// As [`Engine::build_step`], remembering a failure for those who ask.
    fn try_build_step(
        self: &Arc<Self>,
        writer: &mut Writer,
        owner: &Arc<KeyspaceState>,
        index: &Arc<Index>,
    ) -> Result<bool> {
        let step = guarded(|| self.build_step(writer, owner, index));
        if let Err(error) = &step {
            index.build.lock().failure = Some(error.clone());
        }
        step
    }

    /// Has every index filled in the background that is not ready.
    pub(crate) fn schedule_index_builds(self: &Arc<Self>) {
        for owner in self.all_keyspaces() {
            if owner.indexes.any() {
                for index in &owner.indexes.set().declared {
                    if !index.is_ready() {
                        self.schedule_index_build(Arc::clone(&owner), Arc::clone(index));
                    }
                }
            }
        }
    }

    fn schedule_index_build(self: &Arc<Self>, owner: Arc<KeyspaceState>, index: Arc<Index>) {
        let engine = Arc::clone(self);
        let job = move || {
            for _ in 0..STEPS_PER_JOB {
                // Closing holds the writer lock while it waits for this job.
                let mut writer = loop {
                    let cancelled = engine.background.cancelled.load(Ordering::Acquire);
                    if cancelled || engine.is_closed() {
                        return;
                    }
                    match engine.commit_queue.try_lock() {
                        Some(writer) => break writer,
                        None => {
                            let mut state = engine.background.state.lock();
                            engine.background.changed.wait_for(&mut state, PAUSE);
                        }
                    }
                };
                match engine.try_build_step(&mut writer, &owner, &index) {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => {
                        let name = index.definition.name();
                        tracing::warn!(%error, index = name, "an index could not be built");
                        return;
                    }
                }
            }
            engine.schedule_index_build(owner, index);
        };
        self.executor.spawn(Lane::Compaction, Box::new(job));
    }

    fn build_index(
        self: &Arc<Self>,
        owner: &Arc<KeyspaceState>,
        index: &Arc<Index>,
        progress: &mut dyn FnMut(&IndexProgress) -> bool,
    ) -> Result<()> {
        loop {
            let is_ready = {
                let mut writer = self.commit_queue.lock();
                self.try_build_step(&mut writer, owner, index)?
            };
            let view = owner.load();
            let tables = view.version.tables().map(|(_, _, meta)| meta.entries);
            let memtables = view.memtables().map(|memtable| memtable.entries());
            let goes_on = progress(&IndexProgress {
                keyspace: owner.name.clone(),
                index: index.definition.name().to_string(),
                done_records: index.build.lock().done_records,
                estimated_records: tables.chain(memtables).sum(),
            });
            if is_ready {
                return Ok(());
            }
            if !goes_on {
                let sentence = "the filling of an index was cancelled";
                return Err(Error::new(ErrorKind::Cancelled, sentence));
            }
        }
    }
}

impl Db {
    /// Fills every declared index that is not ready and returns when all are. Reads and writes go on
    /// meanwhile, and what is written is in the indexes at once.
    ///
    /// # Errors
    /// `UniqueViolation` where two records have one key of a unique index, and what an extractor
    /// returns; other indexes are not affected. Otherwise as [`Keyspace::put`].
    pub fn build_indexes(&self) -> Result<()> {
        self.build_indexes_with(&mut |_| true)
    }

    /// As [`Db::build_indexes`], telling how far it is after every few records. Returning `false`
    /// ends it; the next call goes on from there.
    ///
    /// # Errors
    /// As [`Db::build_indexes`], and `Cancelled`.
    pub fn build_indexes_with(
        &self,
        progress: &mut dyn FnMut(&IndexProgress) -> bool,
    ) -> Result<()> {
        let engine = self.engine();
        engine.check_writable()?;
        let mut outcome = Ok(());
        for owner in engine.all_keyspaces() {
            for index in &owner.indexes.set().declared {
                if !index.is_ready() {
                    match engine.build_index(&owner, index, progress) {
                        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                        Err(error) => outcome = outcome.and(Err(error)),
                        Ok(()) => {}
                    }
                }
            }
        }
        outcome
    }
}

impl Keyspace {
    /// Throws an index's entries away and builds them anew, where validation found it to disagree
    /// with the records. Queries that need it answer `NotReady` meanwhile.
    ///
    /// # Errors
    /// `NotFound` where no such index is declared; otherwise as [`Db::build_indexes`].
    pub fn rebuild_index(&self, name: &str) -> Result<()> {
        let (engine, owner) = (self.engine(), self.state());
        engine.check_writable()?;
        let old = self.index(name)?;
        let index = {
            let mut writer = engine.commit_queue.lock();
            let index = engine.begin_index(&mut writer, owner, &old.definition)?;
            engine.exchange_index(owner, &index);
            index
        };
        self.database().drop_unnamed_entries()?;
        engine.build_index(owner, &index, &mut |_| true)
    }
}
