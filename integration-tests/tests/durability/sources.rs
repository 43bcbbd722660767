//! House rule: durable writing is in one place of each program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::repository;

/// What only the durable files may say.
const RESERVED: [&str; 8] =
    ["sync_all", "sync_data", "fs::rename", "rename(&", "renameat", "fsync", "fdatasync", "syncfs"];

/// Rust files below a folder.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_durable(path: &Path) -> bool {
    path.ends_with("durable.rs") || path.components().any(|part| part.as_os_str() == "durable")
}

/// The code of a line, without what is said about it.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn only_the_durable_files_of_each_program_sync_and_rename() -> Result<()> {
    let mut used = 0;
    for program in ["agent", "controller"] {
        let folders = match program {
            "agent" => &["agent/src", "agent/update/src", "agent/trust/src", "plugin-sdk/host/src"][..],
            _ => &["controller/src", "controller/rollout/src"][..],
        };
        for folder in folders {
            // Within the repository, or every path would have such a part if the checkout has.
            for path in sources(&repository().join(folder))? {
                let name = path.strip_prefix(repository())?;
                let text = fs::read_to_string(&path)?;
                let said =
                    text.lines().map(code).find(|line| RESERVED.iter().any(|word| line.contains(word)));
                used += usize::from(said.is_some());
                ensure!(
                    said.is_none() || is_durable(name),
                    "{}: {}",
                    name.display(),
                    said.unwrap_or_default()
                );
            }
        }
    }
    ensure!(used >= 2, "the two programs write durably somewhere");
    Ok(())
}
