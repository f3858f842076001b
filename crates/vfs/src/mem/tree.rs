//! The tree of names in memory, and what POSIX allows to be done with it.
//!
//! Invariant: every function either does the whole of what it says or changes nothing. The tree does
//! not know of capacity, locks or bytes; [`mem`](super) calls it under its lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::inode::{Inode, Space};
use crate::fs::DirEntry;

/// A directory: its names and what they stand for.
pub(crate) type Directory = BTreeMap<String, Node>;

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Node {
    File(Arc<Inode>),
    Directory(Directory),
}

/// A copy of everything below `directory`; two names of one file are two names of its copy.
pub(super) fn copy_directory(
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

/// What a path leads to.
pub(super) enum Found<'a> {
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

/// What `names` lead to from the root.
pub(super) fn find<'a>(root: &'a Directory, names: &[&str]) -> io::Result<Found<'a>> {
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
pub(super) fn parent_mut<'a, 'n>(
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

/// Gives `inode` the name `path`.
pub(super) fn insert_file(root: &mut Directory, path: &Path, inode: &Arc<Inode>) -> io::Result<()> {
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
pub(super) fn check_rename(root: &Directory, from: &[&str], to: &[&str]) -> io::Result<bool> {
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

pub(super) fn dir_entry(name: &str, node: &Node) -> DirEntry {
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
