//! A file system that writes down what is asked of it.
//!
//! Invariant: the trace holds every operation once, in the order in which they ended, with what it
//! ended in. Tests compare it with a golden log, or look for an order of steps in it (I1).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::FileSystem;
use crate::intercept::{Intercepted, Interceptor};
use crate::operation::Operation;

/// A file system that records the operations on the one below.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use esker_vfs::{FileSystem, MemFileSystem, TraceFileSystem};
///
/// let fs = TraceFileSystem::new(Arc::new(MemFileSystem::new()));
/// let file = fs.create(Path::new("/db/a"));
/// assert!(file.is_err());
/// fs.create_dir_all(Path::new("/db"))?;
/// let file = fs.create(Path::new("/db/a"))?;
/// file.write_at(10, b"hello")?;
/// file.sync_data()?;
/// fs.sync_dir(Path::new("/db"))?;
/// assert_eq!(
///     fs.log(Path::new("/db")),
///     "create a: entity not found\ncreate-dir .\ncreate a\nwrite a 10+5\nsync a\nsync-dir .\n"
/// );
/// # Ok::<(), std::io::Error>(())
/// ```
pub type TraceFileSystem = Intercepted<Trace>;

/// The operations so far. See [`TraceFileSystem`].
#[derive(Debug, Default)]
pub struct Trace {
    entries: Mutex<Vec<TraceEntry>>,
}

/// One operation and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// What was asked.
    pub operation: Operation,
    /// What it failed with, if it did.
    pub error: Option<io::ErrorKind>,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        match self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl Interceptor for Trace {
    fn after(&self, operation: &Operation, error: Option<&io::Error>) {
        let error = error.map(io::Error::kind);
        self.entries.lock().push(TraceEntry {
            operation: operation.clone(),
            error,
        });
    }
}

impl Intercepted<Trace> {
    /// Records what is asked of `inner` from now on.
    #[must_use]
    pub fn new(inner: Arc<dyn FileSystem>) -> Self {
        Self::around(inner, Trace::default())
    }

    /// The operations so far.
    #[must_use]
    pub fn entries(&self) -> Vec<TraceEntry> {
        self.interceptor().entries.lock().clone()
    }

    /// Forgets the operations so far.
    pub fn clear(&self) {
        self.interceptor().entries.lock().clear();
    }

    /// The operations that change something, one a line, with paths as seen from `base`.
    #[must_use]
    pub fn log(&self, base: &Path) -> String {
        let entries = self.interceptor().entries.lock();
        let changes = entries
            .iter()
            .filter(|entry| entry.operation.kind.changes());
        changes
            .map(|entry| {
                let operation = entry.operation.relative_to(base);
                format!(
                    "{}\n",
                    TraceEntry {
                        operation,
                        error: entry.error
                    }
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemFileSystem, OperationKind};

    #[test]
    fn every_kind_of_call_has_its_line() -> io::Result<()> {
        let fs = TraceFileSystem::new(Arc::new(MemFileSystem::new()));
        let path = |name: &str| Path::new("/db").join(name);
        fs.create_dir_all(Path::new("/db/inner"))?;
        let lock = fs.lock(&path("LOCK"))?;
        let file = fs.create(&path("a"))?;
        file.allocate(100)?;
        let mut window = file.map(100)?.expect("memory maps");
        window.copy_at(7, b"abc")?;
        file.set_len(200)?;
        file.sync_data()?;
        fs.hard_link(&path("a"), &path("b"))?;
        fs.rename(&path("b"), &path("c"))?;
        fs.open_write(&path("c"))?.write_at(1, b"x")?;
        fs.open_read(&path("c"))?.read_exact_at(&mut [0; 3], 8)?;
        fs.remove_file(&path("c"))?;
        fs.remove_dir(&path("inner"))?;
        fs.sync_dir(Path::new("/db"))?;
        fs.metadata(&path("a"))?;
        fs.read_dir(Path::new("/db"))?;
        drop(lock);
        assert_eq!(
            fs.log(Path::new("/db")),
            "create-dir inner\ncreate a\nallocate a 100\ncopy a 7+3\nset-len a 200\nsync a\n\
             link a -> b\nrename b -> c\nwrite c 1+1\nremove c\nremove-dir inner\nsync-dir .\n"
        );
        let unchanging: Vec<_> = fs
            .entries()
            .into_iter()
            .filter(|entry| !entry.operation.kind.changes())
            .collect();
        let lines: Vec<_> = unchanging.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "lock /db/LOCK",
                "map /db/a 100",
                "open-write /db/c",
                "open-read /db/c",
                "read /db/c 8+3",
                "metadata /db/a",
                "read-dir /db",
            ]
        );
        assert_eq!(unchanging[4].operation.kind, OperationKind::Read);
        fs.clear();
        assert!(fs.entries().is_empty());
        Ok(())
    }
}
