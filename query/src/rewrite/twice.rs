//! What stands twice in a select list: the planner wants names that differ, SQL does not.
//!
//! The later one gets a name of its own, from which [`shown_name`] takes the first one's again where rows leave.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, SelectItemQualifiedWildcardKind};

use super::scope::Relation;
use crate::dialect::normal;

/// What no statement's own names begin with.
const MARK: char = '\u{1}';

/// Returns the name that a column has outside.
pub fn shown_name(name: &str) -> &str {
    match name.strip_prefix(MARK) {
        Some(rest) => rest.split_once(':').map_or(name, |(_, name)| name),
        None => name,
    }
}

/// True for a column that has another one's name outside.
pub fn is_twice(name: &str) -> bool {
    name.starts_with(MARK)
}

/// Gives names of their own to columns and expressions that a list over some tables has before; in a list
/// whose names nobody refers to, `is_outermost`, to those that are called as another too.
pub fn name_apart(projection: &mut [SelectItem], relations: &[Relation], is_outermost: bool) {
    let is_alone = relations.len() == 1;
    let mut columns: Vec<(Option<String>, String)> = Vec::new();
    let mut expressions = HashSet::new();
    let mut names = HashSet::new();
    for (place, item) in projection.iter_mut().enumerate() {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let known = match column(expr) {
                    Some((table, name)) => {
                        let same = |(other, column): &(Option<String>, String)| {
                            *column == name && (is_alone || *other == table)
                        };
                        let known = columns.iter().any(same);
                        columns.push((table, name.clone()));
                        known.then_some(name)
                    }
                    None => {
                        let text = expr.to_string().to_lowercase();
                        (!expressions.insert(text.clone())).then_some(text)
                    }
                };
                let Some(name) = known else { continue };
                (expr, name)
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = normal(alias);
                if names.insert(name.clone()) || !is_outermost {
                    continue;
                }
                (expr, name)
            }
            SelectItem::Wildcard(_) => {
                for relation in relations.iter().filter(|relation| relation.is_shown) {
                    columns.extend(columns_of(relation));
                }
                continue;
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let name = name.0.last().and_then(|part| part.as_ident()).map(normal);
                let named = relations.iter().find(|relation| Some(&relation.name) == name.as_ref());
                columns.extend(named.into_iter().flat_map(columns_of));
                continue;
            }
            _ => continue,
        };
        let alias = Ident::with_quote('"', format!("{MARK}{place}:{name}"));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// Returns the columns that `*` shows of a table, where they are known.
fn columns_of(relation: &Relation) -> impl Iterator<Item = (Option<String>, String)> {
    let names = relation.columns.iter().flatten();
    names.map(|name| (Some(relation.name.clone()), name.clone()))
}

/// Returns the table's name, where it is given, and the name of a column.
fn column(expr: &Expr) -> Option<(Option<String>, String)> {
    match expr {
        Expr::Identifier(ident) => Some((None, normal(ident))),
        Expr::CompoundIdentifier(parts) => {
            let (last, tables) = parts.split_last()?;
            Some((tables.last().map(normal), normal(last)))
        }
        _ => None,
    }
}
