//! The simulated disk: a file system in memory that remembers every change and every sync, and can
//! say what a power loss at any moment would have left.
//!
//! Invariants: the running file system behaves as the one in memory does; the log has the order in
//! which changes happened; a sync covers what was logged when it began, and counts once it has
//! returned. Crash sweeps run a workload once, then open an image of every moment of it.

mod disk;
mod log;
mod policy;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::disk::CrashReplay;
use self::log::{DataChange, Effect, FileId, Log, Target};
pub use self::policy::{ImagePolicy, UnsyncedData, UnsyncedNames};
use crate::fs::{DirEntry, FileLock, FileSystem, MappedWriter, RandomAccessFile, WritableFile};
use crate::mem::{MemFileSystem, names};
use crate::operation::{Operation, OperationKind};

/// A simulated disk. Clones are handles on the same one.
///
/// ```
/// use std::path::Path;
/// use esker_vfs::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
///
/// let disk = CrashFileSystem::new(MemFileSystem::new());
/// let file = disk.create(Path::new("/a"))?;
/// file.write_at(0, b"safe")?;
/// file.sync_data()?;
/// disk.sync_dir(Path::new("/"))?;
/// file.write_at(4, b", or not")?;
///
/// let after = disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED);
/// assert_eq!(after.open_read(Path::new("/a"))?.len()?, 4);
/// // Before the directory was synced, the file had no name that would have survived.
/// let before = disk.image(3, &ImagePolicy::ONLY_SYNCED);
/// assert!(before.open_read(Path::new("/a")).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrashFileSystem {
    disk: MemFileSystem,
    log: Arc<Mutex<Log>>,
}

impl CrashFileSystem {
    /// A simulated disk that goes on from what is in `disk`, all of which counts as durable. From
    /// now on `disk` should be changed through the simulation alone.
    #[must_use]
    pub fn new(disk: MemFileSystem) -> Self {
        let log = disk.visit(Log::new);
        Self {
            disk,
            log: Arc::new(Mutex::new(log)),
        }
    }

    /// Changes and syncs so far. What was acknowledged when there were `n` of them must be in every
    /// image of `n` or more.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.log.lock().entries.len()
    }

    /// The change or sync with this number, for messages.
    #[must_use]
    pub fn operation(&self, index: usize) -> Option<Operation> {
        Some(self.log.lock().entries.get(index)?.operation.clone())
    }

    /// A walk over what has happened so far.
    #[must_use]
    pub fn replay(&self) -> CrashReplay {
        CrashReplay::new(&self.log.lock())
    }

    /// The disk after a crash that came after the first `operations` operations. To make many
    /// images, take one [`CrashFileSystem::replay`].
    #[must_use]
    pub fn image(&self, operations: usize, policy: &ImagePolicy) -> MemFileSystem {
        self.replay().image(operations, policy)
    }

    fn writable(
        &self,
        path: &Path,
        file: FileId,
        inner: Arc<dyn WritableFile>,
    ) -> Arc<dyn WritableFile> {
        let handle = Handle {
            log: Arc::clone(&self.log),
            file,
            path: path.into(),
        };
        Arc::new(CrashWritable { inner, handle })
    }

    /// Runs `call`, after which `path` stands for nothing.
    fn remove(
        &self,
        kind: OperationKind,
        path: &Path,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut log = self.log.lock();
        call()?;
        let binding = log.binding(path, None)?;
        log.bind(Operation::on_path(kind, path), vec![binding]);
        Ok(())
    }
}

/// Logs that `path` is a new file.
fn log_creation(log: &mut Log, kind: OperationKind, path: &Path) -> io::Result<FileId> {
    let target = log.new_file();
    let binding = log.binding(path, Some(target))?;
    log.bind(Operation::on_path(kind, path), vec![binding]);
    log.file(path)
}

impl FileSystem for CrashFileSystem {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        self.disk.open_read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let mut log = self.log.lock();
        let inner = self.disk.create(path)?;
        let file = log_creation(&mut log, OperationKind::Create, path)?;
        Ok(self.writable(path, file, inner))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let log = self.log.lock();
        let inner = self.disk.open_write(path)?;
        let file = log.file(path)?;
        Ok(self.writable(path, file, inner))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        self.disk.create_dir_all(path)?;
        let mut at = PathBuf::from("/");
        for name in names(path)? {
            at.push(name);
            if log.resolve(&at)?.is_none() {
                let target = log.new_directory();
                let binding = log.binding(&at, Some(target))?;
                log.bind(
                    Operation::on_path(OperationKind::CreateDir, &at),
                    vec![binding],
                );
            }
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove(OperationKind::RemoveFile, path, || {
            self.disk.remove_file(path)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.remove(OperationKind::RemoveDir, path, || {
            self.disk.remove_dir(path)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        let (source, replaced) = (log.resolve(from)?, log.resolve(to)?);
        self.disk.rename(from, to)?;
        // Two names of one file, or the same name twice: nothing has happened.
        if source != replaced {
            let bindings = vec![log.binding(to, source)?, log.binding(from, None)?];
            log.bind(
                Operation::on_paths(OperationKind::Rename, from, to),
                bindings,
            );
        }
        Ok(())
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        self.disk.hard_link(existing, new)?;
        let target = log.resolve(existing)?;
        let bindings = vec![log.binding(new, target)?];
        log.bind(
            Operation::on_paths(OperationKind::HardLink, existing, new),
            bindings,
        );
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)?;
        let mut log = self.log.lock();
        if let Some(Target::Directory(directory)) = log.resolve(path)? {
            let covers = log.entries.len();
            let operation = Operation::on_path(OperationKind::SyncDir, path);
            log.push(operation, Effect::SyncDirectory { directory, covers });
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        self.disk.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut log = self.log.lock();
        let lock = self.disk.lock(path)?;
        if log.resolve(path)?.is_none() {
            log_creation(&mut log, OperationKind::Lock, path)?;
        }
        Ok(lock)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.canonicalize(path)
    }
}

/// What a writable file and its window need to log their changes.
#[derive(Clone, Debug)]
struct Handle {
    log: Arc<Mutex<Log>>,
    file: FileId,
    path: Arc<Path>,
}

impl Handle {
    /// Runs `call` and logs what it did.
    fn change(
        &self,
        operation: Operation,
        change: DataChange,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut log = self.log.lock();
        call()?;
        log.push(
            operation,
            Effect::Data {
                file: self.file,
                change,
            },
        );
        Ok(())
    }

    fn operation(&self, kind: OperationKind, offset: u64, bytes: u64) -> Operation {
        Operation::on_file(kind, &self.path, offset, bytes)
    }

    /// Runs `call` and logs what it wrote: on a full disk, the part up to the `end` of the file.
    fn write(
        &self,
        kind: OperationKind,
        offset: u64,
        data: &[u8],
        call: impl FnOnce() -> io::Result<()>,
        end: impl FnOnce() -> io::Result<u64>,
    ) -> io::Result<()> {
        let mut log = self.log.lock();
        let result = call();
        let written = match &result {
            Ok(()) => data.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                end()?.saturating_sub(offset)
            }
            Err(_) => return result,
        };
        let data = &data[..data
            .len()
            .min(usize::try_from(written).unwrap_or(usize::MAX))];
        let operation = self.operation(kind, offset, data.len() as u64);
        let change = DataChange::Write {
            offset,
            data: data.into(),
        };
        log.push(
            operation,
            Effect::Data {
                file: self.file,
                change,
            },
        );
        result
    }
}

#[derive(Debug)]
struct CrashWritable {
    inner: Arc<dyn WritableFile>,
    handle: Handle,
}

impl WritableFile for CrashWritable {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let write = || self.inner.write_at(offset, data);
        self.handle
            .write(OperationKind::Write, offset, data, write, || {
                self.inner.len()
            })
    }

    fn sync_data(&self) -> io::Result<()> {
        let covers = self.handle.log.lock().entries.len();
        self.inner.sync_data()?;
        let operation = self.handle.operation(OperationKind::Sync, 0, 0);
        let effect = Effect::SyncFile {
            file: self.handle.file,
            covers,
            range: None,
        };
        self.handle.log.lock().push(operation, effect);
        Ok(())
    }

    fn write_synced_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)?;
        let covers = self.handle.log.lock().entries.len();
        self.inner.sync_data()?;
        let bytes = data.len() as u64;
        let operation = self.handle.operation(OperationKind::Sync, offset, bytes);
        let effect = Effect::SyncFile {
            file: self.handle.file,
            covers,
            range: Some(offset..offset + bytes),
        };
        self.handle.log.lock().push(operation, effect);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let operation = self.handle.operation(OperationKind::Allocate, 0, bytes);
        self.handle
            .change(operation, DataChange::Extend(bytes), || {
                self.inner.allocate(bytes)
            })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let operation = self.handle.operation(OperationKind::SetLen, 0, bytes);
        self.handle
            .change(operation, DataChange::SetLen(bytes), || {
                self.inner.set_len(bytes)
            })
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, bytes: u64) -> io::Result<Option<Box<dyn MappedWriter>>> {
        let Some(inner) = self.inner.map(bytes)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(CrashWindow {
            inner,
            handle: self.handle.clone(),
        })))
    }

    fn lose_unsynced(&self) {
        let operation = self.handle.operation(OperationKind::Sync, 0, 0);
        let effect = Effect::LoseUnsynced {
            file: self.handle.file,
        };
        self.handle.log.lock().push(operation, effect);
    }
}

#[derive(Debug)]
struct CrashWindow {
    inner: Box<dyn MappedWriter>,
    handle: Handle,
}

impl MappedWriter for CrashWindow {
    fn copy_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Self { inner, handle } = self;
        // A window lies within the file, so that a full disk does not concern it.
        let copy = || inner.copy_at(offset, data);
        handle.write(OperationKind::Copy, offset, data, copy, || Ok(offset))
    }

    fn let_go(&mut self, offset: u64) {
        self.inner.let_go(offset);
    }
}
