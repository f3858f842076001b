//! The only code of esker that touches a file system.
pub mod fs;
