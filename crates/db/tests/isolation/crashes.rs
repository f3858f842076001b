//! Bank transfers from many threads, with crashes and kills in between: no money is made or lost, no
//! transfer is there by half, and none that was acknowledged is gone.

use super::{modes, options};
use esker::{Db, Durability, Options, Result, Transaction};
use esker_testkit::Random;
use esker_testkit::disk::{CrashFileSystem, ImagePolicy, MemFileSystem};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const ACCOUNTS: u64 = 12;
const OPENING: u64 = 1000;

/// Odd accounts are in a keyspace of their own, so that most transfers span two.
fn keyspace(account: u64) -> &'static str {
    if account.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

fn open_accounts(db: &Db) -> Result<()> {
    db.transact(|tx| {
        for account in 0..ACCOUNTS {
            let place = db.keyspace(keyspace(account))?;
            tx.put_in(&place, account.to_be_bytes(), OPENING.to_le_bytes())?;
        }
        Ok(())
    })
}

/// Moves some money and enters it in the ledger under `entry`, in the default keyspace.
fn transfer(db: &Db, tx: &mut Transaction, entry: &str, random: &mut Random) -> Result<()> {
    let from = random.below(ACCOUNTS);
    let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
    let (source, target) = (db.keyspace(keyspace(from))?, db.keyspace(keyspace(to))?);
    let balance = tx.get_for_update_in(&source, from.to_be_bytes())?;
    let balance = number(&balance.unwrap());
    let other = number(&tx.get_in(&target, to.to_be_bytes())?.unwrap());
    let amount = random.below(200).min(balance);
    tx.put_in(
        &source,
        from.to_be_bytes(),
        (balance - amount).to_le_bytes(),
    )?;
    tx.put_in(&target, to.to_be_bytes(), (other + amount).to_le_bytes())?;
    tx.put(entry, format!("{from} {to} {amount}"))
}

/// The balances must follow from the ledger, whatever is in it. Returns the ledger's entries.
fn audit(db: &Db) -> Vec<String> {
    let mut expected: BTreeMap<u64, u64> = (0..ACCOUNTS).map(|a| (a, OPENING)).collect();
    let (mut entries, mut moves) = (Vec::new(), Vec::new());
    let snapshot = db.snapshot();
    for entry in snapshot.iter() {
        let (name, line) = entry.unwrap();
        entries.push(String::from_utf8(name.to_vec()).unwrap());
        let line = String::from_utf8(line.to_vec()).unwrap();
        moves.push(
            line.split(' ')
                .map(|n| n.parse().unwrap())
                .collect::<Vec<u64>>(),
        );
    }
    // In any order: balances on the way may be negative, so add first.
    for line in &moves {
        *expected.get_mut(&line[1]).unwrap() += line[2];
    }
    for line in &moves {
        *expected.get_mut(&line[0]).unwrap() -= line[2];
    }
    let mut total = 0;
    for (account, balance) in expected {
        let place = snapshot.of(&db.keyspace(keyspace(account)).unwrap());
        let found = place.get(account.to_be_bytes()).unwrap();
        let found = found.map(|value| number(&value));
        assert_eq!(found, Some(balance), "account {account}");
        total += balance;
    }
    assert_eq!(total, ACCOUNTS * OPENING);
    entries
}

/// Four threads transfer on a simulated disk; the power fails at some operation; the database opens
/// on what is left, is audited, and the next life goes on from there.
#[test]
fn transfers_survive_power_loss() {
    for seed in esker_testkit::seed::seeds(4) {
        let mut random = Random::new(seed);
        let mut image = MemFileSystem::new();
        let mut opened = false;
        for life in 0..5 {
            let disk = CrashFileSystem::new(image);
            let db = small()
                .file_system(Arc::new(disk.clone()))
                .open("/db")
                .unwrap();
            if !opened {
                open_accounts(&db).unwrap();
            }
            opened = true;
            audit(&db);
            let first = disk.operations();
            let acknowledged = Mutex::new(Vec::new());
            thread::scope(|scope| {
                for thread in 0..4u64 {
                    let (db, disk, acknowledged) = (&db, &disk, &acknowledged);
                    let mut random = Random::new(random.next_u64() ^ thread);
                    scope.spawn(move || {
                        for turn in 0..12 {
                            let mode = modes()[random.below(4) as usize];
                            let options = options(mode).lock_timeout(Duration::from_secs(60));
                            let entry = format!("{life}/{thread}/{turn}");
                            let draw = random.next_u64();
                            db.transact_with(&options, |tx| {
                                transfer(db, tx, &entry, &mut Random::new(draw))
                            })
                            .unwrap();
                            acknowledged
                                .lock()
                                .unwrap()
                                .push((disk.operations(), entry));
                        }
                    });
                }
            });
            drop(db);
            let at = first + random.below((disk.operations() - first) as u64 + 1) as usize;
            let policy = ImagePolicy::from_seed(random.next_u64());
            image = disk.image(at, &policy);
            let db = small().file_system(Arc::new(image.clone())).open("/db");
            let db = db.unwrap_or_else(|error| panic!("seed {seed}, {at}, {policy}: {error}"));
            let entries = audit(&db);
            for (when, entry) in acknowledged.into_inner().unwrap() {
                let must = when <= at;
                assert!(
                    !must || entries.contains(&entry),
                    "seed {seed}, life {life}, crash at {at}, {policy}: {entry} is lost"
                );
            }
            db.close().unwrap();
        }
    }
}

fn small() -> Options {
    Options::new()
        .write_buffer_bytes(8 << 10)
        .wal_segment_bytes(16 << 10)
        .wal_size_limit_bytes(64 << 10)
}

const CHILD_DIRECTORY: &str = "ESKER_TRANSFERS_IN";

/// What `transfers_survive_kills` runs in a process of its own: transfers without end, each told
/// when it is acknowledged.
fn transfer_until_killed(directory: &OsStr) {
    let db = small()
        .default_durability(Durability::Buffered)
        .open(directory)
        .unwrap();
    let life = db.count().unwrap();
    if life == 0 {
        open_accounts(&db).unwrap();
    }
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let db = &db;
            scope.spawn(move || {
                let mut random = Random::new(life * 10 + thread);
                for turn in 0.. {
                    let mode = modes()[random.below(4) as usize];
                    let options = options(mode).lock_timeout(Duration::from_secs(60));
                    let entry = format!("{life}/{thread}/{turn}");
                    let draw = random.next_u64();
                    db.transact_with(&options, |tx| {
                        transfer(db, tx, &entry, &mut Random::new(draw))
                    })
                    .unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {entry}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

/// A process that transfers, this test run once more, is killed in the middle of it, again and again.
#[test]
fn transfers_survive_kills() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        return transfer_until_killed(&directory);
    }
    let directory = tempfile::tempdir().unwrap();
    for kill in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crashes::transfers_survive_kills"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 200 + kill * 150 {
            let line = lines.next().expect("the child goes on").unwrap();
            // The harness may have begun the line with words of its own.
            if let Some((_, entry)) = line.split_once("acknowledged ") {
                acknowledged.push(entry.to_string());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let db = small().open(directory.path()).unwrap();
        let entries = audit(&db);
        for entry in &acknowledged {
            assert!(entries.contains(entry), "kill {kill}: {entry} is lost");
        }
        db.close().unwrap();
    }
}
