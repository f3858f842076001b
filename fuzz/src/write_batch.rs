//! Write batches, as recovery reads them from a log record.

use esker_base::write_batch::{BatchEncoder, BatchView};

/// A batch that decodes without an error means the same after it was encoded again.
pub fn write_batch(data: &[u8]) {
    let Ok(view) = BatchView::parse(data) else {
        return;
    };
    let Ok(records) = view.records().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    assert_eq!(records.len(), view.count() as usize);
    let mut again = BatchEncoder::new();
    for record in &records {
        again.push(record.keyspace, record.kind, record.key, record.value);
    }
    let bytes = again.seal(view.sequence());
    assert!(
        bytes.len() <= data.len(),
        "the encoder writes the shortest form"
    );
    let view = BatchView::parse(bytes).expect("a batch that was encoded");
    let decoded: Vec<_> = view
        .records()
        .map(|record| record.expect("likewise"))
        .collect();
    assert_eq!(decoded, records);
}
