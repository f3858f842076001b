//! The decoders of a table, one at a time: the bytes take the place of one part of a sound table, so
//! that everything around them is right and the fuzzer meets that decoder alone. What must hold is what
//! must hold of any table.

use crate::table::{FOOTER_BYTES, TRAILER_BYTES, examine};

/// A sound table with a filter and one data block after the other.
const SOUND: &[u8] = include_bytes!("../corpus/table/blocked_filter");

/// Where in the footer the handle of each part stands.
const INDEX: usize = 0;
const FILTER: usize = 16;
const PROPERTIES: usize = 48;

/// The index of a table.
pub fn index(data: &[u8]) {
    with_part(data, INDEX);
}

/// The filter of a table, of either kind.
pub fn filter(data: &[u8]) {
    with_part(data, FILTER);
}

/// The properties of a table.
pub fn properties(data: &[u8]) {
    with_part(data, PROPERTIES);
}

/// The footer of a table, but for its number, version, checksums and magic.
pub fn footer(data: &[u8]) {
    let mut bytes = SOUND[..SOUND.len() - FOOTER_BYTES].to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(SOUND.len(), 0);
    examine(bytes);
}

/// A data block, slot or restart as its own first bytes say.
pub fn block(data: &[u8]) {
    // The block first, then an index that leads to it alone.
    let mut bytes = Vec::new();
    let block = append(&mut bytes, data);
    let mut index = Vec::new();
    index.extend_from_slice(&1u32.to_le_bytes());
    index.extend_from_slice(&0u32.to_le_bytes());
    index.extend_from_slice(&block.0.to_le_bytes());
    // One separator, of nine bytes above every key.
    index.push(9 << 1);
    index.extend_from_slice(&[0xff; 9]);
    let mut rest = block.1;
    while rest >= 0x80 {
        index.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    index.push(rest as u8);
    let index = append(&mut bytes, &index);
    let properties = append(&mut bytes, part(PROPERTIES));
    let mut footer = SOUND[SOUND.len() - FOOTER_BYTES..].to_vec();
    footer[..64].fill(0);
    set_handle(&mut footer, INDEX, index);
    set_handle(&mut footer, PROPERTIES, properties);
    bytes.extend_from_slice(&footer);
    examine(bytes);
}

/// The payload of a part of the sound table.
fn part(at: usize) -> &'static [u8] {
    let footer = &SOUND[SOUND.len() - FOOTER_BYTES..];
    let number = |at: usize| {
        let bytes = footer[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes) as usize
    };
    let (offset, bytes) = (number(at), number(at + 8));
    &SOUND[offset..offset + bytes - TRAILER_BYTES]
}

/// Appends a block, not compressed, and says where it is. Its checksum is made right later.
fn append(bytes: &mut Vec<u8>, payload: &[u8]) -> (u64, u64) {
    let handle = (bytes.len() as u64, (payload.len() + TRAILER_BYTES) as u64);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&[0; TRAILER_BYTES]);
    handle
}

fn set_handle(footer: &mut [u8], at: usize, (offset, bytes): (u64, u64)) {
    footer[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    footer[at + 8..at + 16].copy_from_slice(&bytes.to_le_bytes());
}

/// The sound table with `data` for one of its parts.
fn with_part(data: &[u8], at: usize) {
    let (blocks, footer) = SOUND.split_at(SOUND.len() - FOOTER_BYTES);
    let mut bytes = blocks.to_vec();
    let handle = append(&mut bytes, data);
    let mut footer = footer.to_vec();
    set_handle(&mut footer, at, handle);
    bytes.extend_from_slice(&footer);
    examine(bytes);
}
