//! A file system in memory, which behaves as POSIX does: the engine's in-memory mode and the disk
//! under every simulation.
//!
//! Invariants: a file is an inode that lives as long as a name or an open handle does, so renaming
//! over it, unlinking it and linking it do not disturb its readers; the sum of all file lengths stays
//! within the capacity. One lock guards the tree of names and is held only for a look-up or a change
//! of names; each file has its own for its bytes.

mod inode;
mod tree;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub(crate) use self::inode::{Inode, Space};
pub(crate) use self::tree::{Directory, Node, names};
use self::tree::{Found, check_rename, copy_directory, dir_entry, find, insert_file, parent_mut};
use crate::fs::{
    DirEntry, FileLock, FileSystem, MappedWriter, RandomAccessFile, WritableFile, outside_window,
};
use crate::pages::Pages;
use crate::reservation::{Reservation, WindowGuard};

/// A file system in memory. Clones are handles on the same one; [`MemFileSystem::fork`] copies it.
///
/// The root directory exists, and relative paths start there too.
///
/// ```
/// use std::path::Path;
/// use esker_vfs::{FileSystem, MemFileSystem};
///
/// let fs = MemFileSystem::new();
/// fs.create(Path::new("/greeting"))?.write_at(0, b"hello")?;
/// let mut word = [0; 5];
/// fs.open_read(Path::new("/greeting"))?.read_exact_at(&mut word, 0)?;
/// assert_eq!(&word, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemFileSystem {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    root: RwLock<Directory>,
    space: Arc<Space>,
    /// Files that are locked now, by path from the root.
    locked: Mutex<HashSet<PathBuf>>,
}

impl MemFileSystem {
    /// An empty file system without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file system whose files together may have `capacity_bytes` bytes.
    #[must_use]
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        let fs = Self::default();
        fs.set_capacity(capacity_bytes);
        fs
    }

    /// Changes the capacity; below what is in use, only growth is refused.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.shared.space.set_capacity(capacity_bytes);
    }

    /// The lengths of all files together, bytes; those without a name but with a handle too.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.space.used_bytes()
    }

    /// An independent copy of everything that has a name. Costs memory only for what either side
    /// writes afterwards. Locks and open handles stay with the original.
    #[must_use]
    pub fn fork(&self) -> Self {
        let capacity = self.shared.space.capacity_bytes();
        let mut links = HashMap::new();
        let root = self.shared.root.read();
        Self::build(capacity, |space| copy_directory(&root, space, &mut links))
    }

    /// Shows the whole tree to `visit`.
    pub(crate) fn visit<T>(&self, visit: impl FnOnce(&Directory) -> T) -> T {
        visit(&self.shared.root.read())
    }

    /// A file system whose tree `fill` makes.
    pub(crate) fn build(capacity_bytes: u64, fill: impl FnOnce(&Arc<Space>) -> Directory) -> Self {
        let fs = Self::with_capacity(capacity_bytes);
        let root = fill(&fs.shared.space);
        *fs.shared.root.write() = root;
        fs
    }

    fn inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match find(&self.shared.root.read(), &names(path)?)? {
            Found::File(inode) => Ok(Arc::clone(inode)),
            Found::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

impl FileSystem for MemFileSystem {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn RandomAccessFile>> {
        Ok(Arc::new(MemReadable {
            inode: self.inode(path)?,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let inode = self.shared.space.inode(Pages::default());
        insert_file(&mut self.shared.root.write(), path, &inode)?;
        Ok(Arc::new(MemWritable {
            inode,
            reservation: Reservation::default(),
        }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn WritableFile>> {
        let inode = self.inode(path)?;
        Ok(Arc::new(MemWritable {
            inode,
            reservation: Reservation::default(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut root = self.shared.root.write();
        let mut at = &mut *root;
        for name in names(path)? {
            let node = at.entry(name.to_owned());
            at = match node.or_insert_with(|| Node::Directory(Directory::new())) {
                Node::Directory(inner) => inner,
                Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
            };
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let root = self.shared.root.read();
        let Found::Directory(directory) = find(&root, &names(path)?)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        Ok(directory
            .iter()
            .map(|(name, node)| dir_entry(name, node))
            .collect())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let names = names(path)?;
        let mut root = self.shared.root.write();
        let (parent, name) = parent_mut(&mut root, &names)?;
        match parent.get(name) {
            Some(Node::File(_)) => {
                parent.remove(name);
                Ok(())
            }
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let names = names(path)?;
        let mut root = self.shared.root.write();
        let (parent, name) = parent_mut(&mut root, &names)?;
        match parent.get(name) {
            Some(Node::Directory(inner)) if inner.is_empty() => {
                parent.remove(name);
                Ok(())
            }
            Some(Node::Directory(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (names(from)?, names(to)?);
        let mut root = self.shared.root.write();
        if !check_rename(&root, &from, &to)? {
            return Ok(());
        }
        // Everything that can fail comes before the first change.
        parent_mut(&mut root, &to)?;
        let (parent, name) = parent_mut(&mut root, &from)?;
        let node = parent.remove(name).ok_or(io::ErrorKind::NotFound)?;
        let (parent, name) = parent_mut(&mut root, &to)?;
        parent.insert(name.to_owned(), node);
        Ok(())
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut root = self.shared.root.write();
        let inode = match find(&root, &names(existing)?)? {
            Found::File(inode) => Arc::clone(inode),
            Found::Directory(_) => return Err(io::ErrorKind::PermissionDenied.into()),
        };
        insert_file(&mut root, new, &inode)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match find(&self.shared.root.read(), &names(path)?)? {
            Found::Directory(_) => Ok(()),
            Found::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<DirEntry> {
        let names = names(path)?;
        let name = names.last().copied().unwrap_or_default().to_owned();
        Ok(match find(&self.shared.root.read(), &names)? {
            Found::File(inode) => DirEntry {
                name,
                bytes: inode.len(),
                is_dir: false,
            },
            Found::Directory(_) => DirEntry {
                name,
                bytes: 0,
                is_dir: true,
            },
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let key: PathBuf = names(path)?.iter().collect();
        let mut locked = self.shared.locked.lock();
        if locked.contains(&key) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.inode(path)?;
            }
            created => {
                created?;
            }
        }
        locked.insert(key.clone());
        Ok(Box::new(MemLock {
            shared: Arc::clone(&self.shared),
            key,
        }))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let names = names(path)?;
        find(&self.shared.root.read(), &names)?;
        Ok(Path::new("/").join(names.iter().collect::<PathBuf>()))
    }
}

#[derive(Debug)]
struct MemLock {
    shared: Arc<Shared>,
    key: PathBuf,
}

impl FileLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.shared.locked.lock().remove(&self.key);
    }
}

#[derive(Debug)]
struct MemReadable {
    inode: Arc<Inode>,
}

impl RandomAccessFile for MemReadable {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inode.read_exact_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.len())
    }
}

#[derive(Debug)]
struct MemWritable {
    inode: Arc<Inode>,
    reservation: Reservation,
}

impl WritableFile for MemWritable {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inode.write_at(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inode.extend_to(bytes)?;
        self.reservation.extend_to(bytes);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.reservation.cut_to(bytes, || self.inode.set_len(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.len())
    }

    fn map(&self, bytes: u64) -> io::Result<Option<Box<dyn MappedWriter>>> {
        let opened = self.reservation.open_window(bytes, || {
            Ok((bytes <= self.inode.len()).then(|| Arc::clone(&self.inode)))
        })?;
        Ok(opened.map(|(inode, guard)| {
            Box::new(MemMapped {
                inode,
                bytes,
                _guard: guard,
            }) as Box<dyn MappedWriter>
        }))
    }
}

#[derive(Debug)]
struct MemMapped {
    inode: Arc<Inode>,
    bytes: u64,
    _guard: WindowGuard,
}

impl MappedWriter for MemMapped {
    fn copy_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= self.bytes => self.inode.write_at(offset, data),
            _ => Err(outside_window()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(fs: &MemFileSystem, path: &str, data: &[u8]) -> io::Result<Arc<dyn WritableFile>> {
        let file = fs.create(Path::new(path))?;
        file.write_at(0, data)?;
        Ok(file)
    }

    fn is_full<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
    }

    #[test]
    fn the_capacity_is_that_of_all_lengths_and_comes_back() -> io::Result<()> {
        let fs = MemFileSystem::with_capacity(100);
        let a = write(&fs, "/a", &[1; 60])?;
        let b = write(&fs, "/b", b"")?;
        assert!(is_full(b.write_at(30, &[2; 20])));
        assert_eq!(
            (b.len()?, fs.used_bytes()),
            (40, 100),
            "the part that fits is written"
        );
        assert!(is_full(b.write_at(40, b"x")));
        assert!(is_full(b.write_at(1000, b"x")));
        assert!(is_full(b.allocate(41)));
        assert!(is_full(b.set_len(41)));
        assert_eq!((b.len()?, fs.used_bytes()), (40, 100));
        b.write_at(0, &[3; 40])?;
        fs.create(Path::new("/empty files cost nothing"))?;
        b.set_len(10)?;
        assert_eq!(fs.used_bytes(), 70);
        fs.remove_file(Path::new("/a"))?;
        assert_eq!(fs.used_bytes(), 70, "an open file keeps its space");
        drop(a);
        assert_eq!(fs.used_bytes(), 10);
        fs.rename(Path::new("/b"), Path::new("/c"))?;
        fs.hard_link(Path::new("/c"), Path::new("/d"))?;
        assert_eq!(fs.used_bytes(), 10);
        fs.set_capacity(5);
        assert!(is_full(b.write_at(10, b"x")));
        b.write_at(0, b"x")?;
        fs.set_capacity(u64::MAX);
        b.write_at(10, b"x")
    }

    #[test]
    fn a_fork_is_apart_but_for_memory() -> io::Result<()> {
        let fs = MemFileSystem::with_capacity(10);
        fs.create_dir_all(Path::new("/d"))?;
        let file = write(&fs, "/d/a", b"12345678")?;
        fs.hard_link(Path::new("/d/a"), Path::new("/b"))?;
        let lock = fs.lock(Path::new("/LOCK"))?;
        let fork = fs.fork();
        file.write_at(0, b"original")?;
        fork.open_write(Path::new("/b"))?.write_at(0, b"forked")?;
        let mut bytes = [0; 8];
        fork.open_read(Path::new("/d/a"))?
            .read_exact_at(&mut bytes, 0)?;
        assert_eq!(&bytes, b"forked78", "links are still links");
        fs.open_read(Path::new("/b"))?
            .read_exact_at(&mut bytes, 0)?;
        assert_eq!(&bytes, b"original");
        fork.lock(Path::new("/LOCK"))?;
        drop(lock);
        assert_eq!(fork.used_bytes(), 8);
        assert!(is_full(write(&fork, "/more", b"123")));
        Ok(())
    }
}
