//! Writes elements: the one place that knows how values become ordered bytes.
//!
//! Invariant: every element is self-delimiting. A descending element is the complement of the
//! ascending one, byte by byte: since no encoding is a prefix of another, that reverses the order.

/// The first byte of an ascending element: kinds in the order that they have among each other. The
/// bytes from 0x80 on are the complements, of descending elements.
pub(crate) mod tag {
    /// Ends a nested tuple: smaller than the first byte of any element.
    pub(crate) const END: u8 = 0x00;
    pub(crate) const NULL: u8 = 0x02;
    pub(crate) const FALSE: u8 = 0x04;
    pub(crate) const TRUE: u8 = 0x05;
    /// Plus the number of magnitude bytes for positive integers, minus it for negative ones.
    pub(crate) const ZERO: u8 = 0x20;
    pub(crate) const MOST_NEGATIVE: u8 = ZERO - 16;
    pub(crate) const MOST_POSITIVE: u8 = ZERO + 16;
    pub(crate) const F32: u8 = 0x34;
    pub(crate) const F64: u8 = 0x38;
    pub(crate) const BYTES: u8 = 0x40;
    pub(crate) const STRING: u8 = 0x44;
    pub(crate) const TUPLE: u8 = 0x48;
    /// Where set, the element is descending.
    pub(crate) const DESCENDING: u8 = 0x80;
}

/// After a zero byte of a string: the string goes on.
pub(crate) const ESCAPED: u8 = 0xff;
/// After a zero byte of a string: the string has ended.
pub(crate) const ENDED: u8 = 0x01;

/// Appends elements to a key.
#[derive(Debug)]
pub struct TupleWriter<'a> {
    out: &'a mut Vec<u8>,
    /// 0xff inside descending elements.
    mask: u8,
}

impl<'a> TupleWriter<'a> {
    /// Appends to `out`.
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, mask: 0 }
    }

    fn byte(&mut self, byte: u8) {
        self.out.push(byte ^ self.mask);
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.mask == 0 {
            self.out.extend_from_slice(bytes);
        } else {
            let mask = self.mask;
            self.out.extend(bytes.iter().map(|byte| byte ^ mask));
        }
    }

    /// Appends a null: smaller than everything else.
    pub fn null(&mut self) {
        self.byte(tag::NULL);
    }

    /// Appends a boolean: false before true.
    pub fn bool(&mut self, value: bool) {
        self.byte(if value { tag::TRUE } else { tag::FALSE });
    }

    /// Appends an integer; its bytes do not depend on the width of the type it came from.
    pub fn signed(&mut self, value: i128) {
        if value >= 0 {
            return self.unsigned(value.unsigned_abs());
        }
        let magnitude = value.unsigned_abs().to_be_bytes();
        let skipped = leading_zeros(&magnitude);
        let count = 16 - skipped as u8;
        self.byte(tag::ZERO - count);
        // A larger magnitude is a smaller number.
        let complement = magnitude.map(|byte| !byte);
        self.raw(&complement[skipped..]);
    }

    /// As [`TupleWriter::signed`], for integers that are not negative.
    pub fn unsigned(&mut self, value: u128) {
        let magnitude = value.to_be_bytes();
        let skipped = leading_zeros(&magnitude);
        self.byte(tag::ZERO + (16 - skipped as u8));
        self.raw(&magnitude[skipped..]);
    }

    /// Appends a float in IEEE 754's total order: negative NaNs, numbers with -0 before +0, NaNs.
    pub fn f64(&mut self, value: f64) {
        let bits = value.to_bits();
        let sign = 1 << 63;
        let ordered = if bits & sign == 0 { bits | sign } else { !bits };
        self.byte(tag::F64);
        self.raw(&ordered.to_be_bytes());
    }

    /// As [`TupleWriter::f64`], in four bytes; of another kind than `f64`, and before it.
    pub fn f32(&mut self, value: f32) {
        let bits = value.to_bits();
        let sign = 1 << 31;
        let ordered = if bits & sign == 0 { bits | sign } else { !bits };
        self.byte(tag::F32);
        self.raw(&ordered.to_be_bytes());
    }

    /// Appends a byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.byte(tag::BYTES);
        self.escaped(value);
    }

    /// Appends a string, ordered by its UTF-8 bytes: by code points.
    pub fn string(&mut self, value: &str) {
        self.byte(tag::STRING);
        self.escaped(value.as_bytes());
    }

    fn escaped(&mut self, value: &[u8]) {
        for (index, part) in value.split(|&byte| byte == 0).enumerate() {
            if index > 0 {
                self.byte(0);
                self.byte(ESCAPED);
            }
            self.raw(part);
        }
        self.byte(0);
        self.byte(ENDED);
    }

    /// Appends one element that is a tuple: what `components` writes.
    pub fn nested(&mut self, components: impl FnOnce(&mut TupleWriter<'_>)) {
        self.byte(tag::TUPLE);
        components(self);
        self.byte(tag::END);
    }

    /// Appends what `element` writes in the opposite order: one element.
    pub fn descending(&mut self, element: impl FnOnce(&mut TupleWriter<'_>)) {
        self.mask = !self.mask;
        element(self);
        self.mask = !self.mask;
    }
}

fn leading_zeros(bytes: &[u8; 16]) -> usize {
    bytes.iter().take_while(|&&byte| byte == 0).count()
}
