//! Why a step of a simulation did not go well.

use std::fmt;

/// See each variant.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so, which a fault of the disk may excuse.
    Refused(esker::Error),
    /// What was found is wrong, which nothing excuses.
    Wrong(String),
}

impl From<esker::Error> for Failure {
    fn from(error: esker::Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => {
                write!(f, "refused: {error}")?;
                let source = std::error::Error::source(error);
                source.map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::Wrong(sentence) => f.write_str(sentence),
        }
    }
}
