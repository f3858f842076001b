//! A disk in memory and a database on it whose log is in small pieces that come and go often: what the tests of
//! the feed of changes and of its cursors stand on.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{Durability, Options};
use std::path::Path;
use std::sync::Arc;

pub(crate) const HOME: &str = "/db";

/// An empty disk with a place for a database.
pub(crate) fn disk() -> Arc<dyn FileSystem> {
    let fs = MemFileSystem::new();
    fs.create_dir_all(Path::new(HOME)).unwrap();
    Arc::new(fs)
}

/// Small files, so that all of them come and go often.
pub(crate) fn options(fs: &Arc<dyn FileSystem>) -> Options {
    Options::new()
        .file_system(Arc::clone(fs))
        .write_buffer_bytes(16 << 10)
        .target_file_bytes(16 << 10)
        .wal_size_limit_bytes(64 << 10)
        .wal_segment_bytes(16 << 10)
        .manifest_bytes(4 << 10)
        .ttl_cleanup_interval(None)
        .default_durability(Durability::Buffered)
}
