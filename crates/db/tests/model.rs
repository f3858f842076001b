//! The engine against a sorted map: random operations under limits so small that every flush,
//! split, merge, level and log rotation happens, on both engines and in every shape.
//!
//! "On disk" is the disk engine over a simulated disk, which is fast enough for thousands of syncs.
//!
//! A failing case prints its seed and shrinks; proptest keeps it in `model.proptest-regressions`.

use esker::merge_operators::{Associative, AssociativeMerge};
use esker::vfs::MemFileSystem;
use esker::{
    Clock, CompactionShape, Db, Durability, ManualClock, MemtableKind, Options, Snapshot,
    WriteBatch, WriteOptions,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Keys come from a small universe, so that they are overwritten, deleted and met again.
type Key = u8;

#[derive(Clone, Debug)]
enum Op {
    Put(Key, u16, Durable),
    PutWithTtl(Key, u16, u16),
    Delete(Key),
    DeleteRange(Key, Key),
    Batch(Vec<(Key, Option<u16>)>),
    Merge(Key, u16),
    Mixed(Vec<(Key, Change)>),
    Ingest(Vec<(Key, u16)>),
    Clear,
    Advance(u16),
    Get(Key),
    Ttl(Key),
    MultiGet(Vec<Key>),
    Scan(Key, Key, bool),
    Walk(Vec<Step>),
    BothEnds(Vec<bool>),
    Count,
    Snapshot,
    CheckSnapshot(usize),
    DropSnapshot(usize),
    Flush,
    Compact,
    CompactRange(Key, Key),
    Settle,
    RotateLog,
    ClearLog,
    Reopen,
    Validate,
}

#[derive(Clone, Copy, Debug)]
enum Durable {
    Sync,
    Buffered,
}

/// One operation of a batch of all kinds.
#[derive(Clone, Debug)]
enum Change {
    Put(u16),
    PutWithTtl(u16, u16),
    Merge(u16),
    Delete,
    DeleteUpTo(Key),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => any::<u16>().prop_map(Change::Put),
        2 => (any::<u16>(), 1..500u16).prop_map(|(v, t)| Change::PutWithTtl(v, t)),
        4 => any::<u16>().prop_map(Change::Merge),
        1 => Just(Change::Delete),
        1 => any::<Key>().prop_map(Change::DeleteUpTo),
    ]
}

/// Operands go behind the value.
#[derive(Debug)]
struct Concat;

impl AssociativeMerge for Concat {
    fn name(&self) -> &str {
        "concat"
    }
    fn merge(&self, _key: &[u8], left: &[u8], right: &[u8]) -> esker::Result<Vec<u8>> {
        Ok([left, right].concat())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Seek(Key),
    SeekForPrev(Key),
    First,
    Last,
    Next,
    Prev,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<Key>().prop_map(Step::Seek),
        2 => any::<Key>().prop_map(Step::SeekForPrev),
        1 => Just(Step::First),
        1 => Just(Step::Last),
        6 => Just(Step::Next),
        6 => Just(Step::Prev),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let durable = prop_oneof![Just(Durable::Sync), Just(Durable::Buffered)];
    let entries = prop::collection::vec((any::<Key>(), any::<u16>()), 0..20);
    prop_oneof![
        30 => (any::<Key>(), any::<u16>(), durable).prop_map(|(k, v, d)| Op::Put(k, v, d)),
        5 => (any::<Key>(), any::<u16>(), 1..500u16).prop_map(|(k, v, t)| Op::PutWithTtl(k, v, t)),
        10 => any::<Key>().prop_map(Op::Delete),
        3 => (any::<Key>(), any::<Key>()).prop_map(|(a, b)| Op::DeleteRange(a.min(b), a.max(b))),
        8 => prop::collection::vec((any::<Key>(), any::<Option<u16>>()), 1..30).prop_map(Op::Batch),
        12 => (0..40u8, any::<u16>()).prop_map(|(k, v)| Op::Merge(k, v)),
        6 => prop::collection::vec((0..12u8, change()), 1..12).prop_map(Op::Mixed),
        2 => entries.prop_map(Op::Ingest),
        1 => Just(Op::Clear),
        4 => (1..400u16).prop_map(Op::Advance),
        10 => any::<Key>().prop_map(Op::Get),
        3 => any::<Key>().prop_map(Op::Ttl),
        4 => prop::collection::vec(any::<Key>(), 0..40).prop_map(Op::MultiGet),
        6 => (any::<Key>(), any::<Key>(), any::<bool>()).prop_map(|(a, b, r)| Op::Scan(a, b, r)),
        4 => prop::collection::vec(step(), 1..40).prop_map(Op::Walk),
        2 => prop::collection::vec(any::<bool>(), 1..60).prop_map(Op::BothEnds),
        2 => Just(Op::Count),
        3 => Just(Op::Snapshot),
        4 => any::<usize>().prop_map(Op::CheckSnapshot),
        2 => any::<usize>().prop_map(Op::DropSnapshot),
        5 => Just(Op::Flush),
        1 => Just(Op::Compact),
        2 => (any::<Key>(), any::<Key>()).prop_map(|(a, b)| Op::CompactRange(a.min(b), a.max(b))),
        2 => Just(Op::Settle),
        1 => Just(Op::RotateLog),
        1 => Just(Op::ClearLog),
        2 => Just(Op::Reopen),
        1 => Just(Op::Validate),
    ]
}

/// Keys share a prefix longer than eight bytes for half of the universe.
fn key(key: Key) -> Vec<u8> {
    if key < 128 {
        vec![b'k', key]
    } else {
        format!("shared/prefix/of/keys/{key:03}").into_bytes()
    }
}

/// Values of very different lengths, some of them longer than a block.
fn value(seed: u16) -> Vec<u8> {
    let len = match seed % 16 {
        0 => 0,
        15 => 700,
        other => usize::from(other) * 5,
    };
    (0..len)
        .map(|i| (seed as usize * 31 + i * 7) as u8)
        .collect()
}

type Map = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// What a reader of `map` sees at `now`.
fn visible(map: &Map, now: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let alive = map
        .iter()
        .filter(|(_, (_, expiry))| expiry.is_none_or(|expiry| expiry > now));
    alive
        .map(|(key, (value, _))| (key.clone(), value.clone()))
        .collect()
}

struct Test {
    on_disk: bool,
    options: Options,
    clock: Arc<ManualClock>,
    db: Db,
    map: Map,
    snapshots: Vec<(Snapshot, Map)>,
}

impl Test {
    fn new(on_disk: bool, shape: CompactionShape, memtable: MemtableKind) -> Self {
        let clock = Arc::new(ManualClock::at_millis(1_000_000));
        let options = Options::new()
            .clock(clock.clone())
            .compaction_shape(shape)
            .memtable(memtable)
            .write_buffer_bytes(4 << 10)
            .target_file_bytes(4 << 10)
            .block_bytes(256)
            .level0_runs(2)
            .size_ratio(2)
            .tier_runs(2)
            .wal_size_limit_bytes(64 << 10)
            .wal_segment_bytes(16 << 10)
            .cache_bytes(8 << 10)
            .max_open_files(4)
            .value_separation_threshold_bytes(if on_disk { 6 } else { 0 })
            .value_garbage_ratio(0.2)
            .merge_operator("default", Associative(Concat))
            .file_system(Arc::new(MemFileSystem::new()));
        let db = if on_disk {
            options.clone().open("/model").unwrap()
        } else {
            options.clone().open_in_memory().unwrap()
        };
        Self {
            on_disk,
            options,
            clock,
            db,
            map: Map::new(),
            snapshots: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Put(k, v, durable) => {
                let durability = match durable {
                    Durable::Sync => Durability::Sync,
                    Durable::Buffered => Durability::Buffered,
                };
                let options = WriteOptions::new().durability(durability);
                self.db.put_opt(key(*k), value(*v), &options).unwrap();
                self.map.insert(key(*k), (value(*v), None));
            }
            Op::PutWithTtl(k, v, ttl) => {
                let ttl = u64::from(*ttl);
                self.db
                    .put_with_ttl(key(*k), value(*v), Duration::from_millis(ttl))
                    .unwrap();
                self.map
                    .insert(key(*k), (value(*v), Some(self.now() + ttl)));
            }
            Op::Delete(k) => {
                self.db.delete(key(*k)).unwrap();
                self.map.remove(&key(*k));
            }
            Op::DeleteRange(a, b) => {
                self.db.delete_range(key(*a)..key(*b)).unwrap();
                self.map.retain(|k, _| *k < key(*a) || *k >= key(*b));
            }
            Op::Batch(entries) => self.batch(entries),
            Op::Merge(k, v) => {
                self.db.merge(key(*k), value(*v)).unwrap();
                self.merged(*k, *v);
            }
            Op::Mixed(changes) => self.mixed(changes),
            Op::Ingest(entries) => self.ingest(entries),
            Op::Clear => {
                self.db.clear().unwrap();
                self.map.clear();
            }
            Op::Advance(millis) => self
                .clock
                .advance(Duration::from_millis(u64::from(*millis))),
            Op::Snapshot if self.snapshots.len() < 5 => {
                self.snapshots.push((self.db.snapshot(), self.map.clone()));
            }
            Op::Snapshot => {}
            Op::DropSnapshot(which) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.swap_remove(which % self.snapshots.len());
                }
            }
            Op::Flush => self.db.flush().unwrap(),
            Op::Compact => self.db.compact().unwrap(),
            Op::CompactRange(a, b) => self.db.compact_range(key(*a)..key(*b)).unwrap(),
            Op::Settle => self.db.wait_for_background_work().unwrap(),
            Op::RotateLog if self.on_disk => self.db.wal().rotate().unwrap(),
            Op::ClearLog if self.on_disk => self.db.wal().clear().unwrap(),
            Op::RotateLog | Op::ClearLog => {}
            Op::Reopen => self.reopen(),
            reading => self.read(reading),
        }
    }

    fn batch(&mut self, entries: &[(Key, Option<u16>)]) {
        let mut batch = WriteBatch::new();
        for (k, v) in entries {
            if let Some(v) = v {
                batch.put(key(*k), value(*v));
                self.map.insert(key(*k), (value(*v), None));
            } else {
                batch.delete(key(*k));
                self.map.remove(&key(*k));
            }
        }
        self.db.write(batch).unwrap();
    }

    /// An operand changes the value that lives, and leaves its expiry alone.
    fn merged(&mut self, k: Key, v: u16) {
        let now = self.now();
        let entry = self.map.entry(key(k)).or_default();
        if entry.1.is_some_and(|expiry| expiry <= now) {
            *entry = (Vec::new(), None);
        }
        entry.0.extend(value(v));
    }

    fn mixed(&mut self, changes: &[(Key, Change)]) {
        let mut batch = WriteBatch::new();
        for (k, change) in changes {
            match change {
                Change::Put(v) => {
                    batch.put(key(*k), value(*v));
                    self.map.insert(key(*k), (value(*v), None));
                }
                Change::PutWithTtl(v, ttl) => {
                    let ttl = u64::from(*ttl);
                    batch.put_with_ttl(key(*k), value(*v), Duration::from_millis(ttl));
                    let expiry = Some(self.now() + ttl);
                    self.map.insert(key(*k), (value(*v), expiry));
                }
                Change::Merge(v) => {
                    batch.merge(key(*k), value(*v));
                    self.merged(*k, *v);
                }
                Change::Delete => {
                    batch.delete(key(*k));
                    self.map.remove(&key(*k));
                }
                Change::DeleteUpTo(end) => {
                    let (start, end) = (key(*k.min(end)), key(*k.max(end)));
                    batch.delete_range(start.clone()..end.clone());
                    self.map.retain(|k, _| *k < start || *k >= end);
                }
            }
        }
        self.db.write(batch).unwrap();
    }

    fn ingest(&mut self, entries: &[(Key, u16)]) {
        let sorted: BTreeMap<_, _> = entries.iter().map(|(k, v)| (key(*k), value(*v))).collect();
        assert_eq!(self.db.ingest(&sorted).unwrap(), sorted.len() as u64);
        self.map
            .extend(sorted.into_iter().map(|(k, v)| (k, (v, None))));
    }

    fn reopen(&mut self) {
        if !self.on_disk {
            return;
        }
        self.snapshots.clear();
        self.db.close().unwrap();
        self.db = self.options.clone().open("/model").unwrap();
    }

    fn read(&self, op: &Op) {
        let now = self.now();
        let expected = visible(&self.map, now);
        match op {
            Op::Get(k) => {
                let got = self.db.get(key(*k)).unwrap();
                assert_eq!(got.as_deref(), expected.get(&key(*k)).map(Vec::as_slice));
            }
            Op::Ttl(k) => {
                let expiry = self.map.get(&key(*k)).and_then(|(_, expiry)| *expiry);
                let left = expiry
                    .filter(|expiry| *expiry > now)
                    .map(|expiry| expiry - now);
                assert_eq!(
                    self.db.ttl(key(*k)).unwrap(),
                    left.map(Duration::from_millis)
                );
            }
            Op::MultiGet(keys) => {
                let got = self.db.multi_get(keys.iter().map(|k| key(*k))).unwrap();
                for (k, got) in keys.iter().zip(got) {
                    assert_eq!(got.as_deref(), expected.get(&key(*k)).map(Vec::as_slice));
                }
            }
            Op::Scan(a, b, backwards) => {
                let (a, b) = (key(*a), key(*b));
                let range = self.db.range(a.clone()..b.clone());
                let collect = |entry: esker::Result<(esker::Value, esker::Value)>| {
                    let (key, value) = entry.unwrap();
                    (key.to_vec(), value.to_vec())
                };
                let got: Vec<_> = if *backwards {
                    range.rev().map(collect).collect()
                } else {
                    range.map(collect).collect()
                };
                let inside = |entry: &(&Vec<u8>, &Vec<u8>)| *entry.0 >= a && *entry.0 < b;
                let mut want: Vec<_> = expected
                    .iter()
                    .filter(inside)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect();
                if *backwards {
                    want.reverse();
                }
                assert_eq!(got, want);
            }
            Op::Walk(steps) => self.walk(steps, &expected),
            Op::BothEnds(ends) => self.both_ends(ends, &expected),
            Op::Count => assert_eq!(self.db.count().unwrap(), expected.len() as u64),
            Op::CheckSnapshot(which) => {
                if let Some((snapshot, map)) =
                    self.snapshots.get(which % self.snapshots.len().max(1))
                {
                    let expected = visible(map, now);
                    let got: BTreeMap<_, _> = snapshot
                        .iter()
                        .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
                        .collect();
                    assert_eq!(got, expected);
                    let together = snapshot.multi_get((0..=Key::MAX).map(key)).unwrap();
                    for (k, together) in (0..=Key::MAX).zip(together) {
                        let got = snapshot.get(key(k)).unwrap();
                        assert_eq!(got.as_deref(), expected.get(&key(k)).map(Vec::as_slice));
                        assert_eq!(got, together);
                    }
                }
            }
            Op::Validate => {
                let report = self.db.validate().unwrap();
                assert!(report.is_ok(), "{:?}", report.issues());
            }
            other => unreachable!("{other:?} is not a reading operation"),
        }
    }

    /// A cursor walk, checked at every step; from nowhere it stays nowhere.
    fn walk(&self, steps: &[Step], expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut cursor = self.db.cursor();
        let mut at: Option<Vec<u8>> = None;
        let from = |low: Bound<Vec<u8>>| expected.range((low, Bound::Unbounded)).next();
        let to = |high: Bound<Vec<u8>>| expected.range((Bound::Unbounded, high)).next_back();
        for step in steps {
            let target = match step {
                Step::Seek(k) => {
                    cursor.seek(key(*k)).unwrap();
                    from(Bound::Included(key(*k)))
                }
                Step::SeekForPrev(k) => {
                    cursor.seek_for_prev(key(*k)).unwrap();
                    to(Bound::Included(key(*k)))
                }
                Step::First => {
                    cursor.seek_to_first().unwrap();
                    expected.iter().next()
                }
                Step::Last => {
                    cursor.seek_to_last().unwrap();
                    expected.iter().next_back()
                }
                Step::Next => {
                    cursor.next().unwrap();
                    at.clone().and_then(|at| from(Bound::Excluded(at)))
                }
                Step::Prev => {
                    cursor.prev().unwrap();
                    at.clone().and_then(|at| to(Bound::Excluded(at)))
                }
            };
            let got = cursor.valid().then(|| (cursor.key(), cursor.value()));
            assert_eq!(
                got,
                target.map(|(k, v)| (k.as_slice(), v.as_slice())),
                "after {step:?}"
            );
            at = target.map(|(k, _)| k.clone());
        }
    }

    /// An iterator drawn from both ends yields every entry once.
    fn both_ends(&self, ends: &[bool], expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut entries = self.db.iter();
        let mut model = expected.iter();
        for &front in ends {
            let (got, want) = if front {
                (entries.next(), model.next())
            } else {
                (entries.next_back(), model.next_back())
            };
            let got = got.map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap());
            assert_eq!(got, want.map(|(k, v)| (k.clone(), v.clone())));
        }
    }
}

fn check(on_disk: bool, shape: CompactionShape, memtable: MemtableKind, ops: &[Op]) {
    let mut test = Test::new(on_disk, shape, memtable);
    for op in ops {
        test.run(op);
    }
    for op in [
        Op::Walk(vec![Step::First]),
        Op::Count,
        Op::Compact,
        Op::Count,
        Op::Validate,
    ] {
        test.run(&op);
    }
    test.reopen();
    test.run(&Op::Scan(0, Key::MAX, false));
    test.db.close().unwrap();
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(64);
    ProptestConfig {
        cases,
        max_shrink_time: 20_000,
        ..ProptestConfig::default()
    }
}

macro_rules! models {
    ($($name:ident: $on_disk:expr, $shape:ident, $memtable:ident;)*) => {$(
        proptest! {
            #![proptest_config(config())]
            #[test]
            fn $name(ops in prop::collection::vec(op(), 1..300)) {
                check($on_disk, CompactionShape::$shape, MemtableKind::$memtable, &ops);
            }
        }
    )*};
}

models! {
    disk_leveled: true, Leveled, SkipList;
    disk_tiered: true, Tiered, BTree;
    disk_lazy_leveled: true, LazyLeveled, BTree;
    disk_lazy_leveled_skip_list: true, LazyLeveled, SkipList;
    memory_leveled: false, Leveled, BTree;
    memory_tiered: false, Tiered, SkipList;
    memory_lazy_leveled: false, LazyLeveled, BTree;
}
