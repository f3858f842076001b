//! The disk as it would be found after a crash: made from the log, up to an operation, by a policy.
//!
//! Invariant: an image holds everything that was synced before the crash, and of the rest what the
//! policy lets survive; it holds nothing that was never written, save the garbage of
//! [`UnsyncedData::Garbage`] in the ranges of unsynced writes. Crash sweeps walk over a log with a
//! [`CrashReplay`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::log::{Binding, DataChange, DirectoryId, Effect, Entry, FileId, Log, NameTable, Target};
use super::policy::{ImagePolicy, UnsyncedData, UnsyncedNames};
use crate::mem::{Directory, Inode, MemFileSystem, Node, Space};
use crate::operation::Operation;
use crate::pages::Pages;
use crate::random::Random;

/// What a disk writes whole or not at all, bytes.
const SECTOR_BYTES: u64 = 512;

/// A walk over the log of a simulated disk, which makes images of it.
///
/// Cheapest when the crash points ascend: each step then costs what it changes.
#[derive(Clone, Debug)]
pub struct CrashReplay {
    entries: Vec<Arc<Entry>>,
    start: State,
    position: usize,
    now: State,
}

/// The disk after some entries: what is durable, and what is not yet.
#[derive(Clone, Debug)]
struct State {
    names: NameTable,
    unsynced_names: Vec<UnsyncedChange>,
    files: Vec<FileState>,
}

/// A change of names that is not durable, or those of its bindings that are not.
#[derive(Clone, Debug)]
struct UnsyncedChange {
    index: usize,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    durable: Pages,
    /// What a reader sees.
    cached: Pages,
    /// Changes since, with their place in the log.
    unsynced: Vec<(usize, DataChange)>,
}

impl State {
    fn apply(&mut self, index: usize, effect: &Effect) {
        match effect {
            Effect::Data { file, change } => {
                let file = self.file_mut(*file);
                change.apply(&mut file.cached);
                file.unsynced.push((index, change.clone()));
            }
            Effect::Names(bindings) => {
                self.unsynced_names.push(UnsyncedChange {
                    index,
                    bindings: bindings.clone(),
                });
            }
            Effect::SyncFile {
                file,
                covers,
                range,
            } => self.file_mut(*file).sync(*covers, range.as_ref()),
            Effect::SyncDirectory { directory, covers } => self.sync_names(*directory, *covers),
            Effect::LoseUnsynced { file } => self.file_mut(*file).unsynced.clear(),
        }
    }

    fn file_mut(&mut self, id: FileId) -> &mut FileState {
        if self.files.len() <= id {
            self.files.resize_with(id + 1, FileState::default);
        }
        &mut self.files[id]
    }

    /// A synced directory has its new names and lacks its old ones. What a file moved out of it is
    /// called elsewhere is durable then too: it is never without a name.
    fn sync_names(&mut self, directory: DirectoryId, covers: usize) {
        let mut rest: Vec<UnsyncedChange> = Vec::new();
        for mut change in std::mem::take(&mut self.unsynced_names) {
            let here = |binding: &Binding| binding.directory == directory;
            if change.index >= covers || !change.bindings.iter().any(here) {
                rest.push(change);
                continue;
            }
            let moved_away = change
                .bindings
                .iter()
                .any(|it| here(it) && it.target.is_none());
            for binding in change.bindings.extract_if(.., |it| moved_away || here(it)) {
                self.names.bind(&binding);
                // An older change of the same name must not come after this one.
                for older in &mut rest {
                    older.bindings.retain(|it| {
                        (it.directory, &it.name) != (binding.directory, &binding.name)
                    });
                }
            }
            rest.push(change);
        }
        rest.retain(|change| !change.bindings.is_empty());
        self.unsynced_names = rest;
    }

    /// The names that the policy leaves.
    fn surviving_names(&self, policy: &ImagePolicy) -> NameTable {
        let mut random = Random::of_part(policy.seed, u64::MAX);
        let mut names = self.names.clone();
        let changes = &self.unsynced_names;
        let kept = match policy.names {
            UnsyncedNames::Lost => 0,
            UnsyncedNames::Prefix => random.index(changes.len() + 1),
            UnsyncedNames::Kept | UnsyncedNames::RandomSubset => changes.len(),
        };
        for change in &changes[..kept] {
            let mut bindings = &change.bindings[..];
            if policy.names == UnsyncedNames::RandomSubset {
                // Added names stand before removed ones: leaving out a tail loses no file. Within one
                // directory a rename is whole or not at all.
                let whole = bindings
                    .windows(2)
                    .all(|pair| pair[0].directory == pair[1].directory);
                let choices = if whole { 2 } else { bindings.len() + 1 };
                let choice = random.index(choices);
                bindings = if whole && choice == 1 {
                    bindings
                } else {
                    &bindings[..choice]
                };
            }
            bindings.iter().for_each(|binding| names.bind(binding));
        }
        names
    }

    /// The place in the log at which an orderly disk stopped writing.
    fn torn_at(&self, policy: &ImagePolicy, random: &mut Random) -> Option<usize> {
        if policy.data != UnsyncedData::TornTail {
            return None;
        }
        let unsynced = self.files.iter().flat_map(|file| &file.unsynced);
        let mut places: Vec<usize> = unsynced.map(|(index, _)| *index).collect();
        places.sort_unstable();
        places.get(random.index(places.len() + 1)).copied()
    }

    fn image(&self, policy: &ImagePolicy) -> MemFileSystem {
        let names = self.surviving_names(policy);
        let torn_at = self.torn_at(policy, &mut Random::of_part(policy.seed, u64::MAX - 1));
        MemFileSystem::build(u64::MAX, |space| {
            let contents = |id: FileId| {
                let mut random = Random::of_part(policy.seed, id as u64);
                match self.files.get(id) {
                    Some(file) => file.surviving(policy.data, torn_at, &mut random),
                    None => Pages::default(),
                }
            };
            let mut tree = Tree {
                names: &names,
                space,
                files: HashMap::new(),
                visited: HashSet::new(),
            };
            tree.directory(0, &contents)
        })
    }
}

/// The tree of an image, in the making.
struct Tree<'a> {
    names: &'a NameTable,
    space: &'a Arc<Space>,
    files: HashMap<FileId, Arc<Inode>>,
    /// A directory that was moved may have kept both names; it can only be in one place.
    visited: HashSet<DirectoryId>,
}

impl Tree<'_> {
    fn directory(&mut self, id: DirectoryId, contents: &dyn Fn(FileId) -> Pages) -> Directory {
        self.visited.insert(id);
        let mut directory = Directory::new();
        for (name, target) in self.names.directory(id).into_iter().flatten() {
            let node = match *target {
                Target::Directory(inner) if self.visited.contains(&inner) => continue,
                Target::Directory(inner) => Node::Directory(self.directory(inner, contents)),
                Target::File(file) => {
                    let space = self.space;
                    let inode = self
                        .files
                        .entry(file)
                        .or_insert_with(|| space.inode(contents(file)));
                    Node::File(Arc::clone(inode))
                }
            };
            directory.insert(name.clone(), node);
        }
        directory
    }
}

impl FileState {
    /// Makes durable what the first `covers` entries did: all of it, or the bytes of `range` alone. A
    /// file that was cut has no bytes of its own to wait for: then all of it is.
    fn sync(&mut self, covers: usize, range: Option<&Range<u64>>) {
        let synced = self.unsynced.iter();
        let synced = synced.take_while(|(index, _)| *index < covers).count();
        let rest = self.unsynced.split_off(synced);
        let changes = std::mem::replace(&mut self.unsynced, rest);
        let is_cut = changes
            .iter()
            .any(|(_, change)| matches!(change, DataChange::SetLen(_)));
        let Some(range) = range.filter(|_| !is_cut) else {
            changes
                .iter()
                .for_each(|(_, change)| change.apply(&mut self.durable));
            return;
        };
        let mut left = Vec::new();
        for (index, change) in changes {
            let DataChange::Write { offset, data } = &change else {
                change.apply(&mut self.durable);
                continue;
            };
            let at = |end: u64| end.clamp(*offset, *offset + data.len() as u64);
            let (from, to) = (at(range.start), at(range.end));
            let piece = |from: u64, to: u64| DataChange::Write {
                offset: from,
                data: data[(from - offset) as usize..(to - offset) as usize].into(),
            };
            if from < to {
                piece(from, to).apply(&mut self.durable);
            }
            let (start, end) = (*offset, *offset + data.len() as u64);
            let outside = match from < to {
                true => vec![(start, from), (to, end)],
                false => vec![(start, end)],
            };
            let outside = outside.into_iter().filter(|(from, to)| from < to);
            left.extend(outside.map(|(from, to)| (index, piece(from, to))));
        }
        left.append(&mut self.unsynced);
        self.unsynced = left;
    }

    /// The bytes that survive.
    fn surviving(&self, data: UnsyncedData, torn_at: Option<usize>, random: &mut Random) -> Pages {
        match data {
            UnsyncedData::Lost => self.durable.clone(),
            UnsyncedData::Kept => self.cached.clone(),
            UnsyncedData::TornTail => self.torn(torn_at, random),
            UnsyncedData::RandomSectors | UnsyncedData::Garbage => {
                self.by_sectors(data == UnsyncedData::Garbage, random)
            }
        }
    }

    /// All changes before the place at which the disk stopped, and a part of the write there.
    fn torn(&self, torn_at: Option<usize>, random: &mut Random) -> Pages {
        let mut pages = self.durable.clone();
        for (index, change) in &self.unsynced {
            match (torn_at, change) {
                (Some(torn_at), DataChange::Write { offset, data }) if *index == torn_at => {
                    let kept = random.index(data.len());
                    let kept = DataChange::Write {
                        offset: *offset,
                        data: data[..kept].into(),
                    };
                    kept.apply(&mut pages);
                }
                (Some(torn_at), _) if *index >= torn_at => {}
                _ => change.apply(&mut pages),
            }
        }
        pages
    }

    /// Each sector by itself. A cut is a barrier: file systems order what comes after it.
    fn by_sectors(&self, garbage: bool, random: &mut Random) -> Pages {
        let mut pages = self.durable.clone();
        let epochs = self.epochs();
        let epoch = if garbage {
            epochs.len() - 1
        } else {
            random.index(epochs.len())
        };
        for (_, change) in epochs[..epoch].iter().copied().flatten() {
            change.apply(&mut pages);
        }
        let mut lengths = vec![pages.len()];
        let mut sectors: BTreeMap<u64, Vec<(u64, &[u8])>> = BTreeMap::new();
        for (_, change) in epochs[epoch] {
            match change {
                // A cut is the first change of its epoch; another new length leaves the bytes alone.
                DataChange::SetLen(_) | DataChange::Extend(_) => change.apply(&mut pages),
                DataChange::Write { offset, data } => {
                    for (at, piece) in by_sector(*offset, data) {
                        sectors
                            .entry(at / SECTOR_BYTES)
                            .or_default()
                            .push((at, piece));
                    }
                }
            }
            lengths.push(change.len_after(lengths[lengths.len() - 1]));
        }
        for writes in sectors.values() {
            let kept = if garbage {
                random.index(3)
            } else {
                random.index(writes.len() + 1)
            };
            match kept {
                2 if garbage => fill_with_garbage(&mut pages, writes, random),
                1 if garbage => write_all(&mut pages, writes),
                _ if garbage => {}
                kept => write_all(&mut pages, &writes[..kept]),
            }
        }
        let choice = if garbage {
            lengths.len() - 1
        } else {
            random.index(lengths.len())
        };
        DataChange::SetLen(lengths[choice]).apply(&mut pages);
        pages
    }

    /// The unsynced changes, cut before every one that shortens the file.
    fn epochs(&self) -> Vec<&[(usize, DataChange)]> {
        let (mut epochs, mut begin, mut len) = (Vec::new(), 0, self.durable.len());
        for (position, (_, change)) in self.unsynced.iter().enumerate() {
            let after = change.len_after(len);
            if after < len {
                epochs.push(&self.unsynced[begin..position]);
                begin = position;
            }
            len = after;
        }
        epochs.push(&self.unsynced[begin..]);
        epochs
    }
}

/// A write, cut at the boundaries of sectors.
fn by_sector(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES) as usize;
    let (head, tail) = data.split_at(first.min(data.len()));
    let tail_offset = offset + head.len() as u64;
    let tail = tail
        .chunks(SECTOR_BYTES as usize)
        .zip((tail_offset..).step_by(SECTOR_BYTES as usize));
    std::iter::once((offset, head)).chain(tail.map(|(piece, at)| (at, piece)))
}

fn write_all(pages: &mut Pages, writes: &[(u64, &[u8])]) {
    for (offset, data) in writes {
        // As in `DataChange::apply`: the live file system has taken these bytes.
        let written = pages.write_at(*offset, data);
        debug_assert!(written.is_ok());
    }
}

fn fill_with_garbage(pages: &mut Pages, writes: &[(u64, &[u8])], random: &mut Random) {
    for (offset, data) in writes {
        let mut bytes = vec![0; data.len()];
        random.fill(&mut bytes);
        write_all(pages, &[(*offset, &bytes)]);
    }
}

impl CrashReplay {
    pub(super) fn new(log: &Log) -> Self {
        let files = log.start_files.iter().map(|pages| FileState {
            durable: pages.clone(),
            cached: pages.clone(),
            unsynced: Vec::new(),
        });
        let start = State {
            names: log.start_names.clone(),
            unsynced_names: Vec::new(),
            files: files.collect(),
        };
        Self {
            entries: log.entries.clone(),
            now: start.clone(),
            start,
            position: 0,
        }
    }

    /// Operations in the log: there are as many crash points, and one more.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.entries.len()
    }

    /// The operation with this number.
    #[must_use]
    pub fn operation(&self, index: usize) -> Option<&Operation> {
        Some(&self.entries.get(index)?.operation)
    }

    /// The disk after the first `operations` operations and a crash, by `policy`. It is a file system
    /// of its own, on which all is durable.
    #[must_use]
    pub fn image(&mut self, operations: usize, policy: &ImagePolicy) -> MemFileSystem {
        if operations < self.position {
            self.now = self.start.clone();
            self.position = 0;
        }
        while self.position < operations
            && let Some(entry) = self.entries.get(self.position)
        {
            self.now.apply(self.position, &entry.effect);
            self.position += 1;
        }
        self.now.image(policy)
    }
}
