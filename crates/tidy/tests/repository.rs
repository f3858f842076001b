//! The repository against its own rules: every rule over every file, and the dependency edges
//! against what cargo says they are, and no dependency for nothing.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use esker_tidy::rules::RULES;
use esker_tidy::rules::dependency_edges::{self, Edge};
use esker_tidy::rules::unused_dependencies::{self, Declared};
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

/// What cargo says of the packages of the workspace.
fn packages() -> Vec<Value> {
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
    metadata["packages"].as_array().unwrap().clone()
}

fn dependencies(package: &Value) -> &[Value] {
    package["dependencies"].as_array().unwrap()
}

/// The edges between packages of the workspace.
fn workspace_edges(packages: &[Value]) -> Vec<Edge> {
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let names: Vec<String> = packages.iter().map(name).collect();
    let edges = packages.iter().flat_map(|package| {
        dependencies(package).iter().map(|dependency| Edge {
            from: name(package),
            to: name(dependency),
            is_dev: dependency["kind"].as_str() == Some("dev"),
            is_optional: dependency["optional"].as_bool() == Some(true),
        })
    });
    edges.filter(|edge| names.contains(&edge.to)).collect()
}

#[test]
fn packages_depend_only_downwards() {
    let edges = workspace_edges(&packages());
    let seen = |from: &str, to: &str| edges.iter().any(|edge| edge.from == from && edge.to == to);
    assert!(
        seen("esker", "esker-base") && seen("esker-cli", "esker"),
        "cargo's answer is not read"
    );
    assert_none("dependency edges", &dependency_edges::check(&edges));
}

#[test]
fn every_dependency_is_used() {
    let repository = Repository::read(&root()).unwrap();
    let root = root().canonicalize().unwrap();
    let mut declared = Vec::new();
    for package in packages() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap())
            .canonicalize()
            .unwrap();
        let folder = manifest
            .parent()
            .unwrap()
            .strip_prefix(&root)
            .unwrap()
            .to_owned();
        for dependency in dependencies(&package) {
            let name = dependency["rename"]
                .as_str()
                .or(dependency["name"].as_str())
                .unwrap();
            declared.push(Declared {
                folder: folder.to_str().unwrap().replace('\\', "/"),
                name: name.replace('-', "_"),
            });
        }
    }
    assert!(declared.len() > 20, "cargo's answer is not read");
    assert_none(
        "unused dependencies",
        &unused_dependencies::check(&repository, &declared),
    );
}
