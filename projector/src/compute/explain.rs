//! EXPLAIN PROJECTION: how changes are found, and what is read as a whole.

use std::fmt::Write;
use std::sync::Arc;

use everwhen_query::table::{SystemClause, ValidClause};
use everwhen_storage::{ColumnId, Definitions, IndexDef, IndexId, TableDef};

use super::access::Access;
use super::admit::{Program, Way};
use super::evaluate::full_reads;
use super::node::{Aggregate, Join, JoinKind, Kind, Node, Output, Scan};
use super::residual::instant_column;

/// Says how a projection is computed.
pub fn text(program: &Program, definitions: &Definitions) -> String {
    let definitions = &with_indexes(program, definitions);
    let mut out = String::new();
    match &program.way {
        Way::Compare(why) => {
            line(&mut out, 0, "computed by comparing full results at both bases");
            line(&mut out, 1, &format!("because of {why}, which has no rule for its change"));
            for table in program.tables.values() {
                line(&mut out, 1, &format!("reads all of {} at every change of it", table.name));
            }
        }
        Way::Delta(root) => {
            line(&mut out, 0, "computed from what changes");
            let key = if program.unique {
                "unique by the query itself"
            } else {
                "counted where rows come without another going; duplicates are quarantined"
            };
            line(&mut out, 1, &format!("key: {key}"));
            if !program.unique && full_reads(root, Some(&program.key), definitions) > 0 {
                let how = access_text(root, &program.key, None, definitions);
                line(&mut out, 2, &format!("rows of a key are found {how}"));
            }
            describe(&mut out, 1, root, definitions);
        }
    }
    if program.clocked.is_empty() {
        line(&mut out, 1, "the clock changes nothing");
    }
    out
}

/// Adds the indexes that are made with the projection.
fn with_indexes(program: &Program, definitions: &Definitions) -> Definitions {
    let mut with = definitions.clone();
    for (table, columns) in program.indexes() {
        if definitions.index_on(table, &columns).is_none() {
            let id = IndexId(with.next_index);
            with.next_index += 1;
            let index = IndexDef { id, table, columns, ready: true };
            with.indexes.insert(id.0, Arc::new(index));
        }
    }
    with
}

fn line(out: &mut String, depth: usize, text: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{:width$}{text}", "", width = depth * 2);
}

fn describe(out: &mut String, depth: usize, node: &Node, definitions: &Definitions) {
    match &node.kind {
        Kind::Constant(_) => line(out, depth, "constant rows"),
        Kind::Scan(scan) => line(out, depth, &scan_text(scan)),
        Kind::Filter(filter) => line(out, depth, &format!("filter {}", filter.text)),
        Kind::Project(_) => line(out, depth, "columns"),
        Kind::Union(_) => line(out, depth, "union all"),
        Kind::Join(join) => describe_join(out, depth, join, definitions),
        Kind::Aggregate(aggregate) => describe_groups(out, depth, aggregate, definitions),
        Kind::Window(window) if window.partition.is_empty() => {
            line(out, depth, "window over all rows: recomputed as a whole at every change below");
        }
        Kind::Window(window) => {
            let names = names(&window.input, &window.partition);
            let how = access_text(&window.input, &window.partition, None, definitions);
            line(out, depth, &format!("window, recomputed by partition ({names}), read {how}"));
        }
        Kind::Top(_) => {
            line(out, depth, "order and limit: recomputed as a whole at every change below");
        }
    }
    for input in node.inputs() {
        describe(out, depth + 1, input, definitions);
    }
}

fn describe_join(out: &mut String, depth: usize, join: &Join, definitions: &Definitions) {
    let kind = match join.kind {
        JoinKind::Inner => "inner join",
        JoinKind::Left => "left join",
        JoinKind::Semi => "semi join",
        JoinKind::Anti => "anti join",
        JoinKind::Mark => "mark join",
    };
    let as_of = if join.as_of { ", as of one instant" } else { "" };
    let (left, right): (Vec<usize>, Vec<usize>) = join.on.iter().copied().unzip();
    let meets = if join.overlap().is_some() && !join.as_of { ", matched by range" } else { "" };
    if join.on.is_empty() {
        let text =
            format!("{kind} without equality: the other side is read as a whole{as_of}{meets}");
        return line(out, depth, &text);
    }
    let keys = names(&join.left, &left);
    let others = names(&join.right, &right);
    line(out, depth, &format!("{kind} on ({keys}) = ({others}){as_of}{meets}"));
    if let Some(residual) = &join.residual {
        line(out, depth + 1, &format!("where {}", residual.text));
    }
    let bounds = join.overlap().map(|overlap| (&overlap.left, &overlap.right));
    let instant = bounds.and_then(|(left, _)| instant_column(left));
    let left_how = access_text(&join.left, &left, instant, definitions);
    let instant = bounds.and_then(|(_, right)| instant_column(right));
    let right_how = access_text(&join.right, &right, instant, definitions);
    line(out, depth + 1, &format!("a change on the left finds the right {right_how}"));
    line(out, depth + 1, &format!("a change on the right finds the left {left_how}"));
}

fn describe_groups(out: &mut String, depth: usize, groups: &Aggregate, definitions: &Definitions) {
    if groups.group.is_empty() {
        return line(out, depth, "one group of all rows: recomputed at every change below");
    }
    let names = names(&groups.input, &groups.group);
    let how = access_text(&groups.input, &groups.group, None, definitions);
    let word = if groups.calls.is_empty() { "distinct" } else { "groups" };
    line(out, depth, &format!("{word} by ({names}): touched ones recomputed, read {how}"));
}

fn scan_text(scan: &Scan) -> String {
    let valid = match &scan.table.valid {
        ValidClause::Now => "as of now; future rows by their bounds".to_owned(),
        ValidClause::AsOf(at) => format!("as of {at}"),
        ValidClause::Overlapping(_) if scan.pointwise => {
            "all of valid time; only the instants that changed count".to_owned()
        }
        ValidClause::Overlapping(_) => "over valid time; rows beside a change count too".to_owned(),
    };
    let system = match &scan.table.system {
        SystemClause::Basis => "",
        SystemClause::AsOf(_) => ", as believed at a fixed instant",
        SystemClause::Between(..) | SystemClause::All => ", with superseded beliefs",
    };
    format!("{} {valid}{system}", scan.table.def.name)
}

fn names(node: &Node, columns: &[usize]) -> String {
    let names: Vec<&str> =
        columns.iter().map(|at| node.schema.field(*at).name().as_str()).collect();
    names.join(", ")
}

/// Says how rows are found by values of some columns.
fn access_text(
    node: &Node,
    columns: &[usize],
    instant: Option<usize>,
    definitions: &Definitions,
) -> String {
    match &node.kind {
        Kind::Scan(scan) => match scan.access_at(columns, instant, definitions) {
            Access::Key(_) => "by key".to_owned(),
            Access::Index(id, _) | Access::TimeIndex(id, _) => match definitions.indexes.get(&id.0)
            {
                Some(index) => {
                    format!("by an index on ({})", column_names(&scan.table.def, &index.columns))
                }
                None => "by an index".to_owned(),
            },
            Access::Full => format!("by reading all of {}", scan.table.def.name),
        },
        Kind::Filter(filter) => access_text(&filter.input, columns, instant, definitions),
        Kind::Project(project) => {
            let source = |at: &usize| project.outputs.get(*at).and_then(Output::source);
            let below: Vec<usize> = columns.iter().filter_map(source).collect();
            if below.is_empty() {
                return counted(node, columns, definitions);
            }
            let instant = instant.as_ref().and_then(source);
            access_text(&project.input, &below, instant, definitions)
        }
        _ => counted(node, columns, definitions),
    }
}

fn counted(node: &Node, columns: &[usize], definitions: &Definitions) -> String {
    match full_reads(node, Some(columns), definitions) {
        0 => "by keys and indexes".to_owned(),
        1 => "with one table read as a whole".to_owned(),
        count => format!("with {count} tables read as a whole"),
    }
}

fn column_names(table: &TableDef, ids: &[ColumnId]) -> String {
    let names: Vec<&str> = ids
        .iter()
        .filter_map(|id| match *id {
            ColumnId::VALID_FROM => Some("_valid_from"),
            id => table.column_by_id(id).map(|column| column.name.as_str()),
        })
        .collect();
    names.join(", ")
}
