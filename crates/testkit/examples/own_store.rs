//! Your own store on the simulated disk: a counter file with a journal, tried at every moment at which
//! the power may go, and at every operation that may fail.
//!
//! The store knows nothing of tests: it reads and writes through `FileSystem`, runs on
//! `OsFileSystem` in production, and here on a disk that can crash, lie and fill up.
//!
//! ```sh
//! cargo run -p esker-testkit --example own_store --no-default-features
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;

use esker_testkit::disk::{
    CrashFileSystem, DeviceError, Fault, FaultFileSystem, FileSystem, ImagePolicy, MemFileSystem,
};
use esker_testkit::{Action, Crash, Durability, Loss, Oracle, State};

const JOURNAL: &str = "/store/journal";
const SUM_BYTES: usize = 4;

/// A map from short keys to short values: a journal of checked records, read back at each open.
struct Store {
    fs: Arc<dyn FileSystem>,
    end: u64,
    map: State,
    is_broken: bool,
}

/// One record: lengths, key, value and a sum of all that.
fn encode(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut record = vec![key.len() as u8, value.len() as u8];
    record.extend_from_slice(key);
    record.extend_from_slice(value);
    let sum = sum(&record);
    record.extend_from_slice(&sum);
    record
}

/// FNV-1a: garbage in place of a record passes for one once in four thousand million times.
fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let step = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step).to_le_bytes()
}

impl Store {
    fn open(fs: Arc<dyn FileSystem>) -> io::Result<Self> {
        fs.create_dir_all(Path::new("/store"))?;
        // The directory itself has a name, which its parent has to keep.
        fs.sync_dir(Path::new("/"))?;
        if fs.metadata(Path::new(JOURNAL)).is_err() {
            fs.create(Path::new(JOURNAL))?;
            // Leave this out, and the sweep below finds journals that vanish with all they held.
            fs.sync_dir(Path::new("/store"))?;
        }
        let file = fs.open_read(Path::new(JOURNAL))?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let (mut map, mut end) = (State::new(), 0);
        while let Some(record) = next_record(&bytes[end..]) {
            let (key_bytes, value_bytes) = (record[0] as usize, record[1] as usize);
            let key = record[2..2 + key_bytes].to_vec();
            let value = record[2 + key_bytes..2 + key_bytes + value_bytes].to_vec();
            map.insert((0, key), value);
            end += record.len();
        }
        // A torn tail is cut off, so that it is never taken for the beginning of something else.
        let file = fs.open_write(Path::new(JOURNAL))?;
        file.set_len(end as u64)?;
        file.sync_data()?;
        Ok(Self {
            fs,
            end: end as u64,
            map,
            is_broken: false,
        })
    }

    /// On stable storage when it returns.
    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("the journal failed; open it again"));
        }
        let record = encode(key, value);
        let written = self.append(&record);
        // What became of the bytes is unknown: nothing may be put behind them.
        self.is_broken = written.is_err();
        written?;
        self.end += record.len() as u64;
        self.map.insert((0, key.to_vec()), value.to_vec());
        Ok(())
    }

    fn append(&self, record: &[u8]) -> io::Result<()> {
        let file = self.fs.open_write(Path::new(JOURNAL))?;
        file.write_at(self.end, record)?;
        file.sync_data()
    }
}

fn next_record(bytes: &[u8]) -> Option<&[u8]> {
    let checked = 2 + usize::from(*bytes.first()?) + usize::from(*bytes.get(1)?);
    let record = bytes.get(..checked + SUM_BYTES)?;
    (record[checked..] == sum(&record[..checked])).then_some(record)
}

fn key_of(number: u32) -> Vec<u8> {
    format!("key {}", number % 5).into_bytes()
}

fn value_of(number: u32) -> Vec<u8> {
    format!("value {number}").into_bytes()
}

fn put_of(number: u32) -> Vec<Action> {
    vec![Action::Put {
        keyspace: 0,
        key: key_of(number),
        value: value_of(number),
        ttl_millis: None,
    }]
}

/// The power goes after each operation, under each policy; whatever was acknowledged is there.
fn crash_everywhere() -> Result<usize, Box<dyn std::error::Error>> {
    let disk = CrashFileSystem::new(MemFileSystem::new());
    let mut oracle = Oracle::new();
    let mut store = Store::open(Arc::new(disk.clone()))?;
    for number in 0..12 {
        let id = oracle.begin(disk.operations(), 0, Durability::Sync, put_of(number));
        store.put(&key_of(number), &value_of(number))?;
        oracle.acknowledge(id, disk.operations());
    }
    let mut points = 0;
    let mut replay = disk.replay();
    for moment in 0..=replay.operations() {
        for seed in 0..30 {
            let policy = ImagePolicy::from_seed(seed);
            let found = Store::open(Arc::new(replay.image(moment, &policy)))?.map;
            let crash = Crash {
                moment,
                loss: Loss::Power,
                now_millis: 0,
            };
            let judged = oracle.check(&found, &crash);
            judged
                .map_err(|violation| format!("after {moment} operations, {policy}: {violation}"))?;
            points += 1;
        }
    }
    Ok(points)
}

/// Each operation fails in turn; what was acknowledged is there after the store was opened again.
fn fail_everywhere() -> Result<usize, Box<dyn std::error::Error>> {
    for point in 0.. {
        let disk = CrashFileSystem::new(MemFileSystem::new());
        let faulty = FaultFileSystem::new(Arc::new(disk.clone()));
        faulty.fail_at(point, Fault::Refuse(DeviceError::Io));
        let mut oracle = Oracle::new();
        if let Ok(mut store) = Store::open(Arc::new(faulty.clone())) {
            for number in 0..6 {
                let id = oracle.begin(disk.operations(), 0, Durability::Sync, put_of(number));
                match store.put(&key_of(number), &value_of(number)) {
                    Ok(()) => oracle.acknowledge(id, disk.operations()),
                    Err(_) => oracle.fail(id),
                }
            }
        }
        let moment = disk.operations();
        let image = disk.image(moment, &ImagePolicy::ONLY_SYNCED);
        let found = Store::open(Arc::new(image))?.map;
        let crash = Crash {
            moment,
            loss: Loss::Power,
            now_millis: 0,
        };
        let judged = oracle.check(&found, &crash);
        judged.map_err(|violation| format!("operation {point} failed: {violation}"))?;
        if faulty.faults() == 0 {
            return Ok(point as usize);
        }
    }
    Ok(0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{} power losses: nothing lost", crash_everywhere()?);
    println!("{} failed operations: nothing lost", fail_everywhere()?);
    Ok(())
}
