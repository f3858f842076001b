//! The simulated disk, under one name: the file systems of `esker-vfs`, re-exported.
//!
//! Invariant: nothing here is esker's alone; code that reads and writes through [`FileSystem`] runs on
//! [`OsFileSystem`] in production and on any of the others in a test.
//!
//! The others stack: a [`FaultFileSystem`] around a [`CrashFileSystem`] is a disk on which a sync can
//! fail, after which its pages are lost as on Linux; a [`TraceFileSystem`] around that says what was
//! asked of it.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use esker_testkit::disk::{
//!     CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy,
//!     MemFileSystem, TraceFileSystem, WritableFile,
//! };
//!
//! let disk = CrashFileSystem::new(MemFileSystem::new());
//! let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
//! let traced = TraceFileSystem::new(Arc::new(faulty.clone()));
//!
//! let file = traced.create(Path::new("/a"))?;
//! traced.sync_dir(Path::new("/"))?;
//! file.write_at(0, b"x")?;
//! faulty.fail_at(faulty.operations(), Fault::Refuse(DeviceError::Io));
//! assert!(file.sync_data().is_err());
//! file.sync_data()?; // which says that all is well, as Linux does: the data is lost
//! assert_eq!(disk.image(disk.operations(), &ImagePolicy::ONLY_SYNCED).used_bytes(), 0);
//! assert!(traced.log(Path::new("/")).ends_with("sync a: uncategorized error\nsync a\n"));
//! # Ok::<(), std::io::Error>(())
//! ```

pub use esker_vfs::intercept::{Intercepted, Interceptor, Verdict};
pub use esker_vfs::{
    CrashFileSystem, CrashReplay, DeviceError, DirEntry, Fault, FaultFileSystem, FaultRule,
    FileLock, FileSystem, ImagePolicy, MappedWriter, MemFileSystem, Operation, OperationKind,
    OsFileSystem, RandomAccessFile, TraceEntry, TraceFileSystem, UnsyncedData, UnsyncedNames,
    WritableFile,
};
