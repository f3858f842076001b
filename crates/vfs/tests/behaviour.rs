//! The one suite of behaviour that every file system must pass: the real one, the one in memory, and
//! each decorator that has nothing to do. A difference between them would make every simulation of
//! the engine a simulation of something else.
#![allow(clippy::unwrap_used)]

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_vfs::{
    CrashFileSystem, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem, OsFileSystem,
    RandomAccessFile, TraceFileSystem, WritableFile,
};

/// A file system and an empty directory in it.
struct Place {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn put(&self, name: &str, data: &[u8]) -> Arc<dyn WritableFile> {
        let file = self.fs.create(&self.path(name)).unwrap();
        file.write_at(0, data).unwrap();
        file
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        contents(&*self.fs.open_read(&self.path(name)).unwrap())
    }

    fn listing(&self) -> Vec<String> {
        let entries = self.fs.read_dir(&self.root).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

fn contents(file: &dyn RandomAccessFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this had to fail"),
        Err(error) => error.kind(),
    }
}

fn reads_and_writes_are_positional(at: &Place) {
    let file = at.put("a", b"hello world");
    file.write_at(6, b"there").unwrap();
    file.write_at(14, b"!").unwrap();
    assert_eq!(at.contents("a"), b"hello there\0\0\0!");
    let reader = at.fs.open_read(&at.path("a")).unwrap();
    let mut word = [0; 5];
    reader.read_exact_at(&mut word, 6).unwrap();
    assert_eq!(&word, b"there");
    assert_eq!(
        kind(reader.read_exact_at(&mut word, 11)),
        ErrorKind::UnexpectedEof
    );
    assert_eq!(
        kind(reader.read_exact_at(&mut word, 1 << 40)),
        ErrorKind::UnexpectedEof
    );
    reader.read_exact_at(&mut [], 4).unwrap();
    assert_eq!((reader.len().unwrap(), file.len().unwrap()), (15, 15));
    file.write_at(100, b"").unwrap();
    assert_eq!(
        file.len().unwrap(),
        15,
        "a write of nothing extends nothing"
    );
    reader.sequential(true);
    reader.sequential(false);
    file.sync_data().unwrap();
    at.fs.sync_dir(&at.root).unwrap();
}

fn lengths_grow_with_zeros_and_shrink(at: &Place) {
    let file = at.put("a", &[1; 100_000]);
    assert!(!file.is_empty().unwrap());
    file.set_len(70_000).unwrap();
    file.set_len(80_000).unwrap();
    let mut expected = vec![1; 70_000];
    expected.resize(80_000, 0);
    assert!(at.contents("a") == expected);
    file.set_len(0).unwrap();
    assert!(file.is_empty().unwrap());
    assert!(at.fs.open_read(&at.path("a")).unwrap().is_empty().unwrap());
}

fn allocation_keeps_the_contents_and_maps(at: &Place) {
    let file = at.put("a", b"kept");
    assert!(file.map(4).unwrap().is_none(), "nothing is reserved yet");
    file.allocate(0).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.allocate(100).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    assert!(file.map(10_001).unwrap().is_none());
    assert!(file.map(0).unwrap().is_none());
    let Some(mut window) = file.map(10_000).unwrap() else {
        return assert_eq!(at.contents("a")[..6], *b"kept\0\0");
    };
    assert!(file.map(10).unwrap().is_none(), "one window at a time");
    window.copy_at(9_997, b"end").unwrap();
    window.copy_at(4, b"!").unwrap();
    window.copy_at(10_000, b"").unwrap();
    for offset in [9_998, 10_000, u64::MAX - 1, u64::MAX] {
        assert_eq!(
            kind(window.copy_at(offset, b"end")),
            ErrorKind::InvalidInput,
            "{offset}"
        );
    }
    assert_eq!(kind(file.set_len(9_999)), ErrorKind::InvalidInput);
    let seen = at.contents("a");
    assert_eq!(
        (&seen[..6], &seen[9_996..]),
        (&b"kept!\0"[..], &b"\0end"[..])
    );
    drop(window);
    file.sync_data().unwrap();
    assert!(at.contents("a") == seen);
    file.set_len(5).unwrap();
    assert!(
        file.map(10).unwrap().is_none(),
        "the cut gave the space back"
    );
    assert_eq!(at.contents("a"), b"kept!");
}

fn creating_and_opening_say_what_is_wrong(at: &Place) {
    at.put("file", b"x");
    at.fs.create_dir_all(&at.path("dir/inner")).unwrap();
    at.fs.create_dir_all(&at.path("dir/inner")).unwrap();
    let fs = &at.fs;
    assert_eq!(kind(fs.create(&at.path("file"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.create(&at.path("dir"))), ErrorKind::AlreadyExists);
    assert_eq!(
        kind(fs.create(&at.path("absent/file"))),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.create(&at.path("file/file"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind(fs.open_read(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(kind(fs.open_read(&at.path("dir"))), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.open_write(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(
        kind(fs.open_write(&at.path("dir"))),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(fs.create_dir_all(&at.path("file/dir"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind(fs.read_dir(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(
        kind(fs.read_dir(&at.path("file"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind(fs.sync_dir(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(
        kind(fs.sync_dir(&at.path("file"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(kind(fs.metadata(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(
        kind(fs.metadata(&at.path("file/x"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(fs.canonicalize(&at.path("absent"))),
        ErrorKind::NotFound
    );
    let around = at.path("dir/../file");
    assert_eq!(
        fs.canonicalize(&around).unwrap(),
        fs.canonicalize(&at.path("file")).unwrap()
    );
}

fn directories_list_in_order(at: &Place) {
    at.put("b", b"12");
    at.put("a", b"1");
    at.fs.create_dir_all(&at.path("c")).unwrap();
    let entries = at.fs.read_dir(&at.root).unwrap();
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.bytes, entry.is_dir))
        .collect();
    assert_eq!(entries, [("a", 1, false), ("b", 2, false), ("c", 0, true)]);
    let entry = at.fs.metadata(&at.path("b")).unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.bytes, entry.is_dir),
        ("b", 2, false)
    );
    assert!(at.fs.metadata(&at.root).unwrap().is_dir);
}

fn removal_says_what_is_wrong(at: &Place) {
    at.put("file", b"x");
    at.fs.create_dir_all(&at.path("dir/inner")).unwrap();
    let fs = &at.fs;
    assert_eq!(
        kind(fs.remove_file(&at.path("absent"))),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.remove_file(&at.path("dir"))),
        ErrorKind::IsADirectory
    );
    assert_eq!(kind(fs.remove_dir(&at.path("absent"))), ErrorKind::NotFound);
    assert_eq!(
        kind(fs.remove_dir(&at.path("file"))),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(fs.remove_dir(&at.path("dir"))),
        ErrorKind::DirectoryNotEmpty
    );
    fs.remove_dir(&at.path("dir/inner")).unwrap();
    fs.remove_dir(&at.path("dir")).unwrap();
    fs.remove_file(&at.path("file")).unwrap();
    assert!(at.listing().is_empty());
}

fn unlinked_files_live_until_closed(at: &Place) {
    let writer = at.put("a", b"old");
    let reader = at.fs.open_read(&at.path("a")).unwrap();
    at.fs.remove_file(&at.path("a")).unwrap();
    writer.write_at(3, b"er").unwrap();
    writer.sync_data().unwrap();
    assert_eq!(contents(&*reader), b"older");
    at.put("a", b"another");
    assert_eq!(contents(&*reader), b"older");
}

fn renaming_replaces_and_keeps_open_files(at: &Place) {
    at.put("old", b"old");
    let reader = at.fs.open_read(&at.path("old")).unwrap();
    let writer = at.put("new", b"new");
    at.fs.rename(&at.path("new"), &at.path("old")).unwrap();
    assert_eq!(
        (at.contents("old"), contents(&*reader)),
        (b"new".to_vec(), b"old".to_vec())
    );
    assert_eq!(at.listing(), ["old"]);
    writer.write_at(3, b"er").unwrap();
    assert_eq!(at.contents("old"), b"newer", "a handle follows its file");
    at.fs.rename(&at.path("old"), &at.path("old")).unwrap();
    assert_eq!(at.contents("old"), b"newer");
}

fn renaming_says_what_is_wrong(at: &Place) {
    at.put("file", b"x");
    at.fs.create_dir_all(&at.path("empty")).unwrap();
    at.fs.create_dir_all(&at.path("full/inner")).unwrap();
    let rename = |from: &str, to: &str| at.fs.rename(&at.path(from), &at.path(to));
    assert_eq!(kind(rename("absent", "x")), ErrorKind::NotFound);
    assert_eq!(kind(rename("file", "absent/x")), ErrorKind::NotFound);
    assert_eq!(kind(rename("file", "empty")), ErrorKind::IsADirectory);
    assert_eq!(kind(rename("empty", "file")), ErrorKind::NotADirectory);
    assert_eq!(kind(rename("empty", "full")), ErrorKind::DirectoryNotEmpty);
    assert_eq!(
        kind(rename("full", "full/inner/x")),
        ErrorKind::InvalidInput
    );
    rename("full", "empty").unwrap();
    rename("file", "empty/inner/file").unwrap();
    assert_eq!(at.listing(), ["empty"]);
    assert_eq!(at.contents("empty/inner/file"), b"x");
}

fn hard_links_share_one_file(at: &Place) {
    let writer = at.put("a", b"one");
    at.fs.hard_link(&at.path("a"), &at.path("b")).unwrap();
    writer.write_at(0, b"two").unwrap();
    assert_eq!(at.contents("b"), b"two");
    assert_eq!(
        kind(at.fs.hard_link(&at.path("a"), &at.path("b"))),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(at.fs.hard_link(&at.path("x"), &at.path("y"))),
        ErrorKind::NotFound
    );
    at.fs.rename(&at.path("a"), &at.path("b")).unwrap();
    assert_eq!(
        at.listing(),
        ["a", "b"],
        "two names of one file: a rename does nothing"
    );
    at.fs.remove_file(&at.path("a")).unwrap();
    assert_eq!(at.contents("b"), b"two");
}

fn locks_exclude_each_other(at: &Place) {
    let path = at.path("LOCK");
    let held = at.fs.lock(&path).unwrap();
    assert_eq!(kind(at.fs.lock(&path)), ErrorKind::WouldBlock);
    at.fs.create_dir_all(&at.path("dir")).unwrap();
    assert_eq!(
        kind(at.fs.lock(&at.path("dir/../LOCK"))),
        ErrorKind::WouldBlock
    );
    assert_eq!(at.listing(), ["LOCK", "dir"]);
    drop(held);
    let again = at.fs.lock(&path).unwrap();
    assert_eq!(kind(at.fs.lock(&path)), ErrorKind::WouldBlock);
    drop(again);
    assert_eq!(
        kind(at.fs.lock(&at.path("absent/LOCK"))),
        ErrorKind::NotFound
    );
}

fn many_threads_use_one_file(at: &Place) {
    let file = at.put("a", &[]);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for round in 0..50u64 {
                    file.write_at((round * 4 + u64::from(thread)) * 1000, &[thread + 1; 1000])
                        .unwrap();
                }
            });
        }
    });
    let bytes = at.contents("a");
    assert_eq!(bytes.len(), 200_000);
    for (index, block) in bytes.chunks(1000).enumerate() {
        assert!(
            block.iter().all(|byte| usize::from(*byte) == index % 4 + 1),
            "block {index}"
        );
    }
}

type Case = fn(&Place);

fn passes_the_suite(fs: Arc<dyn FileSystem>, root: &Path) {
    let cases: [(&str, Case); 13] = [
        ("positional", reads_and_writes_are_positional),
        ("lengths", lengths_grow_with_zeros_and_shrink),
        ("allocation", allocation_keeps_the_contents_and_maps),
        ("opening", creating_and_opening_say_what_is_wrong),
        ("listing", directories_list_in_order),
        ("removal", removal_says_what_is_wrong),
        ("unlinked", unlinked_files_live_until_closed),
        ("renaming", renaming_replaces_and_keeps_open_files),
        ("rename-errors", renaming_says_what_is_wrong),
        ("links", hard_links_share_one_file),
        ("locks", locks_exclude_each_other),
        ("threads", many_threads_use_one_file),
        ("nothing", |at| assert!(at.listing().is_empty())),
    ];
    for (name, case) in cases {
        let root = root.join(name);
        fs.create_dir_all(&root).unwrap();
        case(&Place {
            fs: Arc::clone(&fs),
            root,
        });
    }
}

#[test]
fn the_operating_system_passes() {
    let directory = tempfile::tempdir().unwrap();
    passes_the_suite(Arc::new(OsFileSystem::new()), directory.path());
}

#[test]
fn memory_passes() {
    passes_the_suite(Arc::new(MemFileSystem::new()), Path::new("/deep/inside"));
}

#[test]
fn memory_passes_with_relative_paths() {
    passes_the_suite(Arc::new(MemFileSystem::new()), Path::new("./here"));
}

#[test]
fn a_trace_changes_nothing() {
    let traced = TraceFileSystem::new(Arc::new(MemFileSystem::new()));
    passes_the_suite(Arc::new(traced.clone()), Path::new("/x"));
    assert!(traced.entries().len() > 100);
}

#[test]
fn a_fault_layer_without_faults_changes_nothing() {
    let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    passes_the_suite(Arc::new(fs.clone()), Path::new("/x"));
    assert_eq!(fs.faults(), 0);
    fs.set_free_bytes(Some(u64::MAX));
    passes_the_suite(Arc::new(fs), Path::new("/y"));
}

#[test]
fn a_simulated_disk_passes_and_so_does_its_image() {
    let fs = CrashFileSystem::new(MemFileSystem::new());
    passes_the_suite(Arc::new(fs.clone()), Path::new("/x"));
    let image = fs.image(fs.operations(), &ImagePolicy::PROCESS_END);
    passes_the_suite(Arc::new(image), Path::new("/y"));
}
