//! The repository against its own rules: every rule over every file, and the dependency edges
//! against what cargo says they are.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use esker_tidy::rules::RULES;
use esker_tidy::rules::dependency_edges::{self, Edge};
use esker_tidy::{Repository, Violation};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn assert_none(rule: &str, violations: &[Violation]) {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        list.is_empty(),
        "{rule}: {} violations\n{}",
        list.len(),
        list.join("\n")
    );
}

#[test]
fn every_file_keeps_every_rule() {
    let repository = Repository::read(&root()).unwrap();
    assert!(repository.rust.len() > 20, "this is not the repository");
    let mut all = Vec::new();
    for (rule, check) in RULES {
        for mut violation in check(&repository) {
            violation.message = format!("[{rule}] {}", violation.message);
            all.push(violation);
        }
    }
    all.sort();
    assert_none("rules over files", &all);
}

/// The edges between packages of the workspace, as cargo resolves them.
fn workspace_edges(metadata: &Value) -> Vec<Edge> {
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if names.contains(&to) {
                edges.push(Edge {
                    from: package["name"].as_str().unwrap().to_owned(),
                    to: to.to_owned(),
                    is_dev: dependency["kind"].as_str() == Some("dev"),
                });
            }
        }
    }
    edges
}

#[test]
fn packages_depend_only_downwards() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let edges = workspace_edges(&metadata);
    let seen = |from: &str, to: &str| edges.iter().any(|edge| edge.from == from && edge.to == to);
    assert!(
        seen("esker", "esker-base") && seen("esker-cli", "esker"),
        "cargo's answer is not read"
    );
    assert_none("dependency edges", &dependency_edges::check(&edges));
}
