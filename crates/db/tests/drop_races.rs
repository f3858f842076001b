//! A keyspace that is dropped while its memtable is being flushed. The simulation found that the
//! flush's table then stayed in the directory, named by nothing, until the next open.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use esker::{Db, Options};
use esker_compaction::{Lane, ManualExecutor};
use esker_testkit::disk::{
    FileSystem, Intercepted, Interceptor, MemFileSystem, Operation, OperationKind, Verdict,
};

type Deed = Box<dyn FnOnce() + Send>;

/// Does something at the first creation of a table.
#[derive(Default)]
struct AtFirstTable(Mutex<Option<Deed>>);

impl std::fmt::Debug for AtFirstTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtFirstTable")
    }
}

impl Interceptor for AtFirstTable {
    fn before(&self, operation: &Operation, _len: &dyn Fn() -> io::Result<u64>) -> Verdict {
        // What it is called until it is finished.
        let is_table = operation.path.extension().is_some_and(|end| end == "tmp");
        if operation.kind == OperationKind::Create && is_table {
            let deed = self.0.lock().unwrap().take();
            if let Some(deed) = deed {
                deed();
            }
        }
        Verdict::Proceed
    }
}

fn tables(fs: &dyn FileSystem) -> Vec<String> {
    let names = fs.read_dir(Path::new("/db")).unwrap().into_iter();
    let names = names.map(|entry| entry.name);
    names.filter(|name| name.ends_with(".sst")).collect()
}

#[test]
fn a_flush_of_a_keyspace_that_is_dropped_meanwhile_leaves_no_file() {
    let memory = MemFileSystem::new();
    let disk = Intercepted::around(Arc::new(memory.clone()), AtFirstTable::default());
    let executor = Arc::new(ManualExecutor::new(1));
    let db: Db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .executor(executor.clone())
        .write_buffer_bytes(4 << 10)
        .open("/db")
        .unwrap();
    let other = db.keyspace("other").unwrap();
    for number in 0..80u32 {
        other.put(number.to_be_bytes(), [7; 100]).unwrap();
        if executor.waiting().contains(&Lane::Flush) {
            break;
        }
    }
    let dropping = db.clone();
    *disk.interceptor().0.lock().unwrap() =
        Some(Box::new(move || dropping.drop_keyspace("other").unwrap()));
    assert!(executor.waiting().contains(&Lane::Flush), "no flush is due");
    while executor.step() {}
    assert!(
        disk.interceptor().0.lock().unwrap().is_none(),
        "no table was written"
    );
    assert_eq!(tables(&memory), Vec::<String>::new());
    assert!(db.validate().unwrap().is_ok());
    db.close().unwrap();
}
