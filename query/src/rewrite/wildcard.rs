//! `*` and `t.*` where a table shows more to the planner than to the user.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, SelectItem, SelectItemQualifiedWildcardKind,
    WildcardAdditionalOptions,
};

use super::Columns;
use super::scope::Relation;
use crate::dialect::{Clauses, normal};
use crate::error::{Error, Result, SqlState};

/// Writes out `*` and `t.*` wherever the planner's own expansion would show hidden columns.
/// Returns the names of the select list's columns, where all are known.
pub fn expand(
    projection: &mut Vec<SelectItem>,
    relations: &[Relation],
    clauses: &Clauses,
) -> Result<Columns> {
    let names = output(projection, relations);
    if !relations.iter().any(|relation| relation.has_hidden) {
        return Ok(names);
    }
    let mut expanded = Vec::with_capacity(projection.len());
    for item in projection.drain(..) {
        let (options, chosen): (_, Vec<&Relation>) = match &item {
            SelectItem::Wildcard(options) => {
                (options, relations.iter().filter(|relation| relation.is_shown).collect())
            }
            SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => match qualified(name, relations) {
                Some(relation) if relation.has_hidden => (options, vec![relation]),
                _ => {
                    expanded.push(item);
                    continue;
                }
            },
            _ => {
                expanded.push(item);
                continue;
            }
        };
        let is_qualified = matches!(item, SelectItem::QualifiedWildcard(..));
        let excluded = excluded(options, clauses)?;
        check_excluded(&excluded, &chosen, clauses)?;
        for relation in chosen {
            let hides = |name: &str| {
                excluded.iter().any(|ident| normal(ident) == name)
                    || (!is_qualified && relation.merged.iter().any(|merged| merged == name))
            };
            columns_of(relation, hides, &mut expanded);
        }
    }
    *projection = expanded;
    Ok(names)
}

fn columns_of(relation: &Relation, hides: impl Fn(&str) -> bool, into: &mut Vec<SelectItem>) {
    match &relation.columns {
        Some(columns) if are_told_apart(columns) => {
            for name in columns.iter().filter(|name| !hides(name)) {
                let column = Ident::with_quote('"', name.as_str());
                let parts = vec![relation.ident.clone(), column];
                into.push(SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)));
            }
        }
        // Nothing is hidden here: a table's columns are known, and those of others are all shown.
        _ => {
            let merged: Vec<_> = relation
                .merged
                .iter()
                .map(|name| ObjectName::from(vec![Ident::with_quote('"', name.as_str())]))
                .collect();
            let opt_exclude = (!merged.is_empty()).then_some(ExcludeSelectItem::Multiple(merged));
            let name = ObjectName::from(vec![relation.ident.clone()]);
            into.push(SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                WildcardAdditionalOptions { opt_exclude, ..WildcardAdditionalOptions::default() },
            ));
        }
    }
}

/// True where each column has a name, and no other one's.
fn are_told_apart(columns: &[String]) -> bool {
    let mut seen = HashSet::new();
    columns.iter().all(|name| !name.is_empty() && seen.insert(name))
}

/// Returns the columns that EXCLUDE names; other options of a `*` are refused.
fn excluded(options: &WildcardAdditionalOptions, clauses: &Clauses) -> Result<Vec<Ident>> {
    if options.opt_ilike.is_some()
        || options.opt_except.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_alias.is_some()
    {
        let message = "options of * other than EXCLUDE are not supported beside hidden columns";
        let at = clauses.positions.start(options.wildcard_token.0.span);
        return Err(Error::unsupported(message).at(at));
    }
    Ok(left_out(options).cloned().collect())
}

/// Returns the names that EXCLUDE leaves out of a `*`.
pub fn left_out(options: &WildcardAdditionalOptions) -> impl Iterator<Item = &Ident> {
    let names: &[ObjectName] = match &options.opt_exclude {
        None => &[],
        Some(ExcludeSelectItem::Single(name)) => std::slice::from_ref(name),
        Some(ExcludeSelectItem::Multiple(names)) => names,
    };
    names.iter().filter_map(|name| name.0.last()?.as_ident())
}

fn check_excluded(excluded: &[Ident], chosen: &[&Relation], clauses: &Clauses) -> Result<()> {
    if chosen.iter().any(|relation| relation.columns.is_none()) {
        return Ok(());
    }
    for ident in excluded {
        let name = normal(ident);
        let known = chosen.iter().filter_map(|relation| relation.columns.as_ref());
        if !known.flatten().any(|column| *column == name) {
            let message = format!("column \"{name}\" in EXCLUDE does not exist");
            return Err(Error::new(SqlState::UndefinedColumn, message)
                .at(clauses.positions.start(ident.span)));
        }
    }
    Ok(())
}

fn qualified<'r>(name: &ObjectName, relations: &'r [Relation]) -> Option<&'r Relation> {
    let name = normal(name.0.last()?.as_ident()?);
    relations.iter().find(|relation| relation.name == name)
}

/// Returns the names of a select list's columns before any expansion.
fn output(projection: &[SelectItem], relations: &[Relation]) -> Columns {
    let mut names = Vec::new();
    for item in projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => names.push(normal(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => names.push(normal(ident)),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                names.push(parts.last().map(normal).unwrap_or_default());
            }
            SelectItem::UnnamedExpr(_) => names.push(String::new()),
            SelectItem::ExprWithAliases { aliases, .. } => names.extend(aliases.iter().map(normal)),
            SelectItem::Wildcard(options) if is_plain(options) => {
                for relation in relations.iter().filter(|relation| relation.is_shown) {
                    let columns = relation.columns.as_ref()?;
                    let shown = columns.iter().filter(|name| !relation.merged.contains(name));
                    names.extend(shown.cloned());
                }
            }
            SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) if is_plain(options) => {
                names.extend(qualified(name, relations)?.columns.clone()?);
            }
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => return None,
        }
    }
    Some(names)
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    *options == WildcardAdditionalOptions::default()
}
