//! What reads lose to memtables and runs that could be one, and what is done about it.
//!
//! Every read that asks more than one source adds what the others cost it, in bytes that could have been
//! merged in that time, to its keyspace's toll. Where that has reached the cost of a flush or a merge, a job
//! makes it: which one is for the pure [`pick_for_reads`] to say. While somebody writes nothing is added:
//! what would be merged is about to be covered anyway, and the processor is wanted.
//!
//! A reader that is in the middle of a read when its tables are replaced keeps their files, and nobody comes
//! back for them while nobody writes: the next read that is counted has them removed.
//!
//! Invariants (I8): a read waits for nothing here; it takes a lock only to start the job, once for each time
//! that the toll comes due. Nothing here looks at a time or draws a random number: which reads are counted
//! is told by their keys, so that a simulated run repeats itself. The job seals a memtable only if nobody
//! holds the writer lock, and never waits for it. Called by point reads and cursors.

use crate::engine::{Engine, Mode};
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::super_version::SuperVersion;
use esker_base::Result;
use esker_compaction::executor::guarded;
use esker_compaction::{Lane, MemtableSize, Plan, Relief, pick_for_reads};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A point read is counted if its key's hash is divisible by this, for so many.
const GETS_COUNTED_BY: u64 = 64;

/// What one more source costs a reader that waits for it, in bytes that a job which nobody waits for could
/// merge: 100 to 300 ns of a get, about four times as much of a seek; a merge takes about 2 ns a byte, and
/// is given a quarter of a reader's weight.
const GET_BYTES: u64 = 512;
const SEEK_BYTES: u64 = 4 * GET_BYTES;

/// What a scan loses to a key of which a memtable has so many records that their end has to be searched for.
const SEARCH_BYTES: u64 = GET_BYTES;

/// Below this part of a memtable nothing is worth a job: its syncs and edits cost about as much.
const LEAST_PART: u64 = 16;

/// What the reads of one keyspace have lost since its super-version was replaced.
#[derive(Debug, Default)]
pub(crate) struct ReadToll {
    lost_bytes: AtomicU64,
    /// The part of it that scans have lost to older records of keys in the memtable.
    searched_bytes: AtomicU64,
    /// When the next decision is due; [`DECIDING`] while one is being made or carried out.
    due_bytes: AtomicU64,
    /// The sequence number that was visible to the last read that was counted.
    quiet_since: AtomicU64,
    /// Whether readers kept files of tables that were replaced, the last time somebody looked.
    has_leftovers: AtomicBool,
}

const DECIDING: u64 = u64::MAX;

impl ReadToll {
    /// There are other sources now.
    pub(crate) fn begin_anew(&self) {
        self.lost_bytes.store(0, Relaxed);
        self.searched_bytes.store(0, Relaxed);
        self.due_bytes.store(0, Relaxed);
    }

    /// Adds `bytes`; whether the caller is to have a decision made.
    fn add(&self, bytes: u64, least: u64) -> bool {
        let lost = self.lost_bytes.fetch_add(bytes, Relaxed) + bytes;
        let due = self.due_bytes.load(Relaxed);
        lost >= due.max(least)
            && due != DECIDING
            && self
                .due_bytes
                .compare_exchange(due, DECIDING, Relaxed, Relaxed)
                .is_ok()
    }

    /// The decision is to be made again at `bytes`, unless everything began anew meanwhile.
    fn decide_at(&self, bytes: u64) {
        let bytes = bytes.min(DECIDING - 1);
        let _ = self
            .due_bytes
            .compare_exchange(DECIDING, bytes, Relaxed, Relaxed);
    }
}

impl Keyspace {
    /// Counts a point read of `key`, which has this hash, in `view`.
    #[inline]
    pub(crate) fn note_get(&self, view: &SuperVersion, key: &[u8], hash: u64) {
        if hash.is_multiple_of(GETS_COUNTED_BY) {
            self.note_counted_get(view, key);
        }
    }

    #[cold]
    fn note_counted_get(&self, view: &SuperVersion, key: &[u8]) {
        let mut runs = 0;
        for table in view.runs.iter().filter_map(|run| run.find(key)) {
            runs += 1;
            self.engine().warm_if_wanted(table);
        }
        self.note_read(view, runs, GET_BYTES * GETS_COUNTED_BY);
    }

    /// Counts a seek, which asks every run.
    #[inline]
    pub(crate) fn note_seek(&self, view: &SuperVersion) {
        self.note_read(view, view.runs.len(), SEEK_BYTES);
    }

    /// Counts that a scan had to search a memtable for the end of a key that has many records there.
    pub(crate) fn note_search(&self) {
        let engine = self.engine();
        engine.note_loss(self.state(), SEARCH_BYTES, SEARCH_BYTES);
    }

    #[inline]
    fn note_read(&self, view: &SuperVersion, runs: usize, bytes_each: u64) {
        if self.state().read_toll.has_leftovers.load(Relaxed) {
            self.engine().schedule_removal(self.state());
        }
        let memtables = view.memtables().filter(|memtable| !memtable.is_empty());
        let needless = (runs + memtables.count()).saturating_sub(1);
        if needless > 0 {
            let engine = self.engine();
            if !engine.note_loss(self.state(), needless as u64 * bytes_each, 0) {
                engine.note_reads_beside_writes((bytes_each / GET_BYTES) as u32);
            }
        }
    }
}

impl Engine {
    /// Adds what a read has lost, and which part of that to searches; `false` if somebody writes, so that it does not
    /// count.
    fn note_loss(
        self: &Arc<Self>,
        keyspace: &Arc<KeyspaceState>,
        bytes: u64,
        searched_bytes: u64,
    ) -> bool {
        if self.mode != Mode::Disk {
            return true;
        }
        let toll = &keyspace.read_toll;
        let visible = self.visible_sequence();
        if toll.quiet_since.load(Relaxed) != visible {
            toll.quiet_since.store(visible, Relaxed);
            return false;
        }
        toll.searched_bytes.fetch_add(searched_bytes, Relaxed);
        if toll.add(bytes, self.least_loss(keyspace)) {
            self.schedule_relief(keyspace);
        }
        true
    }

    fn least_loss(&self, keyspace: &KeyspaceState) -> u64 {
        keyspace.write_buffer_bytes(&self.settings) as u64 / LEAST_PART
    }

    /// Starts the job that decides, if a thread is free for it.
    #[cold]
    fn schedule_relief(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>) {
        {
            let mut state = self.background.state.lock();
            let failed = state.flush_error.is_some() || state.compaction_error.is_some();
            let is_busy = state.compactions >= self.settings.background_threads();
            if state.stopping || failed || is_busy {
                self.decide_later(keyspace);
                return;
            }
            state.compactions += 1;
        }
        let (engine, keyspace) = (Arc::clone(self), Arc::clone(keyspace));
        let job = Box::new(move || engine.relief_job(&keyspace));
        self.executor.spawn(Lane::Compaction, job);
    }

    /// Removes what nothing needs any more. What readers keep is tried once more, behind another read.
    pub(crate) fn remove_replaced_files(&self, keyspace: &KeyspaceState) {
        self.remove_unneeded_files();
        let is_kept = self.tables.has_retired();
        keyspace.read_toll.has_leftovers.store(is_kept, Relaxed);
        if !is_kept {
            self.give_freed_memory_back();
        }
    }

    /// After a merge for reads, once the blocks of its inputs are gone: they are as much as what is cached, and
    /// where nobody writes nothing takes their place.
    fn give_freed_memory_back(&self) {
        let has_freed = &self.background.has_freed;
        if has_freed.load(Relaxed) && has_freed.swap(false, Relaxed) && self.executor.has_threads()
        {
            esker_vfs::give_free_memory_back();
        }
    }

    /// Has removed, off the reader's path, what readers kept.
    #[cold]
    fn schedule_removal(self: &Arc<Self>, keyspace: &KeyspaceState) {
        if !keyspace.read_toll.has_leftovers.swap(false, Relaxed) {
            return;
        }
        {
            let mut state = self.background.state.lock();
            if state.stopping {
                return;
            }
            state.compactions += 1;
        }
        let engine = Arc::clone(self);
        let job = move || {
            engine.remove_unneeded_files();
            engine.give_freed_memory_back();
            engine.background.state.lock().compactions -= 1;
            engine.background.notify();
        };
        self.executor.spawn(Lane::Compaction, Box::new(job));
    }

    fn decide_later(&self, keyspace: &KeyspaceState) {
        let toll = &keyspace.read_toll;
        let more = self.least_loss(keyspace).saturating_mul(LEAST_PART);
        toll.decide_at(toll.lost_bytes.load(Relaxed).saturating_add(more));
    }

    fn relief_job(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>) {
        match guarded(|| self.decide_relief(keyspace)) {
            Ok(Some(plan)) => {
                self.background.has_freed.store(true, Relaxed);
                return self.compaction_job(keyspace, &plan);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "nothing could be merged for reads"),
        }
        self.background.state.lock().compactions -= 1;
        self.background.notify();
    }

    /// Decides; flushes what is to be flushed, and says what is to be merged, its inputs marked busy.
    fn decide_relief(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>) -> Result<Option<Plan>> {
        if self.is_closed() || keyspace.is_dropped() {
            return Ok(None);
        }
        let bytes = {
            let view = keyspace.load();
            if !view.is_in_order() {
                // A merge of tables alone could forget that they are newer than what a memtable deletes.
                return Ok(None);
            }
            let memtable = Some(&view.active.memtable).filter(|memtable| !memtable.is_empty());
            memtable.map_or(0, |memtable| memtable.bytes() as u64)
        };
        let memtable = MemtableSize {
            bytes,
            full_bytes: keyspace.write_buffer_bytes(&self.settings) as u64,
            searched_bytes: keyspace.read_toll.searched_bytes.load(Relaxed),
        };
        let lost = keyspace.read_toll.lost_bytes.load(Relaxed);
        let mut state = self.background.state.lock();
        let relief = self.with_pick_input(&state, keyspace, |input| {
            pick_for_reads(input, memtable, lost)
        });
        match relief {
            Relief::Merge(plan) => {
                self.blocks.expect_reads();
                state
                    .busy
                    .entry(keyspace.id)
                    .or_default()
                    .extend(plan.files());
                return Ok(Some(plan));
            }
            Relief::Flush => {
                drop(state);
                self.blocks.expect_reads();
                self.flush_if_nobody_writes(keyspace)?;
            }
            Relief::At(bytes) => keyspace.read_toll.decide_at(bytes),
            Relief::Nothing => {}
        }
        // Memtables grow, and what was busy is free again some time.
        self.decide_later(keyspace);
        Ok(None)
    }

    fn flush_if_nobody_writes(self: &Arc<Self>, keyspace: &Arc<KeyspaceState>) -> Result<()> {
        let Some(mut writer) = self.commit_queue.try_lock() else {
            return Ok(());
        };
        if self.is_closed() || self.health.has_failed() {
            return Ok(());
        }
        // Since the decision it may have been flushed or dropped; and what waits for its flush is bounded (I9).
        let wants_it = {
            let view = keyspace.load();
            let has_room = view.sealed.len() < self.settings.max_sealed_memtables();
            has_room && !view.active.memtable.is_empty() && !keyspace.is_dropped()
        };
        if !wants_it {
            return Ok(());
        }
        self.secure_log(&mut writer)?;
        if self.next_to_flush().is_none() {
            // Nobody waits for it but reads, which want the processors for themselves.
            let urgent = &self.background.flush_is_urgent;
            urgent.store(false, Relaxed);
        }
        self.seal(&writer, keyspace);
        drop(writer);
        self.arenas.rest();
        self.schedule_flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Keyspace, Options};
    use esker_compaction::ManualExecutor;
    use esker_vfs::MemFileSystem;
    use std::sync::Arc;

    /// A database whose flushes do not come forward.
    fn open() -> (crate::Db, Arc<ManualExecutor>) {
        let executor = Arc::new(ManualExecutor::new(0));
        let options = Options::new()
            .file_system(Arc::new(MemFileSystem::new()))
            .executor(executor.clone());
        (options.open("/db").unwrap(), executor)
    }

    fn flush_for_reads(keyspace: &Keyspace) -> usize {
        let engine = keyspace.engine();
        engine.flush_if_nobody_writes(keyspace.state()).unwrap();
        keyspace.state().load().sealed.len()
    }

    /// The story: a reader waited for four milliseconds, until the system looked, behind the flush that reads had
    /// earned.
    #[test]
    fn a_flush_for_reads_gives_way_until_somebody_waits_for_it() {
        let (db, _executor) = open();
        let keyspace: &Keyspace = &db;
        let is_urgent = || {
            let background = &keyspace.engine().background;
            background.flush_is_urgent.load(super::Relaxed)
        };
        keyspace.put("a", "1").unwrap();
        keyspace.flush().unwrap();
        assert!(is_urgent(), "somebody waited");
        keyspace.put("a", "2").unwrap();
        assert_eq!(flush_for_reads(keyspace), 1);
        assert!(!is_urgent());
        keyspace.flush().unwrap();
        assert!(
            is_urgent(),
            "somebody waits for the flush that was due already"
        );
        keyspace.put("a", "3").unwrap();
        keyspace
            .engine()
            .seal_all(&keyspace.engine().commit_queue.lock());
        assert_eq!(flush_for_reads(keyspace), 1);
        assert!(is_urgent(), "what was sealed by others is not held up");
        db.close().unwrap();
    }

    /// The story: while a flush did not come forward, reads had a memtable sealed that was a sixteenth full, and
    /// then the next one, without an end: more than the memory budget counts with.
    #[test]
    fn reads_have_no_more_memtables_sealed_than_writes_do() {
        let (db, executor) = open();
        let most = db.engine().settings.max_sealed_memtables();
        for key in 0..100u32 {
            db.put(key.to_be_bytes(), "v").unwrap();
            assert!(flush_for_reads(&db) <= most);
        }
        while executor.step() {}
        assert_eq!(flush_for_reads(&db), 1, "there is room again");
        db.close().unwrap();
    }

    /// The story: a decision that was made before its keyspace was dropped, or its memtable flushed, sealed an
    /// empty memtable. Nobody flushes that of a dropped keyspace, and whoever asked for its flush by an old
    /// handle waited for ever.
    #[test]
    fn nothing_empty_or_dropped_is_sealed() {
        let (db, _executor) = open();
        assert_eq!(flush_for_reads(&db), 0);
        let passing = db.keyspace("passing").unwrap();
        passing.put("k", "v").unwrap();
        db.drop_keyspace("passing").unwrap();
        assert_eq!(flush_for_reads(&passing), 0);
        passing.flush().unwrap();
        db.close().unwrap();
    }
}
