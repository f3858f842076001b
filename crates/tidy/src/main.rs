//! Prints what in the repository breaks a rule over its files, a line each; fails if anything does. The test
//! `repository` looks at dependencies as well, which cargo has to be asked for.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use esker_tidy::Repository;
use esker_tidy::rules::RULES;

fn main() -> std::io::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = Repository::read(&root)?;
    let mut outcome = ExitCode::SUCCESS;
    for (rule, check) in RULES {
        for violation in check(&repository) {
            println!("[{rule}] {violation}");
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}
