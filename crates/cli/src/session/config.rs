//! `config`: the options of the open database, and changing those that may change.
//!
//! Invariant: every option is shown by the name and with the text that set it; what cannot be set is
//! refused with the reason, and nothing changes. A single command changes only what outlives it.

use esker::{ErrorKind, RuntimeOptions};
use serde_json::{Map, Value};

use super::{Context, Session};
use crate::display::{self, size};
use crate::failure::{Failure, Result};
use crate::reply::Reply;
use crate::verb_arguments::Config;

/// The options that a database remembers when it is closed.
const PERSISTED: [&str; 1] = ["default_ttl"];

impl Session {
    pub(super) fn config(&mut self, verb: &Config, context: &Context<'_>) -> Result<Reply> {
        match (&verb.name, &verb.value) {
            (Some(name), Some(text)) => self.set_option(name, text, context),
            (name, _) => self.show_options(name.as_deref()),
        }
    }

    fn set_option(&mut self, name: &str, text: &str, context: &Context<'_>) -> Result<Reply> {
        let mut change = RuntimeOptions::new();
        change.set_by_name(name, text)?;
        if !context.style.session && !PERSISTED.contains(&name) {
            return Err(Failure::Usage(format!(
                "{name} counts until the database is closed, which a single command does at once: set it \
                 in a shell"
            )));
        }
        self.db()?.set_options(&change)?;
        let shown = self.options_as_text(Some(name))?;
        let text = shown.first().map_or("", |(_, text)| text);
        let object = Map::from_iter([(name.to_owned(), as_json(text))]);
        Ok(
            Reply::done(format!("{name} is {} now", for_people(name, text)))
                .field("options", object),
        )
    }

    fn show_options(&mut self, name: Option<&str>) -> Result<Reply> {
        let options = self.options_as_text(name)?;
        let rows: Vec<Vec<String>> = options
            .iter()
            .map(|(name, text)| {
                let set = if may_change(name, text) {
                    "any time"
                } else {
                    "at open"
                };
                vec![(*name).to_owned(), for_people(name, text), set.to_owned()]
            })
            .collect();
        let object = options
            .iter()
            .map(|(name, text)| ((*name).to_owned(), as_json(text)));
        let text = display::table(&["option", "value", "set"], &rows);
        Ok(Reply::text(text).field("options", Map::from_iter(object)))
    }

    /// The option of this name, or all.
    fn options_as_text(&mut self, name: Option<&str>) -> Result<Vec<(&'static str, String)>> {
        let mut options = self.db()?.options().to_text();
        if let Some(name) = name {
            options.retain(|(known, _)| *known == name);
            if options.is_empty() {
                let sentence = format!("no option is called {name:?}; config alone lists them all");
                return Err(Failure::Usage(sentence));
            }
        }
        Ok(options)
    }
}

/// Whether the option may be set while the database is open.
fn may_change(name: &str, text: &str) -> bool {
    let set = RuntimeOptions::new().set_by_name(name, text);
    !set.is_err_and(|error| error.kind() == ErrorKind::Unsupported)
}

fn for_people(name: &str, text: &str) -> String {
    match text.parse() {
        Ok(bytes) if name.ends_with("_bytes") => format!("{text} ({})", size(bytes)),
        Ok(millis) if is_time(name) => {
            let time = std::time::Duration::from_millis(millis);
            format!("{text} ({})", crate::duration::shown(time))
        }
        _ => text.to_owned(),
    }
}

/// Whether the option is a number of milliseconds.
fn is_time(name: &str) -> bool {
    ["default_ttl", "ttl_cleanup_interval", "wal_archive_max_age"].contains(&name)
}

/// Numbers and yes or no as such, anything else as text.
fn as_json(text: &str) -> Value {
    let number = text.parse::<u64>().map(Value::from).ok();
    let number = number.or_else(|| text.parse::<f64>().map(Value::from).ok());
    match text {
        "true" | "false" => Value::from(text == "true"),
        _ => number.unwrap_or_else(|| Value::from(text)),
    }
}
