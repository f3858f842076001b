//! Whole keys: single elements and Rust tuples of up to eight components.
//!
//! Invariant: a tuple as a key is its components one after the other; a tuple inside a key is one
//! element. A key of one component and a tuple of one are the same bytes.

use crate::convert::{FromElement, NeverNull, ToElement};
use crate::reader::TupleReader;
use crate::writer::TupleWriter;
use esker_base::Result;
use std::cmp::Reverse;

/// What can be encoded as a key, or as the leading components of one.
pub trait ToTuple {
    /// Writes the components.
    fn write(&self, writer: &mut TupleWriter<'_>);
}

/// What can be decoded from a key.
pub trait FromTuple: Sized {
    /// Reads the components.
    ///
    /// # Errors
    /// [`Corruption`](esker_base::ErrorKind::Corruption) with the offset, where they are not there.
    fn read(reader: &mut TupleReader<'_>) -> Result<Self>;
}

/// A type of keys: goes to bytes and back.
pub trait TupleKey: ToTuple + FromTuple {}

impl<T: ToTuple + FromTuple> TupleKey for T {}

/// The first components of a key of type `K`: what keys can be asked to begin with.
pub trait TuplePrefix<K>: ToTuple {}

macro_rules! single {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        impl<$($generics)*> ToTuple for $type where Self: ToElement {
            fn write(&self, writer: &mut TupleWriter<'_>) {
                self.write_element(writer);
            }
        }

        impl<$($generics)*> FromTuple for $type where Self: FromElement {
            fn read(reader: &mut TupleReader<'_>) -> Result<Self> {
                Self::read_element(reader)
            }
        }
    )*};
}

single! {
    [] bool; [] u8; [] u16; [] u32; [] u64; [] u128; [] usize;
    [] i8; [] i16; [] i32; [] i64; [] i128; [] isize;
    [] f32; [] f64; [] String; [] Vec<u8>;
    [const N: usize] [u8; N];
    [T] Option<T>;
    [T] Reverse<T>;
}

macro_rules! unsized_single {
    ($($type:ty;)*) => {$(
        impl ToTuple for $type {
            fn write(&self, writer: &mut TupleWriter<'_>) {
                self.write_element(writer);
            }
        }
    )*};
}

unsized_single! { str; [u8]; }

impl<T: ToTuple + ?Sized> ToTuple for &T {
    fn write(&self, writer: &mut TupleWriter<'_>) {
        (**self).write(writer);
    }
}

/// No component: what every key begins with.
impl ToTuple for () {
    fn write(&self, _: &mut TupleWriter<'_>) {}
}

impl<K> TuplePrefix<K> for () {}

macro_rules! tuples {
    ($(($($name:ident . $index:tt),+))*) => {$(
        impl<$($name: ToElement),+> ToTuple for ($($name,)+) {
            fn write(&self, writer: &mut TupleWriter<'_>) {
                $(self.$index.write_element(writer);)+
            }
        }

        impl<$($name: FromElement),+> FromTuple for ($($name,)+) {
            fn read(reader: &mut TupleReader<'_>) -> Result<Self> {
                Ok(($($name::read_element(reader)?,)+))
            }
        }

        impl<$($name: ToElement),+> ToElement for ($($name,)+) {
            fn write_element(&self, writer: &mut TupleWriter<'_>) {
                writer.nested(|writer| self.write(writer));
            }
        }

        impl<$($name: FromElement),+> FromElement for ($($name,)+) {
            fn read_element(reader: &mut TupleReader<'_>) -> Result<Self> {
                reader.nested(Self::read)
            }
        }

        impl<$($name),+> NeverNull for ($($name,)+) {}
    )*};
}

tuples! {
    (A.0)
    (A.0, B.1)
    (A.0, B.1, C.2)
    (A.0, B.1, C.2, D.3)
    (A.0, B.1, C.2, D.3, E.4)
    (A.0, B.1, C.2, D.3, E.4, F.5)
    (A.0, B.1, C.2, D.3, E.4, F.5, G.6)
    (A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7)
}

/// A component asked for may be a borrowed form of the one in the key: `&str` for `String`.
pub trait AsComponent<T>: ToElement {}

impl<T: ToElement> AsComponent<T> for T {}
impl AsComponent<String> for &str {}
impl AsComponent<Vec<u8>> for &[u8] {}

macro_rules! prefixes {
    ($(($($name:ident $asked:ident),+ ; $($rest:ident),*))*) => {$(
        impl<$($name, $asked: AsComponent<$name>,)+ $($rest),*> TuplePrefix<($($name,)+ $($rest,)*)>
            for ($($asked,)+) {}
    )*};
}

prefixes! {
    (A X; )
    (A X; B)
    (A X; B, C)
    (A X; B, C, D)
    (A X; B, C, D, E)
    (A X; B, C, D, E, F)
    (A X; B, C, D, E, F, G)
    (A X; B, C, D, E, F, G, H)
    (A X, B Y; )
    (A X, B Y; C)
    (A X, B Y; C, D)
    (A X, B Y; C, D, E)
    (A X, B Y; C, D, E, F)
    (A X, B Y; C, D, E, F, G)
    (A X, B Y; C, D, E, F, G, H)
    (A X, B Y, C Z; )
    (A X, B Y, C Z; D)
    (A X, B Y, C Z; D, E)
    (A X, B Y, C Z; D, E, F)
    (A X, B Y, C Z; D, E, F, G)
    (A X, B Y, C Z; D, E, F, G, H)
    (A X, B Y, C Z, D W; )
    (A X, B Y, C Z, D W; E)
    (A X, B Y, C Z, D W; E, F)
    (A X, B Y, C Z, D W; E, F, G)
    (A X, B Y, C Z, D W; E, F, G, H)
    (A X, B Y, C Z, D W, E V; )
    (A X, B Y, C Z, D W, E V; F)
    (A X, B Y, C Z, D W, E V; F, G)
    (A X, B Y, C Z, D W, E V; F, G, H)
}
