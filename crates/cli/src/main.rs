//! esker
mod formats;
fn main() {}
