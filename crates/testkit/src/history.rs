//! What clients of a database saw, and whether one order of events explains it.
//!
//! * [`list_append`]: transactions that read lists and append to them. The lists tell who wrote after
//!   whom, so that the graph of dependencies, and every anomaly in it, follows from the history alone
//!   (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB
//!   2020). Anomalies go by the names of Adya, Liskov and O'Neil (ICDE 2000).
//! * [`register`]: single keys that are put and got. Whether such a history is linearizable is decided
//!   by its zones (Gibbons and Korach, "Testing Shared Memories", SIAM J. Computing 26(4), 1997).
//!
//! Invariant: what is reported is certain. A history that no anomaly is found in has been explained as
//! far as it was observed; what nobody has read says nothing. Imports nothing: a history comes from
//! any store.

mod graph;
pub mod list_append;
pub mod register;
