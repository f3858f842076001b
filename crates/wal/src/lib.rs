//! The framing of esker's logs: segments of checksummed records that can tell a torn tail from
//! damage (I4). The write-ahead log and the MANIFEST are both made of them.
//!
//! Invariant: this crate knows no batch and no edit. It stores byte strings in order and gives back
//! a prefix of them that contains all that was synced, or says that it cannot. What is in a segment
//! is specified in `docs/format/wal.md`.
//!
//! ```
//! use std::path::Path;
//! use esker_vfs::MemFileSystem;
//! use esker_wal::{SegmentEnd, SegmentHeader, SegmentOptions, SegmentReader, SegmentWriter, SyncMode};
//!
//! let fs = MemFileSystem::new();
//! let path = Path::new("000007.wal");
//! let header = SegmentHeader { number: 7, first_sequence: 1, previous: 0 };
//! let options = SegmentOptions { segment_bytes: 1 << 16, ..SegmentOptions::default() };
//! let mut writer = SegmentWriter::create(&fs, path, header, options)?;
//! writer.append(&[b"a group", b"of records"], SyncMode::Sync)?;
//! writer.sync()?;
//!
//! let mut reader = SegmentReader::open(&fs, path, 7)?;
//! assert_eq!(reader.next()?, Some(&b"a group"[..]));
//! assert_eq!(reader.next()?, Some(&b"of records"[..]));
//! assert_eq!(reader.next()?, None);
//! assert_eq!(reader.outcome(), Some(&SegmentEnd::Clean));
//! # Ok::<(), esker_base::Error>(())
//! ```
//!
//! | file | concept |
//! |---|---|
//! | [`mod@format`] | the bytes: header page, record header, checksums bound to their place |
//! | [`segment`] | a segment's header and how a segment comes to be: new, recycled, reopened |
//! | [`writer`] | appending, syncing, sealing; a failure is final (I3) |
//! | [`reader`] | streaming the records back with a bounded buffer |
//! | [`tail`] | the verdict on what follows the last whole record |
#![forbid(unsafe_code)]

mod copies;
pub mod format;
pub mod reader;
pub mod segment;
pub mod tail;
pub mod writer;

pub use format::RecordType;
pub use reader::SegmentReader;
pub use segment::{SegmentHeader, SegmentOptions};
pub use tail::SegmentEnd;
pub use writer::{SegmentWriter, SyncMode};
