//! What a verb answers, for people and for programs.
//!
//! Invariant: with `--json` a command prints exactly one object on one line of standard output, with
//! `"ok"` first; without, what it says to people. Bytes that are not UTF-8 are `{"base64":...}`
//! there, as in the jsonl format. Made by the verbs, printed by the shell and the command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::failure::Result;
use crate::streams::Output;

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// For programs.
    pub(crate) json: bool,
    /// Somebody looks at it: columns are aligned, long values are cut.
    pub(crate) terminal: bool,
    /// It is one command of a session, not the only one.
    pub(crate) session: bool,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    /// For people; whole lines.
    text: String,
    /// For people at a terminal, where there is nothing else to say.
    note: String,
    /// For programs.
    fields: Map<String, Value>,
    /// Everything has been printed already.
    is_printed: bool,
}

impl Reply {
    /// It is done; `note` says so to people.
    pub(crate) fn done(note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..Self::default()
        }
    }

    /// Lines for people.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// What was too much to hold has been printed on the way.
    pub(crate) fn printed() -> Self {
        Self {
            is_printed: true,
            ..Self::default()
        }
    }

    /// Adds a field for programs.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Prints the answer of a command that succeeded.
    pub(crate) fn print(&self, style: Style) -> Result<()> {
        self.print_as(true, style)
    }

    /// Prints the answer of a command that succeeded or did not.
    pub(crate) fn print_as(&self, ok: bool, style: Style) -> Result<()> {
        if self.is_printed {
            return Ok(());
        }
        let mut output = Output::standard();
        if style.json {
            let mut line = format!("{{\"ok\":{ok}");
            for (name, value) in &self.fields {
                line += &format!(",{}:{value}", Value::from(name.as_str()));
            }
            output.write(line.as_bytes())?;
            output.write(b"}\n")?;
        } else {
            output.write(self.text.as_bytes())?;
            if self.text.is_empty() && !self.note.is_empty() && style.terminal && style.session {
                output.write(self.note.as_bytes())?;
                output.write(b"\n")?;
            }
        }
        output.finish()
    }
}

/// Bytes in JSON: a string where they are UTF-8, and `{"base64":...}` otherwise.
pub(crate) fn bytes_as_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json() {
        assert_eq!(
            bytes_as_json("é\n\0".as_bytes()).to_string(),
            "\"é\\n\\u0000\""
        );
        assert_eq!(bytes_as_json(b"\xff").to_string(), "{\"base64\":\"/w==\"}");
    }
}
