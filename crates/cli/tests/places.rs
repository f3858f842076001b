//! Backups and an archive outside of the database's directory, as the command line names them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use std::fs;
use std::process::Command;

use binary::{Place, objects, script};

/// The flags that name `file` as the directory of backups and of the archive.
const FLAGS: [&str; 2] = ["--backup-directory", "--wal-archive-directory"];

#[test]
fn backups_and_the_archive_are_where_they_were_named() {
    let place = Place::new();
    let [backups, archive] = ["backups", "archive"].map(|name| place.file(name));
    let [backups, archive] = [&backups, &archive].map(|path| path.to_str().unwrap());
    let flags = [FLAGS[0], backups, FLAGS[1], archive];
    let run = |words: &[&str]| place.run(flags.iter().chain(words).copied());
    run(&["set", "a", "1"]).ok();
    run(&["backup", "kept elsewhere"]).ok();
    run(&["set", "a", "2"]).ok();
    run(&["wal-rotate"]).ok();
    run(&["set", "a", "3"]).ok();
    for outside in [backups, archive] {
        assert!(fs::read_dir(outside).unwrap().count() > 0, "{outside}");
    }
    assert!(!place.db().join("backups").exists() && !place.db().join("archive").exists());
    // Seen by those who name the directory, and by nobody else.
    assert!(run(&["backups"]).text().contains("kept elsewhere"));
    assert!(!place.run(["backups"]).text().contains("kept elsewhere"));
    // The same in a shell, by `connect`.
    let directory = place.db();
    let connect = format!(
        "connect {} {} {backups} {} {archive}",
        directory.display(),
        FLAGS[0],
        FLAGS[1]
    );
    let seen = script(&place, &["disconnect", &connect, "backups"]);
    assert!(seen.text().contains("kept elsewhere"));
    let copy = place.file("copy");
    run(&[
        "backup-restore",
        "--latest",
        "--into",
        copy.to_str().unwrap(),
    ])
    .ok();
    let copy = esker::Db::open(&copy).unwrap();
    assert_eq!(copy.get("a").unwrap().as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_place_that_is_wrong_is_refused() {
    let place = Place::new();
    place.run(["set", "a", "1"]).ok();
    let file = place.file("file");
    fs::write(&file, "mine").unwrap();
    let file = file.to_str().unwrap();
    for flag in FLAGS {
        for words in [&["get", "a"][..], &["set", "a", "2"]] {
            let command = [&[flag, file], words].concat();
            place.run(command).fails(3, &[file, "not a directory"]);
        }
        let told = place.run([flag, file, "get", "a", "--json"]);
        assert_eq!(told.code, 3);
        let told = &objects(&told)[0];
        assert!(told.to_string().contains("not a directory"), "{told}");
        for misused in [
            &[flag, "", "get", "a"][..],
            &["get", "a", flag],
            &[flag, file, flag, file, "get", "a"],
            &["--memory", flag, file, "size"],
        ] {
            let told = place.run(misused);
            assert_eq!(told.code, 2, "{told:?}");
        }
        let connect = format!("connect {} {flag} {file}", place.db().display());
        script(&place, &["disconnect", &connect]).fails(3, &["not a directory"]);
    }
    assert_eq!(fs::read(file).unwrap(), b"mine");
    assert_eq!(place.run(["get", "a"]).text(), "1\n");
}

/// The story: a shell that was told of them and of no database ignored them without a word, whatever it was
/// connected to then; and so did verbs that open no database.
#[test]
fn places_of_no_database_are_refused() {
    let place = Place::new();
    place.run(["set", "a", "1"]).ok();
    for flag in FLAGS {
        let told = "for a database that is opened";
        let mut shell = Command::new(env!("CARGO_BIN_EXE_esker"));
        shell.args(["shell", flag, "somewhere"]);
        place
            .feed_command(shell, b"connect-memory\n")
            .fails(2, &[told]);
        for verb in ["repair", "version"] {
            place.run([flag, "somewhere", verb]).fails(2, &[told]);
        }
    }
}
