//! What the shapes cost: random overwriting, counted in records. It holds the promises that
//! `docs/compaction.md` makes about write and space amplification, so that a change of the picker
//! which quietly doubles one of them is seen.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::key_bounds::KeyBounds;
use esker_base::table_meta::TableMeta;
use esker_compaction::{CompactionShape, OutputRun, PickInput, Plan, ShapeOptions, pick};
use esker_manifest::{AddedTable, KeyspaceEdit, Level, Run, RunPlacement, Version};
use esker_vfs::Random;

const RECORD_BYTES: u64 = 100;
const KEYS: u64 = 100_000;
const FLUSH_RECORDS: u64 = 2_000;
const FLUSHES: usize = 400;

/// Tables as sorted sets of keys.
struct Tree {
    options: ShapeOptions,
    version: Version,
    contents: HashMap<u64, Vec<u32>>,
    next_number: u64,
}

/// What a run of the workload cost, as multiples of what was flushed or what is live.
#[derive(Debug)]
struct Cost {
    write: f64,
    space: f64,
    peak_space: f64,
    most_runs: usize,
}

impl Tree {
    fn table(&mut self, keys: Vec<u32>) -> Arc<TableMeta> {
        self.next_number += 1;
        let bounds =
            KeyBounds::inclusive(keys[0].to_be_bytes(), keys[keys.len() - 1].to_be_bytes());
        let meta = TableMeta {
            number: self.next_number,
            file_bytes: RECORD_BYTES * keys.len() as u64,
            bounds,
            smallest_sequence: 1,
            largest_sequence: 1,
            entries: keys.len() as u64,
            ..TableMeta::default()
        };
        self.contents.insert(meta.number, keys);
        Arc::new(meta)
    }

    /// Merges the inputs and cuts the result as the job's output does.
    fn merge(&mut self, plan: &Plan) -> Vec<Arc<TableMeta>> {
        let inputs: BTreeSet<u32> = plan
            .files()
            .flat_map(|number| self.contents[&number].iter().copied())
            .collect();
        let deeper = self
            .version
            .levels
            .iter()
            .enumerate()
            .skip(plan.output_level + 1);
        let single = deeper.into_iter().find(|(_, level)| level.runs.len() == 1);
        let below: Vec<Vec<u8>> = single
            .iter()
            .flat_map(|(_, level)| level.runs[0].tables.iter())
            .map(|table| table.bounds.largest.clone())
            .collect();
        let next = single.is_some_and(|(level, _)| level == plan.output_level + 1);
        let tier = plan.output_run == OutputRun::Newest && next;
        let align = self.options.target_file_bytes / if tier { 16 } else { 2 };
        let (mut tables, mut current, mut passed) = (Vec::new(), Vec::new(), 0);
        for key in inputs {
            let before = passed;
            while passed < below.len() && below[passed][..] < key.to_be_bytes()[..] {
                passed += 1;
            }
            let bytes = current.len() as u64 * RECORD_BYTES;
            let aligned = passed > before && bytes >= align;
            if bytes > 0 && (bytes >= self.options.target_file_bytes || aligned) {
                tables.push(self.table(std::mem::take(&mut current)));
            }
            current.push(key);
        }
        tables.push(self.table(current));
        tables
    }

    fn apply(&mut self, edit: &KeyspaceEdit) {
        self.next_number += 1;
        let new_run = self.next_number;
        let levels = &mut self.version.levels;
        for run in levels.iter_mut().flat_map(|level| &mut level.runs) {
            if run
                .tables
                .iter()
                .any(|table| edit.removed.contains(&table.number))
            {
                let mut tables = run.tables.clone();
                tables.retain(|table| !edit.removed.contains(&table.number));
                *run = Arc::new(Run { id: run.id, tables });
            }
        }
        for added in &edit.added {
            levels.resize(levels.len().max(added.level + 1), Level::default());
            let runs = &mut levels[added.level].runs;
            let id = match added.run {
                RunPlacement::Existing(id) => id,
                _ => new_run,
            };
            let found = runs.iter().position(|run| run.id == id);
            let place = found.unwrap_or_else(|| {
                runs.insert(
                    0,
                    Arc::new(Run {
                        id,
                        tables: Vec::new(),
                    }),
                );
                0
            });
            let tables = &mut Arc::make_mut(&mut runs[place]).tables;
            let at = tables.partition_point(|t| t.bounds.smallest < added.meta.bounds.smallest);
            tables.insert(at, Arc::clone(&added.meta));
        }
        for level in levels {
            level.runs.retain(|run| !run.tables.is_empty());
        }
    }
}

fn cost(shape: CompactionShape) -> Cost {
    let flush_bytes = FLUSH_RECORDS * RECORD_BYTES;
    let options = ShapeOptions {
        shape,
        base_bytes: 4 * flush_bytes,
        target_file_bytes: flush_bytes,
        max_merge_bytes: 25 * flush_bytes,
        ..ShapeOptions::default()
    };
    let (version, contents) = (Version::default(), HashMap::new());
    let mut tree = Tree {
        options,
        version,
        contents,
        next_number: 0,
    };
    let mut random = Random::new(1);
    let mut live = HashSet::new();
    let (mut flushed, mut written, mut peak) = (0, 0, 0.0_f64);
    let (mut space, mut most_runs) = (Vec::new(), 0);
    for round in 0..FLUSHES {
        let keys: BTreeSet<u32> = (0..FLUSH_RECORDS)
            .map(|_| random.below(KEYS) as u32)
            .collect();
        live.extend(keys.iter().copied());
        flushed += keys.len() as u64 * RECORD_BYTES;
        let meta = tree.table(keys.into_iter().collect());
        let added = vec![AddedTable {
            level: 0,
            run: RunPlacement::New,
            meta,
        }];
        tree.apply(&KeyspaceEdit {
            added,
            ..KeyspaceEdit::default()
        });
        let live_bytes = live.len() as f64 * RECORD_BYTES as f64;
        while let Some(plan) = pick(&PickInput {
            version: &tree.version,
            shape: &tree.options,
            busy: &HashSet::new(),
            now_millis: 0,
            oldest_snapshot: MAX_SEQUENCE,
            tombstones: None,
        }) {
            let edit = match plan.edit_without_job(&tree.version) {
                Some(edit) => edit,
                None => {
                    let outputs = tree.merge(&plan);
                    let bytes: u64 = outputs.iter().map(|table| table.file_bytes).sum();
                    written += bytes;
                    let held = tree.version.total_bytes() + bytes;
                    if round > FLUSHES / 2 {
                        peak = peak.max(held as f64 / live_bytes);
                    }
                    plan.edit(&tree.version, &outputs)
                }
            };
            tree.apply(&edit);
        }
        if round > FLUSHES / 2 {
            space.push(tree.version.total_bytes() as f64 / live_bytes);
            most_runs = most_runs.max(tree.version.runs_newest_first().count());
        }
    }
    Cost {
        write: 1.0 + written as f64 / flushed as f64,
        space: space.iter().sum::<f64>() / space.len() as f64,
        peak_space: peak,
        most_runs,
    }
}

#[test]
fn lazy_leveling_writes_less_than_leveling_and_takes_less_space_than_tiering() {
    let leveled = cost(CompactionShape::Leveled);
    let tiered = cost(CompactionShape::Tiered);
    let lazy = cost(CompactionShape::LazyLeveled);
    println!("leveled {leveled:?}\ntiered {tiered:?}\nlazy-leveled {lazy:?}");
    assert!(tiered.write < lazy.write && lazy.write < leveled.write);
    assert!(lazy.space < tiered.space && leveled.space < tiered.space);
    assert!(leveled.write < 8.0 && lazy.write < 6.0 && tiered.write < 4.5);
    assert!(leveled.space < 1.4 && lazy.space < 1.4 && tiered.space < 3.0);
    // Merges into the last level are cut small, so it is never there twice.
    assert!(lazy.peak_space < 1.6 && leveled.peak_space < 1.7);
    for cost in [leveled, tiered, lazy] {
        assert!(cost.most_runs <= 12, "{cost:?}");
    }
}
