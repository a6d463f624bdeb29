//! Writes a step of which the sink may refuse some rows, so that they hold up nothing else.
//!
//! A row is reported before the sink's control row moves past it. A crash before the report finds the
//! row again; a crash after it leaves the key held at the server, and the report is repeated or the
//! sink knows the change already. So a row is never passed over without being known as held.

use super::error::RefusedRow;
use super::step::Step;

/// Parts of a step that are not written yet, the next one last.
#[derive(Debug)]
pub struct Parts {
    open: Vec<Step>,
}

/// What follows from a refusal of rows.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The part was cut: write the next one.
    Cut,
    /// These rows are to be reported; then the part is written without them.
    Report(Vec<RefusedRow>),
}

impl Parts {
    /// Starts with the whole step.
    pub fn new(step: Step) -> Self {
        Self { open: vec![step] }
    }

    /// Returns the part to write next.
    pub fn next(&self) -> Option<&Step> {
        self.open.last()
    }

    /// Takes note that the next part is written.
    pub fn written(&mut self) {
        self.open.pop();
    }

    /// Decides what to do about rows that the sink refuses in the next part: those that it names are
    /// passed over; if it names none, the part is halved until one row is left. Returns nothing if
    /// there is no row left to write that it could mean.
    pub fn refused(&mut self, rows: Vec<RefusedRow>, detail: &str) -> Option<Verdict> {
        let mut part = self.open.pop()?;
        let writable: Vec<u64> = part.writable(0).map(|row| row.change).collect();
        let named: Vec<RefusedRow> =
            rows.into_iter().filter(|row| writable.contains(&row.change)).collect();
        let report = match (named.is_empty(), writable.as_slice()) {
            (false, _) => named,
            (true, []) => return None,
            (true, [change]) => vec![RefusedRow { change: *change, reason: detail.to_owned() }],
            (true, _) => {
                let half = part.rows.len() / 2;
                self.open.push(part.part(half, usize::MAX));
                self.open.push(part.part(0, half));
                return Some(Verdict::Cut);
            }
        };
        part.refused.extend(report.iter().map(|row| row.change));
        self.open.push(part);
        Some(Verdict::Report(report))
    }
}

#[cfg(test)]
mod tests {
    use everwhen_proto::v1::{Chunk, Lease, RowChange, SinkColumn};
    use serde_json::json;

    use super::*;
    use crate::deliver::error::Error;
    use crate::deliver::kind::Cell;
    use crate::deliver::sink::Sink as _;
    use crate::deliver::sinks::memory::MemorySink;
    use crate::deliver::step::RowStep;
    use crate::deliver::target::Target;

    fn target() -> Target {
        let column =
            |name: &str| SinkColumn { name: name.into(), r#type: "int64".into(), nullable: true };
        Target::from_lease(&Lease {
            projection: "p".into(),
            lease: 1,
            generation: 1,
            table: "t".into(),
            columns: vec![column("id"), column("n")],
            key: vec!["id".into()],
            metadata: true,
            incarnation: "i".into(),
            ..Lease::default()
        })
        .unwrap()
    }

    /// Rows 1 to `count` with their number as value.
    fn step(target: &Target, count: u64) -> Step {
        let change =
            |n: u64| RowChange { row_json: json!({"id": n, "n": n}).to_string(), delete: false };
        let chunk = Chunk {
            generation: 1,
            first_change: 1,
            changes: (1..=count).map(change).collect(),
            reload_begin: true,
            reload_end: true,
            ..Chunk::default()
        };
        Step::from_chunk(target, chunk).unwrap()
    }

    fn value(row: &RowStep) -> Option<i64> {
        match row.row.as_ref()?.get(1)? {
            Cell::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Writes parts as the delivery loop does, but ends before the report number `reports_max`, as a
    /// crash would. Returns what was reported.
    async fn deliver(
        sink: &MemorySink,
        target: &Target,
        step: Step,
        reports_max: usize,
    ) -> Vec<RefusedRow> {
        let mut parts = Parts::new(step);
        let mut reported = Vec::new();
        while let Some(part) = parts.next() {
            match sink.write(target, part).await {
                Ok(()) => parts.written(),
                Err(Error::Rows { rows, detail, .. }) => {
                    if let Verdict::Report(rows) = parts.refused(rows, &detail).unwrap() {
                        if reported.len() >= reports_max {
                            return reported;
                        }
                        reported.extend(rows);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        reported
    }

    #[tokio::test]
    async fn the_rows_refused_are_found_and_all_others_written() {
        for names in [false, true] {
            for bad in [vec![1], vec![7, 8], vec![16], vec![3, 11, 16], (1..=16).collect()] {
                let refuses = bad.clone();
                let constraint = move |row: &RowStep| {
                    let bad = value(row).is_some_and(|n| refuses.contains(&n));
                    bad.then(|| "n must be good".to_owned())
                };
                let sink = MemorySink::constrained(constraint, names);
                let target = target();
                sink.prepare(&target).await.unwrap();
                let reported = deliver(&sink, &target, step(&target, 16), usize::MAX).await;
                let changes: Vec<i64> =
                    reported.iter().map(|row| i64::try_from(row.change).unwrap()).collect();
                assert_eq!(changes, bad, "names: {names}");
                assert!(reported.iter().all(|row| row.reason == "n must be good"));
                let rows = sink.rows(&target).await.unwrap();
                assert_eq!(rows.len(), 16 - bad.len());
                let control = sink.prepare(&target).await.unwrap();
                assert_eq!((control.change, control.reloading), (16, false));
            }
        }
    }

    #[tokio::test]
    async fn a_crash_before_a_report_finds_the_row_again() {
        let bad = |row: &RowStep| {
            value(row).is_some_and(|n| n % 5 == 0).then(|| "not of fives".to_owned())
        };
        for crash_at in 0..4 {
            let sink = MemorySink::constrained(bad, false);
            let target = target();
            sink.prepare(&target).await.unwrap();
            let before = deliver(&sink, &target, step(&target, 16), crash_at).await;
            assert_eq!(before.len(), crash_at.min(3));
            let after = deliver(&sink, &target, step(&target, 16), usize::MAX).await;
            let mut known: Vec<u64> = before.iter().chain(&after).map(|row| row.change).collect();
            known.dedup();
            assert_eq!(known, [5, 10, 15], "crash at report {crash_at}");
            assert_eq!(sink.rows(&target).await.unwrap().len(), 13);
            assert_eq!(sink.prepare(&target).await.unwrap().change, 16);
        }
    }
}
