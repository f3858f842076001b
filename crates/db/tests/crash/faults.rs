//! Fault sweeps: each operation of a workload fails in turn, once or for a while, in the ways that
//! devices fail. Whatever the engine answers is believed, and held against it: what was acknowledged
//! is there, in the same open database once the fault is gone, after a crash and after a reopen.

use std::sync::Arc;
use std::time::Duration;

use esker::{ErrorKind, Severity};
use esker_testkit::disk::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FaultRule, ImagePolicy, MemFileSystem,
};
use esker_testkit::{Action, Durability, Loss, Oracle, Random, Step};

use crate::backups::Backups;
use crate::deed::Deed;
use crate::session::{Failure, Session, World, crash};
use crate::sweep::{Case, guarded};
use crate::watchdog;

/// Attempts after which an open database has to take writes again once the fault is gone. Between
/// them the clock moves by [`PAUSE`].
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// The ways of failing, each tried at every operation. A sync that is refused loses its pages, as
/// Linux does; one that is denied has been done.
const WAYS: usize = 7;

/// One of the ways of failing, and for how many operations.
fn fault(way: usize, random: &mut Random) -> (Fault, u64) {
    let any = [
        DeviceError::Io,
        DeviceError::NoSpace,
        DeviceError::Quota,
        DeviceError::EndOfFile,
    ][random.index(4)];
    let fault = match way {
        0 => Fault::Refuse(DeviceError::Io),
        1 => Fault::Refuse(DeviceError::NoSpace),
        2 => Fault::Refuse(DeviceError::Quota),
        3 => Fault::Partly(DeviceError::NoSpace, random.below(600)),
        4 => Fault::Partly(DeviceError::EndOfFile, random.below(600)),
        5 => Fault::Deny(any),
        _ => Fault::Refuse(any),
    };
    let times = match way {
        6 => [6, 40][random.index(2)],
        _ => [1, 1, 2][random.index(3)],
    };
    (fault, times)
}

/// Sweeps over the workload of `seed`; the points that were tried.
pub(crate) fn sweep(seed: u64, deeds: &[Deed], stride: usize) -> Result<u64, Case> {
    let mut operations = 0;
    guarded(|| {
        operations = run(seed, deeds, None)?;
        Ok(())
    })
    .map_err(|failure| Case {
        place: format!("seed {seed}, no fault"),
        what: failure.to_string(),
    })?;
    let mut points = 0;
    for operation in (seed % stride as u64..operations).step_by(stride) {
        // All of them where every operation is tried, by turns where only some are.
        let ways = match stride {
            1 => 0..WAYS,
            _ => points as usize % WAYS..points as usize % WAYS + 1,
        };
        for way in ways {
            let (fault, times) = fault(way, &mut Random::of_part(seed, operation));
            let place = || format!("seed {seed}, {fault:?} of {times} operations from {operation}");
            watchdog::alive(place);
            guarded(|| run(seed, deeds, Some((operation, fault, times)))).map_err(|failure| {
                Case {
                    place: place(),
                    what: failure.to_string(),
                }
            })?;
            points += 1;
        }
    }
    Ok(points)
}

/// Runs the workload with a fault; how many operations the file system saw.
fn run(seed: u64, deeds: &[Deed], fault: Option<(u64, Fault, u64)>) -> Result<u64, Failure> {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
    if let Some((operation, fault, times)) = fault {
        faulty.add_rule(FaultRule::new(fault).after(operation).times(times));
    }
    let most_failures = fault.map_or(0, |(.., times)| times as usize);
    let moment = {
        let disk = disk.clone();
        Arc::new(move || disk.operations())
    };
    let world = World::new(seed, Arc::new(faulty.clone()), moment, 1_000_000);
    let mut session = open(&world, &Oracle::new(), &Backups::default(), most_failures)?;
    for deed in deeds {
        if matches!(deed, Deed::Step(Step::Reopen)) {
            // Refused or not, the database is closed and loses nothing.
            let _ = session.close();
            let oracle = std::mem::take(&mut session.oracle);
            let backups = std::mem::take(&mut session.backups);
            drop(session);
            session = open(&world, &oracle, &backups, most_failures)?;
        }
        let done = excused(session.run(deed), fault.is_some())?;
        if !done {
            excused(session.compare(), true)?;
        }
    }
    let operations = faulty.operations();
    faulty.clear();
    resume(&mut session)?;
    session.compare()?;
    no_damage(&session)?;
    crash_and_reopen(seed, &disk, &session)?;
    session.close()?;
    let again = world.open(Oracle::new())?;
    let end = crash(usize::MAX, Loss::Process, world.now());
    again.judge_all(&session.oracle, &session.backups, &end)?;
    no_damage(&again)?;
    Ok(operations)
}

/// An error of the engine is an answer where there was a fault; a wrong state never is.
fn excused(answer: Result<(), Failure>, had_fault: bool) -> Result<bool, Failure> {
    match answer {
        Ok(()) => Ok(true),
        Err(Failure::Refused(_)) if had_fault => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Opens the database, again where a fault hits the open itself, and judges what it finds.
fn open(
    world: &World,
    oracle: &Oracle,
    backups: &Backups,
    most_failures: usize,
) -> Result<Session, Failure> {
    let mut failures = 0;
    loop {
        let opened = world
            .open(Oracle::new())
            .map_err(Failure::from)
            .and_then(|mut session| {
                let crash = crash(usize::MAX, Loss::Process, world.now());
                (session.oracle, session.backups) = session.judge_all(oracle, backups, &crash)?;
                Ok(session)
            });
        match opened {
            Err(Failure::Refused(_)) if failures < most_failures => failures += 1,
            other => return other,
        }
    }
}

/// Deletes one key or, every other time, a range of them.
fn probe_delete(number: usize) -> Deed {
    let (keyspace, key) = (0, esker_testkit::workload::key(number % crate::deed::KEYS));
    let action = match number % 2 {
        0 => Action::Delete { keyspace, key },
        _ => Action::DeleteRange {
            keyspace,
            end: [&key[..], &[0]].concat(),
            start: key,
        },
    };
    Deed::Step(Step::Write {
        actions: vec![action],
        durability: Durability::Sync,
    })
}

/// The fault is gone: the same open database takes writes again.
fn resume(session: &mut Session) -> Result<(), Failure> {
    let probe = Deed::Step(Step::Write {
        actions: vec![Action::Put {
            keyspace: 0,
            key: b"probe".to_vec(),
            value: b"is there".to_vec(),
            ttl_millis: None,
        }],
        durability: Durability::Sync,
    });
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match session.run(&probe) {
            Ok(()) => return Ok(()),
            Err(failure) => last = Some(failure),
        }
        session.world.clock.advance(PAUSE);
    }
    let last = last.map_or(String::new(), |failure| failure.to_string());
    Err(Failure::Wrong(format!("writes do not resume: {last}")))
}

/// Files that nothing names may lie about after a fault; nothing may be damaged.
fn no_damage(session: &Session) -> Result<(), Failure> {
    let report = session.db.validate()?;
    let damage = report
        .issues()
        .iter()
        .find(|issue| issue.severity() >= Severity::Warning);
    damage.map_or(Ok(()), |issue| {
        Err(Failure::Wrong(format!("validation found {issue:?}")))
    })
}

/// What a crash right now would leave.
fn crash_and_reopen(seed: u64, disk: &CrashFileSystem, live: &Session) -> Result<(), Failure> {
    let moment = disk.operations();
    let policies = [
        (ImagePolicy::ONLY_SYNCED, Loss::Power),
        (ImagePolicy::from_seed(seed), Loss::Power),
    ];
    let mut replay = disk.replay();
    for (policy, loss) in policies {
        let image = CrashFileSystem::new(replay.image(moment, &policy));
        let world = World::new(seed, Arc::new(image), Arc::new(|| 0), live.world.now());
        let wrong = |failure| Failure::Wrong(format!("after a crash, {policy}: {failure}"));
        let session = world
            .open(Oracle::new())
            .map_err(|error| wrong(Failure::from(error)))?;
        session
            .judge_all(
                &live.oracle,
                &live.backups,
                &crash(moment, loss, world.now()),
            )
            .and_then(|_| session.validate())
            .map_err(wrong)?;
    }
    Ok(())
}

/// A disk that is full for a while: reads work, writes say so, and go on once there is room.
pub(crate) fn full_disk(seed: u64, deeds: &[Deed]) -> Result<u64, Case> {
    let mut points = 0;
    for at in 0..deeds.len() {
        let place = || format!("seed {seed}, full from deed {at} on");
        watchdog::alive(place);
        let tried = guarded(|| full_from(seed, deeds, at));
        tried.map_err(|failure| Case {
            place: place(),
            what: failure.to_string(),
        })?;
        points += 1;
    }
    Ok(points)
}

fn full_from(seed: u64, deeds: &[Deed], at: usize) -> Result<(), Failure> {
    let memory = MemFileSystem::new();
    let disk = CrashFileSystem::new(memory.clone());
    let moment = {
        let disk = disk.clone();
        Arc::new(move || disk.operations())
    };
    let world = World::new(seed, Arc::new(disk.clone()), moment, 1_000_000);
    let mut session = world.open(Oracle::new())?;
    for (index, deed) in deeds.iter().enumerate() {
        if index == at {
            session.settle();
            memory.set_capacity(memory.used_bytes());
        }
        if index == at + 25 {
            memory.set_capacity(u64::MAX);
            resume(&mut session)?;
        }
        if (at + 1..at + 25).contains(&index) && session.has_written() {
            // Deletes go on, in the space that is kept for them.
            let refused = |failure| Failure::Wrong(format!("a delete on a full disk: {failure}"));
            session.run(&probe_delete(index)).map_err(refused)?;
        }
        match session.run(deed) {
            Ok(()) => {}
            Err(Failure::Refused(error)) if index >= at && error.kind() == ErrorKind::NoSpace => {}
            Err(failure) => return Err(failure),
        }
        // Reads work throughout.
        session.compare()?;
    }
    memory.set_capacity(u64::MAX);
    resume(&mut session)?;
    session.compare()?;
    no_damage(&session)?;
    crash_and_reopen(seed, &disk, &session)?;
    Ok(session.close()?)
}
