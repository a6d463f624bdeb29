//! How the rows of a restricted scan are found: by key, by an index of values or of values and an instant, or by
//! reading all.

use everwhen_query::table::{SystemClause, TableColumn, ValidClause};
use everwhen_storage::{ColumnId, ColumnType, Definitions, IndexDef, IndexId, Period};

use super::node::Scan;

/// How the rows of a restricted scan are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// By the table's key; the columns in key order.
    Key(Vec<usize>),
    /// By an index over these columns.
    Index(IndexId, Vec<usize>),
    /// By an index over these columns and an instant.
    TimeIndex(IndexId, Vec<usize>),
    /// By reading the whole table.
    Full,
}

impl Access {
    /// Returns how far it narrows down what is read.
    const fn narrows(&self) -> usize {
        match self {
            Self::Full => 0,
            Self::Index(_, columns) => 2 * columns.len(),
            Self::TimeIndex(_, columns) => 2 * columns.len() + 1,
            Self::Key(_) => usize::MAX,
        }
    }
}

impl Scan {
    /// Chooses how to find rows by values of some output columns.
    pub fn access(&self, columns: &[usize], definitions: &Definitions) -> Access {
        self.access_in_time(columns, None, definitions)
    }

    /// The same where the instant in an output column lies within ranges of time.
    pub fn access_at(
        &self,
        columns: &[usize],
        instant: Option<usize>,
        definitions: &Definitions,
    ) -> Access {
        let instant = instant.and_then(|at| self.instant(at));
        self.access_in_time(columns, instant, definitions)
    }

    /// The same, by what an index holds of the instant.
    pub fn access_in_time(
        &self,
        columns: &[usize],
        instant: Option<ColumnId>,
        definitions: &Definitions,
    ) -> Access {
        let stored: Vec<(usize, ColumnId)> = self.stored(columns);
        let place = |id: &ColumnId| stored.iter().find(|(_, of)| of == id).map(|(at, _)| *at);
        let key: Option<Vec<usize>> = self.table.def.key.iter().map(place).collect();
        if let Some(key) = key {
            return Access::Key(key);
        }
        let mut best = Access::Full;
        for index in definitions.indexes.values() {
            let usable = index.ready
                && index.table == self.table.def.id
                && index.columns.iter().all(|column| has_one_type(definitions, index, *column));
            if !usable {
                continue;
            }
            let found = match index.columns.split_last() {
                Some((last, equal)) if Some(*last) == instant => {
                    let columns: Option<Vec<usize>> = equal.iter().map(place).collect();
                    columns.map(|columns| Access::TimeIndex(index.id, columns))
                }
                _ => {
                    let columns: Option<Vec<usize>> = index.columns.iter().map(place).collect();
                    columns.map(|columns| Access::Index(index.id, columns))
                }
            };
            if let Some(found) = found.filter(|found| found.narrows() > best.narrows()) {
                best = found;
            }
        }
        best
    }

    /// Returns the index that would find rows by values of some output columns; `None` where the
    /// key does, or no index can.
    pub fn index_for(&self, columns: &[usize]) -> Option<Vec<ColumnId>> {
        let ids = self.indexable(columns);
        let by_key = self.table.def.key.iter().all(|id| ids.contains(id));
        (!ids.is_empty() && !by_key).then_some(ids)
    }

    /// Returns the index that would find rows by values of some output columns and a range of
    /// instants in another; `None` where the key does, or no index can.
    pub fn time_index_for(&self, columns: &[usize], instant: usize) -> Option<Vec<ColumnId>> {
        let mut ids = self.indexable(columns);
        let instant = self.instant(instant)?;
        if self.table.def.key.iter().all(|id| ids.contains(id)) {
            return None;
        }
        ids.retain(|id| *id != instant);
        ids.push(instant);
        Some(ids)
    }

    fn indexable(&self, columns: &[usize]) -> Vec<ColumnId> {
        let mut ids: Vec<ColumnId> = self
            .stored(columns)
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| {
                self.table.def.column_by_id(*id).is_some_and(|column| column.kind.may_be_key())
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Returns what an index would hold of a column of instants.
    pub fn instant(&self, column: usize) -> Option<ColumnId> {
        match self.column(column)? {
            TableColumn::Stored(id) => {
                let kind = &self.table.def.column_by_id(*id)?.kind;
                let counted =
                    matches!(kind, ColumnType::Timestamp | ColumnType::Int64 | ColumnType::Date);
                counted.then_some(*id)
            }
            TableColumn::ValidFrom | TableColumn::RawFrom => {
                // Bounds that are shown cut to a window are not those that are stored.
                let is_cut = self.table.cut() != Period::ALL;
                (!is_cut).then_some(ColumnId::VALID_FROM)
            }
            _ => None,
        }
    }

    fn stored(&self, columns: &[usize]) -> Vec<(usize, ColumnId)> {
        columns
            .iter()
            .filter_map(|at| match self.column(*at) {
                Some(TableColumn::Stored(id)) => Some((*at, *id)),
                _ => None,
            })
            .collect()
    }

    /// True where columns are the valid bounds of versions at one belief.
    pub fn is_over_time(&self, (from, to): (usize, usize)) -> bool {
        let from = matches!(self.column(from), Some(TableColumn::RawFrom | TableColumn::ValidFrom));
        let to = matches!(self.column(to), Some(TableColumn::RawTo | TableColumn::ValidTo));
        let one_belief = matches!(self.table.system, SystemClause::Basis | SystemClause::AsOf(_));
        from && to && one_belief && matches!(self.table.valid, ValidClause::Overlapping(_))
    }
}

/// True for a column that never had another type: an index has values as they were stored, so one
/// over a widened column would not find the older ones.
fn has_one_type(definitions: &Definitions, index: &IndexDef, column: ColumnId) -> bool {
    definitions.former_types(index.table, column).next().is_none()
}
