//! What a backup costs, by the bytes that the file system is asked to write into its directory: those of
//! the tables that are new, and next to nothing besides.

use esker::vfs::{FileSystem, MemFileSystem, OperationKind, TraceFileSystem};
use esker::{BackupInfo, Compression, Db, Durability, ManualClock, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const HOME: &str = "/db";
const SAFE: &str = "/safe";
const KEYS: u32 = 40_000;

struct World {
    fs: Arc<TraceFileSystem>,
    db: Db,
}

impl World {
    /// A settled database with backups in another directory, where links are no way out.
    fn new() -> Self {
        let disk = MemFileSystem::new();
        disk.create_dir_all(Path::new(HOME)).unwrap();
        let fs = Arc::new(TraceFileSystem::new(Arc::new(disk)));
        let db = Options::new()
            .file_system(fs.clone())
            .clock(Arc::new(ManualClock::at_millis(1_136_214_245_000)))
            .backup_directory(SAFE)
            .default_durability(Durability::Buffered)
            .compression(Compression::None)
            .upper_compression(Compression::None)
            .write_buffer_bytes(1 << 20)
            .target_file_bytes(256 << 10)
            .open(HOME)
            .unwrap();
        let world = Self { fs, db };
        world.change((0..KEYS).collect(), "first");
        world.db.compact().unwrap();
        world
    }

    fn change(&self, keys: Vec<u32>, what: &str) {
        for key in keys {
            let value = format!("{what} value of {key:>60}");
            self.db.put(format!("key {key:06}"), value).unwrap();
        }
    }

    /// Makes a backup, and says how many bytes were written into the directory of the backups.
    fn back_up(&self) -> (BackupInfo, u64) {
        self.db.wait_for_background_work().unwrap();
        self.fs.clear();
        let info = self.db.create_backup("counted").unwrap();
        let entries = self.fs.entries();
        let written = entries
            .iter()
            .map(|entry| &entry.operation)
            .filter(|operation| {
                let is_write = matches!(operation.kind, OperationKind::Write | OperationKind::Copy);
                is_write && operation.path.starts_with(SAFE)
            });
        (info, written.map(|operation| operation.bytes).sum())
    }

    fn contents(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let entries = self.db.iter().map(Result::unwrap);
        entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    }
}

#[test]
fn a_second_backup_writes_what_has_changed() {
    let world = World::new();
    let (first, all) = world.back_up();
    assert!(all >= first.size_bytes() && first.size_bytes() > 1 << 20);
    let (_, again) = world.back_up();
    assert!(again * 100 < all, "unchanged: {again} of {all} bytes");
    // Less than a hundredth, all over the keys.
    world.change((0..KEYS).step_by(150).collect(), "scattered");
    let (scattered, bytes) = world.back_up();
    assert!(bytes * 50 < all, "scattered: {bytes} of {all} bytes");
    assert!(scattered.new_bytes() <= bytes);
    let then = world.contents();
    // And side by side, with deletions.
    world.change((500..800).collect(), "together");
    world.db.delete_range("key 020000".."key 020100").unwrap();
    let (_, bytes) = world.back_up();
    assert!(bytes * 50 < all, "together: {bytes} of {all} bytes");
    // What was copied once is whole all the same.
    world.db.restore_backup(scattered.name()).unwrap();
    assert!(world.contents() == then);
    for info in world.db.list_backups().unwrap() {
        assert!(world.db.verify_backup(info.name()).unwrap().is_ok());
    }
}
