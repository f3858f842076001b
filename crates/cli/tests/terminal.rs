//! The shell at a real (pseudo) terminal: prompt, completion, history, questions, Ctrl-C and Ctrl-D.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

mod binary;

use std::process::Command;

use binary::Place;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};

/// Generous: the machine may be busy, and nothing waits for it that succeeds.
const TIMEOUT_MILLIS: u64 = 60_000;
const CTRL_C: char = 'c';
const UP: &str = "\x1b[A";

/// A shell on the database of `place`, with a history of its own.
fn shell(place: &Place, options: &[&str]) -> PtySession {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command
        .arg("--db")
        .arg(place.db())
        .arg("shell")
        .args(options);
    command
        .env("TERM", "xterm")
        .env("XDG_STATE_HOME", place.file("state"))
        .env_remove("ESKER_HISTORY");
    let options = Options::new()
        .timeout_ms(Some(TIMEOUT_MILLIS))
        .strip_ansi_escape_codes(true);
    spawn_with_options(command, options).unwrap()
}

/// Types without a newline.
fn type_in(session: &mut PtySession, text: &str) {
    session.send(text).unwrap();
    session.flush().unwrap();
}

/// Types a line and waits for what it prints and the next prompt.
#[track_caller]
fn enter(session: &mut PtySession, line: &str, printed: &str, prompt: &str) {
    type_in(session, &format!("{line}\r"));
    session.exp_string(printed).unwrap();
    session.exp_string(prompt).unwrap();
}

/// Waits for the end, and asserts its exit code.
#[track_caller]
fn ends_with(session: &PtySession, code: i32) {
    let status = format!("{:?}", session.process().wait().unwrap());
    let expected = format!(", {code})");
    assert!(
        status.starts_with("Exited(") && status.ends_with(&expected),
        "{status}"
    );
}

#[test]
fn a_session_from_greeting_to_farewell() {
    let place = Place::new();
    let mut session = shell(&place, &[]);
    session.exp_string("a new database").unwrap();
    session.exp_string("db> ").unwrap();
    enter(&mut session, "set \"two words\" 'some value'", "ok", "db> ");
    enter(&mut session, "set user:1 Ada", "ok", "db> ");
    enter(&mut session, "set user:2 Grace", "ok", "db> ");
    enter(&mut session, "get user:2", "Grace", "db> ");
    // Aligned and quoted for people.
    enter(
        &mut session,
        "scan",
        "\"two words\"  some value\r\nuser:1       Ada\r\n",
        "(3 keys)",
    );
    session.exp_string("db> ").unwrap();
    enter(&mut session, "use posts", "will create", "db/posts> ");
    enter(&mut session, "use default", "default", "db> ");
    enter(&mut session, "frob", "esker: unrecognized", "db> ");
    enter(&mut session, "help begin", "transaction", "db> ");
    type_in(&mut session, "exit\r");
    session.exp_eof().unwrap();
    ends_with(&session, 0);
    assert_eq!(place.run(["count"]).text(), "3\n");
}

#[test]
fn the_tab_key_completes_verbs_and_keys() {
    let place = Place::new();
    place.run(["set", "a key with spaces", "found it"]).ok();
    let mut session = shell(&place, &["--no-history"]);
    session.exp_string("db> ").unwrap();
    type_in(&mut session, "exi\t");
    session.exp_string("exi").unwrap();
    // "exists" and "exit" share no more than was typed; the second tab lists them.
    type_in(&mut session, "\t");
    session.exp_string("exists").unwrap();
    type_in(&mut session, "s\ta\t");
    session.exp_string("exists \"a key with spaces\"").unwrap();
    type_in(&mut session, "\r");
    session.exp_string("yes").unwrap();
    session.exp_string("db> ").unwrap();
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
    ends_with(&session, 0);
    assert!(!place.file("state").exists());
}

#[test]
fn what_was_typed_is_remembered_across_sessions() {
    let place = Place::new();
    let mut session = shell(&place, &[]);
    session.exp_string("db> ").unwrap();
    enter(&mut session, "set remembered 12345", "ok", "db> ");
    enter(&mut session, " get remembered", "12345", "db> ");
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
    let kept = std::fs::read_to_string(place.file("state").join("esker/history")).unwrap();
    assert!(kept.contains("set remembered"), "{kept}");
    // What begins with a space is private.
    assert!(!kept.contains("get remembered"), "{kept}");
    let mut session = shell(&place, &[]);
    session.exp_string("db> ").unwrap();
    type_in(&mut session, UP);
    session.exp_string("set remembered 12345").unwrap();
    session.send_control(CTRL_C).unwrap();
    session.exp_string("db> ").unwrap();
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
}

#[test]
fn the_prompt_shows_a_transaction_and_leaving_it_is_confirmed() {
    let place = Place::new();
    let mut session = shell(&place, &[]);
    session.exp_string("db> ").unwrap();
    enter(
        &mut session,
        "begin",
        "begun",
        "db [transaction, 0 writes]> ",
    );
    enter(&mut session, "set a 1", "ok", "db [transaction, 1 write]> ");
    enter(&mut session, "get a", "1", "db [transaction, 1 write]> ");
    enter(
        &mut session,
        "exit",
        "1 write not committed will be lost",
        "Go on? [y/N] ",
    );
    enter(
        &mut session,
        "n",
        "nothing was changed",
        "db [transaction, 1 write]> ",
    );
    enter(&mut session, "commit", "1 write committed", "db> ");
    enter(
        &mut session,
        "begin",
        "begun",
        "db [transaction, 0 writes]> ",
    );
    enter(&mut session, "set b 1", "ok", "db [transaction, 1 write]> ");
    // Ctrl-D asks nothing, but says what it did.
    session.send_control('d').unwrap();
    session
        .exp_string("the open transaction of 1 write was rolled back")
        .unwrap();
    session.exp_eof().unwrap();
    assert_eq!(place.run(["keys"]).text(), "a\n");
}

#[test]
fn what_destroys_asks_first_and_names_what_goes() {
    let place = Place::new();
    let mut session = shell(&place, &[]);
    session.exp_string("db> ").unwrap();
    enter(&mut session, "set a 1", "ok", "db> ");
    enter(&mut session, "set b 22", "ok", "db> ");
    enter(
        &mut session,
        "clear",
        "This removes 2 keys (5 B)",
        "Go on? [y/N] ",
    );
    enter(&mut session, "", "nothing was changed", "db> ");
    // Ctrl-C is no.
    enter(
        &mut session,
        "clear",
        "There is no backup.",
        "Go on? [y/N] ",
    );
    session.send_control(CTRL_C).unwrap();
    session.exp_string("nothing was changed").unwrap();
    session.exp_string("db> ").unwrap();
    enter(&mut session, "count", "2", "db> ");
    enter(
        &mut session,
        "delete --prefix b",
        "This deletes 1 key (3 B)",
        "Go on? [y/N] ",
    );
    enter(&mut session, "yes", "1 key (3 B) deleted", "db> ");
    enter(&mut session, "clear", "This removes 1 key", "Go on? [y/N] ");
    enter(&mut session, "y", "removed", "db> ");
    enter(&mut session, "count", "0", "db> ");
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
}

#[test]
fn ctrl_c_gives_a_line_up_and_stops_a_command() {
    let place = Place::new();
    // So much that the scan goes on while the terminal is looked at, ten times a second: with values of five
    // bytes it had ended on a busy machine before the key was pressed.
    let value = "value".repeat(40);
    let records: String = (0..200_000).map(|i| format!("{i:08}\t{value}\n")).collect();
    place.feed(["import", "-"], records.as_bytes()).ok();
    let mut session = shell(&place, &[]);
    session.exp_string("db> ").unwrap();
    type_in(&mut session, "clear --yes");
    session.exp_string("--yes").unwrap();
    session.send_control(CTRL_C).unwrap();
    session.exp_string("db> ").unwrap();
    type_in(&mut session, "scan\r");
    session.exp_string("00000100").unwrap();
    session.send_control(CTRL_C).unwrap();
    session.exp_string("esker: interrupted").unwrap();
    session.exp_string("db> ").unwrap();
    enter(&mut session, "count", "200000", "db> ");
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
    ends_with(&session, 0);
}

/// The first transcript of the guide.
fn transcript() -> Vec<String> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/shell.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, rest) = guide.split_once("```text\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    block.lines().map(str::to_owned).collect()
}

#[test]
fn the_transcript_in_the_guide_is_true() {
    let place = Place::new();
    let mut session = shell(&place, &["--no-history"]);
    let lines = transcript();
    assert!(lines.len() > 30);
    // Where the guide's reader has the database.
    let place_of_db = std::fs::canonicalize(place.file("")).unwrap().join("db");
    for line in lines {
        let line = line.replace("/home/ada/db", place_of_db.to_str().unwrap());
        let ends = ["> ", "[y/N] "];
        let typed = ends.iter().find_map(|end| Some((line.find(end)?, end)));
        let is_typed = line.starts_with("db") || line.starts_with("Go on?");
        let (printed, typed) = match typed {
            Some((at, end)) if is_typed => line.split_at(at + end.len()),
            _ => (line.as_str(), ""),
        };
        let found = session.exp_string(printed);
        found.unwrap_or_else(|error| panic!("{line}: {error}"));
        if is_typed {
            type_in(&mut session, &format!("{typed}\r"));
            // What is typed appears as well.
            session.exp_string("\r\n").unwrap();
        }
    }
    session.exp_string("db> ").unwrap();
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
}
