//! Elements whose kinds are known only at run time, and the order that the bytes keep.
//!
//! Invariant: `Ord` here is the definition; the encoding is tested against it.

use crate::MAX_DEPTH;
use crate::reader::TupleReader;
use crate::writer::{TupleWriter, tag};
use esker_base::{Error, Result};
use std::cmp::Ordering;

/// One component of a key.
///
/// Elements of different kinds order by kind: null, booleans, integers, `f32`, `f64`, byte strings,
/// strings, tuples, and after all of these whatever is descending. Integers order by value whatever
/// their width, floats by IEEE 754's total order, tuples by their first differing component, the
/// shorter first. Two elements are equal where their encodings are.
///
/// ```
/// use esker_tuple::{Element, decode_elements, encode, encode_elements};
/// let bytes = encode(&("ada", -5i32));
/// let elements = [Element::String("ada".into()), Element::Int(-5)];
/// assert_eq!(decode_elements(&bytes)?, elements);
/// assert_eq!(encode_elements(&elements)?, bytes);
/// # Ok::<(), esker_base::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Element {
    /// Smaller than everything else.
    Null,
    /// False before true.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// An integer; decoding gives this kind only for what [`Element::Int`] cannot hold.
    Uint(u128),
    /// A float of four bytes.
    F32(f32),
    /// A float of eight bytes.
    F64(f64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A string, ordered by code points.
    String(String),
    /// A tuple as one component.
    Tuple(Vec<Element>),
    /// An element in the opposite order.
    Descending(Box<Element>),
}

impl Element {
    pub(crate) fn write(&self, writer: &mut TupleWriter<'_>, depth: usize) -> Result<()> {
        match self {
            Element::Null => writer.null(),
            Element::Bool(value) => writer.bool(*value),
            Element::Int(value) => writer.signed(*value),
            Element::Uint(value) => writer.unsigned(*value),
            Element::F32(value) => writer.f32(*value),
            Element::F64(value) => writer.f64(*value),
            Element::Bytes(value) => writer.bytes(value),
            Element::String(value) => writer.string(value),
            Element::Tuple(elements) => {
                let inner = deeper(depth)?;
                let mut written = Ok(());
                writer.nested(|writer| {
                    written = elements
                        .iter()
                        .try_for_each(|element| element.write(writer, inner));
                });
                written?;
            }
            Element::Descending(element) => {
                let inner = deeper(depth)?;
                let mut written = Ok(());
                writer.descending(|writer| written = element.write(writer, inner));
                written?;
            }
        }
        Ok(())
    }

    pub(crate) fn read(reader: &mut TupleReader<'_>, depth: usize) -> Result<Self> {
        let found = reader.peek()?;
        if found & tag::DESCENDING != 0 {
            let inner = reader.descending(|reader| Self::read_ascending(reader, depth))?;
            return Ok(Element::Descending(Box::new(inner)));
        }
        Self::read_ascending(reader, depth)
    }

    fn read_ascending(reader: &mut TupleReader<'_>, depth: usize) -> Result<Self> {
        Ok(match reader.peek()? {
            tag::NULL => {
                reader.null()?;
                Element::Null
            }
            tag::FALSE | tag::TRUE => Element::Bool(reader.bool()?),
            tag::MOST_NEGATIVE..=tag::MOST_POSITIVE => {
                let integer = reader.integer()?;
                match i128::try_from(integer.magnitude) {
                    Ok(value) if integer.is_negative => Element::Int(-value),
                    Ok(value) => Element::Int(value),
                    Err(_) if integer.is_negative => Element::Int(i128::MIN),
                    Err(_) => Element::Uint(integer.magnitude),
                }
            }
            tag::F32 => Element::F32(reader.f32()?),
            tag::F64 => Element::F64(reader.f64()?),
            tag::BYTES => Element::Bytes(reader.bytes()?),
            tag::STRING => Element::String(reader.string()?),
            tag::TUPLE => reader.nested(|reader| {
                let mut elements = Vec::new();
                while !reader.is_at_end_of_tuple() {
                    elements.push(Self::read(reader, depth + 1)?);
                }
                Ok(Element::Tuple(elements))
            })?,
            unknown => {
                let sentence = format!("a component of the unknown kind {unknown:#04x}");
                return Err(reader.damaged(sentence));
            }
        })
    }

    /// Without pairs of reversals, which undo each other: whether one is left, and what is in it.
    fn direction(&self) -> (bool, &Element) {
        let (mut is_descending, mut element) = (false, self);
        while let Element::Descending(inner) = element {
            (is_descending, element) = (!is_descending, inner);
        }
        (is_descending, element)
    }

    fn kind(&self) -> u8 {
        match self {
            Element::Null => tag::NULL,
            Element::Bool(_) => tag::FALSE,
            Element::Int(_) | Element::Uint(_) => tag::ZERO,
            Element::F32(_) => tag::F32,
            Element::F64(_) => tag::F64,
            Element::Bytes(_) => tag::BYTES,
            Element::String(_) => tag::STRING,
            Element::Tuple(_) => tag::TUPLE,
            Element::Descending(_) => tag::DESCENDING,
        }
    }

    fn cmp_ascending(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Bool(a), Element::Bool(b)) => a.cmp(b),
            (Element::Int(a), Element::Int(b)) => a.cmp(b),
            (Element::Uint(a), Element::Uint(b)) => a.cmp(b),
            (Element::Int(a), Element::Uint(b)) => {
                u128::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))
            }
            (Element::Uint(_), Element::Int(_)) => other.cmp_ascending(self).reverse(),
            (Element::F32(a), Element::F32(b)) => a.total_cmp(b),
            (Element::F64(a), Element::F64(b)) => a.total_cmp(b),
            (Element::Bytes(a), Element::Bytes(b)) => a.cmp(b),
            (Element::String(a), Element::String(b)) => a.cmp(b),
            (Element::Tuple(a), Element::Tuple(b)) => a.cmp(b),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

/// The depth of what is inside, where there may be something.
fn deeper(depth: usize) -> Result<usize> {
    if depth == MAX_DEPTH {
        let sentence = format!("a key's tuples may be nested {MAX_DEPTH} deep at most");
        return Err(Error::invalid_argument(sentence));
    }
    Ok(depth + 1)
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.direction(), other.direction()) {
            ((false, a), (false, b)) => a.cmp_ascending(b),
            ((true, a), (true, b)) => b.cmp_ascending(a),
            ((a, _), (b, _)) => a.cmp(&b),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}
