//! Verbs on many records: `keys`, `scan`, `size`, `count`.
//!
//! Invariant: records stream by; memory is bounded by a screenful of them, or by one where nobody
//! looks. Where nobody looks a record is one line of escaped tsv whatever its bytes.

use super::{Context, Session};
use crate::display::{self, counted};
use crate::failure::{Failure, Result};
use crate::formats::Format;
use crate::key_range::KeyRange;
use crate::keys;
use crate::reply::{Reply, bytes_as_json};
use crate::streams::Output;
use crate::verb_arguments::{Keys, Scan, Walk};

/// Rows that are aligned with each other.
const ROWS: usize = 50;
/// The part of a terminal's width that keys may take.
const KEY_SHARE: usize = 3;

/// How the records of a walk are printed.
enum Printer {
    Json {
        has_any: bool,
    },
    Lines,
    Table {
        rows: Vec<(String, Vec<u8>)>,
        columns: usize,
    },
}

impl Session {
    pub(super) fn keys(&mut self, verb: &Keys, context: &Context<'_>) -> Result<Reply> {
        let mut range = KeyRange::of(&verb.walk.range)?;
        if let Some(beginning) = &verb.beginning {
            range = range.within(keys::parse(beginning, verb.walk.range.hex)?);
        }
        let limit = verb.most.or(verb.walk.limit);
        self.walk(&range, &verb.walk, limit, false, context)
    }

    pub(super) fn scan(&mut self, verb: &Scan, context: &Context<'_>) -> Result<Reply> {
        let range = KeyRange::of(&verb.walk.range)?;
        self.walk(&range, &verb.walk, verb.walk.limit, true, context)
    }

    fn walk(
        &mut self,
        range: &KeyRange,
        walk: &Walk,
        limit: Option<u64>,
        with_values: bool,
        context: &Context<'_>,
    ) -> Result<Reply> {
        let keyspace = self.keyspace(context)?;
        let mut entries = self.entries(&keyspace, range.bounds());
        let mut next = || match walk.reverse {
            true => entries.next_back(),
            false => entries.next(),
        };
        let mut output = Output::standard();
        let mut printer = Printer::begin(context, with_values, &mut output)?;
        let limit = limit.unwrap_or(u64::MAX);
        let mut count = 0;
        let mut more = false;
        let ended = loop {
            let entry = match next() {
                None => break Ok(()),
                Some(Err(error)) => break Err(Failure::from(error)),
                Some(Ok(_)) if count == limit => {
                    more = true;
                    break Ok(());
                }
                Some(Ok(entry)) => entry,
            };
            let value = with_values.then_some(&*entry.1);
            printer.record(&entry.0, value, &mut output)?;
            count += 1;
            if let Err(interrupted) = self.interrupt.check() {
                break Err(interrupted);
            }
        };
        printer.end(count, more, ended.as_ref().err(), &mut output)?;
        output.finish()?;
        match ended {
            // Its one object has said so already.
            Err(failure) if !context.style.json => Err(failure),
            Err(failure) => Err(Failure::Told(Box::new(failure))),
            Ok(()) => Ok(Reply::printed()),
        }
    }

    pub(super) fn size(&mut self, context: &Context<'_>) -> Result<Reply> {
        let keyspace = self.keyspace(context)?;
        let extent = self.extent(&keyspace, &KeyRange::default())?;
        let text = display::pairs(&[
            ("keys", display::count(extent.keys)),
            ("bytes of keys", display::size(extent.key_bytes)),
            ("bytes of values", display::size(extent.value_bytes)),
        ]);
        Ok(extent.counts(Reply::text(text)))
    }

    pub(super) fn count(&mut self, context: &Context<'_>) -> Result<Reply> {
        let keyspace = self.keyspace(context)?;
        let keys = if self.transaction.is_some() {
            self.extent(&keyspace, &KeyRange::default())?.keys
        } else {
            keyspace.count()?
        };
        Ok(Reply::text(format!("{keys}\n")).field("keys", keys))
    }
}

impl Printer {
    fn begin(context: &Context<'_>, with_values: bool, output: &mut Output) -> Result<Self> {
        let style = context.style;
        if style.json {
            let name = if with_values { "records" } else { "keys" };
            output.write(format!("{{\"ok\":true,\"{name}\":[").as_bytes())?;
            return Ok(Self::Json { has_any: false });
        }
        if style.terminal && style.session {
            return Ok(Self::Table {
                rows: Vec::new(),
                columns: display::terminal_columns(),
            });
        }
        Ok(Self::Lines)
    }

    fn record(&mut self, key: &[u8], value: Option<&[u8]>, output: &mut Output) -> Result<()> {
        match self {
            Self::Json { has_any } => {
                let comma = if *has_any { "," } else { "" };
                *has_any = true;
                let key = bytes_as_json(key);
                let record = match value {
                    Some(value) => serde_json::json!({ "key": key, "value": bytes_as_json(value) }),
                    None => key,
                };
                output.write(format!("{comma}{record}").as_bytes())
            }
            Self::Lines => {
                let mut line = Vec::new();
                let encoded = Format::Tsv.encode(key, value.unwrap_or_default(), &mut line);
                encoded.map_err(|problem| Failure::Refused(problem.into_owned()))?;
                if value.is_none() {
                    // What follows the key: a tab, an empty value, a newline.
                    line.truncate(line.len() - 2);
                    line.push(b'\n');
                }
                output.write(&line)
            }
            Self::Table { rows, columns } => {
                let Some(value) = value else {
                    return output.write((display::key(key, *columns) + "\n").as_bytes());
                };
                let kept = &value[..value.len().min(*columns * 4 + 1)];
                rows.push((display::key(key, *columns / KEY_SHARE), kept.to_vec()));
                if rows.len() < ROWS {
                    return Ok(());
                }
                print_rows(rows, *columns, output)
            }
        }
    }

    fn end(
        &mut self,
        count: u64,
        more: bool,
        failure: Option<&Failure>,
        output: &mut Output,
    ) -> Result<()> {
        match self {
            Self::Json { .. } => {
                let mut end = format!("],\"more\":{more}");
                if let Some(failure) = failure {
                    end += &format!(",\"error\":{}", failure.as_json());
                }
                output.write((end + "}\n").as_bytes())
            }
            Self::Lines => Ok(()),
            Self::Table { rows, columns } => {
                print_rows(rows, *columns, output)?;
                let counted = match (count, more) {
                    (0, false) => "(nothing)".to_owned(),
                    (_, true) => format!("(the first {}; there are more)", display::count(count)),
                    (_, false) => format!("({})", counted(count, "key", "keys")),
                };
                output.write((counted + "\n").as_bytes())
            }
        }
    }
}

fn print_rows(
    rows: &mut Vec<(String, Vec<u8>)>,
    columns: usize,
    output: &mut Output,
) -> Result<()> {
    let width = rows
        .iter()
        .map(|(key, _)| console::measure_text_width(key))
        .max();
    let left = columns.saturating_sub(width.unwrap_or(0) + 2).max(10);
    let pairs: Vec<(String, String)> = rows
        .drain(..)
        .map(|(key, value)| (key, display::value(&value, left)))
        .collect();
    output.write(display::pairs(&pairs).as_bytes())
}
