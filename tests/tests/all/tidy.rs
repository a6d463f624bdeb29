//! What the architecture promises and a machine can check: who depends on whom, which names stand
//! only where they belong, how big files and functions are (docs/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all Rust files below the workspace's crates, relative, with their text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> =
        ["storage", "query", "ingest", "projector", "proto", "server", "tests", "clients"]
            .map(|dir| root().join(dir))
            .to_vec();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 50, "the sources were not found");
    files.sort();
    files
}

#[test]
fn crates_depend_only_in_the_agreed_direction() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("everwhen-storage", [].as_slice()),
        ("everwhen-proto", &[]),
        ("everwhen-query", &["everwhen-storage"]),
        ("everwhen-ingest", &["everwhen-storage", "everwhen-query"]),
        ("everwhen-projector", &["everwhen-storage", "everwhen-query", "everwhen-proto"]),
        (
            "everwhen-server",
            &[
                "everwhen-storage",
                "everwhen-query",
                "everwhen-ingest",
                "everwhen-projector",
                "everwhen-proto",
            ],
        ),
    ]);
    let metadata =
        cargo_metadata::MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let Some(allowed) = allowed.get(name.as_str()) else { continue };
        for dependency in &package.dependencies {
            // Holds no code: it only unifies the features of outside dependencies.
            // Knows none of the others, and only tests use it.
            if dependency.name == "everwhen-fuzz" {
                assert_eq!(dependency.kind, cargo_metadata::DependencyKind::Development, "{name}");
                continue;
            }
            if dependency.name == "everwhen-unify" {
                continue;
            }
            if dependency.name.starts_with("everwhen-") {
                assert!(
                    allowed.contains(&dependency.name.as_str()),
                    "{name} may not depend on {}",
                    dependency.name
                );
            }
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), allowed.len(), "a crate is missing");
}

#[test]
fn names_stand_only_where_they_belong() {
    // (what, where it may stand). Paths are prefixes.
    let rules: &[(&str, &[&str])] = &[
        ("rocksdb::", &["storage/", "tests/"]),
        // Which filters a read may use is decided in two places alone.
        ("raw_iterator_cf", &["storage/src/engine.rs", "storage/src/scan/reader.rs"]),
        ("object_store::", &["storage/src/snapshot/bucket"]),
        ("rdkafka::", &["ingest/src/kafka", "ingest/src/mock.rs", "tests/"]),
        ("rusqlite::", &["projector/src/deliver/sinks/sqlite", "server/src/cli/demo", "tests/"]),
        ("gcp_bigquery_client::", &["projector/src/deliver/sinks/bigquery"]),
        ("axum::", &["server/", "tests/"]),
        ("SessionStateBuilder", &["query/src/session.rs"]),
        ("SessionContext::new", &["query/src/session.rs"]),
        ("std::time::SystemTime", &["storage/src/clock.rs"]),
        ("FIXME", &[]),
        ("dbg!(", &[]),
    ];
    for (file, text) in sources() {
        if file == "tests/tests/all/tidy.rs" {
            continue;
        }
        for (what, places) in rules {
            let allowed = places.iter().any(|place| file.starts_with(place));
            assert!(allowed || !text.contains(what), "{what} stands in {file}");
        }
    }
}

#[test]
fn the_delivering_half_knows_neither_the_store_nor_the_engine() {
    for (file, text) in sources() {
        if file.starts_with("projector/src/deliver/") {
            for what in ["everwhen_storage", "everwhen_query", "datafusion", "crate::compute"] {
                assert!(!text.contains(what), "{file} names {what}");
            }
        }
    }
}

#[test]
fn files_and_functions_stay_small() {
    let mut too_big = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > 800 {
            too_big.push(format!("{file} has {lines} lines"));
        }
        too_big.extend(
            long_functions(&text)
                .into_iter()
                .map(|(line, length)| format!("{file}:{line} has a function of {length} lines")),
        );
    }
    assert!(too_big.is_empty(), "{}", too_big.join("\n"));
}

/// Returns the line and length of functions over 70 lines, by the indentation rustfmt gives.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let is_function =
            ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "]
                .iter()
                .any(|head| code.starts_with(head));
        if !is_function || code.ends_with(';') {
            continue;
        }
        let close = format!("{indent}}}");
        let end = lines[start..].iter().position(|line| *line == close);
        if let Some(length) = end.map(|end| end + 1)
            && length > 70
        {
            long.push((start + 1, length));
        }
    }
    long
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut pages = vec![root().join("README.md")];
    let mut open = vec![root().join("docs")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for piece in text.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            let found = page.parent().unwrap().join(file).exists();
            assert!(found, "{} links to {target}, which is not there", page.display());
        }
    }
}
