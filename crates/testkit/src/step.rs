//! What a workload does to a database, as plain data that no engine is named in.
//!
//! Invariant: a step says all that is needed to do it again; keyspaces and snapshots go by number.
//! Made by [`workload`](crate::workload), judged by [`oracle`](crate::oracle), done by the tests.

use std::fmt;

use esker_base::write_batch::KeyspaceId;

/// What a write has to survive before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing, until a flush.
    Volatile,
    /// The end of the process.
    Buffered,
    /// The loss of power.
    Sync,
}

impl Durability {
    /// What to ask for a batch of `actions` of this durability, and what it has then. One over several
    /// keyspaces is logged in any case, since nothing else keeps it whole. Volatile writes are asked for
    /// where the oracle can tell what became of them: in one keyspace, the first, since each is flushed
    /// by itself; and of values that do not expire, since the removal of an expired one is logged, and
    /// may survive what it removes.
    #[must_use]
    pub fn for_batch(self, actions: &[Action]) -> (Self, Self) {
        let logged = self.max(Self::Buffered);
        let first = actions.iter().filter(|action| action.keyspace() == 0);
        match first.count() {
            0 => (logged, logged),
            _ if actions.iter().any(Action::expires) => (logged, logged),
            count if count == actions.len() => (self, self),
            _ => (self, logged),
        }
    }
}

/// A change of one key or of a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The key has this value.
    Put {
        /// Where the key lives.
        keyspace: KeyspaceId,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// After how many milliseconds it expires, if ever.
        ttl_millis: Option<u64>,
    },
    /// The key has no value.
    Delete {
        /// Where the key lives.
        keyspace: KeyspaceId,
        /// The key.
        key: Vec<u8>,
    },
    /// No key from `start` to before `end` has a value.
    DeleteRange {
        /// Where the keys live.
        keyspace: KeyspaceId,
        /// The first key.
        start: Vec<u8>,
        /// The key after the last one; above `start`.
        end: Vec<u8>,
    },
}

impl Action {
    /// Whether it writes a value that expires.
    #[must_use]
    pub fn expires(&self) -> bool {
        matches!(
            self,
            Self::Put {
                ttl_millis: Some(_),
                ..
            }
        )
    }

    /// Where its keys live.
    #[must_use]
    pub fn keyspace(&self) -> KeyspaceId {
        match self {
            Self::Put { keyspace, .. }
            | Self::Delete { keyspace, .. }
            | Self::DeleteRange { keyspace, .. } => *keyspace,
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these actions, all or none: as a batch where there are several.
    Write {
        /// In this order.
        actions: Vec<Action>,
        /// What to ask for.
        durability: Durability,
    },
    /// Take the snapshot of this number; it is not taken now.
    TakeSnapshot(usize),
    /// Compare the snapshot of this number with what it was, and drop it.
    ReleaseSnapshot(usize),
    /// Flush every keyspace and wait for it.
    Flush,
    /// Compact everything and wait for it.
    Compact,
    /// Compact the keys from `start` to before `end` and wait for it.
    CompactRange {
        /// Where the keys live.
        keyspace: KeyspaceId,
        /// The first key.
        start: Vec<u8>,
        /// The key after the last one; above `start`.
        end: Vec<u8>,
    },
    /// Let so many milliseconds pass on the test's clock.
    PassTime(u64),
    /// Compare everything, forwards and backwards.
    Check,
    /// Close and open again. Snapshots do not survive it.
    Reopen,
}

/// A key as people can read it: as text where it is, in hexadecimal where not.
struct Readable<'a>(&'a [u8]);

impl fmt::Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES: usize = 24;
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES)];
        if !shown.is_empty() && shown.iter().all(u8::is_ascii_graphic) {
            shown
                .iter()
                .try_for_each(|byte| write!(f, "{}", char::from(*byte)))?;
        } else {
            f.write_str("0x")?;
            shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        if self.0.len() > SHOWN_BYTES {
            write!(f, "...({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// `bytes` as people can read them, cut where they are long.
pub(crate) fn readable(bytes: &[u8]) -> impl fmt::Display + '_ {
    Readable(bytes)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put {
                keyspace,
                key,
                value,
                ttl_millis,
            } => {
                write!(f, "put {keyspace}/{} {} bytes", readable(key), value.len())?;
                ttl_millis.map_or(Ok(()), |millis| write!(f, " for {millis} ms"))
            }
            Self::Delete { keyspace, key } => write!(f, "delete {keyspace}/{}", readable(key)),
            Self::DeleteRange {
                keyspace,
                start,
                end,
            } => {
                write!(
                    f,
                    "delete {keyspace}/{}..{}",
                    readable(start),
                    readable(end)
                )
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write {
                actions,
                durability,
            } => {
                let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
                write!(f, "{durability:?}: {}", actions.join(", "))
            }
            Self::TakeSnapshot(number) => write!(f, "take snapshot {number}"),
            Self::ReleaseSnapshot(number) => write!(f, "release snapshot {number}"),
            Self::Flush => f.write_str("flush"),
            Self::Compact => f.write_str("compact"),
            Self::CompactRange {
                keyspace,
                start,
                end,
            } => {
                write!(
                    f,
                    "compact {keyspace}/{}..{}",
                    readable(start),
                    readable(end)
                )
            }
            Self::PassTime(millis) => write!(f, "pass {millis} ms"),
            Self::Check => f.write_str("check"),
            Self::Reopen => f.write_str("reopen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_as_lines() {
        let (keyspace, key) = (1, b"k".to_vec());
        let put = Action::Put {
            keyspace,
            key: key.clone(),
            value: vec![0; 9],
            ttl_millis: Some(5),
        };
        let delete = Action::Delete {
            keyspace,
            key: vec![0; 30],
        };
        let write = Step::Write {
            actions: vec![put, delete],
            durability: Durability::Sync,
        };
        let zeros = "00".repeat(24);
        assert_eq!(
            write.to_string(),
            format!("Sync: put 1/k 9 bytes for 5 ms, delete 1/0x{zeros}...(30 bytes)")
        );
        let range = Step::CompactRange {
            keyspace,
            start: Vec::new(),
            end: key,
        };
        assert_eq!(range.to_string(), "compact 1/0x..k");
    }
}
