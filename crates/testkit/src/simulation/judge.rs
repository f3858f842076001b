//! What a database holds after a crash, a restart or a restore, against what its clients know.
//!
//! Invariant: each client's part is a prefix of its writes, and the prefixes fit together: where one
//! client's write is there, so is every write that was acknowledged to anybody before it began.

use std::path::Path;

use esker::{Db, Keyspace, Severity};

use super::accounts::{self, Accounts};
use super::client::{Backup, letter, own_keyspace};
use super::failure::Failure;
use super::world::{Book, DIRECTORY, World, locked};
use crate::oracle::{Crash, Outcome, State};

/// What the clients of `world` may find in `db` after `crash`; what they know from then on.
pub(crate) fn after_crash(
    world: &World,
    db: &Db,
    crash: &Crash,
    seed: u64,
) -> Result<(Vec<Book>, Accounts), Failure> {
    let books = books(world);
    let outcomes = fit_together(db, &books, |number, found, least| {
        let outcome = books[number].oracle.check_at_least(found, crash, least);
        outcome.map_err(|violation| violation.to_string())
    })?;
    let recovered = |(book, outcome): (&Book, &Outcome)| Book {
        oracle: book.oracle.recovered(outcome),
        spans: Vec::new(),
    };
    let recovered = books.iter().zip(&outcomes).map(recovered).collect();
    let accounts = locked(&world.accounts).clone();
    let accounts = accounts::judge_crash(&accounts, db, crash.moment, seed)?;
    Ok((recovered, accounts))
}

fn books(world: &World) -> Vec<Book> {
    world
        .books
        .iter()
        .map(|book| locked(book).clone())
        .collect()
}

/// Everything of a client, by a scan and by looks at each key.
fn read(db: &Db, number: usize) -> Result<State, Failure> {
    let mut state = State::new();
    let mut read = |number: u32, entries: esker::Entries, keyspace: &Keyspace| {
        for entry in entries {
            let (key, value) = entry?;
            if keyspace.get(&key)?.as_deref() != Some(&*value) {
                let key = key.escape_ascii();
                return Err(Failure::Wrong(format!("a get does not find {key}")));
            }
            state.insert((number, key.to_vec()), value.to_vec());
        }
        Ok(())
    };
    let own = own_keyspace(number);
    read(0, db.prefix([letter(number)]), db)?;
    if db.keyspace_names()?.contains(&own) {
        let keyspace = db.keyspace(&own)?;
        read(1, keyspace.iter(), &keyspace)?;
    }
    Ok(state)
}

/// Finds prefixes of all clients' writes that explain what is there and fit together.
fn fit_together(
    db: &Db,
    books: &[Book],
    check: impl Fn(usize, &State, usize) -> Result<Outcome, String>,
) -> Result<Vec<Outcome>, Failure> {
    let found: Vec<State> = (0..books.len())
        .map(|number| read(db, number))
        .collect::<Result<_, _>>()?;
    let mut least = vec![0; books.len()];
    loop {
        let mut outcomes = Vec::new();
        for (number, found) in found.iter().enumerate() {
            let least = least[number];
            let outcome = check(number, found, least);
            outcomes.push(outcome.map_err(|violation| {
                Failure::Wrong(format!("client {number}, at least {least}: {violation}"))
            })?);
        }
        let mut fits = true;
        for (book, outcome) in books.iter().zip(&outcomes) {
            // The last write that is there for certain orders what must be there of the others.
            let last = outcome.prefix.checked_sub(1).map(|last| book.spans[last]);
            let Some(last) = last.filter(|last| !last.is_volatile && last.acknowledged.is_some())
            else {
                continue;
            };
            for (other, its) in books.iter().enumerate() {
                let needed = its.acknowledged_before(last.begun);
                if needed > outcomes[other].prefix.max(least[other]) {
                    least[other] = needed;
                    fits = false;
                }
            }
        }
        if fits {
            return Ok(outcomes);
        }
    }
}

/// Goes through every file: all as the manifest says, and where nothing failed, nothing that it does
/// not name.
pub(crate) fn validate(world: &World, db: &Db, was_faulty: bool) -> Result<(), Failure> {
    // What a job that runs has just made or is about to remove is no stray.
    let is_quiet = !world.scheduler.has_jobs();
    let report = db.validate()?;
    // A manifest that was replaced stays until the next open, which validation says as well.
    let is_manifest = |issue: &esker::Issue| {
        let name = issue.file().and_then(Path::file_name);
        name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"MANIFEST"))
    };
    // What a crash leaves of a backup, or of a segment on its way to the archive, goes with the next one.
    let is_beside = |issue: &esker::Issue| {
        let beside = ["backups", "archive"].map(|name| Path::new(DIRECTORY).join(name));
        issue
            .file()
            .is_some_and(|file| beside.iter().any(|it| file.starts_with(it)))
    };
    // Where a number is in no log, since its write has failed or went past it, the feed says so: who follows
    // it judges that.
    let is_hole = |issue: &esker::Issue| issue.offset().is_some();
    let counts = |issue: &esker::Issue| {
        issue.severity() >= Severity::Warning
            || (is_quiet
                && !was_faulty
                && !is_manifest(issue)
                && !is_beside(issue)
                && !is_hole(issue))
    };
    let mut issues = report.issues().iter();
    match issues.find(|issue| counts(issue)) {
        Some(issue) => Err(Failure::Wrong(format!("validation finds {issue:?}"))),
        None => Ok(()),
    }
}

/// Restores a backup elsewhere: it holds what was acknowledged before it, and of what was written
/// meanwhile a part that fits together.
pub(crate) fn restored(world: &World, backup: &Backup, target: &Path) -> Result<(), Failure> {
    esker::backup::restore_on(&world.disk, Path::new(DIRECTORY), &backup.name, target)?;
    let db = world.open_copy(target)?;
    let now = world.clock.wall_millis();
    let books = books(world);
    fit_together(&db, &books, |number, found, least| {
        let book = &books[number];
        let least = book.acknowledged_before(backup.begun).max(least);
        let most = backup.writes[number].max(least);
        let outcome = book.oracle.check_copy(found, now, least..=most);
        outcome.map_err(|violation| violation.to_string())
    })
    .map_err(|failure| match failure {
        Failure::Wrong(sentence) => Failure::Wrong(format!("backup {}: {sentence}", backup.name)),
        refused => refused,
    })?;
    validate(world, &db, world.is_faulty)?;
    Ok(db.close()?)
}
