//! Flushes and merges over real tables in a file system in memory: nothing lost, nothing left
//! behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use esker_base::clock::ManualClock;
use esker_base::filename::{FileKind, FileNumber};
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::RangeTombstone;
use esker_base::{ErrorKind, SequenceNumber, Trailer, ValueKind};
use esker_manifest::{AddedTable, KeyspaceEdit, RunPlacement};
use esker_sstable::{BlockCache, Compression, FillCache, LevelIter, TableCache, TableOptions};
use esker_vfs::{DeviceError, Fault, FaultFileSystem, FileSystem, MemFileSystem, Random};

use super::*;
use crate::executor::{Executor, ManualExecutor, RayonExecutor};
use crate::flush::flush;
use crate::picker::{PickInput, RangePick, pick, pick_range};
use crate::shape::{CompactionShape, ShapeOptions};
use crate::simulation::apply;
use crate::vec_iter::{Record, VecIter, record};

const DIRECTORY: &str = "/db";

fn context(fs: Arc<dyn FileSystem>, executor: Arc<dyn Executor>, next: u64) -> JobContext {
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
        table_options: Arc::new(table_options),
        target_file_bytes: 3000,
        max_subcompactions: 3,
    }
}

fn files(fs: &dyn FileSystem) -> Vec<FileNumber> {
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
type View = BTreeMap<Vec<u8>, Vec<u8>>;

/// A tree of real tables beside a model of what it holds.
struct Tree {
    context: JobContext,
    shape: ShapeOptions,
    version: Version,
    model: View,
    snapshot: Option<(SequenceNumber, View)>,
    sequence: SequenceNumber,
    parts: usize,
}

impl Tree {
    fn new(context: JobContext, shape: CompactionShape) -> Self {
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

    fn rules(&self) -> RetentionRules {
        let snapshots = self.snapshot.iter().map(|(at, _)| *at).collect();
        RetentionRules {
            snapshots,
            now_millis: 0,
        }
    }

    /// Writes some hundred random records and flushes them.
    fn flush(&mut self, random: &mut Random) {
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
                    value.resize(value.len() + random.below(120) as usize, b'v');
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

    fn apply(&mut self, edit: &KeyspaceEdit) {
        let run = (self.context.new_file_number)();
        self.version = apply(&self.version, edit, run);
        let kept = |number| edit.added.iter().any(|added| added.meta.number == number);
        for number in edit.removed.iter().filter(|number| !kept(**number)) {
            let path = esker_base::filename::table_path(&self.context.directory, *number);
            self.context.fs.remove_file(&path).unwrap();
        }
        self.check();
    }

    fn input<T>(&self, decide: impl FnOnce(&PickInput<'_>) -> T) -> T {
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

    fn perform(&mut self, plan: &Plan) {
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

    fn settle(&mut self) {
        for _ in 0..500 {
            let Some(plan) = self.input(pick) else { return };
            self.perform(&plan);
        }
        panic!("compaction does not come to rest");
    }

    /// Every file is a table of the version and whole, and readers see what the model says.
    fn check(&self) {
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
    fn read_all(&self, visible: SequenceNumber) -> View {
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

fn memory() -> Arc<MemFileSystem> {
    Arc::new(MemFileSystem::new())
}

#[test]
fn trees_of_every_shape_hold_what_was_written() {
    let shapes = [
        CompactionShape::Leveled,
        CompactionShape::Tiered,
        CompactionShape::LazyLeveled,
    ];
    for (seed, shape) in (5..).zip(shapes) {
        let mut random = Random::new(seed);
        let context = context(memory(), Arc::new(ManualExecutor::new(seed)), 1);
        let mut tree = Tree::new(context, shape);
        for round in 0..60 {
            tree.flush(&mut random);
            if round % 3 == 0 {
                tree.settle();
            }
            if round % 10 == 4 {
                tree.snapshot = Some((tree.sequence, tree.model.clone()));
            }
            if round % 10 == 8 {
                tree.snapshot = None;
            }
        }
        tree.snapshot = None;
        tree.settle();
        assert!(tree.parts > 1, "{shape:?}: no merge was cut into parts");
        let before = (tree.context.new_file_number)();
        let all = esker_base::key_bounds::KeyBounds::half_open("", "");
        while let RangePick::Plan(plan) = tree.input(|input| pick_range(input, &all, before)) {
            tree.perform(&plan);
        }
        let live: u64 = tree
            .version
            .tables()
            .map(|(_, _, table)| table.entries)
            .sum();
        assert_eq!(live, tree.model.len() as u64, "{shape:?}");
    }
}

/// Three overlapping runs over `fs`, and the plan that merges them.
fn three_runs(context: &JobContext) -> (Version, Plan) {
    let mut random = Random::new(9);
    let mut tree = Tree::new(context.clone(), CompactionShape::Leveled);
    for _ in 0..3 {
        tree.flush(&mut random);
    }
    let plan = tree.input(pick).expect("level 0 is full");
    assert_eq!(plan.kind, PlanKind::Merge);
    (tree.version, plan)
}

/// What the tables of a job hold, one after the other.
fn records(context: &JobContext, output: &JobOutput) -> Vec<Record> {
    let tables: Arc<[_]> = output
        .tables
        .iter()
        .map(|meta| context.tables.handle(Arc::clone(meta)))
        .collect();
    let mut iter = LevelIter::new(tables, FillCache::No);
    iter.seek_to_first().unwrap();
    let mut records = Vec::new();
    while iter.valid() {
        records.push((
            iter.user_key().to_vec(),
            iter.trailer(),
            iter.value().to_vec(),
        ));
        iter.next().unwrap();
    }
    records
}

#[test]
fn parts_together_are_the_whole() {
    let rules = RetentionRules {
        snapshots: vec![50, 90],
        now_millis: 0,
    };
    let mut results = Vec::new();
    for parts in [1, 2, 5] {
        let executor = Arc::new(RayonExecutor::new(2));
        let context = JobContext {
            max_subcompactions: parts,
            ..context(memory(), executor, 1)
        };
        let (version, plan) = three_runs(&context);
        let output = run(&context, &plan, &version, &rules).unwrap();
        assert!(output.stats.parts <= parts && (parts == 1 || output.stats.parts > 1));
        for pair in output.tables.windows(2) {
            assert!(pair[0].bounds.ends_before(&pair[1].bounds.smallest));
        }
        let tombstones: Vec<_> = output
            .handles
            .iter()
            .map(|handle| handle.table().unwrap().range_tombstones().clone())
            .collect();
        let tombstones: Vec<_> = FragmentedTombstones::merge(&tombstones)
            .iter()
            .map(|(start, end, all)| (start.to_vec(), end.to_vec(), all.to_vec()))
            .collect();
        results.push((
            records(&context, &output),
            tombstones,
            output.stats.retention,
        ));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn whatever_fails_no_output_is_left() {
    let disk = memory();
    let (version, plan) = {
        let executor = Arc::new(ManualExecutor::new(1));
        three_runs(&context(
            Arc::clone(&disk) as Arc<dyn FileSystem>,
            executor,
            1,
        ))
    };
    let before = files(&*disk);
    let rules = RetentionRules::default();
    for fault in [
        Fault::Refuse(DeviceError::NoSpace),
        Fault::Partly(DeviceError::Io, 7),
        Fault::Deny(DeviceError::Io),
    ] {
        let mut failures = 0;
        loop {
            let faulty = Arc::new(FaultFileSystem::new(Arc::new(disk.fork())));
            let executor = Arc::new(ManualExecutor::new(2));
            let context = context(Arc::clone(&faulty) as Arc<dyn FileSystem>, executor, 1000);
            faulty.fail_at(faulty.operations() + failures, fault);
            let result = run(&context, &plan, &version, &rules);
            faulty.clear();
            match result {
                Ok(output) => {
                    assert_eq!(files(&*faulty).len(), before.len() + output.tables.len());
                    break;
                }
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace),
                        "{error}"
                    );
                    assert_eq!(files(&*faulty), before, "operation {failures}");
                }
            }
            failures += 1;
        }
        assert!(failures > 20, "only {failures} operations");
    }
}

#[test]
fn a_failed_flush_leaves_nothing_and_a_good_one_is_one_run() {
    let rules = RetentionRules::default();
    let source = || {
        let keys = (0..100_u32).map(|index| record(&index.to_be_bytes(), 7, ValueKind::Value));
        VecIter::new(keys.collect())
    };
    let cover = RangeTombstone {
        start: vec![],
        end: vec![],
        sequence: 3,
    };
    let mut failures = 0;
    loop {
        let faulty = Arc::new(FaultFileSystem::new(memory()));
        let executor = Arc::new(ManualExecutor::new(2));
        let context = context(Arc::clone(&faulty) as Arc<dyn FileSystem>, executor, 1);
        faulty.fail_at(
            faulty.operations() + failures,
            Fault::Refuse(DeviceError::Io),
        );
        let tombstones = FragmentedTombstones::build([cover.clone()]);
        let result = flush(&context, source(), tombstones, &rules);
        faulty.clear();
        match result {
            Ok(output) => {
                assert!(output.tables.len() > 1, "3000 bytes are the target");
                assert_eq!(output.stats.retention.records_out, 100);
                let range_deletes: u64 = output.tables.iter().map(|t| t.range_tombstones).sum();
                assert_eq!(range_deletes, output.tables.len() as u64, "one share each");
                assert!(output.tables.iter().all(|table| table.created_millis == 77));
                break;
            }
            Err(_) => assert_eq!(files(&*faulty), []),
        }
        failures += 1;
    }
    assert!(failures > 3);
}

#[test]
fn an_empty_flush_makes_no_table_and_tombstones_alone_make_one() {
    let context = context(memory(), Arc::new(ManualExecutor::new(1)), 1);
    let rules = RetentionRules::default();
    let nothing = FragmentedTombstones::default();
    let output = flush(&context, VecIter::new(vec![]), nothing, &rules).unwrap();
    assert!(output.tables.is_empty() && files(&*context.fs).is_empty());
    let alone = RangeTombstone {
        start: b"a".to_vec(),
        end: b"m".to_vec(),
        sequence: 3,
    };
    let alone = FragmentedTombstones::build([alone]);
    let output = flush(&context, VecIter::new(vec![]), alone, &rules).unwrap();
    assert_eq!((output.tables.len(), output.tables[0].entries), (1, 0));
    assert_eq!(output.tables[0].range_tombstones, 1);
}

/// A source that goes wrong in the middle.
struct Bomb {
    records: VecIter,
    left: usize,
}

impl InternalIterator for Bomb {
    fn valid(&self) -> bool {
        self.records.valid()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.records.seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.records.seek_to_last()
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.records.seek(user_key, trailer)
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.records.seek_for_prev(user_key, trailer)
    }
    fn next(&mut self) -> Result<()> {
        self.left = self.left.checked_sub(1).expect("the fuse has burnt down");
        self.records.next()
    }
    fn prev(&mut self) -> Result<()> {
        self.records.prev()
    }
    fn user_key(&self) -> &[u8] {
        self.records.user_key()
    }
    fn trailer(&self) -> Trailer {
        self.records.trailer()
    }
    fn value(&self) -> &[u8] {
        self.records.value()
    }
}

#[test]
fn a_panic_is_an_error_of_the_job_and_leaves_nothing() {
    let context = context(memory(), Arc::new(ManualExecutor::new(1)), 1);
    let keys = (0..200_u32).map(|index| record(&index.to_be_bytes(), 7, ValueKind::Value));
    let source = Bomb {
        records: VecIter::new(keys.collect()),
        left: 150,
    };
    let none = FragmentedTombstones::default();
    let error = flush(&context, source, none, &RetentionRules::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Background);
    assert!(error.message().contains("the fuse has burnt down"));
    assert_eq!(files(&*context.fs), []);
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    let context = context(memory(), Arc::new(ManualExecutor::new(1)), 1);
    let (version, plan) = three_runs(&context);
    let before = files(&*context.fs);
    context.cancelled.store(true, Ordering::Relaxed);
    let error = run(&context, &plan, &version, &RetentionRules::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(files(&*context.fs), before);
}

#[test]
fn a_plan_that_would_break_the_order_of_runs_is_refused() {
    let context = context(memory(), Arc::new(ManualExecutor::new(1)), 1);
    let (version, mut plan) = three_runs(&context);
    assert!(plan.inputs.len() == 3 && plan.check_order(&version).is_ok());
    // Without the oldest run, its records would come to lie above newer ones.
    plan.inputs.pop();
    let error = run(&context, &plan, &version, &RetentionRules::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    plan.kind = PlanKind::TrivialMove;
    assert!(plan.check_order(&version).is_err());
    assert!(run(&context, &plan, &version, &RetentionRules::default()).is_err());
}
