//! Pointers to values, what tables say of theirs, and following them, whatever the bytes are.

use std::sync::{Arc, OnceLock};

use esker_base::ValueKind;
use esker_base::filename::table_path;
use esker_base::table_meta::ValueRef;
use esker_base::value_pointer::ValuePointer;
use esker_sstable::{BlockCache, Table, TableOptions, TableWriter};
use esker_vfs::MemFileSystem;

/// A table of two values, made once.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let fs = MemFileSystem::new();
        let path = table_path(std::path::Path::new("/"), 7);
        let mut writer = TableWriter::create(&fs, &path, 7, &TableOptions::default())
            .expect("memory takes a table");
        for key in [b"a", b"b"] {
            writer
                .add_value(key, 1, &[key[0]; 300])
                .expect("memory takes a value");
        }
        writer.finish(0).expect("memory takes a footer");
        Table::open(&fs, &path, 7, Arc::clone(&BlockCache::new(0))).expect("it was just written")
    })
}

/// A pointer reads as it was written or not at all, and leads to the value of its key or to an error.
///
/// # Panics
/// Where one of these does not hold.
pub fn value_pointer(data: &[u8]) {
    if let Ok(pointer) = ValuePointer::decode(data) {
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        assert_eq!(ValuePointer::decode(&bytes).ok(), Some(pointer));
        if let Ok(value) = table().value_at(b"a", &pointer) {
            assert_eq!(&*value, &[b'a'; 300]);
        }
    }
    if let Ok((Some(_), pointer)) = ValuePointer::of_stored(ValueKind::ValuePointerWithExpiry, data)
    {
        assert_eq!(ValuePointer::decode(&data[8..]).ok(), Some(pointer));
    }
    if let Ok(refs) = ValueRef::decode_all(data) {
        let again = ValueRef::decode_all(&ValueRef::encode_all(&refs));
        assert_eq!(again.ok(), Some(refs));
    }
}
