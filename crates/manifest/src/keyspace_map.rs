//! Keyspaces by number, cheap to copy and to change: so that an edit costs what it changes and not
//! what the database holds.
//!
//! Why not a `HashMap`: a new immutable state is made for every edit, and with 10,000 keyspaces a
//! copy of the map would be 10,000 reference counts. Here 64 neighbouring numbers share a chunk, the
//! chunks are shared between states, and an edit copies the list of chunks (157 pointers for 10,000
//! keyspaces) and the one chunk that it changes.
//!
//! Invariant: the map's order is the numeric one; empty chunks are not kept.

use std::sync::Arc;

use esker_base::write_batch::KeyspaceId;

use crate::manifest_state::Keyspace;

const CHUNK_BITS: u32 = 6;

/// A persistent map from keyspace numbers to keyspaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceMap {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

/// The keyspaces whose numbers differ in their lowest bits only, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunk {
    high_bits: u32,
    keyspaces: Vec<Arc<Keyspace>>,
}

impl Chunk {
    fn find(&self, id: KeyspaceId) -> Result<usize, usize> {
        self.keyspaces
            .binary_search_by_key(&id, |keyspace| keyspace.meta.id)
    }
}

impl KeyspaceMap {
    /// Number of keyspaces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn find_chunk(&self, id: KeyspaceId) -> Result<usize, usize> {
        self.chunks
            .binary_search_by_key(&(id >> CHUNK_BITS), |chunk| chunk.high_bits)
    }

    /// The keyspace `id`.
    #[must_use]
    pub fn get(&self, id: KeyspaceId) -> Option<&Arc<Keyspace>> {
        let chunk = &self.chunks[self.find_chunk(id).ok()?];
        Some(&chunk.keyspaces[chunk.find(id).ok()?])
    }

    /// The keyspace `id`, to be changed; what is shared with other states is copied first.
    pub(crate) fn get_mut(&mut self, id: KeyspaceId) -> Option<&mut Keyspace> {
        let at = self.find_chunk(id).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let at = chunk.find(id).ok()?;
        Some(Arc::make_mut(&mut chunk.keyspaces[at]))
    }

    /// Adds a keyspace; `false` where its number is taken.
    pub(crate) fn insert(&mut self, keyspace: Keyspace) -> bool {
        let id = keyspace.meta.id;
        let at = self.find_chunk(id).unwrap_or_else(|at| {
            let high_bits = id >> CHUNK_BITS;
            self.chunks.insert(
                at,
                Arc::new(Chunk {
                    high_bits,
                    keyspaces: Vec::new(),
                }),
            );
            at
        });
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let Err(at) = chunk.find(id) else {
            return false;
        };
        chunk.keyspaces.insert(at, Arc::new(keyspace));
        self.len += 1;
        true
    }

    /// Removes the keyspace `id`; `false` where there is none.
    pub(crate) fn remove(&mut self, id: KeyspaceId) -> bool {
        let Ok(chunk_at) = self.find_chunk(id) else {
            return false;
        };
        let Ok(at) = self.chunks[chunk_at].find(id) else {
            return false;
        };
        let chunk = Arc::make_mut(&mut self.chunks[chunk_at]);
        chunk.keyspaces.remove(at);
        if chunk.keyspaces.is_empty() {
            self.chunks.remove(chunk_at);
        }
        self.len -= 1;
        true
    }

    /// All keyspaces, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Keyspace>> {
        self.chunks.iter().flat_map(|chunk| &chunk.keyspaces)
    }
}
