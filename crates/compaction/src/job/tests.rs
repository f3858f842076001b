//! Flushes and merges over real tables in a file system in memory: nothing lost, nothing left
//! behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_base::iterator::InternalIterator;
use esker_base::range_tombstone::RangeTombstone;
use esker_base::{ErrorKind, Trailer, ValueKind};
use esker_sstable::{BlockKind, BlockLayoutChoice, FillCache, LevelIter, TableIter, TableOptions};
use esker_vfs::{DeviceError, Fault, FaultFileSystem, FileSystem, Random};

use super::*;
use crate::executor::{Executor, Job, Lane, ManualExecutor, RayonExecutor};
use crate::flush::flush;
use crate::picker::{RangePick, pick, pick_range};
use crate::shape::CompactionShape;
use crate::vec_iter::{Record, VecIter, record};

mod tree;

use tree::{Tree, context, files, memory};

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
        while let RangePick::Plan(plan) = tree.input(|input| pick_range(input, &all, before, false))
        {
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
fn large_values_go_on_as_they_are_stored() {
    // A block that was taken over has the layout that it had.
    let table_options = |level| TableOptions {
        block_bytes: 256,
        layout: if level == 0 {
            BlockLayoutChoice::Restart
        } else {
            BlockLayoutChoice::Slot
        },
        ..TableOptions::default()
    };
    let context = JobContext {
        table_options: Arc::new(table_options),
        ..context(memory(), Arc::new(ManualExecutor::new(1)), 1)
    };
    let (version, plan) = three_runs(&context);
    let output = run(&context, &plan, &version, &RetentionRules::default()).unwrap();
    let mut large = 0;
    for (_, trailer, value) in records(&context, &output) {
        let is_large = value.len() >= 256;
        assert_eq!(trailer.sequence() > 0, is_large);
        large += usize::from(is_large);
    }
    assert!(large > 3);
    let summaries = output
        .handles
        .iter()
        .map(|it| it.table()?.block_summaries());
    let summaries: Vec<_> = summaries.collect::<Result<_>>().unwrap();
    let taken_over = summaries.iter().flatten();
    let taken_over = taken_over.filter(|block| block.kind == BlockKind::RestartData);
    assert_eq!(taken_over.count(), large);
}

#[test]
fn parts_together_are_the_whole() {
    let rules = RetentionRules {
        snapshots: vec![50, 90],
        now_millis: 0,
        ..RetentionRules::default()
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
fn what_was_just_written_is_read_from_the_cache() {
    let context = context(memory(), Arc::new(RayonExecutor::new(2)), 1);
    let blocks = Arc::clone(context.tables.blocks());
    blocks.expect_reads();
    let (version, plan) = three_runs(&context);
    let output = run(&context, &plan, &version, &RetentionRules::default()).unwrap();
    let (kept, misses) = (blocks.used_bytes(), blocks.misses());
    assert!(kept > 0);
    for handle in &output.handles {
        let mut iter = TableIter::new(handle, FillCache::Yes).unwrap();
        iter.seek_to_first().unwrap();
        while iter.valid() {
            iter.next().unwrap();
        }
    }
    assert_eq!((blocks.misses(), blocks.used_bytes()), (misses, kept));
    drop(output);
    assert_eq!(blocks.used_bytes(), 0, "their blocks go with the tables");
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

/// Counts how often a job gives way.
#[derive(Debug)]
struct Polite {
    inner: ManualExecutor,
    gave_way: AtomicU64,
}

impl Executor for Polite {
    fn spawn(&self, lane: Lane, job: Job) {
        self.inner.spawn(lane, job);
    }

    fn run_all(&self, parts: Vec<Job>) {
        self.inner.run_all(parts);
    }

    fn join(&self) {
        self.inner.join();
    }

    fn give_way(&self) {
        self.gave_way.fetch_add(1, Ordering::Relaxed);
    }
}

/// The story: a reader waited for four milliseconds, until the system looked, behind the flush or merge that had
/// its processor.
#[test]
fn merges_give_way_and_flushes_do_while_nobody_waits_for_them() {
    let executor = Arc::new(Polite {
        inner: ManualExecutor::new(1),
        gave_way: AtomicU64::new(0),
    });
    let context = context(memory(), executor.clone(), 1);
    let often = || executor.gave_way.swap(0, Ordering::Relaxed);
    let flush_some = || {
        let value = |number: u32| record(&number.to_be_bytes(), 1, ValueKind::Value);
        let source = VecIter::new((0..640).map(value).collect());
        let nothing = FragmentedTombstones::default();
        flush(&context, source, nothing, &RetentionRules::default()).unwrap();
    };
    flush_some();
    assert_eq!(often(), 10);
    context.urgent.store(true, Ordering::Relaxed);
    flush_some();
    assert_eq!(often(), 0);
    let context = self::context(memory(), executor.clone(), 1);
    context.urgent.store(true, Ordering::Relaxed);
    let (version, plan) = three_runs(&context);
    assert_eq!(often(), 0);
    run(&context, &plan, &version, &RetentionRules::default()).unwrap();
    assert!(often() > 0, "who waits for a flush waits for no merge");
}
