//! A tree of real tables beside a model of what it holds, checked after every edit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use esker_base::clock::ManualClock;
use esker_base::filename::{FileKind, FileNumber};
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::table_meta::TableMeta;
use esker_base::{SequenceNumber, Trailer, ValueKind};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement, Version};
use esker_sstable::{BlockCache, Compression, FillCache, LevelIter, TableCache, TableOptions};
use esker_vfs::{FileSystem, MemFileSystem, Random};

use crate::executor::Executor;
use crate::flush::flush;
use crate::job::run;
use crate::job_context::JobContext;
use crate::picker::{PickInput, pick};
use crate::plan::Plan;
use crate::retention::RetentionRules;
use crate::shape::{CompactionShape, ShapeOptions};
use crate::simulation::apply;
use crate::vec_iter::{Record, VecIter};

pub(super) const DIRECTORY: &str = "/db";

pub(super) fn context(
    fs: Arc<dyn FileSystem>,
    executor: Arc<dyn Executor>,
    next: u64,
) -> JobContext {
    let directory = PathBuf::from(DIRECTORY);
    fs.create_dir_all(&directory).unwrap();
    let blocks = BlockCache::new(1 << 20);
    let numbers = AtomicU64::new(next);
    let table_options = |level| TableOptions {
        block_bytes: 256,
        compression: if level > 2 {
            Compression::Lz4
        } else {
            Compression::None
        },
        ..TableOptions::default()
    };
    JobContext {
        tables: TableCache::new(Arc::clone(&fs), directory.clone(), blocks, 100),
        fs,
        directory,
        clock: Arc::new(ManualClock::at_millis(77)),
        executor,
        new_file_number: Arc::new(move || numbers.fetch_add(1, Ordering::Relaxed)),
        cancelled: Arc::new(AtomicBool::new(false)),
        urgent: Arc::new(AtomicBool::new(false)),
        table_options: Arc::new(table_options),
        target_file_bytes: 3000,
        max_subcompactions: 3,
        origin: None,
        value_threshold_bytes: None,
        value_garbage_ratio: 0.5,
        written_bytes: Arc::default(),
        caller_syncs_directory: false,
    }
}

pub(super) fn files(fs: &dyn FileSystem) -> Vec<FileNumber> {
    let entries = fs.read_dir(Path::new(DIRECTORY)).unwrap();
    let mut numbers: Vec<_> = entries
        .iter()
        .map(|entry| match FileKind::parse(&entry.name) {
            Some(FileKind::Table(number)) => number,
            other => panic!("{entry:?} is {other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Keys and values that a reader sees.
pub(super) type View = BTreeMap<Vec<u8>, Vec<u8>>;

/// A tree of real tables beside a model of what it holds.
pub(super) struct Tree {
    pub(super) context: JobContext,
    shape: ShapeOptions,
    pub(super) version: Version,
    pub(super) model: View,
    pub(super) snapshot: Option<(SequenceNumber, View)>,
    pub(super) sequence: SequenceNumber,
    pub(super) parts: usize,
}

impl Tree {
    pub(super) fn new(context: JobContext, shape: CompactionShape) -> Self {
        let shape = ShapeOptions {
            shape,
            level0_runs: 3,
            tier_runs: 3,
            size_ratio: 3,
            base_bytes: 9000,
            target_file_bytes: context.target_file_bytes,
            max_levels: 5,
            max_merge_bytes: 40_000,
            ..ShapeOptions::default()
        };
        let (version, model) = (Version::default(), BTreeMap::new());
        Self {
            context,
            shape,
            version,
            model,
            snapshot: None,
            sequence: 0,
            parts: 0,
        }
    }

    pub(super) fn rules(&self) -> RetentionRules {
        let snapshots = self.snapshot.iter().map(|(at, _)| *at).collect();
        RetentionRules {
            snapshots,
            now_millis: 0,
            ..RetentionRules::default()
        }
    }

    /// Writes some hundred random records and flushes them.
    pub(super) fn flush(&mut self, random: &mut Random) {
        let (mut records, mut tombstones) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            self.sequence += 1;
            let key = format!("key{:04}", random.below(400)).into_bytes();
            match random.below(40) {
                0 => {
                    let end = format!("key{:04}", random.below(400)).into_bytes();
                    self.model
                        .retain(|other, _| !(*other >= key && *other < end));
                    let sequence = self.sequence;
                    tombstones.push(RangeTombstone {
                        start: key,
                        end,
                        sequence,
                    });
                }
                1..8 => {
                    self.model.remove(&key);
                    let trailer = Trailer::new(self.sequence, ValueKind::Tombstone);
                    records.push((key, trailer, Vec::new()));
                }
                _ => {
                    let mut value = format!("{}:", self.sequence).into_bytes();
                    // Some fill a block alone.
                    let most = if random.below(6) == 0 { 900 } else { 120 };
                    value.resize(value.len() + random.below(most) as usize, b'v');
                    self.model.insert(key.clone(), value.clone());
                    records.push((key, Trailer::new(self.sequence, ValueKind::Value), value));
                }
            }
        }
        let tombstones = FragmentedTombstones::build(tombstones);
        let source = VecIter::new(records);
        let output = flush(&self.context, source, tombstones, &self.rules()).unwrap();
        let add = |meta: &Arc<TableMeta>| AddedTable {
            level: 0,
            run: RunPlacement::New,
            meta: Arc::clone(meta),
        };
        let added = output.tables.iter().map(add).collect();
        self.apply(&KeyspaceEdit {
            added,
            ..KeyspaceEdit::default()
        });
    }

    pub(super) fn apply(&mut self, edit: &KeyspaceEdit) {
        let run = (self.context.new_file_number)();
        self.version = apply(&self.version, edit, run);
        let kept = |number| edit.added.iter().any(|added| added.meta.number == number);
        for number in edit.removed.iter().filter(|number| !kept(**number)) {
            let path = esker_base::filename::table_path(&self.context.directory, *number);
            self.context.fs.remove_file(&path).unwrap();
        }
        self.check();
    }

    pub(super) fn input<T>(&self, decide: impl FnOnce(&PickInput<'_>) -> T) -> T {
        let tombstones = |meta: &Arc<TableMeta>| {
            let handle = self.context.tables.handle(Arc::clone(meta));
            Some(handle.table().unwrap().range_tombstones().clone())
        };
        decide(&PickInput {
            version: &self.version,
            shape: &self.shape,
            busy: &std::collections::HashSet::new(),
            now_millis: 0,
            oldest_snapshot: self.snapshot.as_ref().map_or(MAX_SEQUENCE, |(at, _)| *at),
            tombstones: Some(&tombstones),
        })
    }

    pub(super) fn perform(&mut self, plan: &Plan) {
        let edit = match plan.edit_without_job(&self.version) {
            Some(edit) => edit,
            None => {
                let output = run(&self.context, plan, &self.version, &self.rules()).unwrap();
                let stats = &output.stats;
                assert_eq!(stats.bytes_read, plan.input_bytes());
                let written: u64 = output.tables.iter().map(|table| table.file_bytes).sum();
                assert_eq!(stats.bytes_written, written);
                let entries: u64 = output.tables.iter().map(|table| table.entries).sum();
                assert_eq!(stats.retention.records_out, entries);
                self.parts = self.parts.max(stats.parts);
                plan.edit(&self.version, &output.tables)
            }
        };
        self.apply(&edit);
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            let Some(plan) = self.input(pick) else { return };
            self.perform(&plan);
        }
        panic!("compaction does not come to rest");
    }

    /// Every file is a table of the version and whole, and readers see what the model says.
    pub(super) fn check(&self) {
        let mut live: Vec<_> = self
            .version
            .tables()
            .map(|(_, _, table)| table.number)
            .collect();
        live.sort_unstable();
        assert_eq!(files(&*self.context.fs), live);
        for (_, _, meta) in self.version.tables() {
            let handle = self.context.tables.handle(Arc::clone(meta));
            handle
                .table()
                .unwrap()
                .verify_against(meta, &mut |_| true)
                .unwrap();
        }
        assert_eq!(self.read_all(MAX_SEQUENCE), self.model);
        if let Some((at, model)) = &self.snapshot {
            assert_eq!(&self.read_all(*at), model);
        }
    }

    /// Everything a reader at `visible` sees, the newest run first.
    pub(super) fn read_all(&self, visible: SequenceNumber) -> View {
        let mut lists = Vec::new();
        let mut seen: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        for (_, run) in self.version.runs_newest_first() {
            let tables: Arc<[_]> = run
                .tables
                .iter()
                .map(|t| self.context.tables.handle(Arc::clone(t)))
                .collect();
            lists.extend(
                tables
                    .iter()
                    .map(|t| t.table().unwrap().range_tombstones().clone()),
            );
            let mut iter = LevelIter::new(tables, FillCache::Yes);
            iter.seek_to_first().unwrap();
            while iter.valid() {
                let found = (
                    iter.user_key().to_vec(),
                    iter.trailer(),
                    iter.value().to_vec(),
                );
                if iter.trailer().sequence() <= visible {
                    seen.entry(found.0.clone()).or_insert(found);
                }
                iter.next().unwrap();
            }
        }
        let tombstones = FragmentedTombstones::merge(&lists);
        seen.retain(|key, (_, trailer, _)| {
            trailer.kind() == Some(ValueKind::Value)
                && tombstones.covering_sequence(key, visible) <= Some(trailer.sequence())
        });
        seen.into_iter()
            .map(|(key, (_, _, value))| (key, value))
            .collect()
    }
}

pub(super) fn memory() -> Arc<MemFileSystem> {
    Arc::new(MemFileSystem::new())
}
