//! Times to live against a model: random writes, merges, range deletes, snapshots, flushes, compactions,
//! clean-ups and reopens over two keyspaces, one of them with a default and an index, under a clock that
//! passes, jumps and is turned back; in memory and on disk.
//!
//! What is exact: who sees what, at every step; and the count of a clean-up, but for keys that a flush or a
//! compaction may have removed after they expired, which it need not count.

use esker::merge_operators::Append;
use esker::vfs::{FileSystem, MemFileSystem};
use esker::{Db, IndexDefinition, Keyspace, KeyspaceOptions, ManualClock, Options, Snapshot};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HOME: &str = "/db";
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const KEYSPACES: [&str; 2] = ["default", "sessions"];
/// Of puts into `sessions` that name no time to live.
const DEFAULT_SECONDS: u64 = 15;
/// A key that tells the time: it expires at this moment.
const FAR: u64 = 1 << 40;

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize),
    PutWithTtl(usize, usize, u64),
    Merge(usize, usize),
    Delete(usize, usize),
    DeleteRange(usize),
    SetTtl(usize, usize, u64),
    Persist(usize, usize),
    Advance(u64),
    /// The wall clock is set so many seconds forwards or backwards.
    SetWall(i64),
    Snapshot,
    ForgetSnapshot,
    Flush,
    Compact,
    CleanUp(Option<usize>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let keyspace = || 0..KEYSPACES.len();
    let key = || 0..KEYS.len();
    prop_oneof![
        3 => (keyspace(), key()).prop_map(|(k, key)| Step::Put(k, key)),
        6 => (keyspace(), key(), 1_u64..12).prop_map(|(k, key, s)| Step::PutWithTtl(k, key, s)),
        4 => (keyspace(), key()).prop_map(|(k, key)| Step::Merge(k, key)),
        1 => (keyspace(), key()).prop_map(|(k, key)| Step::Delete(k, key)),
        1 => keyspace().prop_map(Step::DeleteRange),
        2 => (keyspace(), key(), 1_u64..12).prop_map(|(k, key, s)| Step::SetTtl(k, key, s)),
        1 => (keyspace(), key()).prop_map(|(k, key)| Step::Persist(k, key)),
        6 => (1_u64..8).prop_map(Step::Advance),
        1 => (-30_i64..10).prop_map(Step::SetWall),
        1 => Just(Step::Snapshot),
        1 => Just(Step::ForgetSnapshot),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        4 => proptest::option::of(keyspace()).prop_map(Step::CleanUp),
        1 => Just(Step::Reopen),
    ]
}

/// A value, when it expires, milliseconds, and whether it may have been removed since.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    value: String,
    expiry: Option<u64>,
    may_be_gone: bool,
}

type Model = [BTreeMap<usize, Record>; 2];

struct World {
    fs: Option<Arc<MemFileSystem>>,
    clock: Arc<ManualClock>,
    db: Option<Db>,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    /// What was last seen of the time.
    seen: u64,
    /// The latest moment at which a key was seen to have expired.
    expired_until: u64,
}

impl World {
    fn new(on_disk: bool) -> Self {
        let mut world = Self {
            fs: on_disk.then(|| Arc::new(MemFileSystem::new())),
            clock: Arc::new(ManualClock::at_millis(1_000_000)),
            db: None,
            model: Model::default(),
            snapshots: Vec::new(),
            seen: 1_000_000,
            expired_until: 0,
        };
        world.open();
        let clock = world.db().keyspace("clock").unwrap();
        clock
            .put_with_ttl("far", "", Duration::from_millis(FAR - 1_000_000))
            .unwrap();
        world
    }

    fn open(&mut self) {
        let by_value = IndexDefinition::new("by_value", 1, |_key, value, keys| {
            keys.add(&value.to_vec());
            Ok(())
        });
        let options = Options::new()
            .clock(self.clock.clone())
            .ttl_cleanup_interval(None)
            .level0_runs(64)
            .merge_operator("default", Append::new("+"))
            .merge_operator("sessions", Append::new("+"))
            .index("sessions", by_value);
        let db = match &self.fs {
            Some(fs) => {
                let fs: Arc<dyn FileSystem> = fs.clone();
                options.file_system(fs).open(HOME).unwrap()
            }
            None => options.open_in_memory().unwrap(),
        };
        let own = KeyspaceOptions::new().default_ttl(Duration::from_secs(DEFAULT_SECONDS));
        db.keyspace_with("sessions", &own).unwrap();
        db.build_indexes().unwrap();
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn keyspace(&self, number: usize) -> Keyspace {
        self.db().keyspace(KEYSPACES[number]).unwrap()
    }

    /// The time as the database has it, which never runs backwards while it is open.
    fn now(&mut self) -> u64 {
        let left = self
            .db()
            .keyspace("clock")
            .unwrap()
            .ttl("far")
            .unwrap()
            .unwrap();
        let now = FAR - left.as_millis() as u64;
        assert!(
            now >= self.seen,
            "time ran backwards from {} to {now}",
            self.seen
        );
        self.seen = now;
        now
    }

    fn take(&mut self, step: &Step) {
        let now = self.now();
        let after = |seconds: u64| Some(now + seconds * 1000);
        match *step {
            Step::Put(k, key) => {
                self.keyspace(k).put(KEYS[key], "v").unwrap();
                let expiry = (k == 1).then(|| now + DEFAULT_SECONDS * 1000);
                self.set(k, key, "v".into(), expiry);
            }
            Step::PutWithTtl(k, key, seconds) => {
                self.keyspace(k)
                    .put_with_ttl(KEYS[key], "t", Duration::from_secs(seconds))
                    .unwrap();
                self.set(k, key, "t".into(), after(seconds));
            }
            Step::Merge(k, key) => {
                self.keyspace(k).merge(KEYS[key], "m").unwrap();
                let (value, expiry) = match self.living(k, key, now) {
                    Some(record) => (format!("{}+m", record.value), record.expiry),
                    None => ("m".into(), None),
                };
                self.set(k, key, value, expiry);
            }
            Step::Delete(k, key) => {
                self.keyspace(k).delete(KEYS[key]).unwrap();
                self.model[k].remove(&key);
            }
            Step::DeleteRange(k) => {
                self.keyspace(k).delete_range("b".."d").unwrap();
                self.model[k].retain(|key, _| !(1..3).contains(key));
            }
            Step::SetTtl(k, key, seconds) => {
                let ttl = Duration::from_secs(seconds);
                let had_value = self.keyspace(k).set_ttl(KEYS[key], ttl).unwrap();
                let living = self.living(k, key, now);
                assert_eq!(had_value, living.is_some());
                if let Some(record) = living {
                    self.set(k, key, record.value, after(seconds));
                }
            }
            Step::Persist(k, key) => {
                let had_expiry = self.keyspace(k).persist(KEYS[key]).unwrap();
                let living = self
                    .living(k, key, now)
                    .filter(|record| record.expiry.is_some());
                assert_eq!(had_expiry, living.is_some());
                if let Some(record) = living {
                    self.set(k, key, record.value, None);
                }
            }
            Step::Advance(seconds) => self.clock.advance(Duration::from_secs(seconds)),
            Step::SetWall(seconds) => {
                let wall = esker::Clock::now_millis(&*self.clock);
                self.clock
                    .set_wall_millis(wall.saturating_add_signed(seconds * 1000));
            }
            Step::Snapshot => self
                .snapshots
                .push((self.db().snapshot(), self.model.clone())),
            Step::ForgetSnapshot => drop(self.snapshots.pop()),
            Step::Flush => {
                self.db().flush().unwrap();
                self.settle(now);
            }
            Step::Compact => {
                self.db().compact().unwrap();
                self.settle(now);
            }
            Step::CleanUp(None) => {
                let removed = self.db().cleanup_expired().unwrap();
                self.cleaned(&[0, 1], now, removed);
            }
            Step::CleanUp(Some(k)) => {
                let removed = self.keyspace(k).cleanup_expired().unwrap();
                self.cleaned(&[k], now, removed);
            }
            Step::Reopen => self.reopen(now),
        }
    }

    fn set(&mut self, k: usize, key: usize, value: String, expiry: Option<u64>) {
        self.model[k].insert(
            key,
            Record {
                value,
                expiry,
                may_be_gone: false,
            },
        );
    }

    fn living(&self, k: usize, key: usize, now: u64) -> Option<Record> {
        let record = self.model[k].get(&key)?;
        record
            .expiry
            .is_none_or(|expiry| expiry > now)
            .then(|| record.clone())
    }

    /// Waits for the jobs that a change has begun: one that ran on would remove, uncounted, what expires
    /// later as well.
    fn settle(&mut self, now: u64) {
        self.db().wait_for_background_work().unwrap();
        self.forget_expired(now);
    }

    /// A job that ran now may have removed what has expired.
    fn forget_expired(&mut self, now: u64) {
        for record in self.model.iter_mut().flat_map(BTreeMap::values_mut) {
            record.may_be_gone |= record.expiry.is_some_and(|expiry| expiry <= now);
        }
    }

    fn cleaned(&mut self, keyspaces: &[usize], now: u64, removed: u64) {
        let (mut least, mut most) = (0, 0);
        for &k in keyspaces {
            self.model[k].retain(|_, record| {
                let has_expired = record.expiry.is_some_and(|expiry| expiry <= now);
                least += u64::from(has_expired && !record.may_be_gone);
                most += u64::from(has_expired);
                !has_expired
            });
        }
        assert!(
            (least..=most).contains(&removed),
            "{removed} of {least} to {most} removed"
        );
    }

    /// In a new life time may have gone back, but not before anything that was seen to have expired.
    fn reopen(&mut self, now: u64) {
        if self.fs.is_none() {
            return;
        }
        self.forget_expired(now);
        self.snapshots.clear();
        self.db().close().unwrap();
        self.db = None;
        self.open();
        self.seen = self.expired_until;
        let now = self.now();
        self.settle(now);
    }

    fn check(&mut self) {
        let now = self.now();
        for k in 0..KEYSPACES.len() {
            let expected = visible(&self.model[k], now);
            let keyspace = self.keyspace(k);
            let scanned: Vec<(String, String)> =
                keyspace.iter().map(|entry| text(entry.unwrap())).collect();
            assert_eq!(scanned, expected, "{} at {now}", KEYSPACES[k]);
            for (number, key) in KEYS.iter().enumerate() {
                let living = self.living(k, number, now);
                let value = keyspace.get(key).unwrap().map(|value| value.to_vec());
                assert_eq!(
                    value,
                    living
                        .as_ref()
                        .map(|record| record.value.clone().into_bytes())
                );
                let left = living
                    .and_then(|record| record.expiry)
                    .map(|expiry| expiry - now);
                assert_eq!(
                    keyspace.ttl(key).unwrap(),
                    left.map(Duration::from_millis),
                    "{key}"
                );
            }
            for (snapshot, model) in &self.snapshots {
                let entries = snapshot.range_in(&keyspace, ..=KEYS[KEYS.len() - 1]);
                let scanned: Vec<(String, String)> =
                    entries.map(|entry| text(entry.unwrap())).collect();
                assert_eq!(
                    scanned,
                    visible(&model[k], now),
                    "a snapshot of {}",
                    KEYSPACES[k]
                );
            }
        }
        let mut expiries: Vec<u64> = self
            .model
            .iter()
            .flat_map(BTreeMap::values)
            .filter_map(|record| record.expiry)
            .collect();
        expiries.retain(|expiry| *expiry <= now);
        self.expired_until = expiries
            .into_iter()
            .max()
            .unwrap_or(0)
            .max(self.expired_until);
    }
}

fn text((key, value): (impl AsRef<[u8]>, impl AsRef<[u8]>)) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(key.as_ref()), text(value.as_ref()))
}

fn visible(model: &BTreeMap<usize, Record>, now: u64) -> Vec<(String, String)> {
    let living = model
        .iter()
        .filter(|(_, record)| record.expiry.is_none_or(|expiry| expiry > now));
    living
        .map(|(key, record)| (KEYS[*key].to_string(), record.value.clone()))
        .collect()
}

fn run(on_disk: bool, steps: &[Step]) {
    let mut world = World::new(on_disk);
    for step in steps {
        world.take(step);
        world.check();
    }
    let report = world.db().validate().unwrap();
    assert!(report.issues().is_empty(), "{:?}", report.issues());
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    match asked {
        true => ProptestConfig::default(),
        false => ProptestConfig::with_cases(60),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_expires_is_gone_and_counted_on_disk(steps in proptest::collection::vec(step(), 1..60)) {
        run(true, &steps);
    }

    #[test]
    fn what_expires_is_gone_and_counted_in_memory(steps in proptest::collection::vec(step(), 1..60)) {
        run(false, &steps);
    }
}
