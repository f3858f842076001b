//! A time series: readings of sensors by sensor and time. Old days go by one range delete, raw
//! readings expire by themselves, hourly means stay; tiered compaction suits data that is written
//! once and read by ranges.
//!
//! `cargo run -p esker --example time_series`

use esker::{CompactionShape, Durability, ManualClock, Options};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A Monday in 2027, in seconds since 1970.
const START: u64 = 1_800_230_400;
const RAW_READINGS_LIVE: Duration = Duration::from_secs(3 * DAY);

fn celsius(sensor: &str, second: u64) -> f32 {
    let hour = (second % DAY) as f32 / HOUR as f32;
    let daily = (hour / 24.0 * std::f32::consts::TAU).sin();
    if sensor == "attic" {
        25.0 + 8.0 * daily
    } else {
        12.0 + daily
    }
}

fn main() -> esker::Result<()> {
    let directory = std::env::temp_dir().join(format!("esker-time-series-{}", std::process::id()));
    let clock = Arc::new(ManualClock::at_millis(START * 1000));
    let db = Options::new()
        .clock(clock.clone())
        .compaction_shape(CompactionShape::Tiered)
        .default_durability(Durability::Buffered)
        .write_buffer_bytes(256 << 10)
        .open(&directory)?;
    // The newest reading of a sensor comes first.
    let readings = db.typed_keyspace::<(String, Reverse<u64>), f32>("readings")?;
    let means = db.typed_keyspace::<(String, u64), f32>("hourly_means")?;

    // Five days of two sensors, one reading a minute; each hour's mean is written with its last one.
    let mut hour: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for second in (START..START + 5 * DAY).step_by(MINUTE as usize) {
        clock.set_wall_millis(second * 1000);
        let mut batch = esker::WriteBatch::new();
        for sensor in ["attic", "cellar"] {
            let value = celsius(sensor, second);
            let key = (sensor.to_string(), Reverse(second));
            readings
                .batch(&mut batch)
                .put_with_ttl(&key, &value, RAW_READINGS_LIVE)?;
            let gathered = hour.entry(sensor).or_default();
            gathered.push(value);
            if gathered.len() == 60 {
                let mean = gathered.drain(..).sum::<f32>() / 60.0;
                let hour = (sensor.to_string(), second / HOUR * HOUR);
                means.batch(&mut batch).put(&hour, &mean)?;
            }
        }
        db.write(batch)?;
    }

    // The latest reading is the first of its prefix; raw readings older than three days are gone.
    let now = START + 5 * DAY - MINUTE;
    let ((_, Reverse(latest)), value) = readings.prefix(&("attic",)).next().expect("a reading")?;
    println!("attic: {value:.1} degrees");
    assert_eq!((latest, value), (now, celsius("attic", now)));
    let oldest = readings
        .prefix(&("attic",))
        .next_back()
        .expect("a reading")?;
    assert!(oldest.0.1.0 > now - 3 * DAY);
    assert_eq!(
        readings.prefix(&("attic",)).count() as u64,
        3 * DAY / MINUTE
    );

    // One day of means.
    let second_day = (START + DAY, START + 2 * DAY);
    let day = ("attic".to_string(), second_day.0)..("attic".to_string(), second_day.1);
    let day: Vec<f32> = means
        .range(day)
        .map(|mean| Ok(mean?.1))
        .collect::<esker::Result<_>>()?;
    let warmest = day.iter().copied().fold(f32::MIN, f32::max);
    println!("warmest hour of the second day: {warmest:.1} degrees");
    assert_eq!(day.len(), 24);
    assert!((32.0..33.5).contains(&warmest));

    // A sensor's first two days of means are not needed any more: one range delete.
    means.delete_range(("attic".to_string(), 0)..("attic".to_string(), START + 2 * DAY))?;
    assert_eq!(means.prefix(&("attic",)).count(), 3 * 24);
    assert_eq!(means.prefix(&("cellar",)).count(), 5 * 24);

    // Expired readings leave with compaction, or at once.
    db.cleanup_expired()?;
    db.compact()?;
    assert_eq!(readings.count()?, 2 * 3 * DAY / MINUTE);
    assert!(db.validate()?.is_ok());
    db.close()?;
    std::fs::remove_dir_all(directory).ok();
    Ok(())
}
