//! A short torture by the binary: kills, checks, and nothing left behind.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

use std::process::Command;

#[test]
fn a_few_kills_lose_nothing_and_leave_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_db_bench"))
        .env("TMPDIR", temporary.path())
        .args(["--torture", "--torture_rounds", "12", "--seed", "5"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.contains("seed 5") && text.contains("12 kills"),
        "{text}"
    );
    assert!(text.contains("nothing lost"), "{text}");
    assert!(
        std::fs::read_dir(temporary.path())
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_given_directory_is_emptied_and_a_used_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let torture = || {
        Command::new(env!("CARGO_BIN_EXE_db_bench"))
            .args(["--torture", "--torture_rounds", "2", "--json", "--db"])
            .arg(directory.path())
            .output()
            .unwrap()
    };
    let output = torture();
    assert!(output.status.success(), "{output:?}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["rounds"], 2);
    assert_eq!(document["violation"], serde_json::Value::Null);
    assert!(
        std::fs::read_dir(directory.path())
            .unwrap()
            .next()
            .is_none()
    );
    std::fs::create_dir(directory.path().join("torture")).unwrap();
    assert!(!torture().status.success());
}
