//! Every SQL example in the documentation runs, in order, in a fresh server: a block marked `sql` must
//! work, one marked `sql error=SQLSTATE` must fail with that code; other marks are left alone.

use std::path::{Path, PathBuf};

use everwhen_tests::http::statements;
use everwhen_tests::one_at_a_time;
use everwhen_tests::process::Server;

struct Example {
    line: usize,
    sql: String,
    error: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the examples of a page.
fn examples(text: &str) -> Vec<Example> {
    let mut all = Vec::new();
    let mut open: Option<Example> = None;
    for (n, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => all.extend(open.take().filter(|example| example.line > 0)),
            (Some(example), None) => {
                example.sql.push_str(line);
                example.sql.push('\n');
            }
            (None, Some(mark)) => {
                let mut words = mark.split_whitespace();
                let is_sql = words.next() == Some("sql");
                let rest: Vec<&str> = words.collect();
                let skipped = rest.contains(&"sketch");
                let error = rest.iter().find_map(|w| w.strip_prefix("error=")).map(str::to_owned);
                let line = if is_sql && !skipped { n + 1 } else { 0 };
                open = Some(Example { line, sql: String::new(), error });
            }
            (None, None) => {}
        }
    }
    all
}

async fn run_page(page: &Path) -> usize {
    let text = std::fs::read_to_string(page).unwrap();
    let examples = examples(&text);
    if examples.is_empty() {
        return 0;
    }
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(&dir.path().join("data"), Some("2026-01-10T12:00:00Z")).await.unwrap();
    for example in &examples {
        let place = format!("{}:{}", page.display(), example.line);
        for statement in statements(&example.sql) {
            match &example.error {
                None => {
                    server
                        .client
                        .sql(&statement)
                        .await
                        .map_err(|e| format!("{place}: {e}"))
                        .unwrap();
                }
                Some(state) => {
                    let answer = server.client.sql_error(&statement).await;
                    let answer = answer.map_err(|e| format!("{place}: {e}")).unwrap();
                    assert_eq!(answer.body["sqlstate"], **state, "{place}: {}", answer.body);
                }
            }
        }
    }
    examples.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sql_example_in_the_docs_runs() {
    let _turn = one_at_a_time();
    let mut pages = vec![root().join("README.md")];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    let mut run = 0;
    for page in &pages {
        run += run_page(page).await;
    }
    println!("{run} examples");
    assert!(run >= 10, "only {run} examples were found");
}
