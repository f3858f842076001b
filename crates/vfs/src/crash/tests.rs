//! What the simulated disk promises, each promise over many seeds: a mistake here would let the
//! engine's crash sweeps pass for the wrong reason.

mod names;

use std::collections::BTreeSet;

use super::*;
use crate::fault::{DeviceError, Fault, FaultFileSystem, FaultRule};
use crate::random::Random;

const SEEDS: u64 = 200;

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn disk() -> CrashFileSystem {
    CrashFileSystem::new(MemFileSystem::new())
}

/// A file with synced contents and a synced name.
fn durable(fs: &dyn FileSystem, path: &str, data: &[u8]) -> Arc<dyn WritableFile> {
    let file = fs.create(p(path)).unwrap();
    file.write_at(0, data).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(p(path).parent().unwrap()).unwrap();
    file
}

fn contents(fs: &dyn FileSystem, path: &str) -> Option<Vec<u8>> {
    let file = fs.open_read(p(path)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

fn now(disk: &CrashFileSystem, policy: ImagePolicy) -> MemFileSystem {
    disk.image(disk.operations(), &policy)
}

/// Everything in a file system: path and contents, directories without.
fn everything(fs: &dyn FileSystem) -> BTreeSet<(PathBuf, Option<Vec<u8>>)> {
    let mut found = BTreeSet::new();
    let mut directories = vec![PathBuf::from("/")];
    while let Some(directory) = directories.pop() {
        for entry in fs.read_dir(&directory).unwrap() {
            let path = directory.join(entry.name);
            if entry.is_dir {
                directories.push(path.clone());
                found.insert((path, None));
            } else {
                let bytes = contents(fs, path.to_str().unwrap());
                found.insert((path, bytes));
            }
        }
    }
    found
}

fn seeded(make: impl Fn(u64) -> ImagePolicy) -> impl Iterator<Item = ImagePolicy> {
    (0..SEEDS).map(make)
}

/// A write that waits for itself makes nothing else durable: neither what stands before it in the file
/// nor a longer older write that it lies in.
#[test]
fn a_synced_write_covers_its_own_bytes_alone() {
    let disk = disk();
    let file = durable(&disk, "/a", &[b'.'; 10]);
    file.write_at(1, b"before").unwrap();
    file.write_synced_at(3, b"xy").unwrap();
    file.write_at(8, b"z").unwrap();
    let image = now(&disk, ImagePolicy::ONLY_SYNCED);
    assert_eq!(contents(&image, "/a").unwrap(), b"...xy.....");

    assert_eq!(contents(&disk, "/a").unwrap(), b".bexyre.z.");
    // What it needs to be found is durable with it; a sync takes the rest along.
    file.write_synced_at(12, b"end").unwrap();
    let image = now(&disk, ImagePolicy::ONLY_SYNCED);
    assert_eq!(contents(&image, "/a").unwrap(), b"...xy.....\0\0end");
    file.sync_data().unwrap();
    let image = now(&disk, ImagePolicy::ONLY_SYNCED);
    assert_eq!(contents(&image, "/a").unwrap(), b".bexyre.z.\0\0end");
}

#[test]
fn a_sync_covers_its_own_file_alone() {
    let fs = disk();
    let (a, b) = (durable(&fs, "/a", b""), durable(&fs, "/b", b""));
    a.write_at(0, b"aa").unwrap();
    b.write_at(0, b"bb").unwrap();
    b.sync_data().unwrap();
    b.write_at(0, b"cc").unwrap();
    let image = now(&fs, ImagePolicy::ONLY_SYNCED);
    assert_eq!(contents(&image, "/a").unwrap(), b"");
    assert_eq!(contents(&image, "/b").unwrap(), b"bb");
}

#[test]
fn sectors_survive_whole_and_on_their_own() {
    let fs = disk();
    let file = durable(&fs, "/a", &[1; 2048]);
    file.write_at(256, &[2; 1536]).unwrap();
    file.write_at(512, &[3; 512]).unwrap();
    let mut seen = BTreeSet::new();
    for policy in seeded(ImagePolicy::random_subset) {
        let bytes = contents(&now(&fs, policy), "/a").unwrap();
        assert_eq!(bytes.len(), 2048);
        assert!(
            bytes[..256]
                .iter()
                .chain(&bytes[1792..])
                .all(|byte| *byte == 1),
            "{policy}"
        );
        let sector = |range: std::ops::Range<usize>| {
            let sector = &bytes[range];
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "torn in a sector: {policy}"
            );
            sector[0]
        };
        seen.insert([
            sector(256..512),
            sector(512..1024),
            sector(1024..1536),
            sector(1536..1792),
        ]);
    }
    assert_eq!(
        seen.len(),
        2 * 3 * 2 * 2,
        "each combination occurs: {seen:?}"
    );
}

#[test]
fn lengths_are_some_length_that_the_file_had() {
    let fs = disk();
    let file = durable(&fs, "/a", &[1; 100]);
    file.set_len(50).unwrap();
    file.write_at(100, &[2; 100]).unwrap();
    file.allocate(1000).unwrap();
    let mut seen = BTreeSet::new();
    for policy in seeded(ImagePolicy::random_subset) {
        let bytes = contents(&now(&fs, policy), "/a").unwrap();
        seen.insert(bytes.len());
        for (at, byte) in bytes.iter().enumerate() {
            let legal: &[u8] = match at {
                0..50 => &[1],
                50..100 if bytes.len() == 100 => &[0, 1],
                100..200 => &[0, 2],
                _ => &[0],
            };
            assert!(
                legal.contains(byte),
                "{byte} at {at} of {}: {policy}",
                bytes.len()
            );
        }
    }
    assert_eq!(seen, BTreeSet::from([50, 100, 200, 1000]));
}

#[test]
fn a_torn_tail_is_a_prefix_over_all_files() {
    let fs = disk();
    let files = [durable(&fs, "/0", b""), durable(&fs, "/1", b"")];
    for round in 0..4u8 {
        for file in &files {
            file.write_at(u64::from(round) * 8, &[round + 1; 8])
                .unwrap();
        }
    }
    let mut lengths = BTreeSet::new();
    for policy in seeded(ImagePolicy::torn_tail) {
        let image = now(&fs, policy);
        let [zero, one] = ["/0", "/1"].map(|path| contents(&image, path).unwrap());
        let expected = |at: usize| (at / 8 + 1) as u8;
        for bytes in [&zero, &one] {
            assert!(
                bytes
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == expected(at)),
                "{policy}"
            );
        }
        // Whole rounds alternate; only the last write of all is torn.
        assert!(zero.len() >= one.len() / 8 * 8 && one.len() >= (zero.len() / 8 * 8).max(8) - 8);
        assert!(zero.len() % 8 == 0 || one.len() % 8 == 0, "{policy}");
        lengths.insert(zero.len() + one.len());
    }
    assert!(lengths.len() > 40, "{lengths:?}");
}

#[test]
fn garbage_stays_where_unsynced_writes_went() {
    let fs = disk();
    let file = durable(&fs, "/a", &[1; 1000]);
    file.write_at(900, &[2; 600]).unwrap();
    let (mut garbage, mut whole) = (0, 0);
    for policy in seeded(ImagePolicy::garbage_tail) {
        let bytes = contents(&now(&fs, policy), "/a").unwrap();
        assert_eq!(bytes.len(), 1500);
        assert!(bytes[..900].iter().all(|byte| *byte == 1), "{policy}");
        garbage += u32::from(bytes[900..].iter().any(|byte| *byte > 2));
        whole += u32::from(bytes[900..] == [2; 600]);
    }
    assert!(garbage > 50 && whole > 5, "{garbage}, {whole}");
}

#[test]
fn stores_into_a_window_are_logged() {
    let fs = disk();
    let file = durable(&fs, "/a", b"");
    file.allocate(100).unwrap();
    let mut window = file.map(100).unwrap().unwrap();
    window.copy_at(10, b"hello").unwrap();
    assert!(window.copy_at(98, b"hello").is_err());
    let copied = fs.operations();
    file.sync_data().unwrap();
    assert_eq!(
        fs.operation(copied - 1).unwrap().to_string(),
        "copy /a 10+5"
    );
    assert_eq!(fs.operation(copied).unwrap().to_string(), "sync /a");
    let at = |operations| contents(&fs.image(operations, &ImagePolicy::ONLY_SYNCED), "/a").unwrap();
    assert_eq!(at(copied), b"");
    assert_eq!(at(copied + 1)[10..15], *b"hello");
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_writes() {
    let disk = disk();
    let fs = FaultFileSystem::new(Arc::new(disk.clone()));
    let file = durable(&fs, "/a", b"....");
    fs.add_rule(
        FaultRule::new(Fault::Refuse(DeviceError::Io))
            .on(&[OperationKind::Sync])
            .times(1),
    );
    file.write_at(0, b"ab").unwrap();
    assert!(file.sync_data().is_err());
    file.write_at(2, b"cd").unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        contents(&fs, "/a").unwrap(),
        b"abcd",
        "the page cache still has it"
    );
    assert_eq!(
        contents(&now(&disk, ImagePolicy::ONLY_SYNCED), "/a").unwrap(),
        b"..cd"
    );
    assert_eq!(
        contents(&now(&disk, ImagePolicy::PROCESS_END), "/a").unwrap(),
        b"abcd"
    );
}

#[test]
fn the_part_of_a_write_that_fitted_is_logged() {
    let mem = MemFileSystem::with_capacity(10);
    let fs = CrashFileSystem::new(mem);
    let file = durable(&fs, "/a", b"1234");
    let error = file.write_at(2, b"abcdefghijkl").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file.allocate(11).is_err());
    file.sync_data().unwrap();
    assert_eq!(
        contents(&now(&fs, ImagePolicy::ONLY_SYNCED), "/a").unwrap(),
        b"12abcdefgh"
    );
}

/// A random run over a few names; `see` is shown the disk after every step.
fn random_run(seed: u64, fs: &dyn FileSystem, mut see: impl FnMut()) {
    let mut random = Random::new(seed);
    let path = |random: &mut Random| {
        let directory = ["/", "/d", "/d/e", "/f"][random.index(4)];
        p(directory).join(["x", "y", "z"][random.index(3)])
    };
    fs.create_dir_all(p("/d/e")).unwrap();
    let mut open: Vec<Arc<dyn WritableFile>> = Vec::new();
    for _ in 0..60 {
        let (a, b) = (path(&mut random), path(&mut random));
        let file = random.index(open.len().max(1));
        // Many of these fail, which has to leave no trace.
        let _ = match random.below(12) {
            0 | 1 => fs.create(&a).map(|file| open.push(file)),
            2 => fs.open_write(&a).map(|file| open.push(file)),
            3 => fs.rename(&a, &b),
            4 => fs.hard_link(&a, &b),
            5 => fs.remove_file(&a),
            6 => fs.sync_dir(a.parent().unwrap()),
            7 => fs
                .create_dir_all(p("/f"))
                .and_then(|()| fs.rename(p("/d/e"), p("/f/e"))),
            8 => open
                .get(file)
                .map_or(Ok(()), |file| file.set_len(random.below(2000))),
            9 => open.get(file).map_or(Ok(()), |file| file.sync_data()),
            _ => open.get(file).map_or(Ok(()), |file| {
                let mut data = vec![0; random.index(1500)];
                random.fill(&mut data);
                file.write_at(random.below(3000), &data)
            }),
        };
        see();
    }
}

#[test]
fn the_end_of_the_process_loses_nothing_at_any_point() {
    for seed in 0..50 {
        let fs = disk();
        let mut states = Vec::new();
        random_run(seed, &fs, || {
            states.push((fs.operations(), everything(&fs)))
        });
        let mut replay = fs.replay();
        for (operations, state) in states {
            let image = replay.image(operations, &ImagePolicy::PROCESS_END);
            assert_eq!(
                everything(&image),
                state,
                "seed {seed}, {operations} operations"
            );
        }
    }
}

#[test]
fn where_all_is_synced_every_policy_gives_the_same_disk() {
    for seed in 0..50 {
        let fs = disk();
        random_run(seed, &fs, || {});
        let mut directories = vec![PathBuf::from("/")];
        while let Some(directory) = directories.pop() {
            for entry in fs.read_dir(&directory).unwrap() {
                let path = directory.join(entry.name);
                match fs.open_write(&path) {
                    Ok(file) => file.sync_data().unwrap(),
                    Err(_) => directories.push(path),
                }
            }
            fs.sync_dir(&directory).unwrap();
        }
        let mut replay = fs.replay();
        let operations = replay.operations();
        for policy in (0..20).map(ImagePolicy::from_seed) {
            let image = replay.image(operations, &policy);
            assert_eq!(everything(&image), everything(&fs), "seed {seed}, {policy}");
        }
    }
}

#[test]
fn an_image_depends_on_operations_and_policy_alone() {
    let fs = disk();
    random_run(7, &fs, || {});
    let mut replay = fs.replay();
    for operations in (0..=replay.operations()).rev() {
        let policy = ImagePolicy::from_seed(operations as u64);
        let image = everything(&replay.image(operations, &policy));
        assert_eq!(
            image,
            everything(&fs.image(operations, &policy)),
            "{operations}, {policy}"
        );
    }
}

#[test]
fn an_image_is_a_disk_that_can_crash_again() {
    let fs = disk();
    durable(&fs, "/a", b"first");
    let again = CrashFileSystem::new(now(&fs, ImagePolicy::ONLY_SYNCED));
    let file = again.open_write(p("/a")).unwrap();
    file.write_at(0, b"second").unwrap();
    assert_eq!(
        contents(&now(&again, ImagePolicy::ONLY_SYNCED), "/a").unwrap(),
        b"first"
    );
    file.sync_data().unwrap();
    assert_eq!(
        contents(&now(&again, ImagePolicy::ONLY_SYNCED), "/a").unwrap(),
        b"second"
    );
    assert_eq!(contents(&fs, "/a").unwrap(), b"first");
}
