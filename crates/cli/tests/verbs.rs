//! Every verb on a database of its own, through the binary.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use binary::{Place, text};

#[test]
fn put_get_delete() {
    let place = Place::new();
    assert_eq!(place.run(["put", "color", "red"]).text(), "");
    assert_eq!(place.run(["get", "color"]).text(), "red\n");
    assert_eq!(place.run(["get", "--raw", "color"]).text(), "red");
    place.run(["put", "color", "blue and green"]).ok();
    assert_eq!(place.run(["get", "color"]).text(), "blue and green\n");
    place.run(["delete", "color"]).ok();
    place
        .run(["get", "color"])
        .fails(1, &["there is no key \"color\""]);
    place.run(["delete", "color"]).ok();
    assert_eq!(place.run(["count"]).text(), "0\n");
}

#[test]
fn keys_and_values_of_all_kinds() {
    let place = Place::new();
    place.run(["put", "-1", "-2.5"]).ok();
    assert_eq!(place.run(["get", "-1"]).text(), "-2.5\n");
    place.run(["put", "--", "--key", "--value"]).ok();
    assert_eq!(place.run(["get", "--", "--key"]).text(), "--value\n");
    place.run(["put", "empty", ""]).ok();
    assert_eq!(place.run(["get", "--raw", "empty"]).text(), "");
    place.run(["put", "--hex", "00ff0a", "binary key"]).ok();
    assert_eq!(place.run(["get", "--hex", "00FF0A"]).text(), "binary key\n");
    place
        .run(["get", "--hex", "00ff0b"])
        .fails(1, &["\"\\x00\\xff\\x0b\""]);
    let value: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    place.feed(["put", "--stdin", "large"], &value).ok();
    assert_eq!(place.run(["get", "--raw", "large"]).ok(), value);
    place.run(["delete", "--hex", "00ff0a"]).ok();
    assert_eq!(place.run(["count"]).text(), "4\n");
}

#[cfg(unix)]
#[test]
fn arguments_need_not_be_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    let (key, value) = (OsStr::from_bytes(b"k\xff"), OsStr::from_bytes(b"v\xfe"));
    place.run([OsStr::new("put"), key, value]).ok();
    assert_eq!(place.run([OsStr::new("get"), key]).ok(), b"v\xfe\n");
    assert_eq!(place.run(["scan"]).ok(), b"k\xff\tv\xfe\n");
}

#[test]
fn scan_in_both_directions_and_within_bounds() {
    let place = Place::new();
    place
        .feed(["import", "-"], b"a\t1\nab\t2\nb\t3\nba\t4\nc\t5\n")
        .ok();
    let cases: [(&[&str], &str); 12] = [
        (&[], "a ab b ba c"),
        (&["--reverse"], "c ba b ab a"),
        (&["--prefix", "a"], "a ab"),
        (&["--prefix", "a", "--reverse"], "ab a"),
        (&["--from", "ab", "--to", "c"], "ab b ba"),
        (&["--from", "ab", "--to", "c", "--reverse"], "ba b ab"),
        (&["--from", "aa"], "ab b ba c"),
        (&["--to", "b"], "a ab"),
        (&["--prefix", "b", "--from", "ba"], "ba"),
        (&["--limit", "2"], "a ab"),
        (&["--limit", "0"], ""),
        (&["--hex", "--from", "6261"], "ba c"),
    ];
    for (options, expected) in cases {
        let out = place.run([&["scan"], options].concat()).text();
        let keys: Vec<&str> = out
            .lines()
            .map(|line| line.split('\t').next().unwrap())
            .collect();
        assert_eq!(keys.join(" "), expected, "{options:?}");
    }
    place.run(["put", "a\tb\\", "x\ny\r"]).ok();
    assert_eq!(
        place.run(["scan", "--prefix", "a\t"]).text(),
        "a\\tb\\\\\tx\\ny\\r\n"
    );
    place
        .run(["scan", "--from", "b", "--to", "a"])
        .fails(2, &["--to comes before --from"]);
}

#[test]
fn stats_for_people_and_for_programs() {
    let place = Place::new();
    place.run(["put", "k", "v"]).ok();
    place.run(["compact"]).ok();
    let table = place.run(["stats"]).text();
    assert!(
        table.contains("live_bytes") && table.contains("keyspaces: default"),
        "{table}"
    );
    assert!(table.lines().count() > 3, "{table}");
    let json: serde_json::Value = serde_json::from_slice(&place.run(["stats", "--json"]).ok())
        .expect("stats --json prints one JSON value");
    assert!(
        json["live_bytes"].as_u64() > Some(0) && json["levels"].is_array(),
        "{json}"
    );
}

#[test]
fn verify_tells_a_well_database_from_a_damaged_one() {
    let place = Place::new();
    let records: String = (0..5000)
        .map(|i| format!("key{i:05}\tvalue of {i}\n"))
        .collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    place.run(["compact"]).ok();
    place.run(["verify"]).ok();
    let table = place
        .database_files(".sst")
        .pop()
        .expect("a compacted database has a table");
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let outcome = place.run(["verify"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let said = format!("{}{}", String::from_utf8_lossy(&outcome.out), outcome.err);
    assert!(said.contains(name), "{said}");
}

#[test]
fn repair_makes_a_database_without_its_manifest_one_that_opens() {
    let place = Place::new();
    let records: String = (0..2000).map(|i| format!("{i:04}\t{i}\n")).collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    place.run(["delete", "0007"]).ok();
    for file in place.database_files("CURRENT") {
        std::fs::remove_file(file).unwrap();
    }
    place.run(["count"]).fails(3, &["CURRENT"]);
    place.run(["repair"]).fails(4, &["--yes"]);
    place.run(["count"]).fails(3, &["CURRENT"]);
    let said = place.run(["repair", "--yes"]).text();
    assert!(
        said.contains("lost: ") && said.contains("CURRENT"),
        "{said}"
    );
    assert_eq!(place.run(["count"]).text(), "1999\n");
    place.run(["verify"]).ok();
    for entry in std::fs::read_dir(place.db()).unwrap() {
        let path = entry.unwrap().path();
        if path.display().to_string().contains("MANIFEST") {
            std::fs::remove_file(path).unwrap();
        }
    }
    place.run(["verify"]).fails(1, &["MANIFEST"]);
    let said = place.run(["repair", "--yes"]).text();
    assert!(said.contains("the tables that are left"), "{said}");
    assert_eq!(place.run(["count"]).text(), "1999\n");
    place.run(["get", "0007"]).fails(1, &["0007"]);
    // Nobody is asked, either, about a directory that is not there.
    let nowhere = Place::new();
    for words in [&["repair", "--yes"][..], &["repair"]] {
        nowhere.run(words).fails(1, &["no esker database"]);
    }
}

#[test]
fn compact_keeps_what_is_there() {
    let place = Place::new();
    let records: String = (0..2000).map(|i| format!("{i:04}\t{i}\n")).collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    place.run(["delete", "0007"]).ok();
    place.run(["compact"]).ok();
    assert_eq!(place.run(["count"]).text(), "1999\n");
    assert_eq!(place.run(["get", "1999"]).text(), "1999\n");
    place.run(["get", "0007"]).fails(1, &["0007"]);
}

#[test]
fn dumps_show_what_is_in_each_kind_of_file() {
    let place = Place::new();
    // A log is best looked at while it is in use: closing a database empties it into tables.
    let db = esker::Db::open(place.db()).unwrap();
    db.put("first\nkey", "first value").unwrap();
    let segment = place.database_files(".wal").pop().expect("there is a log");
    let dump = place.run(["dump-wal", text(&segment)]).text();
    assert!(
        dump.contains("put \"first\\nkey\" = \"first value\""),
        "{dump}"
    );
    db.close().unwrap();
    place.run(["compact"]).ok();
    let table = place
        .database_files(".sst")
        .pop()
        .expect("a compacted database has a table");
    // A bare name is looked for in the database's directory.
    let bare = table.file_name().unwrap();
    let dump = place.run(["dump-table".as_ref(), bare]).text();
    assert!(dump.contains("1 entries"), "{dump}");
    assert!(
        dump.contains("put \"first\\nkey\" = \"first value\""),
        "{dump}"
    );
    let manifest = place
        .database_files("MANIFEST-")
        .pop()
        .expect("there is a manifest");
    let dump = place.run(["dump-manifest", text(&manifest)]).text();
    assert!(dump.lines().count() > 2, "{dump}");
    place
        .run(["dump-table", text(&manifest)])
        .fails(2, &["not that of a table"]);
    place
        .run(["dump-wal", "999999.wal"])
        .fails(3, &["999999.wal"]);
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let place = Place::new();
    place
        .run(["put", "", "empty keys are refused"])
        .fails(2, &["key"]);
    place.run(["get", "--hex", "0g"]).fails(2, &["hexadecimal"]);
    for wrong in [
        &["fly"][..],
        &["put", "k"],
        &["get"],
        &["put", "k", "v", "w"],
        &["scan", "x"],
    ] {
        let outcome = place.run(wrong);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(
            !outcome.err.is_empty() && outcome.out.is_empty(),
            "{outcome:?}"
        );
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_esker"));
    let output = command.arg("count").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--db"));
}

/// `esker help --json` was no command, and `--json help` was no JSON.
#[test]
fn help_is_told_to_programs_too() {
    let place = Place::new();
    for words in [
        &["help", "--json"][..],
        &["--json", "help"],
        &["--json", "--help"],
        &["help", "get", "--json"],
        &["get", "--help", "--json"],
    ] {
        let said = place.run(words).text();
        assert!(said.starts_with("{\"ok\":true,\"help\":\""), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = place
        .feed(["shell"], b"help --json\nhelp get --json\n")
        .text();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(
        said.lines()
            .all(|line| line.starts_with("{\"ok\":true,\"help\":\""))
    );
    let version = place.run(["--version", "--json"]).text();
    assert!(
        version.starts_with("{\"ok\":true,\"version\":\"esker "),
        "{version}"
    );
    place.run(["help", "frob", "--json"]).fails(2, &["frob"]);
    place.run(["frob", "--json"]).fails(2, &["frob"]);
}

#[test]
fn help_documents_the_exit_codes() {
    let help = Place::new().run(["--help"]).text();
    assert!(help.contains("Exit codes:"), "{help}");
    for verb in [
        "get", "put", "delete", "scan", "count", "import", "export", "stats", "dump-wal",
    ] {
        assert!(help.contains(verb), "{verb}");
    }
}
