//! The figures of docs/performance.md: ratios measured side by side in one run (`make bench`).
//!
//! `everwhen-bench [drain|point|freshness]..`; all three without an argument. Build it in release.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on panics")]

mod drain;
mod freshness;
mod point;
mod report;

use report::Report;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: figures mean nothing, use `make bench`");
    }
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    let mut report = Report::default();
    if wants("point") {
        point::run(&mut report);
    }
    if wants("drain") {
        drain::run(&mut report).await;
    }
    if wants("freshness") {
        freshness::run(&mut report).await;
    }
    report.print();
}
