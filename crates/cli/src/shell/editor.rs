//! The shell at a terminal: prompt, line editing, history, and questions.
//!
//! Invariant: the prompt says which database, keyspace and transaction a command would meet. Ctrl-C
//! at the prompt gives the line up, while a command runs it stops the command; Ctrl-D ends the shell.

use std::cell::RefCell;
use std::rc::Rc;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::completion::{self, Source};
use super::{Next, history, run_line};
use crate::confirm::{Ask, is_yes};
use crate::failure::{Failure, Result};
use crate::session::{DEFAULT_KEYSPACE, Session};

/// The shell's part in line editing.
struct Assistant {
    source: Rc<RefCell<Source>>,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(completion::candidates(
            &self.source.borrow(),
            &line[..position],
        ))
    }
}

impl Hinter for Assistant {
    type Hint = String;
}
impl Highlighter for Assistant {}
impl Validator for Assistant {}
impl Helper for Assistant {}

/// The terminal.
struct Console {
    editor: Editor<Assistant, DefaultHistory>,
}

impl Ask for Console {
    fn ask(&mut self, question: &str) -> Option<bool> {
        // Only the last line can be a prompt.
        let (text, prompt) = question.rsplit_once('\n').unwrap_or(("", question));
        eprintln!("{text}");
        // Tabs and earlier lines are of no use in an answer.
        let helper = self
            .editor
            .helper_mut()
            .map(|helper| std::mem::take(&mut *helper.source.borrow_mut()));
        let answer = self.editor.readline(prompt);
        if let (Some(helper), Some(source)) = (self.editor.helper_mut(), helper) {
            *helper.source.borrow_mut() = source;
        }
        Some(answer.is_ok_and(|answer| is_yes(&answer)))
    }
}

/// Runs commands from the terminal until it ends, and gives the exit code.
pub(super) fn converse(session: &mut Session, with_history: bool) -> Result<u8> {
    let failed = |error: ReadlineError| Failure::Engine(format!("the terminal failed: {error}"));
    let source = Rc::new(RefCell::new(Source::default()));
    let mut console = Console {
        editor: editor(&source).map_err(failed)?,
    };
    let history = if with_history { history::file() } else { None };
    if let Some(path) = &history {
        // A first session has none yet.
        let _ = console.editor.load_history(path);
    }
    session.interrupt.install();
    greet(session);
    loop {
        *source.borrow_mut() = Source {
            db: session
                .connection
                .as_ref()
                .map(|connection| connection.db.clone()),
            keyspace: session
                .connection
                .as_ref()
                .map_or_else(String::new, |connection| connection.keyspace.clone()),
        };
        let line = match console.editor.readline(&prompt(session)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        if !line.trim().is_empty() {
            let _ = console.editor.add_history_entry(&line);
            if let Some(path) = &history {
                let _ = console.editor.append_history(path);
            }
        }
        match run_line(session, &line, &mut console) {
            Ok(Next::GoOn) => {}
            Ok(Next::Exit) => break,
            Err(failure) => failure.report(session.answering, None),
        }
    }
    source.borrow_mut().db = None;
    Ok(0)
}

fn editor(source: &Rc<RefCell<Source>>) -> rustyline::Result<Editor<Assistant, DefaultHistory>> {
    let config = Config::builder()
        .max_history_size(history::LINES)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .completion_prompt_limit(100)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistant {
        source: Rc::clone(source),
    }));
    Ok(editor)
}

fn greet(session: &Session) {
    let version = env!("CARGO_PKG_VERSION");
    let place = match &session.connection {
        Some(connection) if connection.db.recovery_state().created() && !connection.is_memory => {
            format!("{}, a new database", connection.place())
        }
        Some(connection) => connection.place(),
        None => "no database; connect DIR opens one".to_owned(),
    };
    if !session.style.json {
        println!("esker {version}: {place}. help lists the verbs, exit or Ctrl-D leaves.");
    }
}

/// What a command would meet: `db/keyspace [2 writes]> `.
fn prompt(session: &Session) -> String {
    let mut prompt = match &session.connection {
        None => "esker".to_owned(),
        Some(connection) if connection.keyspace == DEFAULT_KEYSPACE => connection.name.clone(),
        Some(connection) => format!("{}/{}", connection.name, connection.keyspace),
    };
    prompt.retain(|character| !character.is_control());
    if let Some(open) = &session.transaction {
        prompt += &format!(" [transaction, {}]", open.size());
    }
    prompt + "> "
}
