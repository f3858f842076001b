//! The set of keyspaces: creating, finding and dropping them, and what each is told.
//!
//! Invariants: a keyspace comes, goes and changes its options by one durable edit of the manifest,
//! before anybody finds it so (I1); nothing of a keyspace costs memory or files before its first
//! write. Jobs look at a keyspace's options when they begin.

use crate::db::Db;
use crate::engine::{Engine, KeyspaceTable, Mode};
use crate::index::definition::is_reserved_name;
use crate::keyspace::{Keyspace, KeyspaceState, dropped};
use crate::keyspace_options::{KeyspaceOptions, KeyspaceSettings};
use crate::open::LAST_LEVEL;
use crate::range_spec::KeyRange;
use crate::settings::{Place, RuntimeOptions};
use crate::snapshot::Snapshot;
use crate::stats::KeyspaceStats;
use esker_base::key_bounds::KeyBounds;
use esker_base::limits::MAX_KEYSPACE_NAME_BYTES;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::{JobContext, ShapeOptions};
use esker_manifest::{KeyspaceEdit, VersionEdit};
use esker_sstable::{BLOCK_OVERHEAD_BYTES, TableOptions};
use std::ops::RangeBounds;
use std::sync::Arc;

impl Db {
    /// The keyspace of this name, created if there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty name or one of more than 255 bytes; `Io` and `NoSpace` where a
    /// new one cannot be made durable; `ReadOnly` for a new one in a database that is read-only.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.keyspace_with(name, &KeyspaceOptions::new())
    }

    /// The keyspace of this name, created with these options if there is none. One that exists must
    /// have every option that is given here; [`Keyspace::set_options`] changes them.
    ///
    /// # Errors
    /// As [`Db::keyspace`]; `InvalidArgument` for an option out of its bounds and for one that an
    /// existing keyspace has otherwise.
    ///
    /// ```
    /// use esker::{CompactionShape, KeyspaceOptions};
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// let tiered = KeyspaceOptions::new().compaction_shape(CompactionShape::Tiered);
    /// db.keyspace_with("events", &tiered)?;
    /// assert_eq!(db.keyspace("events")?.options().compaction_shape(), CompactionShape::Tiered);
    /// let leveled = KeyspaceOptions::new().compaction_shape(CompactionShape::Leveled);
    /// assert!(db.keyspace_with("events", &leveled).is_err());
    /// # Ok(()) }
    /// ```
    pub fn keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<Keyspace> {
        let engine = self.engine();
        engine.check_open()?;
        options.check()?;
        let known = engine.keyspaces.read().by_name.get(name).cloned();
        if is_reserved_name(name) {
            let sentence = "keyspace names that begin with NUL \"esker.\" are the engine's own";
            return Err(Error::invalid_argument(sentence));
        }
        let state = match known {
            Some(state) if engine.has_its_indexes(&state) => state,
            None if engine.indexes.of(name).is_empty() => engine.create_keyspace(name, options)?,
            _ => {
                // Its indexes are there before anybody can write to it, also where the disk failed while
                // they were made.
                engine.check_writable()?;
                let mut writer = engine.commit_queue.lock();
                let state = engine.create_keyspace(name, options)?;
                if !engine.has_its_indexes(&state) {
                    engine.attach_indexes(&mut writer, &state, 0)?;
                }
                state
            }
        };
        options.check_agrees(name, &state.settings(&engine.settings))?;
        Ok(Keyspace::new(Arc::clone(self.handle()), state))
    }
}

impl Engine {
    pub(crate) fn create_keyspace(
        self: &Arc<Self>,
        name: &str,
        options: &KeyspaceOptions,
    ) -> Result<Arc<KeyspaceState>> {
        let engine = self;
        if name.is_empty() || name.len() > MAX_KEYSPACE_NAME_BYTES {
            let sentence =
                format!("a keyspace name must have 1 to {MAX_KEYSPACE_NAME_BYTES} bytes");
            return Err(Error::invalid_argument(sentence));
        }
        engine.check_writable()?;
        let mut keyspaces = engine.keyspaces.write();
        if let Some(state) = keyspaces.by_name.get(name) {
            return Ok(Arc::clone(state));
        }
        let id = engine.versions.next_keyspace_id();
        engine.add_keyspace(&mut keyspaces, id, name, options)
    }

    /// The keyspace that had this number in the log that is replayed, unless a later one is there.
    pub(crate) fn recreate_keyspace(
        &self,
        id: KeyspaceId,
        name: &str,
        options: &[u8],
    ) -> Result<()> {
        let mut keyspaces = self.keyspaces.write();
        if id < self.versions.next_keyspace_id() {
            return Ok(());
        }
        let options = KeyspaceOptions::decode(options)?;
        self.add_keyspace(&mut keyspaces, id, name, &options)
            .map(drop)
    }

    fn add_keyspace(
        &self,
        keyspaces: &mut KeyspaceTable,
        id: KeyspaceId,
        name: &str,
        options: &KeyspaceOptions,
    ) -> Result<Arc<KeyspaceState>> {
        let engine = self;
        let create = Some((name.to_string(), options.encode()));
        let edit = KeyspaceEdit {
            id,
            create,
            ..KeyspaceEdit::default()
        };
        engine.versions.log_and_apply(VersionEdit {
            keyspaces: vec![edit.clone()],
            ..VersionEdit::default()
        })?;
        // Before anybody can write to it.
        engine.archive.note_change(edit);
        let version = engine.versions.current(id).unwrap_or_default();
        let first = engine.first_super_version(version);
        let state = KeyspaceState::new(
            id,
            name.to_string(),
            options.clone(),
            first,
            &engine.hooks,
            &engine.idle_cursors,
        );
        keyspaces.insert(&state);
        Ok(state)
    }

    /// Gives a keyspace these options, unless it has them.
    pub(crate) fn set_encoded_options(&self, state: &KeyspaceState, options: &[u8]) -> Result<()> {
        if state.own_options().encode() == options {
            return Ok(());
        }
        let decoded = KeyspaceOptions::decode(options)?;
        let edit = KeyspaceEdit {
            id: state.id,
            set_options: Some(options.to_vec()),
            ..KeyspaceEdit::default()
        };
        self.apply(edit.clone())?;
        state.set_own_options(decoded);
        self.archive.note_change(edit);
        Ok(())
    }
}

impl Db {
    /// The names of all keyspaces, in order.
    ///
    /// # Errors
    /// `Closed` after the database was closed.
    pub fn keyspace_names(&self) -> Result<Vec<String>> {
        self.engine().check_open()?;
        Ok(self
            .engine()
            .keyspaces
            .read()
            .by_name
            .keys()
            .filter(|name| !is_reserved_name(name))
            .cloned()
            .collect())
    }

    /// Drops a keyspace and all that is in it, with as many file operations whatever it holds: the files of
    /// its tables are removed in the background. Handles to it answer `NotFound` to writes from then on.
    ///
    /// # Errors
    /// `NotFound` where there is none of that name; `InvalidArgument` for the default keyspace.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        engine.check_writable()?;
        if name == self.name() {
            return Err(Error::invalid_argument(
                "the default keyspace cannot be dropped",
            ));
        }
        let owner = engine
            .keyspace_named(name)
            .filter(|_| !is_reserved_name(name));
        let owner = owner.ok_or_else(|| no_keyspace(name))?;
        let had_indexes = owner.indexes.any();
        self.forget_indexes(&owner)?;
        self.drop_state(name)?;
        if had_indexes {
            self.drop_unnamed_entries()?;
        }
        Ok(())
    }

    /// Drops a keyspace, whoever's it is.
    pub(crate) fn drop_state(&self, name: &str) -> Result<()> {
        let engine = self.engine();
        let state = engine.keyspaces.read().by_name.get(name).cloned();
        let Some(state) = state else {
            return Err(no_keyspace(name));
        };
        let version = {
            // The commit leader is kept out: no write of the keyspace comes after its end.
            let mut writer = engine.commit_queue.lock();
            engine.ready_log(&mut writer)?;
            if engine.logs_writes() {
                // What was ordered before it must not be lost where the drop is not.
                writer.log.sync(engine)?;
            }
            let _edits_one_at_a_time = state.edit.lock();
            if state.is_dropped() {
                return Err(dropped(name));
            }
            let edit = KeyspaceEdit {
                id: state.id,
                drop: true,
                ..KeyspaceEdit::default()
            };
            let version = engine.versions.current(state.id).unwrap_or_default();
            let logged = engine.versions.log_and_apply(VersionEdit {
                keyspaces: vec![edit.clone()],
                last_sequence: Some(engine.visible_sequence()),
                ..VersionEdit::default()
            });
            if let Err(error) = logged {
                // It may be durable all the same: no write to the keyspace may be acknowledged
                // before a later edit has made sure that it is not.
                engine.health.latch_log_failure(&error);
                return Err(error);
            }
            state.mark_dropped();
            engine.keyspaces.write().remove(&state);
            engine.archive.note_drop(edit, name);
            let next = writer.next_sequence;
            if let Err(error) = writer.log.write_marks(engine, next) {
                // Said again with the next write.
                tracing::warn!(%error, "the log does not say yet that a keyspace was dropped");
            }
            version
        };
        let mut steps: Vec<_> = version
            .runs_newest_first()
            .map(|(_, run)| run.tables.iter().map(|meta| meta.number).collect())
            .collect();
        steps.reverse();
        steps.push(version.values.tables.iter().map(|it| it.number).collect());
        engine.tables.retire_in_steps(steps);
        let empty = Arc::default();
        let old = state.install(|_| engine.first_super_version(empty));
        drop(old);
        engine.remove_unread_soon();
        Ok(())
    }
}

fn no_keyspace(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("no keyspace is called {name:?}"),
    )
}

impl Keyspace {
    /// The options in force: the keyspace's own, and the database's where it has none.
    #[must_use]
    pub fn options(&self) -> KeyspaceSettings {
        self.state().settings(&self.engine().settings)
    }

    /// Gives the keyspace these options, durably; what is not given stays. Tables that are there keep
    /// their form until they are rewritten; a new default time to live is for writes from now on.
    ///
    /// # Errors
    /// `InvalidArgument` for an option out of its bounds; `NotFound` where the keyspace was dropped;
    /// `Io`, `NoSpace`, `ReadOnly` and `Closed` as the names say: nothing has changed then.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// let sessions = db.keyspace("sessions")?;
    /// let hour = Duration::from_secs(3600);
    /// sessions.set_options(&esker::KeyspaceOptions::new().default_ttl(hour))?;
    /// assert_eq!(sessions.options().default_ttl(), Some(hour));
    /// # Ok(()) }
    /// ```
    pub fn set_options(&self, options: &KeyspaceOptions) -> Result<()> {
        let (engine, state) = (self.engine(), self.state());
        engine.check_writable()?;
        let _edits_one_at_a_time = state.edit.lock();
        if state.is_dropped() {
            return Err(dropped(&state.name));
        }
        let next = options.over(&state.own_options());
        next.check()?;
        engine.set_encoded_options(state, &next.encode())?;
        drop(_edits_one_at_a_time);
        engine.schedule_compactions(Some(state.id));
        Ok(())
    }
}

/// What can be done to one keyspace as to all of them.
impl Keyspace {
    /// The keyspace as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let default = Arc::clone(&self.engine().default_keyspace);
        let db = Db::new(Keyspace::new(Arc::clone(self.handle()), default));
        Snapshot::new(&db).of(self)
    }

    /// Brings what the keyspace's memtables hold into tables. Writers go on meanwhile.
    ///
    /// # Errors
    /// As [`Db::flush`].
    pub fn flush(&self) -> Result<()> {
        self.engine().flush_keyspace(self.state())
    }

    /// Flushes, and then merges all of the keyspace's tables down to the last level.
    ///
    /// # Errors
    /// As [`Db::flush`].
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        let everything = KeyBounds::half_open("", "");
        self.engine().compact_keyspace(self.state(), &everything)
    }

    /// As [`Keyspace::compact`], for the tables that overlap `range`.
    ///
    /// # Errors
    /// As [`Db::flush`].
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let range = KeyRange::new(&range);
        if range.is_empty() {
            return self.engine().check_writable();
        }
        self.flush()?;
        let bounds = KeyBounds::half_open(range.start(), range.end());
        self.engine().compact_keyspace(self.state(), &bounds)
    }

    /// What the keyspace holds, from what is known without reading a table.
    #[must_use]
    pub fn keyspace_stats(&self) -> KeyspaceStats {
        KeyspaceStats::of(self.state())
    }
}

impl Engine {
    /// Changes settings: what is persisted becomes durable first.
    pub(crate) fn change_settings(self: &Arc<Self>, options: &RuntimeOptions) -> Result<()> {
        self.check_open()?;
        let interval = self.settings.ttl_cleanup_interval();
        let place = match self.mode {
            Mode::Memory => Place::Memory,
            _ => Place::Disk,
        };
        let settings = self.settings.change(place, options, |before, after| {
            if before.persisted() == after.persisted() {
                return Ok(());
            }
            self.check_writable()?;
            self.versions.log_and_apply(VersionEdit {
                options: Some(after.persisted().encode()),
                ..VersionEdit::default()
            })
        })?;
        self.blocks.set_capacity_bytes(settings.cache_bytes());
        self.jobs
            .tables
            .set_open_files_limit(settings.max_open_files());
        if settings.ttl_cleanup_interval() != interval {
            self.arm_cleanup();
        }
        for state in self.all_keyspaces() {
            self.note_pressure(&state);
            self.schedule_compactions(Some(state.id));
        }
        Ok(())
    }

    /// What a job of this keyspace is given to work with.
    pub(crate) fn jobs_of(&self, keyspace: &KeyspaceState) -> JobContext {
        let settings = keyspace.settings(&self.settings);
        let most = match self.settings.memory_budget_bytes() {
            0 => u64::MAX,
            _ => self.settings.target_file_bytes(),
        };
        JobContext {
            target_file_bytes: settings.target_file_bytes().min(most),
            max_subcompactions: self.settings.max_subcompactions(),
            value_threshold_bytes: Some(settings.value_separation_threshold_bytes())
                .filter(|&bytes| bytes > 0),
            value_garbage_ratio: settings.value_garbage_ratio(),
            table_options: Arc::new(move |level| table_options(&settings, level)),
            ..self.jobs.clone()
        }
    }

    /// The shape that compaction keeps a keyspace in.
    pub(crate) fn shape_of(&self, keyspace: &KeyspaceState) -> ShapeOptions {
        let settings = keyspace.settings(&self.settings);
        let flush_bytes = settings.write_buffer_bytes() as u64;
        ShapeOptions {
            shape: settings.compaction_shape(),
            level0_runs: settings.level0_runs(),
            tier_runs: settings.tier_runs(),
            size_ratio: settings.size_ratio(),
            base_bytes: flush_bytes * settings.level0_runs() as u64,
            target_file_bytes: settings.target_file_bytes(),
            max_levels: LAST_LEVEL + 1,
            recompress_from_level: if settings.compression() == settings.upper_compression() {
                0
            } else {
                LAST_LEVEL
            },
            max_merge_bytes: settings.target_file_bytes().saturating_mul(25),
            value_garbage_ratio: settings.value_garbage_ratio(),
            ..ShapeOptions::default()
        }
    }
}

/// How the tables of a level are written: the last level, which is read most and rewritten least,
/// is compressed; what lies above is soon merged again.
pub(crate) fn table_options(settings: &KeyspaceSettings, level: usize) -> TableOptions {
    TableOptions {
        // With what stands in front of it in memory: a little more than a power of two would take a quarter
        // more of the cache.
        block_bytes: settings.block_bytes() - BLOCK_OVERHEAD_BYTES,
        compression: if level == LAST_LEVEL {
            settings.compression()
        } else {
            settings.upper_compression()
        },
        filter: settings.filter(),
        filter_bits_per_key: settings.filter_bits_per_key(),
        ..TableOptions::default()
    }
}
