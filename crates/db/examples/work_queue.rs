//! A work queue: letters to be sent, taken by several workers at once. Each letter is sent once, in
//! order of urgency; what a worker fails to do goes back to the queue, and into a list of dead
//! letters when it has failed three times.
//!
//! A task is one entry whose key orders the queue: urgency first, then age. A worker takes the first
//! one in a transaction that reads only as far as that entry, so that it conflicts with workers that
//! take the same task, and never with those who add others behind it.
//!
//! `cargo run -p esker --example work_queue`

use esker::{Db, Error, ErrorKind, Keyspace, Result};
use std::thread;

const WORKERS: usize = 4;
const LETTERS: u32 = 60;
const MOST_ATTEMPTS: u32 = 3;

/// Where a task is: waiting, being done, done, or given up.
struct Queue {
    db: Db,
    waiting: Keyspace,
    leased: Keyspace,
    done: Keyspace,
    dead: Keyspace,
}

/// A task that a worker has taken.
struct Task {
    key: Vec<u8>,
    attempts: u32,
    letter: String,
}

/// Smaller is more urgent, and sorts first.
fn key(urgency: u8, number: u32) -> Vec<u8> {
    let mut key = vec![urgency];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl Queue {
    fn open(db: Db) -> Result<Self> {
        Ok(Self {
            waiting: db.keyspace("waiting")?,
            leased: db.keyspace("leased")?,
            done: db.keyspace("done")?,
            dead: db.keyspace("dead")?,
            db,
        })
    }

    /// Takes the most urgent task: from now on nobody else gets it.
    fn take(&self) -> Result<Option<Task>> {
        self.db.transact(|tx| {
            let first = tx.iter_in(&self.waiting).next().transpose()?;
            let Some((key, stored)) = first else {
                return Ok(None);
            };
            let text = String::from_utf8_lossy(&stored).into_owned();
            let (attempts, letter) = text
                .split_once(' ')
                .and_then(|(attempts, letter)| Some((attempts.parse().ok()?, letter)))
                .ok_or_else(|| Error::corruption("a task without its attempts"))?;
            tx.delete_in(&self.waiting, &key)?;
            tx.put_in(&self.leased, &key, &stored)?;
            Ok(Some(Task {
                key: key.to_vec(),
                attempts,
                letter: letter.to_string(),
            }))
        })
    }

    /// The task is done, or goes back, or is given up: one of the three, whatever happens.
    fn finish(&self, task: &Task, worked: bool) -> Result<()> {
        let attempts = task.attempts + 1;
        let stored = format!("{attempts} {}", task.letter);
        self.db.transact(|tx| {
            tx.delete_in(&self.leased, &task.key)?;
            let place = if worked {
                &self.done
            } else if attempts < MOST_ATTEMPTS {
                &self.waiting
            } else {
                &self.dead
            };
            tx.put_in(place, &task.key, &stored)
        })
    }
}

/// Sends a letter, which fails for the first two attempts at every seventh, and always for one
/// address that does not exist.
fn send(task: &Task, number: u32) -> bool {
    let unknown = task.letter.contains("Atlantis");
    !unknown && (!number.is_multiple_of(7) || task.attempts >= 2)
}

fn work(queue: &Queue) -> Result<u32> {
    let mut sent = 0;
    while let Some(task) = queue.take()? {
        let number = task
            .key
            .iter()
            .skip(1)
            .fold(0, |n, &b| n << 8 | u32::from(b));
        let worked = send(&task, number);
        queue.finish(&task, worked)?;
        sent += u32::from(worked);
    }
    Ok(sent)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    run(directory.path())?;
    Ok(())
}

fn run(directory: &std::path::Path) -> Result<()> {
    let queue = Queue::open(Db::open(directory)?)?;
    let cities = ["Zurich", "Atlantis", "Lisbon", "Oslo", "Kyoto"];
    for number in 0..LETTERS {
        // Every tenth letter is an express letter, and overtakes the others.
        let urgency = if number % 10 == 9 { 0 } else { 1 };
        let city = cities[number as usize % cities.len()];
        let letter = format!("0 letter {number} to {city}");
        queue.waiting.put(key(urgency, number), letter)?;
    }
    let first = queue.take()?.map(|task| (task.letter.clone(), task));
    let Some((letter, task)) = first else {
        return Err(Error::new(ErrorKind::NotFound, "the queue is empty"));
    };
    assert_eq!(letter, "letter 9 to Kyoto", "the oldest express letter");
    queue.finish(&task, true)?;

    let sent: u32 = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&queue))).collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, "a worker failed")))
        });
        joined.sum::<Result<u32>>()
    })?;

    // Each letter is in one place, and was sent once or given up after three attempts.
    let dead = LETTERS / cities.len() as u32;
    assert_eq!(sent + 1 + dead, LETTERS);
    assert_eq!(queue.done.count()?, u64::from(LETTERS - dead));
    assert_eq!((queue.waiting.count()?, queue.leased.count()?), (0, 0));
    for entry in queue.dead.iter() {
        let (_, stored) = entry?;
        let text = String::from_utf8_lossy(&stored).into_owned();
        assert!(
            text.starts_with("3 ") && text.ends_with("Atlantis"),
            "{text}"
        );
    }
    println!("{} letters sent, {dead} given up", sent + 1);
    queue.db.close()
}
