//! What the shell says of its verbs, and of lines that it does not understand.
//!
//! Invariant: made of the description of the verbs alone, so that help cannot say what is not so.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::args::Line;
use crate::display;
use crate::verbs::GROUPS;

const FOOTER: &str = "\
help VERB says more. Every verb takes --json, --yes and --keyspace NAME.
Words are separated by spaces; 'single quotes' keep everything as it is, \"double quotes\" and bare
words know \\n \\r \\t \\0 \\xHH \\u{HEX} and \\\\. After -- a word may begin with a dash. # begins a remark.
";

/// All verbs, in groups.
pub(crate) fn overview() -> String {
    let command = Line::command();
    let mut text = String::new();
    for (group, verbs) in GROUPS.iter().filter(|(group, _)| *group != "Start") {
        let lines: Vec<(String, String)> = verbs
            .iter()
            .map(|verb| {
                let subcommand = command.find_subcommand(verb);
                let aliases = subcommand.map(|verb| verb.get_visible_aliases().collect::<Vec<_>>());
                let mut name = format!("  {verb}");
                for alias in aliases.unwrap_or_default() {
                    name += &format!(", {alias}");
                }
                let about = subcommand.and_then(|verb| verb.get_about());
                let about = about.map_or("Print help".to_owned(), ToString::to_string);
                (name, about)
            })
            .collect();
        let _ = write!(text, "{group}\n{}\n", display::pairs(&lines));
    }
    text + FOOTER
}

/// Everything that clap says of a wrong line, as one sentence.
pub(crate) fn sentence(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let mut sentence = String::new();
    for line in rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.starts_with("For more information") {
            continue;
        }
        if let Some(usage) = line.strip_prefix("Usage:") {
            // The usage of a whole line says nothing; that of a verb does.
            let _ = if usage.contains("<COMMAND>") {
                write!(sentence, "; help lists the verbs")
            } else {
                write!(sentence, "; usage: {}", usage.trim())
            };
            continue;
        }
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let joint = match sentence.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        let _ = write!(sentence, "{joint}{line}");
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_names_every_verb() {
        let text = overview();
        for verb in Line::command().get_subcommands() {
            let name = verb.get_name();
            assert!(
                name == "shell" || text.contains(&format!("  {name}")),
                "{name}"
            );
        }
        assert!(
            text.contains("set, put") && text.contains("help  "),
            "{text}"
        );
    }
}
