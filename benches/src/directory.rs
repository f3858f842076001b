//! Where the database of a run lives, and how it goes away again.
//!
//! Invariant: only what this run created is removed. A temporary directory is removed when its
//! owner is dropped, and by the interrupt handler if the owner does not get that far.

use esker::vfs::{FileSystem, OsFileSystem};
use rustix::fs::{Advice, Mode, OFlags};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The directory of the database under test.
#[derive(Debug)]
pub enum Place {
    /// Given by the user, and kept.
    Kept(PathBuf),
    /// In the system's temporary directory.
    Temporary(TempDir),
}

impl Place {
    /// `directory` if one was given, else a new temporary one.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn new(directory: Option<&Path>) -> io::Result<Self> {
        match directory {
            Some(directory) => {
                OsFileSystem::new().create_dir_all(directory)?;
                Ok(Self::Kept(directory.to_path_buf()))
            }
            None => {
                let directory = tempfile::Builder::new()
                    .prefix("esker-db_bench-")
                    .tempdir()?;
                Ok(Self::Temporary(directory))
            }
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }

    /// The path to remove when the run is cut off.
    #[must_use]
    pub fn temporary_path(&self) -> Option<PathBuf> {
        match self {
            Self::Kept(_) => None,
            Self::Temporary(directory) => Some(directory.path().to_path_buf()),
        }
    }

    /// Removes what the database left in it; the directory stays.
    ///
    /// # Errors
    /// The first removal that failed.
    pub fn clear(&self) -> io::Result<()> {
        clear(&OsFileSystem::new(), self.path())
    }
}

/// Removes everything in `directory`.
///
/// # Errors
/// The first removal that failed.
pub fn clear(fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
    for entry in fs.read_dir(directory)? {
        let path = directory.join(&entry.name);
        if entry.is_dir {
            clear(fs, &path)?;
            fs.remove_dir(&path)?;
        } else {
            fs.remove_file(&path)?;
        }
    }
    Ok(())
}

/// The bytes of all files in `directory`; a file that vanishes meanwhile does not count.
#[must_use]
pub fn bytes_in(directory: &Path) -> u64 {
    fn sum(fs: &dyn FileSystem, directory: &Path) -> u64 {
        let entries = fs.read_dir(directory).unwrap_or_default();
        let bytes = entries.iter().map(|entry| match entry.is_dir {
            true => sum(fs, &directory.join(&entry.name)),
            false => entry.bytes,
        });
        bytes.sum()
    }
    sum(&OsFileSystem::new(), directory)
}

/// The bytes that the file system has given to all files in `directory`; `None` where it does not say.
#[must_use]
pub fn allocated_bytes_in(directory: &Path) -> Option<u64> {
    files_in(directory)?.iter().try_fold(0, |sum, path| {
        match rustix::fs::stat(path) {
            // Counted in units of 512 bytes, whatever the file system's blocks are.
            Ok(stat) => Some(sum + u64::try_from(stat.st_blocks).ok()? * 512),
            // It vanished meanwhile.
            Err(_) => Some(sum),
        }
    })
}

/// Asks the system to drop all files in `directory` from its cache, so that the next read comes from
/// the device. They are written out first: what is only in memory cannot be dropped.
///
/// # Errors
/// The first that cannot be opened or written out.
pub fn drop_from_cache(directory: &Path) -> io::Result<()> {
    for path in files_in(directory).unwrap_or_default() {
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fsync(&file)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// All files in `directory` and below.
fn files_in(directory: &Path) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in OsFileSystem::new().read_dir(directory).ok()? {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true => files.extend(files_in(&path)?),
            false => files.push(path),
        }
    }
    Some(files)
}

/// Whether there is nothing in `directory`, or no directory.
///
/// # Errors
/// Where it cannot be read, or is no directory.
pub fn is_empty_or_missing(directory: &Path) -> io::Result<bool> {
    match OsFileSystem::new().read_dir(directory) {
        Ok(entries) => Ok(entries.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        let file = OsFileSystem::new().create(path).unwrap();
        file.write_at(0, bytes).unwrap();
    }

    #[test]
    fn a_temporary_place_goes_away_and_a_given_one_stays() {
        let place = Place::new(None).unwrap();
        let path = place.path().to_path_buf();
        write(&path.join("a"), &[0; 10]);
        OsFileSystem::new()
            .create_dir_all(&path.join("b/c"))
            .unwrap();
        write(&path.join("b/c/d"), &[0; 5]);
        assert_eq!(bytes_in(&path), 15);
        drop_from_cache(&path).unwrap();
        let allocated = allocated_bytes_in(&path).unwrap();
        assert!(
            allocated >= 512 && allocated.is_multiple_of(512),
            "{allocated}"
        );
        assert!(!is_empty_or_missing(&path).unwrap());
        place.clear().unwrap();
        assert!(is_empty_or_missing(&path).unwrap() && path.exists());
        drop(place);
        assert!(!path.exists());

        let parent = tempfile::tempdir().unwrap();
        let kept = parent.path().join("x/y");
        drop(Place::new(Some(&kept)).unwrap());
        assert!(kept.exists());
    }
}
