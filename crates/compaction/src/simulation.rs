//! A tree without files: versions whose tables lie in memory, compacted by the real picker and the
//! real retention, and read by the rules that the database reads by.
//!
//! It holds what no single plan shows: that readers go on seeing the same whatever is merged,
//! moved or dropped, in whatever order plans that run at the same time end, and that compaction
//! comes to rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::internal_key::{MAX_SEQUENCE, Trailer};
use esker_base::key_bounds::KeyBounds;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use esker_base::table_meta::TableMeta;
use esker_base::{SequenceNumber, ValueKind};
use esker_manifest::{AddedTable, KeyspaceEdit, Level, Run, RunPlacement, Version};

use crate::older_tables::OlderTables;
use crate::picker::{MemtableSize, PickInput, RangePick, Relief, pick, pick_for_reads, pick_range};
use crate::plan::{Plan, PlanKind};
use crate::retention::{Expiry, JobTombstones, Retention, RetentionRules};
use crate::shape::{CompactionShape, ShapeOptions};
use crate::vec_iter::{Record, VecIter, sort};

/// Bytes that a record counts for; keys and values are tiny.
const RECORD_BYTES: u64 = 100;

#[derive(Debug, Default)]
struct Contents {
    records: Vec<Record>,
    tombstones: FragmentedTombstones,
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Put(u8),
    /// With an expiry.
    PutExpiring(u8, u64),
    Delete(u8),
    /// From the first key to before the second.
    DeleteRange(u8, u8),
}

/// What a reader sees: the sequence number of the write that each key has its value from.
type View = BTreeMap<u8, (SequenceNumber, u64)>;

pub(crate) struct Simulation {
    pub(crate) options: ShapeOptions,
    pub(crate) version: Arc<Version>,
    contents: HashMap<FileNumber, Contents>,
    running: Vec<(Plan, Arc<Version>, RetentionRules)>,
    view: View,
    snapshot: Option<(SequenceNumber, View)>,
    sequence: SequenceNumber,
    next_number: FileNumber,
    pub(crate) now_millis: u64,
    /// Whether the picker is shown the range tombstones.
    pub(crate) shows_tombstones: bool,
    reshaping: bool,
}

impl Simulation {
    pub(crate) fn new(options: ShapeOptions) -> Self {
        Self {
            options,
            version: Arc::default(),
            contents: HashMap::new(),
            running: Vec::new(),
            view: View::new(),
            snapshot: None,
            sequence: 0,
            next_number: 1,
            now_millis: 0,
            shows_tombstones: true,
            reshaping: false,
        }
    }

    fn new_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Performs writes and flushes them as one run of level 0.
    pub(crate) fn flush(&mut self, writes: &[Write]) {
        let mut records = Vec::new();
        let mut tombstones = Vec::new();
        for write in writes {
            self.sequence += 1;
            let sequence = self.sequence;
            match *write {
                Write::Put(key) => {
                    self.view.insert(key, (sequence, 0));
                    let value = sequence.to_le_bytes().to_vec();
                    records.push((vec![key], Trailer::new(sequence, ValueKind::Value), value));
                }
                Write::PutExpiring(key, expiry) => {
                    self.view.insert(key, (sequence, expiry));
                    let value = [expiry.to_le_bytes(), sequence.to_le_bytes()].concat();
                    let trailer = Trailer::new(sequence, ValueKind::ValueWithExpiry);
                    records.push((vec![key], trailer, value));
                }
                Write::Delete(key) => {
                    self.view.remove(&key);
                    let trailer = Trailer::new(sequence, ValueKind::Tombstone);
                    records.push((vec![key], trailer, Vec::new()));
                }
                Write::DeleteRange(start, end) => {
                    self.view.retain(|key, _| !(start..end).contains(key));
                    let (start, end) = (vec![start], vec![end]);
                    tombstones.push(RangeTombstone {
                        start,
                        end,
                        sequence,
                    });
                }
            }
        }
        let tombstones = FragmentedTombstones::build(tombstones);
        let outputs = self.write_tables(records, &tombstones);
        let add = |meta: Arc<TableMeta>| AddedTable {
            level: 0,
            run: RunPlacement::New,
            meta,
        };
        let added = outputs.into_iter().map(add).collect();
        self.apply(&KeyspaceEdit {
            added,
            ..KeyspaceEdit::default()
        });
    }

    /// Takes a snapshot of the newest state, or gives it up.
    pub(crate) fn toggle_snapshot(&mut self) {
        self.snapshot = match self.snapshot.take() {
            None => Some((self.sequence, self.view.clone())),
            Some(_) => None,
        };
    }

    fn busy(&self) -> HashSet<FileNumber> {
        self.running
            .iter()
            .flat_map(|(plan, ..)| plan.files())
            .collect()
    }

    fn with_input<T>(&self, decide: impl FnOnce(&PickInput<'_>) -> T) -> T {
        let busy = self.busy();
        let source = |table: &Arc<TableMeta>| Some(self.contents[&table.number].tombstones.clone());
        decide(&PickInput {
            version: &self.version,
            shape: &self.options,
            busy: &busy,
            now_millis: self.now_millis,
            oldest_snapshot: self.snapshot.as_ref().map_or(MAX_SEQUENCE, |(at, _)| *at),
            tombstones: if self.shows_tombstones {
                Some(&source)
            } else {
                None
            },
        })
    }

    /// Starts what the picker finds due; `false` where nothing is.
    pub(crate) fn start(&mut self) -> bool {
        let plan = self.with_input(pick);
        plan.is_some_and(|plan| self.start_plan(plan))
    }

    /// Starts what the runs' readers have earned, having lost all there is to lose; `false` where nothing
    /// would lessen the runs.
    pub(crate) fn start_for_reads(&mut self) -> bool {
        let all = u64::MAX;
        match self.with_input(|input| pick_for_reads(input, MemtableSize::default(), all)) {
            Relief::Merge(plan) => self.start_plan(plan),
            _ => false,
        }
    }

    fn start_plan(&mut self, plan: Plan) -> bool {
        let busy = self.busy();
        assert!(
            plan.files().all(|number| !busy.contains(&number)),
            "busy tables in {plan:?}"
        );
        assert!(plan.tables().count() > 0, "an empty plan");
        plan.check_order(&self.version).unwrap();
        let snapshots = self.snapshot.iter().map(|(at, _)| *at).collect();
        let rules = RetentionRules {
            snapshots,
            now_millis: self.now_millis,
            ..RetentionRules::default()
        };
        self.running.push((plan, Arc::clone(&self.version), rules));
        true
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Ends one of the running plans: merges, and applies the edit.
    pub(crate) fn finish(&mut self, index: usize) {
        let (plan, version, rules) = self.running.remove(index);
        let edit = match plan.kind {
            PlanKind::Merge => {
                let outputs = self.merge(&plan, &version, &rules);
                plan.edit(&self.version, &outputs)
            }
            _ => plan.edit_without_job(&self.version).unwrap(),
        };
        self.apply(&edit);
    }

    fn merge(
        &mut self,
        plan: &Plan,
        version: &Version,
        rules: &RetentionRules,
    ) -> Vec<Arc<TableMeta>> {
        let inputs: Vec<&Contents> = plan.files().map(|number| &self.contents[&number]).collect();
        let records: Vec<Record> = inputs
            .iter()
            .flat_map(|table| table.records.clone())
            .collect();
        let all = FragmentedTombstones::merge(inputs.iter().map(|table| &table.tombstones));
        let older = OlderTables::below(plan, version);
        let kept = rules.retain_tombstones(&all, &older);
        let job = JobTombstones { all, kept };
        let filter = Expiry {
            now_millis: rules.now_millis,
        };
        let source = VecIter::new(records);
        let mut retention = Retention::new(source, &[], rules, &job, older, filter);
        let mut out = Vec::new();
        while retention.advance().unwrap() {
            let (key, value) = (retention.user_key().to_vec(), retention.value().to_vec());
            out.push((key, retention.trailer(), value));
        }
        self.write_tables(out, &job.kept)
    }

    /// Cuts records into tables as the output does: between keys, tombstones along with them.
    fn write_tables(
        &mut self,
        mut records: Vec<Record>,
        tombstones: &FragmentedTombstones,
    ) -> Vec<Arc<TableMeta>> {
        sort(&mut records);
        let per_table = (self.options.target_file_bytes / RECORD_BYTES).max(1) as usize;
        let mut tables = Vec::new();
        let mut start = Vec::new();
        while !records.is_empty() {
            let mut at = per_table.min(records.len());
            while at < records.len() && records[at].0 == records[at - 1].0 {
                at += 1;
            }
            let rest = records.split_off(at);
            let end = rest
                .first()
                .map(|(key, ..)| key.clone())
                .unwrap_or_default();
            let clipped = tombstones.clipped(&start, &end);
            tables.push(self.write_table(records, clipped));
            (records, start) = (rest, end);
        }
        if tables.is_empty() && !tombstones.is_empty() {
            tables.push(self.write_table(Vec::new(), tombstones.clone()));
        }
        tables
    }

    fn write_table(
        &mut self,
        records: Vec<Record>,
        tombstones: FragmentedTombstones,
    ) -> Arc<TableMeta> {
        let points = records.first().zip(records.last());
        let points = points.map(|(a, b)| KeyBounds::inclusive(a.0.clone(), b.0.clone()));
        let bounds = match (points, tombstones.bounds()) {
            (Some(mut points), Some(ranges)) => {
                points.extend(&ranges);
                points
            }
            (points, ranges) => points.or(ranges).unwrap(),
        };
        let of_kind = |kind| {
            records
                .iter()
                .filter(move |(_, t, _)| t.kind() == Some(kind))
        };
        let sequences = || {
            let ranges = tombstones
                .oldest_sequence()
                .into_iter()
                .chain(tombstones.newest_sequence());
            records
                .iter()
                .map(|(_, trailer, _)| trailer.sequence())
                .chain(ranges)
        };
        let expiries = || {
            of_kind(ValueKind::ValueWithExpiry)
                .map(|(_, _, value)| u64::from_le_bytes(*value.first_chunk::<8>().unwrap()))
        };
        let meta = Arc::new(TableMeta {
            number: self.new_number(),
            file_bytes: RECORD_BYTES * (records.len() as u64).max(1),
            bounds,
            smallest_sequence: sequences().min().unwrap(),
            largest_sequence: sequences().max().unwrap(),
            entries: records.len() as u64,
            tombstones: of_kind(ValueKind::Tombstone).count() as u64,
            range_tombstones: tombstones.tombstone_count(),
            expiring_entries: expiries().count() as u64,
            earliest_expiry_millis: expiries().min().unwrap_or(0),
            latest_expiry_millis: expiries().max().unwrap_or(0),
            ..TableMeta::default()
        });
        self.contents.insert(
            meta.number,
            Contents {
                records,
                tombstones,
            },
        );
        meta
    }

    fn apply(&mut self, edit: &KeyspaceEdit) {
        let new_run = self.new_number();
        self.version = Arc::new(apply(&self.version, edit, new_run));
        if !self.reshaping {
            self.check_shape();
        }
        self.check_views();
    }

    /// Goes on with other options: versions made by the old ones may break the new shape.
    pub(crate) fn reshape(&mut self, options: ShapeOptions) {
        self.options = options;
        self.reshaping = true;
    }

    pub(crate) fn check_shape(&self) {
        let last = self.options.max_levels - 1;
        for (level, runs) in self.version.levels.iter().enumerate() {
            let sorted = match self.options.shape {
                CompactionShape::Leveled => level > 0,
                CompactionShape::Tiered => false,
                CompactionShape::LazyLeveled => level == last,
            };
            assert!(
                !sorted || runs.runs.len() <= 1,
                "level {level} of {:?}",
                self.version
            );
        }
    }

    pub(crate) fn check_views(&self) {
        self.check_view(MAX_SEQUENCE, &self.view);
        if let Some((at, view)) = &self.snapshot {
            self.check_view(*at, view);
        }
    }

    fn check_view(&self, visible: SequenceNumber, view: &View) {
        for key in 0..=u8::MAX {
            let expected = view
                .get(&key)
                .filter(|(_, expiry)| *expiry == 0 || *expiry > self.now_millis)
                .map(|(sequence, _)| *sequence);
            assert_eq!(self.read(key, visible), expected, "key {key} at {visible}");
        }
    }

    /// Reads as the database does: the first run with the key has its newest record.
    fn read(&self, key: u8, visible: SequenceNumber) -> Option<SequenceNumber> {
        let tables = || {
            self.version
                .tables()
                .map(|(_, _, meta)| &self.contents[&meta.number])
        };
        let covering = tables()
            .filter_map(|t| t.tombstones.covering_sequence(&[key], visible))
            .max();
        let seen =
            |(other, trailer, _): &&Record| other[..] == [key] && trailer.sequence() <= visible;
        let (_, trailer, value) = tables().find_map(|table| table.records.iter().find(seen))?;
        if covering > Some(trailer.sequence()) {
            return None;
        }
        let written = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap());
        match trailer.kind()? {
            ValueKind::Value => Some(written(value)),
            ValueKind::ValueWithExpiry => {
                (written(value) > self.now_millis).then(|| written(&value[8..]))
            }
            _ => None,
        }
    }

    /// Ends everything that runs and picks until nothing is due.
    pub(crate) fn settle(&mut self) {
        while !self.running.is_empty() {
            self.finish(0);
        }
        for _ in 0..5_000 {
            if !self.start() {
                return;
            }
            self.finish(0);
        }
        panic!("compaction does not come to rest: {:?}", self.version);
    }

    /// Compacts a range on request until it is done.
    pub(crate) fn compact(&mut self, bounds: &KeyBounds) {
        let before = self.next_number;
        for _ in 0..5_000 {
            match self.with_input(|input| pick_range(input, bounds, before, false)) {
                RangePick::Done => return,
                RangePick::Busy => self.finish(0),
                RangePick::Plan(plan) => {
                    self.start_plan(plan);
                    if self.running.len() > 2 {
                        self.finish(1);
                    }
                }
            }
            if self.running.len() == 1 && before.is_multiple_of(2) {
                self.finish(0);
            }
        }
        panic!("a requested compaction does not end: {:?}", self.version);
    }
}

/// Applies an edit as the version set does; a new run gets the id `new_run`.
pub(crate) fn apply(version: &Version, edit: &KeyspaceEdit, new_run: u64) -> Version {
    let mut version = version.clone();
    for level in &mut version.levels {
        for run in &mut level.runs {
            let stays = |t: &&Arc<TableMeta>| !edit.removed.contains(&t.number);
            let tables = run.tables.iter().filter(stays).cloned().collect();
            *run = Arc::new(Run { id: run.id, tables });
        }
    }
    for added in &edit.added {
        if version.levels.len() <= added.level {
            version.levels.resize(added.level + 1, Level::default());
        }
        let runs = &mut version.levels[added.level].runs;
        let id = match added.run {
            RunPlacement::Existing(id) => id,
            _ => new_run,
        };
        if id == new_run && runs.iter().all(|run| run.id != id) {
            runs.insert(
                0,
                Arc::new(Run {
                    id,
                    tables: Vec::new(),
                }),
            );
        }
        let run = runs
            .iter_mut()
            .find(|run| run.id == id)
            .expect("the run is still there");
        let run = Arc::make_mut(run);
        run.tables.push(Arc::clone(&added.meta));
        run.tables
            .sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
    }
    for level in &mut version.levels {
        level.runs.retain(|run| !run.tables.is_empty());
    }
    version.check_invariants().unwrap();
    version
}
