//! What the tab key offers: verbs, their options and those of the database, keys, keyspaces, backups, files.
//!
//! Invariant: bounded: at most [`MOST`] candidates are looked for, whatever the database holds, and a
//! failure offers nothing. Candidates are written so that the shell reads them back as they are.

use std::path::PathBuf;

use clap::CommandFactory as _;
use esker::Db;
use rustyline::completion::{FilenameCompleter, Pair};

use crate::args::Line;
use crate::words;

/// The most candidates that are offered.
const MOST: usize = 50;
/// What can be completed of a longer key is of no help to anybody, bytes.
const LONGEST_KEY_BYTES: usize = 256;

const KEY_VERBS: &[&str] = &[
    "get", "put", "set", "delete", "exists", "keys", "ttl", "set-ttl", "persist",
];
const KEY_OPTIONS: &[&str] = &["--prefix", "--from", "--to"];
const BACKUP_VERBS: &[&str] = &[
    "backup-info",
    "backup-verify",
    "backup-restore",
    "backup-delete",
];
const FILE_VERBS: &[&str] = &[
    "connect",
    "import",
    "export",
    "dump-wal",
    "dump-table",
    "dump-manifest",
];
const FILE_OPTIONS: &[&str] = &["--into"];
const KEYSPACE_OPTIONS: &[&str] = &["--keyspace", "-k"];

/// The database that keys come from, and the keyspace that is meant.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) db: Option<Db>,
    pub(super) keyspace: String,
}

/// What may stand where the cursor is.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Verb,
    Option,
    Key { keyspace: Option<String> },
    Backup,
    Keyspace,
    Setting,
    File,
    Nothing,
}

/// Where the word at the end of `line` begins, bytes, and what it may become.
pub(super) fn candidates(source: &Source, line: &str) -> (usize, Vec<Pair>) {
    let Some((start, word, before)) = words::unfinished(line) else {
        return (line.len(), Vec::new());
    };
    let before: Vec<String> = before
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let found = match wanted(&before, &word) {
        Wanted::Verb => verbs(before.first().is_some_and(|first| first == "help")),
        Wanted::Option => options(&before),
        Wanted::Key { keyspace } => keys(source, keyspace.as_deref(), &word),
        Wanted::Backup => backups(source),
        Wanted::Keyspace => keyspaces(source),
        Wanted::Setting => settings(source),
        Wanted::File => return files(line),
        Wanted::Nothing => Vec::new(),
    };
    let found = found
        .into_iter()
        .filter(|candidate| candidate.starts_with(&word));
    let pairs = found.take(MOST).map(|candidate| {
        let replacement = match candidate.first() {
            // An option, which must not be quoted.
            Some(b'-') if word.first() == Some(&b'-') => {
                String::from_utf8_lossy(&candidate).into_owned()
            }
            _ => words::quoted(&candidate),
        };
        Pair {
            display: replacement.clone(),
            replacement: replacement + " ",
        }
    });
    (start, pairs.collect())
}

fn wanted(before: &[String], word: &[u8]) -> Wanted {
    let Some(verb) = before.first().map(String::as_str) else {
        return Wanted::Verb;
    };
    let last = before.last().map_or("", String::as_str);
    if before.len() > 1 && KEYSPACE_OPTIONS.contains(&last) {
        return Wanted::Keyspace;
    }
    let is_after_dashes = before.iter().any(|word| word == "--");
    if word.first() == Some(&b'-') && !is_after_dashes {
        return Wanted::Option;
    }
    let keyspace = before
        .windows(2)
        .find(|pair| KEYSPACE_OPTIONS.contains(&pair[0].as_str()))
        .map(|pair| pair[1].clone());
    if FILE_OPTIONS.contains(&last) {
        return Wanted::File;
    }
    if KEY_OPTIONS.contains(&last) {
        return Wanted::Key { keyspace };
    }
    // Words that are neither options nor their values.
    let mut arguments = 0;
    let mut takes_value = false;
    for word in &before[1..] {
        if takes_value {
            takes_value = false;
        } else if word.starts_with('-') && word != "-" {
            takes_value = KEYSPACE_OPTIONS.contains(&word.as_str())
                || KEY_OPTIONS.contains(&word.as_str())
                || matches!(word.as_str(), "--limit" | "--ttl" | "--format");
        } else {
            arguments += 1;
        }
    }
    match verb {
        "help" if arguments == 0 => Wanted::Verb,
        "use" if arguments == 0 => Wanted::Keyspace,
        "config" if arguments == 0 => Wanted::Setting,
        _ if arguments > 0 => Wanted::Nothing,
        verb if KEY_VERBS.contains(&verb) => Wanted::Key { keyspace },
        verb if BACKUP_VERBS.contains(&verb) => Wanted::Backup,
        verb if FILE_VERBS.contains(&verb) => Wanted::File,
        _ => Wanted::Nothing,
    }
}

fn verbs(only_names: bool) -> Vec<Vec<u8>> {
    let command = Line::command();
    let mut names: Vec<Vec<u8>> = command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "shell")
        .flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()))
        .map(|name| name.as_bytes().to_vec())
        .collect();
    if !only_names {
        names.push(b"help".to_vec());
    }
    names.sort();
    names
}

fn options(before: &[String]) -> Vec<Vec<u8>> {
    let mut command = Line::command();
    // Options of every verb come to the verbs when the description is built.
    command.build();
    let Some(verb) = before
        .first()
        .and_then(|verb| command.find_subcommand(verb))
    else {
        return Vec::new();
    };
    let names = verb
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    let mut names: Vec<Vec<u8>> = names.map(|name| format!("--{name}").into_bytes()).collect();
    names.sort();
    names
}

fn keys(source: &Source, keyspace: Option<&str>, prefix: &[u8]) -> Vec<Vec<u8>> {
    let name = keyspace.unwrap_or(&source.keyspace);
    let Some(db) = &source.db else {
        return Vec::new();
    };
    // Asking for a keyspace that is not there would create it.
    let exists = db
        .keyspace_names()
        .is_ok_and(|names| names.iter().any(|known| known == name));
    let Some(keyspace) = exists.then(|| db.keyspace(name).ok()).flatten() else {
        return Vec::new();
    };
    let entries = keyspace.prefix(prefix).take(MOST);
    entries
        .map_while(|entry| entry.ok())
        .map(|(key, _)| key.to_vec())
        .filter(|key| key.len() <= LONGEST_KEY_BYTES)
        .collect()
}

fn backups(source: &Source) -> Vec<Vec<u8>> {
    let infos = source.db.as_ref().and_then(|db| db.list_backups().ok());
    let infos = infos.unwrap_or_default();
    infos
        .iter()
        .map(|info| info.name().as_bytes().to_vec())
        .collect()
}

/// The options of the database, by name.
fn settings(source: &Source) -> Vec<Vec<u8>> {
    let options = source.db.as_ref().map(|db| db.options().to_text());
    let names = options.unwrap_or_default().into_iter();
    names.map(|(name, _)| name.as_bytes().to_vec()).collect()
}

fn keyspaces(source: &Source) -> Vec<Vec<u8>> {
    let names = source.db.as_ref().and_then(|db| db.keyspace_names().ok());
    names
        .unwrap_or_default()
        .into_iter()
        .map(String::into_bytes)
        .collect()
}

fn files(line: &str) -> (usize, Vec<Pair>) {
    let (start, mut pairs) = FilenameCompleter::new()
        .complete_path(line, line.len())
        .unwrap_or((line.len(), Vec::new()));
    pairs.truncate(MOST);
    // A space after what is complete; a directory may go on.
    if let [pair] = pairs.as_mut_slice()
        && !PathBuf::from(&pair.replacement).is_dir()
        && !pair.replacement.ends_with('/')
    {
        pair.replacement.push(' ');
    }
    (start, pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(source: &Source, line: &str) -> Vec<String> {
        let (start, pairs) = candidates(source, line);
        pairs
            .iter()
            .map(|pair| format!("{}{}", &line[..start], pair.replacement))
            .collect()
    }

    fn source() -> Source {
        let db = esker::Options::new().open_in_memory().unwrap();
        for key in ["user:1", "user:2", "two words", "-dash"] {
            db.put(key, "v").unwrap();
        }
        db.keyspace("posts").unwrap().put("post:1", "v").unwrap();
        Source {
            db: Some(db),
            keyspace: "default".into(),
        }
    }

    #[test]
    fn what_the_tab_key_offers() {
        let source = source();
        let cases: [(&str, &[&str]); 20] = [
            ("ge", &["get "]),
            ("set-", &["set-ttl "]),
            ("help ge", &["help get "]),
            ("get us", &["get user:1 ", "get user:2 "]),
            ("get user:1", &["get user:1 "]),
            ("get tw", &["get \"two words\" "]),
            ("get \"two w", &["get \"two words\" "]),
            ("get two\\ w", &["get \"two words\" "]),
            ("get -- -", &["get -- -dash "]),
            ("get user:1 us", &[]),
            ("get nothing", &[]),
            (
                "scan --prefix us",
                &["scan --prefix user:1 ", "scan --prefix user:2 "],
            ),
            ("get -k posts po", &["get -k posts post:1 "]),
            ("get -k nowhere po", &[]),
            ("use p", &["use posts "]),
            ("get --keyspace d", &["get --keyspace default "]),
            ("get --he", &["get --help ", "get --hex "]),
            ("get \\q", &[]),
            ("config cac", &["config cache_bytes "]),
            ("config cache_bytes 5", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(offered(&source, line), expected, "{line}");
        }
        assert_eq!(
            source.db.unwrap().keyspace_names().unwrap(),
            ["default", "posts"]
        );
    }

    #[test]
    fn offers_are_bounded() {
        let source = source();
        let db = source.db.clone().unwrap();
        for i in 0..1000 {
            db.put(format!("many:{i:04}"), "v").unwrap();
        }
        db.put([b'm'; 1000], "v").unwrap();
        assert_eq!(offered(&source, "get many:").len(), MOST);
        assert_eq!(offered(&source, "get mmm").len(), 0);
        assert!(offered(&Source::default(), "get ").is_empty());
    }
}
