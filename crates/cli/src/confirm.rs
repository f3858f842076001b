//! Asking before something is destroyed.
//!
//! Invariant: nothing is destroyed that was not named in the question, or with `--yes`; where there is
//! nobody to ask, nothing is destroyed. Called by the verbs that destroy.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::failure::{Failure, Result};

/// Somebody who can be asked.
pub(crate) trait Ask {
    /// The answer to `question`; `None` where there is nobody to give it.
    fn ask(&mut self, question: &str) -> Option<bool>;
}

/// Whoever sits at the terminal, if there is one: for single commands.
#[derive(Debug)]
pub(crate) struct Terminal;

impl Ask for Terminal {
    fn ask(&mut self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let mut stderr = io::stderr();
        write!(stderr, "{question}")
            .and_then(|()| stderr.flush())
            .ok()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        Some(is_yes(&answer))
    }
}

/// Nobody: a script.
#[derive(Debug)]
pub(crate) struct Nobody;

impl Ask for Nobody {
    fn ask(&mut self, _question: &str) -> Option<bool> {
        None
    }
}

/// Whether `answer` is a yes.
pub(crate) fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Returns only if `loss`, a sentence that says what will be lost, was agreed to.
pub(crate) fn confirm(ask: &mut dyn Ask, yes: bool, loss: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    match ask.ask(&format!("{loss}\nGo on? [y/N] ")) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::Unconfirmed("nothing was changed".into())),
        None => Err(Failure::Unconfirmed(format!(
            "{loss} Nobody is there to confirm it, so nothing was changed; give --yes to go on"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(bool);

    impl Ask for Says {
        fn ask(&mut self, question: &str) -> Option<bool> {
            assert!(question.starts_with("3 keys go.\n"), "{question}");
            Some(self.0)
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(confirm(&mut Says(true), false, "3 keys go.").is_ok());
        let refused = confirm(&mut Says(false), false, "3 keys go.").unwrap_err();
        assert_eq!(refused.exit_code(), 4);
        let nobody = confirm(&mut Nobody, false, "3 keys go.").unwrap_err();
        assert!(nobody.sentence().unwrap().contains("3 keys go."));
        assert!(confirm(&mut Nobody, true, "3 keys go.").is_ok());
        for (answer, expected) in [("y\n", true), (" YES ", true), ("", false), ("yeah", false)] {
            assert_eq!(is_yes(answer), expected, "{answer}");
        }
    }
}
