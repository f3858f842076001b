//! The binary as a user meets it: exit codes, outputs, and nothing left behind.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

use esker_benches::compare::Comparison;
use esker_benches::exit::{FAILED, INTERRUPTED, SUCCESS, USAGE};
use esker_benches::report::RunReport;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// db_bench with a temporary directory of its own.
fn db_bench(temporary: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_db_bench"));
    command
        .env("TMPDIR", temporary)
        .args(arguments.split_whitespace());
    command
}

fn run(temporary: &TempDir, arguments: &str) -> Output {
    db_bench(temporary.path(), arguments).output().unwrap()
}

fn exit_code(output: &Output) -> u8 {
    u8::try_from(output.status.code().unwrap()).unwrap()
}

fn is_empty(directory: &TempDir) -> bool {
    esker_benches::directory::is_empty_or_missing(directory.path()).unwrap()
}

#[test]
fn a_table_for_people_and_nothing_left_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = run(
        &temporary,
        "--num 2000 --benchmarks fillseq,readrandom,verify,stats",
    );
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(exit_code(&output), SUCCESS, "{text}");
    for expected in [
        "esker",
        "fillseq",
        "readrandom",
        "p99.9",
        "all right",
        "peak memory",
    ] {
        assert!(text.contains(expected), "{expected} is missing of\n{text}");
    }
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(is_empty(&temporary));
}

#[test]
fn json_is_one_document_and_the_chart_is_an_svg() {
    let temporary = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let chart = elsewhere.path().join("out.svg");
    let arguments = format!(
        "--engine btreemap --num 2000 --json --benchmarks fillseq,readseq,compact --plot {}",
        chart.display()
    );
    let output = run(&temporary, &arguments);
    let report: RunReport = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.ok && report.engine == "btreemap" && report.phases.len() == 3);
    let reader = BufReader::new(std::fs::File::open(chart).unwrap());
    let svg: Vec<String> = reader.lines().map(Result::unwrap).collect();
    assert!(svg[0].starts_with("<svg"));
    assert!(svg.iter().any(|line| line.contains("readseq")), "{svg:#?}");
    assert!(is_empty(&temporary));
}

#[test]
fn what_cannot_be_is_a_usage_error() {
    let temporary = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        ("--nonsense", "unexpected argument"),
        ("--benchmarks flyseq", "invalid value"),
        ("--num 0", "--num"),
        ("--engine rocksdb --num 10", "benches/peers"),
        ("--engines esker,rocksdb --num 10", "benches/peers"),
        (
            "--engines esker,btreemap --db /tmp/x",
            "cannot be used with",
        ),
        ("--use_existing_db", "--db"),
    ] {
        let output = run(&temporary, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(exit_code(&output), USAGE, "{arguments}: {message}");
        assert!(message.contains(expected), "{arguments}: {message}");
        assert!(output.stdout.is_empty());
    }
    assert!(is_empty(&temporary));
}

#[test]
fn a_directory_that_cannot_be_made_is_a_failure() {
    let temporary = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = format!("--num 10 --db {}/db", file.path().display());
    let output = run(&temporary, &arguments);
    assert!([USAGE, FAILED].contains(&exit_code(&output)));
    assert!(!output.stderr.is_empty());
}

#[test]
fn engines_are_compared_side_by_side() {
    let temporary = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let chart = elsewhere.path().join("out.svg");
    let arguments = "--engines esker-memory,btreemap --rounds 2 --num 2000 --benchmarks \
                     fillseq,readwhilewriting";
    let output = run(
        &temporary,
        &format!("{arguments} --json --plot {}", chart.display()),
    );
    let comparison: Comparison = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = comparison.rows.iter().map(|row| &*row.name).collect();
    assert_eq!(
        names,
        ["fillseq", "readwhilewriting", "readwhilewriting.writer"]
    );
    for row in &comparison.rows {
        assert_eq!(row.results.len(), 2);
        for result in row.results.iter().flatten() {
            assert_eq!(result.rounds_operations_per_second.len(), 2);
        }
        assert!(row.first_over_best_other.unwrap() > 0.0);
    }
    assert!(chart.exists());
    let output = run(&temporary, arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("esker-memory / best other"), "{text}");
    assert!(is_empty(&temporary));
}

#[test]
fn a_comparison_goes_on_where_it_stopped_and_writes_its_tables() {
    let temporary = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let kept = elsewhere.path().join("kept");
    let arguments = |more: &str| {
        format!(
            "--engines esker,btreemap --rounds 2 --num 500 --reads 500 --pieces reads,url \
             --results {} {more}",
            kept.display()
        )
    };
    let stopped = run(&temporary, &arguments("--stop_after 0"));
    assert_eq!(exit_code(&stopped), INTERRUPTED);
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("8 runs are left"));
    let output = run(&temporary, &arguments(""));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(exit_code(&output), SUCCESS, "{text}");
    for expected in [
        "readrandom, zipfian",
        "readwhilewriting, the writer",
        "URLs, fillrandom",
        "p99, microseconds",
    ] {
        assert!(text.contains(expected), "{expected} is missing of\n{text}");
    }
    for file in [
        "reads.1.esker.json",
        "url.2.btreemap.json",
        "comparison.json",
        "tables.md",
        "throughput.svg",
        "tails.svg",
        "seconds.svg",
    ] {
        assert!(kept.join(file).exists(), "{file}");
    }
    // All are there: nothing runs again, and the tables are those of before.
    let again = run(&temporary, &arguments(""));
    assert_eq!(again.stdout, output.stdout);
    let other = run(&temporary, &arguments("--seed 5"));
    assert_eq!(exit_code(&other), USAGE);
    assert!(String::from_utf8_lossy(&other.stderr).contains("other flags"));
    assert!(is_empty(&temporary));
}

#[test]
fn what_a_killed_writer_left_is_opened_and_complete() {
    let temporary = tempfile::tempdir().unwrap();
    let output = run(
        &temporary,
        "--num 2000 --json --key_shape random --benchmarks openafterkill:reads=2,readrandom",
    );
    let report: RunReport = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.ok, "{:?}", report.error);
    assert_eq!(report.phases[0].operations, 2);
    // The keys of both, which a fifth of the keys are.
    assert_eq!(report.phases[0].checks.checked, 2 * 400);
    assert_eq!(report.phases[2].found, 2000, "the keys were loaded anew");
    assert!(is_empty(&temporary));
}

#[test]
fn after_ctrl_c_the_run_ends_in_order() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = db_bench(
        temporary.path(),
        "--num 1000 --duration 60 --benchmarks overwrite",
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The line of the load says that the overwriting has begun.
    let begun = lines
        .by_ref()
        .map(Result::unwrap)
        .any(|line| line.starts_with("load"));
    assert!(begun);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(i32::from(INTERRUPTED)), "{rest:#?}");
    assert!(
        rest.iter().any(|line| line.starts_with("overwrite")),
        "{rest:#?}"
    );
    assert!(is_empty(&temporary));
}
