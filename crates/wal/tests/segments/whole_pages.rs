//! Synced groups that a real file system writes as whole pages, past its cache: the file holds what it would
//! hold had they been written byte by byte, after every step.

use esker_vfs::{OsFileSystem, Random};

use super::*;

/// One step, of both writers.
fn step(writers: &mut [SegmentWriter; 2], random: &mut Random) {
    let payload = vec![random.below(250) as u8 + 1; LENGTHS[random.below(7) as usize]];
    let (action, second) = (random.below(10), random.below(2) == 0);
    for writer in writers {
        match action {
            0 => writer.append_one(&payload, SyncMode::Buffered).unwrap(),
            1 => writer.sync().unwrap(),
            2 => {
                let group: [&[u8]; 2] = [&payload, b"in one group"];
                writer.append(&group, SyncMode::Sync).unwrap();
                writer.sync().unwrap();
            }
            _ => {
                writer.append_one(&payload, SyncMode::Sync).unwrap();
                if second || action > 4 {
                    writer.sync().unwrap();
                }
            }
        }
    }
}

/// Mostly such that many groups share a page.
const LENGTHS: [usize; 7] = [0, 40, 100, 100, 700, 4070, 20_000];

#[test]
fn a_file_on_a_disk_holds_the_same_bytes_as_one_in_memory() {
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let on_disk = directory.path().join("000007.wal");
        let in_memory = MemFileSystem::new();
        let options = SegmentOptions {
            segment_bytes: 512 << 10,
            mapped: seed % 2 == 0,
            zero_ahead_bytes: [0, 8 << 10, 64 << 10][seed as usize % 3],
            copied_syncs: true,
            may_grow: false,
        };
        let create = |fs: &dyn FileSystem, path: &Path| {
            SegmentWriter::create(fs, path, HEADER, options).unwrap()
        };
        let os = OsFileSystem::new();
        let mut writers = [create(&os, &on_disk), create(&in_memory, path())];
        let mut random = Random::new(seed);
        for number in 0..300 {
            if writers[0].remaining_bytes() < 80 << 10 {
                break;
            }
            step(&mut writers, &mut random);
            // Read through the cache, which must not remember what was there before.
            let bytes = std::fs::read(&on_disk).unwrap();
            assert!(
                bytes == file_bytes(&in_memory),
                "seed {seed}, step {number}"
            );
        }
        for mut writer in writers {
            writer.seal(8).unwrap();
            writer.sync().unwrap();
        }
        assert!(
            std::fs::read(&on_disk).unwrap() == file_bytes(&in_memory),
            "seed {seed}"
        );
    }
}
