//! Every operation failing once, in every way: an edit takes effect or fails, memory says which, and
//! the next edit cures the failure without a reopening.

use esker_base::ErrorKind;
use esker_vfs::{DeviceError, Fault, FaultFileSystem, FaultRule, OperationKind};

use super::workload::{Naive, Workload, trimmed};
use super::*;

const FAULTS: [Fault; 4] = [
    Fault::Refuse(DeviceError::Io),
    Fault::Refuse(DeviceError::NoSpace),
    Fault::Partly(DeviceError::NoSpace, 9),
    Fault::Deny(DeviceError::Io),
];

#[test]
fn every_operation_of_a_workload_fails_once() {
    for fault in FAULTS {
        for index in 0.. {
            let disk = empty();
            let fs = FaultFileSystem::new(shared(&disk));
            fs.fail_at(index, fault);
            let set = match create(&fs) {
                Ok(set) => set,
                Err(_) => {
                    let made = VersionSet::exists(&disk, directory()).unwrap();
                    if made { recover(&disk) } else { create(&fs) }.unwrap()
                }
            };
            if !run(&disk, &set, &format!("{fault:?} at {index}")) && fs.faults() == 0 {
                assert!(index > 60, "the workload was too short: {index}");
                break;
            }
        }
    }
}

/// Applies edits, each again where it failed. Returns whether one did.
fn run(disk: &MemFileSystem, set: &VersionSet, context: &str) -> bool {
    let mut workload = Workload::new(5, set);
    let mut failed = false;
    for _ in 0..16 {
        let before = Naive::of(&set.state());
        let edit = workload.draw(set);
        workload.expected = trimmed(workload.expected.clone());
        let added = edit.keyspaces.iter().flat_map(|keyspace| &keyspace.added);
        let added: Vec<u64> = added.map(|added| added.meta.number).collect();
        if let Err(error) = set.log_and_apply(edit.clone()) {
            failed = true;
            assert!(
                matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace),
                "{error} {context}"
            );
            assert_eq!(Naive::of(&set.state()), before, "{context}");
            // If the process ended now, the edit would be there or not.
            let copy = disk.fork();
            let found = Naive::of(&recover(&copy).unwrap().state());
            assert!(found == before || found == workload.expected, "{context}");
            if found == workload.expected {
                let live = set.live_files();
                assert!(
                    added.iter().all(|number| live.contains(number)),
                    "{context}"
                );
            }
            set.log_and_apply(edit)
                .unwrap_or_else(|error| panic!("{error} {context}"));
        }
        assert_eq!(Naive::of(&set.state()), workload.expected, "{context}");
        let found = VersionSet::recover_read_only(shared(disk), directory()).unwrap();
        assert_eq!(Naive::of(&found.state()), workload.expected, "{context}");
        assert!(
            set.live_files().contains(&found.manifest_number()),
            "{context}"
        );
    }
    failed
}

#[test]
fn a_failed_edit_keeps_its_files_until_another_manifest_has_taken_over() {
    let disk = empty();
    let fs = FaultFileSystem::new(shared(&disk));
    let set = create(&fs).unwrap();
    let first = set.manifest_number();
    fs.add_rule(
        FaultRule::new(Fault::Deny(DeviceError::Io))
            .on(&[OperationKind::Sync])
            .times(1),
    );
    let mut edit = flush(&set);
    edit.added_segments.push(set.new_file_number());
    let table = edit.keyspaces[0].added[0].meta.number;
    let segment = edit.added_segments[0];
    assert_eq!(set.log_and_apply(edit).unwrap_err().kind(), ErrorKind::Io);
    assert!(
        [first, table, segment]
            .iter()
            .all(|number| set.live_files().contains(number))
    );
    assert!(set.state().segments.is_empty() && set.current(0).unwrap().is_empty());
    // The fate of the edit is decided: it did not happen.
    set.log_and_apply(flush(&set)).unwrap();
    assert_ne!(set.manifest_number(), first);
    assert!(
        [first, table, segment]
            .iter()
            .all(|number| !set.live_files().contains(number))
    );
    assert_eq!(recover(&disk).unwrap().state(), set.state());
}

#[test]
fn a_full_disk_leaves_no_litter_and_is_cured_by_space() {
    let disk = empty();
    let fs = FaultFileSystem::new(shared(&disk));
    let set = create(&fs).unwrap();
    fs.set_free_bytes(Some(0));
    let mut failures = 0;
    for _ in 0..200 {
        match set.log_and_apply(flush(&set)) {
            Ok(()) => assert_eq!(failures, 0, "nothing made space"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace);
                failures += 1;
            }
        }
    }
    assert!(failures > 100, "the manifest never needed space");
    assert_eq!(manifests(&disk).len(), 1, "unfinished files stay behind");
    fs.set_free_bytes(None);
    set.log_and_apply(flush(&set)).unwrap();
    assert_eq!(recover(&disk).unwrap().state(), set.state());
}
