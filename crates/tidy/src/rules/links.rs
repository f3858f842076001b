//! A relative link in a page leads to a file that exists, and its fragment to a heading; a path of
//! the repository that a page names in code type exists as well.

use std::collections::HashSet;

use crate::{Repository, Violation};

/// Folders whose paths are checked wherever they stand between backticks.
const NAMED_FOLDERS: &[&str] = &["benches/", "crates/", "docs/", "fuzz/", "testdata/", ".ci/"];

/// Every relative link and every named path in a Markdown file that leads nowhere.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Violation> {
    let mut known: HashSet<&str> = HashSet::new();
    for file in &repository.files {
        known.extend(
            file.path
                .match_indices('/')
                .map(|(end, _)| &file.path[..end]),
        );
        known.insert(&file.path);
    }
    let mut violations = Vec::new();
    for file in repository
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
    {
        for (line, path) in named_paths(&file.text) {
            if !known.contains(path.trim_end_matches('/')) {
                let message = format!("there is no `{path}`");
                violations.push(Violation::new(&file.path, line, message));
            }
        }
        for (line, target) in link_targets(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let resolved = match path {
                "" => Some(file.path.clone()),
                path => resolve(&file.path, path),
            };
            let page = resolved.filter(|path| known.contains(path.as_str()));
            let Some(page) = page else {
                let message = format!("the link `{target}` leads nowhere");
                violations.push(Violation::new(&file.path, line, message));
                continue;
            };
            if !fragment.is_empty()
                && page.ends_with(".md")
                && !has_heading(repository, &page, fragment)
            {
                let message = format!("{page} has no heading for `#{fragment}`");
                violations.push(Violation::new(&file.path, line, message));
            }
        }
    }
    violations
}

/// The lines of `text` outside of code blocks, numbered from 1 on.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!is_fence && !in_code).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)`, with their lines; inline code is skipped.
fn link_targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    for (number, line) in prose_lines(text) {
        for (offset, _) in line.match_indices("](") {
            let is_code = line[..offset].matches('`').count() % 2 == 1;
            let target = &line[offset + 2..];
            if let Some(end) = target.find([')', ' ']).filter(|_| !is_code) {
                targets.push((number, &target[..end]));
            }
        }
    }
    targets
}

/// Paths between backticks, with their lines. Patterns and placeholders are no paths.
fn named_paths(text: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    for (number, line) in prose_lines(text) {
        for code in line.split('`').skip(1).step_by(2) {
            let is_path = NAMED_FOLDERS.iter().any(|folder| code.starts_with(folder));
            if is_path && !code.contains(['*', '<', '{', ' ', '…', '$']) {
                paths.push((number, code));
            }
        }
    }
    paths
}

/// `target` as seen from the folder of `page`; `None` where it is absolute or leaves the root.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Whether a heading of `page` has the anchor `fragment`, by GitHub's rule: lower case, spaces to
/// hyphens, other punctuation dropped.
fn has_heading(repository: &Repository, page: &str, fragment: &str) -> bool {
    let anchor = |heading: &str| -> String {
        let kept = heading
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c })
            .collect::<String>()
            .to_lowercase()
    };
    let Some(file) = repository.files.iter().find(|file| file.path == page) else {
        return false;
    };
    prose_lines(&file.text)
        .filter(|(_, line)| line.starts_with('#'))
        .any(|(_, line)| anchor(line.trim_start_matches('#')) == fragment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::cases::repository;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let cases: [(&str, usize); 17] = [
            ("[a](wal.md)", 0),
            ("[a](./wal.md#the-end-of-a-segment)", 0),
            ("[a](wal.md#nowhere)", 1),
            ("[a](../../README.md) and [b](../format)", 0),
            ("[a](../README.md)", 1),
            ("[a](missing.md) [b](missing.md)", 2),
            ("[a](https://example.com/x) [b](mailto:a@b.c)", 0),
            ("[a](/README.md)", 1),
            ("[a](../../../README.md)", 1),
            ("`[a](missing.md)`", 0),
            ("```\n[a](missing.md)\n```\n", 0),
            ("```\n```\n[a](missing.md)\n", 1),
            ("[a](wal.md \"title\")", 0),
            ("`docs/format/wal.md`, `docs/format/` and `docs/*.md`", 0),
            ("`docs/format/table.md`", 1),
            ("```\n`docs/format/table.md`\n```", 0),
            ("# Here\n[a](#here) [b](#there)", 1),
        ];
        for (text, expected) in cases {
            let found = check(&repository(&[
                ("README.md", ""),
                ("docs/format/page.md", text),
                ("docs/format/wal.md", "# WAL\n\n## The end of a segment\n"),
            ]));
            assert_eq!(found.len(), expected, "{text}: {found:?}");
        }
    }
}
