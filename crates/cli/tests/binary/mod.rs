//! Runs the `esker` binary as a user would, for all integration tests of the command line.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A place for a database (not created yet) and for files beside it; removed when dropped.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// An empty place.
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Where the database goes.
    pub(crate) fn db(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    /// A path beside the database.
    #[allow(dead_code)] // Not every test binary needs files of its own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `esker --db DIR ARGUMENTS`, not started yet.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
        command.arg("--db").arg(self.db()).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What the command says when its standard input is empty.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    /// What the command says when its standard input is `input`.
    pub(crate) fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Outcome {
        self.feed_command(self.command(arguments), input)
    }

    /// What `command` says when its standard input is `input`.
    pub(crate) fn feed_command(&self, mut command: Command, input: &[u8]) -> Outcome {
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that fails early closes the pipe, which is no failure of the test.
            scope.spawn(move || drop(stdin.write_all(input)));
            Outcome::of(child.wait_with_output().unwrap())
        })
    }

    /// Files in the database's directory with this extension, or this beginning.
    #[allow(dead_code)] // Not every test binary looks at files.
    pub(crate) fn database_files(&self, pattern: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.db()).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(pattern) || name.ends_with(pattern)
        });
        paths.sort();
        paths
    }
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: Vec<u8>,
    /// Standard error.
    pub(crate) err: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command ended by itself"),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output of a command that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    /// The same, as text.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    /// Asserts that it failed with `code` and one line on standard error that has all of `words`.
    #[allow(dead_code)] // Not every test binary expects failures.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let line = self
            .err
            .strip_suffix('\n')
            .expect("a line ends in a newline");
        assert!(
            line.starts_with("esker: ") && !line.contains('\n'),
            "{:?}",
            self.err
        );
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
    }
}

/// The path as an argument.
#[allow(dead_code)] // Not every test binary names files.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a script of the shell says.
#[allow(dead_code)] // Not every test binary runs scripts.
pub(crate) fn script(place: &Place, lines: &[&str]) -> Outcome {
    place.feed(["shell"], (lines.join("\n") + "\n").as_bytes())
}

/// The objects that a command or script prints with `--json`.
#[allow(dead_code)] // Not every test binary is a program.
pub(crate) fn objects(outcome: &Outcome) -> Vec<serde_json::Value> {
    let text = String::from_utf8(outcome.out.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
