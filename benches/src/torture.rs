//! `db_bench --torture`: a child process writes to a real disk and is killed, hundreds of times; after
//! each kill everything that it acknowledged must be there, every batch whole, in order.
//!
//! Invariant: what the child writes is a function of the seed and of how many writes came before, so
//! that this process knows the whole state without being told; it is told only how far the child got.

pub(crate) mod child;
pub(crate) mod plan;

use crate::args::Args;
use crate::cli::{Refusal, print};
use crate::directory::Place;
use crate::exit::{CHECK_FAILED, FAILED, INTERRUPTED, SUCCESS};
use crate::interrupt;
use esker::Db;
use esker::vfs::Random;
use indicatif::{ProgressBar, ProgressStyle};
use plan::{MIRROR, Model, THREADS, thread_prefix};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Every so many rounds, each file is validated as well.
const VALIDATED_ROUNDS: u64 = 10;

/// What all rounds together did.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    acknowledged: u64,
    killed_while_opening: u64,
}

/// Tortures until the rounds or the time are over.
///
/// # Errors
/// Where a child cannot be started or watched.
pub(crate) fn run(args: &Args) -> Result<u8, Refusal> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| (FAILED, format!("cannot {what}: {error}"));
    let place = Place::new(args.db.as_deref())
        .map_err(|error| failed("create the directory of the database", &error))?;
    let interrupted = interrupt::watch(place.temporary_path())
        .map_err(|error| failed("watch for Ctrl-C", &error))?;
    let directory = place.path().join("torture");
    if directory.exists() {
        let sentence = format!("{} exists: what is in it is unknown", directory.display());
        return Err((FAILED, sentence));
    }
    let limit = args.duration.map(Duration::from_secs_f64);
    let rounds = limit.map_or(args.torture_rounds, |_| u64::MAX);
    if !args.json {
        print(&format!(
            "torture: seed {}, {THREADS} writers, kill -9 each round",
            args.seed
        ));
    }
    let bar = bar(args, limit);
    let (started, mut totals) = (Instant::now(), Totals::default());
    let mut models: Vec<Model> = (0..THREADS)
        .map(|thread| Model::new(args.seed, thread))
        .collect();
    let mut verdict = Ok(());
    while totals.rounds < rounds
        && limit.is_none_or(|limit| started.elapsed() < limit)
        && !interrupted.load(Ordering::Relaxed)
    {
        let mut random = Random::of_part(args.seed, totals.rounds);
        let answers = kill_one(args, &directory, &models, &mut random, &interrupted)
            .map_err(|error| failed("run a writing child", &error))?;
        let before: u64 = models.iter().map(Model::writes).sum();
        totals.killed_while_opening += u64::from(answers.is_empty());
        // A thread that has not answered is where the child found it.
        let answered = |model: &Model| answers.get(&model.thread()).copied();
        let acknowledged: Vec<u64> = (models.iter())
            .map(|model| answered(model).unwrap_or(model.writes()))
            .collect();
        let validated = totals.rounds.is_multiple_of(VALIDATED_ROUNDS);
        verdict = check(&directory, &mut models, &acknowledged, validated);
        totals.acknowledged += models.iter().map(Model::writes).sum::<u64>() - before;
        totals.rounds += 1;
        bar.set_position(limit.map_or(totals.rounds, |_| started.elapsed().as_secs()));
        if verdict.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
    report(args, &totals, started.elapsed(), &verdict);
    if place.temporary_path().is_none() && verdict.is_ok() {
        // The directory was given, what is in it is ours.
        let fs = esker::vfs::OsFileSystem::new();
        let removed = crate::directory::clear(&fs, &directory)
            .and_then(|()| esker::vfs::FileSystem::remove_dir(&fs, &directory));
        removed.map_err(|error| failed("remove the database", &error))?;
    }
    Ok(match verdict {
        Err(_) => CHECK_FAILED,
        Ok(()) if interrupted.load(Ordering::Relaxed) => INTERRUPTED,
        Ok(()) => SUCCESS,
    })
}

fn bar(args: &Args, limit: Option<Duration>) -> ProgressBar {
    if args.json {
        return ProgressBar::hidden();
    }
    let length = limit.map_or(args.torture_rounds, |limit| limit.as_secs());
    let unit = if limit.is_some() { "s" } else { "kills" };
    let bar = ProgressBar::new(length);
    let template = format!("torture {{bar:40}} {{pos}}/{{len}} {unit}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

fn report(args: &Args, totals: &Totals, took: Duration, verdict: &Result<(), String>) {
    let (seed, seconds) = (args.seed, took.as_secs_f64());
    if args.json {
        let document = serde_json::json!({
            "seed": seed,
            "rounds": totals.rounds,
            "writes": totals.acknowledged,
            "killed_while_opening": totals.killed_while_opening,
            "seconds": seconds,
            "violation": verdict.as_ref().err(),
        });
        print(&document.to_string());
        return;
    }
    print(&format!(
        "{} kills ({} before the first answer), {} writes, {seconds:.1} s",
        totals.rounds, totals.killed_while_opening, totals.acknowledged
    ));
    match verdict {
        Ok(()) => print("nothing lost, nothing torn, nothing out of order"),
        Err(what) => print(&format!(
            "VIOLATION with seed {seed} in round {}: {what}\nwith --db DIR the database stays",
            totals.rounds
        )),
    }
}

/// Starts a child, kills it after a while, and says how many writes of each thread it acknowledged.
fn kill_one(
    args: &Args,
    directory: &Path,
    models: &[Model],
    random: &mut Random,
    interrupted: &AtomicBool,
) -> std::io::Result<BTreeMap<usize, u64>> {
    let begin: Vec<_> = models
        .iter()
        .map(|model| model.writes().to_string())
        .collect();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--torture_child")
        .arg(begin.join(","))
        .arg("--seed")
        .arg(args.seed.to_string())
        .arg("--db")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(mut answers) = child.stdout.take() else {
        return Err(std::io::Error::other("the child has no output"));
    };
    let mut text = Vec::new();
    // Mostly some time after its first answer; now and then while it still opens the database.
    if !random.chance(6) {
        let mut first = [0];
        let read = answers.read(&mut first)?;
        text.extend_from_slice(&first[..read]);
    }
    let pause = Duration::from_micros(match random.below(3) {
        0 => random.below(3_000),
        1 => random.below(30_000),
        _ => random.below(250_000),
    });
    // The pipe is read meanwhile, so that the child is never held up by it.
    let reader = std::thread::spawn(move || {
        let result = answers.read_to_end(&mut text);
        result.map(|_| text)
    });
    if !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(pause);
    }
    let died = end(&mut child)?;
    let text = reader
        .join()
        .map_err(|_| std::io::Error::other("the reader of answers panicked"))??;
    if let Some(status) = died
        && !interrupted.load(Ordering::Relaxed)
    {
        return Err(std::io::Error::other(format!(
            "the child ended by itself: {status}"
        )));
    }
    Ok(read_answers(&text))
}

/// Kills the child; its own end, if it came first.
fn end(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let own = child.try_wait()?;
    if own.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(own)
}

/// The last answer of each thread. The last line may be cut.
fn read_answers(text: &[u8]) -> BTreeMap<usize, u64> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..whole]);
    let answer = |line: &str| {
        let (thread, count) = line.split_once(' ')?;
        Some((thread.parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(answer).collect()
}

/// Opens what is left and holds it against what each thread had acknowledged: that, and at most the one
/// write that was under way.
fn check(
    directory: &Path,
    models: &mut [Model],
    acknowledged: &[u64],
    validated: bool,
) -> Result<(), String> {
    let db = plan::open(directory).map_err(|error| format!("it does not open: {error}"))?;
    for (model, acknowledged) in models.iter_mut().zip(acknowledged) {
        let [first, second] = found(&db, model.thread()).map_err(|error| error.to_string())?;
        judge(model, *acknowledged, &first, &second)?;
    }
    if validated {
        let report = db.validate().map_err(|error| error.to_string())?;
        if let Some(issue) = report.issues().first() {
            return Err(format!("validation finds {issue:?}"));
        }
    }
    db.close()
        .map_err(|error| format!("it does not close: {error}"))
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a thread's keys hold, in both keyspaces.
fn found(db: &Db, thread: usize) -> esker::Result<[Map; 2]> {
    let read = |entries: esker::Entries| -> esker::Result<Map> {
        entries
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect()
    };
    let prefix = thread_prefix(thread);
    let mirror = db.keyspace(MIRROR)?;
    Ok([read(db.prefix(&prefix))?, read(mirror.prefix(&prefix))?])
}

/// Brings `model` up to what was found, which must be its state after the acknowledged writes, or after
/// one more.
fn judge(model: &mut Model, acknowledged: u64, first: &Map, second: &Map) -> Result<(), String> {
    let thread = model.thread();
    if first != second {
        let torn = differing(first, second);
        return Err(format!("half a batch of thread {thread} at key {torn}"));
    }
    model.advance_to(acknowledged);
    if model.state() == first {
        return Ok(());
    }
    let missing = differing(model.state(), first);
    model.advance_to(acknowledged + 1);
    if model.state() == first {
        return Ok(());
    }
    Err(format!(
        "thread {thread} acknowledged {acknowledged} writes; key {missing} is not as they left it"
    ))
}

fn differing(one: &Map, other: &Map) -> String {
    let keys = one.keys().chain(other.keys());
    let key = keys
        .into_iter()
        .find(|key| one.get(*key) != other.get(*key));
    key.map_or_else(String::new, |key| key.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_no_answer() {
        let answers = read_answers(b"0 5\n1 7\n2 9\n0 6\n1 8");
        assert_eq!(answers, BTreeMap::from([(0, 6), (1, 7), (2, 9)]));
        assert_eq!(read_answers(b"1 7\n"), BTreeMap::from([(1, 7)]));
        assert!(read_answers(b"12").is_empty() && read_answers(b"").is_empty());
    }

    #[test]
    fn lost_torn_and_reordered_writes_are_found() {
        let after = |writes| {
            let mut model = Model::new(3, 1);
            model.advance_to(writes);
            model.state().clone()
        };
        let judged = |acknowledged, first: &Map, second: &Map| {
            judge(&mut Model::new(3, 1), acknowledged, first, second)
        };
        let (state, next) = (after(200), after(201));
        assert_eq!(judged(200, &state, &state), Ok(()));
        assert_eq!(judged(200, &next, &next), Ok(()), "the write under way");
        assert!(
            judged(201, &state, &state).is_err(),
            "an acknowledged write is lost"
        );
        assert!(judged(199, &next, &next).is_err(), "two writes under way");
        assert!(judged(200, &state, &next).is_err(), "half a batch");
        let mut stale = state.clone();
        let (key, _) = stale
            .iter()
            .next()
            .map(|(key, value)| (key.clone(), value.clone()))
            .unwrap();
        stale.remove(&key);
        assert!(judged(200, &stale, &stale).is_err(), "an older key is lost");
    }
}
