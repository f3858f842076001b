//! The decorator on which [`trace`](crate::trace) and [`fault`](crate::fault) are built: it puts
//! every call to an [`Interceptor`] before it goes on to the file system below.
//!
//! Invariant: with an interceptor that always says [`Verdict::Proceed`], nothing can be told from
//! the file system below. Advice (`sequential`, `begin_write_back`, `let_go`), lengths and canonical
//! paths are passed on unseen: they change nothing and fail for no reason of their own.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{DirEntry, FileLock, FileSystem, MappedWriter, RandomAccessFile, WritableFile};
use crate::operation::{Operation, OperationKind};

/// What is to happen to a call.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Proceed,
    /// It fails, and nothing is done.
    Refuse(io::Error),
    /// A write writes, or a read reads, so many bytes and fails then. Another call is refused.
    Partly(u64, io::Error),
    /// It is done, and reported as failed.
    Deny(io::Error),
}

/// Who is asked before each call, and told after it.
pub trait Interceptor: Debug + Send + Sync + 'static {
    /// `len` asks for the length of the file now, where the call is about an open one to write.
    fn before(&self, _operation: &Operation, _len: &dyn Fn() -> io::Result<u64>) -> Verdict {
        Verdict::Proceed
    }

    /// The call is over, with this error if any.
    fn after(&self, _operation: &Operation, _error: Option<&io::Error>) {}
}

/// A file system whose calls pass an interceptor. Clones are handles on the same one.
#[derive(Debug)]
pub struct Intercepted<I> {
    inner: Arc<dyn FileSystem>,
    interceptor: Arc<I>,
}

impl<I> Clone for Intercepted<I> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            interceptor: Arc::clone(&self.interceptor),
        }
    }
}

/// Runs `call` as the interceptor wills; `partly` is what a write does of itself.
fn run<I: Interceptor, T>(
    interceptor: &I,
    operation: &Operation,
    len: &dyn Fn() -> io::Result<u64>,
    partly: impl FnOnce(u64) -> io::Result<()>,
    call: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let result = match interceptor.before(operation, len) {
        Verdict::Proceed => call(),
        Verdict::Refuse(error) => Err(error),
        Verdict::Partly(bytes, error) => partly(bytes).and(Err(error)),
        Verdict::Deny(error) => call().and(Err(error)),
    };
    interceptor.after(operation, result.as_ref().err());
    result
}

impl<I: Interceptor> Intercepted<I> {
    /// Puts `interceptor` before `inner`.
    #[must_use]
    pub fn around(inner: Arc<dyn FileSystem>, interceptor: I) -> Self {
        Self {
            inner,
            interceptor: Arc::new(interceptor),
        }
    }

    /// Who is asked.
    #[must_use]
    pub fn interceptor(&self) -> &I {
        &self.interceptor
    }

    fn run<T>(&self, operation: Operation, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        run(&*self.interceptor, &operation, &|| Ok(0), |_| Ok(()), call)
    }

    fn writable(&self, path: &Path, inner: Arc<dyn WritableFile>) -> Arc<dyn WritableFile> {
        let interceptor = Arc::clone(&self.interceptor);
        Arc::new(InterceptedWritable {
            inner,
            interceptor,
            path: path.into(),
        })
    }
}

impl<I: Interceptor> FileSystem for Intercepted<I> {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        let operation = Operation::on_path(OperationKind::OpenRead, path);
        let inner = self.run(operation, || self.inner.open_read(path))?;
        let interceptor = Arc::clone(&self.interceptor);
        Ok(Arc::new(InterceptedReadable {
            inner,
            interceptor,
            path: path.into(),
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let operation = Operation::on_path(OperationKind::Create, path);
        let inner = self.run(operation, || self.inner.create(path))?;
        Ok(self.writable(path, inner))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let operation = Operation::on_path(OperationKind::OpenWrite, path);
        let inner = self.run(operation, || self.inner.open_write(path))?;
        Ok(self.writable(path, inner))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let operation = Operation::on_path(OperationKind::CreateDir, path);
        self.run(operation, || self.inner.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let operation = Operation::on_path(OperationKind::ReadDir, path);
        self.run(operation, || self.inner.read_dir(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let operation = Operation::on_path(OperationKind::RemoveFile, path);
        self.run(operation, || self.inner.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let operation = Operation::on_path(OperationKind::RemoveDir, path);
        self.run(operation, || self.inner.remove_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let operation = Operation::on_paths(OperationKind::Rename, from, to);
        self.run(operation, || self.inner.rename(from, to))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let operation = Operation::on_paths(OperationKind::HardLink, existing, new);
        self.run(operation, || self.inner.hard_link(existing, new))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let operation = Operation::on_path(OperationKind::SyncDir, path);
        self.run(operation, || self.inner.sync_dir(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        let operation = Operation::on_path(OperationKind::Metadata, path);
        self.run(operation, || self.inner.metadata(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let operation = Operation::on_path(OperationKind::Lock, path);
        self.run(operation, || self.inner.lock(path))
    }

    fn open_files_limit(&self) -> Option<u64> {
        self.inner.open_files_limit()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }
}

#[derive(Debug)]
struct InterceptedReadable<I> {
    inner: Arc<dyn RandomAccessFile>,
    interceptor: Arc<I>,
    path: Arc<Path>,
}

impl<I: Interceptor> RandomAccessFile for InterceptedReadable<I> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = buffer.len() as u64;
        let operation = Operation::on_file(OperationKind::Read, &self.path, offset, bytes);
        let buffer = std::cell::RefCell::new(buffer);
        let partly = |bytes: u64| {
            let mut buffer = buffer.borrow_mut();
            let bytes = usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.inner.read_exact_at(&mut buffer[..bytes], offset)
        };
        let read = || self.inner.read_exact_at(&mut buffer.borrow_mut(), offset);
        run(
            &*self.interceptor,
            &operation,
            &|| self.inner.len(),
            partly,
            read,
        )
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sequential(&self, on: bool) {
        self.inner.sequential(on);
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.inner.will_read(offset, bytes);
    }
}

#[derive(Debug)]
struct InterceptedWritable<I> {
    inner: Arc<dyn WritableFile>,
    interceptor: Arc<I>,
    path: Arc<Path>,
}

impl<I: Interceptor> InterceptedWritable<I> {
    fn run<T>(
        &self,
        kind: OperationKind,
        bytes: u64,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let operation = Operation::on_file(kind, &self.path, 0, bytes);
        run(
            &*self.interceptor,
            &operation,
            &|| self.inner.len(),
            |_| Ok(()),
            call,
        )
    }
}

impl<I: Interceptor> InterceptedWritable<I> {
    /// Runs a sync of the layer below, unless it is made to fail.
    fn sync(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let synced = std::cell::Cell::new(false);
        let result = self.run(OperationKind::Sync, 0, || {
            synced.set(true);
            call()
        });
        if !synced.get() {
            self.inner.lose_unsynced();
        }
        result
    }
}

impl<I: Interceptor> WritableFile for InterceptedWritable<I> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        let operation = Operation::on_file(OperationKind::Write, &self.path, offset, bytes);
        let partly = |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(data.len());
            self.inner.write_at(offset, &data[..bytes])
        };
        let write = || self.inner.write_at(offset, data);
        run(
            &*self.interceptor,
            &operation,
            &|| self.inner.len(),
            partly,
            write,
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.inner.sync_data())
    }

    fn begin_write_back(&self, offset: u64, bytes: u64) {
        self.inner.begin_write_back(offset, bytes);
    }

    /// A write and a sync, either of which may be intercepted.
    fn write_synced_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)?;
        self.sync(|| self.inner.write_synced_at(offset, data))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.run(OperationKind::Allocate, bytes, || {
            self.inner.allocate(bytes)
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.run(OperationKind::SetLen, bytes, || self.inner.set_len(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, bytes: u64) -> io::Result<Option<Box<dyn MappedWriter>>> {
        let Some(inner) = self.run(OperationKind::Map, bytes, || self.inner.map(bytes))? else {
            return Ok(None);
        };
        let interceptor = Arc::clone(&self.interceptor);
        let path = Arc::clone(&self.path);
        Ok(Some(Box::new(InterceptedWindow {
            inner,
            interceptor,
            path,
        })))
    }

    fn lose_unsynced(&self) {
        self.inner.lose_unsynced();
    }
}

#[derive(Debug)]
struct InterceptedWindow<I> {
    inner: Box<dyn MappedWriter>,
    interceptor: Arc<I>,
    path: Arc<Path>,
}

impl<I: Interceptor> MappedWriter for InterceptedWindow<I> {
    fn copy_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        let operation = Operation::on_file(OperationKind::Copy, &self.path, offset, bytes);
        // No verdict is asked for: a store into memory has nobody who could refuse it.
        let result = self.inner.copy_at(offset, data);
        self.interceptor.after(&operation, result.as_ref().err());
        result
    }

    fn let_go(&mut self, offset: u64) {
        self.inner.let_go(offset);
    }
}
