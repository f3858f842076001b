//! What esker tests itself with, for testing what is built on it: a simulated disk, an oracle that
//! knows which states a crash may leave, and generated workloads.
//!
//! * [`disk`]: a file system in memory that can crash, fail and fill up ([`disk::CrashFileSystem`],
//!   [`disk::FaultFileSystem`], [`disk::TraceFileSystem`]). It knows nothing of esker.
//! * [`oracle`]: an ordered map that remembers what was acknowledged and how durably, and judges the
//!   state that was found after a crash.
//! * [`workload`]: steps to do, from a seed ([`step`] says what they are); [`mod@minimize`] makes a
//!   failing list of them short.
//! * [`history`]: checks what several clients saw: linearizability of keys, isolation of transactions.
//! * [`seed`]: numbers that are the same on every machine, and which seeds a test should try.
//!
//! * `simulation`, with the feature `simulate`: all of esker on a scheduler, a clock and a disk that one
//!   number decides; `cargo run --release -p esker-testkit --bin simulate`.
//!
//! Invariant: everything is a function of its seed (I12). Without the feature it imports base and vfs
//! only, so that each crate above them can be tested with it.
//!
//! # A crash sweep in a few lines
//!
//! Any code that stores things through [`FileSystem`](disk::FileSystem) can be tried at every moment
//! at which power may fail. Here it is a register that is replaced by rename:
//!
//! ```
//! use std::io;
//! use std::path::Path;
//! use esker_testkit::disk::{CrashFileSystem, FileSystem, ImagePolicy, MemFileSystem};
//!
//! fn store(fs: &dyn FileSystem, value: u8) -> io::Result<()> {
//!     let file = fs.create(Path::new("/register.new"))?;
//!     file.write_at(0, &[value])?;
//!     file.sync_data()?; // leave this out, and the sweep below finds an empty register
//!     fs.rename(Path::new("/register.new"), Path::new("/register"))?;
//!     fs.sync_dir(Path::new("/")) // or this, and it finds a value that went back
//! }
//!
//! fn load(fs: &dyn FileSystem) -> io::Result<u8> {
//!     let mut value = [0];
//!     fs.open_read(Path::new("/register"))?.read_exact_at(&mut value, 0)?;
//!     Ok(value[0])
//! }
//!
//! let disk = CrashFileSystem::new(MemFileSystem::new());
//! let mut acknowledged = Vec::new();
//! for value in 1..=3 {
//!     store(&disk, value)?;
//!     acknowledged.push((disk.operations(), value));
//! }
//!
//! let mut replay = disk.replay();
//! for operations in 0..=replay.operations() {
//!     for seed in 0..20 {
//!         let policy = ImagePolicy::from_seed(seed);
//!         let found = load(&replay.image(operations, &policy)).unwrap_or(0);
//!         let promised = acknowledged.iter().rfind(|(at, _)| *at <= operations);
//!         let promised = promised.map_or(0, |(_, value)| *value);
//!         assert!(
//!             found == promised || found == promised + 1,
//!             "found {found}, promised {promised} after {operations} operations, {policy}",
//!         );
//!     }
//! }
//! # Ok::<(), io::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod disk;
pub mod history;
pub mod minimize;
pub mod oracle;
pub mod seed;
#[cfg(feature = "simulate")]
pub mod simulation;
pub mod step;
pub mod workload;

pub use minimize::minimize;
pub use oracle::{Crash, Loss, Oracle, Outcome, State, Violation, WriteId};
pub use seed::Random;
pub use step::{Action, Durability, Step};
pub use workload::{Mix, Workload, WorkloadOptions};
