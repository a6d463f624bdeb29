//! Names in force at a place of a query: tables to the left, queries around, WITH.

use datafusion::sql::sqlparser::ast::Ident;

use super::Columns;
use super::hidden::is_hidden;

/// One table of a FROM, as seen by the expressions of its query.
#[derive(Debug, Clone)]
pub struct Relation {
    /// The alias, or else the name; in normal form.
    pub name: String,
    /// The same as it stands in the tree.
    pub ident: Ident,
    /// Columns that `*` shows, where they are known.
    pub columns: Columns,
    /// True where it has columns that `*` must not show.
    pub has_hidden: bool,
    /// Columns that USING has merged into those of a table to the left.
    pub merged: Vec<String>,
    /// False on the far side of a semi or anti join.
    pub is_shown: bool,
}

impl Relation {
    /// Describes a table without anything hidden.
    pub fn plain(ident: Ident, name: String, columns: Columns) -> Self {
        Self { name, ident, columns, has_hidden: false, merged: Vec::new(), is_shown: true }
    }
}

/// A query of WITH.
#[derive(Debug, Clone)]
pub struct Cte {
    pub name: String,
    pub columns: Columns,
    /// Tables that stand in its place once it is written out.
    pub tables: u64,
}

/// Names in force, innermost first.
#[derive(Debug, Default)]
pub struct Scope<'p> {
    pub parent: Option<&'p Scope<'p>>,
    /// What WITH has named so far.
    pub ctes: Vec<Cte>,
    pub relations: Vec<Relation>,
}

impl<'p> Scope<'p> {
    /// Returns the WITH query of that name.
    pub fn cte(&self, name: &str) -> Option<&Cte> {
        let own = self.ctes.iter().rev().find(|cte| cte.name == name);
        match (own, self.parent) {
            (Some(cte), _) => Some(cte),
            (None, Some(parent)) => parent.cte(name),
            (None, None) => None,
        }
    }

    /// Returns this scope and those around it.
    pub fn outward(&self) -> impl Iterator<Item = &Scope<'p>> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let scope = next?;
            next = scope.parent;
            Some(scope)
        })
    }
}

/// Where an unqualified column was found.
pub enum Found<'r> {
    Nowhere,
    In(&'r Relation),
    /// Several tables have it.
    Ambiguous,
}

/// Looks an unqualified column up among tables of one level. A table whose columns are not known
/// is taken to have it where no other has.
pub fn find_column<'r>(relations: &'r [Relation], column: &str) -> Found<'r> {
    let shown = || relations.iter().filter(|relation| relation.is_shown);
    let known: Vec<_> = shown()
        .filter(|relation| !relation.merged.iter().any(|merged| merged == column))
        .filter(|relation| match &relation.columns {
            Some(columns) => {
                columns.iter().any(|name| name == column)
                    || (relation.has_hidden && is_hidden(column))
            }
            None => false,
        })
        .collect();
    let unknown: Vec<_> = shown().filter(|relation| relation.columns.is_none()).collect();
    match (known.as_slice(), unknown.as_slice()) {
        ([one], _) | ([], [one]) => Found::In(one),
        ([], []) => Found::Nowhere,
        _ => Found::Ambiguous,
    }
}
