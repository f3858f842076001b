//! One client: a thread that does what its seed says, and holds every answer against what it knows.
//!
//! Invariant: a client alone writes the keys that begin with its letter, and its own keyspace; what it
//! reads of them is known to the byte while other clients and the background run. What it shares with
//! the others is in `accounts`.

use std::collections::BTreeMap;
use std::time::Duration;

use esker::{Db, ErrorKind, Keyspace, Snapshot, TransactionOptions, WriteBatch, WriteOptions};

use super::accounts;
use super::failure::Failure;
use super::feed;
use super::world::{World, locked};
use crate::oracle::{OracleSnapshot, State};
use crate::seed::Random;
use crate::step::{Action, Durability, Step};
use crate::workload::{Mix, Workload, WorkloadOptions, key};

/// Beyond every key.
const BEYOND: &[u8] = &[0xff; 9];
const KEYS: usize = 24;

/// The letter that the keys of client `number` begin with.
pub(crate) fn letter(number: usize) -> u8 {
    b'a' + number as u8
}

/// The keyspace that client `number` has to itself; 1 in its actions, where 0 is the default one.
pub(crate) fn own_keyspace(number: usize) -> String {
    format!("client {number}")
}

/// A client in one life of the database.
pub(crate) struct Client<'a> {
    pub(crate) world: &'a World,
    pub(crate) db: &'a Db,
    pub(crate) number: usize,
    random: Random,
    values: u64,
    snapshots: Vec<(usize, Snapshot, OracleSnapshot)>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(world: &'a World, db: &'a Db, number: usize, life: u64) -> Self {
        Self {
            world,
            db,
            number,
            random: Random::of_part(world.seed ^ life.wrapping_mul(0x9e37), 100 + number as u64),
            values: 0,
            snapshots: Vec::new(),
        }
    }

    fn workload(&mut self, steps: usize) -> Workload {
        let random = &mut self.random;
        let durabilities = match random.below(4) {
            0 => vec![Durability::Buffered],
            1 => vec![Durability::Sync],
            2 => vec![Durability::Sync, Durability::Buffered, Durability::Volatile],
            _ => vec![Durability::Sync, Durability::Buffered, Durability::Buffered],
        };
        Workload::new(WorkloadOptions {
            seed: random.next_u64(),
            steps,
            keys: KEYS,
            keyspaces: 2,
            value_bytes: [40, 400, 3000][random.index(3)],
            batch_actions: 6,
            snapshots: 2,
            durabilities,
            mix: Mix {
                check: 5,
                reopen: 0,
                ..Mix::default()
            },
        })
    }

    /// Does `steps` steps; ends with the first that shows something wrong.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), Failure> {
        let workload: Vec<_> = self.workload(steps).collect();
        for step in workload {
            if feed::is_followed(self.world.seed) && self.random.chance(6) {
                let followed = feed::follow(self.world, self.db, &mut self.random);
                match followed {
                    Err(Failure::Refused(_)) if self.world.is_faulty => {}
                    followed => followed?,
                }
            }
            let is_special = self.random.below(5) == 0;
            let done = if is_special {
                self.special()
            } else {
                self.step(&step)
            };
            let line = match &done {
                Ok(what) if is_special => (*what).to_owned(),
                Ok(_) => step.to_string(),
                Err(failure) => format!("{step}: {failure}"),
            };
            self.world.scheduler.note(&line);
            match done {
                Err(Failure::Refused(_)) if self.world.is_faulty => {}
                done => _ = done?,
            }
        }
        self.snapshots.clear();
        Ok(())
    }

    fn special(&mut self) -> Result<&'static str, Failure> {
        let (world, db) = (self.world, self.db);
        match self.random.below(20) {
            0..=5 => accounts::transfer(world, db, &mut self.random).map(|()| "transfer"),
            6..=7 => accounts::observe(world, db).map(|()| "observe"),
            8..=11 => self.transaction(),
            12 => self.ingest(),
            13 => self.drop_or_clear(),
            14 => Ok(db.wal().rotate()?).map(|()| "rotate the log"),
            15 => {
                db.wal().sync()?;
                let moment = world.moment();
                locked(&world.books[self.number]).oracle.log_synced(moment);
                Ok("sync the log")
            }
            16 => {
                db.wal().clear()?;
                self.made_durable();
                Ok("clear the log")
            }
            17 => Ok(db.cleanup_expired()?).map(|_| "clean up"),
            18 => self.backup(),
            _ => self.look_up_many(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<&'static str, Failure> {
        match step {
            Step::Write {
                actions,
                durability,
            } => {
                let actions: Vec<_> = actions.iter().map(|action| self.own(action)).collect();
                let (asked, kept) = durability.for_batch(&actions);
                let options = WriteOptions::new().durability(match asked {
                    Durability::Sync => esker::Durability::Sync,
                    Durability::Buffered => esker::Durability::Buffered,
                    Durability::Volatile => esker::Durability::Volatile,
                });
                self.write(actions.clone(), kept, |client| {
                    let batch = client.batch(&actions)?;
                    client.db.write_opt(batch, &options)
                })?;
                Ok("write")
            }
            Step::TakeSnapshot(number) => {
                let known = locked(&self.world.books[self.number]).oracle.snapshot();
                self.snapshots.push((*number, self.db.snapshot(), known));
                Ok("take a snapshot")
            }
            Step::ReleaseSnapshot(number) => {
                let (held, rest) = std::mem::take(&mut self.snapshots)
                    .into_iter()
                    .partition(|(it, ..)| it == number);
                self.snapshots = rest;
                for (_, snapshot, expected) in held {
                    self.compare_snapshot(&snapshot, &expected)?;
                }
                Ok("release a snapshot")
            }
            Step::Flush => {
                self.db.flush()?;
                self.made_durable();
                Ok("flush")
            }
            Step::Compact => {
                self.db.compact()?;
                Ok("compact")
            }
            Step::CompactRange { start, end, .. } => {
                self.db
                    .compact_range(self.own_key(start)..self.own_key(end))?;
                Ok("compact a range")
            }
            Step::PassTime(millis) => {
                if *locked(&self.world.expiring) == 0 {
                    self.world.clock.pass(*millis);
                }
                Ok("pass time")
            }
            Step::Check | Step::Reopen => self.compare(),
        }
    }

    fn own_key(&self, key: &[u8]) -> Vec<u8> {
        [&[letter(self.number)], key].concat()
    }

    /// The same action on keys of this client alone.
    fn own(&self, action: &Action) -> Action {
        let mut action = action.clone();
        match &mut action {
            Action::Put { key, value, .. } => {
                *key = self.own_key(key);
                // Values of several clients differ as well.
                value.push(letter(self.number));
            }
            Action::Delete { key, .. } => *key = self.own_key(key),
            Action::DeleteRange { start, end, .. } => {
                (*start, *end) = (self.own_key(start), self.own_key(end));
            }
        }
        action
    }

    fn keyspace(&self, keyspace: u32) -> esker::Result<Keyspace> {
        match keyspace {
            0 => Ok((**self.db).clone()),
            _ => self.db.keyspace(&own_keyspace(self.number)),
        }
    }

    fn made_durable(&self) {
        let moment = self.world.moment();
        locked(&self.world.books[self.number])
            .oracle
            .flushed(moment);
    }

    /// What this client must see now.
    fn expected(&self) -> State {
        let now = self.world.clock.wall_millis();
        locked(&self.world.books[self.number]).oracle.state(now)
    }

    fn write(
        &mut self,
        actions: Vec<Action>,
        durability: Durability,
        call: impl FnOnce(&mut Self) -> esker::Result<()>,
    ) -> Result<(), Failure> {
        let expires = actions.iter().any(Action::expires);
        *locked(&self.world.expiring) += usize::from(expires);
        let (moment, event) = (self.world.moment(), self.world.scheduler.event());
        let now = self.world.clock.wall_millis();
        let book = &self.world.books[self.number];
        let id = locked(book).begin(moment, now, event, durability, actions);
        let result = call(self);
        *locked(&self.world.expiring) -= usize::from(expires);
        let (moment, event) = (self.world.moment(), self.world.scheduler.event());
        let mut book = locked(&self.world.books[self.number]);
        match result {
            Ok(()) => {
                book.oracle.acknowledge(id, moment);
                if let Some(span) = book.spans.last_mut() {
                    span.acknowledged = Some(event);
                }
                Ok(())
            }
            Err(error) => {
                book.oracle.fail(id);
                Err(Failure::Refused(error))
            }
        }
    }

    fn batch(&self, actions: &[Action]) -> esker::Result<WriteBatch> {
        let mut batch = WriteBatch::new();
        for action in actions {
            match action {
                Action::Put {
                    keyspace,
                    key,
                    value,
                    ttl_millis,
                } => {
                    let keyspace = self.keyspace(*keyspace)?;
                    match ttl_millis {
                        Some(ttl) => {
                            let ttl = Duration::from_millis(*ttl);
                            batch.put_with_ttl_in(&keyspace, key, value, ttl);
                        }
                        None => batch.put_in(&keyspace, key, value),
                    }
                }
                Action::Delete { keyspace, key } => {
                    batch.delete_in(&self.keyspace(*keyspace)?, key);
                }
                Action::DeleteRange {
                    keyspace,
                    start,
                    end,
                } => {
                    let keyspace = self.keyspace(*keyspace)?;
                    batch.delete_range_in(&keyspace, start.clone()..end.clone());
                }
            }
        }
        Ok(batch)
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let longest = self.random.index(300);
        let mut value = format!("special {} {} ", self.number, self.values).into_bytes();
        value.resize(value.len() + longest, b's');
        value
    }

    /// A transaction on keys of this client: it reads its own writes, and all of them or none count.
    fn transaction(&mut self) -> Result<&'static str, Failure> {
        let options = TransactionOptions::new().durability(esker::Durability::Sync);
        let mut transaction = self.db.begin_with(&options)?;
        let mut seen: BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
        let mut actions = Vec::new();
        for _ in 0..1 + self.random.index(5) {
            let keyspace = self.random.below(2) as u32;
            let home = self.keyspace(keyspace)?;
            let number = self.random.index(KEYS);
            let key = self.own_key(&key(number));
            let place = (keyspace, key.clone());
            match self.random.below(3) {
                0 => {
                    let known = seen.get(&place).cloned();
                    let before = self.expected();
                    let found = transaction.get_in(&home, &key)?.map(|value| value.to_vec());
                    let known = known.unwrap_or_else(|| before.get(&place).cloned());
                    let after = self.expected();
                    if found != known && (found.is_some() || after.contains_key(&place)) {
                        let key = key.escape_ascii();
                        return Err(Failure::Wrong(format!(
                            "a transaction finds another value of {key}"
                        )));
                    }
                }
                1 => {
                    let value = self.value();
                    transaction.put_in(&home, &key, &value)?;
                    seen.insert(place, Some(value.clone()));
                    actions.push(Action::Put {
                        keyspace,
                        key,
                        value,
                        ttl_millis: None,
                    });
                }
                _ => {
                    transaction.delete_in(&home, &key)?;
                    seen.insert(place, None);
                    actions.push(Action::Delete { keyspace, key });
                }
            }
        }
        if self.random.chance(6) {
            transaction.rollback()?;
            return Ok("roll back");
        }
        if actions.is_empty() {
            // Nothing that a log would have to keep.
            transaction.commit()?;
            return Ok("read in a transaction");
        }
        match self.write(actions, Durability::Sync, |_| transaction.commit()) {
            Err(Failure::Refused(error)) if error.kind() == ErrorKind::Conflict => Ok("conflict"),
            done => done.map(|()| "commit"),
        }
    }

    fn ingest(&mut self) -> Result<&'static str, Failure> {
        let mut entries = BTreeMap::new();
        for _ in 0..1 + self.random.index(8) {
            let number = self.random.index(KEYS);
            let key = self.own_key(&key(number));
            let value = self.value();
            entries.insert(key, value);
        }
        let keyspace = self.random.below(2) as u32;
        let actions = entries
            .iter()
            .map(|(key, value)| Action::Put {
                keyspace,
                key: key.clone(),
                value: value.clone(),
                ttl_millis: None,
            })
            .collect();
        self.write(actions, Durability::Sync, |client| {
            client.keyspace(keyspace)?.ingest(&entries).map(|_| ())
        })?;
        Ok("ingest")
    }

    /// Empties the keyspace of this client, or does away with it.
    fn drop_or_clear(&mut self) -> Result<&'static str, Failure> {
        let everything = vec![Action::DeleteRange {
            keyspace: 1,
            start: Vec::new(),
            end: BEYOND.to_vec(),
        }];
        if self.random.chance(2) {
            self.write(everything, Durability::Sync, |client| {
                client.keyspace(1)?.clear()
            })?;
            return Ok("clear");
        }
        let name = own_keyspace(self.number);
        if self.db.keyspace_names()?.contains(&name) {
            self.snapshots.clear();
            self.write(everything, Durability::Sync, |client| {
                client.db.drop_keyspace(&name)
            })?;
        }
        Ok("drop the keyspace")
    }

    fn backup(&mut self) -> Result<&'static str, Failure> {
        let begun = self.world.scheduler.event();
        let info = if self.random.chance(3) {
            self.db.create_recovery_point("simulated")?
        } else {
            self.db.create_backup("simulated")?
        };
        let backup = Backup {
            name: info.name().to_owned(),
            begun,
            writes: (self.world.books.iter())
                .map(|book| locked(book).spans.len())
                .collect(),
        };
        locked(&self.world.backups).push(backup);
        Ok("back up")
    }

    fn look_up_many(&mut self) -> Result<&'static str, Failure> {
        let keyspace = self.random.below(2) as u32;
        let keys: Vec<_> = (0..KEYS).map(|number| self.own_key(&key(number))).collect();
        let before = self.expected();
        let found = self.keyspace(keyspace)?.multi_get(&keys)?;
        let after = self.expected();
        for (key, found) in keys.into_iter().zip(found) {
            let place = (keyspace, key);
            self.judge(&place, found.as_deref(), &before, &after)?;
        }
        Ok("look up many")
    }

    /// What is found under a key is what must be there, or has expired while somebody looked.
    fn judge(
        &self,
        place: &(u32, Vec<u8>),
        found: Option<&[u8]>,
        before: &State,
        after: &State,
    ) -> Result<(), Failure> {
        let right = match found {
            Some(found) => before.get(place).is_some_and(|value| value == found),
            None => !after.contains_key(place),
        };
        if right {
            return Ok(());
        }
        Err(Failure::Wrong(format!(
            "client {} finds {:?} of {} bytes under {}/{}, not {:?}",
            self.number,
            found.map(|value| value[..value.len().min(12)].escape_ascii().to_string()),
            found.map_or(0, <[u8]>::len),
            place.0,
            place.1.escape_ascii(),
            before.get(place).map(Vec::len),
        )))
    }

    fn compare_snapshot(&self, snapshot: &Snapshot, known: &OracleSnapshot) -> Result<(), Failure> {
        let before = known.state(self.world.clock.wall_millis());
        for entry in snapshot.prefix([letter(self.number)]) {
            let (key, value) = entry?;
            if before.get(&(0, key.to_vec())).map(Vec::as_slice) != Some(&*value) {
                let key = key.escape_ascii();
                return Err(Failure::Wrong(format!("a snapshot moved at key {key}")));
            }
        }
        let mut missing = Vec::new();
        for place in before.keys().filter(|(keyspace, _)| *keyspace == 0) {
            if snapshot.get(&place.1)?.is_none() {
                missing.push(place);
            }
        }
        // Others may have let time pass since, so that something has expired.
        let after = known.state(self.world.clock.wall_millis());
        match missing.into_iter().find(|place| after.contains_key(place)) {
            Some((_, key)) => {
                let key = key.escape_ascii();
                Err(Failure::Wrong(format!("a snapshot lost key {key}")))
            }
            None => Ok(()),
        }
    }

    /// Reads everything of this client by a scan forwards, backwards, or from both ends.
    pub(crate) fn compare(&mut self) -> Result<&'static str, Failure> {
        for keyspace in 0..2 {
            let before = self.expected();
            let home = self.keyspace(keyspace)?;
            let mut entries = home.prefix([letter(self.number)]);
            let way = self.random.below(4);
            let mut found = BTreeMap::new();
            loop {
                let backwards = way == 1 || (way == 2 && self.random.chance(2));
                let entry = if backwards {
                    entries.next_back()
                } else {
                    entries.next()
                };
                let Some(entry) = entry else { break };
                let (key, value) = entry?;
                if found.insert(key.to_vec(), value.to_vec()).is_some() {
                    return Err(Failure::Wrong("a scan gives a key twice".into()));
                }
            }
            drop(entries);
            let after = self.expected();
            let expected = before.keys().filter(|(it, _)| *it == keyspace);
            for (_, key) in expected {
                let place = (keyspace, key.clone());
                self.judge(&place, found.get(key).map(Vec::as_slice), &before, &after)?;
            }
            for (key, value) in &found {
                self.judge(&(keyspace, key.clone()), Some(value), &before, &after)?;
            }
        }
        Ok("compare")
    }
}

/// A backup that was made while clients wrote.
#[derive(Clone)]
pub(crate) struct Backup {
    pub(crate) name: String,
    /// The event before it: what was acknowledged by then is in it.
    pub(crate) begun: u64,
    /// How many writes of each client had begun at its end.
    pub(crate) writes: Vec<usize>,
}
