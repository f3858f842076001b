//! A package registry: records by name and version, found by licence, by what they depend on, and by
//! size; built over data that was there before, and paged.
//!
//! `cargo run -p esker --example package_index`

use esker::tuple::decode;
use esker::{Db, ErrorKind, IndexDefinition, Options, Query};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Package {
    licence: String,
    kilobytes: u32,
    depends_on: Vec<String>,
    checksum: [u8; 4],
}

/// Name and version, in their order.
type Key = (String, (u16, u16, u16));

fn indexes() -> Vec<IndexDefinition> {
    vec![
        IndexDefinition::typed("by_licence", 1, |_key: &Key, package: &Package, keys| {
            keys.add(&package.licence);
        }),
        // One record, several keys.
        IndexDefinition::typed("by_dependency", 1, |_key: &Key, package: &Package, keys| {
            package.depends_on.iter().for_each(|name| keys.add(name));
        }),
        // The largest first, within a licence.
        IndexDefinition::typed(
            "by_licence_and_size",
            1,
            |_: &Key, package: &Package, keys| {
                keys.add(&(&package.licence, Reverse(package.kilobytes)));
            },
        ),
        IndexDefinition::typed("by_checksum", 1, |_key: &Key, package: &Package, keys| {
            keys.add(&package.checksum);
        })
        .unique(true),
    ]
}

fn registry() -> Vec<(Key, Package)> {
    let rows = [
        (
            "serde",
            (1, 0, 200),
            "MIT OR Apache-2.0",
            78,
            &["serde_core"][..],
        ),
        ("serde_core", (1, 0, 200), "MIT OR Apache-2.0", 62, &[]),
        (
            "serde_json",
            (1, 0, 140),
            "MIT OR Apache-2.0",
            155,
            &["itoa", "ryu", "serde_core"],
        ),
        ("itoa", (1, 0, 15), "MIT OR Apache-2.0", 11, &[]),
        ("ryu", (1, 0, 20), "Apache-2.0 OR BSL-1.0", 48, &[]),
        ("tokio", (1, 45, 0), "MIT", 811, &["bytes", "mio"]),
        ("tokio", (1, 46, 1), "MIT", 828, &["bytes", "mio"]),
        ("mio", (1, 0, 4), "MIT", 104, &[]),
        ("bytes", (1, 10, 1), "MIT", 76, &[]),
        ("regex", (1, 11, 1), "MIT OR Apache-2.0", 254, &["memchr"]),
        ("memchr", (2, 7, 5), "Unlicense OR MIT", 97, &[]),
    ];
    let row = |(name, version, licence, kilobytes, depends_on): (&str, _, &str, u32, &[&str])| {
        let (major, minor, patch): (u16, u16, u16) = version;
        let sum = name
            .bytes()
            .fold(u32::from(patch) << 16 | u32::from(minor), |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(byte.into())
            });
        let package = Package {
            licence: licence.into(),
            kilobytes,
            depends_on: depends_on.iter().map(|&name| name.into()).collect(),
            checksum: sum.to_be_bytes(),
        };
        ((name.to_string(), (major, minor, patch)), package)
    };
    rows.into_iter().map(row).collect()
}

fn main() -> esker::Result<()> {
    let directory =
        std::env::temp_dir().join(format!("esker-package-index-{}", std::process::id()));

    // A registry that knew no index yet.
    let db = Db::open(&directory)?;
    let packages = db.typed_keyspace::<Key, Package>("packages")?;
    for (key, package) in registry() {
        packages.put(&key, &package)?;
    }
    db.close()?;

    // The indexes are declared: they are built over what is there, while the database is in use.
    let options = indexes()
        .into_iter()
        .fold(Options::new(), |options, index| {
            options.index("packages", index)
        });
    let db = options.open(&directory)?;
    db.build_indexes_with(&mut |progress| {
        println!("{}: {} records", progress.index, progress.done_records);
        true
    })?;
    let packages = db.typed_keyspace::<Key, Package>("packages")?;
    let names = |query: Query<'_>| -> esker::Result<Vec<String>> {
        let name = |row: esker::Result<esker::Row>| decode::<Key>(row?.key()).map(|key| key.0);
        query.rows()?.map(name).collect()
    };
    let query = || Query::new(packages.keyspace());

    assert_eq!(
        names(query().index_equal("by_dependency", "serde_core"))?,
        ["serde", "serde_json"]
    );
    assert_eq!(
        names(query().index_equal("by_licence", "MIT"))?,
        ["bytes", "mio", "tokio", "tokio"]
    );
    let versions: Vec<_> = packages
        .prefix(&("tokio",))
        .rev()
        .collect::<Result<_, _>>()?;
    assert_eq!(versions[0].0.1, (1, 46, 1));

    // The largest under one licence, two a page.
    let largest = || {
        query()
            .index_prefix("by_licence_and_size", &("MIT OR Apache-2.0",))
            .limit(2)
    };
    let mut page = largest().rows()?;
    let mut shown = Vec::new();
    for row in page.by_ref() {
        shown.push(decode::<Key>(row?.key())?.0);
    }
    let next = page.continuation().expect("there are more").to_bytes();
    shown.extend(names(
        largest().after(esker::Continuation::from_bytes(&next)?),
    )?);
    assert_eq!(shown, ["regex", "serde_json", "serde", "serde_core"]);
    println!("largest: {shown:?}\nhow: {}", largest().explain()?);

    // Nobody publishes the same bytes under another name.
    let (_, copied) = registry().swap_remove(0);
    let error = packages
        .put(&("serde2".into(), (0, 1, 0)), &copied)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    println!("refused: {error}");

    // What is deleted is not found, and everything still agrees.
    packages.delete_prefix(&("tokio",))?;
    assert_eq!(query().index_equal("by_dependency", "mio").count()?, 0);
    assert!(db.validate()?.is_ok());
    db.close()?;
    std::fs::remove_dir_all(directory).ok();
    Ok(())
}
