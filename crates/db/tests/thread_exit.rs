//! A thread that ends: what it keeps in variables of its own is dropped when some of what esker keeps of it is gone.
//!
//! The story: buffers of a thread for reads and writes were asked for as if they were always there. A value
//! in a thread-local variable that writes what it has gathered when it is dropped, or that is the last handle of a
//! database, ended the process with it.
#![allow(clippy::unwrap_used)]

use esker::{Db, Options, WriteBatch};
use std::cell::RefCell;

/// Runs when the thread ends.
struct AtExit(RefCell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

thread_local! {
    static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) };
}

fn use_all(db: &Db, round: u32) {
    let key = |number: u32| format!("{number:05}");
    assert_eq!(
        db.get(key(round * 7)).unwrap().as_deref(),
        Some(&[7; 3000][..])
    );
    let mut cursor = db.cursor();
    cursor.seek(key(500 + round * 9)).unwrap();
    for _ in 0..20 {
        assert_eq!(cursor.value(), [7; 3000]);
        cursor.next().unwrap();
    }
    db.put("written", format!("{round}")).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("batch", "1");
    db.write(batch).unwrap();
    db.transact(|it| it.put("transaction", "1")).unwrap();
    let keys = [key(1), key(300 + round)];
    assert!(db.multi_get(&keys).unwrap().iter().all(Option::is_some));
}

#[test]
fn a_database_is_used_and_closed_by_what_a_thread_drops_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options::new().cache_bytes(0);
    let db = options().open(directory.path()).unwrap();
    for number in 0..1000 {
        db.put(format!("{number:05}"), [7; 3000]).unwrap();
    }
    db.flush().unwrap();
    std::thread::spawn(move || {
        // Made before anything that esker has in this thread, so it goes after all of that.
        AT_EXIT.with(|at_exit| {
            let db = db.clone();
            *at_exit.0.borrow_mut() = Some(Box::new(move || {
                use_all(&db, 2);
                drop(db);
            }));
        });
        use_all(&db, 1);
        drop(db);
    })
    .join()
    .unwrap();
    let db = options().open(directory.path()).unwrap();
    assert_eq!(db.get("written").unwrap().as_deref(), Some(&b"2"[..]));
}
