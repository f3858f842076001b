//! Where backups lie: a directory of metadata files, and one of tables that they share.
//!
//! Layout: `<name>.backup`, and `tables/<number>-<checksum>.sst`. Invariants: a metadata file is
//! written last, atomically, when everything it names is on stable storage (I1); a table is removed
//! only when no metadata file names it, which is looked up and not counted, so that no counter can
//! be wrong after a crash; where a metadata file cannot be read, no table is removed.

use crate::backup_metadata::BackupInfo;
use crate::backup_name::is_name;
use crate::table_files::{self, Bring, remove_if_there};
use esker_base::table_meta::TableMeta;
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::FileSystem;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".backup";
const TABLES: &str = "tables";
/// Longer metadata is not read: it would describe millions of tables.
const MAX_METADATA_BYTES: u64 = 1 << 30;

/// A directory of backups.
#[derive(Debug)]
pub(crate) struct BackupStore<'a> {
    fs: &'a dyn FileSystem,
    directory: &'a Path,
}

impl<'a> BackupStore<'a> {
    pub(crate) fn new(fs: &'a dyn FileSystem, directory: &'a Path) -> Self {
        Self { fs, directory }
    }

    fn tables(&self) -> PathBuf {
        self.directory.join(TABLES)
    }

    pub(crate) fn table_path(&self, meta: &TableMeta) -> PathBuf {
        self.tables().join(table_name(meta))
    }

    fn metadata_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{EXTENSION}"))
    }

    /// Makes the directories, durably.
    fn prepare(&self) -> Result<()> {
        let tables = self.tables();
        if self.fs.metadata(&tables).is_err() {
            let made = self.fs.create_dir_all(&tables);
            made.map_err(|error| Error::io("create the directory", &tables, error))?;
        }
        // Synced again even if they were there: the crash may have come before the last sync.
        self.sync_dir(self.directory)?;
        self.directory
            .parent()
            .map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let synced = self.fs.sync_dir(path);
        synced.map_err(|error| Error::io("sync the directory", path, error))
    }

    fn list(&self, path: &Path) -> Result<Vec<esker_vfs::DirEntry>> {
        match self.fs.read_dir(path) {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("list the directory", path, error)),
        }
    }

    /// The names of all backups, ascending.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let entries = self.list(self.directory)?;
        let names = entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(EXTENSION))
            .filter(|name| is_name(name));
        Ok(names.map(str::to_owned).collect())
    }

    /// What backup `name` says of itself.
    pub(crate) fn read(&self, name: &str) -> Result<BackupInfo> {
        let path = self.metadata_path(name);
        if !is_name(name) {
            return Err(no_backup(name));
        }
        let file = self.fs.open_read(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                no_backup(name)
            } else {
                Error::io("open the metadata of a backup", &path, error)
            }
        })?;
        let io = |error| Error::io("read the metadata of a backup", &path, error);
        let length = file.len().map_err(io)?;
        if length > MAX_METADATA_BYTES {
            let error = Error::corruption("the metadata of a backup is absurdly long");
            return Err(error.with_file(&path));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        let info = BackupInfo::decode(&bytes).map_err(|error| error.with_file(&path))?;
        if info.name() != name {
            let error = Error::corruption("the metadata is that of another backup");
            return Err(error.with_file(&path));
        }
        Ok(info)
    }

    /// Whether there is a backup `name`, intact or not.
    pub(crate) fn contains(&self, name: &str) -> Result<bool> {
        if !is_name(name) {
            return Ok(false);
        }
        let path = self.metadata_path(name);
        match self.fs.metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look for a backup", &path, error)),
        }
    }

    /// Keeps the tables that `info` names and then `info` itself. `source` says where a table is,
    /// and `advance` is told the bytes of each one that is kept.
    pub(crate) fn add(
        &self,
        info: &mut BackupInfo,
        how: Bring,
        source: impl Fn(&TableMeta) -> PathBuf,
        advance: impl Fn(u64),
    ) -> Result<()> {
        self.prepare()?;
        let tables = self.tables();
        let known: HashSet<(String, u64)> = self
            .list(&tables)?
            .into_iter()
            .map(|entry| (entry.name, entry.bytes))
            .collect();
        let mut new_bytes = 0;
        for meta in info.tables() {
            let name = table_name(meta);
            if known.contains(&(name.clone(), meta.file_bytes)) {
                advance(meta.file_bytes);
                continue;
            }
            let temporary = tables.join(format!("{name}.tmp"));
            let to = tables.join(&name);
            table_files::bring(self.fs, &source(meta), &temporary, &to, meta, how)?;
            new_bytes += meta.file_bytes;
            advance(meta.file_bytes);
        }
        self.sync_dir(&tables)?;
        info.new_bytes = new_bytes;
        self.write(info)
    }

    fn write(&self, info: &BackupInfo) -> Result<()> {
        let temporary = self.directory.join(format!("{}.tmp", info.name()));
        remove_if_there(self.fs, &temporary)?;
        let bytes = info.encode()?;
        let written = self
            .fs
            .create(&temporary)
            .and_then(|file| file.write_at(0, &bytes).and_then(|()| file.sync_data()));
        let path = self.metadata_path(info.name());
        let renamed = written.and_then(|()| self.fs.rename(&temporary, &path));
        let renamed =
            renamed.map_err(|error| Error::io("write the metadata of a backup", &path, error));
        renamed
            .and_then(|()| self.sync_dir(self.directory))
            .inspect_err(|_| {
                let _ = self.fs.remove_file(&temporary);
                // A rename that failed may have happened, and one whose directory could not be synced
                // has. The name was free: this can be no other backup. If the removal is lost with the
                // power, the backup is there again, whole.
                let _ = remove_if_there(self.fs, &path);
            })
    }

    /// Removes backup `name`; its tables stay until [`BackupStore::sweep`].
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.metadata_path(name);
        self.fs
            .remove_file(&path)
            .map_err(|error| Error::io("remove the metadata of a backup", &path, error))?;
        self.sync_dir(self.directory)
    }

    /// Makes durable which backups there are, as far as there are any: a renaming or a removal whose
    /// answer was lost has happened, and is not on stable storage yet.
    pub(crate) fn settle(&self) -> Result<()> {
        match self.fs.sync_dir(self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => {
                synced.map_err(|error| Error::io("sync the directory", self.directory, error))
            }
        }
    }

    /// Removes tables that no backup names, and files that were never finished.
    pub(crate) fn sweep(&self) -> Result<()> {
        let Some(strays) = self.strays()? else {
            return Ok(());
        };
        // A removal that failed may have happened, and not for good: a table must not go before it has.
        self.settle()?;
        strays
            .iter()
            .try_for_each(|path| remove_if_there(self.fs, path))
    }

    /// Tables that no backup names, and files that were never finished; `None` where a backup cannot be
    /// read, so that it is not known what it names.
    pub(crate) fn strays(&self) -> Result<Option<Vec<PathBuf>>> {
        let mut named = HashSet::new();
        for name in self.names()? {
            match self.read(&name) {
                Ok(info) => named.extend(info.tables().map(|meta| table_name(meta))),
                Err(error) => {
                    tracing::warn!(%error, "no table of any backup is removed until this is settled");
                    return Ok(None);
                }
            }
        }
        let mut strays = Vec::new();
        for (path, is_stray) in [
            (
                self.directory.to_path_buf(),
                &(|name: &str| is_unfinished(name)) as &dyn Fn(&str) -> bool,
            ),
            (self.tables(), &|name: &str| !named.contains(name)),
        ] {
            for entry in self.list(&path)?.iter().filter(|entry| !entry.is_dir) {
                if is_stray(&entry.name) {
                    strays.push(path.join(&entry.name));
                }
            }
        }
        Ok(Some(strays))
    }

    /// Bytes of everything in the directory.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let metadata = self.list(self.directory)?;
        let tables = self.list(&self.tables())?;
        Ok(metadata
            .iter()
            .chain(&tables)
            .map(|entry| entry.bytes)
            .sum())
    }
}

fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(is_name)
}

fn table_name(meta: &TableMeta) -> String {
    format!("{:06}-{:016x}.sst", meta.number, meta.checksum)
}

/// There is no such backup.
#[cold]
pub(crate) fn no_backup(name: &str) -> Error {
    let sentence = format!("no backup or recovery point is called {name:?}");
    Error::new(ErrorKind::NotFound, sentence)
}
