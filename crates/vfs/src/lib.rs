//! The only code of esker that touches a file system.
//!
//! [`fs`] is the seam: the traits that the engine is written against. Behind it live the real file
//! system ([`os`]) and one in memory ([`mem`]); around either go the decorators that make a
//! simulated disk: [`crash`] keeps a log from which the disk after a power loss is made, [`fault`]
//! lets chosen operations fail, [`trace`] writes down what was asked for; [`intercept`] is what the
//! latter two are made of.
//!
//! Invariant: nothing outside [`os`] names `std::fs` or makes a system call (I12), and `unsafe`
//! occurs in four private files only (the window of mapped memory, three calls that rustix does not have).
#![deny(unsafe_code)]

pub mod crash;
pub mod fault;
pub mod fs;
pub mod intercept;
pub mod mem;
pub mod operation;
pub mod os;
#[cfg(target_os = "linux")]
mod os_direct;
#[cfg(target_os = "linux")]
mod os_map;
mod os_memory;
mod os_thread;
#[cfg(target_os = "linux")]
mod os_write_back;
mod pages;
pub mod random;
mod reservation;
pub mod trace;

pub use crash::{CrashFileSystem, CrashReplay, ImagePolicy, UnsyncedData, UnsyncedNames};
pub use fault::{DeviceError, Fault, FaultFileSystem, FaultRule};
pub use fs::{DirEntry, FileLock, FileSystem, MappedWriter, RandomAccessFile, WritableFile};
pub use mem::MemFileSystem;
pub use operation::{Operation, OperationKind};
pub use os::OsFileSystem;
pub use os_memory::give_free_memory_back;
pub use os_thread::{give_way, lower_priority, processor_wait_nanos, wait_when_woken};
pub use random::Random;
pub use trace::{TraceEntry, TraceFileSystem};
