//! esker behind the seam.
