//! Keys that are not plain decimals: how each shape is written and read back.
//!
//! Invariant: a key is a function of (shape, spacing, length, index), ascending with the index, and
//! only what that function gives is read back as an index. Called by [`Keys`](super::Keys).

use super::{KeyShape, write_key};
use crate::random::mix64;

/// Before the number of the department.
const URL_HEAD: &[u8] = b"https://www.example.com/en/catalogue/department-";
/// Between the number of the department and that of the article.
const URL_MIDDLE: &[u8] = b"/article-";
/// Behind the number of the article.
const URL_TAIL: &[u8] = b".html";
const DEPARTMENT_DIGITS: usize = 8;
const ARTICLE_DIGITS: usize = 12;
const ARTICLES_OF_A_DEPARTMENT: u64 = 4096;
pub(super) const URL_BYTES: usize =
    URL_HEAD.len() + DEPARTMENT_DIGITS + URL_MIDDLE.len() + ARTICLE_DIGITS + URL_TAIL.len();
pub(super) const URL_LIMIT: u64 = 100_000_000 * ARTICLES_OF_A_DEPARTMENT;

const TABLE: &[u8; 8] = b"orders\0\0";
const ORDERS_OF_A_TENANT: u64 = 65_536;
const ORDERS_OF_A_DAY: u64 = 512;
pub(super) const COMPOSITE_BYTES: usize = 4 + TABLE.len() + 4 + 8;
pub(super) const COMPOSITE_LIMIT: u64 = ORDERS_OF_A_DAY << 32;

const HUGE_DIGITS: usize = 20;

/// As few bytes as tell `keys` keys apart.
pub(super) fn tiny_bytes(keys: u64) -> usize {
    let largest = keys.saturating_sub(1).max(1);
    (u64::BITS - largest.leading_zeros()).div_ceil(8) as usize
}

/// How many keys `bytes` bytes tell apart.
pub(super) fn tiny_limit(bytes: usize) -> u64 {
    let bits = u32::try_from(bytes * 8).unwrap_or(u64::BITS);
    1u64.checked_shl(bits).unwrap_or(u64::MAX)
}

/// Writes the key of `index` over `key`.
pub(super) fn write(shape: KeyShape, spacing: u64, index: u64, key: &mut [u8]) {
    match shape {
        KeyShape::Decimal => write_key(index, key),
        KeyShape::Random => write_random(spacing, index, key),
        KeyShape::Url => write_url(index, key),
        KeyShape::Composite => write_composite(index, key),
        KeyShape::Tiny => {
            let word = index.to_be_bytes();
            key.copy_from_slice(&word[word.len() - key.len()..]);
        }
        KeyShape::Huge => {
            let shared = key.len().saturating_sub(HUGE_DIGITS);
            let (head, tail) = key.split_at_mut(shared);
            for (at, byte) in head.iter_mut().enumerate() {
                *byte = b'a' + (at % 26) as u8;
            }
            write_key(index, tail);
        }
    }
}

/// The index whose key `key` (of the right length) is.
pub(super) fn parse(shape: KeyShape, spacing: u64, key: &[u8]) -> Option<u64> {
    let index = match shape {
        KeyShape::Decimal => super::parse_key(key, key.len()),
        KeyShape::Random => Some(u64::from_be_bytes(*key.first_chunk()?) / spacing),
        KeyShape::Url => {
            let digits = &key[..URL_BYTES - URL_TAIL.len()];
            digits_at_the_end(digits, ARTICLE_DIGITS)
        }
        KeyShape::Composite => Some(u64::from_be_bytes(*key.last_chunk()?)),
        KeyShape::Tiny => Some(
            key.iter()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
        ),
        KeyShape::Huge => digits_at_the_end(key, HUGE_DIGITS.min(key.len())),
    }?;
    is_of(shape, spacing, index, key).then_some(index)
}

fn digits_at_the_end(key: &[u8], digits: usize) -> Option<u64> {
    super::parse_key(&key[key.len() - digits..], digits)
}

/// Whether `key` is what is written for `index`.
fn is_of(shape: KeyShape, spacing: u64, index: u64, key: &[u8]) -> bool {
    let mut small = [0; 128];
    match small.get_mut(..key.len()) {
        Some(expected) => {
            write(shape, spacing, index, expected);
            expected == key
        }
        None => {
            let mut expected = vec![0; key.len()];
            write(shape, spacing, index, &mut expected);
            expected == key
        }
    }
}

/// The first eight bytes are spread evenly, with noise below the distance of two neighbours, so that
/// they ascend; the rest is noise.
fn write_random(spacing: u64, index: u64, key: &mut [u8]) {
    let noise = mix64(index);
    let word = index.wrapping_mul(spacing).wrapping_add(noise % spacing);
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&word.to_be_bytes());
    for (at, bytes) in tail.chunks_mut(8).enumerate() {
        let word = mix64(noise.wrapping_add(at as u64)).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
}

fn write_url(index: u64, key: &mut [u8]) {
    let (head, rest) = key.split_at_mut(URL_HEAD.len());
    head.copy_from_slice(URL_HEAD);
    let (department, rest) = rest.split_at_mut(DEPARTMENT_DIGITS);
    write_key(index / ARTICLES_OF_A_DEPARTMENT, department);
    let (middle, rest) = rest.split_at_mut(URL_MIDDLE.len());
    middle.copy_from_slice(URL_MIDDLE);
    let (article, tail) = rest.split_at_mut(ARTICLE_DIGITS);
    write_key(index, article);
    tail.copy_from_slice(URL_TAIL);
}

fn write_composite(index: u64, key: &mut [u8]) {
    let tenant = (index / ORDERS_OF_A_TENANT) as u32;
    let day = (index / ORDERS_OF_A_DAY) as u32;
    key[..4].copy_from_slice(&tenant.to_be_bytes());
    key[4..12].copy_from_slice(TABLE);
    key[12..16].copy_from_slice(&day.to_be_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
}
