//! The first load of a generation, in parts where the query allows: by keys of the table that
//! every row of the result comes from.

use arrow::array::ArrayRef;
use everwhen_query::columns::ColumnBuilder;
use everwhen_query::table::TableColumn;
use everwhen_storage::{ColumnType, RowKey};

use super::evaluate::evaluate;
use super::node::{Kind, Node, Output, Scan};
use super::source::Reader;
use super::zset::{Only, ZSet};
use crate::error::{Error, Result};

/// The table reference that each row of a result comes from one row of.
struct Driver<'a> {
    scan: &'a Scan,
    /// The result's columns that hold the table's key, in key order.
    columns: Vec<usize>,
}

/// Evaluates all rows of a node, part by part; `each` gets every row once.
///
/// `part_keys`: how many keys of the driving table make a part; `None` where the result's key is
/// not unique by itself, since only all rows of a key can tell whether it has one.
pub fn load(
    root: &Node,
    reader: &Reader<'_, '_>,
    part_keys: Option<usize>,
    each: &mut dyn FnMut(ZSet) -> Result<()>,
) -> Result<()> {
    let Some((driver, part_keys)) = driver(root).zip(part_keys) else {
        return each(evaluate(root, reader, None)?);
    };
    let keys = reader.all_keys(driver.scan)?;
    if keys.len() <= part_keys {
        return each(evaluate(root, reader, None)?);
    }
    for part in keys.chunks(part_keys.max(1)) {
        let only = Only::new(driver.columns.clone(), key_columns(driver.scan, part)?, false)?;
        each(evaluate(root, reader, Some(&only))?)?;
    }
    Ok(())
}

/// Finds the driver: down the preserved sides to one scan whose key is put out.
fn driver(root: &Node) -> Option<Driver<'_>> {
    let width = root.schema.fields().len();
    let mut scan = None;
    let mut places = Vec::new();
    for column in 0..width {
        if let Some((found, at)) = traced(root, column) {
            scan = Some(found);
            places.push((column, at));
        }
    }
    let scan = scan?;
    let holds = |id: &everwhen_storage::ColumnId| {
        places.iter().find_map(|(column, at)| {
            matches!(scan.column(*at), Some(TableColumn::Stored(of)) if of == id).then_some(*column)
        })
    };
    let columns: Option<Vec<usize>> = scan.table.def.key.iter().map(holds).collect();
    Some(Driver { scan, columns: columns? })
}

/// Follows a column to the scan at the end of the preserved sides.
fn traced(node: &Node, column: usize) -> Option<(&Scan, usize)> {
    match &node.kind {
        Kind::Scan(scan) => Some((scan, column)),
        Kind::Filter(filter) => traced(&filter.input, column),
        Kind::Project(project) => match project.outputs.get(column)? {
            Output::Column(at) => traced(&project.input, *at),
            _ => None,
        },
        Kind::Join(join) => traced(&join.left, join.side_column(column, false)?),
        _ => None,
    }
}

/// Returns keys as columns, in key order.
fn key_columns(scan: &Scan, keys: &[RowKey]) -> Result<Vec<ArrayRef>> {
    let def = &scan.table.def;
    let kinds: Vec<&ColumnType> =
        def.key.iter().filter_map(|id| def.column_by_id(*id).map(|column| &column.kind)).collect();
    let mut builders: Vec<ColumnBuilder> =
        kinds.iter().map(|kind| ColumnBuilder::new(kind, keys.len())).collect();
    for key in keys {
        let values = key.decode(&kinds)?;
        if values.len() != builders.len() {
            return Err(Error::internal("a key has a value for each of its columns"));
        }
        for (builder, value) in builders.iter_mut().zip(&values) {
            builder.append(value);
        }
    }
    Ok(builders.into_iter().map(ColumnBuilder::finish).collect())
}
