//! The runs of a comparison as files, so that it can go on where it stopped.
//!
//! Invariant: a run that was made with other flags is never taken for one of this comparison. Called
//! by `compare` alone.

use super::Turn;
use crate::cli::{Refusal, to_json};
use crate::exit::{FAILED, USAGE};
use crate::report::RunReport;
use esker::vfs::{FileSystem, OsFileSystem};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where runs are kept, if anywhere.
pub(super) struct Results {
    directory: Option<PathBuf>,
}

/// A run and the flags that it was made with.
#[derive(Serialize, Deserialize)]
struct Kept {
    flags: Vec<String>,
    report: RunReport,
}

impl Results {
    /// In `directory`, which is made if it is not there.
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Refusal> {
        if let Some(directory) = directory {
            OsFileSystem::new()
                .create_dir_all(directory)
                .map_err(|error| failed("make", directory, &error))?;
        }
        Ok(Self {
            directory: directory.map(Path::to_path_buf),
        })
    }

    /// The run that was made at this `turn` with `flags`.
    pub(super) fn read(
        &self,
        turn: &Turn<'_>,
        flags: &[OsString],
    ) -> Result<Option<RunReport>, Refusal> {
        let Some(path) = self.path(turn) else {
            return Ok(None);
        };
        let fs = OsFileSystem::new();
        let bytes = match fs.open_read(&path) {
            Ok(file) => {
                let length = file.len().map_err(|error| failed("read", &path, &error))?;
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                file.read_exact_at(&mut bytes, 0)
                    .map_err(|error| failed("read", &path, &error))?;
                bytes
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let kept: Kept =
            serde_json::from_slice(&bytes).map_err(|error| failed("understand", &path, &error))?;
        if kept.flags != words(flags) {
            let sentence = format!(
                "{} was made with other flags: give another directory to --results",
                path.display()
            );
            return Err((USAGE, sentence));
        }
        Ok(Some(kept.report))
    }

    /// Keeps `report`.
    pub(super) fn keep(
        &self,
        turn: &Turn<'_>,
        flags: &[OsString],
        report: &RunReport,
    ) -> Result<(), Refusal> {
        let Some(path) = self.path(turn) else {
            return Ok(());
        };
        let kept = Kept {
            flags: words(flags),
            report: report.clone(),
        };
        write(&path, &to_json(&kept)?)
    }

    /// Writes `text` into the file `name` beside the runs.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Refusal> {
        match &self.directory {
            Some(directory) => write(&directory.join(name), text),
            None => Ok(()),
        }
    }

    fn path(&self, turn: &Turn<'_>) -> Option<PathBuf> {
        let piece = match turn.piece.name {
            "" => "run",
            name => name,
        };
        let name = format!("{piece}.{}.{}.json", turn.round + 1, turn.name);
        self.directory
            .as_ref()
            .map(|directory| directory.join(name))
    }
}

fn words(flags: &[OsString]) -> Vec<String> {
    let word = |flag: &OsString| flag.to_string_lossy().into_owned();
    flags.iter().map(word).collect()
}

/// Replaces the file at once, so that a run that is cut off leaves no half of one.
fn write(path: &Path, text: &str) -> Result<(), Refusal> {
    let fs = OsFileSystem::new();
    let unfinished = path.with_extension("unfinished");
    fs.create(&unfinished)
        .and_then(|file| file.write_at(0, text.as_bytes()))
        .and_then(|()| fs.rename(&unfinished, path))
        .map_err(|error| failed("write", path, &error))
}

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Refusal {
    (FAILED, format!("cannot {what} {}: {error}", path.display()))
}
