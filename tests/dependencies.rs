//! What the project depends on, and what it asks of its readers.

use std::{collections::BTreeSet, path::Path, process::Command};

use cargo_metadata::{Metadata, MetadataCommand, Package};
use fs_err as fs;
use harness::files_below;

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What is built on this platform, with the features for GPUs as well: the manifests of the rest need not be here.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let options = ["--locked", "--all-features", "--filter-platform", host].map(str::to_owned);
    MetadataCommand::new().current_dir(workspace()).other_options(options).exec().unwrap()
}

fn foreign(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter().filter(|package| package.source.is_some())
}

#[test]
fn licences_and_sources_are_those_that_deny_toml_allows() {
    let deny: toml::Table = fs::read_to_string(workspace().join("deny.toml")).unwrap().parse().unwrap();
    let allowed: BTreeSet<spdx::Licensee> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| spdx::Licensee::parse(licence.as_str().unwrap()).unwrap())
        .collect();
    let metadata = metadata();
    for package in foreign(&metadata) {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or_else(|| panic!("{name} names no licence"));
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let is_allowed = expression.evaluate(|required| allowed.iter().any(|allowed| allowed.satisfies(required)));
        assert!(is_allowed, "{name} is under {licence}, which deny.toml does not allow");
        let source = package.source.as_ref().unwrap();
        assert!(source.is_crates_io(), "{name} comes from {source}");
    }
}

#[test]
fn no_dependency_asks_for_a_newer_rust_than_the_project_states() {
    let metadata = metadata();
    let stated = |package: &Package| package.rust_version.clone();
    let ours = metadata.workspace_packages().into_iter().find_map(stated).unwrap();
    for package in foreign(&metadata) {
        let theirs = stated(package).unwrap_or_else(|| ours.clone());
        assert!(theirs <= ours, "{} {} asks for Rust {theirs}, the project for {ours}", package.name, package.version);
    }
}

/// Lines of code, comments aside, with the word `unsafe` in them.
fn unsafe_lines(text: &str) -> usize {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines()
        .filter(is_code)
        .filter(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe"))
        .count()
}

/// A file and its number of lines with `unsafe`, as a row of the table in docs/reliability.md.
fn row(line: &str) -> Option<(String, usize)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let file = cells.next()?.strip_suffix('`')?;
    Some((file.to_owned(), cells.next()?.parse().ok()?))
}

#[test]
fn unsafe_code_is_where_the_docs_say_and_nowhere_else() {
    let docs = fs::read_to_string(workspace().join("docs/reliability.md")).unwrap();
    let listed: BTreeSet<(String, usize)> =
        docs.lines().filter_map(row).filter(|(file, _)| file.ends_with(".rs")).collect();
    let sources = files_below(&workspace().join("crates")).into_iter();
    let sources = sources.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let found: BTreeSet<(String, usize)> = sources
        .map(|path| {
            let name = path.strip_prefix(workspace()).unwrap().to_string_lossy().into_owned();
            (name, unsafe_lines(&fs::read_to_string(path).unwrap()))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(listed, found, "docs/reliability.md lists unsafe code (left), the sources have it (right)");
}
