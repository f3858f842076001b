//! Queries: what records of a keyspace to hand out, found by key or by an index, in which order.
//!
//! Invariants: a query answers from one snapshot (or one transaction), in memory that does not grow
//! with what it reads: orders that keys or an index give are streamed, any other is sorted within the
//! query's limit and refused without one. Parts: [`plan`] decides how, [`rows`] does it,
//! [`continuation`] goes on where a page ended, [`forecast`] says what it will read and [`explain`]
//! what it has read.

pub(crate) mod continuation;
pub(crate) mod explain;
pub(crate) mod forecast;
pub(crate) mod plan;
pub(crate) mod rows;

pub use continuation::Continuation;
pub use explain::Explanation;
pub use forecast::QueryPlan;
pub use rows::{Row, Rows};

use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::snapshot::Snapshot;
use crate::transaction::Transaction;
use crate::tuple::{ToTuple, encode, prefix, range};
use esker_base::{Error, ErrorKind, Result};
use std::fmt;
use std::ops::RangeBounds;

/// Rows that a query sorts at most, where neither keys nor an index give its order.
pub const MAX_SORTED_ROWS: usize = 10_000;

type Filter<'a> = Box<dyn Fn(&[u8], &[u8]) -> bool + 'a>;

/// Where the records are read.
pub(crate) enum Source<'a> {
    Snapshot(Snapshot),
    Transaction(&'a mut Transaction),
}

/// The part of an index that is read.
#[derive(Clone, Debug)]
pub(crate) struct IndexCondition {
    pub(crate) name: String,
    pub(crate) range: KeyRange,
    /// The one index key that is asked for.
    pub(crate) equal: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of what is read: the index where one is named, else the keys.
    Natural,
    ByKey,
}

/// A query over one keyspace, built step by step.
///
/// ```
/// use esker::{IndexDefinition, Options, Query};
///
/// # fn main() -> esker::Result<()> {
/// let by_size = IndexDefinition::new("by_size", 1, |_name, content, keys| {
///     keys.add(&content.len());
///     Ok(())
/// });
/// let db = Options::new().index("files", by_size).open_in_memory()?;
/// let files = db.keyspace("files")?;
/// for (name, content) in [("a", "12345"), ("b", "1"), ("c", "123"), ("d", "12")] {
///     files.put(name, content)?;
/// }
/// // The two largest files of at least two bytes, a page at a time.
/// let query = || Query::new(&files).index_range("by_size", 2usize..).descending().limit(2);
/// let mut page = query().rows()?;
/// let names: Vec<_> = page.by_ref().map(|row| row.map(|row| row.key().to_vec())).collect::<Result<_, _>>()?;
/// assert_eq!(names, [b"a".to_vec(), b"c".to_vec()]);
/// let rest = query().after(page.continuation().expect("there is more")).rows()?;
/// assert_eq!(rest.count(), 1);
/// # Ok(()) }
/// ```
pub struct Query<'a> {
    pub(crate) keyspace: Keyspace,
    pub(crate) source: Source<'a>,
    pub(crate) keys: KeyRange,
    pub(crate) index: Option<IndexCondition>,
    pub(crate) filter: Option<Filter<'a>>,
    pub(crate) order: Order,
    pub(crate) descending: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) after: Option<Continuation>,
    pub(crate) keys_only: bool,
}

impl<'a> Query<'a> {
    /// All records of a keyspace as it is now.
    #[must_use]
    pub fn new(keyspace: &Keyspace) -> Self {
        let snapshot = keyspace.database().snapshot().of(keyspace);
        Self::over(keyspace, Source::Snapshot(snapshot))
    }

    /// All records of a keyspace as of a snapshot.
    #[must_use]
    pub fn at(keyspace: &Keyspace, snapshot: &Snapshot) -> Self {
        Self::over(keyspace, Source::Snapshot(snapshot.of(keyspace)))
    }

    /// All records of a keyspace as a transaction sees them, its own writes included. What the query
    /// reads is protected as the transaction's other reads are, phantoms included.
    #[must_use]
    pub fn within(keyspace: &Keyspace, transaction: &'a mut Transaction) -> Self {
        Self::over(keyspace, Source::Transaction(transaction))
    }

    fn over(keyspace: &Keyspace, source: Source<'a>) -> Self {
        Self {
            keyspace: keyspace.clone(),
            source,
            keys: KeyRange::all(),
            index: None,
            filter: None,
            order: Order::Natural,
            descending: false,
            limit: None,
            after: None,
            keys_only: false,
        }
    }

    /// Only records with keys in `range`, as bytes ([`tuple::range`](crate::tuple::range) makes them
    /// of leading components).
    #[must_use]
    pub fn keys<K: AsRef<[u8]>>(mut self, range: impl RangeBounds<K>) -> Self {
        self.keys = KeyRange::new(&range);
        self
    }

    /// Only records that an index finds under `key`.
    #[must_use]
    pub fn index_equal<T: ToTuple + ?Sized>(mut self, index: &str, key: &T) -> Self {
        let key = encode(key);
        self.index = Some(IndexCondition {
            name: index.to_string(),
            range: KeyRange::prefix(&key),
            equal: Some(key),
        });
        self
    }

    /// Only records that an index finds under keys that begin with `leading` components; `()` for
    /// every record that the index has. A record that it finds under several of them comes as often.
    #[must_use]
    pub fn index_prefix<T: ToTuple + ?Sized>(mut self, index: &str, leading: &T) -> Self {
        self.index = Some(IndexCondition {
            name: index.to_string(),
            range: KeyRange::new(&prefix(leading)),
            equal: None,
        });
        self
    }

    /// Only records that an index finds under keys whose leading components lie in `keys`. A record
    /// that it finds under several of them comes as often.
    #[must_use]
    pub fn index_range<T: ToTuple>(mut self, index: &str, keys: impl RangeBounds<T>) -> Self {
        self.index = Some(IndexCondition {
            name: index.to_string(),
            range: KeyRange::new(&range(&keys)),
            equal: None,
        });
        self
    }

    /// Only records for which `condition` holds, given key and value.
    #[must_use]
    pub fn filter(mut self, condition: impl Fn(&[u8], &[u8]) -> bool + 'a) -> Self {
        self.filter = Some(Box::new(condition));
        self
    }

    /// In the order of the records' keys. Without it, rows come in the order of the index, where one
    /// is named. If neither gives this order the query needs a limit of [`MAX_SORTED_ROWS`] at most.
    #[must_use]
    pub fn order_by_key(mut self) -> Self {
        self.order = Order::ByKey;
        self
    }

    /// From the last to the first.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// At most so many rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Goes on behind the last row of an earlier query, which must have been the same but for its
    /// filter and limit; another one is refused when it is run.
    #[must_use]
    pub fn after(mut self, continuation: Continuation) -> Self {
        self.after = Some(continuation);
        self
    }

    /// Leaves the values out: by an index, the records are then not read at all, unless a filter asks
    /// for them.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Runs the query: rows are read as they are asked for.
    ///
    /// # Errors
    /// `NotFound` for an index that is not declared, `NotReady` for one that is being built;
    /// `InvalidArgument` for an order that would need sorting without a limit, or a continuation of
    /// another query; otherwise as [`Keyspace::get`].
    pub fn rows(self) -> Result<Rows<'a>> {
        Rows::run(self)
    }

    /// Runs the query and makes something of each record, given key and value.
    ///
    /// # Errors
    /// As [`Query::rows`].
    pub fn project<T, F>(
        self,
        mut projection: F,
    ) -> Result<impl Iterator<Item = Result<T>> + use<'a, T, F>>
    where
        F: FnMut(&[u8], &[u8]) -> T,
    {
        Ok(self
            .rows()?
            .map(move |row| row.map(|row| projection(row.key(), row.value()))))
    }

    /// Number of rows, counted.
    ///
    /// # Errors
    /// As [`Query::rows`].
    pub fn count(mut self) -> Result<u64> {
        // Without a filter no value is looked at.
        self.keys_only = true;
        let mut count = 0;
        for row in self.rows()? {
            row?;
            count += 1;
        }
        Ok(count)
    }

    /// Says how the query will be run and about how much it will read, without running it: the indexes of
    /// the tables concerned are read, and nothing else.
    ///
    /// # Errors
    /// As [`Query::rows`].
    pub fn plan(&self) -> Result<QueryPlan> {
        QueryPlan::of(self)
    }

    /// Runs the query to its end and says how that was done and what was read for it: which index, how many
    /// entries, and how many blocks, found in the cache or read from files. The rows are dropped; what
    /// it reads within a transaction is protected as it is by [`Query::rows`].
    ///
    /// # Errors
    /// As [`Query::rows`] and its rows.
    pub fn explain(&mut self) -> Result<Explanation> {
        Explanation::of(self)
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("keyspace", &self.keyspace)
            .field("keys", &self.keys)
            .field("index", &self.index)
            .field("order", &self.order)
            .field("descending", &self.descending)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The error of an order that cannot be had in bounded memory.
#[cold]
pub(crate) fn needs_limit() -> Error {
    let sentence = format!(
        "this order needs sorting: give the query a limit of {MAX_SORTED_ROWS} rows at most"
    );
    Error::new(ErrorKind::InvalidArgument, sentence)
}
