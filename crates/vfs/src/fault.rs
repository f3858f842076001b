//! A file system on which chosen operations fail, as devices fail.
//!
//! Invariants: a fault is decided by the operation and its number alone, so a run with the same
//! operations fails at the same places; what is not chosen goes through unchanged. A failed sync is
//! passed down as such, so that a simulated disk below loses the pages as Linux does. Tests use it
//! for error sweeps and for full disks.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fs::FileSystem;
use crate::intercept::{Intercepted, Interceptor, Verdict};
use crate::operation::{Operation, OperationKind};

/// What the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceError {
    /// EIO: the device could not.
    Io,
    /// ENOSPC: the device is full.
    NoSpace,
    /// EDQUOT: the user's share of it is full.
    Quota,
    /// A read that found the file shorter than it is.
    EndOfFile,
}

impl DeviceError {
    /// As the operating system reports it.
    #[must_use]
    pub fn to_io_error(self) -> io::Error {
        match self {
            Self::Io => rustix::io::Errno::IO.into(),
            Self::NoSpace => rustix::io::Errno::NOSPC.into(),
            Self::Quota => rustix::io::Errno::DQUOT.into(),
            Self::EndOfFile => io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

/// What happens to an operation that a plan has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It fails and nothing is done. A sync that fails loses what it should have made durable.
    Refuse(DeviceError),
    /// A write writes, or a read reads, its first bytes only, and fails. Other operations are refused.
    Partly(DeviceError, u64),
    /// It is done, and fails all the same: the answer was lost.
    Deny(DeviceError),
}

/// Faults by table: which operations fail, how and how often.
///
/// Without conditions it matches every operation, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    fault: Fault,
    kinds: Vec<OperationKind>,
    path_part: Option<String>,
    skip: u64,
    times: u64,
}

impl FaultRule {
    /// A rule that lets operations end in `fault`.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            kinds: Vec::new(),
            path_part: None,
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Only operations of these kinds.
    #[must_use]
    pub fn on(mut self, kinds: &[OperationKind]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// Only operations with `part` in their path (or in the new name of a rename or link).
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    /// Lets the first `count` of them through.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Only `count` of them fail.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    fn matches(&self, operation: &Operation) -> bool {
        let named = |part: &str| {
            let target = operation.target.as_deref();
            operation.path.to_string_lossy().contains(part)
                || target.is_some_and(|target| target.to_string_lossy().contains(part))
        };
        (self.kinds.is_empty() || self.kinds.contains(&operation.kind))
            && self.path_part.as_deref().is_none_or(named)
    }

    /// Counts a matching operation; its fault, if it is one of those to fail.
    fn apply(&mut self, operation: &Operation) -> Option<Fault> {
        if self.times == 0 || !self.matches(operation) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.fault)
    }
}

/// Faults by closure: the operation's number since the file system was made, and the operation.
pub type FaultPlan = dyn FnMut(u64, &Operation) -> Option<Fault> + Send;

/// A file system on which chosen operations fail.
///
/// ```
/// use std::io::ErrorKind;
/// use std::path::Path;
/// use std::sync::Arc;
/// use esker_vfs::{
///     DeviceError, Fault, FaultFileSystem, FaultRule, FileSystem, MemFileSystem, OperationKind,
/// };
///
/// let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
/// let log = fs.create(Path::new("/log"))?;
/// fs.add_rule(FaultRule::new(Fault::Partly(DeviceError::NoSpace, 3)).path_contains("log").times(1));
/// assert_eq!(log.write_at(0, b"hello").unwrap_err().kind(), ErrorKind::StorageFull);
/// assert_eq!(log.len()?, 3);
/// log.write_at(0, b"hello")?;
///
/// fs.fail_at(fs.operations(), Fault::Refuse(DeviceError::Io));
/// assert!(log.sync_data().is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub type FaultFileSystem = Intercepted<Faults>;

/// The faults to come and the count of operations. See [`FaultFileSystem`].
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    operations: u64,
    faults: u64,
    rules: Vec<FaultRule>,
    plan: Option<Box<FaultPlan>>,
    /// By how many bytes the files may still grow; `None` for no limit.
    free_bytes: Option<u64>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("operations", &self.operations)
            .field("faults", &self.faults)
            .field("rules", &self.rules)
            .field("has_plan", &self.plan.is_some())
            .field("free_bytes", &self.free_bytes)
            .finish()
    }
}

impl State {
    fn chosen(&mut self, operation: &Operation) -> Option<Fault> {
        let index = self.operations;
        self.operations += 1;
        let by_plan = self.plan.as_mut().and_then(|plan| plan(index, operation));
        // Every rule counts the operations that it matches, whichever decides.
        let by_rule = self
            .rules
            .iter_mut()
            .filter_map(|rule| rule.apply(operation));
        by_plan.or(by_rule.last())
    }

    /// What a disk with `free_bytes` left says to a file that wants to grow from `len` to `end`.
    fn grow(&mut self, operation: &Operation, len: u64) -> Verdict {
        let end = match operation.kind {
            OperationKind::Write if operation.bytes > 0 => {
                operation.offset.saturating_add(operation.bytes)
            }
            OperationKind::Allocate | OperationKind::SetLen => operation.bytes,
            _ => return Verdict::Proceed,
        };
        let growth = end.saturating_sub(len);
        let Some(free) = self.free_bytes.as_mut().filter(|_| growth > 0) else {
            return Verdict::Proceed;
        };
        if growth <= *free {
            *free -= growth;
            return Verdict::Proceed;
        }
        self.faults += 1;
        let error = DeviceError::NoSpace.to_io_error();
        if operation.kind != OperationKind::Write {
            return Verdict::Refuse(error);
        }
        let fits = (len + std::mem::take(free)).saturating_sub(operation.offset);
        Verdict::Partly(fits, error)
    }
}

impl Interceptor for Faults {
    fn before(&self, operation: &Operation, len: &dyn Fn() -> io::Result<u64>) -> Verdict {
        let mut state = self.state.lock();
        match state.chosen(operation) {
            Some(fault) => {
                state.faults += 1;
                match fault {
                    Fault::Refuse(error) => Verdict::Refuse(error.to_io_error()),
                    Fault::Partly(error, bytes) => Verdict::Partly(bytes, error.to_io_error()),
                    Fault::Deny(error) => Verdict::Deny(error.to_io_error()),
                }
            }
            None if state.free_bytes.is_some() => match len() {
                Ok(len) => state.grow(operation, len),
                Err(error) => Verdict::Refuse(error),
            },
            None => Verdict::Proceed,
        }
    }
}

impl Intercepted<Faults> {
    /// Passes everything on to `inner`, until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<dyn FileSystem>) -> Self {
        Self::around(inner, Faults::default())
    }

    /// Adds a rule. Where several match an operation, the last one added decides.
    pub fn add_rule(&self, rule: FaultRule) {
        self.interceptor().state.lock().rules.push(rule);
    }

    /// Lets the operation with this number fail, once. The next one has the number
    /// [`FaultFileSystem::operations`].
    pub fn fail_at(&self, index: u64, fault: Fault) {
        let done = self.operations();
        if let Some(wait) = index.checked_sub(done) {
            self.add_rule(FaultRule::new(fault).after(wait).times(1));
        }
    }

    /// Asks `plan` about every operation from now on; its answer goes before every rule's. The plan
    /// must not use this file system.
    pub fn set_plan(&self, plan: impl FnMut(u64, &Operation) -> Option<Fault> + Send + 'static) {
        self.interceptor().state.lock().plan = Some(Box::new(plan));
    }

    /// From now on all files together can grow by `bytes` bytes; `Some(0)` is a full disk, `None`
    /// one without a limit. Bytes below the length of a file, allocated or written, can always be
    /// written. Removing files gives nothing back: for that, limit the capacity of a
    /// [`MemFileSystem`](crate::MemFileSystem) instead.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.interceptor().state.lock().free_bytes = bytes;
    }

    /// Forgets every rule and plan, and lifts the limit of space.
    pub fn clear(&self) {
        let mut state = self.interceptor().state.lock();
        state.rules.clear();
        state.plan = None;
        state.free_bytes = None;
    }

    /// Operations so far: every call but those that cannot fail (advice, lengths, canonical paths,
    /// stores into a mapped window).
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.interceptor().state.lock().operations
    }

    /// How many of them were made to fail.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.interceptor().state.lock().faults
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::MemFileSystem;

    fn fault_fs() -> FaultFileSystem {
        FaultFileSystem::new(Arc::new(MemFileSystem::new()))
    }

    #[test]
    fn the_nth_operation_fails_whatever_it_is() {
        let run = |fs: &FaultFileSystem| {
            let mut errors = Vec::new();
            errors.push(fs.create_dir_all(Path::new("/d")).is_err());
            let file = fs.create(Path::new("/d/a"));
            errors.push(file.is_err());
            if let Ok(file) = file {
                errors.push(file.write_at(0, b"abc").is_err());
                errors.push(file.sync_data().is_err());
            }
            errors.push(fs.rename(Path::new("/d/a"), Path::new("/d/b")).is_err());
            errors.iter().position(|failed| *failed)
        };
        let clean = fault_fs();
        assert_eq!(run(&clean), None);
        assert_eq!((clean.operations(), clean.faults()), (5, 0));
        for index in 0..clean.operations() {
            let fs = fault_fs();
            fs.fail_at(index, Fault::Refuse(DeviceError::Io));
            assert_eq!(run(&fs), Some(index as usize));
            assert_eq!(fs.faults(), 1);
        }
    }

    #[test]
    fn errors_are_those_of_the_system() {
        let kinds = [
            (DeviceError::NoSpace, io::ErrorKind::StorageFull),
            (DeviceError::Quota, io::ErrorKind::QuotaExceeded),
            (DeviceError::EndOfFile, io::ErrorKind::UnexpectedEof),
        ];
        for (error, kind) in kinds {
            assert_eq!(error.to_io_error().kind(), kind);
        }
        let eio = rustix::io::Errno::IO.raw_os_error();
        assert_eq!(DeviceError::Io.to_io_error().raw_os_error(), Some(eio));
    }

    #[test]
    fn rules_choose_by_kind_path_and_count() -> io::Result<()> {
        let fs = fault_fs();
        let rule = FaultRule::new(Fault::Refuse(DeviceError::Io));
        fs.add_rule(
            rule.on(&[OperationKind::Write])
                .path_contains(".log")
                .after(1)
                .times(2),
        );
        let log = fs.create(Path::new("/1.log"))?;
        let table = fs.create(Path::new("/2.sst"))?;
        let mut failed = Vec::new();
        for _ in 0..5 {
            table.write_at(0, b"x")?;
            failed.push(log.write_at(0, b"x").is_err());
            log.sync_data()?;
        }
        assert_eq!(failed, [false, true, true, false, false]);
        fs.add_rule(FaultRule::new(Fault::Refuse(DeviceError::Io)).path_contains("3.log"));
        let renamed = fs.rename(Path::new("/1.log"), Path::new("/3.log"));
        assert!(renamed.is_err(), "the new name counts too");
        fs.clear();
        fs.rename(Path::new("/1.log"), Path::new("/3.log"))
    }

    #[test]
    fn a_denied_operation_was_done_and_a_partial_write_in_part() -> io::Result<()> {
        let fs = fault_fs();
        fs.create(Path::new("/a"))?;
        fs.set_plan(|index, operation| match index {
            1 => Some(Fault::Deny(DeviceError::Io)),
            2.. if operation.kind == OperationKind::Write => {
                Some(Fault::Partly(DeviceError::Quota, 2))
            }
            _ => None,
        });
        assert!(fs.rename(Path::new("/a"), Path::new("/b")).is_err());
        let file = fs.open_write(Path::new("/b"))?;
        let error = file.write_at(0, b"abc").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(file.len()?, 2);
        fs.clear();
        let reader = fs.open_read(Path::new("/b"))?;
        fs.add_rule(FaultRule::new(Fault::Partly(DeviceError::EndOfFile, 1)));
        let mut bytes = [0; 2];
        let error = reader.read_exact_at(&mut bytes, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(&bytes, b"a\0");
        Ok(())
    }

    #[test]
    fn a_full_disk_takes_what_it_has_already_until_it_is_freed() -> io::Result<()> {
        let fs = fault_fs();
        let log = fs.create(Path::new("/log"))?;
        log.allocate(100)?;
        let table = fs.create(Path::new("/table"))?;
        fs.set_free_bytes(Some(10));
        table.write_at(0, b"1234")?;
        log.write_at(0, &[1; 100])?;
        let error = table.write_at(0, &[2; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(table.len()?, 10, "the part that fitted was written");
        for refused in [
            table.write_at(10, b"x"),
            table.allocate(11),
            table.set_len(11),
        ] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        table.allocate(10)?;
        table.write_at(9, b"x")?;
        fs.create(Path::new("/names cost nothing"))?;
        assert_eq!(fs.faults(), 4);
        fs.set_free_bytes(None);
        table.write_at(10, b"x")
    }
}
