//! A failure is final for its segment (I3): after one failed write or sync nothing touches the file.

use std::sync::Arc;

use esker_base::ErrorKind;
use esker_vfs::{DeviceError, Fault, FaultFileSystem, FaultRule, OperationKind, TraceFileSystem};

use super::*;

#[test]
fn a_failed_write_or_sync_poisons_the_writer() {
    let cases = [
        (
            OperationKind::Write,
            DeviceError::NoSpace,
            ErrorKind::NoSpace,
        ),
        (OperationKind::Write, DeviceError::Io, ErrorKind::Io),
        (OperationKind::Sync, DeviceError::Io, ErrorKind::Io),
    ];
    for (operation, error, kind) in cases {
        let trace = TraceFileSystem::new(Arc::new(MemFileSystem::new()));
        let faults = FaultFileSystem::new(Arc::new(trace.clone()));
        let mut writer = SegmentWriter::create(&faults, path(), HEADER, SMALL).unwrap();
        writer.append_one(b"before", SyncMode::Sync).unwrap();
        faults.add_rule(
            FaultRule::new(Fault::Refuse(error))
                .on(&[operation])
                .times(1),
        );
        let outcome = writer
            .append_one(b"fails", SyncMode::Sync)
            .and_then(|()| writer.sync());
        assert_eq!(outcome.unwrap_err().kind(), kind);
        assert!(writer.is_poisoned());
        trace.clear();
        assert_eq!(
            writer
                .append_one(b"later", SyncMode::Buffered)
                .unwrap_err()
                .kind(),
            kind
        );
        assert_eq!(
            writer
                .append(&[b"later"], SyncMode::Sync)
                .unwrap_err()
                .kind(),
            kind
        );
        assert_eq!(writer.sync().unwrap_err().kind(), kind);
        assert_eq!(writer.seal(8).unwrap_err().kind(), kind);
        assert!(trace.entries().is_empty(), "the file was touched again");
    }
}

#[test]
fn a_watermark_that_cannot_be_written_fails_the_next_call_and_not_the_sync() {
    let faults = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let mut writer = SegmentWriter::create(&faults, path(), HEADER, SMALL).unwrap();
    writer.append_one(b"x", SyncMode::Sync).unwrap();
    faults.add_rule(FaultRule::new(Fault::Refuse(DeviceError::Io)).on(&[OperationKind::Write]));
    writer.sync().unwrap();
    assert_eq!(writer.synced_bytes(), FIRST + 24);
    assert!(writer.is_poisoned() && writer.append_one(b"y", SyncMode::Sync).is_err());
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
    let error = writer
        .append(&[b"x", &[0; 5000]], SyncMode::Buffered)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::InvalidArgument, Some(path()))
    );
    assert!(!writer.is_poisoned() && writer.bytes() == FIRST);
    writer.append_one(b"fits", SyncMode::Buffered).unwrap();
    assert_eq!(read(&fs).unwrap().payloads, [b"fits"]);
}

#[test]
fn every_step_of_making_a_segment_reports_its_failure() {
    for index in 0.. {
        let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
        fs.fail_at(index, Fault::Refuse(DeviceError::NoSpace));
        let options = SegmentOptions {
            mapped: true,
            ..SMALL
        };
        let outcome = SegmentWriter::create(&fs, path(), HEADER, options);
        if fs.faults() == 0 {
            assert!(outcome.is_ok() && index >= 4);
            return;
        }
        assert_eq!(
            outcome.unwrap_err().kind(),
            ErrorKind::NoSpace,
            "operation {index}"
        );
    }
}
