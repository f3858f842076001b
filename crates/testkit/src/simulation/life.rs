//! A run: several lives of one database, each ended by a crash, a power loss or a clean close.
//!
//! Invariant: a run is a function of its seed. A life is run to its end on a disk that remembers every
//! operation; the crash is then put at one of them, which leaves the same disk as if everybody had
//! stopped there, and no thread has to be torn down.

use std::path::PathBuf;
use std::sync::Arc;

use esker::{Db, ErrorKind};

use super::accounts::{self, Accounts};
use super::client::Client;
use super::failure::Failure;
use super::feed::{self, Feed};
use super::judge;
use super::scheduler::Scheduler;
use super::surroundings::SimulatedClock;
use super::world::{Book, DIRECTORY, World, locked};
use crate::disk::{
    DeviceError, Fault, FaultRule, FileSystem, ImagePolicy, MemFileSystem, OperationKind,
};
use crate::oracle::{Crash, Loss};
use crate::seed::Random;

/// Attempts after which writes must go on once a disk works again.
const ATTEMPTS: usize = 5;
/// Between two of them, by the simulated clock.
const PAUSE_MILLIS: u64 = 100;

/// What one run did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) restores: u64,
    pub(crate) followed: u64,
}

/// Where a run stands between two lives.
struct Standing {
    image: MemFileSystem,
    books: Vec<Book>,
    accounts: Accounts,
    feed: Option<Feed>,
}

/// All lives of the run of `seed`.
pub(crate) fn run(seed: u64, scheduler: &Arc<Scheduler>, tally: &mut Tally) -> Result<(), Failure> {
    let mut random = Random::of_part(seed, 2);
    let clock = SimulatedClock::at_millis(scheduler, 1_000_000);
    let clients = 1 + random.index(4);
    let mut standing = Standing {
        image: MemFileSystem::new(),
        books: vec![Book::default(); clients],
        accounts: Accounts::new(seed),
        feed: feed::is_followed(seed).then(Feed::default),
    };
    for life in 0..1 + random.below(3) {
        let Standing {
            image,
            books,
            accounts,
            feed,
        } = standing;
        let mut world = World::new(seed, scheduler, &clock, image, books, accounts);
        world.is_faulty = random.chance(3);
        *locked(&world.feed) = feed;
        scheduler.note(&format!("life {life}, faulty {}", world.is_faulty));
        live(&world, life, &mut random, tally)?;
        tally.operations += world.moment() as u64;
        standing = crash(&world, &mut random, tally)?;
    }
    Ok(())
}

/// Faults of one life: one kind of failure, some operations on, for a while.
fn break_disk(world: &World, random: &mut Random) {
    let errors = [
        DeviceError::Io,
        DeviceError::Io,
        DeviceError::NoSpace,
        DeviceError::Quota,
    ];
    for _ in 0..1 + random.below(2) {
        let error = errors[random.index(4)];
        let fault = match random.below(4) {
            0 => Fault::Partly(error, random.below(600)),
            1 => Fault::Deny(error),
            _ => Fault::Refuse(error),
        };
        let times = [1, 1, 2, 6, 40][random.index(5)];
        let mut rule = FaultRule::new(fault).after(random.below(600)).times(times);
        if random.chance(3) {
            let kinds = [
                OperationKind::Sync,
                OperationKind::SyncDir,
                OperationKind::Write,
                OperationKind::Create,
                OperationKind::Rename,
                OperationKind::Read,
            ];
            rule = rule
                .on(&[kinds[random.index(kinds.len())]])
                .after(random.below(60));
        }
        world.faults.add_rule(rule);
    }
}

/// Opens the database, lets the clients do their work side by side, and closes it.
fn live(world: &World, life: u64, random: &mut Random, tally: &mut Tally) -> Result<(), Failure> {
    let db = world.open()?;
    feed::begin(world, &db)?;
    if world.is_faulty {
        break_disk(world, random);
    }
    let steps = 8 + random.index(50);
    let tasks: Vec<usize> = (0..world.books.len())
        .map(|number| {
            let (its, db) = (world.clone(), db.clone());
            let body = move || {
                let result = Client::new(&its, &db, number, life).run(steps);
                // The handle goes before the answer: nothing of the client is left.
                drop(db);
                if let Err(failure) = result {
                    let sentence = format!("client {number}: {failure}");
                    its.scheduler.fail(sentence);
                }
            };
            world.scheduler.spawn("client", false, Box::new(body))
        })
        .collect();
    while !world.scheduler.have_ended(&tasks) {
        esker_base::sync::park();
    }
    if let Some(failure) = world.scheduler.failure() {
        return Err(Failure::Wrong(failure));
    }
    tally.faults += world.faults.faults();
    world.faults.clear();
    if world.is_faulty {
        resume(world, &db)?;
    }
    for number in 0..world.books.len() {
        Client::new(world, &db, number, life).compare()?;
    }
    accounts::judge_history(world, &db)?;
    // Decided apart: a run without a follower draws the same numbers.
    let mut apart = Random::of_part(world.seed, 200 + life);
    tally.followed += u64::from(feed::settle(world, &db, &mut apart)?);
    if random.chance(2) {
        match db.wait_for_background_work() {
            // What a compaction failed with while the disk did, and has not been asked to do again.
            Err(_) if world.is_faulty => {}
            done => done?,
        }
        judge::validate(world, &db, world.is_faulty)?;
    }
    if random.chance(4) {
        // Left to the last handle, as a program does that just ends.
        drop(db);
        return Ok(());
    }
    db.close()?;
    if feed::is_archived(world.seed) {
        let target = PathBuf::from(format!("/data/moment {life}"));
        tally.restores += u64::from(feed::restore(world, &mut apart, &target)?);
    }
    restore(world, life, tally)
}

/// The disk works again: the same open database takes writes.
fn resume(world: &World, db: &Db) -> Result<(), Failure> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match db.put("!probe", "is there") {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        world.clock.pass(PAUSE_MILLIS);
    }
    let last = last.map(Failure::from);
    let last = last.map_or_else(String::new, |failure| failure.to_string());
    Err(Failure::Wrong(format!("writes do not resume: {last}")))
}

/// Every backup of this life that was not pruned holds what it must.
fn restore(world: &World, life: u64, tally: &mut Tally) -> Result<(), Failure> {
    let backups = locked(&world.backups).clone();
    for (number, backup) in backups.iter().enumerate() {
        let target = PathBuf::from(format!("/data/restored {life} {number}"));
        judge::restored(world, backup, &target)?;
        tally.restores += 1;
    }
    Ok(())
}

/// Puts a crash at some operations of the life that has ended; goes on from the last of them.
fn crash(world: &World, random: &mut Random, tally: &mut Tally) -> Result<Standing, Failure> {
    let operations = world.moment();
    let mut moments: Vec<usize> = (0..2).map(|_| random.index(operations + 1)).collect();
    if random.chance(4) {
        moments.push(operations);
    }
    moments.sort_unstable();
    let mut replay = world.crashes.replay();
    let mut next = None;
    for moment in moments {
        let (policy, loss) = match random.below(4) {
            0 => (ImagePolicy::PROCESS_END, Loss::Process),
            1 => (ImagePolicy::ONLY_SYNCED, Loss::Power),
            _ => (ImagePolicy::from_seed(random.next_u64()), Loss::Power),
        };
        let image = replay.image(moment, &policy);
        tally.crashes += 1;
        let place = format!("crash after {moment} of {operations} operations, {policy}");
        world.scheduler.note(&place);
        next = Some(
            try_image(world, image, moment, loss, tally)
                .map_err(|failure| Failure::Wrong(format!("{place}: {failure}")))?,
        );
    }
    next.ok_or_else(|| Failure::Wrong("no crash was tried".into()))
}

/// Opens what a crash has left, judges it, and says how the run goes on from there.
fn try_image(
    world: &World,
    image: MemFileSystem,
    moment: usize,
    loss: Loss,
    tally: &mut Tally,
) -> Result<Standing, Failure> {
    let kept = image.fork();
    let after = World::new(
        world.seed,
        &world.scheduler,
        &world.clock,
        image,
        Vec::new(),
        Accounts::new(world.seed),
    );
    let db = match after.open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::Refused(error));
        }
        opened => opened?,
    };
    no_strays(&after, &db)?;
    judge::validate(world, &db, false)?;
    let crash = Crash {
        moment,
        loss,
        now_millis: world.clock.wall_millis(),
    };
    let (books, accounts) = judge::after_crash(world, &db, &crash, world.seed)?;
    let (feed, was_compared) = feed::after_crash(world, &after, &db, moment)?;
    tally.followed += u64::from(was_compared);
    db.close()?;
    Ok(Standing {
        image: kept,
        books,
        accounts,
        feed,
    })
}

/// After an open there are the files of a database, and no others. Its jobs run already, so that a
/// segment may have been prepared and a manifest be replaced just now, by way of a temporary file; the
/// crash sweep, whose jobs wait, counts those.
fn no_strays(world: &World, db: &Db) -> Result<(), Failure> {
    let entries = world.crashes.read_dir(DIRECTORY.as_ref());
    let entries = entries.map_err(|error| Failure::Wrong(error.to_string()))?;
    let names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    let manifests = names.iter().filter(|name| name.starts_with("MANIFEST"));
    let directories = ["archive", "backups", "changes"];
    let directories = names.iter().filter(|name| directories.contains(&&name[..]));
    let mut known = 2 + manifests.count() + ending(".wal") + ending(".sst") + directories.count();
    if world.scheduler.has_jobs() {
        known += ending(".tmp");
    }
    let segments = db.recovery_state().wal_segments_read() as usize;
    if names.len() != known || ending(".wal") < segments {
        return Err(Failure::Wrong(format!("strays among {names:?}")));
    }
    Ok(())
}
