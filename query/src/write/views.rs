//! CREATE VIEW and DROP VIEW: definitions that query owns, made in the writer's turn.

use arrow::datatypes::SchemaRef;
use everwhen_storage::{Batch, DefinitionChange, DefinitionKind, Definitions, Store, Tenant};

use super::answer_of;
use super::tables::unchanged;
use crate::dialect::ParseLimits;
use crate::dialect::parse_query;
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};
use crate::read::{Defaults, Reading};
use crate::rewrite::{is_twice, shown_name};
use crate::session::StatementContext;
use crate::statements::{CreateView, DropView};
use crate::system_tables::SystemTables;
use crate::views::{TemporaryViews, View, check, definition_of};

/// Makes or replaces a view.
///
/// # Errors
/// 42P07 where something of that name exists, 2BP01 where another view would no longer read, and
/// whatever is wrong with the query.
pub async fn create_view(
    store: &Store,
    system_tables: &SystemTables,
    create: &CreateView,
) -> Result<WriteAnswer> {
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    let exists = View::named(&definitions, &create.name).is_some();
    if exists && create.if_not_exists {
        return unchanged(store, turn.basis());
    }
    if definitions.table(&create.name).is_some() || (exists && !create.or_replace) {
        let what = if exists { "view" } else { "table" };
        let message = format!("{what} \"{}\" exists already", create.name);
        return Err(Error::new(SqlState::DuplicateTable, message).at(create.position));
    }
    let change = DefinitionChange::Put(definition_of(create));
    let next = definitions.with(std::slice::from_ref(&change), turn.basis().tx.plus(1));
    let ctx = StatementContext::new(store.clone(), turn.basis(), Tenant::default());
    check_columns(&ctx, &next, system_tables, create).await?;
    if exists {
        go_on(&ctx, system_tables, &definitions, &next)
            .await
            .map_err(|error| error.at(create.position))?;
    }
    let batch = Batch { definitions: vec![change], ..Batch::default() };
    answer_of(store, &turn.commit(batch).await?)
}

/// Makes or replaces a view of a session.
///
/// # Errors
/// 0A000 where there is no session, 42P07 where something of that name exists, 54000 beyond what a
/// session may hold, and whatever is wrong with the query.
pub async fn create_temporary_view(
    store: &Store,
    system_tables: &SystemTables,
    session: Option<&TemporaryViews>,
    create: &CreateView,
) -> Result<WriteAnswer> {
    let Some(session) = session else {
        let message = "a temporary view needs a session, and each request here stands alone";
        return Err(Error::unsupported(message)
            .at(create.position)
            .with_hint("connect over the Postgres wire, or put the query under WITH"));
    };
    let (basis, stored) = (store.latest(), store.definitions());
    let exists = View::temporary(&session.over(&stored), &create.name).is_some();
    if exists && create.if_not_exists {
        return unchanged(store, basis);
    }
    let what = match View::named(&stored, &create.name) {
        _ if exists && !create.or_replace => Some("temporary view"),
        Some(_) => Some("view"),
        None => stored.table(&create.name).map(|_| "table"),
    };
    if let Some(what) = what {
        let message = format!("{what} \"{}\" exists already", create.name);
        return Err(Error::new(SqlState::DuplicateTable, message).at(create.position));
    }
    let next = session.with(create).over(&stored);
    let ctx = StatementContext::new(store.clone(), basis, Tenant::default());
    check_columns(&ctx, &next, system_tables, create).await?;
    session.add(create)?;
    unchanged(store, basis)
}

/// Checks that a view's query can be read, and has as many columns as the view names.
async fn check_columns(
    ctx: &StatementContext,
    definitions: &Definitions,
    system_tables: &SystemTables,
    create: &CreateView,
) -> Result<()> {
    let schema = columns_of(ctx, definitions, system_tables, &create.query)
        .await
        .map_err(|error| error.within("in the view's query"))?;
    let (named, columns) = (create.columns.len(), schema.fields().len());
    let mut names = schema.fields().iter().map(|field| field.name());
    if named == 0
        && let Some(name) = names.find(|name| is_twice(name))
    {
        let name = shown_name(name);
        let message = format!("column \"{name}\" stands twice in the view's query");
        return Err(Error::new(SqlState::DuplicateColumn, message)
            .at(create.position)
            .with_hint("name the columns: CREATE VIEW v (a, b) AS .."));
    }
    if named > 0 && named != columns {
        let message = format!("the view names {named} columns, its query has {columns}");
        return Err(Error::new(SqlState::InvalidTableDefinition, message).at(create.position));
    }
    Ok(())
}

/// Checks that what views read before a change of definitions they read after it.
///
/// # Errors
/// 2BP01 with the view that would not.
pub(super) async fn go_on(
    ctx: &StatementContext,
    system_tables: &SystemTables,
    before: &Definitions,
    after: &Definitions,
) -> Result<()> {
    for definition in after.all(DefinitionKind::View) {
        let view = View::of(definition);
        let was = columns_of(ctx, before, system_tables, &view.query).await;
        if was.is_ok()
            && let Err(error) = columns_of(ctx, after, system_tables, &view.query).await
        {
            let message = format!("view \"{}\" would no longer read: {error}", view.name);
            return Err(Error::new(SqlState::DependentObjects, message));
        }
    }
    Ok(())
}

/// Plans a query over some definitions and returns its columns.
async fn columns_of(
    ctx: &StatementContext,
    definitions: &Definitions,
    system_tables: &SystemTables,
    query: &str,
) -> Result<SchemaRef> {
    let parsed = parse_query(query, &ParseLimits::default())?;
    check(&parsed)?;
    let reading = Reading { ctx, definitions, defaults: Defaults::default(), system_tables };
    reading.schema(&parsed).await
}

/// Drops a view: the session's, where it has one of the name.
///
/// # Errors
/// 42P01 where there is none, 2BP01 where another stored view reads it.
pub async fn drop_view(
    store: &Store,
    session: Option<&TemporaryViews>,
    drop: &DropView,
) -> Result<WriteAnswer> {
    if session.is_some_and(|views| views.remove(&drop.name)) {
        return unchanged(store, store.latest());
    }
    let turn = store.turn().await?;
    let definitions = turn.definitions();
    if View::named(&definitions, &drop.name).is_none() {
        if drop.if_exists {
            return unchanged(store, turn.basis());
        }
        let message = format!("view \"{}\" does not exist", drop.name);
        return Err(Error::new(SqlState::UndefinedTable, message).at(drop.position));
    }
    if let Some(user) = view_over(&definitions, &drop.name)? {
        let message = format!("view \"{}\" is used by view \"{user}\"", drop.name);
        return Err(Error::new(SqlState::DependentObjects, message).at(drop.position));
    }
    let change = DefinitionChange::Drop(DefinitionKind::View, drop.name.clone());
    let batch = Batch { definitions: vec![change], ..Batch::default() };
    answer_of(store, &turn.commit(batch).await?)
}

/// Returns a view whose query names a table or view.
///
/// # Errors
/// Where a stored view does not parse.
pub(super) fn view_over(definitions: &Definitions, name: &str) -> Result<Option<String>> {
    for definition in definitions.all(DefinitionKind::View) {
        let view = View::of(definition);
        if view.name != name && view.names(name)? {
            return Ok(Some(view.name));
        }
    }
    Ok(None)
}
