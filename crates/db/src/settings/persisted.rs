//! What the manifest remembers of the options of a database, and what an open may ask for beside it.
//!
//! Invariant: an option that decides what the data mean is found again by an open that leaves it out,
//! and one that asks for another value is refused. Called by `open`, and by changes at run time.

use super::Settings;
use crate::keyspace_options::KeyspaceOptions;
use esker_base::{Error, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// Options of the database that every open must agree on: they stand in the manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PersistedSettings {
    pub(crate) default_ttl: Option<Duration>,
}

impl PersistedSettings {
    /// The same fields as those of a keyspace ([`KeyspaceOptions::encode`]). Nothing for all defaults,
    /// so that a database that uses none of them opens in older versions.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self.default_ttl {
            Some(ttl) => KeyspaceOptions::new().default_ttl(ttl).encode(),
            None => Vec::new(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let options = KeyspaceOptions::decode(bytes)?;
        Ok(Self {
            default_ttl: options.own_default_ttl().flatten(),
        })
    }
}

impl Settings {
    /// Takes over what the database persists. `given` names what this open asks for.
    pub(crate) fn adopt(
        mut self,
        persisted: &PersistedSettings,
        given: &BTreeSet<&'static str>,
    ) -> Result<Self> {
        if given.contains("default_ttl") && self.default_ttl != persisted.default_ttl {
            let show = |ttl: Option<Duration>| ttl.map_or("none".into(), |ttl| format!("{ttl:?}"));
            let sentence = format!(
                "option default_ttl is {}, but the database was made with {}: leave it out, or change \
                 it with Db::set_options",
                show(self.default_ttl),
                show(persisted.default_ttl)
            );
            return Err(Error::invalid_argument(sentence));
        }
        self.default_ttl = persisted.default_ttl;
        Ok(self)
    }

    /// What of it the manifest remembers.
    pub(crate) fn persisted(&self) -> PersistedSettings {
        PersistedSettings {
            default_ttl: self.default_ttl,
        }
    }
}
