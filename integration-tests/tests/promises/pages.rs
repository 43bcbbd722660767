//! The pages of the errors: one for each code in the sources, and none that no code leads to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::repository;

/// Texts in UPPER_SNAKE that are no codes: variables, parts of ELF, states of the proto.
const OTHERS: [&str; 9] = [
    "CARGO_",
    "DT_",
    "FLEETSWAP_",
    "GLIBC_",
    "LISTEN_",
    "OUT_DIR",
    "ROLLED_BACK",
    "ROLLING_BACK",
    "SCREAMING_SNAKE_CASE",
];

#[test]
fn every_code_has_its_page_and_every_page_its_code() -> Result<()> {
    let mut texts = BTreeSet::new();
    for folder in ["agent", "controller", "plugin-sdk", "proto"] {
        sources(&repository().join(folder), &mut |text| texts.extend(quoted(text)))?;
    }
    let pages = pages()?;
    ensure!(pages.len() > 100, "only {} pages were found", pages.len());
    let is_code = |text: &&String| {
        text.contains('_') && !OTHERS.iter().any(|other| text.starts_with(other)) && *text != "UPPER_SNAKE"
    };
    let missing: Vec<&String> = texts.iter().filter(is_code).filter(|text| !pages.contains(*text)).collect();
    ensure!(missing.is_empty(), "no page in docs/errors for {missing:?}");
    let stale: Vec<&String> = pages.iter().filter(|page| !texts.contains(*page)).collect();
    ensure!(stale.is_empty(), "no code leads to the pages {stale:?}");
    Ok(())
}

#[test]
fn every_page_has_a_title_and_its_three_parts() -> Result<()> {
    for code in pages()? {
        let text = fs::read_to_string(repository().join(format!("docs/errors/{code}.md")))?;
        ensure!(text.starts_with(&format!("# {code}\n")), "{code} has another title");
        for part in ["## What happened", "## Why", "## What to do"] {
            ensure!(text.contains(part), "{code}: no `{part}`");
        }
    }
    Ok(())
}

fn pages() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(repository().join("docs/errors"))?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    Ok(paths.iter().filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect())
}

/// Hands over what each source file holds before its own tests.
fn sources(folder: &Path, read: &mut impl FnMut(&str)) -> Result<()> {
    let tests = ["tests", "testing", "examples", "tests.rs", "testing.rs", "fixture.rs", "contract.rs"];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if tests.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            sources(&path, read)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            read(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
    Ok(())
}

fn quoted(text: &str) -> impl Iterator<Item = String> {
    let upper = |part: &&str| {
        let letters =
            part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        letters && part.starts_with(|first: char| first.is_ascii_uppercase()) && !part.ends_with('_')
    };
    text.split('"').filter(upper).map(str::to_owned)
}
