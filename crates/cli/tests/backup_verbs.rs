//! Backups, recovery points and moments of the archived log from the command line: made, looked at, restored
//! here and elsewhere, deleted, and what each of these says that it will lose.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use binary::{Place, objects, script};

/// The name that `backups` gives to the only backup.
fn only_backup(place: &Place) -> String {
    let outcome = place.run(["backups", "--json"]);
    let backups = objects(&outcome);
    backups[0]["backups"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn backups_from_end_to_end() {
    let place = Place::new();
    script(
        &place,
        &["set a 1", "backup \"the first\"", "set a 2", "set b 2"],
    )
    .ok();
    let name = only_backup(&place);
    let info = script(&place, &[&format!("backup-info {name}")]).text();
    assert!(info.contains("the first") && info.contains(&name), "{info}");
    script(&place, &[&format!("backup-verify {name}")]).ok();
    let restore = format!("backup-restore {name}");
    script(&place, &[&restore]).fails(4, &["2 writes", "lost", "the first", "--yes"]);
    assert_eq!(place.run(["count"]).text(), "2\n");
    let copy = place.file("copy");
    script(
        &place,
        &[&format!("{restore} --into {}", copy.display()), "count"],
    )
    .ok();
    assert_eq!(
        esker::Db::open(&copy).unwrap().get("a").unwrap().as_deref(),
        Some(&b"1"[..])
    );
    assert!(
        script(&place, &[&format!("{restore} --yes"), "scan"])
            .text()
            .ends_with("a\t1\n")
    );
    let delete = format!("backup-delete {name}");
    script(&place, &[&delete]).fails(4, &["the first", "no other backup is left"]);
    script(&place, &[&format!("{delete} -y"), "backups"]).ok();
    script(&place, &[&format!("backup-info {name}")]).fails(1, &[&name]);
    // As single commands.
    place.run(["set", "a", "3"]).ok();
    place.run(["recovery-point", "a", "moment"]).ok();
    let point = only_backup(&place);
    place.run(["set", "a", "4"]).ok();
    place
        .run(["backup-restore", &point])
        .fails(4, &["The 1 write since then is lost", "--yes"]);
    place.run(["backup-restore", &point, "--yes"]).ok();
    assert_eq!(place.run(["get", "a"]).text(), "3\n");
    place.run(["backup-delete", &point]).fails(4, &["--yes"]);
    place.run(["backup-delete", &point, "--yes"]).ok();
}

#[test]
fn a_moment_is_restored_out_of_the_archive_of_the_log() {
    let place = Place::new();
    place.run(["set", "a", "1"]).ok();
    place
        .run(["backup-restore", "--latest", "--yes"])
        .fails(2, &["wal_archive"]);
    let db = esker::Db::open(place.db()).unwrap();
    db.create_backup("before the archive begins").unwrap();
    db.close().unwrap();
    std::fs::create_dir(place.db().join("archive")).unwrap();
    place.run(["set", "a", "2"]).ok();
    place.run(["set", "a", "3"]).ok();
    let restore = ["backup-restore", "--sequence", "2"];
    let told = [
        "sequence number 2",
        "The 1 write since then is lost",
        "--yes",
    ];
    place.run(restore).fails(4, &told);
    let restored = script(&place, &["backup-restore --sequence 2 --yes", "get a"]);
    // That it can be undone, and how, is not for people to know by themselves.
    let text = restored.text();
    let undo = "to undo it: backup-restore --sequence 3";
    assert!(text.contains(undo), "{text}");
    assert_eq!(place.run(["get", "a"]).text(), "2\n");
    let status = place.run(["wal-status", "--json"]).text();
    assert!(status.contains("\"is_archived\""), "{status}");
    assert!(place.run(["disk-usage"]).text().contains("archived"));
    // What the command line itself refuses is said in its own form.
    let both = place.run(["backup-restore", "--sequence", "2", "--latest"]);
    assert!(both.code == 2 && both.err.contains("--latest"), "{both:?}");
    let neither = place.run(["backup-restore"]);
    assert!(
        neither.code == 2 && neither.err.contains("NAME"),
        "{neither:?}"
    );
    place
        .run(["backup-restore", "--sequence", "99", "--yes"])
        .fails(1, &["number 99 yet", "the last one is 4"]);
    // What is behind it is restored over a recovery point that says what it is.
    place.run(["set", "a", "4"]).ok();
    let restored = script(&place, &["backup-restore --sequence 5 --yes", "get a"]);
    let text = restored.text();
    assert!(text.contains("4\n"), "{text}");
    let backups = place.run(["backups"]).text();
    let left = backups
        .lines()
        .find(|line| line.contains("write 4 restored"));
    let left = left.unwrap_or_else(|| panic!("{backups}"));
    let name = left.split_whitespace().next().unwrap();
    // What is there of the log is said where that is gone.
    place.run(["backup-delete", name, "--yes"]).ok();
    place
        .run(["backup-restore", "--sequence", "5", "--yes"])
        .fails(
            1,
            &["in no log that is left", "ends with sequence number 3"],
        );
    let segment = place.database_files("archive").remove(0);
    let name = std::fs::read_dir(segment).unwrap().next().unwrap();
    let name = name.unwrap().file_name();
    let dump = place.run(["dump-wal".as_ref(), name.as_os_str()]).text();
    assert!(dump.contains("mark, from sequence"), "{dump}");
}
