//! What the process has used so far: CPU time, memory, bytes read and written; and the machine.
//!
//! Invariant: a figure that the system does not give is `None`, never a guess. Linux gives all.

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds of all threads.
    pub cpu_seconds: f64,
    /// Bytes that the process caused to be written to the device.
    pub bytes_written: Option<u64>,
    /// Bytes that the process caused to be read from the device.
    pub bytes_read: Option<u64>,
}

impl Usage {
    /// As of now.
    #[must_use]
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let io = read_text(Path::new("/proc/self/io")).unwrap_or_default();
        let cancelled = field(&io, "cancelled_write_bytes").unwrap_or(0);
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            bytes_written: field(&io, "write_bytes").map(|bytes| bytes.saturating_sub(cancelled)),
            bytes_read: field(&io, "read_bytes"),
        }
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Usage) -> Usage {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Usage {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            bytes_written: difference(self.bytes_written, earlier.bytes_written),
            bytes_read: difference(self.bytes_read, earlier.bytes_read),
        }
    }
}

/// The most memory that was resident at once since the last [`reset_peak_memory`], bytes.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = read_text(Path::new("/proc/self/status"))?;
    Some(field(&status, "VmHWM")? * 1024)
}

/// Begins a new peak, where the system allows that.
pub fn reset_peak_memory() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open("/proc/self/clear_refs", flags, Mode::empty()) {
        // Where that is refused, peaks are those since the start of the process.
        let _ = rustix::io::write(&file, b"5");
    }
}

/// The machine that a report comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// What the processor calls itself.
    pub processor: Option<String>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Kernel and its release.
    pub system: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let info = read_text(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let processor = info.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        let memory = read_text(Path::new("/proc/meminfo")).unwrap_or_default();
        let name = rustix::system::uname();
        Self {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            processor,
            memory_bytes: field(&memory, "MemTotal").map(|kibibytes| kibibytes * 1024),
            system: format!(
                "{} {} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy(),
                name.machine().to_string_lossy()
            ),
        }
    }
}

/// The number behind `name:` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

/// A file of the kernel, whose length is not known before it is read.
fn read_text(path: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        match rustix::io::read(&file, &mut buffer).ok()? {
            0 => return String::from_utf8(text).ok(),
            bytes => text.extend_from_slice(&buffer[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_grows() {
        let before = Usage::now();
        let mut x = 1u64;
        while Usage::now().cpu_seconds - before.cpu_seconds < 0.005 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(Usage::now().since(&before).cpu_seconds >= 0.005);
    }

    #[test]
    fn fields_are_whole_names_at_the_start_of_a_line() {
        let text = "cancelled_write_bytes: 3\nwrite_bytes: 17 kB\n";
        assert_eq!(field(text, "write_bytes"), Some(17));
        assert_eq!(field(text, "bytes"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_how_much_memory_was_used() {
        reset_peak_memory();
        assert!(peak_memory_bytes().unwrap() > 100_000);
        assert!(Machine::this().memory_bytes.unwrap() > 1 << 20);
    }
}
