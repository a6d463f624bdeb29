//! The figures of docs/performance.md: ratios measured side by side in one run (`make bench`).
//!
//! `everwhen-bench [point|deep|bytes|copies|backfill|drain|fanout|freshness|groups|operators|slices|tpch|remote|restart]..`; all of them without an argument.
//! Build it in release.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]
#![allow(clippy::cast_precision_loss, reason = "counts and bytes far below 2^52")]

mod backfill;
mod bitemporal;
mod bytes;
mod copies;
mod deep;
mod drain;
mod fanout;
mod fixture;
mod freshness;
mod groups;
mod operators;
mod peers;
mod point;
mod remote;
mod report;
mod restart;
mod slices;
mod tpch;

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
        tokio::task::block_in_place(|| point::run(&mut report));
    }
    if wants("deep") {
        tokio::task::block_in_place(|| deep::run(&mut report));
    }
    if wants("bytes") {
        tokio::task::block_in_place(|| bytes::run(&mut report));
    }
    if wants("copies") {
        tokio::task::block_in_place(|| copies::run(&mut report));
    }
    if wants("backfill") {
        tokio::task::block_in_place(|| backfill::run(&mut report));
    }
    if wants("drain") {
        drain::run(&mut report).await;
    }
    if wants("fanout") {
        fanout::run(&mut report).await;
    }
    if wants("freshness") {
        freshness::run(&mut report).await;
    }
    if wants("groups") {
        groups::run(&mut report).await;
    }
    if wants("operators") {
        operators::run(&mut report).await;
    }
    if wants("slices") {
        slices::run(&mut report).await;
    }
    if wants("tpch") {
        tpch::run(&mut report).await;
    }
    if wants("remote") {
        remote::run(&mut report).await;
    }
    if wants("restart") {
        restart::run(&mut report).await;
    }
    report.print();
}
