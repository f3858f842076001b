//! A file system in memory, which behaves as POSIX does: the engine's in-memory mode and the disk
//! under every simulation.
//!
//! Invariants: a file is an inode that lives as long as a name or an open handle does, so renaming
//! over it, unlinking it and linking it do not disturb its readers; the sum of all file lengths stays
//! within the capacity. One lock guards the tree of names and is held only for a look-up or a change
//! of names; each file has its own for its bytes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

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

/// A directory: its names and what they stand for.
pub(crate) type Directory = BTreeMap<String, Node>;

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Node {
    File(Arc<Inode>),
    Directory(Directory),
}

/// A file: its bytes, whatever its names are.
#[derive(Debug)]
pub(crate) struct Inode {
    pages: RwLock<Pages>,
    space: Arc<Space>,
}

/// The capacity of the file system and how much of it is in use. A file is charged its length.
#[derive(Debug)]
pub(crate) struct Space {
    capacity_bytes: AtomicU64,
    used_bytes: AtomicU64,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            capacity_bytes: AtomicU64::new(u64::MAX),
            used_bytes: AtomicU64::new(0),
        }
    }
}

impl Space {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let capacity = self.capacity_bytes.load(Ordering::Relaxed);
        let taken = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|used| *used <= capacity || bytes == 0)
            });
        taken
            .map(drop)
            .map_err(|_| io::ErrorKind::StorageFull.into())
    }

    /// A file with these contents, which may lie beyond the capacity: they are there already.
    pub(crate) fn inode(self: &Arc<Self>, pages: Pages) -> Arc<Inode> {
        self.used_bytes.fetch_add(pages.len(), Ordering::Relaxed);
        Arc::new(Inode {
            pages: RwLock::new(pages),
            space: Arc::clone(self),
        })
    }

    fn free_bytes(&self) -> u64 {
        let capacity = self.capacity_bytes.load(Ordering::Relaxed);
        capacity.saturating_sub(self.used_bytes.load(Ordering::Relaxed))
    }

    fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Inode {
    /// The bytes as they are now.
    pub(crate) fn contents(&self) -> Pages {
        self.pages.read().clone()
    }

    fn len(&self) -> u64 {
        self.pages.read().len()
    }

    /// Writes `data`; where the space ends before it, the part that fits, as a disk does.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut pages = self.pages.write();
        let end = Pages::checked_end(offset, data.len() as u64)?;
        let before = pages.len();
        let growth = if data.is_empty() {
            0
        } else {
            end.saturating_sub(before)
        };
        if self.space.take(growth).is_ok() {
            return pages.write_at(offset, data);
        }
        // A writer that lost the race for the last bytes writes less than would have fitted.
        let free = self.space.free_bytes().min(growth);
        let fits = usize::try_from((before + free).saturating_sub(offset)).unwrap_or(usize::MAX);
        let part = &data[..fits.min(data.len())];
        if self.space.take(free).is_ok() {
            pages.write_at(offset, part)?;
            // What the part did not reach of the space goes back.
            self.space.give_back(before + free - pages.len());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut pages = self.pages.write();
        let before = pages.len();
        Pages::checked_end(0, bytes)?;
        self.space.take(bytes.saturating_sub(before))?;
        pages.set_len(bytes)?;
        self.space.give_back(before.saturating_sub(bytes));
        Ok(())
    }

    fn extend_to(&self, bytes: u64) -> io::Result<()> {
        let mut pages = self.pages.write();
        let before = pages.len();
        if bytes <= before {
            return Ok(());
        }
        Pages::checked_end(0, bytes)?;
        self.space.take(bytes - before)?;
        pages.set_len(bytes)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.space.give_back(self.pages.get_mut().len());
    }
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
        self.shared
            .space
            .capacity_bytes
            .store(capacity_bytes, Ordering::Relaxed);
    }

    /// The lengths of all files together, bytes; those without a name but with a handle too.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.space.used_bytes.load(Ordering::Relaxed)
    }

    /// An independent copy of everything that has a name. Costs memory only for what either side
    /// writes afterwards. Locks and open handles stay with the original.
    #[must_use]
    pub fn fork(&self) -> Self {
        let capacity = self.shared.space.capacity_bytes.load(Ordering::Relaxed);
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

fn copy_directory(
    directory: &Directory,
    space: &Arc<Space>,
    links: &mut HashMap<*const Inode, Arc<Inode>>,
) -> Directory {
    let copy_node = |node: &Node, links: &mut HashMap<_, _>| match node {
        Node::Directory(inner) => Node::Directory(copy_directory(inner, space, links)),
        Node::File(inode) => {
            let copy = links
                .entry(Arc::as_ptr(inode))
                .or_insert_with(|| space.inode(inode.contents()));
            Node::File(Arc::clone(copy))
        }
    };
    directory
        .iter()
        .map(|(name, node)| (name.clone(), copy_node(node, links)))
        .collect()
}

enum Found<'a> {
    File(&'a Arc<Inode>),
    Directory(&'a Directory),
}

/// The names on the way from the root to `path`; `..` is resolved by its text.
pub(crate) fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name_of(name)?),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn name_of(name: &OsStr) -> io::Result<&str> {
    name.to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file name that is not UTF-8"))
}

fn find<'a>(root: &'a Directory, names: &[&str]) -> io::Result<Found<'a>> {
    let mut at = Found::Directory(root);
    for name in names {
        let Found::Directory(directory) = at else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        at = match directory.get(*name) {
            Some(Node::File(inode)) => Found::File(inode),
            Some(Node::Directory(inner)) => Found::Directory(inner),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
    }
    Ok(at)
}

fn directory_mut<'a>(root: &'a mut Directory, names: &[&str]) -> io::Result<&'a mut Directory> {
    let mut at = root;
    for name in names {
        at = match at.get_mut(*name) {
            Some(Node::Directory(inner)) => inner,
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
    }
    Ok(at)
}

/// The directory that holds the last of `names`, and that name.
fn parent_mut<'a, 'n>(
    root: &'a mut Directory,
    names: &[&'n str],
) -> io::Result<(&'a mut Directory, &'n str)> {
    let Some((name, parents)) = names.split_last() else {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the root directory",
        ));
    };
    Ok((directory_mut(root, parents)?, name))
}

fn insert_file(root: &mut Directory, path: &Path, inode: &Arc<Inode>) -> io::Result<()> {
    let names = names(path)?;
    if names.is_empty() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let (parent, name) = parent_mut(root, &names)?;
    match parent.entry(name.to_owned()) {
        Entry::Occupied(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Entry::Vacant(slot) => {
            slot.insert(Node::File(Arc::clone(inode)));
            Ok(())
        }
    }
}

/// Whether `from` may be renamed over `to`; false where both are the same file already.
fn check_rename(root: &Directory, from: &[&str], to: &[&str]) -> io::Result<bool> {
    let source = find(root, from)?;
    if to.len() > from.len() && to.starts_with(from) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a directory into itself",
        ));
    }
    match (source, find(root, to)) {
        (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        (_, Err(error)) => Err(error),
        (_, Ok(_)) if from == to => Ok(false),
        // POSIX: renaming one name of a file to another name of it does nothing.
        (Found::File(from), Ok(Found::File(to))) => Ok(!Arc::ptr_eq(from, to)),
        (Found::File(_), Ok(Found::Directory(_))) => Err(io::ErrorKind::IsADirectory.into()),
        (Found::Directory(_), Ok(Found::File(_))) => Err(io::ErrorKind::NotADirectory.into()),
        (Found::Directory(_), Ok(Found::Directory(to))) if !to.is_empty() => {
            Err(io::ErrorKind::DirectoryNotEmpty.into())
        }
        (Found::Directory(_), Ok(Found::Directory(_))) => Ok(true),
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

fn dir_entry(name: &str, node: &Node) -> DirEntry {
    let (bytes, is_dir) = match node {
        Node::File(inode) => (inode.len(), false),
        Node::Directory(_) => (0, true),
    };
    DirEntry {
        name: name.to_owned(),
        bytes,
        is_dir,
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
        self.inode.pages.read().read_exact_at(buffer, offset)
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
