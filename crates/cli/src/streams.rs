//! Where records come from and go to: files of the user, standard input and standard output.
//!
//! Invariant: a regular file appears under its name only when it is complete and on stable storage;
//! until then it is a neighbour called `NAME.<process>.part`, which a failed run removes. This is
//! the one place of the binary that opens files, and never one of a database. Called by the verbs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// How much is read or written at once, bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Whether `path` stands for standard input or output.
fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Something to read records from.
pub(crate) struct Input {
    /// The bytes.
    pub(crate) reader: Box<dyn BufRead>,
    /// How many there are, where that is known.
    pub(crate) bytes: Option<u64>,
}

impl Input {
    /// Opens the file at `path`, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if is_dash(path) {
            let reader = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
            return Ok(Self {
                reader: Box::new(reader),
                bytes: None,
            });
        }
        let open = |path| {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Ok((file, metadata.is_file().then_some(metadata.len())))
        };
        let (file, bytes) = open(path).map_err(|error| Failure::file("open", path, &error))?;
        Ok(Self {
            reader: Box::new(BufReader::with_capacity(BUFFER_BYTES, file)),
            bytes,
        })
    }
}

/// Something to write records to. Without [`Output::finish`] a file never appears.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// For messages.
    path: PathBuf,
    part: Option<Part>,
}

/// A file that is being written under another name.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Output {
    /// Standard output.
    pub(crate) fn standard() -> Self {
        Self::new(
            Box::new(io::stdout().lock()),
            PathBuf::from("standard output"),
            None,
        )
    }

    /// The file that is to be at `path`, or standard output for `-`. What exists and is no regular
    /// file, a named pipe for instance, is written to as it is.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if is_dash(path) {
            return Ok(Self::standard());
        }
        Self::open(path).map_err(|error| Failure::file("create", path, &error))
    }

    fn open(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self::new(Box::new(file), path.to_path_buf(), None));
        }
        // Through a symbolic link the file it leads to is replaced, not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let mut name = target.clone().into_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let part_path = PathBuf::from(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part_path)?;
        let part = Part {
            file: file.try_clone()?,
            path: part_path,
            target,
        };
        Ok(Self::new(Box::new(file), path.to_path_buf(), Some(part)))
    }

    fn new(writer: Box<dyn Write>, path: PathBuf, part: Option<Part>) -> Self {
        Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, writer),
            path,
            part,
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer
            .write_all(bytes)
            .map_err(|error| Failure::file("write", &self.path, &error))
    }

    /// The stream itself, for what writes on its own.
    pub(crate) fn as_write(&mut self) -> &mut dyn Write {
        &mut self.writer
    }

    /// Sees everything written out so far: somebody may be waiting for it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let flushed = self.writer.flush();
        flushed.map_err(|error| Failure::file("write", &self.path, &error))
    }

    /// Sees everything written out; a file is then durable and has its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let result = self.complete();
        result.map_err(|error| Failure::file("write", &self.path, &error))
    }

    fn complete(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        if let Some(part) = &self.part {
            part.file.sync_all()?;
            fs::rename(&part.path, &part.target)?;
            self.part = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nobody can be told; what stays behind says by its name what it is.
            let _ = fs::remove_file(&part.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path).unwrap();
        output.write(b"new").unwrap();
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["out"]);
        let mut output = Output::create(&path).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nowhere").join("file");
        for failure in [
            Input::open(&missing).err().unwrap(),
            Input::open(dir.path()).err().unwrap(),
            Output::create(&missing).err().unwrap(),
            Output::create(dir.path()).err().unwrap(),
        ] {
            let name = dir.path().display().to_string();
            assert!(
                matches!(&failure, Failure::Engine(message) if message.contains(&name)),
                "{failure:?}"
            );
        }
    }
}
