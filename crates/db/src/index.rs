//! Secondary indexes: other orders of a keyspace's records, maintained with them.
//!
//! An index is declared at open, by a function that says under which keys a record is to be found.
//! Its entries live in a hidden keyspace, as ordinary records that expire with the record they stand
//! for. The commit leader derives what changes in them and appends it to the batch that changes the
//! records, so that log, recovery, backups and compaction need to know nothing of indexes.
//!
//! Invariants: an index that answers agrees with the records at every sequence number since it became
//! ready; what it is (its version, how far it is built) is a record too, written in the same batch as
//! whatever it is true of. A program that writes without declaring an index marks it stale with its
//! first write, and the next one that declares it builds it anew.
//!
//! Parts: [`definition`] what a user declares; [`catalog`] which indexes a keyspace has;
//! [`index_record`] what is stored of one; [`pending`] and [`maintain`] the leader's part; [`build`]
//! filling an index while writers go on; [`check`] validation.

pub(crate) mod build;
pub(crate) mod catalog;
pub(crate) mod check;
pub(crate) mod definition;
pub(crate) mod index_record;
pub(crate) mod maintain;
pub(crate) mod overlay;
pub(crate) mod pending;
pub(crate) mod stored_record;

pub use build::IndexProgress;
pub use catalog::{IndexInfo, IndexStatus};
pub use definition::{IndexDefinition, IndexKeys};
