//! What becomes of names that were not synced: lost, kept or reordered, but no rename torn and no
//! moved file without a name.

use super::*;

#[test]
fn a_synced_file_without_a_synced_name_is_lost_or_whole() {
    let fs = disk();
    let file = fs.create(p("/a")).unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents(&now(&fs, ImagePolicy::ONLY_SYNCED), "/a"), None);
    let mut seen = BTreeSet::new();
    for policy in seeded(ImagePolicy::from_seed) {
        seen.insert(contents(&now(&fs, policy), "/a"));
    }
    assert_eq!(seen, BTreeSet::from([None, Some(b"synced".to_vec())]));
    fs.sync_dir(p("/")).unwrap();
    for policy in seeded(ImagePolicy::from_seed) {
        assert_eq!(
            contents(&now(&fs, policy), "/a").unwrap(),
            b"synced",
            "{policy}"
        );
    }
}

#[test]
fn a_synced_name_without_synced_contents_is_an_empty_file() {
    let fs = disk();
    fs.create(p("/a")).unwrap().write_at(0, b"lost").unwrap();
    fs.sync_dir(p("/")).unwrap();
    assert_eq!(
        contents(&now(&fs, ImagePolicy::ONLY_SYNCED), "/a").unwrap(),
        b""
    );
}

#[test]
fn a_lost_directory_takes_its_synced_files_along() {
    let fs = disk();
    fs.create_dir_all(p("/a/b")).unwrap();
    durable(&fs, "/a/b/file", b"x");
    assert!(everything(&now(&fs, ImagePolicy::ONLY_SYNCED)).is_empty());
    fs.sync_dir(p("/a")).unwrap();
    assert!(everything(&now(&fs, ImagePolicy::ONLY_SYNCED)).is_empty());
    fs.sync_dir(p("/")).unwrap();
    assert_eq!(
        contents(&now(&fs, ImagePolicy::ONLY_SYNCED), "/a/b/file").unwrap(),
        b"x"
    );
}

#[test]
fn a_rename_over_a_file_leaves_the_old_or_the_new_one() {
    let fs = disk();
    durable(&fs, "/CURRENT", b"old");
    let from = fs.operations();
    let file = fs.create(p("/tmp")).unwrap();
    file.write_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    fs.rename(p("/tmp"), p("/CURRENT")).unwrap();
    let renamed = fs.operations();
    let mut replay = fs.replay();
    let mut seen = BTreeSet::new();
    for operations in from..=renamed {
        for policy in seeded(ImagePolicy::from_seed) {
            let current = contents(&replay.image(operations, &policy), "/CURRENT");
            seen.insert(current.unwrap_or_else(|| panic!("no CURRENT at {operations}, {policy}")));
        }
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    fs.sync_dir(p("/")).unwrap();
    for policy in seeded(ImagePolicy::from_seed) {
        let image = now(&fs, policy);
        assert_eq!(contents(&image, "/CURRENT").unwrap(), b"new");
        assert_eq!(contents(&image, "/tmp"), None);
    }
}

#[test]
fn a_file_that_moves_between_directories_always_has_a_name() {
    for synced in [None, Some("/from"), Some("/to")] {
        let fs = disk();
        fs.create_dir_all(p("/from")).unwrap();
        fs.create_dir_all(p("/to")).unwrap();
        fs.sync_dir(p("/")).unwrap();
        durable(&fs, "/from/a", b"x");
        fs.rename(p("/from/a"), p("/to/a")).unwrap();
        if let Some(synced) = synced {
            fs.sync_dir(p(synced)).unwrap();
        }
        let mut seen = BTreeSet::new();
        for policy in seeded(ImagePolicy::from_seed) {
            let image = now(&fs, policy);
            let has = |path: &str| contents(&image, path).is_some();
            seen.insert((has("/from/a"), has("/to/a")));
        }
        let expected: &[_] = match synced {
            None => &[(false, true), (true, false), (true, true)],
            Some("/from") => &[(false, true)],
            _ => &[(false, true), (true, true)],
        };
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            expected,
            "synced {synced:?}"
        );
    }
}

#[test]
fn unsynced_names_may_survive_in_any_combination() {
    let fs = disk();
    durable(&fs, "/old", b"");
    fs.create(p("/a")).unwrap();
    fs.remove_file(p("/old")).unwrap();
    fs.hard_link(p("/a"), p("/b")).unwrap();
    let names = |image: &MemFileSystem| -> Vec<String> {
        image
            .read_dir(p("/"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    };
    let mut subsets = BTreeSet::new();
    let mut prefixes = BTreeSet::new();
    for seed in 0..SEEDS {
        let policy = ImagePolicy::torn_tail(seed);
        subsets.insert(names(&now(
            &fs,
            policy.with_names(UnsyncedNames::RandomSubset),
        )));
        prefixes.insert(names(&now(&fs, policy.with_names(UnsyncedNames::Prefix))));
    }
    assert_eq!(subsets.len(), 8, "{subsets:?}");
    let expected = [&["old"][..], &["a", "old"], &["a"], &["a", "b"]];
    let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
    assert_eq!(prefixes, BTreeSet::from(expected));
}

#[test]
fn hard_links_are_one_file_in_the_image() {
    let fs = disk();
    let file = durable(&fs, "/a", b"one");
    fs.hard_link(p("/a"), p("/b")).unwrap();
    fs.sync_dir(p("/")).unwrap();
    fs.remove_file(p("/a")).unwrap();
    file.write_at(0, b"two").unwrap();
    file.sync_data().unwrap();
    let image = now(&fs, ImagePolicy::ONLY_SYNCED);
    assert_eq!(
        contents(&image, "/a").unwrap(),
        b"two",
        "its removal was not synced"
    );
    image
        .open_write(p("/a"))
        .unwrap()
        .write_at(0, b"six")
        .unwrap();
    assert_eq!(contents(&image, "/b").unwrap(), b"six");
}
