//! Merge operands in transactions: written blind, read together with what they lie on.
//!
//! Invariant: as in the database itself, no operand lies over a living value with an expiry. Where the
//! transaction sees one, its merge becomes a read and a write of the merged value; a value that was
//! written since its snapshot is the commit leader's to merge into.

use super::Transaction;
use super::reads::OwnWrite;
use crate::commit;
use crate::keyspace::Keyspace;
use esker_base::operand_chain::OperandChain;
use esker_base::write_batch::split_expiry;
use esker_base::{Result, ValueKind};

impl Transaction {
    /// Changes the value of `key` in the default keyspace by `operand`: see [`Keyspace::merge`]. The
    /// value is not read, and thus not protected, unless it expires.
    ///
    /// # Errors
    /// As [`Keyspace::merge`].
    ///
    /// ```
    /// use esker::merge_operators::Counter;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().merge_operator("default", Counter).open_in_memory()?;
    /// let mut tx = db.begin()?;
    /// tx.merge("stock", Counter::encode(5))?;
    /// assert_eq!(Counter::decode(&tx.get("stock")?.unwrap())?, 5);
    /// tx.commit()
    /// # }
    /// ```
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        let keyspace = (*self.db).clone();
        self.merge_in(&keyspace, key, operand)
    }

    /// As [`Transaction::merge`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::merge`].
    pub fn merge_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, operand) = (key.as_ref(), operand.as_ref());
        self.ready_to_write(keyspace, key, operand)?;
        let operator = keyspace.state().operator().get()?;
        let mut chain = OperandChain::default();
        chain.push_older(operand);
        let expiry_millis = match self.expiring_value(keyspace, key)? {
            Some((value, expiry_millis)) => {
                chain.set_base(ValueKind::Value, &value);
                Some(expiry_millis)
            }
            None if keyspace.state().indexes.any() => {
                // Entries follow from the value.
                self.protect_key(keyspace, key);
                if let Some(value) = self.value(keyspace, key)? {
                    chain.set_base(ValueKind::Value, &value);
                }
                None
            }
            None => return self.push(|batch| batch.merge_in(keyspace, key, operand)),
        };
        let value = chain.fold(operator, key)?;
        commit::check_entry(&self.db.engine().settings, key, &value)?;
        let takes_default = self.will_take_default(keyspace, key);
        self.push(|batch| match expiry_millis {
            Some(expiry_millis) => batch.put_until(keyspace, key, &value, expiry_millis),
            None if takes_default => batch.put_in(keyspace, key, &value),
            // An operand gets no default time to live, and so does not what it has become.
            None => batch.put_lasting_in(keyspace, key, &value),
        })
    }

    /// The living value of `key`, if it expires, and when.
    fn expiring_value(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>> {
        let own = self.batch.encoder.may_hold(ValueKind::ValueWithExpiry);
        if !own && !keyspace.state().load().may_hold_expiring() {
            return Ok(None);
        }
        match self.own_write(keyspace.id(), key) {
            OwnWrite::Found(trailer, stored) => {
                let expires = trailer.kind() == Some(ValueKind::ValueWithExpiry);
                let now_millis = self.db.engine().clock().now_millis();
                let living = split_expiry(stored)
                    .filter(|(expiry_millis, _)| expires && *expiry_millis > now_millis);
                return Ok(living.map(|(expiry, value)| (value.to_vec(), expiry)));
            }
            OwnWrite::Hidden => return Ok(None),
            OwnWrite::Absent => {}
        }
        let sequence = self.snapshot.sequence();
        let (value, expiry_millis) = keyspace.value_and_expiry(key, sequence)?;
        let (Some(value), Some(expiry_millis)) = (value, expiry_millis) else {
            return Ok(None);
        };
        // What was read must still be true when it is written down.
        self.protect_key(keyspace, key);
        Ok(Some((value.to_vec(), expiry_millis)))
    }
}
