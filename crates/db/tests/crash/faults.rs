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

use crate::deed::Deed;
use crate::session::{Failure, Session, World, crash};
use crate::sweep::{Case, guarded};
use crate::watchdog;

/// Attempts after which an open database has to take writes again once the fault is gone. Between
/// them the clock moves by [`PAUSE`].
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// One of the ways of failing, and for how many operations.
fn fault(random: &mut Random) -> (Fault, u64) {
    let error = [
        DeviceError::Io,
        DeviceError::Io,
        DeviceError::NoSpace,
        DeviceError::Quota,
        DeviceError::EndOfFile,
    ][random.index(5)];
    let fault = match random.below(4) {
        0 => Fault::Partly(error, random.below(600)),
        1 => Fault::Deny(error),
        _ => Fault::Refuse(error),
    };
    let times = [1, 1, 1, 2, 6, 40][random.index(6)];
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
        let (fault, times) = fault(&mut Random::of_part(seed, operation));
        let place = || format!("seed {seed}, {fault:?} of {times} operations from {operation}");
        watchdog::alive(place);
        guarded(|| run(seed, deeds, Some((operation, fault, times)))).map_err(|failure| Case {
            place: place(),
            what: failure.to_string(),
        })?;
        points += 1;
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
    let mut session = open(&world, &Oracle::new(), most_failures)?;
    for deed in deeds {
        if matches!(deed, Deed::Step(Step::Reopen)) {
            // Refused or not, the database is closed and loses nothing.
            let _ = session.close();
            let oracle = std::mem::take(&mut session.oracle);
            drop(session);
            session = open(&world, &oracle, most_failures)?;
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
    again.judge(
        &session.oracle,
        &crash(usize::MAX, Loss::Process, world.now()),
    )?;
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
fn open(world: &World, oracle: &Oracle, most_failures: usize) -> Result<Session, Failure> {
    let mut failures = 0;
    loop {
        let opened = world
            .open(Oracle::new())
            .map_err(Failure::from)
            .and_then(|mut session| {
                let crash = crash(usize::MAX, Loss::Process, world.now());
                session.oracle = session.judge(oracle, &crash)?;
                Ok(session)
            });
        match opened {
            Err(Failure::Refused(_)) if failures < most_failures => failures += 1,
            other => return other,
        }
    }
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
        .find(|issue| issue.severity() == Severity::Damage);
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
            .judge(&live.oracle, &crash(moment, loss, world.now()))
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
            memory.set_capacity(memory.used_bytes());
        }
        if index == at + 25 {
            memory.set_capacity(u64::MAX);
            resume(&mut session)?;
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
