//! Where the shell keeps what was typed.
//!
//! Invariant: `ESKER_HISTORY` names the file, and turns the history off where it is empty; otherwise
//! it is `esker/history` in the user's state directory (`XDG_STATE_HOME`, or `~/.local/state`).
//! Without any of these there is none. The directory is made, readable to its owner alone.

use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

/// The lines that are kept.
pub(super) const LINES: usize = 2000;

/// The file, if there is to be one. Its directory exists.
pub(super) fn file() -> Option<PathBuf> {
    let path = located(
        env::var_os("ESKER_HISTORY"),
        env::var_os("XDG_STATE_HOME"),
        env::home_dir(),
    )?;
    make_directory(path.parent()?)?;
    Some(path)
}

fn located(
    named: Option<OsString>,
    state: Option<OsString>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if let Some(named) = named {
        return (!named.is_empty()).then(|| PathBuf::from(named));
    }
    let state = state.map(PathBuf::from).filter(|state| state.is_absolute());
    let state = state.or_else(|| home.map(|home| home.join(".local").join("state")))?;
    Some(state.join("esker").join("history"))
}

fn make_directory(path: &Path) -> Option<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_history() {
        let os = |text: &str| Some(OsString::from(text));
        let home = || Some(PathBuf::from("/h"));
        let cases = [
            (os("/x/y"), os("/s"), home(), Some("/x/y")),
            (os(""), os("/s"), home(), None),
            (None, os("/s"), home(), Some("/s/esker/history")),
            (
                None,
                os("relative"),
                home(),
                Some("/h/.local/state/esker/history"),
            ),
            (None, None, home(), Some("/h/.local/state/esker/history")),
            (None, None, None, None),
        ];
        for (named, state, home, expected) in cases {
            assert_eq!(located(named, state, home), expected.map(PathBuf::from));
        }
    }
}
