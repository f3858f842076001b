//! Directories that are missing, not databases, not writable, or in use: each gets a clear error
//! and loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use std::fs;

use binary::{Place, text};

/// Verbs that must not create a database.
const NEED_A_DATABASE: [&[&str]; 8] = [
    &["get", "k"],
    &["delete", "k"],
    &["scan"],
    &["count"],
    &["export", "-"],
    &["stats"],
    &["verify"],
    &["compact"],
];

#[test]
fn a_missing_directory_is_not_created_by_looking() {
    for verb in NEED_A_DATABASE {
        let place = Place::new();
        place.run(verb).fails(3, &["db"]);
        assert!(!place.db().exists(), "{verb:?}");
    }
}

#[test]
fn a_directory_that_is_no_database_is_left_alone() {
    for verb in NEED_A_DATABASE {
        let place = Place::new();
        fs::create_dir(place.db()).unwrap();
        fs::write(place.db().join("notes.txt"), "mine").unwrap();
        place.run(verb).fails(3, &["db"]);
        let names: Vec<_> = fs::read_dir(place.db())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            names
                .iter()
                .all(|name| name == "notes.txt" || name == "LOCK"),
            "{names:?}"
        );
        assert_eq!(fs::read(place.db().join("notes.txt")).unwrap(), b"mine");
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_left_alone() {
    for verb in NEED_A_DATABASE
        .into_iter()
        .chain([&["put", "k", "v"][..], &["import", "-"]])
    {
        let place = Place::new();
        fs::write(place.db(), "a file").unwrap();
        place.run(verb).fails(3, &["db"]);
        assert_eq!(fs::read(place.db()).unwrap(), b"a file");
    }
}

#[test]
fn a_second_writer_is_refused() {
    let place = Place::new();
    let db = esker::Db::open(place.db()).unwrap();
    db.put("k", "v").unwrap();
    place.run(["put", "k", "w"]).fails(3, &[]);
    place.feed(["import", "-"], b"k\tw\n").fails(3, &[]);
    place.run(["compact"]).fails(3, &[]);
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    db.close().unwrap();
    place.run(["put", "k", "w"]).ok();
    assert_eq!(place.run(["get", "k"]).text(), "w\n");
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_can_be_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.run(["put", "k", "v"]).ok();
    let allow = |mode| fs::set_permissions(place.db(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let is_enforced = fs::write(place.db().join("probe.tmp"), "").is_err();
    let read = place.run(["get", "k"]);
    let counted = place.run(["count"]);
    let verified = place.run(["verify"]);
    let written = place.run(["put", "k", "w"]);
    allow(0o755);
    assert_eq!(read.text(), "v\n");
    assert_eq!(counted.text(), "1\n");
    verified.ok();
    // A privileged user is not held back by permissions.
    if is_enforced {
        written.fails(3, &[]);
        assert_eq!(place.run(["get", "k"]).text(), "v\n");
    }
}

#[test]
fn a_manifest_that_is_damaged_is_named() {
    let place = Place::new();
    place.run(["put", "k", "v"]).ok();
    let manifest = place
        .database_files("MANIFEST-")
        .pop()
        .expect("there is a manifest");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[0] ^= 0xff;
    fs::write(&manifest, bytes).unwrap();
    place.run(["get", "k"]).fails(3, &["MANIFEST-"]);
    let verified = place.run(["verify"]);
    verified.fails(1, &["MANIFEST-"]);
    assert!(text(&manifest).contains("MANIFEST-"));
}
