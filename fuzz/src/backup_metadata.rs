//! The metadata of backups whose checksum is right, whatever it says: the bytes are a file in the
//! directory of backups of a database.

use std::path::Path;
use std::sync::Arc;

use esker::Options;
use esker::vfs::{FileSystem, MemFileSystem};
use esker_base::checksum::checksum;

const MAGIC: &[u8] = b"eskerBKP";
/// What the file is called: the name of a backup is its time.
const NAME: &str = "20260101_000000";

/// The backups of a database are listed, looked at, verified and restored, or refused; the database
/// takes no harm.
pub fn backup_metadata(data: &[u8]) {
    let fs = MemFileSystem::new();
    let open = || {
        Options::new()
            .file_system(Arc::new(fs.clone()))
            .wal_size_limit_bytes(64 << 10)
            .wal_segment_bytes(16 << 10)
            .open("/db")
            .expect("a database in memory")
    };
    let db = open();
    db.put("key", "value").expect("a put");
    let directory = Path::new("/db/backups");
    fs.create_dir_all(&directory.join("tables"))
        .expect("a directory");
    let file = fs
        .create(&directory.join(format!("{NAME}.backup")))
        .expect("a file");
    file.write_at(0, &mended(data)).expect("a file in memory");
    if let Ok(backups) = db.list_backups() {
        for backup in backups {
            let _ = (backup.name(), backup.description());
        }
    }
    let _ = db.backup_info(NAME);
    let _ = db.verify_backup(NAME);
    let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let _ = esker::backup::restore_on(&shared, Path::new("/db"), NAME, Path::new("/restored"));
    if db.restore_backup(NAME).is_err() {
        let found = db.get("key").expect("a get");
        assert_eq!(found.as_deref(), Some(&b"value"[..]), "a refused restore");
    }
    let _ = db.delete_backup(NAME);
    let _ = db.close();
    open().close().expect("a close");
}

/// With the magic at its beginning and the right checksum at its end.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(
        data.get(8..data.len().saturating_sub(8))
            .unwrap_or_default(),
    );
    let sum = checksum(&bytes, 0);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}
