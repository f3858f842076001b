//! What a table says of itself, whatever else of it can be read.
//!
//! Invariant: what is returned was checked, by the footer's checksum and that of the properties; nothing else is
//! looked at. Called by db's repair, which has to know what a damaged table held.

use std::path::Path;

use esker_base::filename::FileNumber;
use esker_base::table_meta::TableMeta;
use esker_base::{Error, Result};
use esker_vfs::fs::FileSystem;

use crate::block_io::BlockFile;
use crate::format::{FOOTER_BYTES, Footer};
use crate::origin::{self, Origin};
use crate::properties::Properties;
use crate::table::{Table, open_file};
use crate::table_parts::block_damage;

impl Table {
    /// The description of the table at `path`, which was written as `number`, and where it says that it comes
    /// from: by footer and properties alone, so that damage to anything else does not matter.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn describe(
        fs: &dyn FileSystem,
        path: &Path,
        number: FileNumber,
    ) -> Result<(TableMeta, Option<Origin>)> {
        let file = open_file(fs, path)?;
        let file_bytes = file
            .len()
            .map_err(|source| Error::io("measure a table", path, source))?;
        let file = BlockFile {
            file: &*file,
            path,
            number,
        };
        let footer_bytes = file_bytes.min(FOOTER_BYTES as u64);
        let mut stored = vec![0; footer_bytes as usize];
        file.read_exact(&mut stored, file_bytes - footer_bytes)?;
        let footer = Footer::decode(&stored, file_bytes).map_err(|error| error.with_file(path))?;
        let contents = file.read_block(footer.properties)?;
        let inside =
            |source| block_damage("the properties of a table", source, footer.properties, path);
        let mut meta = Properties::decode(&contents).map_err(inside)?.meta;
        if footer.number != number || meta.number != number {
            let message = format!("table {} stands where table {number} should", footer.number);
            return Err(Error::corruption(message).with_file(path));
        }
        meta.file_bytes = file_bytes;
        meta.checksum = footer.file_checksum;
        Ok((meta, origin::among(&contents).map_err(inside)?))
    }
}
