//! `CURRENT`: the file that names the live MANIFEST.
//!
//! Layout: `MANIFEST-<number> <checksum>\n`, the checksum being xxh3 of the name as 16 lower-case
//! hexadecimal digits, so that a damaged file cannot name an older MANIFEST that is still around.
//! Invariant: it is replaced atomically, and only after the MANIFEST that it names and that one's
//! directory entry are on stable storage (I1).

use std::io;
use std::path::Path;

use esker_base::checksum::checksum;
use esker_base::filename::{FileKind, FileNumber, current_path, manifest_name, temporary_path};
use esker_base::{Error, Result};
use esker_vfs::fs::FileSystem;

/// More than any intact file has.
const MAX_CURRENT_BYTES: u64 = 64;

fn encode(number: FileNumber) -> String {
    let name = manifest_name(number);
    let check = checksum(name.as_bytes(), 0);
    format!("{name} {check:016x}\n")
}

fn decode(bytes: &[u8]) -> Option<FileNumber> {
    let text = std::str::from_utf8(bytes).ok()?;
    match FileKind::parse(text.split(' ').next()?)? {
        FileKind::Manifest(number) if encode(number) == text => Some(number),
        _ => None,
    }
}

/// The number of the live MANIFEST; `None` where there is no `CURRENT`.
pub(crate) fn read(fs: &dyn FileSystem, directory: &Path) -> Result<Option<FileNumber>> {
    let path = current_path(directory);
    let file = match fs.open_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open CURRENT", &path, error)),
    };
    let bytes = file
        .len()
        .map_err(|e| Error::io("measure CURRENT", &path, e))?;
    let mut text = vec![0; bytes.min(MAX_CURRENT_BYTES) as usize];
    file.read_exact_at(&mut text, 0)
        .map_err(|e| Error::io("read CURRENT", &path, e))?;
    let number = decode(&text).ok_or_else(|| {
        Error::corruption("CURRENT does not name a manifest")
            .with_file(&path)
            .with_offset(0)
    })?;
    Ok(Some(number))
}

/// Makes `CURRENT` name MANIFEST `number`. `on_rename` is called before the step after which a
/// crash may find either name.
pub(crate) fn replace(
    fs: &dyn FileSystem,
    directory: &Path,
    number: FileNumber,
    on_rename: impl FnOnce(),
) -> Result<()> {
    let temporary = temporary_path(directory, number);
    remove_stray(fs, &temporary)?;
    let written = fs.create(&temporary).and_then(|file| {
        file.write_at(0, encode(number).as_bytes())?;
        file.sync_data()
    });
    if let Err(error) = written {
        let _ = fs.remove_file(&temporary);
        return Err(Error::io("write the new CURRENT", &temporary, error));
    }
    let current = current_path(directory);
    on_rename();
    fs.rename(&temporary, &current)
        .map_err(|e| Error::io("replace CURRENT", &current, e))?;
    fs.sync_dir(directory)
        .map_err(|e| Error::io("sync the directory", directory, e))
}

/// Removes what a crash may have left at a path that is about to be created.
pub(crate) fn remove_stray(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove an unfinished file", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intact_file_names_its_manifest_and_a_damaged_one_names_none() {
        let text = encode(12);
        assert_eq!(text, "MANIFEST-000012 6f8e2de37ccdf1ae\n");
        assert_eq!(decode(text.as_bytes()), Some(12));
        for at in 0..text.len() {
            assert_eq!(decode(&text.as_bytes()[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut damaged = text.clone().into_bytes();
                damaged[at] ^= 1 << bit;
                assert_eq!(decode(&damaged), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(decode(format!("{text} ").as_bytes()), None);
    }
}
