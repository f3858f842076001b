//! Random valid edits, and the naive state that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use esker_manifest::{ChangeCursorEdit, ManifestState, RecoveryPointEdit};

use super::*;

/// Levels of runs of tables, without the runs' numbers.
type Levels = Vec<Vec<Vec<TableMeta>>>;

/// What the manifest should say, in the plainest form.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Naive {
    keyspaces: BTreeMap<u32, (String, Vec<u8>, u64, Levels)>,
    segments: BTreeSet<u64>,
    oldest_segment: u64,
    points: BTreeMap<String, Vec<u8>>,
    cursors: BTreeMap<String, u64>,
    options: Vec<u8>,
    last_sequence: u64,
}

impl Naive {
    pub(crate) fn of(state: &ManifestState) -> Self {
        let keyspaces = state.keyspaces.iter().map(|keyspace| {
            keyspace.version.check_invariants().unwrap();
            let levels = keyspace.version.levels.iter().map(|level| {
                let tables = |run: &Arc<esker_manifest::Run>| {
                    run.tables
                        .iter()
                        .map(|table| TableMeta::clone(table))
                        .collect()
                };
                level.runs.iter().map(tables).collect()
            });
            let meta = &keyspace.meta;
            let what = (
                meta.name.clone(),
                meta.options.clone(),
                meta.flushed_sequence,
                levels.collect(),
            );
            (meta.id, what)
        });
        Self {
            keyspaces: keyspaces.collect(),
            segments: state.segments.clone(),
            oldest_segment: state.oldest_segment,
            points: state.recovery_points.as_ref().clone(),
            cursors: state.change_cursors.as_ref().clone(),
            options: state.options.as_ref().clone(),
            last_sequence: state.last_sequence,
        }
    }

    pub(crate) fn table_numbers(&self) -> BTreeSet<u64> {
        let levels = self.keyspaces.values().flat_map(|(_, _, _, levels)| levels);
        levels
            .flatten()
            .flatten()
            .map(|table| table.number)
            .collect()
    }
}

/// Draws edits. The same seed draws the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    word: u64,
    pub(crate) expected: Naive,
}

impl Workload {
    pub(crate) fn new(seed: u64, set: &VersionSet) -> Self {
        let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            word,
            expected: Naive::of(&set.state()),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.word ^= self.word << 13;
        self.word ^= self.word >> 7;
        self.word ^= self.word << 17;
        (self.word >> 16) as usize % bound
    }

    /// An edit that fits the state of `set`; [`Workload::expected`] is what it leads to.
    pub(crate) fn draw(&mut self, set: &VersionSet) -> VersionEdit {
        let ids: Vec<u32> = self.expected.keyspaces.keys().copied().collect();
        let id = ids[self.below(ids.len())];
        let mut edit = VersionEdit::default();
        match self.below(12) {
            0 => self.create_keyspace(set, &mut edit),
            1 if id != 0 => {
                edit.keyspaces.push(KeyspaceEdit {
                    id,
                    drop: true,
                    ..KeyspaceEdit::default()
                });
                self.expected.keyspaces.remove(&id);
            }
            2 => self.change_segments(set, &mut edit),
            3 => self.change_others(&mut edit),
            4 | 5 => self.merge_level(set, id, &mut edit),
            6 => self.replace_in_run(set, id, &mut edit),
            7 => self.move_run(set, id, &mut edit),
            _ => self.add_run(set, id, &mut edit),
        }
        edit
    }

    fn tables(&mut self, set: &VersionSet, count: usize) -> Vec<TableMeta> {
        let start = self.below(50);
        let tables = (0..count).map(|at| {
            let key = |offset: usize| format!("key{:03}", start + 3 * at + offset);
            table(set.new_file_number(), &key(0), &key(1))
                .as_ref()
                .clone()
        });
        let tables: Vec<TableMeta> = tables.collect();
        let largest = tables
            .iter()
            .map(|table| table.largest_sequence)
            .max()
            .unwrap_or(0);
        self.expected.last_sequence = self.expected.last_sequence.max(largest);
        tables
    }

    fn levels(&mut self, id: u32) -> &mut Levels {
        &mut self.expected.keyspaces.get_mut(&id).unwrap().3
    }

    fn push(edit: &mut VersionEdit, id: u32, removed: Vec<u64>, added: Vec<AddedTable>) {
        edit.keyspaces.push(KeyspaceEdit {
            id,
            removed,
            added,
            ..KeyspaceEdit::default()
        });
    }

    fn added(level: usize, run: RunPlacement, tables: &[TableMeta]) -> Vec<AddedTable> {
        let added = |meta: &TableMeta| AddedTable {
            level,
            run,
            meta: Arc::new(meta.clone()),
        };
        tables.iter().map(added).collect()
    }

    fn add_run(&mut self, set: &VersionSet, id: u32, edit: &mut VersionEdit) {
        let count = 1 + self.below(3);
        let tables = self.tables(set, count);
        Self::push(
            edit,
            id,
            Vec::new(),
            Self::added(0, RunPlacement::New, &tables),
        );
        let sequence = tables.iter().map(|table| table.largest_sequence).max();
        edit.keyspaces[0].flushed_sequence = sequence;
        let keyspace = self.expected.keyspaces.get_mut(&id).unwrap();
        keyspace.2 = keyspace.2.max(sequence.unwrap());
        keyspace.3[0].insert(0, tables);
    }

    /// Everything of a level and the next one becomes one run of the next one.
    fn merge_level(&mut self, set: &VersionSet, id: u32, edit: &mut VersionEdit) {
        let level = self.below(6);
        if self.levels(id).len() <= level {
            return self.add_run(set, id, edit);
        }
        let count = 1 + self.below(4);
        let tables = self.tables(set, count);
        let levels = self.levels(id);
        if levels.len() == level + 1 {
            levels.push(Vec::new());
        }
        let inputs = levels[level].drain(..).flatten();
        let mut removed: Vec<u64> = inputs.map(|table| table.number).collect();
        removed.extend(
            levels[level + 1]
                .drain(..)
                .flatten()
                .map(|table| table.number),
        );
        levels[level + 1].push(tables.clone());
        Self::push(
            edit,
            id,
            removed,
            Self::added(level + 1, RunPlacement::New, &tables),
        );
    }

    /// The tables of one run give way to others in the same run.
    fn replace_in_run(&mut self, set: &VersionSet, id: u32, edit: &mut VersionEdit) {
        let version = set.current(id).unwrap();
        let runs: Vec<_> = version.runs_newest_first().collect();
        if runs.is_empty() {
            return self.add_run(set, id, edit);
        }
        let (level, run) = runs[self.below(runs.len())];
        let position = version.find_run(run.id).unwrap().1;
        let tables = self.tables(set, 2);
        let removed = run.tables.iter().map(|table| table.number).collect();
        Self::push(
            edit,
            id,
            removed,
            Self::added(level, RunPlacement::Existing(run.id), &tables),
        );
        self.levels(id)[level][position] = tables;
    }

    /// The oldest run of a level becomes the newest of the next one, unchanged.
    fn move_run(&mut self, set: &VersionSet, id: u32, edit: &mut VersionEdit) {
        let levels = self.levels(id);
        let level = levels
            .iter()
            .position(|level| !level.is_empty())
            .filter(|level| *level < 6);
        let Some(level) = level else {
            return self.add_run(set, id, edit);
        };
        if levels.len() == level + 1 {
            levels.push(Vec::new());
        }
        let tables = levels[level].pop().unwrap();
        levels[level + 1].insert(0, tables.clone());
        let removed = tables.iter().map(|table| table.number).collect();
        Self::push(
            edit,
            id,
            removed,
            Self::added(level + 1, RunPlacement::New, &tables),
        );
    }

    fn create_keyspace(&mut self, set: &VersionSet, edit: &mut VersionEdit) {
        let id = set.next_keyspace_id();
        let (name, options) = (format!("keyspace {id}"), vec![id as u8; self.below(9)]);
        let create = Some((name.clone(), options.clone()));
        edit.keyspaces.push(KeyspaceEdit {
            id,
            create,
            ..KeyspaceEdit::default()
        });
        self.expected
            .keyspaces
            .insert(id, (name, options, 0, vec![Vec::new()]));
    }

    fn change_segments(&mut self, set: &VersionSet, edit: &mut VersionEdit) {
        let number = set.new_file_number();
        edit.added_segments.push(number);
        self.expected.segments.insert(number);
        if self.below(2) == 0 {
            let oldest = self.expected.segments.iter().next().copied().unwrap();
            edit.removed_segments.push(oldest);
            self.expected.segments.remove(&oldest);
        }
        if self.below(3) == 0 {
            edit.oldest_segment = Some(number);
            self.expected.segments.retain(|&segment| segment >= number);
            self.expected.oldest_segment = number;
        }
    }

    fn change_others(&mut self, edit: &mut VersionEdit) {
        let name = format!("point {}", self.below(3));
        if self.expected.points.remove(&name).is_some() {
            edit.recovery_points
                .push(RecoveryPointEdit::Removed { name });
        } else {
            let bytes = vec![1; self.below(20)];
            self.expected.points.insert(name.clone(), bytes.clone());
            edit.recovery_points
                .push(RecoveryPointEdit::Added { name, bytes });
        }
        let name = format!("cursor {}", self.below(3));
        if self.below(3) == 0 {
            self.expected.cursors.remove(&name);
            edit.change_cursors.push(ChangeCursorEdit::Removed { name });
        } else {
            let acknowledged = self.below(1 << 20) as u64;
            self.expected.cursors.insert(name.clone(), acknowledged);
            edit.change_cursors
                .push(ChangeCursorEdit::Set { name, acknowledged });
        }
        self.expected.options = vec![2; self.below(20)];
        edit.options = Some(self.expected.options.clone());
        let options = vec![3; self.below(20)];
        let set_options = Some(options.clone());
        edit.keyspaces.push(KeyspaceEdit {
            id: 0,
            set_options,
            ..KeyspaceEdit::default()
        });
        self.expected.keyspaces.get_mut(&0).unwrap().1 = options;
    }
}

/// Levels below the last one that has a run do not stand in a version.
pub(crate) fn trimmed(mut naive: Naive) -> Naive {
    for (_, _, _, levels) in naive.keyspaces.values_mut() {
        while levels.len() > 1 && levels.last().is_some_and(Vec::is_empty) {
            levels.pop();
        }
    }
    naive
}
