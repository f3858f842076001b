//! Rust's types as elements.
//!
//! Invariant: a type's Rust order is the order of its bytes; for floats it is that of `total_cmp`.

use crate::reader::{Integer, TupleReader};
use crate::writer::TupleWriter;
use esker_base::{Error, Result};
use std::cmp::Reverse;

/// A value that can be one component of a key.
pub trait ToElement {
    /// Writes exactly one element.
    fn write_element(&self, writer: &mut TupleWriter<'_>);
}

/// A value that can be read back from one component of a key.
pub trait FromElement: Sized {
    /// Reads exactly one element.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) with the offset, where the element is no
    /// such value.
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self>;
}

/// Marks types of which no value is written as a null, so that an [`Option`] of them can be told
/// apart.
pub trait NeverNull {}

macro_rules! integers {
    ($($type:ty, $write:ident as $wide:ty;)*) => {$(
        impl ToElement for $type {
            fn write_element(&self, writer: &mut TupleWriter<'_>) {
                writer.$write(*self as $wide);
            }
        }

        impl FromElement for $type {
            fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
                let at = reader.clone();
                let Integer { is_negative, magnitude } = reader.integer()?;
                let value = if is_negative {
                    // The magnitude of the smallest i128 has no positive counterpart.
                    let below = i128::try_from(magnitude).map_or(i128::MIN, |magnitude| -magnitude);
                    Self::try_from(below).ok()
                } else {
                    Self::try_from(magnitude).ok()
                };
                value.ok_or_else(|| out_of_bounds(&at, stringify!($type)))
            }
        }

        impl NeverNull for $type {}
    )*};
}

integers! {
    u8, unsigned as u128;
    u16, unsigned as u128;
    u32, unsigned as u128;
    u64, unsigned as u128;
    u128, unsigned as u128;
    usize, unsigned as u128;
    i8, signed as i128;
    i16, signed as i128;
    i32, signed as i128;
    i64, signed as i128;
    i128, signed as i128;
    isize, signed as i128;
}

#[cold]
fn out_of_bounds(at: &TupleReader<'_>, name: &str) -> Error {
    at.damaged(format!("the integer does not fit into {name}"))
}

macro_rules! plain {
    ($($type:ty, $method:ident;)*) => {$(
        impl ToElement for $type {
            fn write_element(&self, writer: &mut TupleWriter<'_>) {
                writer.$method(*self);
            }
        }

        impl FromElement for $type {
            fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
                reader.$method()
            }
        }

        impl NeverNull for $type {}
    )*};
}

plain! {
    bool, bool;
    f32, f32;
    f64, f64;
}

macro_rules! written_as {
    ($($type:ty, $method:ident;)*) => {$(
        impl ToElement for $type {
            fn write_element(&self, writer: &mut TupleWriter<'_>) {
                writer.$method(self);
            }
        }

        impl NeverNull for $type {}
    )*};
}

written_as! {
    str, string;
    String, string;
    [u8], bytes;
    Vec<u8>, bytes;
}

impl FromElement for String {
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
        reader.string()
    }
}

impl FromElement for Vec<u8> {
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
        reader.bytes()
    }
}

impl<const N: usize> ToElement for [u8; N] {
    fn write_element(&self, writer: &mut TupleWriter<'_>) {
        writer.bytes(self);
    }
}

impl<const N: usize> FromElement for [u8; N] {
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
        let at = reader.clone();
        let bytes = reader.bytes()?;
        let length = bytes.len();
        Self::try_from(bytes)
            .map_err(|_| at.damaged(format!("a byte string has {length} bytes and not {N}")))
    }
}

impl<const N: usize> NeverNull for [u8; N] {}

impl<T: ToElement + ?Sized> ToElement for &T {
    fn write_element(&self, writer: &mut TupleWriter<'_>) {
        (**self).write_element(writer);
    }
}

impl<T: NeverNull + ?Sized> NeverNull for &T {}

/// `None` is a null, and so before every value.
impl<T: ToElement + NeverNull> ToElement for Option<T> {
    fn write_element(&self, writer: &mut TupleWriter<'_>) {
        match self {
            Some(value) => value.write_element(writer),
            None => writer.null(),
        }
    }
}

impl<T: FromElement + NeverNull> FromElement for Option<T> {
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
        if reader.is_null() {
            reader.null()?;
            return Ok(None);
        }
        T::read_element(reader).map(Some)
    }
}

/// In the opposite order.
impl<T: ToElement> ToElement for Reverse<T> {
    fn write_element(&self, writer: &mut TupleWriter<'_>) {
        writer.descending(|writer| self.0.write_element(writer));
    }
}

impl<T: FromElement> FromElement for Reverse<T> {
    fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
        reader.descending(T::read_element).map(Reverse)
    }
}

impl<T: NeverNull> NeverNull for Reverse<T> {}
