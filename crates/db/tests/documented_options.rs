//! Every option as `docs/guide/options.md` and its own documentation describe it, compared with what the
//! code does: default, bounds, whether it may change, whether a keyspace may have its own, and what is kept.
//!
//! The pages are read, not repeated here: a bound that changes in one place only fails.

use esker::vfs::{FileSystem, MemFileSystem};
use esker::{
    CompactionShape, Compression, ErrorKind, FilterKind, KeyspaceOptions, Options, RuntimeOptions,
};
use std::sync::Arc;
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/guide/options.md");
const SOURCE: &str = include_str!("../src/settings.rs");

/// One row of the page.
#[derive(Debug)]
struct Row {
    name: &'static str,
    default: &'static str,
    bounds: &'static str,
    unit: &'static str,
    set: &'static str,
    kept: &'static str,
}

/// What an option may be.
#[derive(Debug)]
enum Allowed {
    Words(Vec<&'static str>),
    /// The least and the most, and a value beside them.
    Numbers(u64, Option<u64>, Option<&'static str>),
    Shares(f64, f64),
}

impl Row {
    fn allowed(&self) -> Allowed {
        let (range, besides) = match self.bounds.split_once(", or ") {
            Some((range, besides)) => (range, Some(besides)),
            None => (self.bounds, None),
        };
        if let Some(least) = range.strip_suffix(" and up") {
            return Allowed::Numbers(number(least).unwrap(), None, besides);
        }
        match range.split_once(" to ") {
            None => Allowed::Words(range.split(", ").collect()),
            Some((least, most)) if self.unit == "bits" || self.unit == "share" => {
                Allowed::Shares(least.parse().unwrap(), most.parse().unwrap())
            }
            Some((least, most)) => Allowed::Numbers(number(least).unwrap(), number(most), besides),
        }
    }

    /// The default as the text that sets it.
    fn default_text(&self) -> String {
        number(self.default).map_or(self.default.to_string(), |number| number.to_string())
    }
}

/// `64 MiB`, `1,048,576` or `4 GiB - 64 MiB`.
fn number(text: &str) -> Option<u64> {
    if let Some((from, less)) = text.split_once(" - ") {
        return Some(number(from)? - number(less)?);
    }
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "PiB" => 50,
        "EiB" => 60,
        _ => return None,
    };
    digits
        .replace(',', "")
        .parse::<u64>()
        .ok()
        .map(|n| n << shift)
}

fn rows() -> Vec<Row> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells
        .map(|cells: Vec<&'static str>| Row {
            name: cells[0].trim_matches('`'),
            default: cells[1],
            bounds: cells[2],
            unit: cells[3],
            set: cells[4],
            kept: cells[5],
        })
        .collect()
}

fn fresh() -> Options {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    Options::new().file_system(fs)
}

/// The documentation of an option in the source, as one line.
fn documented(name: &str) -> String {
    let lines: Vec<&str> = SOURCE.lines().map(str::trim).collect();
    let start = format!("{name}: ");
    let at = lines
        .iter()
        .position(|line| line.starts_with(&start) && line.ends_with(';'))
        .unwrap();
    let above = lines[..at].iter().rev();
    let mut text: Vec<&str> = above.map_while(|line| line.strip_prefix("/// ")).collect();
    text.reverse();
    text.join(" ")
}

/// Opens with the option as this text, beside what would contradict it otherwise.
fn open_with(name: &str, text: &str) -> esker::Result<esker::Db> {
    let options = match name {
        "wal_segment_bytes" => fresh().wal_size_limit_bytes(1 << 50),
        _ => fresh(),
    };
    let options = options.set_by_name(name, text)?;
    match name {
        "memory_limit_bytes" => options.open_in_memory(),
        // The database is there, then.
        "create_if_missing" if text == "false" => {
            options
                .clone()
                .create_if_missing(true)
                .open("/db")?
                .close()?;
            options.open("/db")
        }
        _ => options.open("/db"),
    }
}

#[test]
fn the_page_names_every_option_and_its_default() {
    let db = fresh().open("/db").unwrap();
    let mut paged: Vec<(&str, String)> = rows()
        .iter()
        .map(|row| (row.name, row.default_text()))
        .collect();
    paged.sort_unstable();
    assert_eq!(paged, db.options().to_text());
}

#[test]
fn the_documentation_in_the_source_says_what_the_page_says() {
    for row in rows() {
        let text = documented(row.name).to_lowercase();
        let default = match row.default {
            "true" => "yes",
            "false" => "no",
            word => word,
        };
        let says = |what: &str| text.contains(&what.to_lowercase());
        let name = row.name;
        if name != "memtable" && name != "recovery" {
            let stated = [format!("default {default}"), format!("default: {default}")];
            let stated =
                stated.iter().any(|stated| says(stated)) || says(&format!("durability::{default}"));
            assert!(stated, "{name} is documented with another default: {text}");
        }
        match row.allowed() {
            Allowed::Words(_) => {}
            Allowed::Numbers(_, None, _) => {
                let range = row.bounds.split_once(", or").unwrap().0;
                assert!(says(range), "{name}: {range:?} is not in {text:?}");
            }
            _ => assert!(
                says(row.bounds),
                "{name}: {:?} is not in {text:?}",
                row.bounds
            ),
        }
        let own = says("a keyspace may have its own") || says("in keyspaces that have no default");
        assert_eq!(own, row.kept.contains("own"), "{name}: {text}");
        assert_eq!(
            says("**persisted**"),
            row.kept.contains("persisted"),
            "{name}"
        );
    }
}

/// Refused, and the message names the option, the value, and the bound that it offends.
fn assert_refused(result: esker::Result<esker::Db>, name: &str, value: &str, bound: &str) {
    let error = result.expect_err(&format!("{name} takes {value}"));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let message = error.message();
    for part in [name, value, bound] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn what_is_within_the_bounds_opens_and_what_is_beyond_is_refused_with_them() {
    for row in rows() {
        let name = row.name;
        let opens = |text: &str| {
            let db = open_with(name, text).unwrap_or_else(|error| panic!("{name} {text}: {error}"));
            if name != "error_if_exists" {
                let shown = db.options().to_text();
                assert!(
                    shown.contains(&(name, text.to_string())),
                    "{name} {text}: {shown:?}"
                );
            }
            db.close().unwrap();
        };
        match row.allowed() {
            Allowed::Words(words) => {
                words.into_iter().for_each(opens);
                assert_refused(open_with(name, "neither"), name, "neither", "");
            }
            Allowed::Numbers(least, most, besides) => {
                if name != "memory_limit_bytes" {
                    opens(&least.to_string());
                }
                most.into_iter().for_each(|most| opens(&most.to_string()));
                besides.into_iter().for_each(opens);
                let below = least
                    .checked_sub(1)
                    .filter(|below| Some(below.to_string().as_str()) != besides);
                for beyond in below.into_iter().chain(most.map(|most| most + 1)) {
                    let beyond = beyond.to_string();
                    assert_refused(open_with(name, &beyond), name, &beyond, "must be");
                    let error = open_with(name, &beyond).unwrap_err();
                    let bounds = [Some(least), most].into_iter().flatten();
                    for bound in
                        bounds.filter(|bound| name != "memory_limit_bytes" || *bound > 1 << 20)
                    {
                        assert!(error.message().contains(&bound.to_string()), "{error}");
                    }
                }
                assert_refused(open_with(name, "-1"), name, "-1", "");
            }
            Allowed::Shares(least, most) => {
                [least, most]
                    .iter()
                    .for_each(|share| opens(&share.to_string()));
                for beyond in [least - 0.01, most + 0.01, f64::NAN, f64::INFINITY] {
                    let beyond = beyond.to_string();
                    assert_refused(open_with(name, &beyond), name, &beyond, &most.to_string());
                }
            }
        }
    }
}

/// The same bounds hold for changes, and an option that is settled at open says so.
#[test]
fn what_the_page_calls_changeable_changes_and_the_rest_says_that_it_does_not() {
    let db = fresh().wal_size_limit_bytes(1 << 50).open("/db").unwrap();
    let memory = Options::new().open_in_memory().unwrap();
    for row in rows() {
        let name = row.name;
        let mut change = RuntimeOptions::new();
        let named = change.set_by_name(name, &row.default_text());
        if row.set == "at open" {
            let error = named.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.message().contains(name), "{error}");
            continue;
        }
        assert_eq!(row.set, "any time");
        named.unwrap();
        let db = if name == "memory_limit_bytes" {
            &memory
        } else {
            &db
        };
        let allowed = match row.allowed() {
            Allowed::Words(words) => words.iter().map(ToString::to_string).collect(),
            Allowed::Numbers(least, ..) if name != "memory_limit_bytes" => vec![least.to_string()],
            Allowed::Shares(least, most) => vec![least.to_string(), most.to_string()],
            Allowed::Numbers(..) => vec![(512_u64 << 20).to_string()],
        };
        for text in allowed {
            if name != "wal_size_limit_bytes" {
                change.set_by_name(name, &text).unwrap();
                db.set_options(&change).unwrap();
                assert!(db.options().to_text().contains(&(name, text)));
            }
        }
        let beyond = match row.allowed() {
            Allowed::Words(_) => continue,
            Allowed::Numbers(_, Some(most), _) => (most + 1).to_string(),
            Allowed::Numbers(0, None, _) => continue,
            Allowed::Numbers(least, None, _) => (least - 1).to_string(),
            Allowed::Shares(_, most) => (most + 0.01).to_string(),
        };
        let before = db.options().to_text();
        change.set_by_name(name, &beyond).unwrap();
        let error = db.set_options(&change).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(name), "{error}");
        assert_eq!(db.options().to_text(), before);
        // Back to what contradicts nothing.
        change.set_by_name(name, &row.default_text()).unwrap();
        if name != "wal_size_limit_bytes" {
            db.set_options(&change).unwrap();
        }
    }
}

type Numbered = (&'static str, fn(KeyspaceOptions, u64) -> KeyspaceOptions);

/// The options that a keyspace may have itself, as plain numbers.
const NUMBERED: [Numbered; 7] = [
    ("block_bytes", |o, n| o.block_bytes(n as usize)),
    ("target_file_bytes", |o, n| o.target_file_bytes(n)),
    ("write_buffer_bytes", |o, n| {
        o.write_buffer_bytes(n as usize)
    }),
    ("level0_runs", |o, n| o.level0_runs(n as usize)),
    ("size_ratio", |o, n| o.size_ratio(n as usize)),
    ("tier_runs", |o, n| o.tier_runs(n as usize)),
    ("value_separation_threshold_bytes", |o, n| {
        o.value_separation_threshold_bytes(n as usize)
    }),
];

type Shared = (&'static str, fn(KeyspaceOptions, f64) -> KeyspaceOptions);

const SHARED: [Shared; 2] = [
    ("filter_bits_per_key", |o, n| o.filter_bits_per_key(n)),
    ("value_garbage_ratio", |o, n| o.value_garbage_ratio(n)),
];

#[test]
fn a_keyspace_has_the_bounds_of_the_database_and_keeps_what_it_was_given() {
    let db = fresh().open("/db").unwrap();
    let rows = rows();
    let allowed = |name: &str| rows.iter().find(|row| row.name == name).unwrap().allowed();
    let try_it = |name: &str, options: KeyspaceOptions, value: &str, within: bool| {
        let made = db.keyspace_with(&format!("{name} {value}"), &options);
        match made {
            Ok(_) => assert!(within, "{name} takes {value}"),
            Err(error) => {
                assert!(!within, "{name} {value}: {error}");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(
                    error.message().contains(name) && error.message().contains(value),
                    "{error}"
                );
            }
        }
    };
    for (name, set) in NUMBERED {
        let Allowed::Numbers(least, Some(most), None) = allowed(name) else {
            panic!("{name} has no bounds on the page");
        };
        let all = [
            Some(least),
            Some(most),
            least.checked_sub(1),
            Some(most + 1),
        ];
        for value in all.into_iter().flatten() {
            let within = (least..=most).contains(&value);
            try_it(
                name,
                set(KeyspaceOptions::new(), value),
                &value.to_string(),
                within,
            );
        }
    }
    for (name, set) in SHARED {
        let Allowed::Shares(least, most) = allowed(name) else {
            panic!("{name} has no bounds on the page");
        };
        for value in [least, most, least - 0.01, most + 0.01, f64::NAN] {
            let within = (least..=most).contains(&value);
            try_it(
                name,
                set(KeyspaceOptions::new(), value),
                &value.to_string(),
                within,
            );
        }
    }
    // Those of words, and the one of time, have no bounds to offend.
    let mut own: Vec<&str> = NUMBERED.iter().map(|(name, _)| *name).collect();
    own.extend(SHARED.iter().map(|(name, _)| *name));
    own.extend([
        "compaction_shape",
        "compression",
        "upper_compression",
        "filter",
        "default_ttl",
    ]);
    own.sort_unstable();
    let mut paged: Vec<&str> = rows
        .iter()
        .filter(|row| row.kept.contains("own"))
        .map(|row| row.name)
        .collect();
    paged.sort_unstable();
    assert_eq!(own, paged);
}

#[test]
fn an_option_of_a_keyspace_that_disagrees_with_what_is_kept_is_refused() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let open = || Options::new().file_system(fs.clone()).open("/db").unwrap();
    let second = Duration::from_secs(1);
    let given = KeyspaceOptions::new()
        .compaction_shape(CompactionShape::Tiered)
        .compression(Compression::None)
        .upper_compression(Compression::None)
        .filter(FilterKind::Standard)
        .filter_bits_per_key(7.0)
        .block_bytes(1 << 13)
        .target_file_bytes(1 << 21)
        .write_buffer_bytes(1 << 21)
        .level0_runs(3)
        .size_ratio(7)
        .tier_runs(5)
        .value_separation_threshold_bytes(999)
        .value_garbage_ratio(0.25)
        .default_ttl(second);
    let db = open();
    db.keyspace_with("k", &given).unwrap();
    db.close().unwrap();
    let db = open();
    db.keyspace_with("k", &given).unwrap();
    db.keyspace("k").unwrap();
    let others = [
        (
            "compaction_shape",
            KeyspaceOptions::new().compaction_shape(CompactionShape::Leveled),
        ),
        (
            "compression",
            KeyspaceOptions::new().compression(Compression::Lz4),
        ),
        (
            "upper_compression",
            KeyspaceOptions::new().upper_compression(Compression::Lz4),
        ),
        ("filter", KeyspaceOptions::new().filter(FilterKind::None)),
        (
            "filter_bits_per_key",
            KeyspaceOptions::new().filter_bits_per_key(8.0),
        ),
        ("block_bytes", KeyspaceOptions::new().block_bytes(1 << 12)),
        (
            "target_file_bytes",
            KeyspaceOptions::new().target_file_bytes(1 << 20),
        ),
        (
            "write_buffer_bytes",
            KeyspaceOptions::new().write_buffer_bytes(1 << 20),
        ),
        ("level0_runs", KeyspaceOptions::new().level0_runs(4)),
        ("size_ratio", KeyspaceOptions::new().size_ratio(8)),
        ("tier_runs", KeyspaceOptions::new().tier_runs(6)),
        (
            "value_separation_threshold_bytes",
            KeyspaceOptions::new().value_separation_threshold_bytes(0),
        ),
        (
            "value_garbage_ratio",
            KeyspaceOptions::new().value_garbage_ratio(0.5),
        ),
        ("default_ttl", KeyspaceOptions::new().default_ttl(None)),
        (
            "default_ttl",
            KeyspaceOptions::new().default_ttl(2 * second),
        ),
    ];
    for (name, other) in others {
        let error = db.keyspace_with("k", &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let message = error.message();
        assert!(
            message.contains(name) && message.contains("\"k\""),
            "{message}"
        );
        db.keyspace("k").unwrap().set_options(&other).unwrap();
        db.keyspace_with("k", &other).unwrap();
    }
}

/// A limit of a database in memory was taken by one on disk once it was open, and did nothing there.
#[test]
fn a_change_that_the_place_of_the_database_has_no_use_for_is_refused_as_at_open() {
    let db = fresh().open("/db").unwrap();
    let limit = RuntimeOptions::new().memory_limit_bytes(1 << 30);
    let at_open = fresh().memory_limit_bytes(1 << 30).open("/db").unwrap_err();
    let changed = db.set_options(&limit).unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::InvalidArgument);
    assert_eq!(changed.message(), at_open.message());
    assert_eq!(db.options().memory_limit_bytes(), None);
    let memory = Options::new().open_in_memory().unwrap();
    memory.set_options(&limit).unwrap();
    assert_eq!(memory.options().memory_limit_bytes(), Some(1 << 30));
}

#[test]
fn a_database_that_must_not_be_there_is_not_opened_for_reading_either() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let options = Options::new().file_system(fs);
    options.clone().open("/db").unwrap().close().unwrap();
    let refused = options.error_if_exists(true);
    for error in [
        refused.clone().open("/db").unwrap_err(),
        refused.open_read_only("/db").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("error_if_exists"), "{error}");
    }
}

#[test]
fn options_by_name_are_those_by_method() {
    let by_name = Options::new()
        .set_by_name("no_such_option", "1")
        .unwrap_err();
    assert_eq!(by_name.kind(), ErrorKind::InvalidArgument);
    assert!(by_name.message().contains("no_such_option"));
    // What was asked for by name counts as asked for: it contradicts instead of giving way.
    let asked = fresh().wal_size_limit_bytes(1 << 20);
    let error = asked
        .set_by_name("wal_segment_bytes", "2097152")
        .unwrap()
        .open("/db")
        .unwrap_err();
    assert!(error.message().contains("wal_segment_bytes"), "{error}");
    let ttl = fresh()
        .set_by_name("default_ttl", "1500")
        .unwrap()
        .open("/db")
        .unwrap();
    assert_eq!(
        ttl.options().default_ttl(),
        Some(Duration::from_millis(1500))
    );
}
