//! The shell through pipes: every verb with right and with wrong input, scripts that fail, answers
//! for programs, and the same verbs as single commands.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use std::collections::BTreeSet;

use binary::{Place, objects, script};
use serde_json::Value;

/// Each verb with right input, what it prints (a part of it), on `a = 1`, `b = 2`.
const RIGHT: [(&str, &str); 66] = [
    ("get a", "1\n"),
    ("get a --raw", "1"),
    ("get --hex 61", "1\n"),
    ("set c 3\nget c", "3\n"),
    ("put c 3\nget c", "3\n"),
    (
        "set c\\x00 \"\\xff \\n\"\nscan --prefix c --json",
        r#"[{"key":"c\u0000","value":{"base64":"/yAK"}}]"#,
    ),
    ("set c 3 --ttl 1h\nttl c", "59m59s"),
    ("set -k new c 3\nkeys -k new", "c\n"),
    ("delete a\nexists a", "no\n"),
    ("delete --prefix a --yes\nkeys", "b\n"),
    ("delete --from a --to b --yes\nkeys", "b\n"),
    ("delete --prefix x", ""),
    ("exists a", "yes\n"),
    ("exists x", "no\n"),
    ("keys", "a\nb\n"),
    ("keys a", "a\n"),
    ("keys '' 1", "a\n"),
    ("keys --reverse --limit 1", "b\n"),
    ("scan", "a\t1\nb\t2\n"),
    ("scan --from b", "b\t2\n"),
    (
        "size",
        "keys             2\nbytes of keys    2 B\nbytes of values  2 B\n",
    ),
    ("count", "2\n"),
    ("ttl a", "never expires\n"),
    ("set-ttl a 90s\nttl a", "1m29s"),
    ("set-ttl a 90s\npersist a\nttl a", "never expires\n"),
    ("persist a", ""),
    ("clear --yes\ncount", "0\n"),
    ("connect-memory\ncount", "0\n"),
    ("disconnect", ""),
    ("keyspaces", "default\n"),
    ("use other\nset o 1\nkeys\nkeyspaces", "o\ndefault\nother\n"),
    (
        "begin\nset c 3\nget c\nkeys\ncount\ncommit\nget c",
        "3\na\nb\nc\n3\n3\n",
    ),
    (
        "begin --snapshot\ndelete a\nexists a\nrollback\nexists a",
        "no\nyes\n",
    ),
    (
        "begin\nset -k other c 3\nget -k other c\ncommit\nscan -k other",
        "3\nc\t3\n",
    ),
    (
        "begin\nset c 3\nset-ttl c 90s\nttl c\npersist c\nttl c\ncommit\nttl c",
        "never expires\nnever expires\n",
    ),
    (
        "begin\nset-ttl a 90s\nttl a\nrollback\nttl a",
        "never expires\n",
    ),
    (
        "begin\nset -k other c 3 --ttl 1h\nset -k other d 4\ndelete -k other --from d --yes\ncommit\n\
         ttl -k other c\nkeys -k other",
        "c\n",
    ),
    ("backup for a test", "backup "),
    ("recovery-point for a test", "recovery point "),
    ("backups", "there are no backups\n"),
    ("backup x y\nbackups", "x y\n"),
    ("set c 3\nchanges", "batch 3 to 3\n  default: put c 3\n"),
    ("set c 3\nchanges --from 3 --limit 1", "batch 3 to 3\n"),
    ("cursors", "there are no change cursors\n"),
    (
        "cursor-create c\nset c 3\nchanges --cursor c --follow --limit 1",
        "batch 3 to 3\n",
    ),
    (
        "cursor-create c\nset c 3\ncursor-acknowledge c 3\ncursors",
        "acknowledged",
    ),
    (
        "cursor-create c --from 3\ncursor-delete c --yes",
        "c deleted\n",
    ),
    ("status", "last sequence  2\n"),
    ("stats", "live_bytes"),
    (
        "config",
        "write_buffer_bytes                67108864 (64.00 MiB)    any time\n",
    ),
    ("config wal_archive", "wal_archive  false  at open\n"),
    (
        "config cache_bytes 1048576\nconfig cache_bytes",
        "1048576 (1.00 MiB)",
    ),
    ("config default_ttl 90000\nset c 3\nttl c", "1m"),
    ("recovery-state", "created the database"),
    ("disk-usage", "total "),
    ("validate", "all is well\n"),
    ("verify", "all is well\n"),
    ("compact", ""),
    ("wal-status", "limit  512.00 MiB\n"),
    ("wal-rotate", ""),
    ("wal-clear\nwal-status", "size   0 B\n"),
    ("version", "esker "),
    ("help", "set-ttl"),
    ("help set-ttl", "<DURATION>"),
    ("exit\nfrob", ""),
    ("quit", ""),
];

#[test]
fn every_verb_does_what_it_says() {
    for (lines, expected) in RIGHT {
        let place = Place::new();
        script(&place, &["set a 1", "set b 2"]).ok();
        let outcome = script(&place, &[lines]);
        let out = String::from_utf8_lossy(&outcome.out).into_owned();
        assert_eq!(outcome.code, 0, "{lines}: {}", outcome.err);
        assert!(
            out.contains(expected),
            "{lines}: {expected:?} is not in {out:?}"
        );
        if expected.ends_with('\n') && lines.contains("get") {
            assert_eq!(out, expected, "{lines}");
        }
    }
}

/// Each verb with wrong input: its exit code and parts of the sentence.
const WRONG: [(&str, i32, &[&str]); 80] = [
    ("get", 2, &["<KEY>", "usage: get"]),
    ("get a b", 2, &["'b'", "usage: get"]),
    ("get x", 1, &["there is no key \"x\""]),
    ("get --hex 6", 2, &["hexadecimal"]),
    ("get ''", 2, &["key"]),
    (
        "get a -k nowhere",
        1,
        &["no keyspace \"nowhere\"", "default"],
    ),
    ("set a", 2, &["<VALUE>", "usage: set"]),
    ("set '' v", 2, &["key"]),
    ("set a 1 --stdin", 2, &["--stdin"]),
    ("set a --stdin", 2, &["--stdin"]),
    ("set a 1 --ttl soon", 2, &["soon", "90s"]),
    ("put a", 2, &["<VALUE>"]),
    ("delete", 2, &["usage: delete"]),
    ("delete a --prefix b", 2, &["cannot be used"]),
    ("delete --prefix a", 4, &["1 key", "2 B", "--yes"]),
    ("delete --from b --to a", 2, &["--to comes before --from"]),
    ("exists", 2, &["<KEY>"]),
    ("keys --limit x", 2, &["--limit", "x"]),
    ("keys a 1 2", 2, &["'2'"]),
    ("scan x", 2, &["'x'"]),
    ("scan --limit -1", 2, &["-1"]),
    ("size x", 2, &["'x'"]),
    ("count x", 2, &["'x'"]),
    (
        "clear",
        4,
        &[
            "2 keys",
            "4 B",
            "\"default\"",
            "There is no backup",
            "--yes",
        ],
    ),
    ("ttl", 2, &["<KEY>"]),
    ("ttl x", 1, &["there is no key \"x\""]),
    ("set-ttl a", 2, &["<DURATION>"]),
    ("set-ttl a -5", 2, &["-5"]),
    ("set-ttl a 0", 2, &["no time at all"]),
    ("set-ttl a 5y", 2, &["5y", "90s"]),
    ("set-ttl x 5s", 1, &["there is no key \"x\""]),
    ("persist x", 1, &["there is no key \"x\""]),
    ("connect", 2, &["<DIR>"]),
    ("connect /dev/null", 3, &["/dev/null"]),
    ("connect --existing nowhere-at-all", 3, &["nowhere-at-all"]),
    ("connect-memory x", 2, &["'x'"]),
    ("disconnect\ndisconnect", 2, &["connect DIR"]),
    ("use", 2, &["<NAME>"]),
    ("use ''", 2, &["1 to 255 bytes"]),
    ("keyspaces x", 2, &["'x'"]),
    ("begin\nbegin", 2, &["commit it or roll it back"]),
    ("commit", 2, &["begin"]),
    ("rollback", 2, &["begin"]),
    ("begin\nset c 3\nexit", 4, &["1 write", "lost"]),
    ("backup --frob", 2, &["--frob"]),
    ("backup-info", 2, &["<NAME>"]),
    ("backup-info 19700101_000000", 1, &["19700101_000000"]),
    ("backup-info ../../etc", 1, &["../../etc"]),
    ("backup-verify 19700101_000000", 1, &["19700101_000000"]),
    ("backup-restore 19700101_000000", 1, &["19700101_000000"]),
    ("backup-delete 19700101_000000", 1, &["19700101_000000"]),
    ("recovery-point --frob", 2, &["--frob"]),
    ("changes x", 2, &["'x'"]),
    ("changes --from 9", 2, &["number 8", "last write has 2"]),
    ("changes --cursor c", 1, &["no change cursor", "\"c\""]),
    ("changes --cursor c --from 1", 2, &["cannot be used"]),
    ("cursors x", 2, &["'x'"]),
    ("cursor-create", 2, &["<NAME>"]),
    ("cursor-create c --from x", 2, &["--from", "x"]),
    ("cursor-acknowledge c", 2, &["<N>"]),
    ("cursor-acknowledge c 1", 1, &["no change cursor"]),
    ("cursor-delete c", 1, &["no change cursor"]),
    ("cursor-create c\ncursor-delete c", 4, &["\"c\"", "--yes"]),
    ("status x", 2, &["'x'"]),
    ("config frob", 2, &["frob", "config alone"]),
    ("config frob 1", 2, &["frob"]),
    ("config cache_bytes many", 2, &["many", "cache_bytes"]),
    ("config level0_runs 0", 2, &["level0_runs", "1 to 64"]),
    ("config background_threads 4", 2, &["reopen it"]),
    ("begin\nset-ttl x 5s", 1, &["there is no key \"x\""]),
    ("wal-rotate x", 2, &["'x'"]),
    ("import -", 2, &["commands from standard input"]),
    ("import nowhere-at-all", 3, &["nowhere-at-all"]),
    ("export /nowhere/at/all", 3, &["/nowhere/at/all"]),
    ("export --json -", 2, &["export to a file"]),
    ("dump-table nowhere.sst", 2, &["nowhere.sst", "000001.sst"]),
    ("shell", 2, &["the shell already"]),
    ("help frob", 2, &["frob"]),
    ("frob", 2, &["frob", "help"]),
    ("get 'a", 2, &["column 5", "has no end"]),
];

#[test]
fn wrong_input_gets_a_sentence_and_changes_nothing() {
    for (lines, code, parts) in WRONG {
        let place = Place::new();
        script(&place, &["set a 1", "set b 2"]).ok();
        let outcome = script(&place, &[lines]);
        assert_eq!(outcome.code, code, "{lines}: {outcome:?}");
        let said = outcome.err.lines().next().unwrap_or_default();
        assert!(said.starts_with("esker: line "), "{lines}: {said:?}");
        for part in parts {
            assert!(said.contains(part), "{lines}: {part:?} is not in {said:?}");
        }
        assert_eq!(script(&place, &["scan"]).text(), "a\t1\nb\t2\n", "{lines}");
    }
}

/// Verbs that no table above can hold, since they need more than a line.
const ELSEWHERE: [&str; 5] = ["export", "import", "dump-wal", "dump-manifest", "repair"];

#[test]
fn the_tables_above_leave_no_verb_out() {
    let help = Place::new().feed(["shell"], b"help\n").text();
    let verbs: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split([' ', ',']).next())
        .collect();
    assert!(verbs.len() > 40, "{help}");
    let tested: BTreeSet<&str> = RIGHT
        .iter()
        .map(|(lines, _)| *lines)
        .chain(WRONG.iter().map(|(lines, ..)| *lines))
        .flat_map(str::lines)
        .filter_map(|line| line.split(' ').next())
        .chain(ELSEWHERE)
        .collect();
    let left: Vec<_> = verbs.difference(&tested).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_a_database_every_verb_on_one_says_how_to_get_one() {
    for verb in [
        "get a",
        "set a 1",
        "keys",
        "size",
        "clear",
        "begin",
        "backups",
        "status",
        "validate",
        "compact",
        "wal-clear",
        "disk-usage",
        "config",
        "use x",
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_esker"));
        command.arg("shell").stdin(std::process::Stdio::piped());
        let place = Place::new();
        let outcome = place.feed_command(command, format!("{verb}\n").as_bytes());
        outcome.fails(2, &["line 1", "connect DIR"]);
    }
}

#[test]
fn a_script_stops_where_it_fails_and_says_where() {
    let place = Place::new();
    let lines = ["set a 1", "# a remark", "", "frob", "set b 2"];
    script(&place, &lines).fails(2, &["line 4", "frob"]);
    assert_eq!(place.run(["scan"]).text(), "a\t1\n");
    // Or goes on, and remembers the worst.
    let input = b"frob\nget x\nset b 2\n";
    let outcome = place.feed(["shell", "--keep-going"], input);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("line 1") && outcome.err.contains("line 2"));
    assert_eq!(place.run(["scan"]).text(), "a\t1\nb\t2\n");
    // A missing key is an answer: it tells in the end, but stops nothing.
    let outcome = script(&place, &["get x", "get a"]);
    outcome.fails(1, &["line 1", "there is no key \"x\""]);
    assert_eq!(outcome.out, b"1\n");
    // Lines may end in any way, the last one in none, and need not be text.
    assert_eq!(place.feed(["shell"], b"get a\r\nget b").text(), "1\n2\n");
    place
        .feed(["shell"], b"get \xff\n")
        .fails(2, &["line 1", "\\xHH"]);
}

#[test]
fn a_transaction_that_is_left_open_is_rolled_back_with_a_word() {
    let place = Place::new();
    let outcome = script(&place, &["begin", "set a 1"]);
    assert_eq!(outcome.code, 0);
    assert!(
        outcome
            .err
            .contains("transaction of 1 write was rolled back"),
        "{}",
        outcome.err
    );
    for verb in ["exit", "disconnect", "connect-memory"] {
        script(&place, &["begin", "set a 1", &format!("{verb} --yes")]).ok();
        let refused = script(&place, &["begin", "set a 1", verb]);
        assert_eq!(refused.code, 4, "{verb}");
    }
    assert_eq!(place.run(["count"]).text(), "0\n");
    // What transactions cannot take in is refused, and the transaction goes on.
    for verb in ["clear", "import x", "export x"] {
        let input = format!("begin\nset a 1\n{verb}\ncommit\n");
        let outcome = place.feed(["shell", "--keep-going"], input.as_bytes());
        outcome.fails(2, &["line 3", "commit or rollback first"]);
        assert_eq!(place.run(["get", "a"]).text(), "1\n");
    }
    // And one that loses against another says so.
    let lines = ["begin", "get a", "set b 1", "commit"];
    assert_eq!(script(&place, &lines).text(), "1\n");
}

#[test]
fn only_what_outlives_a_single_command_is_set_by_one() {
    let place = Place::new();
    place.run(["set", "a", "1"]).ok();
    place
        .run(["config", "cache_bytes", "5"])
        .fails(2, &["in a shell"]);
    place.run(["config", "default_ttl", "60000"]).ok();
    let shown = place.run(["config", "default_ttl", "--json"]).text();
    assert_eq!(shown, "{\"ok\":true,\"options\":{\"default_ttl\":60000}}\n");
    place.run(["set", "b", "1"]).ok();
    assert!(place.run(["ttl", "b"]).text().starts_with("59s"));
    assert_eq!(place.run(["ttl", "a"]).text(), "never expires\n");
}

/// One way to each exit code, as the guide lists them.
#[test]
fn each_documented_exit_code_is_met() {
    let guide = include_str!("../../../docs/guide/shell.md");
    let (_, table) = guide.split_once("## Exit codes").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let codes: Vec<i32> = rows
        .filter_map(|row| row.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 130]);
    let place = Place::new();
    let cases: [(&[&str], i32); 5] = [
        (&["set", "a", "1"], 0),
        (&["get", "x"], 1),
        (&["get"], 2),
        (&["--db", "/nowhere/at/all", "get", "a"], 3),
        (&["clear"], 4),
    ];
    for (words, code) in cases {
        let json = [words, &["--json"]].concat();
        for words in [words, &json] {
            // The last --db counts only where it is the only one.
            let outcome = match words[0] {
                "--db" => {
                    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_esker"));
                    command.args(words);
                    place.feed_command(command, b"")
                }
                _ => place.run(words),
            };
            assert_eq!(outcome.code, code, "{words:?}: {outcome:?}");
        }
        if code != 0 {
            let outcome = match words[0] {
                "--db" => continue,
                _ => place.run(&json),
            };
            assert_eq!(
                objects(&outcome)[0]["error"]["exit_code"],
                code,
                "{words:?}"
            );
        }
    }
}

/// The option stands on the line, not before the shell: the failure is for programs all the same.
#[test]
fn a_line_that_asks_for_json_fails_in_json() {
    let place = Place::new();
    let input = b"get x --json\nfrob --json\nset a 1\nget x\n";
    let outcome = place.feed(["shell", "--keep-going"], input);
    let objects = objects(&outcome);
    assert_eq!(objects.len(), 2, "{outcome:?}");
    assert_eq!(objects[0]["error"]["kind"], "missing");
    assert_eq!(objects[1]["error"]["kind"], "usage");
}

#[test]
fn programs_get_one_object_for_each_command() {
    let place = Place::new();
    let input = "set k \\xff\nget k\nget x\nkeys\nscan\nsize\nexists k\nttl k\nbegin\nset l 1\ncommit\n\
        backup b\nbackups\nstatus\nstats\nconfig\nrecovery-state\ndisk-usage\nvalidate\ncompact\n\
        wal-status\nwal-rotate\nwal-clear\nkeyspaces\nuse k\nversion\nhelp\nfrob\nclear\n";
    let outcome = place.feed(["shell", "--json", "--keep-going"], input.as_bytes());
    let objects = objects(&outcome);
    assert_eq!(objects.len(), input.lines().count());
    let ok: Vec<bool> = objects
        .iter()
        .map(|object| object["ok"].as_bool().unwrap())
        .collect();
    for (line, ok) in input.lines().zip(ok) {
        assert_eq!(ok, !["get x", "frob", "clear"].contains(&line), "{line}");
    }
    let of = |line: &str| &objects[input.lines().position(|other| other == line).unwrap()];
    assert_eq!(of("get k")["value"]["base64"], "/w==");
    assert_eq!(of("get x")["error"]["kind"], "missing");
    assert_eq!(of("get x")["error"]["line"], 3);
    assert_eq!(of("frob")["error"]["exit_code"], 2);
    assert_eq!(of("keys")["keys"], serde_json::json!(["k"]));
    assert_eq!(of("scan")["more"], false);
    assert_eq!(of("size")["keys"], 1);
    assert_eq!(of("exists k")["exists"], true);
    assert_eq!(of("ttl k")["ttl_millis"], Value::Null);
    assert_eq!(of("commit")["writes"], 1);
    assert_eq!(of("backups")["backups"][0]["description"], "b");
    assert_eq!(of("validate")["is_ok"], true);
    assert_eq!(of("wal-status")["enabled"], true);
    // A keyspace that nobody has written to is not there.
    assert_eq!(of("clear")["error"]["kind"], "missing");
    // Single commands as well.
    let outcome = place.run(["get", "x", "--json"]);
    assert_eq!(outcome.code, 1);
    assert_eq!(self::objects(&outcome)[0]["error"]["kind"], "missing");
}

#[test]
fn a_database_that_is_not_well_is_told_to_people_and_programs() {
    let place = Place::new();
    let records: String = (0..5000)
        .map(|i| format!("key{i:05}\tvalue of {i}\n"))
        .collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    place.run(["compact"]).ok();
    let table = place.database_files(".sst").pop().unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let people = script(&place, &["validate"]);
    people.fails(1, &["line 1", "not well"]);
    assert!(String::from_utf8_lossy(&people.out).contains(name));
    let programs = place.run(["validate", "--json"]);
    assert_eq!(programs.code, 1);
    let object = &objects(&programs)[0];
    assert_eq!(object["ok"], false);
    let issue = &object["issues"][0];
    assert!(issue["file"].as_str().unwrap().ends_with(name), "{issue}");
    assert!(!issue["advice"].as_str().unwrap().is_empty());
    // Reading stops at the damage, with one object all the same.
    let scanned = place.run(["scan", "--json"]);
    assert_eq!(scanned.code, 3);
    assert_eq!(objects(&scanned)[0]["error"]["kind"], "damage");
}

#[test]
fn the_dumps_and_files_work_in_the_shell() {
    let place = Place::new();
    std::fs::write(place.file("records"), "a\t1\nb\t2\n").unwrap();
    let import = format!("import {}", place.file("records").display());
    script(
        &place,
        &[&import, &format!("{import} -k other"), "count -k other"],
    )
    .ok();
    let export = format!("export {}", place.file("out").display());
    script(&place, &[&export]).ok();
    assert_eq!(std::fs::read(place.file("out")).unwrap(), b"a\t1\nb\t2\n");
    let manifest = place.database_files("MANIFEST-").pop().unwrap();
    let name = manifest.file_name().unwrap().to_str().unwrap();
    let dumped = script(&place, &[&format!("dump-manifest {name}")]).text();
    assert!(dumped.lines().count() > 2, "{dumped}");
    let outcome = script(&place, &[&format!("dump-manifest {name} --json")]);
    assert!(objects(&outcome)[0]["lines"].as_array().unwrap().len() > 2);
}

#[test]
fn a_database_in_memory_and_one_for_reading() {
    let place = Place::new();
    let mut memory = std::process::Command::new(env!("CARGO_BIN_EXE_esker"));
    memory
        .args(["--memory", "shell"])
        .stdin(std::process::Stdio::piped());
    let outcome = place.feed_command(memory, b"set a 1\nget a\nwal-status\nwal-rotate\n");
    outcome.fails(2, &["line 4"]);
    assert_eq!(outcome.out, b"1\nthere is no write-ahead log\n");
    // The directory may stand behind the verb as well.
    let mut shell = std::process::Command::new(env!("CARGO_BIN_EXE_esker"));
    shell.arg("shell").arg(place.db());
    assert_eq!(place.feed_command(shell, b"set a 1\nget a\n").text(), "1\n");
    let outcome = place.feed(["shell", "--read-only"], b"get a\nset a 2\n");
    outcome.fails(3, &["line 2"]);
    assert_eq!(outcome.out, b"1\n");
}

#[test]
fn what_only_a_session_can_do_is_refused_as_one_command() {
    let place = Place::new();
    for verb in [
        "begin",
        "commit",
        "rollback",
        "disconnect",
        "connect-memory",
        "exit",
    ] {
        place.run([verb]).fails(2, &["esker shell"]);
    }
    place.run(["use", "x"]).fails(2, &["esker shell"]);
    place.run(["exists", "x"]).fails(3, &["db"]);
    place
        .run(["set", "a", "1", "--ttl", "soon"])
        .fails(2, &["soon"]);
    // A command that is wrong leaves no database behind.
    assert!(!place.db().exists());
    place.run(["set", "a", "1"]).ok();
    place.run(["exists", "x"]).fails(1, &["there is no key"]);
    assert_eq!(place.run(["exists", "a"]).text(), "yes\n");
    place.run(["clear"]).fails(4, &["1 key"]);
    place.run(["clear", "--yes"]).ok();
    assert_eq!(
        place.run(["size", "--json"]).text(),
        "{\"ok\":true,\"key_bytes\":0,\"keys\":0,\"value_bytes\":0}\n"
    );
}
