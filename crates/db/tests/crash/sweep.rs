//! Crash sweeps: a workload is recorded once, and for every moment of it the disk is made that a
//! crash would have left, under each policy. Each is opened, compared with the oracle and written to,
//! and crashes again while that happens.
//!
//! A case is named by its seed, the operation and the policy, and runs again by `ESKER_SEED`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use esker_testkit::disk::{CrashFileSystem, ImagePolicy, MemFileSystem, UnsyncedNames};
use esker_testkit::{Loss, Oracle, Random, Step};

use crate::backups::Backups;
use crate::deed::{Deed, deeds};
use crate::session::{Failure, Session, World, crash};
use crate::watchdog;

const START_MILLIS: u64 = 1_000_000;

/// How much of everything is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Deeds of a workload.
    pub(crate) deeds: usize,
    /// Every so many operations there is a crash.
    pub(crate) stride: usize,
    /// Crash points within the life after each crash.
    pub(crate) second_crashes: usize,
}

/// Looks at what an open has found; the oracle and the backups to go on with.
type Judge<'a> = Box<dyn FnOnce(&Session) -> Result<(Oracle, Backups), Failure> + 'a>;

/// One run, recorded.
struct Recording {
    disk: CrashFileSystem,
    oracle: Oracle,
    backups: Backups,
    /// The clock when the disk had seen so many operations.
    times: Vec<(usize, u64)>,
}

impl Recording {
    /// What the clock says after a crash at `moment`: no less than anybody has seen before it.
    fn now_at(&self, moment: usize) -> u64 {
        let after = self.times.partition_point(|(at, _)| *at < moment);
        let last = self.times.last();
        self.times
            .get(after)
            .or(last)
            .map_or(START_MILLIS, |(_, now)| *now)
    }
}

/// A failing case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) place: String,
    pub(crate) what: String,
}

/// Runs `deeds` on `image` and records what the disk saw. Where the database of `oracle` is known to
/// be acknowledged and its crash judged, `opened` says so and gets the first life.
fn record(
    seed: u64,
    image: MemFileSystem,
    deeds: &[Deed],
    millis: u64,
    judge: impl FnOnce(&Session) -> Result<(Oracle, Backups), Failure>,
) -> Result<Recording, Failure> {
    let disk = CrashFileSystem::new(image);
    let moment = {
        let disk = disk.clone();
        Arc::new(move || disk.operations())
    };
    let world = World::new(seed, Arc::new(disk.clone()), moment, millis);
    let mut times = vec![(0, world.now())];
    let mut session = world.open(Oracle::new())?;
    (session.oracle, session.backups) = judge(&session)?;
    times.push((disk.operations(), world.now()));
    for deed in deeds {
        if matches!(deed, Deed::Step(Step::Reopen)) {
            session.close()?;
            let backups = session.backups;
            session = world.open(session.oracle)?;
            session.backups = backups;
            session.compare()?;
        }
        session.run(deed)?;
        times.push((disk.operations(), world.now()));
    }
    session.compare()?;
    session.close()?;
    times.push((disk.operations(), world.now()));
    Ok(Recording {
        disk,
        oracle: session.oracle,
        backups: session.backups,
        times,
    })
}

/// The policies of operation number `operation`: each kind of damage to data, with names by turns.
fn policies(seed: u64, operation: usize) -> [(ImagePolicy, Loss); 6] {
    let at = Random::of_part(seed, operation as u64).next_u64();
    let names = [
        UnsyncedNames::Lost,
        UnsyncedNames::Kept,
        UnsyncedNames::Prefix,
        UnsyncedNames::RandomSubset,
    ];
    let names = names[operation % 4];
    [
        (ImagePolicy::ONLY_SYNCED, Loss::Power),
        (ImagePolicy::PROCESS_END, Loss::Process),
        (ImagePolicy::ONLY_SYNCED.with_names(names), Loss::Power),
        (ImagePolicy::random_subset(at), Loss::Power),
        (ImagePolicy::torn_tail(at), Loss::Power),
        (ImagePolicy::garbage_tail(at), Loss::Power),
    ]
}

/// Sweeps over the workload of `seed`; the points that were tried.
pub(crate) fn sweep(seed: u64, deeds: &[Deed], effort: &Effort) -> Result<u64, Case> {
    let here = |what: &Failure| Case {
        place: format!("seed {seed}"),
        what: what.to_string(),
    };
    let recording = guarded(|| {
        record(seed, MemFileSystem::new(), deeds, START_MILLIS, |_| {
            Ok((Oracle::new(), Backups::default()))
        })
    })
    .map_err(|failure| here(&failure))?;
    let mut replay = recording.disk.replay();
    let mut points = 0;
    let first = (seed as usize) % effort.stride;
    for operation in (first..=replay.operations()).step_by(effort.stride) {
        for (policy, loss) in policies(seed, operation) {
            watchdog::alive(|| format!("seed {seed}, operation {operation}, {policy}"));
            let image = replay.image(operation, &policy);
            let now = recording.now_at(operation);
            let tried = guarded(|| {
                let judge = |session: &Session| {
                    let crash = crash(operation, loss, now);
                    session.judge_all(&recording.oracle, &recording.backups, &crash)
                };
                try_image(
                    seed,
                    operation,
                    image,
                    now,
                    effort.second_crashes,
                    Box::new(judge),
                )
            });
            points += tried.map_err(|failure| {
                let before = operation
                    .checked_sub(1)
                    .and_then(|last| replay.operation(last));
                let last = before.map_or("nothing".into(), ToString::to_string);
                Case {
                    place: format!("seed {seed}, after operation {operation} ({last}), {policy}"),
                    what: failure.to_string(),
                }
            })?;
        }
    }
    Ok(points)
}

/// Opens what a crash left, judges it, goes on, and crashes again while it does.
fn try_image(
    seed: u64,
    operation: usize,
    image: MemFileSystem,
    now: u64,
    second_crashes: usize,
    judge: Judge<'_>,
) -> Result<u64, Failure> {
    let mut random = Random::of_part(seed ^ 0xc0de, operation as u64);
    let more = deeds(random.next_u64(), random.index(12));
    let recording = record(seed, image, &more, now, |session| {
        session.no_strays()?;
        session.validate()?;
        judge(session)
    })
    .map_err(|failure| match failure {
        Failure::Wrong(sentence) => {
            let more: Vec<_> = more.iter().map(ToString::to_string).collect();
            Failure::Wrong(format!("{sentence}; gone on with {}", more.join("; ")))
        }
        refused => refused,
    })?;
    let mut replay = recording.disk.replay();
    let mut points = 1;
    for turn in 0..second_crashes {
        // In ascending order, which is cheap; the first ones are in the recovery itself.
        let operations = replay.operations() + 1;
        let width = operations.div_ceil(second_crashes);
        let at = (turn * width + random.index(width)).min(operations - 1);
        let policy = ImagePolicy::from_seed(random.next_u64());
        let image = replay.image(at, &policy);
        let now = recording.now_at(at);
        let judge = |session: &Session| {
            let crash = crash(at, Loss::Power, now);
            session.judge_all(&recording.oracle, &recording.backups, &crash)
        };
        let tried = try_image(seed, operation + at, image, now, 0, Box::new(judge));
        points += tried.map_err(|failure| {
            let before = at.checked_sub(1).and_then(|last| replay.operation(last));
            let last = before.map_or("nothing".into(), ToString::to_string);
            Failure::Wrong(format!(
                "second crash after {at} ({last}), {policy}: {failure}"
            ))
        })?;
    }
    Ok(points)
}

/// A panic is a failure like any other.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Failure::Wrong(format!(
            "panicked: {}",
            text.unwrap_or_default()
        )))
    })
}
