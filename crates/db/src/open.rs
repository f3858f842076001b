//! Opening: from a path and options to an engine.
//!
//! Invariants: the directory is locked before anything in it is read; a directory that holds
//! something else is refused and left as it is; opening a cleanly closed database writes nothing.
//! The order: lock, CURRENT, manifest, every table named is there, log replayed, strays removed.

use crate::Db;
use crate::archive::Archive;
use crate::background::Background;
use crate::background_error::Health;
use crate::backup::BackupPlace;
use crate::cleanup::Cleanup;
use crate::commit::CommitQueue;
use crate::cursor::IdleCursors;
use crate::database_directory::{
    check_is_directory, check_may_exist, check_vacant, database_id, io_error, lock, locked,
    not_a_database, prepare_directory, sync_parents,
};
use crate::engine::{Engine, EngineHandle, KeyspaceTable, Mode, RecoveryState};
use crate::file_handles::HandleSaver;
use crate::given_up::GivenUp;
use crate::hooks::RegisteredHooks;
use crate::index::definition::IndexDefinitions;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::keyspace_options::KeyspaceOptions;
use crate::keyspaces;
use crate::log::Log;
use crate::memory_limit::MemoryUse;
use crate::next_segment::NextSegment;
use crate::obsolete_files::LiveTables;
use crate::options::{Options, RecoveryPolicy};
use crate::reader_waits::ReaderWaits;
use crate::recovery::{self, Replayed};
use crate::recovery_point::RecoveryPoints;
use crate::replaced::Replaced;
use crate::salvage;
use crate::segments::SegmentTable;
use crate::settings::{LiveSettings, Settings};
use crate::snapshot::SnapshotList;
use crate::space_reserve::SpaceReserve;
use crate::strays::remove_strays;
use crate::super_version::{SuperVersion, WriteBuffer};
use crate::visible::Visible;
use crate::work_progress::WorkGauge;
use esker_base::clock::{Clock, SteadyClock};
use esker_base::filename::{lock_path, manifest_path, table_path};
use esker_base::own_lines::OwnLines;
use esker_base::sync::{Mutex, RwLock};
use esker_base::{Error, ErrorKind, Result};
use esker_compaction::{Executor, JobContext, RayonExecutor};
use esker_manifest::{ManifestOptions, VersionEdit, VersionSet};
use esker_memtable::{ArenaPool, Memtable};
use esker_sstable::{BlockCache, TableCache};
use esker_vfs::{FileLock, FileSystem, MemFileSystem, OsFileSystem};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The deepest level: where the bulk of the data ends up.
pub(crate) const LAST_LEVEL: usize = 6;

pub(crate) fn on_disk(options: Options, directory: &Path) -> Result<Db> {
    let mut settings = options.settle()?;
    let fs = file_system(&options);
    prepare_directory(&*fs, directory, &settings)?;
    let directory = fs
        .canonicalize(directory)
        .map_err(|e| io_error("resolve", directory, e))?;
    let lock = lock(&*fs, &directory)?;
    let manifest = ManifestOptions {
        rotate_bytes: settings.manifest_bytes(),
    };
    let exists = VersionSet::exists(&*fs, &directory)?;
    let versions = if exists {
        check_may_exist(&settings, &directory)?;
        let versions = VersionSet::recover(fs.clone(), &directory, manifest)?;
        settings = settle_with(&options, &versions, &directory)?;
        versions
    } else {
        check_vacant(&*fs, &directory, &settings)?;
        let id = database_id(&*options.clock, &directory);
        let initial = VersionEdit {
            database_id: Some(id),
            options: Some(settings.persisted().encode()),
            ..VersionEdit::default()
        };
        // First, so that an attempt that fails here is made again by the next open.
        sync_parents(&*fs, &directory)?;
        VersionSet::create(fs.clone(), &directory, manifest, initial)?
    };
    let parts = Parts {
        mode: Mode::Disk,
        settings,
        memory: None,
        fs,
        directory,
        clock: options.clock,
        executor: options.executor,
        backup_directory: options.backup_directory,
        archive_directory: options.archive_directory,
        indexes: options.indexes,
        hooks: options.hooks,
    };
    parts.open(versions, Some(lock), !exists)
}

pub(crate) fn in_memory(options: Options) -> Result<Db> {
    let settings = options.settle_in_memory()?;
    let memory = MemFileSystem::new();
    let fs = HandleSaver::new(Arc::new(memory.clone()));
    let directory = PathBuf::from("/memory");
    fs.create_dir_all(&directory)
        .map_err(|e| io_error("create", &directory, e))?;
    let manifest = ManifestOptions {
        rotate_bytes: settings.manifest_bytes(),
    };
    let initial = VersionEdit {
        options: Some(settings.persisted().encode()),
        ..VersionEdit::default()
    };
    let versions = VersionSet::create(fs.clone(), &directory, manifest, initial)?;
    let parts = Parts {
        mode: Mode::Memory,
        settings,
        memory: Some(memory),
        fs,
        directory,
        clock: options.clock,
        executor: options.executor,
        backup_directory: options.backup_directory,
        archive_directory: options.archive_directory,
        indexes: options.indexes,
        hooks: options.hooks,
    };
    parts.open(versions, None, true)
}

pub(crate) fn read_only(options: Options, directory: &Path) -> Result<Db> {
    let asked = options.settle()?;
    let fs = file_system(&options);
    check_is_directory(&*fs, directory)?;
    let directory = fs
        .canonicalize(directory)
        .map_err(|e| io_error("resolve", directory, e))?;
    if !VersionSet::exists(&*fs, &directory)? {
        return Err(not_a_database(&directory));
    }
    check_may_exist(&asked, &directory)?;
    // A writer would remove files under a reader: it must not have the database open now. Readers do
    // not keep the lock, so that any number of them can read.
    match fs.lock(&lock_path(&directory)) {
        Ok(lock) => drop(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(locked(&directory)),
        // No file can be created or written here: nobody else writes either.
        Err(_) => {}
    }
    let versions = VersionSet::recover_read_only(fs.clone(), &directory)?;
    let settings = settle_with(&options, &versions, &directory)?;
    let parts = Parts {
        mode: Mode::ReadOnly,
        settings,
        memory: None,
        fs,
        directory,
        clock: options.clock,
        executor: options.executor,
        backup_directory: options.backup_directory,
        archive_directory: options.archive_directory,
        indexes: options.indexes,
        hooks: options.hooks,
    };
    parts.open(versions, None, false)
}

/// The options of this open together with what the database persists.
fn settle_with(options: &Options, versions: &VersionSet, directory: &Path) -> Result<Settings> {
    let settled = options.settle_with(&versions.state().options);
    settled.map_err(|error| {
        let damaged = error.kind() == ErrorKind::Corruption;
        let manifest = || manifest_path(directory, versions.manifest_number());
        if damaged {
            error.with_file(&manifest())
        } else {
            error.with_file(directory)
        }
    })
}

pub(crate) fn file_system(options: &Options) -> Arc<HandleSaver> {
    let chosen = options.file_system.clone();
    HandleSaver::new(chosen.unwrap_or_else(|| Arc::new(OsFileSystem::new())))
}

/// What an engine is opened from.
struct Parts {
    mode: Mode,
    settings: Settings,
    /// Where the files of a database in memory are.
    memory: Option<MemFileSystem>,
    fs: Arc<HandleSaver>,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    executor: Option<Arc<dyn Executor>>,
    backup_directory: Option<PathBuf>,
    archive_directory: Option<PathBuf>,
    indexes: IndexDefinitions,
    hooks: RegisteredHooks,
}

impl Parts {
    fn open(
        mut self,
        versions: VersionSet,
        lock: Option<Box<dyn FileLock>>,
        created: bool,
    ) -> Result<Db> {
        let mode = self.mode;
        let versions = Arc::new(versions);
        self.clock = Arc::new(SteadyClock::new(self.clock, latest_millis(&versions)));
        let salvages = self.settings.recovery() == RecoveryPolicy::Salvage;
        let mut losses = Vec::new();
        if mode == Mode::Disk && salvages {
            losses = salvage::leave_out_tables(&*self.fs, &self.directory, &versions)?;
        } else if mode != Mode::Memory {
            check_tables(&*self.fs, &self.directory, &versions)?;
        }
        let mut engine = self.assemble(versions, lock, created)?;
        let mut replayed = Replayed::default();
        if mode != Mode::Memory {
            replayed = recovery::replay(&engine)?;
        }
        let strays = if mode == Mode::Disk {
            engine.remove_unfollowed();
            engine.remove_unfinished_segments();
            remove_strays(&engine)
        } else {
            0
        };
        losses.append(&mut replayed.losses);
        engine.recovery = RecoveryState {
            wal_records_replayed: replayed.batches,
            wal_segments_read: replayed.segments.len() as u64,
            wal_bytes_discarded: u64::from(replayed.torn),
            strays_removed: strays,
            created,
            losses,
        };
        if replayed.unproven && mode == Mode::Disk {
            engine.health.distrust_log();
        }
        *engine.visible = Visible::new(replayed.last_sequence);
        *engine.commit_queue = {
            let next = replayed.last_sequence + 1;
            // What was damaged and given up did happen.
            let all_held = engine.recovery.losses.is_empty();
            let last_held = if all_held {
                replayed.last_held
            } else {
                next - 1
            };
            // Also those that the log has let go of: the archive may have them.
            let last_segment = engine.versions.state().next_file_number.saturating_sub(1);
            engine.segments =
                SegmentTable::new(replayed.segments, last_segment, last_held, next - 1);
            CommitQueue::new(next, Log::new(replayed.tail, next, last_held))
        };
        let engine = Arc::new(engine);
        for state in engine.all_keyspaces() {
            engine.schedule_compactions(Some(state.id));
        }
        let default = Arc::clone(&engine.default_keyspace);
        let closes = true;
        let handle = Arc::new(EngineHandle { engine, closes });
        let db = Db::new(Keyspace::new(handle, default));
        if salvages && mode == Mode::Disk && !db.engine().recovery.losses.is_empty() {
            db.forget_all_indexes()?;
        }
        db.open_indexes()?;
        // Not before: what it removes leaves the indexes too.
        db.engine().arm_cleanup();
        Ok(db)
    }

    fn assemble(
        self,
        versions: Arc<VersionSet>,
        lock: Option<Box<dyn FileLock>>,
        created: bool,
    ) -> Result<Engine> {
        let settings = LiveSettings::new(self.settings);
        let fs: Arc<dyn FileSystem> = self.fs;
        let blocks = BlockCache::new(settings.cache_bytes());
        // Half of what the process may have is left to everything else, whatever the options say.
        let most_handles = fs.open_files_limit().unwrap_or(u64::MAX) / 2;
        let most_handles = usize::try_from(most_handles).unwrap_or(usize::MAX);
        let cache = TableCache::new(
            Arc::clone(&fs),
            self.directory.clone(),
            Arc::clone(&blocks),
            settings.max_open_files().min(most_handles),
        );
        let idle_cursors = Arc::<IdleCursors>::default();
        if let Some(shares) = settings.current().shares() {
            blocks.share(shares.blocks_and_tables, shares.scans);
            cache.set_table_bytes_limit(shares.tables);
        }
        let tables = LiveTables::new(Arc::clone(&fs), self.directory.clone(), Arc::clone(&cache));
        // Nothing is ever repaired there.
        tables.set_wants_room(self.mode == Mode::Memory);
        let arenas = ArenaPool::new(settings.write_buffer_bytes());
        let mut keyspaces = KeyspaceTable::default();
        for meta in versions.keyspaces() {
            let memtable = Memtable::with_pool(settings.memtable(), Arc::clone(&arenas));
            let version = versions.current(meta.id).unwrap_or_default();
            let buffer = WriteBuffer::new(Arc::new(memtable));
            let first = SuperVersion::new(buffer, Vec::new(), version, &tables);
            let options = KeyspaceOptions::decode(&meta.options).map_err(|error| {
                let manifest = manifest_path(&self.directory, versions.manifest_number());
                error.with_file(&manifest)
            })?;
            self.hooks.check_operator(&meta.name, &options)?;
            keyspaces.insert(&KeyspaceState::new(
                meta.id,
                meta.name,
                options,
                first,
                &self.hooks,
                &idle_cursors,
            ));
        }
        let default_keyspace = keyspaces.by_id.get(&0).cloned().ok_or_else(|| {
            Error::corruption("the manifest has no default keyspace").with_file(&self.directory)
        })?;
        let points = RecoveryPoints::of(&versions.state(), &tables);
        let backups = BackupPlace::new(&self.directory, self.backup_directory);
        let archives = self.mode == Mode::Disk && settings.wal_archive();
        let archive = Archive::new(&self.directory, self.archive_directory, archives);
        archive
            .set_followed(self.mode == Mode::Disk && !versions.state().change_cursors.is_empty());
        let background = Background::default();
        let executor = self
            .executor
            .unwrap_or_else(|| Arc::new(RayonExecutor::new(settings.background_threads())));
        let jobs = JobContext {
            fs: Arc::clone(&fs),
            directory: self.directory.clone(),
            tables: cache,
            clock: Arc::clone(&self.clock),
            executor: Arc::clone(&executor),
            new_file_number: {
                let versions = Arc::clone(&versions);
                Arc::new(move || versions.new_file_number())
            },
            cancelled: Arc::clone(&background.cancelled),
            urgent: Arc::clone(&background.flush_is_urgent),
            table_options: {
                let settings = KeyspaceOptions::new().settled(&settings);
                Arc::new(move |level| keyspaces::table_options(&settings, level))
            },
            target_file_bytes: settings.target_file_bytes(),
            max_subcompactions: settings.max_subcompactions(),
            origin: None,
            value_threshold_bytes: None,
            value_garbage_ratio: settings.value_garbage_ratio(),
            written_bytes: Arc::default(),
            caller_syncs_directory: false,
        };
        Ok(Engine {
            mode: self.mode,
            settings,
            fs,
            directory: self.directory,
            clock: self.clock,
            executor,
            versions,
            blocks,
            tables,
            given_up: GivenUp::default(),
            jobs,
            arenas,
            keyspaces: RwLock::new(keyspaces),
            default_keyspace,
            visible: OwnLines(Visible::new(0)),
            snapshots: SnapshotList::default(),
            replaced: Replaced::default(),
            locks: Arc::default(),
            backups,
            work: WorkGauge::default(),
            archive,
            cursor_edit: Mutex::default(),
            points,
            commit_queue: OwnLines(CommitQueue::new(1, Log::default())),
            segments: SegmentTable::default(),
            next_segment: NextSegment::default(),
            reserve: SpaceReserve::default(),
            health: Health::default(),
            background,
            reader_waits: ReaderWaits::default(),
            counters: OwnLines::default(),
            recovery: RecoveryState {
                created,
                ..RecoveryState::default()
            },
            indexes: self.indexes,
            closed: AtomicBool::new(false),
            cleanup: Cleanup::default(),
            memory: MemoryUse::new(self.memory),
            lock: Mutex::new(lock),
            hooks: self.hooks,
            idle_cursors,
        })
    }
}

/// The latest wall time that any earlier life of the database is known to have seen.
fn latest_millis(versions: &VersionSet) -> u64 {
    let state = versions.state();
    let keyspaces = state.keyspaces.iter();
    let created = keyspaces.flat_map(|keyspace| {
        let tables = keyspace.version.tables();
        tables.map(|(_, _, meta)| meta.created_millis).max()
    });
    created.max().unwrap_or(0).max(state.latest_millis)
}

/// A table that the manifest names must be there, with the length it was written with.
fn check_tables(fs: &dyn FileSystem, directory: &Path, versions: &VersionSet) -> Result<()> {
    for keyspace in versions.keyspaces() {
        let version = versions.current(keyspace.id).unwrap_or_default();
        for (_, _, meta) in version.tables() {
            let path = table_path(directory, meta.number);
            let found = fs.metadata(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    Error::corruption("a table that the manifest names is missing").with_file(&path)
                }
                _ => Error::io("look at the table", &path, error),
            })?;
            if found.bytes != meta.file_bytes {
                let sentence = format!(
                    "a table has {} bytes where the manifest says {}",
                    found.bytes, meta.file_bytes
                );
                return Err(Error::corruption(sentence).with_file(&path));
            }
        }
    }
    Ok(())
}
