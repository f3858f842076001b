//! What readers take one reference to: its replacement, and the sequence that it is read at.

use crate::explore;
use crate::interleaved::AtomicU64;
use crate::replaceable::Replaceable;
use crate::visible::Visible;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use std::sync::Arc;

/// The versions of one key: those in the memtable, by sequence, and the one that a flush has kept.
struct View {
    memtable: Arc<[AtomicU64; 3]>,
    table: Option<(u64, u64)>,
}

impl View {
    /// The newest version at or below `visible`.
    fn get(&self, visible: u64) -> Option<u64> {
        let mut sequences = (1..=visible.min(2)).rev();
        let in_memtable = sequences.find_map(|sequence| {
            Some(self.memtable[sequence as usize].load(Relaxed)).filter(|&value| value != 0)
        });
        let in_table = self.table.filter(|(sequence, _)| *sequence <= visible);
        in_memtable.or(in_table.map(|(_, value)| value))
    }
}

/// A flush keeps of each key what the newest reader sees. Whoever took the sequence before the view was
/// left with a sequence that nothing in the view goes back to.
#[test]
fn a_reader_finds_the_key_whatever_is_flushed_meanwhile() {
    explore(3, || {
        let memtable = || Arc::new([0, 0, 0].map(AtomicU64::new));
        let first = memtable();
        first[1].store(10, Relaxed);
        let view = Arc::new(Replaceable::new(View {
            memtable: Arc::clone(&first),
            table: None,
        }));
        let visible = Arc::new(Visible::new(1));
        let writer = {
            let (view, visible) = (Arc::clone(&view), Arc::clone(&visible));
            thread::spawn(move || {
                first[2].store(20, Relaxed);
                visible.publish(2);
                let newest = visible.get();
                let kept = view.load().get(newest).unwrap();
                let empty = Arc::new([0, 0, 0].map(AtomicU64::new));
                view.replace(|_| View {
                    memtable: empty,
                    table: Some((newest, kept)),
                });
            })
        };
        let (seen, sequence) = visible.after(|| view.load());
        let value = seen.get(sequence);
        assert_eq!(value, Some(sequence * 10), "at {sequence}");
        writer.join().unwrap();
    });
}

/// A memtable is sealed by one thread while another brings in the tables of a compaction.
#[test]
fn of_two_changes_that_come_together_none_is_lost() {
    explore(3, || {
        let value = Arc::new(Replaceable::new(Vec::new()));
        let change = |number: u32| {
            let value = Arc::clone(&value);
            move || {
                value.replace(|old| old.iter().copied().chain([number]).collect());
            }
        };
        let changes = [thread::spawn(change(1)), thread::spawn(change(2))];
        let seen = value.load();
        assert!(seen.len() <= 2);
        changes
            .into_iter()
            .for_each(|change| change.join().unwrap());
        assert_eq!(value.load_full().len(), 2);
    });
}
