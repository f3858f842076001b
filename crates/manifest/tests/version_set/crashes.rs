//! Power loss at every operation of a workload with rotations: what is found is the state after the
//! edits that were acknowledged, with or without the one under way; never anything else.

use esker_vfs::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, ImagePolicy, UnsyncedData,
    UnsyncedNames,
};

use super::workload::{Naive, Workload, trimmed};
use super::*;

/// What was acknowledged, and when.
struct History {
    /// The state after each edit, with the number of operations at its acknowledgement.
    acknowledged: Vec<(usize, Naive)>,
}

impl History {
    /// Whether `found` may be there after a crash at `operations`.
    fn allows(&self, operations: usize, found: Option<&Naive>) -> bool {
        let done = self
            .acknowledged
            .iter()
            .filter(|(at, _)| *at <= operations)
            .count();
        let before = done.checked_sub(1).map(|at| &self.acknowledged[at].1);
        let under_way = self.acknowledged.get(done).map(|(_, state)| state);
        found == before || (found.is_some() && found == under_way)
    }
}

fn policies(seed: u64) -> Vec<ImagePolicy> {
    let mut policies = vec![ImagePolicy::ONLY_SYNCED, ImagePolicy::PROCESS_END];
    for data in [
        UnsyncedData::RandomSectors,
        UnsyncedData::TornTail,
        UnsyncedData::Garbage,
    ] {
        for names in [
            UnsyncedNames::Lost,
            UnsyncedNames::Kept,
            UnsyncedNames::RandomSubset,
        ] {
            policies.push(ImagePolicy { data, names, seed });
        }
    }
    policies
}

/// Creates a database on `disk` and applies `edits` edits.
fn run(disk: &CrashFileSystem, seed: u64, edits: usize) -> History {
    let set = create(disk).unwrap();
    let mut workload = Workload::new(seed, &set);
    let mut acknowledged = vec![(disk.operations(), Naive::of(&set.state()))];
    go_on(disk, &set, &mut workload, edits, &mut acknowledged);
    History { acknowledged }
}

fn go_on(
    disk: &CrashFileSystem,
    set: &VersionSet,
    workload: &mut Workload,
    edits: usize,
    acknowledged: &mut Vec<(usize, Naive)>,
) {
    for _ in 0..edits {
        set.log_and_apply(workload.draw(set)).unwrap();
        workload.expected = trimmed(workload.expected.clone());
        acknowledged.push((disk.operations(), workload.expected.clone()));
    }
}

/// Opens what a crash left; `None` where there is no database yet.
fn open(image: &MemFileSystem, context: &str) -> Option<VersionSet> {
    let exists = VersionSet::exists(image, directory());
    if !exists.unwrap_or_else(|error| panic!("{error}: {context}")) {
        return None;
    }
    Some(recover(image).unwrap_or_else(|error| panic!("{error}: {context}")))
}

#[test]
fn every_crash_point_of_a_workload_with_rotations() {
    let mut tried = 0;
    for seed in 0..3 {
        let disk = CrashFileSystem::new(empty());
        let history = run(&disk, seed, 25);
        let mut replay = disk.replay();
        for operations in 0..=disk.operations() {
            for policy in policies(seed + operations as u64) {
                let context = format!("seed {seed}, {operations} operations, {policy:?}");
                let image = replay.image(operations, &policy);
                let set = open(&image, &context);
                let found = set.as_ref().map(|set| Naive::of(&set.state()));
                assert!(history.allows(operations, found.as_ref()), "{context}");
                // And it goes on from there.
                let set = set.unwrap_or_else(|| create(&image).unwrap());
                set.log_and_apply(flush(&set)).unwrap();
                assert_eq!(recover(&image).unwrap().state(), set.state(), "{context}");
                tried += 1;
            }
        }
    }
    println!("points tried: {tried}");
}

#[test]
fn crashes_while_recovering_from_crashes() {
    let seed = 77;
    let disk = CrashFileSystem::new(empty());
    let history = run(&disk, seed, 12);
    let mut replay = disk.replay();
    for operations in (0..=disk.operations()).step_by(3) {
        let policy = ImagePolicy::from_seed(operations as u64);
        let second = CrashFileSystem::new(replay.image(operations, &policy));
        if !VersionSet::exists(&second, directory()).unwrap() {
            continue;
        }
        let set = recover(&second).unwrap();
        let found = Naive::of(&set.state());
        assert!(history.allows(operations, Some(&found)));
        let opened = second.operations();
        let mut workload = Workload::new(seed, &set);
        let mut acknowledged = vec![(opened, found.clone())];
        go_on(&second, &set, &mut workload, 3, &mut acknowledged);
        let later = History { acknowledged };
        let mut second_replay = second.replay();
        for again in 0..=second.operations() {
            for policy in policies(again as u64) {
                let context = format!("{operations}, then {again} operations, {policy:?}");
                let image = second_replay.image(again, &policy);
                let set = open(&image, &context);
                let state = set.map(|set| Naive::of(&set.state()));
                // Before the opening was done nothing was acknowledged, but nothing may be lost.
                let allowed = later.allows(again.max(opened), state.as_ref());
                assert!(allowed, "{context}");
            }
        }
    }
}

/// The process ends at some operation (perhaps because that failed, a sync among them, whose pages
/// then count as clean), another one opens the database out of the operating system's memory, and
/// power is lost. Whoever opened it may have acted on what it read: so that must still be there.
#[test]
fn what_an_opening_has_read_survives_a_power_loss() {
    let mut tried = 0;
    for index in 0.. {
        let disk = CrashFileSystem::new(empty());
        let fs = FaultFileSystem::new(shared(&disk));
        fs.add_rule(FaultRule::new(Fault::Refuse(DeviceError::Io)).after(index));
        let mut survived = true;
        if let Ok(set) = create(&fs) {
            let mut workload = Workload::new(9, &set);
            survived = (0..12).all(|_| set.log_and_apply(workload.draw(&set)).is_ok());
        } else {
            survived &= fs.faults() == 0;
        }
        if survived {
            assert!(tried > 100, "the workload was too short: {tried}");
            break;
        }
        if !VersionSet::exists(&disk, directory()).unwrap() {
            continue;
        }
        let set = recover(&disk).unwrap();
        let opened = Naive::of(&set.state());
        for policy in policies(index) {
            let context = format!("ended at {index}, {policy:?}");
            let found = open(&disk.image(disk.operations(), &policy), &context);
            assert_eq!(
                found.map(|set| Naive::of(&set.state())),
                Some(opened.clone()),
                "{context}"
            );
            tried += 1;
        }
    }
}
