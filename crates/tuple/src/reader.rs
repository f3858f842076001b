//! Reads elements back, from bytes that may be anything.
//!
//! Invariant (I10): no input makes it panic, recurse without bound or allocate more than the input
//! holds; what it accepts is the one encoding of the value that it returns.

use crate::writer::{ENDED, ESCAPED, tag};
use crate::{Element, MAX_DEPTH};
use esker_base::{Error, Result};

/// An integer of any width, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integer {
    /// Whether it is below zero.
    pub is_negative: bool,
    /// How far from zero.
    pub magnitude: u128,
}

/// Reads the elements of a key, from the first to the last.
#[derive(Clone, Debug)]
pub struct TupleReader<'a> {
    input: &'a [u8],
    position: usize,
    /// 0xff inside descending elements.
    mask: u8,
    /// Tuples that are open.
    depth: usize,
}

impl<'a> TupleReader<'a> {
    /// Begins at the first element.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            position: 0,
            mask: 0,
            depth: 0,
        }
    }

    /// Whether every byte has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.position == self.input.len()
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.input[self.position..]
    }

    /// Fails where something is left.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) with the offset; likewise for all below.
    pub fn finish(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        Err(self.damaged("the key has more components than were asked for"))
    }

    /// Passes over one element of any kind.
    ///
    /// # Errors
    /// As [`TupleReader::finish`].
    pub fn skip(&mut self) -> Result<()> {
        Element::read(self, 0).map(drop)
    }

    #[cold]
    pub(crate) fn damaged(&self, sentence: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::corruption(sentence).with_offset(self.position as u64)
    }

    /// The kind byte of the next element; 0x80 is set where it is descending.
    pub(crate) fn peek(&self) -> Result<u8> {
        let byte = self.input.get(self.position);
        let byte = byte.ok_or_else(|| self.damaged("the key ends where a component is missing"))?;
        Ok(byte ^ self.mask)
    }

    fn next_byte(&mut self) -> Result<u8> {
        let byte = self.peek()?;
        self.position += 1;
        Ok(byte)
    }

    fn take(&mut self, wanted: u8, what: &str) -> Result<()> {
        let found = self.peek()?;
        if found != wanted {
            return Err(self.mismatch(what, found));
        }
        self.position += 1;
        Ok(())
    }

    #[cold]
    fn mismatch(&self, wanted: &str, found: u8) -> Error {
        self.damaged(format!(
            "the component is no {wanted} but {}",
            kind_name(found)
        ))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.rest().first_chunk::<N>();
        let bytes = bytes.ok_or_else(|| self.damaged("the key is cut short inside a number"))?;
        self.position += N;
        let mask = self.mask;
        Ok(bytes.map(|byte| byte ^ mask))
    }

    /// Reads a null.
    ///
    /// # Errors
    /// As [`TupleReader::finish`]; likewise where the next element is of another kind or direction.
    pub fn null(&mut self) -> Result<()> {
        self.take(tag::NULL, "null")
    }

    /// Whether the next element is a null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.peek().is_ok_and(|found| found == tag::NULL)
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn bool(&mut self) -> Result<bool> {
        match self.peek()? {
            found @ (tag::FALSE | tag::TRUE) => {
                self.position += 1;
                Ok(found == tag::TRUE)
            }
            found => Err(self.mismatch("boolean", found)),
        }
    }

    /// Reads an integer.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn integer(&mut self) -> Result<Integer> {
        let found = self.peek()?;
        if !(tag::MOST_NEGATIVE..=tag::MOST_POSITIVE).contains(&found) {
            return Err(self.mismatch("integer", found));
        }
        let is_negative = found < tag::ZERO;
        let count = usize::from(found.abs_diff(tag::ZERO));
        let digits = self
            .input
            .get(self.position + 1..self.position + 1 + count)
            .ok_or_else(|| self.damaged("the key is cut short inside a number"))?;
        let flip = self.mask ^ if is_negative { 0xff } else { 0 };
        let magnitude = digits.iter().fold(0u128, |magnitude, byte| {
            magnitude << 8 | u128::from(byte ^ flip)
        });
        let is_padded = digits.first().is_some_and(|byte| byte ^ flip == 0);
        if is_padded || (is_negative && magnitude > i128::MIN.unsigned_abs()) {
            return Err(self.damaged("an integer is not in its shortest form"));
        }
        self.position += 1 + count;
        Ok(Integer {
            is_negative,
            magnitude,
        })
    }

    /// Reads an `f64`.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn f64(&mut self) -> Result<f64> {
        self.take(tag::F64, "f64")?;
        let ordered = u64::from_be_bytes(self.array()?);
        let sign = 1 << 63;
        let bits = if ordered & sign == 0 {
            !ordered
        } else {
            ordered ^ sign
        };
        Ok(f64::from_bits(bits))
    }

    /// Reads an `f32`.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn f32(&mut self) -> Result<f32> {
        self.take(tag::F32, "f32")?;
        let ordered = u32::from_be_bytes(self.array()?);
        let sign = 1 << 31;
        let bits = if ordered & sign == 0 {
            !ordered
        } else {
            ordered ^ sign
        };
        Ok(f32::from_bits(bits))
    }

    /// Reads a byte string.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        self.take(tag::BYTES, "byte string")?;
        self.escaped()
    }

    /// Reads a string.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn string(&mut self) -> Result<String> {
        self.take(tag::STRING, "string")?;
        let start = self.position as u64;
        String::from_utf8(self.escaped()?)
            .map_err(|_| Error::corruption("a string is not UTF-8").with_offset(start))
    }

    fn escaped(&mut self) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        loop {
            match self.next_byte()? {
                0 => match self.next_byte()? {
                    ESCAPED => value.push(0),
                    ENDED => return Ok(value),
                    _ => return Err(self.damaged("a zero byte of a string has no known meaning")),
                },
                byte => value.push(byte),
            }
        }
    }

    /// Reads one element that is a tuple, whose components `components` reads.
    ///
    /// # Errors
    /// As [`TupleReader::null`]; where tuples are nested deeper than [`MAX_DEPTH`].
    pub fn nested<T>(&mut self, components: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.take(tag::TUPLE, "tuple")?;
        if self.depth == MAX_DEPTH {
            return Err(self.damaged("tuples are nested too deep"));
        }
        self.depth += 1;
        let value = components(self)?;
        self.depth -= 1;
        self.take(tag::END, "end of a tuple")?;
        Ok(value)
    }

    /// Whether the open tuple ends here.
    #[must_use]
    pub fn is_at_end_of_tuple(&self) -> bool {
        self.peek().is_ok_and(|found| found == tag::END)
    }

    /// Reads one element that was written in the opposite order, as `element` does.
    ///
    /// # Errors
    /// As [`TupleReader::null`].
    pub fn descending<T>(&mut self, element: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.mask = !self.mask;
        let value = element(self)?;
        self.mask = !self.mask;
        Ok(value)
    }
}

fn kind_name(found: u8) -> String {
    if found & tag::DESCENDING != 0 {
        return "descending".to_string();
    }
    let name = match found {
        tag::END => "the end of a tuple",
        tag::NULL => "null",
        tag::FALSE | tag::TRUE => "a boolean",
        tag::MOST_NEGATIVE..=tag::MOST_POSITIVE => "an integer",
        tag::F32 => "an f32",
        tag::F64 => "an f64",
        tag::BYTES => "a byte string",
        tag::STRING => "a string",
        tag::TUPLE => "a tuple",
        unknown => return format!("of the unknown kind {unknown:#04x}"),
    };
    name.to_string()
}
