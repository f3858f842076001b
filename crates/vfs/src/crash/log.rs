//! The log of what happened to a simulated disk: every change, with its data, and every sync.
//!
//! Invariant: the log alone, from the state that it starts with, tells all that was ever on the disk.
//! Files and directories go by numbers, so that no rename confuses them. Written by
//! [`CrashFileSystem`](crate::CrashFileSystem), read by [`disk`](super::disk).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::mem::{Directory, Inode, Node, names};
use crate::operation::Operation;
use crate::pages::Pages;

/// The number of a file, whatever its names are: an index of all files that there ever were.
pub(super) type FileId = usize;
/// The number of a directory, likewise; the root is 0.
pub(super) type DirectoryId = usize;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(FileId),
    Directory(DirectoryId),
}

/// From now on this name stands for that, or for nothing.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) directory: DirectoryId,
    pub(super) name: String,
    pub(super) target: Option<Target>,
}

/// A change of a file.
#[derive(Clone, Debug)]
pub(super) enum DataChange {
    Write {
        offset: u64,
        data: Arc<[u8]>,
    },
    /// The length is at least this.
    Extend(u64),
    SetLen(u64),
}

impl DataChange {
    /// The length of a file of `len` bytes after the change. A write of nothing extends nothing.
    pub(super) fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { data, .. } if data.is_empty() => len,
            Self::Write { offset, data } => len.max(offset + data.len() as u64),
            Self::Extend(bytes) => len.max(*bytes),
            Self::SetLen(bytes) => *bytes,
        }
    }

    /// Applies the change to bytes that were large enough for it before.
    pub(super) fn apply(&self, pages: &mut Pages) {
        // The live file system has taken the same change, so it is within every limit.
        let applied = match self {
            Self::Write { offset, data } => pages.write_at(*offset, data),
            Self::Extend(bytes) => pages.set_len(pages.len().max(*bytes)),
            Self::SetLen(bytes) => pages.set_len(*bytes),
        };
        debug_assert!(applied.is_ok());
    }
}

/// What an operation did.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Data {
        file: FileId,
        change: DataChange,
    },
    /// One change of names: the added one first, the removed one last.
    Names(Vec<Binding>),
    /// Of what the first `covers` entries did to the file, everything is durable, or only the bytes of
    /// `range` and the length that they need.
    SyncFile {
        file: FileId,
        covers: usize,
        range: Option<Range<u64>>,
    },
    SyncDirectory {
        directory: DirectoryId,
        covers: usize,
    },
    /// A sync failed: what it should have made durable will never be.
    LoseUnsynced {
        file: FileId,
    },
}

/// One entry: what was asked, for people, and what it did.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    pub(super) effect: Effect,
}

/// Directories by number, and what their names stand for.
#[derive(Clone, Debug)]
pub(super) struct NameTable {
    directories: Vec<BTreeMap<String, Target>>,
}

impl NameTable {
    pub(super) fn directory(&self, id: DirectoryId) -> Option<&BTreeMap<String, Target>> {
        self.directories.get(id)
    }

    pub(super) fn bind(&mut self, binding: &Binding) {
        if self.directories.len() <= binding.directory {
            self.directories
                .resize(binding.directory + 1, BTreeMap::new());
        }
        let directory = &mut self.directories[binding.directory];
        match binding.target {
            Some(target) => directory.insert(binding.name.clone(), target),
            None => directory.remove(&binding.name),
        };
    }

    fn resolve(&self, names: &[&str]) -> Option<Target> {
        names
            .iter()
            .try_fold(Target::Directory(0), |at, name| match at {
                Target::Directory(id) => self.directories.get(id)?.get(*name).copied(),
                Target::File(_) => None,
            })
    }
}

/// The state at the start, the names now, and the entries in between.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) start_names: NameTable,
    pub(super) start_files: Vec<Pages>,
    pub(super) entries: Vec<Arc<Entry>>,
    names: NameTable,
    files: usize,
}

impl Log {
    /// An empty log that starts with the tree below `root`, all of it durable.
    pub(super) fn new(root: &Directory) -> Self {
        let mut start = Start {
            names: NameTable {
                directories: vec![BTreeMap::new()],
            },
            files: Vec::new(),
            links: HashMap::new(),
        };
        start.add(0, root);
        Self {
            names: start.names.clone(),
            start_names: start.names,
            files: start.files.len(),
            start_files: start.files,
            entries: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, operation: Operation, effect: Effect) {
        self.entries.push(Arc::new(Entry { operation, effect }));
    }

    /// What `path` stands for now.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<Option<Target>> {
        Ok(self.names.resolve(&names(path)?))
    }

    /// The number of the file at `path`.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub(super) fn file(&self, path: &Path) -> io::Result<FileId> {
        match self.resolve(path)? {
            Some(Target::File(id)) => Ok(id),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn new_file(&mut self) -> Target {
        self.files += 1;
        Target::File(self.files - 1)
    }

    pub(super) fn new_directory(&mut self) -> Target {
        self.names.directories.push(BTreeMap::new());
        Target::Directory(self.names.directories.len() - 1)
    }

    /// The binding that makes `path` stand for `target`.
    ///
    /// # Errors
    /// `NotFound` where the directory is missing.
    pub(super) fn binding(&self, path: &Path, target: Option<Target>) -> io::Result<Binding> {
        let names = names(path)?;
        let parent = names
            .split_last()
            .map(|(name, parents)| (name, self.names.resolve(parents)));
        match parent {
            Some((name, Some(Target::Directory(directory)))) => Ok(Binding {
                directory,
                name: (*name).to_owned(),
                target,
            }),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Binds names, and logs it as one change.
    pub(super) fn bind(&mut self, operation: Operation, bindings: Vec<Binding>) {
        for binding in &bindings {
            self.names.bind(binding);
        }
        self.push(operation, Effect::Names(bindings));
    }
}

/// The state at the start, in the making.
struct Start {
    names: NameTable,
    files: Vec<Pages>,
    links: HashMap<*const Inode, FileId>,
}

impl Start {
    fn add(&mut self, id: DirectoryId, directory: &Directory) {
        for (name, node) in directory {
            let target = match node {
                Node::File(inode) => {
                    let file = *self.links.entry(Arc::as_ptr(inode)).or_insert_with(|| {
                        self.files.push(inode.contents());
                        self.files.len() - 1
                    });
                    Target::File(file)
                }
                Node::Directory(inner) => {
                    self.names.directories.push(BTreeMap::new());
                    let inner_id = self.names.directories.len() - 1;
                    self.add(inner_id, inner);
                    Target::Directory(inner_id)
                }
            };
            self.names.directories[id].insert(name.clone(), target);
        }
    }
}
