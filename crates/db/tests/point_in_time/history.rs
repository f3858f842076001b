//! Histories of a database that follow from a seed, each state of them noted: what a restore is compared
//! with.

use super::{BEGIN_MILLIS, Map, World, contents};
use esker::{Db, Durability, RestorePoint, WriteBatch, WriteOptions};
use esker_testkit::seed::Random;
use std::time::Duration;

/// The states of the database, each with the sequence number and the time from which on it was true.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) states: Vec<(u64, u64, Map)>,
}

impl Told {
    pub(crate) fn note(&mut self, world: &World, db: &Db) {
        let now = esker::Clock::now_millis(&*world.clock);
        self.states
            .push((db.snapshot().sequence(), now, contents(db)));
    }

    /// The states of the largest noted number up to `sequence`.
    pub(crate) fn at(&self, sequence: u64) -> Vec<&Map> {
        let before = self.states.iter().filter(|state| state.0 <= sequence);
        let newest = before.clone().map(|state| state.0).max();
        before
            .filter(|state| Some(state.0) == newest)
            .map(|state| &state.2)
            .collect()
    }

    /// The states that a restore to `millis` may give: the time of a write is known to 100 ms.
    pub(crate) fn at_time(&self, millis: u64) -> Vec<&Map> {
        let is_before = |state: &&(u64, u64, Map)| state.1 <= millis;
        let last = self.states.iter().rfind(is_before);
        let near = |state: &&(u64, u64, Map)| state.1 > millis && state.1 <= millis + 100;
        let near = self.states.iter().filter(near);
        last.into_iter().chain(near).map(|state| &state.2).collect()
    }
}

/// One write, of any kind.
fn write(db: &Db, random: &mut Random) {
    let key = format!("key{:02}", random.below(30));
    let value = format!("{:x}", random.next_u64()).repeat(1 + random.index(20));
    let durability = match random.chance(2) {
        true => Durability::Sync,
        false => Durability::Buffered,
    };
    let options = WriteOptions::new().durability(durability);
    let users = || db.keyspace("users").unwrap();
    match random.index(10) {
        0 => db.delete(&key).unwrap(),
        1 => db.delete_range(key.clone()..format!("{key}5")).unwrap(),
        2 => {
            let mut batch = WriteBatch::new();
            batch.put_in(&users(), &key, &value);
            batch.delete_in(&users(), "key05");
            batch.put(&key, "both");
            batch.delete_range(format!("key0{}", random.below(9)).as_str().."key09");
            db.write_opt(batch, &options).unwrap();
        }
        3 => db
            .put_with_ttl(&key, &value, Duration::from_secs(3600))
            .unwrap(),
        4 => db.keyspace("lists").unwrap().merge(&key, "item").unwrap(),
        5 => db
            .keyspace("notes")
            .unwrap()
            .put(&key, &value[..8])
            .unwrap(),
        6 => db.keyspace("notes").unwrap().delete(&key).unwrap(),
        7 => db
            .transact(|tx| {
                let known = tx.get(&key)?.map_or(0, |value| value.len());
                tx.put(&key, known.to_string())?;
                tx.put(format!("{key}'"), "seen")
            })
            .unwrap(),
        8 => users().put_opt(&key, &value, &options).unwrap(),
        _ => db.put_opt(&key, &value, &options).unwrap(),
    }
}

/// Something else than a write.
fn do_something(db: &mut Db, world: &World, random: &mut Random) {
    match random.index(8) {
        0 => db.flush().unwrap(),
        1 => db.wal().rotate().unwrap(),
        2 => db.wal().clear().unwrap(),
        3 => {
            db.close().unwrap();
            *db = world.open();
        }
        4 => drop(db.create_backup("on the way").unwrap()),
        5 => drop(db.create_recovery_point("on the way").unwrap()),
        6 => {
            // The archive reaches back to the beginning: whatever somebody made can go.
            let made = db.list_backups().unwrap().into_iter();
            let made: Vec<_> = made.filter(|it| it.restored_sequence().is_none()).collect();
            if !made.is_empty() {
                let name = made[random.index(made.len())].name();
                db.delete_backup(name).unwrap();
            }
        }
        _ if db.keyspace_names().unwrap().contains(&"users".into()) => {
            db.drop_keyspace("users").unwrap();
        }
        _ => db.compact().unwrap(),
    }
}

/// Takes the database back to a moment of any kind, before or behind other restores, which is a part of
/// its history like a write.
fn restore_in_place(db: &Db, world: &World, random: &mut Random, told: &mut Told) {
    let backups = db.list_backups().unwrap();
    let (point, expected) = match random.index(4) {
        0 if !backups.is_empty() => {
            let backup = &backups[random.index(backups.len())];
            let point = RestorePoint::Backup(backup.name().into());
            (point, told.at(backup.sequence()))
        }
        1 => {
            let passed = esker::Clock::now_millis(&*world.clock) - BEGIN_MILLIS;
            let millis = BEGIN_MILLIS + random.below(passed + 1);
            (RestorePoint::Time(millis), told.at_time(millis))
        }
        2 => (RestorePoint::Latest, told.at(u64::MAX)),
        _ => {
            let sequence = random.below(db.snapshot().sequence() + 1);
            (RestorePoint::Sequence(sequence), told.at(sequence))
        }
    };
    let restored = db.restore_to_point(&point).unwrap();
    let now = contents(db);
    assert!(expected.contains(&&now), "{point:?} gave {restored:?}");
    let left = db.list_backups().unwrap().into_iter();
    let left = left.filter(|it| it.restored_sequence().is_some());
    let left = left.max_by_key(|it| it.sequence()).unwrap();
    assert_eq!(left.restored_sequence(), Some(restored.sequence()));
    // What is said of indexes then may be writes behind it.
    let millis = esker::Clock::now_millis(&*world.clock);
    told.states.push((left.sequence(), millis, now));
}

/// Makes a history, and notes each of its states.
pub(crate) fn history(world: &World, random: &mut Random, steps: usize) -> (Db, Told) {
    let mut db = world.open();
    let mut told = Told::default();
    told.note(world, &db);
    for _ in 0..steps {
        world.clock.advance(Duration::from_millis(random.below(90)));
        if random.chance(25) {
            restore_in_place(&db, world, random, &mut told);
        } else if random.chance(12) {
            do_something(&mut db, world, random);
        } else {
            write(&db, random);
        }
        told.note(world, &db);
    }
    (db, told)
}
