//! What stands twice in a select list: the planner wants names that differ, SQL does not.
//!
//! The later one gets a name of its own, from which [`shown_name`] takes the one that it has outside.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, Expr, Ident, OrderBy, OrderByKind, Query, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Visit, Visitor, WildcardAdditionalOptions,
};

use super::scope::{Found, Relation, find_column};
use super::wildcard::left_out;
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

/// Returns a text about columns with the names that they have outside.
pub fn without_marks(text: &str) -> String {
    let mut parts = text.split(MARK);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once(':').map_or(part, |(_, rest)| rest));
    }
    out
}

/// Gives names of their own to columns and expressions that a list over some tables has before. In a list
/// whose names nobody refers to but its ORDER BY, which `ordered` then holds, to those that are called as another too.
pub fn name_apart(
    projection: &mut [SelectItem],
    relations: &[Relation],
    ordered: Option<&HashSet<String>>,
) {
    let mut seen = Seen { relations, ordered, ..Seen::default() };
    for place in 0..projection.len() {
        match seen.take(place, &projection[place]) {
            Name::Fits => {}
            Name::Marked(name) => mark(projection, place, &name),
            Name::AsBefore(first, name) => {
                mark(projection, first, &name);
                mark(projection, place, &name);
            }
        }
    }
}

/// Names the item at a place so that it is shown under a name.
fn mark(projection: &mut [SelectItem], place: usize, name: &str) {
    let alias = Ident::with_quote('"', format!("{MARK}{place}:{name}"));
    let item = &mut projection[place];
    if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

enum Name {
    Fits,
    Marked(String),
    /// It is the same expression as the item at a place.
    AsBefore(usize, String),
}

/// What the items so far are.
#[derive(Default)]
struct Seen<'a> {
    relations: &'a [Relation],
    ordered: Option<&'a HashSet<String>>,
    /// Columns with the tables they are of, where that is known.
    columns: HashSet<(Option<String>, String)>,
    column_names: HashSet<String>,
    aliases: HashSet<String>,
    /// Other expressions, and where each stood first.
    expressions: HashMap<String, usize>,
    /// The planner names an expression with a sub-query by the sub-query's column.
    has_query: bool,
}

impl Seen<'_> {
    fn take(&mut self, place: usize, item: &SelectItem) -> Name {
        match item {
            SelectItem::UnnamedExpr(expr) => match column(expr) {
                Some((table, name)) => {
                    let table = table.or_else(|| self.table_of(&name));
                    let is_known = self.columns.contains(&(table.clone(), name.clone()));
                    let is_called = self.is_free(&name) && self.aliases.contains(&name);
                    self.add(table, name.clone());
                    if is_known || is_called { Name::Marked(name) } else { Name::Fits }
                }
                None => self.expression(place, expr),
            },
            SelectItem::ExprWithAlias { alias, .. } => {
                let name = normal(alias);
                let is_new = self.aliases.insert(name.clone());
                let is_known = !is_new || self.column_names.contains(&name);
                if is_known && self.is_free(&name) { Name::Marked(name) } else { Name::Fits }
            }
            SelectItem::Wildcard(options) => {
                let relations = self.relations;
                for relation in relations.iter().filter(|relation| relation.is_shown) {
                    self.star(relation, options, true);
                }
                Name::Fits
            }
            SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => {
                let name = name.0.last().and_then(|part| part.as_ident()).map(normal);
                let mut relations = self.relations.iter();
                if let Some(relation) = relations.find(|one| Some(&one.name) == name.as_ref()) {
                    self.star(relation, options, false);
                }
                Name::Fits
            }
            _ => Name::Fits,
        }
    }

    fn expression(&mut self, place: usize, expr: &Expr) -> Name {
        let text = expr.to_string();
        if holds_query(expr) {
            let is_second = std::mem::replace(&mut self.has_query, true);
            return if is_second { Name::Marked(query_name(expr, text)) } else { Name::Fits };
        }
        // Names of functions are the same in any case.
        let same = if text.contains(['\'', '"']) { text.clone() } else { text.to_lowercase() };
        match self.expressions.get(&same) {
            Some(first) => Name::AsBefore(*first, same),
            None => {
                self.expressions.insert(same, place);
                Name::Fits
            }
        }
    }

    /// Takes the columns that `*` shows of a table, where they are known.
    fn star(&mut self, relation: &Relation, options: &WildcardAdditionalOptions, merges: bool) {
        let Some(excluded) = excluded(options) else { return };
        let is_out =
            |name: &String| excluded.contains(name) || (merges && relation.merged.contains(name));
        for name in relation.columns.iter().flatten().filter(|name| !is_out(name)) {
            self.add(Some(relation.name.clone()), name.clone());
        }
    }

    fn add(&mut self, table: Option<String>, name: String) {
        self.column_names.insert(name.clone());
        self.columns.insert((table, name));
    }

    /// Returns the table that a name without one means.
    fn table_of(&self, name: &str) -> Option<String> {
        match find_column(self.relations, name) {
            Found::In(relation) => Some(relation.name.clone()),
            _ => None,
        }
    }

    /// True for a name that nobody refers to.
    fn is_free(&self, name: &str) -> bool {
        self.ordered.is_some_and(|ordered| !ordered.contains(name))
    }
}

/// Returns the names that a `*` leaves out; nothing where it does more than that.
fn excluded(options: &WildcardAdditionalOptions) -> Option<Vec<String>> {
    let is_more = options.opt_ilike.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_alias.is_some();
    let mut excluded: Vec<_> = left_out(options).map(normal).collect();
    if let Some(ExceptSelectItem { first_element, additional_elements }) = &options.opt_except {
        excluded.push(normal(first_element));
        excluded.extend(additional_elements.iter().map(normal));
    }
    (!is_more).then_some(excluded)
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

/// Returns the names that an ORDER BY refers to.
pub fn ordered(order_by: Option<&OrderBy>) -> HashSet<String> {
    let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = order_by else {
        return HashSet::new();
    };
    by.iter().filter_map(|by| column(&by.expr)).map(|(_, name)| name).collect()
}

/// True where an expression has a sub-query.
pub fn holds_query(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expr.visit(&mut Finder).is_break()
}

/// Returns what an expression with a sub-query is called: as the sub-query's one column, if it is no more.
fn query_name(expr: &Expr, text: String) -> String {
    let Expr::Subquery(query) = expr else { return text };
    let SetExpr::Select(select) = query.body.as_ref() else { return text };
    match select.projection.as_slice() {
        [SelectItem::ExprWithAlias { alias, .. }] => normal(alias),
        [SelectItem::UnnamedExpr(expr)] => {
            column(expr).map_or_else(|| expr.to_string(), |(_, name)| name)
        }
        _ => text,
    }
}
