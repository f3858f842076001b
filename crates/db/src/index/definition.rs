//! What a user declares: an index's name, version, uniqueness, and the function that finds its keys.
//!
//! Invariant: the function is called with a record and nothing else; what it answers, and that it
//! answers the same for the same record as long as its version stays, is all an index depends on. A
//! panic in it is an error of the call that ran it.

use crate::tuple::{ToTuple, encode};
use esker_base::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The longest name of an index, bytes.
const MAX_NAME_BYTES: usize = 255;

type Extract = dyn Fn(&[u8], &[u8], &mut IndexKeys) -> Result<()> + Send + Sync;

/// The declaration of a secondary index: [`Options::index`](crate::Options::index).
///
/// ```
/// use esker::{IndexDefinition, Options, Query};
///
/// # fn main() -> esker::Result<()> {
/// // People are "name" = "city".
/// let by_city = IndexDefinition::new("by_city", 1, |_name, city, keys| {
///     keys.add(&String::from_utf8_lossy(city).into_owned());
///     Ok(())
/// });
/// let db = Options::new().index("people", by_city).open_in_memory()?;
/// let people = db.keyspace("people")?;
/// people.put("ada", "London")?;
/// people.put("emmy", "Göttingen")?;
/// people.put("alan", "London")?;
/// let londoners = Query::new(&people).index_equal("by_city", &"London").rows()?;
/// let names: Vec<_> = londoners.map(|row| row.map(|row| row.key().to_vec())).collect::<Result<_, _>>()?;
/// assert_eq!(names, [b"ada".to_vec(), b"alan".to_vec()]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct IndexDefinition {
    name: String,
    version: u64,
    unique: bool,
    extract: Arc<Extract>,
}

impl IndexDefinition {
    /// An index called `name`. `extract` is given each record's key and value and adds the keys under
    /// which the record is to be found: none, one or several. An error that it returns refuses the
    /// write. It is called by committing threads with the database's writers held back: it must be
    /// quick, depend on nothing but its arguments, and call nothing of the database.
    ///
    /// The version stands for what `extract` does: change it whenever the function's answers change,
    /// and the index is built anew at the next open.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        version: u64,
        extract: impl Fn(&[u8], &[u8], &mut IndexKeys) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            version,
            unique: false,
            extract: Arc::new(extract),
        }
    }

    /// Whether no two records may have the same index key. A write that would break this answers
    /// [`UniqueViolation`](ErrorKind::UniqueViolation) and changes nothing. Default: no.
    #[must_use]
    pub fn unique(mut self, unique: bool) -> Self {
        self.unique = unique;
        self
    }

    /// Its name, unique within its keyspace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its extractor does, as a number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether no two records may have the same index key.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.unique
    }

    /// The encoded index keys of a record, ascending, each once.
    pub(crate) fn keys_of(&self, key: &[u8], value: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut keys = IndexKeys { keys: Vec::new() };
        let extracted = catch_unwind(AssertUnwindSafe(|| (self.extract)(key, value, &mut keys)));
        extracted.unwrap_or_else(|_| {
            let sentence = format!("the extractor of index {:?} panicked", self.name);
            Err(Error::invalid_argument(sentence))
        })?;
        keys.keys.sort_unstable();
        keys.keys.dedup();
        Ok(keys.keys)
    }
}

impl fmt::Debug for IndexDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexDefinition")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("unique", &self.unique)
            .finish_non_exhaustive()
    }
}

/// Where an extractor puts the keys of a record.
#[derive(Debug)]
pub struct IndexKeys {
    keys: Vec<Vec<u8>>,
}

impl IndexKeys {
    /// Has the record found under `key`: a value, or a tuple of several components. The same key
    /// twice is one entry.
    pub fn add<T: ToTuple + ?Sized>(&mut self, key: &T) {
        self.keys.push(encode(key));
    }
}

/// All declarations, by the name of their keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexDefinitions {
    by_keyspace: BTreeMap<String, Vec<Arc<IndexDefinition>>>,
}

impl IndexDefinitions {
    pub(crate) fn add(&mut self, keyspace: String, definition: IndexDefinition) {
        let known = self.by_keyspace.entry(keyspace).or_default();
        known.push(Arc::new(definition));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_keyspace.is_empty()
    }

    pub(crate) fn of(&self, keyspace: &str) -> &[Arc<IndexDefinition>] {
        self.by_keyspace.get(keyspace).map_or(&[], Vec::as_slice)
    }

    /// Fails where names are empty, too long or used twice.
    pub(crate) fn check(&self) -> Result<()> {
        for (keyspace, definitions) in &self.by_keyspace {
            for (at, definition) in definitions.iter().enumerate() {
                let name = definition.name();
                let sentence = if name.is_empty() || name.len() > MAX_NAME_BYTES {
                    format!("an index's name must have 1 to {MAX_NAME_BYTES} bytes")
                } else if definitions[..at].iter().any(|other| other.name() == name) {
                    format!("keyspace {keyspace:?} has two indexes called {name:?}")
                } else {
                    continue;
                };
                return Err(Error::invalid_argument(sentence));
            }
        }
        Ok(())
    }
}

/// An entry of an index: the index key, then the record's key as one more component.
pub(crate) fn entry_key(index_key: &[u8], key: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(index_key.len() + key.len() + 3);
    entry.extend_from_slice(index_key);
    crate::tuple::TupleWriter::new(&mut entry).bytes(key);
    entry
}

/// What is stored with an entry: how long its index key is.
pub(crate) fn entry_value(index_key: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    esker_base::coding::put_varint(&mut value, index_key.len() as u64);
    value
}

/// The index key and the record's key of an entry.
pub(crate) fn split_entry<'a>(entry: &'a [u8], value: &[u8]) -> Result<(&'a [u8], Vec<u8>)> {
    let damaged = || Error::corruption("an index entry is no index key and record key");
    let (length, _) = esker_base::coding::get_varint(value).ok_or_else(damaged)?;
    let length = usize::try_from(length).map_err(|_| damaged())?;
    let (index_key, rest) = entry.split_at_checked(length).ok_or_else(damaged)?;
    let key = crate::tuple::decode::<Vec<u8>>(rest).map_err(|_| damaged())?;
    Ok((index_key, key))
}

/// The error of a write that would give two records one key of a unique index.
#[cold]
pub(crate) fn violation(definition: &IndexDefinition, index_key: &[u8], key: &[u8]) -> Error {
    let shown = match crate::tuple::decode_elements(index_key) {
        Ok(elements) => format!("{elements:?}"),
        Err(_) => index_key.escape_ascii().to_string(),
    };
    let shown: String = shown.chars().take(200).collect();
    let key: String = key.escape_ascii().to_string().chars().take(200).collect();
    let sentence = format!(
        "unique index {:?} holds {shown} already, for the record \"{key}\"",
        definition.name
    );
    Error::new(ErrorKind::UniqueViolation, sentence)
}

/// The keyspace that says which indexes there are.
pub(crate) const CATALOG_NAME: &str = "\0esker.indexes";
/// What the names of the keyspaces with entries begin with; their number follows.
pub(crate) const ENTRIES_PREFIX: &str = "\0esker.index.";

/// Whether a keyspace of this name is not the user's.
pub(crate) fn is_reserved_name(name: &str) -> bool {
    name.starts_with("\0esker.")
}
