//! Bank transfers: transactions over two keyspaces, optimistic and pessimistic, from several threads
//! at once. Whatever happens, the bank neither makes nor loses money, and its books agree.
//!
//! `cargo run -p esker --example bank_transfers`

use esker::{Db, Error, ErrorKind, Result, Transaction, TransactionOptions};
use std::thread;

const CUSTOMERS: [&str; 6] = ["Ada", "Barbara", "Edsger", "Grace", "Katherine", "Niklaus"];
/// What every customer has at first, in cents.
const OPENING_CENTS: i64 = 50_000;

/// The two keyspaces of the bank.
struct Bank {
    db: Db,
    accounts: esker::Keyspace,
    ledger: esker::Keyspace,
}

fn cents(stored: Option<esker::Value>) -> Result<i64> {
    let stored = stored.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such account"))?;
    let text = String::from_utf8_lossy(&stored);
    text.parse()
        .map_err(|_| Error::corruption("a balance is not a number"))
}

impl Bank {
    fn open(db: Db) -> Result<Self> {
        let (accounts, ledger) = (db.keyspace("accounts")?, db.keyspace("ledger")?);
        for customer in CUSTOMERS {
            accounts.put(customer, OPENING_CENTS.to_string())?;
        }
        Ok(Self {
            db,
            accounts,
            ledger,
        })
    }

    /// Moves money if there is enough of it, and says whether there was. Runs inside a transaction:
    /// both balances and the entry in the ledger change together, or nothing does.
    fn move_money(
        &self,
        tx: &mut Transaction,
        entry: &str,
        from: &str,
        to: &str,
        amount: i64,
    ) -> Result<bool> {
        // Locked in one order, so that two opposite transfers wait instead of meeting in a circle.
        let (first, second) = if from < to { (from, to) } else { (to, from) };
        tx.get_for_update_in(&self.accounts, first)?;
        tx.get_for_update_in(&self.accounts, second)?;
        let source = cents(tx.get_in(&self.accounts, from)?)?;
        let target = cents(tx.get_in(&self.accounts, to)?)?;
        if source < amount {
            return Ok(false);
        }
        tx.put_in(&self.accounts, from, (source - amount).to_string())?;
        tx.put_in(&self.accounts, to, (target + amount).to_string())?;
        tx.put_in(&self.ledger, entry, format!("{from} pays {to} {amount}"))?;
        Ok(true)
    }

    /// Money in all accounts, and entries in the ledger, at one moment.
    fn audit(&self) -> Result<(i64, u64)> {
        let snapshot = self.db.snapshot();
        let mut total = 0;
        for entry in snapshot.of(&self.accounts).iter() {
            let (_, balance) = entry?;
            total += cents(Some(balance))?;
        }
        Ok((total, snapshot.of(&self.ledger).count()?))
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    run(directory.path())?;
    Ok(())
}

fn run(directory: &std::path::Path) -> Result<()> {
    let bank = Bank::open(Db::open(directory)?)?;
    let money = OPENING_CENTS * CUSTOMERS.len() as i64;

    // Three tellers are optimistic: they never wait, and do again what another one overtook. One is
    // pessimistic: it locks the two accounts first.
    let transfers: u64 = thread::scope(|scope| {
        let bank = &bank;
        let teller = |teller: usize| {
            let options = match teller {
                0 => TransactionOptions::new().pessimistic(),
                _ => TransactionOptions::new(),
            };
            move || -> Result<u64> {
                let mut done = 0;
                for round in 0..50 {
                    let from = CUSTOMERS[(teller + round) % CUSTOMERS.len()];
                    let to = CUSTOMERS[(teller * 2 + round * 3 + 1) % CUSTOMERS.len()];
                    if from == to {
                        continue;
                    }
                    let (entry, amount) = (format!("{teller}/{round:03}"), 1_000 + round as i64);
                    let moved = bank.db.transact_with(&options, |tx| {
                        bank.move_money(tx, &entry, from, to, amount)
                    })?;
                    done += u64::from(moved);
                }
                Ok(done)
            }
        };
        let tellers: Vec<_> = (0..4).map(|number| scope.spawn(teller(number))).collect();
        // An auditor comes while they work: at every moment the sum is right.
        for _ in 0..20 {
            assert_eq!(bank.audit()?.0, money);
        }
        let joined = tellers.into_iter().map(|teller| {
            teller
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, "a teller failed")))
        });
        joined.sum::<Result<u64>>()
    })?;
    assert_eq!(bank.audit()?, (money, transfers));
    println!("{transfers} transfers, {money} cents before and after");

    // A transfer that is given up half-way leaves nothing: dropping it rolls it back.
    let before = bank.audit()?;
    let mut tx = bank.db.begin()?;
    assert!(bank.move_money(&mut tx, "half", "Ada", "Grace", 1)?);
    let point = tx.savepoint();
    tx.delete_in(&bank.accounts, "Ada")?;
    tx.rollback_to(point)?;
    drop(tx);
    assert_eq!(bank.audit()?, before);

    for entry in bank.accounts.iter() {
        let (customer, balance) = entry?;
        let cents = cents(Some(balance))?;
        let customer = String::from_utf8_lossy(&customer).into_owned();
        println!("{customer:>10} {:>5}.{:02}", cents / 100, cents % 100);
    }
    bank.db.close()
}
